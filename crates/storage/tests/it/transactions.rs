//! Commit, rollback, neighbours in a group commit, conflicts.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use muster_storage::{Database, Engine, Scope, StorageError, Tx, testing::on_both};
use uuid::Uuid;

use crate::{
    ADD_COUNTER, COUNTER, COUNTERS, INSERT_COUNTER, INSERT_NUMBER, INSERT_PART, SCHEMA, SWAP_COUNTER,
    abandon, insert_label, labels,
};

/// The caller's own error, as the crates above have.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("refused")]
    ByRule,
    #[error(transparent)]
    Storage(#[from] StorageError),
}

async fn labels_of(db: &Database, tenant: Uuid) -> Vec<String> {
    db.read(Scope::Tenant(tenant), move |tx| labels(tx, tenant))
        .await
        .expect("labels can be read")
}

#[tokio::test]
async fn a_write_commits_on_ok_and_rolls_back_on_err() {
    on_both(SCHEMA, async |db| {
        let tenant = Uuid::new_v4();
        let kept = db
            .write(Scope::Tenant(tenant), move |tx| insert_label(tx, tenant, "kept"))
            .await;
        assert!(kept.is_ok(), "{kept:?}");
        let refused = db
            .write(Scope::Tenant(tenant), move |tx| {
                insert_label(tx, tenant, "undone")?;
                assert_eq!(labels(tx, tenant)?, ["kept", "undone"]);
                Err::<(), _>(Refused::ByRule)
            })
            .await;
        assert!(matches!(refused, Err(Refused::ByRule)));
        assert_eq!(labels_of(&db, tenant).await, ["kept"]);
    })
    .await;
}

#[tokio::test]
async fn constraint_violations_have_names() {
    on_both(SCHEMA, async |db| {
        let tenant = Uuid::new_v4();
        let scope = Scope::Tenant(tenant);
        let violate = async |job: fn(&mut Tx, Uuid) -> Result<(), StorageError>| {
            db.write(scope, move |tx| job(tx, tenant))
                .await
                .expect_err("the constraint is violated")
        };
        let unique = violate(|tx, tenant| {
            insert_label(tx, tenant, "twice")?;
            insert_label(tx, tenant, "twice")
        });
        let unique = unique.await;
        assert!(unique.is_unique("thing", &["tenant_id", "label"]), "{unique:?}");
        let primary = violate(|tx, tenant| {
            tx.execute(&INSERT_NUMBER, &[&tenant, &tenant, &1i64])?;
            tx.execute(&INSERT_NUMBER, &[&tenant, &tenant, &1i64]).map(drop)
        });
        let primary = primary.await;
        assert!(
            primary.is_unique("thing", &["tenant_id", "thing_id"]),
            "{primary:?}"
        );
        let foreign =
            violate(|tx, tenant| tx.execute(&INSERT_PART, &[&tenant, &tenant, &tenant]).map(drop)).await;
        assert!(matches!(foreign, StorageError::ForeignKey(_)), "{foreign:?}");
        let check =
            violate(|tx, tenant| tx.execute(&INSERT_NUMBER, &[&tenant, &tenant, &13i64]).map(drop)).await;
        assert!(matches!(check, StorageError::Constraint(_)), "{check:?}");
        let not_null = violate(|tx, _| tx.execute(&INSERT_COUNTER, &[&"a", &None::<i64>]).map(drop)).await;
        assert!(matches!(not_null, StorageError::Constraint(_)), "{not_null:?}");
    })
    .await;
}

#[tokio::test]
async fn a_transaction_cannot_go_on_after_a_failed_statement() {
    on_both(SCHEMA, async |db| {
        let tenant = Uuid::new_v4();
        let outcome = db
            .write(Scope::Tenant(tenant), move |tx| {
                insert_label(tx, tenant, "a")?;
                assert!(insert_label(tx, tenant, "a").is_err());
                assert!(matches!(
                    insert_label(tx, tenant, "b"),
                    Err(StorageError::Aborted)
                ));
                Ok::<_, StorageError>(())
            })
            .await;
        assert!(matches!(outcome, Err(StorageError::Aborted)), "{outcome:?}");
        assert!(labels_of(&db, tenant).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn an_attempt_may_fail_without_costing_the_transaction() {
    on_both(SCHEMA, async |db| {
        let tenant = Uuid::new_v4();
        let outcome = db
            .write(Scope::Tenant(tenant), move |tx| {
                insert_label(tx, tenant, "a")?;
                let failed = tx.attempt(|tx| {
                    insert_label(tx, tenant, "undone")?;
                    tx.attempt(|tx| insert_label(tx, tenant, "undone too"))?;
                    insert_label(tx, tenant, "a")
                });
                assert!(matches!(failed, Err(StorageError::Unique { .. })), "{failed:?}");
                assert_eq!(tx.changes(), 1);
                let swallowed = tx.attempt(|tx| {
                    let _ = insert_label(tx, tenant, "a");
                    Ok::<_, StorageError>(())
                });
                assert!(matches!(swallowed, Err(StorageError::Aborted)), "{swallowed:?}");
                tx.attempt(|tx| insert_label(tx, tenant, "b"))?;
                assert_eq!(tx.changes(), 2);
                Ok::<_, StorageError>(())
            })
            .await;
        assert!(outcome.is_ok(), "{outcome:?}");
        assert_eq!(labels_of(&db, tenant).await, ["a", "b"]);
    })
    .await;
}

#[tokio::test]
async fn a_failing_or_panicking_job_leaves_its_neighbors_alone() {
    on_both(SCHEMA, async |db| {
        let tenant = Uuid::new_v4();
        let jobs: Vec<_> = (0..90)
            .map(|number| {
                let db = db.db().clone();
                tokio::spawn(async move {
                    let job = move |tx: &mut Tx| {
                        insert_label(tx, tenant, &format!("{number:02}"))?;
                        match number % 3 {
                            0 => Ok(()),
                            1 => Err(Refused::ByRule),
                            _ => panic!("job {number} panics on purpose"),
                        }
                    };
                    (number, db.write(Scope::Tenant(tenant), job).await)
                })
            })
            .collect();
        for job in jobs {
            let (number, outcome) = job.await.expect("the task lives");
            let as_expected = match number % 3 {
                0 => outcome.is_ok(),
                1 => matches!(outcome, Err(Refused::ByRule)),
                _ => matches!(&outcome, Err(Refused::Storage(StorageError::Panicked(text))) if text.contains("on purpose")),
            };
            assert!(as_expected, "job {number}: {outcome:?}");
        }
        let expected: Vec<_> = (0..90).step_by(3).map(|number| format!("{number:02}")).collect();
        assert_eq!(labels_of(&db, tenant).await, expected);
        let read = db.read(Scope::System, |_| -> Result<(), StorageError> { panic!("a read panics on purpose") }).await;
        assert!(matches!(read, Err(StorageError::Panicked(_))));
    })
    .await;
}

#[tokio::test]
async fn of_fifty_conditional_updates_one_wins() {
    on_both(SCHEMA, async |db| {
        db.write(Scope::System, |tx| tx.execute(&INSERT_COUNTER, &[&"race", &0i64]))
            .await
            .expect("a row");
        let racers: Vec<_> = (1..=50i64)
            .map(|number| {
                let db = db.db().clone();
                tokio::spawn(async move {
                    db.write(Scope::System, move |tx| {
                        tx.execute(&SWAP_COUNTER, &[&"race", &0i64, &number])
                    })
                    .await
                })
            })
            .collect();
        let mut winners = 0;
        for racer in racers {
            winners += racer.await.expect("the task lives").expect("no racer fails");
        }
        assert_eq!(winners, 1);
    })
    .await;
}

#[tokio::test]
async fn concurrent_increments_are_all_there_and_acknowledged_in_order() {
    on_both(SCHEMA, async |db| {
        db.write(Scope::System, |tx| tx.execute(&INSERT_COUNTER, &[&"sum", &0i64]))
            .await
            .expect("a row");
        let adders: Vec<_> = (0..300)
            .map(|_| {
                let db = db.db().clone();
                tokio::spawn(async move {
                    let added = db.write(Scope::System, |tx| {
                        tx.query_one(&ADD_COUNTER, &[&"sum"], |row| row.get::<i64>(0))
                    });
                    let added = added.await.expect("an increment succeeds");
                    let seen = db.read(Scope::System, |tx| {
                        tx.query_one(&COUNTER, &[&"sum"], |row| row.get::<i64>(0))
                    });
                    assert!(
                        seen.await.expect("a read succeeds") >= added,
                        "a read sees what was acknowledged before it"
                    );
                    added
                })
            })
            .collect();
        let mut values = Vec::new();
        for adder in adders {
            values.push(adder.await.expect("the task lives"));
        }
        values.sort_unstable();
        assert_eq!(values, (1..=300).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test]
async fn a_read_cannot_write_and_sees_one_snapshot() {
    on_both(SCHEMA, async |db| {
        let refused = db
            .read(Scope::System, |tx| tx.execute(&INSERT_COUNTER, &[&"a", &1i64]))
            .await;
        assert!(
            matches!(
                refused,
                Err(StorageError::ReadOnly {
                    statement: "INSERT_COUNTER"
                })
            ),
            "{refused:?}"
        );
        let (started, wait_started) = std::sync::mpsc::channel();
        let (written, wait_written) = std::sync::mpsc::channel();
        let reader = {
            let db = db.db().clone();
            tokio::spawn(async move {
                db.read(Scope::System, move |tx| {
                    let before: Vec<String> = tx.query(&COUNTERS, &[], |row| row.get(0))?;
                    started.send(()).expect("the writer waits");
                    wait_written.recv().expect("the writer writes");
                    let after: Vec<String> = tx.query(&COUNTERS, &[], |row| row.get(0))?;
                    Ok::<_, StorageError>((before, after))
                })
                .await
            })
        };
        tokio::task::spawn_blocking(move || wait_started.recv())
            .await
            .expect("no panic")
            .expect("the reader reads");
        db.write(Scope::System, |tx| tx.execute(&INSERT_COUNTER, &[&"a", &1i64]))
            .await
            .expect("a write");
        written.send(()).expect("the reader waits");
        let (before, after) = reader.await.expect("the task lives").expect("a read");
        assert_eq!((before, after), (vec![], vec![]));
    })
    .await;
}

#[tokio::test]
async fn a_deadlock_is_retried_and_nothing_is_lost() {
    on_both(SCHEMA, async |db| {
        for name in ["a", "b"] {
            db.write(Scope::System, move |tx| {
                tx.execute(&INSERT_COUNTER, &[&name, &0i64])
            })
            .await
            .expect("a row");
        }
        let runs = Arc::new(AtomicU32::new(0));
        // Each takes one row, waits until the other has its own, and then wants the other's.
        let meeting = Arc::new(std::sync::Barrier::new(2));
        let meets = db.engine() == Engine::Postgres;
        let cross = |first: &'static str, second: &'static str| {
            let (db, runs, meeting) = (db.db().clone(), Arc::clone(&runs), Arc::clone(&meeting));
            let mut is_first_run = true;
            tokio::spawn(async move {
                db.write(Scope::System, move |tx| {
                    runs.fetch_add(1, Ordering::SeqCst);
                    tx.query_one(&ADD_COUNTER, &[&first], |row| row.get::<i64>(0))?;
                    if std::mem::take(&mut is_first_run) && meets {
                        meeting.wait();
                    }
                    tx.query_one(&ADD_COUNTER, &[&second], |row| row.get::<i64>(0))
                })
                .await
            })
        };
        let (one, two) = (cross("a", "b"), cross("b", "a"));
        assert!(one.await.expect("the task lives").is_ok());
        assert!(two.await.expect("the task lives").is_ok());
        for name in ["a", "b"] {
            let value = db.read(Scope::System, move |tx| {
                tx.query_one(&COUNTER, &[&name], |row| row.get::<i64>(0))
            });
            assert_eq!(value.await.ok(), Some(2));
        }
        assert_eq!(runs.load(Ordering::SeqCst), if meets { 3 } else { 2 });
    })
    .await;
}

#[tokio::test]
async fn a_canceled_caller_leaves_the_database_usable() {
    on_both(SCHEMA, async |db| {
        let tenant = Uuid::new_v4();
        for polls in 0..40 {
            let write = db.write(Scope::Tenant(tenant), move |tx| {
                insert_label(tx, tenant, &Uuid::new_v4().to_string())
            });
            abandon(write, polls).await;
        }
        let kept = db
            .write(Scope::Tenant(tenant), move |tx| insert_label(tx, tenant, "last"))
            .await;
        assert!(kept.is_ok(), "{kept:?}");
        assert!(labels_of(&db, tenant).await.contains(&"last".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn a_closed_database_refuses_and_can_be_opened_again() {
    on_both(SCHEMA, async |db| {
        let tenant = Uuid::new_v4();
        db.write(Scope::Tenant(tenant), move |tx| insert_label(tx, tenant, "a"))
            .await
            .expect("a write");
        db.close().await;
        let read = db.read(Scope::Tenant(tenant), move |tx| labels(tx, tenant)).await;
        assert!(matches!(read, Err(StorageError::Closed)), "{read:?}");
        let write = db
            .write(Scope::Tenant(tenant), move |tx| insert_label(tx, tenant, "b"))
            .await;
        assert!(matches!(write, Err(StorageError::Closed)), "{write:?}");
        let again = muster_storage::testing::open(db.url(), SCHEMA)
            .await
            .expect("it opens again");
        assert_eq!(labels_of(&again, tenant).await, ["a"]);
        again.close().await;
    })
    .await;
}
