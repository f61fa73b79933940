//! L3 and L4: somebody changes the log's tables by SQL. The verifier names the first bad entry; no change goes unlogged.

use muster_trust::key::SigningKey;
use serde_json::json;

use crate::support::{
    PATIENCE,
    api::Api,
    database::{Store, each_database},
    device::{logged, now},
    eventually,
    server::{Options, Server, assert_healthy, everything, maintain, muster},
};

const ENTRIES_MIN: usize = 30;

/// A server with a log of some length, every entry in its place.
async fn with_a_log(options: Options) -> (Server, Store) {
    let server = Server::start(options).await;
    let api = server.api().await;
    for number in 0..ENTRIES_MIN {
        api.post("/policies", &json!({"name": format!("p-{number}")}))
            .await
            .expect(201);
    }
    let store = server.store().await;
    all_placed(&store).await;
    (server, store)
}

pub async fn all_placed(store: &Store) {
    eventually("every entry has its place", PATIENCE, async || {
        let waiting = store
            .value("SELECT COUNT(*) FROM audit_entry WHERE seq IS NULL")
            .await
            .integer();
        (waiting == 0).then_some(())
    })
    .await;
}

/// Asserts that the log verifies now.
async fn verifies(server: &Server) {
    let output = maintain(server, &["log", "verify"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", everything(&output));
}

/// Asserts that the verifier and the doctor fail and say this.
async fn named(server: &Server, what: &str, words: &str) {
    for verb in [&["log", "verify"][..], &["doctor"][..]] {
        let output = maintain(server, verb).await;
        let said = everything(&output);
        assert_eq!(output.status.code(), Some(1), "{what}: {verb:?} said {said}");
        assert!(
            said.contains(words),
            "{what}: {verb:?} said {said}, not {words:?}"
        );
    }
}

/// Body bytes of the entry at a place with one bit turned.
async fn bent_bytes(store: &Store, place: u64) -> Vec<u8> {
    let cell = store
        .value(&format!("SELECT body FROM audit_entry WHERE seq = {place}"))
        .await;
    let mut body = cell.bytes().to_vec();
    let middle = body.len() / 2;
    body[middle] ^= 1;
    body
}

/// As [`bent_bytes`], as a literal.
async fn bent(store: &Store, place: u64) -> String {
    store.blob(&bent_bytes(store, place).await)
}

/// Every way to falsify the log, what the verifier must say, and how to undo it: statements in order.
async fn falsifications(store: &Store) -> Vec<(&'static str, Vec<String>, &'static str)> {
    let size = store.value("SELECT size FROM audit_tree").await.integer();
    let last = size - 1;
    let swap = |a: u64, b: u64| {
        let set = |from: String, to: String| format!("UPDATE audit_entry SET seq = {to} WHERE seq = {from}");
        vec![
            set(a.to_string(), "-9".into()),
            set(b.to_string(), a.to_string()),
            set("-9".into(), b.to_string()),
        ]
    };
    let copy = "INSERT INTO audit_entry (tenant_id, entry_id, seq, action, object_id, body, seal) \
                SELECT tenant_id, tenant_id, {}, action, object_id, body, seal FROM audit_entry WHERE seq = 7";
    let tile = store
        .value("SELECT hashes FROM audit_tile WHERE level = 0 AND tile_index = 0")
        .await;
    let mut hashes = tile.bytes().to_vec();
    hashes[11 * 32] ^= 0x80;
    let bent_tile = store.blob(&hashes);
    let bent_5 = bent(store, 5).await;
    vec![
        (
            "changed",
            vec![format!("UPDATE audit_entry SET body = {bent_5} WHERE seq = 5")],
            "entry 5:",
        ),
        (
            "removed",
            vec!["DELETE FROM audit_entry WHERE seq = 7".into()],
            "entry 7:",
        ),
        (
            "removed first",
            vec!["DELETE FROM audit_entry WHERE seq = 0".into()],
            "entry 0:",
        ),
        ("reordered", swap(3, 9), "entry 3:"),
        ("neighbors reordered", swap(20, 21), "entry 20:"),
        (
            "added behind the end",
            vec![copy.replace("{}", &size.to_string())],
            "entry",
        ),
        (
            "added before the beginning",
            vec![copy.replace("{}", "-1")],
            "entry",
        ),
        (
            "body replaced by another's",
            vec![
                "UPDATE audit_entry SET body = (SELECT body FROM audit_entry WHERE seq = 8) WHERE seq = 12"
                    .into(),
            ],
            "entry 12:",
        ),
        (
            "tail cut off",
            vec![format!("DELETE FROM audit_entry WHERE seq > {}", last - 3)],
            "the entry was removed",
        ),
        (
            "place taken away",
            vec!["UPDATE audit_entry SET seq = NULL WHERE seq = 14".into()],
            "entry 14:",
        ),
        (
            "tile changed",
            vec![format!(
                "UPDATE audit_tile SET hashes = {bent_tile} WHERE level = 0 AND tile_index = 0"
            )],
            "entry 11:",
        ),
        (
            "tile removed",
            vec!["DELETE FROM audit_tile WHERE level = 0 AND tile_index = 0".into()],
            "entry 0:",
        ),
        (
            "labels changed",
            vec!["UPDATE audit_entry SET object_id = 'dev_x' WHERE seq = 6".into()],
            "entry 6:",
        ),
        (
            "action hidden",
            vec!["UPDATE audit_entry SET action = 'policy.read' WHERE seq = 4".into()],
            "entry 4:",
        ),
        (
            "size changed",
            vec![format!("UPDATE audit_tree SET size = {}", size - 5)],
            "audit_tree.size",
        ),
        (
            "head's note changed",
            vec!["UPDATE audit_tree SET note = REPLACE(note, 'muster', 'mustar')".into()],
            "head",
        ),
        ("head removed", vec!["DELETE FROM audit_tree".into()], "head"),
        (
            "everything removed",
            vec!["DELETE FROM audit_entry".into()],
            "entry 0:",
        ),
    ]
}

const TABLES: [&str; 3] = ["audit_entry", "audit_tile", "audit_tree"];

async fn save(store: &Store) {
    for table in TABLES {
        store
            .execute(&format!("CREATE TABLE saved_{table} AS SELECT * FROM {table}"))
            .await;
    }
}

async fn put_back(store: &Store) {
    for table in TABLES {
        store.execute(&format!("DELETE FROM {table}")).await;
        store
            .execute(&format!("INSERT INTO {table} SELECT * FROM saved_{table}"))
            .await;
    }
}

async fn forget_saved(store: &Store) {
    for table in TABLES {
        store.execute(&format!("DROP TABLE saved_{table}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_the_first_bad_entry_is_named_on_a_stopped_server() {
    each_database(async |options| {
        let (mut server, store) = with_a_log(options).await;
        server.stop().await;
        verifies(&server).await;
        save(&store).await;
        for (what, statements, words) in falsifications(&store).await {
            for sql in statements {
                store.execute(&sql).await;
            }
            named(&server, what, words).await;
            put_back(&store).await;
        }
        forget_saved(&store).await;
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_the_first_bad_entry_is_named_beside_a_running_server() {
    each_database(async |options| {
        let (server, store) = with_a_log(options).await;
        verifies(&server).await;
        let bent = bent(&store, 5).await;
        let good = store.value("SELECT body FROM audit_entry WHERE seq = 5").await;
        store
            .execute(&format!("UPDATE audit_entry SET body = {bent} WHERE seq = 5"))
            .await;
        named(&server, "changed", "entry 5:").await;
        let good = store.blob(good.bytes());
        store
            .execute(&format!("UPDATE audit_entry SET body = {good} WHERE seq = 5"))
            .await;
        verifies(&server).await;
        store.execute("DELETE FROM audit_entry WHERE seq = 17").await;
        named(&server, "removed", "entry 17:").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_a_rewritten_log_is_found_from_outside_too() {
    let (server, store) = with_a_log(Options::default()).await;
    let admin_file = server.admin_file().display().to_string();
    let verify = async || {
        let mut command = muster();
        command
            .args(["log", "verify", "--admin-file", &admin_file])
            .env("XDG_CONFIG_HOME", server.folder().path());
        command.output().await.expect("the program muster starts")
    };
    let good = verify().await;
    assert_eq!(good.status.code(), Some(0), "{}", everything(&good));
    let bent = bent(&store, 5).await;
    store
        .execute(&format!("UPDATE audit_entry SET body = {bent} WHERE seq = 5"))
        .await;
    let bad = verify().await;
    assert_eq!(bad.status.code(), Some(1), "{}", everything(&bad));
    assert!(everything(&bad).contains("entry 5"), "{}", everything(&bad));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_verifies_while_it_grows() {
    each_database(async |options| {
        let (server, _store) = with_a_log(options).await;
        let api = server.api().await;
        let writer = tokio::spawn(async move {
            for number in 0.. {
                api.post("/policies", &json!({"name": format!("q-{number}")}))
                    .await
                    .expect(201);
            }
        });
        for _ in 0..6 {
            verifies(&server).await;
        }
        writer.abort();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l4_a_change_that_cannot_be_logged_does_not_happen() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let store = server.store().await;
        all_placed(&store).await;
        let (policies, clients) = (
            store.count("policy_policy").await,
            store.count("access_client").await,
        );
        refuse_inserts(&store).await;
        for (path, body) in changes() {
            let answer = api.post(path, &body).await;
            assert!(
                answer.status >= 500,
                "{path} answered {}: {}",
                answer.status,
                answer.text()
            );
            assert!(
                !answer.text().contains("audit_entry") && !answer.text().contains("forbidden"),
                "{}",
                answer.text()
            );
        }
        assert_eq!(store.count("policy_policy").await, policies);
        assert_eq!(store.count("access_client").await, clients);
        assert_eq!(store.count("enrollment_token").await, 0);
        assert_eq!(store.count("access_idempotency").await, 0);
        allow_inserts(&store).await;
        api.post_once("/policies", "k", &json!({"name": "unlogged"}))
            .await
            .expect(201);
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l4_without_its_table_the_log_stops_every_change() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let store = server.store().await;
        all_placed(&store).await;
        let policies = store.count("policy_policy").await;
        store
            .execute("ALTER TABLE audit_entry RENAME TO audit_entry_gone")
            .await;
        for (path, body) in changes() {
            let answer = api.post(path, &body).await;
            assert!(
                answer.status >= 500,
                "{path} answered {}: {}",
                answer.status,
                answer.text()
            );
        }
        assert_eq!(store.count("policy_policy").await, policies);
        api.get("/policies").await.ok();
        store
            .execute("ALTER TABLE audit_entry_gone RENAME TO audit_entry")
            .await;
        api.post("/policies", &json!({"name": "logged"}))
            .await
            .expect(201);
    })
    .await;
}

fn changes() -> [(&'static str, serde_json::Value); 3] {
    [
        ("/policies", json!({"name": "unlogged"})),
        ("/clients", json!({"name": "unlogged", "scopes": ["device:read"]})),
        ("/enrollment-tokens", json!({"device_uuid": uuid::Uuid::new_v4()})),
    ]
}

pub async fn refuse_inserts(store: &Store) {
    match store {
        Store::Sqlite(_) => {
            let sql = "CREATE TRIGGER forbidden BEFORE INSERT ON audit_entry BEGIN SELECT RAISE(ABORT, 'forbidden'); END";
            store.execute(sql).await;
        }
        Store::Postgres(_) => {
            let body = "CREATE FUNCTION forbidden() RETURNS trigger LANGUAGE plpgsql AS \
                        'BEGIN RAISE EXCEPTION ''forbidden''; END'";
            store.execute(body).await;
            store
                .execute("CREATE TRIGGER forbidden BEFORE INSERT ON audit_entry FOR EACH ROW EXECUTE FUNCTION forbidden()")
                .await;
        }
    }
}

pub async fn allow_inserts(store: &Store) {
    match store {
        Store::Sqlite(_) => store.execute("DROP TRIGGER forbidden").await,
        Store::Postgres(_) => store.execute("DROP TRIGGER forbidden ON audit_entry").await,
    };
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_added_by_sql_without_a_seal_never_gets_a_place() {
    each_database(async |options| {
        let (server, store) = with_a_log(options).await;
        let api = server.api().await;
        let id = store.uuid(uuid::Uuid::nil());
        let forged = format!(
            "INSERT INTO audit_entry (tenant_id, entry_id, seq, action, object_id, body, seal) \
             SELECT tenant_id, {id}, NULL, action, object_id, body, seal FROM audit_entry WHERE seq = 4"
        );
        store.execute(&forged).await;
        grow_past(&api, &store).await;
        let place = store
            .rows(&format!(
                "SELECT seq FROM audit_entry WHERE entry_id = {id} AND seq IS NULL"
            ))
            .await;
        assert_eq!(place.len(), 1, "the forged entry waits for ever");
        // What others write meanwhile goes on.
        let waiting = store
            .value("SELECT COUNT(*) FROM audit_entry WHERE seq IS NULL")
            .await
            .integer();
        assert_eq!(waiting, 1);

        named(&server, "a copy under another id", "no seal").await;

        let no_seal = format!(
            "UPDATE audit_entry SET seal = {} WHERE entry_id = {id}",
            store.blob(&[0; 64])
        );
        store.execute(&no_seal).await;
        grow_past(&api, &store).await;
        named(&server, "no seal", "no seal").await;
        store
            .execute(&format!("DELETE FROM audit_entry WHERE entry_id = {id}"))
            .await;
        assert_healthy(&server).await;
    })
    .await;
}

/// Makes a change and waits until its entry has its place.
async fn grow_past(api: &Api, store: &Store) {
    let before = store.value("SELECT size FROM audit_tree").await.integer();
    api.post("/policies", &json!({"name": uuid::Uuid::new_v4().to_string()}))
        .await
        .expect(201);
    eventually("the log grows on", PATIENCE, async || {
        (store.value("SELECT size FROM audit_tree").await.integer() > before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_the_server_signs_nothing_over_a_tree_that_was_changed() {
    each_database(async |options| {
        let (server, store) = with_a_log(options).await;
        let api = server.api().await;
        save(&store).await;
        let size = store.value("SELECT size FROM audit_tree").await.integer();
        // The row and its leaf hash agree again, as whoever knows the format would leave them.
        let bent = bent_bytes(&store, 5).await;
        let tile = store
            .value("SELECT hashes FROM audit_tile WHERE level = 0 AND tile_index = 0")
            .await;
        let mut hashes = tile.bytes().to_vec();
        hashes[5 * 32..6 * 32].copy_from_slice(muster_trust::merkle::leaf_hash(&bent).as_bytes());
        store
            .execute(&format!(
                "UPDATE audit_entry SET body = {} WHERE seq = 5",
                store.blob(&bent)
            ))
            .await;
        let sql = format!(
            "UPDATE audit_tile SET hashes = {} WHERE level = 0 AND tile_index = 0",
            store.blob(&hashes)
        );
        store.execute(&sql).await;
        refuses_to_grow(&server, &api, &store, size).await;

        put_back(&store).await;
        let older = size - 3;
        let sql = format!("UPDATE audit_tree SET size = {older}");
        store.execute(&sql).await;
        refuses_to_grow(&server, &api, &store, older).await;
        store
            .execute(&format!("UPDATE audit_tree SET size = {size}"))
            .await;
        forget_saved(&store).await;
        grow_past(&api, &store).await;
    })
    .await;
}

/// Asserts that the log stays as it is after a change, and that its verifier fails.
async fn refuses_to_grow(server: &Server, api: &Api, store: &Store, size: i64) {
    api.post("/policies", &json!({"name": uuid::Uuid::new_v4().to_string()}))
        .await
        .expect(201);
    eventually("the server says why it does not sign", PATIENCE, async || {
        server.log().contains("the stored log was changed").then_some(())
    })
    .await;
    assert_eq!(store.value("SELECT size FROM audit_tree").await.integer(), size);
    let output = maintain(server, &["log", "verify"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", everything(&output));
}

/// How a node says that it does not believe the stored log.
const REFUSED: &str = "THE STORED LOG WAS CHANGED";

async fn says(server: &Server, words: &str) {
    eventually(&format!("the server says {words:?}"), PATIENCE, async || {
        server.log().contains(words).then_some(())
    })
    .await;
}

async fn signed_size(store: &Store) -> i64 {
    store.value("SELECT size FROM audit_tree").await.integer()
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_a_log_that_is_taken_back_while_a_node_restarts_is_not_forked() {
    each_database(async |options| {
        let (mut server, store) = with_a_log(options).await;
        save(&store).await;
        let api = server.api().await;
        api.post("/policies", &json!({"name": "act"})).await.expect(201);
        all_placed(&store).await;
        server.stop().await;
        let acted = signed_size(&store).await;
        put_back(&store).await;
        let earlier = signed_size(&store).await;
        assert!(earlier < acted);

        server.restart().await;
        let api = server.api().await;
        for number in 0..4 {
            let body = json!({"name": format!("in-the-place-of-the-act-{number}")});
            api.post("/policies", &body).await.expect(201);
        }
        says(&server, REFUSED).await;
        says(&server, "was not sequenced").await;
        assert_eq!(
            signed_size(&store).await,
            earlier,
            "nothing is signed behind what was taken back"
        );
        api.get("/log/checkpoint").await.refused(503, "unavailable");
        named(&server, "taken back", "it went back").await;
        forget_saved(&store).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_a_forged_head_stops_nobody_for_longer_than_it_is_there() {
    each_database(async |options| {
        let (server, store) = with_a_log(options).await;
        let api = server.api().await;
        all_placed(&store).await;
        let before = api.get("/log/checkpoint").await.text();
        let size = signed_size(&store).await;
        let huge = 1_i64 << 62;
        store
            .execute(&format!(
                "UPDATE audit_tree SET size = {huge}, note = REPLACE(note, '\n{size}\n', '\n{huge}\n')"
            ))
            .await;
        says(&server, REFUSED).await;
        assert_eq!(api.get("/log/checkpoint").await.text(), before);
        store
            .execute(&format!(
                "UPDATE audit_tree SET size = {size}, note = REPLACE(note, '\n{huge}\n', '\n{size}\n')"
            ))
            .await;
        grow_past(&api, &store).await;
        all_placed(&store).await;
        let alarms = logged(&api, "security.head_refused", 1).await;
        assert_eq!(alarms.len(), 1, "once an hour: {alarms:?}");
        verifies(&server).await;
        // That it happened is still said.
        named_by_the_doctor(&server, "security.head_refused").await;
    })
    .await;
}

async fn named_by_the_doctor(server: &Server, words: &str) {
    let output = maintain(server, &["doctor"]).await;
    let said = everything(&output);
    assert!(output.status.code() == Some(1) && said.contains(words), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_an_entry_that_is_removed_before_it_has_a_place_is_missed() {
    each_database(async |options| {
        let (server, store) = with_a_log(options).await;
        let api = server.api().await;
        all_placed(&store).await;
        // Whoever takes the lease of the sequencer stalls the log, for as long as a lease may be held.
        let until = now().as_micros() + 50_000_000;
        store
            .execute(&format!(
                "UPDATE storage_lease SET holder = 'thief', token = token + 1, expires_at = {until} \
                 WHERE name = 'audit.sequencer'"
            ))
            .await;
        let policy = api
            .post("/policies", &json!({"name": "unseen"}))
            .await
            .expect(201);
        let id = policy["id"].as_str().expect("an id is text").to_owned();
        let removed = store
            .execute(&format!(
                "DELETE FROM audit_entry WHERE seq IS NULL AND object_id = '{id}'"
            ))
            .await;
        assert_eq!(removed, 1);
        says(&server, "ARE GONE FROM THE DATABASE").await;
        store
            .execute("UPDATE storage_lease SET expires_at = 0, holder = '' WHERE name = 'audit.sequencer'")
            .await;
        let alarms = logged(&api, "security.entry_lost", 1).await;
        assert_eq!(alarms[0]["detail"]["count"], 1);
        assert_eq!(alarms[0]["detail"]["entries"][0]["action"], "policy.created");
        named_by_the_doctor(&server, "security.entry_lost").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l4_an_entry_that_a_trigger_swallows_takes_its_change_with_it() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let store = server.store().await;
        match &store {
            Store::Sqlite(_) => {
                let sql = "CREATE TRIGGER thief BEFORE INSERT ON audit_entry BEGIN SELECT RAISE(IGNORE); END";
                store.execute(sql).await;
            }
            Store::Postgres(_) => {
                let body = "CREATE FUNCTION thief() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'";
                store.execute(body).await;
                store
                    .execute("CREATE TRIGGER thief BEFORE INSERT ON audit_entry FOR EACH ROW EXECUTE FUNCTION thief()")
                    .await;
            }
        }
        let policies = store.count("policy_policy").await;
        let answer = api.post("/policies", &json!({"name": "unlogged"})).await;
        assert!(answer.status >= 500, "{}", answer.text());
        assert_eq!(store.count("policy_policy").await, policies);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_a_log_is_not_called_bad_while_its_key_is_replaced() {
    let (mut server, store) = with_a_log(Options::default()).await;
    server.stop().await;
    let key = SigningKey::generate_ed25519().expect("a key");
    let folder = server.data_dir().join("keys/tenants").join(&server.admin.tenant);
    std::fs::write(
        folder.join("log.pem"),
        key.to_pkcs8_pem().expect("PEM").as_bytes(),
    )
    .expect("it can be replaced");
    server.restart().await;
    grow_past(&server.api().await, &store).await;
    verifies(&server).await;
    all_placed(&store).await;
}
