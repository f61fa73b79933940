//! Enrollments that race, on both engines.

use muster_model::platform::Platform;
use muster_storage::testing::on_both;
use muster_trust::key::SigningKey;
use uuid::Uuid;

use super::{Applicant, DeviceState, admit, consider};
use crate::{
    MIGRATIONS,
    access::{Author, problem::UNAVAILABLE},
    audit, certificates,
    policy::testing::Scene,
};

fn applicant(device_uuid: Uuid) -> Applicant {
    let key = SigningKey::generate_p256().expect("a key can be made");
    Applicant {
        serial: Some("SN-1".to_owned()),
        ..Applicant::unattested(device_uuid, Platform::Linux, key.public().spki_der())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e4_of_many_keys_that_claim_one_hardware_at_once_one_is_active() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let (hardware, mut enrolling) = (Uuid::new_v4(), tokio::task::JoinSet::new());
        for _ in 0..12 {
            let (app, tenant, applicant) = (scene.app.clone(), scene.tenant, applicant(hardware));
            enrolling.spawn(async move {
                audit::commit(&app, &Author::system(tenant), move |tx| {
                    let admission = consider(tx, tenant, &applicant)?;
                    admit(tx, &applicant, admission)
                })
                .await
            });
        }
        let mut active = 0;
        for outcome in enrolling.join_all().await {
            match outcome {
                Ok(admitted) if admitted.state == DeviceState::Active => active += 1,
                Ok(admitted) => assert_eq!(admitted.state, DeviceState::Quarantined),
                Err(problem) => assert_eq!(problem.kind, UNAVAILABLE, "{problem}"),
            }
        }
        assert_eq!(active, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_held_until_it_is_revoked_and_not_after() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let device = scene.device(Platform::Linux).await;
        let (app, tenant, id) = (scene.app.clone(), scene.tenant, device.id);
        let (shared, spki) = (app.clone(), device.key.public().spki_der());
        let held = audit::commit(&app, &Author::system(tenant), move |tx| {
            let day = std::time::Duration::from_secs(86_400);
            let _issued = certificates::issue(tx, &shared.keys, id, 1, &spki, day)?;
            let serial = certificates::of_device(tx, tenant, id)?.remove(0).serial;
            let before = certificates::hold(tx, tenant, &serial, id, 1)?;
            let other_epoch = certificates::hold(tx, tenant, &serial, id, 2)?;
            let revoked = certificates::revoke_all(tx, id, "a test")?;
            let after = certificates::hold(tx, tenant, &serial, id, 1)?;
            Ok((before, other_epoch, revoked, after))
        })
        .await
        .expect("the transaction commits");
        assert_eq!(held, (true, false, 1, false));
    })
    .await;
}
