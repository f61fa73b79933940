//! PostgreSQL keeps tenants apart even where a query forgets to.

use muster_storage::{
    Database, DatabaseUrl, OpenOptions, Scope, StorageError, Tx, statements,
    testing::{TestDatabase, open, postgres_url, session_setting},
};
use uuid::Uuid;

use crate::{COUNT, EVERY_LABEL, INSERT_LABEL, SCHEMA, abandon, insert_label};

statements! {
    ROLE = "SELECT current_user::text, r.rolsuper OR r.rolbypassrls FROM pg_roles r WHERE r.rolname = current_user";
    STEAL = "UPDATE thing SET label = 'stolen'";
    MOVE = "UPDATE thing SET tenant_id = $1";
    REMOVE = "DELETE FROM thing";
    UNPROTECTED = "SELECT c.relname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' \
        WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace \
        AND NOT (c.relrowsecurity AND c.relforcerowsecurity)";
    SWITCH_OFF = "ALTER TABLE thing DISABLE ROW LEVEL SECURITY";
    CHANGE_MIGRATIONS = "DELETE FROM storage_migration";
    PID = "SELECT pg_backend_pid()";
}

fn every_label(tx: &mut Tx) -> Result<Vec<String>, StorageError> {
    tx.query(&EVERY_LABEL, &[], |row| row.get(0))
}

/// A database with one row of each of two tenants.
async fn two_tenants() -> Option<(TestDatabase, Uuid, Uuid)> {
    Some(two_tenants_on(&postgres_url()?).await)
}

async fn two_tenants_on(server: &str) -> (TestDatabase, Uuid, Uuid) {
    let db = TestDatabase::postgres(server, SCHEMA).await;
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    for (tenant, label) in [(one, "of one"), (two, "of two")] {
        db.write(Scope::Tenant(tenant), move |tx| insert_label(tx, tenant, label))
            .await
            .expect("a row");
    }
    (db, one, two)
}

#[tokio::test]
async fn t6_the_app_role_cannot_read_another_tenant_even_with_raw_sql() {
    let Some(server) = crate::postgres::shared_server() else {
        return;
    };
    let plain = "CREATE ROLE plain LOGIN CREATEDB PASSWORD 'plain'";
    crate::postgres::directly(&server.url(), plain).await;
    let beyond = "CREATE ROLE beyond LOGIN CREATEDB CREATEROLE BYPASSRLS PASSWORD 'beyond'";
    crate::postgres::directly(&server.url(), beyond).await;
    let address = server
        .url()
        .split_once('@')
        .map(|(_, address)| address.to_owned())
        .expect("an address");
    // The second makes the role `muster_app`, and the third finds it there.
    for (login, role) in [
        (format!("postgres://plain:plain@{address}"), "plain"),
        (format!("postgres://beyond:beyond@{address}"), "muster_app"),
        (server.url(), "muster_app"),
    ] {
        let (db, one, two) = two_tenants_on(&login).await;
        assert_eq!(role_of(&db).await, (role.to_owned(), false));
        tenants_are_apart(&db, one, two).await;
    }
}

/// Who the transactions are, and whether row-level security is nothing to it.
async fn role_of(db: &Database) -> (String, bool) {
    let role = db.read(Scope::System, |tx| {
        tx.query_one(&ROLE, &[], |row| {
            Ok::<_, StorageError>((row.get(0)?, row.get(1)?))
        })
    });
    role.await.expect("a read")
}

async fn tenants_are_apart(db: &Database, one: Uuid, two: Uuid) {
    let seen = db.read(Scope::Tenant(one), every_label).await;
    assert_eq!(seen.expect("a read"), ["of one"]);
    let seen = db.read(Scope::System, every_label).await;
    assert_eq!(seen.expect("a read"), ["of one", "of two"]);
    let nobody = db.read(Scope::Tenant(Uuid::nil()), every_label).await;
    assert_eq!(nobody.expect("a read"), Vec::<String>::new());

    let stolen = db.write(Scope::Tenant(one), |tx| {
        assert_eq!(tx.execute(&STEAL, &[])?, 1);
        tx.execute(&REMOVE, &[])
    });
    assert!(matches!(stolen.await, Ok(1)));
    let planted = db
        .write(Scope::Tenant(one), move |tx| insert_label(tx, two, "planted"))
        .await;
    assert!(matches!(planted, Err(StorageError::Forbidden(_))), "{planted:?}");
    let moved = db
        .write(Scope::Tenant(two), move |tx| tx.execute(&MOVE, &[&one]))
        .await;
    assert!(matches!(moved, Err(StorageError::Forbidden(_))), "{moved:?}");
    let seen = db.read(Scope::System, every_label).await;
    assert_eq!(seen.expect("a read"), ["of two"]);
}

#[tokio::test]
async fn t6_a_superusers_transactions_cannot_switch_the_protection_off() {
    let Some(server) = crate::postgres::shared_server() else {
        return;
    };
    let (db, ..) = two_tenants_on(&server.url()).await;
    let unprotected = db
        .read(Scope::System, |tx| {
            tx.query(&UNPROTECTED, &[], |row| row.get::<String>(0))
        })
        .await;
    assert_eq!(unprotected.expect("a read"), Vec::<String>::new());
    for statement in [&SWITCH_OFF, &CHANGE_MIGRATIONS] {
        let refused = db.write(Scope::System, |tx| tx.execute(statement, &[])).await;
        assert!(matches!(refused, Err(StorageError::Forbidden(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn t6_a_pooled_connection_carries_no_tenant() {
    let Some((db, one, two)) = two_tenants().await else {
        return;
    };
    let pooled = with_one_connection(&db).await;
    let mut connections = std::collections::HashSet::new();
    for round in 0..4 {
        // Every way that a transaction ends: committed, rolled back, failed, panicked.
        let ended = pooled
            .write(
                Scope::Tenant(if round % 2 == 0 { one } else { two }),
                move |tx| match round {
                    0 => tx.execute(&COUNT, &[]),
                    1 => Err(StorageError::Aborted),
                    2 => tx.execute(&INSERT_LABEL, &[&two, &two, &"x"]),
                    _ => panic!("on purpose"),
                },
            )
            .await;
        assert_eq!(ended.is_ok(), round == 0);
        let carried = session_setting(&pooled, "muster.tenant").await.expect("asked");
        assert_eq!(carried.unwrap_or_default(), "", "after round {round}");
        let pid = pooled.read(Scope::Tenant(Uuid::nil()), |tx| {
            assert!(every_label(tx)?.is_empty());
            tx.query_one(&PID, &[], |row| row.get::<i64>(0))
        });
        connections.insert(pid.await.expect("a read"));
    }
    assert_eq!(connections.len(), 1, "it was one and the same connection");
}

#[tokio::test]
async fn t6_an_abandoned_transaction_leaves_no_tenant_behind() {
    let Some((db, one, _)) = two_tenants().await else {
        return;
    };
    let pooled = with_one_connection(&db).await;
    for polls in 0..60 {
        abandon(pooled.read(Scope::Tenant(one), every_label), polls).await;
        let carried = session_setting(&pooled, "muster.tenant").await.expect("asked");
        assert_eq!(carried.unwrap_or_default(), "", "after {polls} polls");
    }
}

async fn with_one_connection(db: &TestDatabase) -> Database {
    let options = OpenOptions {
        migrations: SCHEMA,
        reader_threads: 1,
        pool_size: 1,
        application: "muster-test",
    };
    Database::open(db.url(), options).await.expect("it opens")
}

#[tokio::test]
async fn t6_a_table_whose_protection_was_switched_off_gets_it_back() {
    let Some(server) = postgres_url() else { return };
    let db = TestDatabase::postgres(&server, SCHEMA).await;
    let DatabaseUrl::Postgres(url) = db.url() else {
        panic!("it is PostgreSQL")
    };
    crate::postgres::directly(url, "ALTER TABLE thing NO FORCE ROW LEVEL SECURITY").await;
    let unprotected = async || {
        db.read(Scope::System, |tx| {
            tx.query(&UNPROTECTED, &[], |row| row.get::<String>(0))
        })
        .await
    };
    assert_eq!(unprotected().await.expect("a read"), ["thing"]);
    open(db.url(), SCHEMA).await.expect("it opens").close().await;
    assert_eq!(unprotected().await.expect("a read"), Vec::<String>::new());
}
