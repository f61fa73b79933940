//! The schema is made once, by one node, and never by an older program.

use muster_storage::{
    Database, DatabaseUrl, Engine, Migration, Scope, StorageError, statements,
    testing::{TestDatabase, databases, on_both, open},
};

use crate::{COUNTERS, INSERT_COUNTER, SCHEMA};

const FIRST: Migration = SCHEMA[0];
const SECOND: Migration = Migration {
    version: 2,
    name: "second",
    sql: "ALTER TABLE counter ADD COLUMN note TEXT; CREATE INDEX counter_note ON counter (note)",
};
const BROKEN: Migration = Migration {
    version: 2,
    name: "broken",
    sql: "CREATE TABLE half (a TEXT); CREATE NONSENSE",
};
const NEWER: &[Migration] = &[FIRST, SECOND];
const FAILING: &[Migration] = &[FIRST, BROKEN];
const EDITED: &[Migration] = &[Migration {
    sql: "CREATE TABLE thing (tenant_id UUID)",
    ..FIRST
}];

statements! {
    NOTES = "SELECT note FROM counter";
    HALF = "SELECT a FROM half";
}

/// Opens a database again; SQLite's can be open once only.
async fn reopen(db: &TestDatabase, migrations: &'static [Migration]) -> Result<(), StorageError> {
    if db.engine() == Engine::Sqlite {
        db.close().await;
    }
    let again = open(db.url(), migrations).await?;
    let noted = again
        .read(Scope::System, |tx| {
            tx.query(&NOTES, &[], |row| row.get::<Option<String>>(0))
        })
        .await;
    assert_eq!(noted.is_ok(), migrations.len() == 2, "{noted:?}");
    again.close().await;
    Ok(())
}

#[tokio::test]
async fn migrating_again_changes_nothing_and_a_newer_program_adds() {
    on_both(SCHEMA, async |db| {
        db.write(Scope::System, |tx| tx.execute(&INSERT_COUNTER, &[&"a", &1i64]))
            .await
            .expect("a row");
        for migrations in [SCHEMA, NEWER, NEWER] {
            let opened = reopen(&db, migrations).await;
            assert!(opened.is_ok(), "{opened:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    for db in databases(NEWER).await {
        let refused = reopen(&db, SCHEMA).await;
        assert!(
            matches!(refused, Err(StorageError::NewerSchema { found: 2, known: 1 })),
            "{refused:?}"
        );
        let text = refused.expect_err("refused").to_string();
        assert!(
            text.contains("version 2") && text.contains("install the newer program"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn an_edited_migration_is_refused() {
    on_both(SCHEMA, async |db| {
        let refused = reopen(&db, EDITED).await;
        assert!(
            matches!(refused, Err(StorageError::MigrationChanged { version: 1, .. })),
            "{refused:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_failing_migration_leaves_nothing_behind() {
    on_both(SCHEMA, async |db| {
        let failed = reopen(&db, FAILING).await;
        assert!(
            matches!(
                failed,
                Err(StorageError::Engine {
                    statement: "broken",
                    ..
                })
            ),
            "{failed:?}"
        );
        if db.engine() == Engine::Postgres {
            let half = db
                .read(Scope::System, |tx| {
                    tx.query(&HALF, &[], |row| row.get::<String>(0))
                })
                .await;
            assert!(half.is_err(), "{half:?}");
        }
        let opened = reopen(&db, SCHEMA).await;
        assert!(opened.is_ok(), "{opened:?}");
    })
    .await;
}

#[tokio::test]
async fn a_second_process_cannot_share_a_sqlite_database() {
    let db = TestDatabase::sqlite(SCHEMA).await;
    let refused = open(db.url(), SCHEMA).await.err();
    assert!(
        matches!(refused, Some(StorageError::Locked { .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_reader_beside_the_owner_sees_everything_and_changes_nothing() {
    on_both(SCHEMA, async |db| {
        db.write(Scope::System, |tx| tx.execute(&INSERT_COUNTER, &[&"a", &1i64]))
            .await
            .expect("a row");
        let reader = Database::open_read_only(db.url(), SCHEMA)
            .await
            .expect("it opens beside the owner");
        let names = async || {
            reader
                .read(Scope::System, |tx| {
                    tx.query(&COUNTERS, &[], |row| row.get::<String>(0))
                })
                .await
        };
        assert_eq!(names().await.expect("a read"), ["a".to_owned()]);
        let refused = reader
            .write(Scope::System, |tx| tx.execute(&INSERT_COUNTER, &[&"b", &2i64]))
            .await;
        assert!(
            matches!(refused, Err(StorageError::ReadOnly { .. })),
            "{refused:?}"
        );
        db.write(Scope::System, |tx| tx.execute(&INSERT_COUNTER, &[&"c", &3i64]))
            .await
            .expect("the owner goes on");
        assert_eq!(names().await.expect("a read"), ["a".to_owned(), "c".to_owned()]);

        let older = Database::open_read_only(db.url(), NEWER).await.err();
        assert!(
            matches!(older, Some(StorageError::OlderSchema { waiting: 1 })),
            "{older:?}"
        );
        let newer = Database::open_read_only(db.url(), &[]).await.err();
        assert!(
            matches!(newer, Some(StorageError::NewerSchema { found: 1, known: 0 })),
            "{newer:?}"
        );
        reader.close().await;
        let unchanged = reopen(&db, SCHEMA).await;
        assert!(unchanged.is_ok(), "{unchanged:?}");
    })
    .await;
}

#[tokio::test]
async fn a_reader_makes_no_database() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("none.db");
    let refused = Database::open_read_only(&DatabaseUrl::Sqlite(path.clone()), SCHEMA)
        .await
        .err();
    assert!(matches!(refused, Some(StorageError::Io { .. })), "{refused:?}");
    assert!(!path.exists());
}

#[tokio::test]
async fn nodes_that_start_together_migrate_once() {
    let Some(server) = muster_storage::testing::postgres_url() else {
        return;
    };
    let db = TestDatabase::postgres(&server, &[]).await;
    let nodes: Vec<_> = (0..4)
        .map(|_| {
            let url = db.url().clone();
            tokio::spawn(async move { open(&url, NEWER).await })
        })
        .collect();
    for node in nodes {
        let opened = node.await.expect("the task lives");
        assert!(opened.is_ok(), "{:?}", opened.err());
    }
}

#[cfg(unix)]
#[tokio::test]
async fn sqlite_files_are_private() {
    use std::os::unix::fs::PermissionsExt;

    let db = TestDatabase::sqlite(SCHEMA).await;
    db.write(Scope::System, |tx| tx.execute(&INSERT_COUNTER, &[&"a", &1i64]))
        .await
        .expect("a row");
    let muster_storage::DatabaseUrl::Sqlite(path) = db.url() else {
        panic!("it is SQLite")
    };
    for file in std::fs::read_dir(path.parent().expect("a folder")).expect("the folder can be read") {
        let file = file.expect("an entry");
        let mode = file.metadata().expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", file.path());
    }
}
