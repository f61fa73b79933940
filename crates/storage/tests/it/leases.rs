//! One holder at a time, and a token that tells an old holder from a new one.

use std::time::Duration;

use muster_storage::{Scope, StorageError, testing::on_both};

use crate::{INSERT_COUNTER, SCHEMA};

const TTL: Duration = Duration::from_secs(10);
const SECOND: i64 = 1_000_000;

#[tokio::test]
async fn a_lease_has_one_holder_until_it_expires() {
    on_both(SCHEMA, async |db| {
        let first = db
            .acquire_lease("job", "a", TTL, 0)
            .await
            .expect("asked")
            .expect("it is free");
        assert_eq!(
            db.acquire_lease("job", "b", TTL, 9 * SECOND)
                .await
                .expect("asked"),
            None
        );
        let other = db.acquire_lease("other", "b", TTL, 0).await.expect("asked");
        assert!(other.is_some(), "another job has another lease");
        assert!(db.renew_lease(&first, TTL, 9 * SECOND).await.expect("asked"));
        assert_eq!(
            db.acquire_lease("job", "b", TTL, 18 * SECOND)
                .await
                .expect("asked"),
            None
        );
        let second = db
            .acquire_lease("job", "b", TTL, 19 * SECOND)
            .await
            .expect("asked")
            .expect("it has expired");
        assert!(second.token > first.token);
        assert!(!db.renew_lease(&first, TTL, 19 * SECOND).await.expect("asked"));
        db.release_lease(first).await.expect("asked");
        assert_eq!(
            db.acquire_lease("job", "c", TTL, 20 * SECOND)
                .await
                .expect("asked"),
            None
        );
        let token = second.token;
        db.release_lease(second).await.expect("asked");
        let third = db
            .acquire_lease("job", "c", TTL, 20 * SECOND)
            .await
            .expect("asked")
            .expect("it was released");
        assert!(third.token > token);
        assert!(
            !db.renew_lease(&third, TTL, 30 * SECOND).await.expect("asked"),
            "too late"
        );
    })
    .await;
}

#[tokio::test]
async fn a_deposed_holder_cannot_write() {
    on_both(SCHEMA, async |db| {
        let old = db
            .acquire_lease("job", "a", TTL, 0)
            .await
            .expect("asked")
            .expect("it is free");
        let held = old.clone();
        let counted = db.write(Scope::System, move |tx| {
            tx.fence(&held)?;
            Ok::<_, StorageError>(tx.changes())
        });
        assert!(matches!(counted.await, Ok(0)), "a fence is no change");
        let new = db
            .acquire_lease("job", "b", TTL, 11 * SECOND)
            .await
            .expect("asked")
            .expect("it has expired");
        let refused = db
            .write(Scope::System, move |tx| {
                tx.execute(&INSERT_COUNTER, &[&"old", &1i64])?;
                tx.fence(&old)
            })
            .await;
        assert!(
            matches!(refused, Err(StorageError::LeaseLost { ref name }) if name == "job"),
            "{refused:?}"
        );
        let accepted = db.write(Scope::System, move |tx| tx.fence(&new)).await;
        assert!(accepted.is_ok(), "{accepted:?}");
    })
    .await;
}

#[tokio::test]
async fn of_many_contenders_one_gets_the_lease() {
    on_both(SCHEMA, async |db| {
        let contenders: Vec<_> = (0..20)
            .map(|number| {
                let db = db.db().clone();
                tokio::spawn(async move { db.acquire_lease("job", &format!("node-{number}"), TTL, 0).await })
            })
            .collect();
        let mut holders = 0;
        for contender in contenders {
            holders += usize::from(contender.await.expect("the task lives").expect("asked").is_some());
        }
        assert_eq!(holders, 1);
    })
    .await;
}

#[tokio::test]
async fn r8_a_lease_of_a_clock_far_ahead_holds_nobody_up() {
    const HOUR: i64 = 3600 * SECOND;
    on_both(SCHEMA, async |db| {
        let ahead = db
            .acquire_lease("job", "a", TTL, HOUR)
            .await
            .expect("asked")
            .expect("it is free");
        let next = db.acquire_lease("job", "b", TTL, 0).await.expect("asked");
        let next = next.expect("no clock that is right would have taken it until then");
        assert!(next.token > ahead.token);
        let refused = db.write(Scope::System, move |tx| tx.fence(&ahead)).await;
        assert!(
            matches!(refused, Err(StorageError::LeaseLost { .. })),
            "{refused:?}"
        );
        // Clocks that differ as clocks do are no reason.
        let near = db.acquire_lease("other", "a", TTL, 50 * SECOND).await;
        assert!(near.expect("asked").is_some());
        assert_eq!(db.acquire_lease("other", "b", TTL, 0).await.expect("asked"), None);
    })
    .await;
}
