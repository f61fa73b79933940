//! The log in an archive that nobody can change: what was cut off or rewritten here is found there.

use muster_trust::tile::{Tile, TilePath};
use serde_json::json;

use crate::support::{
    PATIENCE,
    api::Api,
    database::each_database,
    eventually,
    machine::Relay,
    objects::{S3, moto_server},
    server::{Options, Server, everything, maintain, muster},
    witness::log_key,
};

async fn grow(api: &Api, from: usize, until: usize) {
    for number in from..until {
        api.post("/policies", &json!({"name": format!("p-{number}")}))
            .await
            .expect(201);
    }
}

async fn size(server: &Server) -> i64 {
    server
        .store()
        .await
        .value("SELECT size FROM audit_tree")
        .await
        .integer()
}

/// Waits until the archive has everything.
pub async fn archived(server: &Server) {
    let store = server.store().await;
    let sql = "SELECT COUNT(*) FROM audit_archive a JOIN audit_tree t ON t.tenant_id = a.tenant_id \
               WHERE a.size = t.size AND NOT EXISTS (SELECT 1 FROM audit_entry e WHERE e.seq IS NULL)";
    eventually("the log is archived", PATIENCE * 2, async || {
        (store.value(sql).await.integer() == 1).then_some(())
    })
    .await;
}

async fn doctor(server: &Server) -> (Option<i32>, String) {
    let output = maintain(server, &["doctor"]).await;
    (output.status.code(), everything(&output))
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_a_cut_tail_is_found_by_the_archived_head() {
    each_database(async |options| {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let place = format!("file://{}", folder.path().display());
        let options = options.with_variable("MUSTER_LOG_ARCHIVE", place);
        let mut server = Server::start(options).await;
        let api = server.api().await;
        grow(&api, 0, 280).await;
        archived(&server).await;
        let (code, said) = doctor(&server).await;
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("the archive tells the same"), "{said}");

        // A copy of the archive is a log that verifies by itself.
        let copy = folder.path().join(&server.admin.tenant).display().to_string();
        let key = log_key(&server);
        let verified = muster()
            .args(["log", "verify", "--folder", &copy, "--key", &key])
            .output()
            .await
            .expect("the program muster starts");
        assert!(verified.status.success(), "{}", everything(&verified));

        // An older state of the whole database, with a head that our key signed.
        let store = server.store().await;
        for table in ["audit_entry", "audit_tile", "audit_tree", "audit_archive"] {
            store
                .execute(&format!("CREATE TABLE saved_{table} AS SELECT * FROM {table}"))
                .await;
        }
        let before = size(&server).await;
        grow(&api, 280, 290).await;
        archived(&server).await;
        server.stop().await;
        for table in ["audit_entry", "audit_tile", "audit_tree", "audit_archive"] {
            store.execute(&format!("DELETE FROM {table}")).await;
            store
                .execute(&format!("INSERT INTO {table} SELECT * FROM saved_{table}"))
                .await;
        }
        let (code, said) = doctor(&server).await;
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains(&format!("entry {before}: the log ends here")),
            "{said}"
        );

        // A node that remembers signs nothing behind it. One that lost its memory does, and the archive holds another history.
        let tenant = server.data_dir().join("keys/tenants").join(&server.admin.tenant);
        std::fs::remove_file(tenant.join("log-head.json")).expect("the node kept a head");
        server.restart().await;
        let api = server.api().await;
        grow(&api, 1000, 1012).await;
        eventually("the conflict is in the log", PATIENCE, async || {
            let found = api.list("/log/entries?action=security.archive_conflict").await;
            (!found.is_empty()).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_in_s3_are_held_by_object_lock_or_the_doctor_says_so() {
    let Some(moto) = moto_server() else { return };
    let s3 = S3::start(&moto).await;
    s3.make_locked("archive").await;
    let options = s3
        .access(Options::default())
        .with_variable("MUSTER_LOG_ARCHIVE", "s3://archive/log");
    let mut server = Server::start(options).await;
    grow(&server.api().await, 0, 3).await;
    archived(&server).await;
    let newest = size(&server).await;
    server.stop().await;
    let (code, said) = doctor(&server).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("is not held by Object Lock"), "{said}");
    let name = format!("log/{}/checkpoints/{newest:020}", server.admin.tenant);
    s3.hold("archive", &name).await;
    let (code, said) = doctor(&server).await;
    assert_eq!(code, Some(0), "{said}");
}

/// Copies an archived log out of a bucket, by the names that a log of this size has.
async fn copied(s3: &S3, server: &Server, size: u64) -> std::path::PathBuf {
    let mut names = vec!["checkpoint".to_owned()];
    for level in 0..=1 {
        for tile in (0..).map_while(|index| Tile::in_tree(level, index, size)) {
            names.push(TilePath::Hashes(tile).to_string());
            if level == 0 {
                names.push(TilePath::Entries(tile).to_string());
            }
        }
    }
    let folder = server.folder().path().join("copy");
    for name in names {
        let object = format!("log/{}/{name}", server.admin.tenant);
        let bytes = s3.object_in("archive", &object).await;
        let path = folder.join(&name);
        std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("a folder can be made");
        std::fs::write(path, bytes.unwrap_or_else(|| panic!("{object} is missing")))
            .expect("it can be written");
    }
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_an_archive_that_was_away_for_long_misses_nothing_and_holds_nobody_up() {
    const ENTRIES: usize = 300;
    let Some(moto) = moto_server() else { return };
    let s3 = S3::start(&moto).await;
    s3.make_locked("archive").await;
    let relay = Relay::before(&s3.address()).await;
    relay.cut();
    let options = s3
        .access(Options::default())
        .with_variable("AWS_ENDPOINT", format!("http://{}", relay.address()))
        .with_variable("MUSTER_LOG_ARCHIVE", "s3://archive/log");
    let mut server = Server::start(options).await;
    let api = server.api().await;
    // Away from the start: everybody works on, and what waits is the log itself, not a second queue.
    grow(&api, 0, ENTRIES).await;
    eventually("the failure is counted", PATIENCE * 2, async || {
        (server.metric("mdm_log_archive_failures_total").await > 0).then_some(())
    })
    .await;
    eventually("the lag is told", PATIENCE * 2, async || {
        let lag = server.metric("mdm_log_archive_lag_entries").await;
        (lag >= ENTRIES as i64).then_some(())
    })
    .await;
    let store = server.store().await;
    assert!(store.count("audit_archive").await <= 1);
    relay.open(&s3.address());
    archived(&server).await;
    // Away once more in the middle, and over a restart.
    relay.cut();
    grow(&api, ENTRIES, ENTRIES + 20).await;
    server.restart().await;
    grow(&server.api().await, ENTRIES + 20, ENTRIES + 40).await;
    relay.open(&s3.address());
    archived(&server).await;
    eventually("there is no lag", PATIENCE, async || {
        (server.metric("mdm_log_archive_lag_entries").await == 0).then_some(())
    })
    .await;
    assert!(store.count("audit_archive").await <= 1);
    let newest = size(&server).await;
    server.stop().await;
    let name = format!("log/{}/checkpoints/{newest:020}", server.admin.tenant);
    s3.hold("archive", &name).await;
    let (code, said) = doctor(&server).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the archive tells the same"), "{said}");
    // Every entry is there, in its place, and verifies without the server.
    let copy = copied(&s3, &server, u64::try_from(newest).expect("a size")).await;
    let verified = muster()
        .args([
            "log",
            "verify",
            "--folder",
            &copy.display().to_string(),
            "--key",
            &log_key(&server),
        ])
        .output()
        .await
        .expect("the program muster starts");
    let said = everything(&verified);
    assert!(
        verified.status.success() && said.contains(&newest.to_string()),
        "{said}"
    );
}
