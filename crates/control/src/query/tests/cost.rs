//! Questions over a fleet, beside SQLite asking the same over the same rows: both answers are equal. `cargo xtask bench query` runs it
//! in the release build over a large fleet, and reads what each took.

use std::time::Instant;

use muster_storage::{Statement, StorageError, testing};

use super::super::ask;
use crate::{MIGRATIONS, policy::testing::Scene};

const DEVICES: &str = "INSERT INTO devices_device (tenant_id, device_id, device_uuid, serial, name, platform, model, epoch, state, \
    attestation_level, spki, spki_sha256, compliance_state, enrolled_at, last_seen_at) \
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $2) \
    SELECT $1, randomblob(16), randomblob(16), 'S' || i, 'device-' || i, \
    CASE i % 5 WHEN 0 THEN 'windows' WHEN 1 THEN 'macos' ELSE 'linux' END, 'model-' || (i % 40), 1, 'active', 'unattested', \
    randomblob(32), randomblob(32), 'unknown', 1, 1 FROM n";
const FACTS: &str = "INSERT INTO devices_facts (tenant_id, device_id, facts, sha256, updated_at) \
    SELECT tenant_id, device_id, json_object('hardware', json_object('cpu_cores', 4 + length(name) % 3, 'memory_bytes', 8000000000), \
    'os', json_object('id', 'debian', 'version', '12.' || (CAST(substr(serial, 2) AS INTEGER) % 9)), 'packages', \
    (WITH RECURSIVE p (k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM p WHERE k < 40) \
        SELECT json_group_array(json_object('name', 'package-' || k, 'version', '1.' || ((CAST(substr(serial, 2) AS INTEGER) + k) % 7))) \
        FROM p), \
    'collected_at', '2026-11-23T21:00:00Z'), x'00', 1 FROM devices_device WHERE tenant_id = $1";

/// What is asked, our question, and SQLite's. Both answer counts alone, so that neither gains by the form of rows.
const QUESTIONS: &[(&str, &str, &str)] = &[
    (
        "count of devices by platform",
        "SELECT platform, count(*) FROM devices GROUP BY platform ORDER BY 1",
        "SELECT platform, COUNT(*) FROM devices_device WHERE tenant_id = $1 AND state <> 'retired' GROUP BY platform ORDER BY 1",
    ),
    (
        "count by a fact",
        "SELECT os_version, count(*) FROM devices WHERE platform = 'linux' GROUP BY os_version ORDER BY 1",
        "SELECT json_extract(f.facts, '$.os.version'), COUNT(*) FROM devices_device d JOIN devices_facts f \
         ON f.tenant_id = d.tenant_id AND f.device_id = d.device_id WHERE d.tenant_id = $1 AND d.platform = 'linux' \
         AND d.state <> 'retired' GROUP BY 1 ORDER BY 1",
    ),
    (
        "the worst: 4,000,000 packages by two texts, grouped and ordered",
        "SELECT version, count(*) FROM packages WHERE (name LIKE '%a%e%-%' AND version LIKE '%1%.%') OR name LIKE '%z%' \
         GROUP BY version ORDER BY 1",
        "SELECT json_extract(p.value, '$.version') AS v, COUNT(*) FROM devices_device d JOIN devices_facts f \
         ON f.tenant_id = d.tenant_id AND f.device_id = d.device_id JOIN json_each(f.facts, '$.packages') p \
         WHERE d.tenant_id = $1 AND d.state <> 'retired' AND d.ownership = 'company' \
         AND ((json_extract(p.value, '$.name') LIKE '%a%e%-%' AND json_extract(p.value, '$.version') LIKE '%1%.%') \
         OR json_extract(p.value, '$.name') LIKE '%z%') GROUP BY v ORDER BY 1",
    ),
];

/// Devices, unless the benchmark asks for more.
const DEVICES_OF_A_TEST: i64 = 300;

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::disallowed_methods,
    reason = "a test is told by its environment how many devices there are"
)]
async fn questions_over_a_fleet_are_answered_as_sqlite_answers_them() {
    let devices = std::env::var("MUSTER_BENCH_QUERY_DEVICES").map_or(DEVICES_OF_A_TEST, |devices| {
        devices.parse().expect("a number of devices")
    });
    let databases = testing::databases(MIGRATIONS).await;
    let database = databases
        .into_iter()
        .find(|database| database.db().engine() == muster_storage::Engine::Sqlite)
        .expect("SQLite is always there");
    let scene = Scene::new(database.db().clone()).await;
    let statement = Statement {
        name: "DEVICES",
        sql: DEVICES,
    };
    let tenant = scene.tenant.uuid();
    let write = scene.app.db.write(scene.storage(), move |tx| {
        tx.execute(&statement, &[&tenant, &devices])
    });
    let made: Result<u64, StorageError> = write.await;
    assert_eq!(made.expect("devices are made"), devices.unsigned_abs());
    assert_eq!(scene.sql(FACTS).await, devices.unsigned_abs());
    for (what, ours, theirs) in QUESTIONS {
        let begun = Instant::now();
        let answered = ask(&scene.app, scene.tenant, ours, 1000)
            .await
            .expect("it is answered");
        let took = begun.elapsed().as_secs_f64();
        let statement = Statement {
            name: "PEER",
            sql: theirs,
        };
        let tenant = scene.tenant.uuid();
        let begun = Instant::now();
        let read = scene.app.db.read(scene.storage(), move |tx| {
            tx.query(&statement, &[&tenant], |row| {
                Ok((row.get::<String>(0)?, row.get::<i64>(1)?))
            })
        });
        let peer: Vec<(String, i64)> = read.await.expect("SQLite answers");
        let peer_took = begun.elapsed().as_secs_f64();
        let text = |cell: &muster_model::query::Cell| match cell {
            muster_model::query::Cell::Text(text) => text.to_string(),
            other => format!("{other:?}"),
        };
        let rows = answered.answer.rows.iter();
        let rows: Vec<String> = rows
            .map(|row| format!("{} {:?}", text(&row[0]), row[1]))
            .collect();
        let theirs: Vec<String> = peer
            .iter()
            .map(|(name, count)| format!("{name} Int({count})"))
            .collect();
        assert_eq!(rows, theirs, "{what}");
        println!("bench query\t{what}\t{took:.3}\t{peer_took:.3}");
    }
}
