//! Three months of secrets, by a clock that tests move.

use std::{collections::BTreeMap, time::Duration};

use muster_model::TenantId;
use muster_storage::{Lease, testing::on_both};
use serde_json::json;

use crate::{
    MIGRATIONS,
    access::tokens,
    alerts,
    policy::testing::Scene,
    secrets::{self, ROTATION_LEASE},
};

const HOUR: i64 = 3600;

impl Scene {
    async fn rotation_lease(&self) -> Lease {
        let now = self.app.clock.now().as_micros();
        let lease = self
            .app
            .db
            .acquire_lease(ROTATION_LEASE, &self.app.node, Duration::from_secs(5), now);
        let lease = lease.await.expect("the database answers");
        lease.expect("nobody else rotates")
    }

    /// What the loop does, once.
    pub(super) async fn rotate(&self) {
        let lease = self.rotation_lease().await;
        secrets::follow(&self.app).await.expect("versions can be read");
        secrets::rotate_due(&self.app, &lease).await.expect("it rotates");
        if alerts::reseal(&self.app).await.expect("it seals anew") {
            secrets::retire_sealing(&self.app, &lease)
                .await
                .expect("it retires");
        }
    }

    async fn versions(&self) -> BTreeMap<String, i64> {
        let all = secrets::secret_views(&self.app, self.tenant)
            .await
            .expect("there are records");
        all.into_iter()
            .map(|secret| (secret.name, secret.version))
            .collect()
    }

    fn enrollment_token(&self, tenant: TenantId) -> String {
        let (jti, now) = (
            muster_model::TokenId::generate(self.app.clock.now(), [7; 10]),
            self.app.clock.now(),
        );
        let made = tokens::issue_enrollment(&self.app.keys, tenant, jti, uuid::Uuid::nil(), now, 24 * HOUR);
        made.expect("a token is made").0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ninety_days_rotate_every_key_three_times_and_refuse_no_token_that_is_not_over() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        secrets::take_up(&scene.app)
            .await
            .expect("the first keys are taken up");
        scene.hook("first", true).await;
        let names = ["access-token-key", "enrollment-token-key", "sealing-key"];
        let mut enrollment: Vec<String> = Vec::new();
        for step in 0..90 * 8 + 2 {
            scene.rotate().await;
            if step % 2 == 0 {
                let answer = scene.call("GET", "/policies", None).await;
                assert_eq!(answer.status, 200, "{answer:?}");
                enrollment.push(scene.enrollment_token(scene.tenant));
                if enrollment.len() > 4 {
                    enrollment.remove(0);
                }
            }
            scene.pass_seconds(3 * HOUR);
            let now = scene.app.clock.now();
            for token in &enrollment[enrollment.len().saturating_sub(3)..] {
                let verified = tokens::verify_enrollment(&scene.app.keys, token, now);
                assert!(verified.is_ok(), "step {step}: {verified:?}");
            }
        }
        let versions = scene.versions().await;
        for name in names {
            assert_eq!(versions[name], 4, "{name}");
        }
        // The secret of a destination opens, though every key that ever sealed it but one is gone.
        let place = scene.items("/alert-destinations").await;
        assert_eq!(place[0]["name"], json!("first"));
        let tested = scene
            .ask("POST", "/alert-destinations/first/test", json!({}))
            .await;
        assert!(tested.status < 300, "{tested:?}");
        scene.evaluate().await;
        let alert = scene
            .alert_of("secret_overdue")
            .await
            .expect("what people rotate is overdue");
        let text = alert.to_string();
        assert!(
            text.contains("destination:first") && text.contains("client:"),
            "{text}"
        );
        assert!(!text.contains("access-token-key"), "{text}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_holds_is_not_rotated_and_a_lost_lease_rotates_nothing() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        secrets::take_up(&scene.app)
            .await
            .expect("the first keys are taken up");
        let before = scene.versions().await;
        let lost = scene.rotation_lease().await;
        scene.pass_seconds(31 * 24 * HOUR);
        let held = scene.rotation_lease().await;
        secrets::rotate_due(&scene.app, &lost)
            .await
            .expect("it says why in the record");
        assert_eq!(scene.versions().await, before, "the fence holds");
        secrets::rotate_due(&scene.app, &held).await.expect("it rotates");
        let after = scene.versions().await;
        for (name, version) in &before {
            let wanted = if name.starts_with("client:") {
                *version
            } else {
                version + 1
            };
            assert_eq!(after[name], wanted, "{name}");
        }
        let other = scene.beside().await;
        let seen = other.versions().await;
        assert_eq!(seen["access-token-key"], 2, "all tenants see what they share");
        let clients = seen.keys().filter(|name| name.starts_with("client:")).count();
        assert_eq!(clients, 1, "and no other tenant's clients");
    })
    .await;
}
