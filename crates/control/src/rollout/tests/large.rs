//! Rollouts with more devices than are counted for those who look: they end with the counts that ended them.

use muster_model::{SettingState, platform::Platform};
use muster_storage::testing::on_both;
use muster_trust::key::SigningKey;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{BASELINE, reconcile, reports, rollout};
use crate::{
    MIGRATIONS,
    access::Author,
    audit,
    devices::{self, Applicant},
    policy::testing::{Scene, TestDevice},
    rollout::progress::COUNTED_ON_SIGHT_MAX,
};

/// One device more than is counted on sight. Answers the first; the others only stand there.
async fn crowd(scene: &Scene) -> TestDevice {
    let first = scene.device(Platform::Linux).await;
    let others: Vec<Applicant> = (0..COUNTED_ON_SIGHT_MAX)
        .map(|_| {
            let key = SigningKey::generate_p256().expect("a key can be made");
            Applicant::unattested(Uuid::new_v4(), Platform::Linux, key.public().spki_der())
        })
        .collect();
    let tenant = scene.tenant;
    audit::commit(&scene.app, &Author::system(tenant), move |tx| {
        for applicant in &others {
            let admission = devices::consider(tx, tenant, applicant)?;
            devices::admit(tx, applicant, admission)?;
        }
        Ok(())
    })
    .await
    .expect("the devices are admitted");
    first
}

/// Every device has reported what the first one did.
async fn all_say_the_same(scene: &Scene) {
    let copied = scene
        .sql(
            "INSERT INTO rollout_report (tenant_id, device_id, epoch, generation, state_digest, state, settings, verdicts, \
             envelope, reported_at, bundles) SELECT d.tenant_id, d.device_id, d.epoch, r.generation, r.state_digest, \
             r.state, r.settings, r.verdicts, r.envelope, r.reported_at, r.bundles FROM devices_device d \
             JOIN rollout_report r ON r.tenant_id = d.tenant_id \
             WHERE d.tenant_id = $1 AND d.device_id <> r.device_id",
        )
        .await;
    assert_eq!(copied, COUNTED_ON_SIGHT_MAX as u64);
}

async fn counts(scene: &Scene, id: &str) -> [Value; 4] {
    let stage = rollout(scene, id).await["stages"][0].clone();
    ["devices", "pending", "verified", "failed"].map(|name| stage[name].clone())
}

/// A rollout to all of them in one stage, counted once while nobody had said anything.
async fn begun(scene: &Scene) -> (String, TestDevice) {
    let first = crowd(scene).await;
    scene.version("baseline", "1", BASELINE).await;
    let id = scene.activate("baseline", "1").await;
    assert_eq!(reconcile(&scene.app).await.expect("the reconciler runs"), 0);
    let all = json!(COUNTED_ON_SIGHT_MAX + 1);
    assert_eq!(
        counts(scene, &id).await,
        [all.clone(), all, json!(0), json!(0)],
        "what the reconciler counted is what is seen"
    );
    (id, first)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_rollout_is_completed_with_the_counts_that_completed_it() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let (id, first) = begun(&scene).await;
        reports(&scene, &first, SettingState::Verified).await;
        all_say_the_same(&scene).await;
        assert_eq!(reconcile(&scene.app).await.expect("the reconciler runs"), 1);
        assert_eq!(rollout(&scene, &id).await["state"], "completed");
        let all = json!(COUNTED_ON_SIGHT_MAX + 1);
        assert_eq!(counts(&scene, &id).await, [all.clone(), json!(0), all, json!(0)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_rollout_is_rolled_back_with_the_counts_that_failed_it() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let (id, first) = begun(&scene).await;
        reports(&scene, &first, SettingState::Failed).await;
        all_say_the_same(&scene).await;
        assert_eq!(reconcile(&scene.app).await.expect("the reconciler runs"), 1);
        let all = json!(COUNTED_ON_SIGHT_MAX + 1);
        let ended = rollout(&scene, &id).await;
        assert_eq!(ended["state"], "rolled_back", "{ended}");
        assert_eq!(counts(&scene, &id).await, [all.clone(), json!(0), json!(0), all]);
    })
    .await;
}
