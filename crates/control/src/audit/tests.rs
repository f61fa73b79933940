//! What is sealed counts for what it says, whatever the columns beside it say.

use muster_storage::{Statement, StorageError, testing};

use crate::{MIGRATIONS, access::Author, access::problem::Problem, audit, policy::testing::Scene};

const ACTION: &str = "operation.released";

/// Records that `object` was released, and answers what the log says of `asked`.
async fn record(scene: &Scene, object: &'static str) {
    audit::commit(&scene.app, &Author::system(scene.tenant), move |tx| {
        tx.record(ACTION, ("operation", object.to_owned()), serde_json::json!({}))
            .map(drop)
    })
    .await
    .expect("it is recorded");
}

async fn said_about(scene: &Scene, object: &'static str) -> Result<usize, Problem> {
    let keys = scene.app.keys.tenant(scene.tenant).expect("the tenant has keys");
    scene
        .app
        .db
        .read(scene.storage(), move |tx| {
            audit::sealed_about(tx, &keys, object, ACTION).map(|entries| entries.len())
        })
        .await
}

async fn sql(scene: &Scene, sql: &'static str) -> u64 {
    let (statement, tenant) = (Statement { name: "ATTACK", sql }, scene.tenant.uuid());
    let write = scene
        .app
        .db
        .write(scene.storage(), move |tx| tx.execute(&statement, &[&tenant]));
    let done: Result<u64, StorageError> = write.await;
    done.expect("the attacker writes")
}

#[tokio::test]
async fn m1_an_entry_that_sql_moved_to_another_object_says_nothing_of_it() {
    for database in testing::databases(MIGRATIONS).await {
        let scene = Scene::new(database.db().clone()).await;
        record(&scene, "one").await;
        assert_eq!(said_about(&scene, "one").await.expect("it is read"), 1);
        let moved = "UPDATE audit_entry SET object_id = 'another' WHERE tenant_id = $1 AND object_id = 'one'";
        assert_eq!(sql(&scene, moved).await, 1);
        assert_eq!(said_about(&scene, "another").await.expect("it is read"), 0);
    }
}

#[tokio::test]
async fn m1_rows_without_a_seal_do_not_hide_an_entry_behind_their_number() {
    // As many as are looked through, newer than the entry. $1 is the tenant.
    const JUNK: &str = "INSERT INTO audit_entry (tenant_id, entry_id, action, actor, object_id, body, seal) \
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000) \
        SELECT e.tenant_id, {id}, e.action, e.actor, e.object_id, e.body, e.entry_seal FROM n, \
        (SELECT tenant_id, action, actor, object_id, body, body AS entry_seal FROM audit_entry \
            WHERE tenant_id = $1 AND object_id = 'one' AND action = 'operation.released' LIMIT 1) e";
    for database in testing::databases(MIGRATIONS).await {
        let scene = Scene::new(database.db().clone()).await;
        record(&scene, "one").await;
        let id = match database.db().engine() {
            muster_storage::Engine::Sqlite => "randomblob(16)",
            muster_storage::Engine::Postgres => "gen_random_uuid()",
        };
        let junk: &'static str = JUNK.replace("{id}", id).leak();
        assert_eq!(sql(&scene, junk).await, 1000);
        assert_eq!(said_about(&scene, "one").await.expect("it is read"), 1);
        for _ in 0..10 {
            sql(&scene, junk).await;
        }
        assert!(
            said_about(&scene, "one").await.is_err(),
            "nothing is decided over a part of the rows"
        );
    }
}
