//! Every type there and back, and what is refused.

use muster_storage::{
    Scope, StorageError, statements,
    testing::{on_both, statement_problems, whole_table_scans},
};
use uuid::Uuid;

use crate::{ALL as SHARED, COUNT, INSERT_LABEL, SCHEMA};

statements! {
    INSERT = "INSERT INTO thing (tenant_id, thing_id, number, flag, label, bytes, other) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING thing_id";
    // Parameters out of order, used twice, and a quoted one that is none.
    READ = "SELECT number, flag, label, bytes, other, '$1' FROM thing WHERE thing_id = $2 AND tenant_id = $1 AND $1 = tenant_id";
    UPDATE = "UPDATE thing SET number = $3 WHERE tenant_id = $1 AND thing_id = $2";
    DELETE = "DELETE FROM thing WHERE tenant_id = $1";
    SUM = "SELECT SUM(number), COUNT(*) FILTER (WHERE number > 1), MAX(label) FROM thing WHERE tenant_id = $1";
    WRONG_COLUMN = "SELECT nothing FROM thing";
    WRONG_TYPE = "SELECT number / 2.5 = 1, interval '1 second' FROM thing";
}

#[derive(Debug, PartialEq, Clone)]
struct Thing {
    number: Option<i64>,
    flag: Option<bool>,
    label: Option<String>,
    bytes: Option<Vec<u8>>,
    other: Option<Uuid>,
}

#[tokio::test]
async fn every_type_comes_back_as_it_went_in() {
    let full = Thing {
        number: Some(i64::MIN),
        flag: Some(true),
        label: Some("ü '$1' \"x\" ; --".to_owned()),
        bytes: Some(vec![0, 255, 39]),
        other: Some(Uuid::new_v4()),
    };
    let empty = Thing {
        number: None,
        flag: None,
        label: None,
        bytes: None,
        other: None,
    };
    let blank = Thing {
        label: Some(String::new()),
        bytes: Some(Vec::new()),
        flag: Some(false),
        ..empty.clone()
    };
    on_both(SCHEMA, async |db| {
        for thing in [&full, &empty, &blank] {
            let (tenant, id, stored) = (Uuid::new_v4(), Uuid::new_v4(), thing.clone());
            let found = db
                .write(Scope::Tenant(tenant), move |tx| {
                    let Thing {
                        number,
                        flag,
                        label,
                        bytes,
                        other,
                    } = &stored;
                    let params: &[&dyn muster_storage::ToValue] =
                        &[&tenant, &id, number, flag, label, bytes, other];
                    let returned: Uuid = tx.query_one(&INSERT, params, |row| row.get(0))?;
                    assert_eq!((returned, tx.changes()), (id, 1));
                    tx.query_one(&READ, &[&tenant, &id], |row| {
                        assert_eq!(row.get::<String>(5)?, "$1");
                        Ok(Thing {
                            number: row.get(0)?,
                            flag: row.get(1)?,
                            label: row.get(2)?,
                            bytes: row.get(3)?,
                            other: row.get(4)?,
                        })
                    })
                })
                .await;
            assert_eq!(found.as_ref().ok(), Some(thing), "{found:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn rows_are_updated_deleted_and_counted() {
    on_both(SCHEMA, async |db| {
        let tenant = Uuid::new_v4();
        let outcome = db
            .write(Scope::Tenant(tenant), move |tx| {
                let ids = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];
                for id in &ids {
                    tx.execute(&INSERT_LABEL, &[&tenant, id, &id.to_string()])?;
                }
                assert_eq!(tx.execute(&UPDATE, &[&tenant, &ids[0], &7u32])?, 1);
                assert_eq!(tx.execute(&UPDATE, &[&tenant, &ids[1], &7u64])?, 1);
                assert_eq!(tx.execute(&UPDATE, &[&tenant, &Uuid::nil(), &7i64])?, 0);
                let sums = tx.query_one(&SUM, &[&tenant], |row| {
                    Ok((row.get::<i64>(0)?, row.get::<u32>(1)?))
                })?;
                assert_eq!(sums, (14, 2));
                assert_eq!(tx.execute(&DELETE, &[&tenant])?, 3);
                // Reading changes nothing.
                assert_eq!((tx.execute(&COUNT, &[])?, tx.changes()), (0, 8));
                tx.query_one(&SUM, &[&tenant], |row| row.get::<Option<i64>>(0))
            })
            .await;
        assert!(matches!(outcome, Ok(None)), "{outcome:?}");
    })
    .await;
}

#[tokio::test]
async fn wrong_types_ranges_and_row_counts_are_errors() {
    on_both(SCHEMA, async |db| {
        let tenant = Uuid::new_v4();
        db.write(Scope::Tenant(tenant), move |tx| {
            let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
            tx.execute(&INSERT_LABEL, &[&tenant, &first, &"a"])?;
            tx.execute(&INSERT_LABEL, &[&tenant, &second, &"b"])?;
            tx.execute(&UPDATE, &[&tenant, &first, &-1i64])?;
            let read = &[&tenant as &dyn muster_storage::ToValue, &first];
            assert!(matches!(
                tx.query_one(&READ, read, |row| row.get::<u32>(0)),
                Err(StorageError::Type { index: 0, .. })
            ));
            assert!(matches!(
                tx.query_one(&READ, read, |row| row.get::<i64>(2)),
                Err(StorageError::Type { index: 2, .. })
            ));
            assert!(matches!(
                tx.query_one(&READ, read, |row| row.get::<[u8; 32]>(3)),
                Err(StorageError::Type { .. })
            ));
            assert!(matches!(
                tx.query_one(&READ, read, |row| row.get::<i64>(99)),
                Err(StorageError::Type { .. })
            ));
            let too_big = tx.execute(&UPDATE, &[&tenant, &first, &u64::MAX]);
            assert!(matches!(too_big, Err(StorageError::Type { index: 3, .. })));
            let none = tx.query_one(&READ, &[&tenant, &Uuid::nil()], |row| row.get::<i64>(0));
            assert!(matches!(none, Err(StorageError::NoRow { statement: "READ" })));
            let many = tx.query_opt(&crate::LABELS, &[&tenant], |row| row.get::<String>(0));
            assert!(matches!(
                many,
                Err(StorageError::ManyRows { statement: "LABELS" })
            ));
            // None of these failed in the engine, so the transaction goes on.
            tx.execute(&UPDATE, &[&tenant, &first, &1i64])
        })
        .await
        .expect("the transaction goes on");
        let missing = db
            .read(Scope::System, move |tx| {
                tx.query(&READ, &[&tenant], |row| row.get::<i64>(0))
            })
            .await;
        assert!(
            matches!(
                missing,
                Err(StorageError::Engine {
                    statement: "READ",
                    ..
                })
            ),
            "{missing:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn declared_statements_are_checked_on_both_engines() {
    on_both(SCHEMA, async |db| {
        assert_eq!(statement_problems(&db, SHARED).await, Vec::<String>::new());
        assert_eq!(
            statement_problems(&db, muster_storage::STATEMENTS).await,
            Vec::<String>::new()
        );
        let good = [INSERT, READ, UPDATE, DELETE, SUM];
        assert_eq!(statement_problems(&db, &good).await, Vec::<String>::new());
        let problems = statement_problems(&db, &[WRONG_COLUMN, WRONG_TYPE]).await;
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(
            problems[0].starts_with("WRONG_COLUMN: ") && problems[0].contains("nothing"),
            "{problems:?}"
        );
        let scans = whole_table_scans(&db, &[READ, crate::EVERY_LABEL]).await;
        let expected = if db.engine() == muster_storage::Engine::Sqlite {
            1
        } else {
            0
        };
        assert_eq!(scans.len(), expected, "{scans:?}");
    })
    .await;
}
