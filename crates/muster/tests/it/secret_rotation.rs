//! Secrets that are rotated while they are in use: no request fails, on one node and on two, whatever dies at whatever step.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::support::{
    PATIENCE,
    api::{Api, answer, try_answer},
    database::{Place, Store, each_database, on_postgres},
    device::Device,
    eventually, jwt,
    server::{AdminFile, Options, Server, assert_healthy},
};

/// Rings settle for 15 seconds before a new key signs.
const SETTLED: Duration = Duration::from_secs(40);

fn key_of(token: &str) -> Value {
    jwt::parts(token).0["kid"].clone()
}

async fn version_of(api: &Api, name: &str) -> i64 {
    let secret = api.get(&format!("/secrets/{name}")).await.ok();
    secret["version"].as_i64().expect("a number")
}

/// The one secret whose name begins so.
async fn named(api: &Api, start: &str) -> String {
    let items = api.get("/secrets").await.ok()["items"].clone();
    let items = items.as_array().expect("a list").clone();
    let names = items.iter().map(|secret| secret["name"].as_str().expect("text"));
    let found = names.into_iter().find(|name| name.starts_with(start));
    found.unwrap_or_else(|| panic!("{start}")).to_owned()
}

async fn rotate(api: &Api, name: &str) {
    let before = version_of(api, name).await;
    api.post(&format!("/secrets/{name}/rotate"), &json!({}))
        .await
        .expect(202);
    eventually(name, PATIENCE, async || {
        (version_of(api, name).await > before).then_some(())
    })
    .await;
}

/// What load is and how it fares.
#[derive(Default)]
struct Load {
    done: AtomicU64,
    stop: AtomicBool,
}

impl Load {
    /// Requests with a token of the beginning, with fresh tokens, and over connections of their own, on these nodes in turn.
    fn begin(self: &Arc<Load>, admins: Vec<AdminFile>, old: Api) -> JoinSet<Vec<String>> {
        let mut tasks = JoinSet::new();
        for worker in 0..3 {
            let (load, admins, old) = (Arc::clone(self), admins.clone(), old.clone());
            tasks.spawn(async move {
                let mut failed = Vec::new();
                for round in 0_usize.. {
                    if load.stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let admin = &admins[(round + worker) % admins.len()];
                    // A client of its own is a new connection with a new handshake.
                    let fresh = Api::anonymous(admin);
                    let fields = [
                        ("grant_type", "client_credentials"),
                        ("client_id", admins[0].client_id.as_str()),
                        ("client_secret", admins[0].client_secret.as_str()),
                    ];
                    let answer = fresh.form("/oauth2/token", &fields).await;
                    if answer.status != 200 {
                        failed.push(format!("a token: {} {}", answer.status, answer.text()));
                        continue;
                    }
                    let token = answer.json()["access_token"].as_str().expect("text").to_owned();
                    for token in [token, old.token.clone()] {
                        let call = fresh.with_token(token);
                        match try_answer(call.request(Method::GET, "/policies")).await {
                            Ok(answer) if answer.status == 200 => {}
                            Ok(answer) => failed.push(format!("{} {}", answer.status, answer.text())),
                            Err(error) => failed.push(error.to_string()),
                        }
                        load.done.fetch_add(1, Ordering::SeqCst);
                    }
                }
                failed
            });
        }
        tasks
    }

    async fn end(&self, tasks: JoinSet<Vec<String>>) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        let failed: Vec<String> = tasks.join_all().await.into_iter().flatten().collect();
        assert!(
            failed.is_empty(),
            "{} failed, such as {:?}",
            failed.len(),
            &failed[..failed.len().min(3)]
        );
        self.done.load(Ordering::SeqCst)
    }
}

/// Rotates everything that the server rotates, and waits until the new keys sign.
async fn rotate_everything(server: &Server, api: &Api) {
    let before = key_of(&server.api().await.token);
    let (tls, client) = (
        named(api, "tls:").await,
        format!("client:{}", server.admin.client_id),
    );
    for name in [
        "access-token-key",
        "enrollment-token-key",
        "sealing-key",
        &tls,
        &client,
    ] {
        rotate(api, name).await;
    }
    let now = eventually("admin.json has the new secret", PATIENCE, async || {
        let now = AdminFile::read(&server.admin_file());
        (now.client_secret != server.admin.client_secret).then_some(now)
    })
    .await;
    eventually("the new key signs", SETTLED, async || {
        let answer = Api::anonymous(&now)
            .sign_in_as(&now.client_id, &now.client_secret)
            .await;
        (key_of(&answer.token) != before).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_rotates_under_load_and_no_request_fails() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let device = Device::enroll(&api, &server.admin).await;
        let waiting = api
            .post("/enrollment-tokens", &json!({"device_uuid": Uuid::new_v4()}))
            .await
            .expect(201);
        let hook = json!({
            "place": {"kind": "webhook", "url": "https://hook.example/x"},
            "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        });
        api.put("/alert-destinations/hook", &hook).await.ok();
        let sealed = server
            .store()
            .await
            .value("SELECT secret FROM alerts_destination")
            .await;
        let load = Arc::new(Load::default());
        let tasks = load.begin(vec![server.admin.clone()], api.clone());
        rotate_everything(&server, &api).await;
        let done = load.end(tasks).await;
        assert!(done > 50, "{done} requests are no load");
        println!("{done} requests while everything rotated, none failed");

        device.checkin().await;
        assert_ne!(waiting["token"], Value::Null);
        Device::enroll(&api, &server.admin).await;
        let entries = api.list("/log/entries?limit=500").await;
        let rotated = entries.iter().filter(|entry| entry["action"] == "secret.rotated");
        assert!(rotated.count() >= 5, "each rotation is an entry of the log");
        let store = server.store().await;
        eventually("what the first key sealed is sealed anew", SETTLED, async || {
            let now = store.value("SELECT secret FROM alerts_destination").await;
            (now.bytes() != sealed.bytes()).then_some(())
        })
        .await;
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_accept_each_other_s_tokens_while_keys_rotate() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let second = first.second_node().await;
        let api = first.api().await;
        let load = Arc::new(Load::default());
        let tasks = load.begin(vec![first.admin.clone(), second.admin.clone()], api.clone());
        rotate_everything(&first, &api).await;
        let done = load.end(tasks).await;
        println!("{done} requests on two nodes while everything rotated, none failed");
        let crossed = second.api().await.with_token(&api.token);
        crossed.get("/policies").await.ok();
        // One certificate for each node.
        let items = api.get("/secrets").await.ok()["items"].clone();
        let items = items.as_array().expect("a list").clone();
        let nodes = items.iter().filter(|secret| secret["kind"] == "tls_certificate");
        assert_eq!(nodes.count(), 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r1_a_rotation_that_dies_at_any_step_is_done_once() {
    each_database(async |options| {
        let mut server = Server::start(options).await;
        let mut version = version_of(&server.api().await, "access-token-key").await;
        for fault in [
            "secret.stored/after/kill",
            "secret.rotated/before/kill",
            "secret.rotated/after/kill",
        ] {
            server.break_with(fault).await;
            let old = server.api().await;
            // It may die before it answers.
            let asked = old.request(Method::POST, "/secrets/access-token-key/rotate");
            let _ = try_answer(asked.json(&json!({}))).await;
            eventually(fault, PATIENCE, async || (!server.runs()).then_some(())).await;
            server.mend().await;
            let api = server.api().await.with_token(&old.token);
            let now = eventually("the rotation is done", PATIENCE, async || {
                let now = version_of(&api, "access-token-key").await;
                (now > version).then_some(now)
            })
            .await;
            assert_eq!(now, version + 1, "{fault}");
            version = now;
            // A minute between two rotations that somebody asks for is not waited for here.
            let store = server.store().await;
            store
                .execute("UPDATE secrets_record SET rotated_at = rotated_at - 120000000 WHERE name = 'access-token-key'")
                .await;
        }
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_two_secrets_while_it_changes_from_one_to_the_other() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let made = api
        .post("/clients", &json!({"name": "ci", "scopes": ["device:read"]}))
        .await
        .expect(201);
    let text = |value: &Value, field: &str| value[field].as_str().expect("text").to_owned();
    let (id, first) = (text(&made, "client_id"), text(&made, "client_secret"));
    let second = api
        .post(&format!("/clients/{id}/secret"), &json!({}))
        .await
        .expect(201);
    let second = text(&second, "client_secret");
    for secret in [&first, &second] {
        Api::anonymous(&server.admin).sign_in_as(&id, secret).await;
    }
    let body = json!({"overlap_seconds": 0});
    let third = api
        .post(&format!("/clients/{id}/secret"), &body)
        .await
        .expect(201);
    let third = text(&third, "client_secret");
    Api::anonymous(&server.admin).sign_in_as(&id, &third).await;
    for gone in [&first, &second] {
        let fields = [
            ("grant_type", "client_credentials"),
            ("client_id", id.as_str()),
            ("client_secret", gone.as_str()),
        ];
        let refused = Api::anonymous(&server.admin).form("/oauth2/token", &fields).await;
        assert_eq!(refused.status, 401);
    }
    // A weaker client cannot become a stronger one by taking its secret.
    let weak = api.client_with("weak", &["client:write", "client:read"]).await;
    weak.post(&format!("/clients/{id}/secret"), &json!({}))
        .await
        .refused(403, "insufficient_scope");
    // A node's own account is the node's to rotate.
    let own = format!("/clients/{}/secret", server.admin.client_id);
    eventually("the node says which account is its own", PATIENCE, async || {
        let answer = api
            .get(&format!("/secrets/client:{}", server.admin.client_id))
            .await
            .ok();
        (answer["rotated_by"] == "server").then_some(())
    })
    .await;
    api.post(&own, &json!({})).await.refused(409, "illegal_state");
    assert!(!server.log().contains(&third), "l1: no secret in the log");
}

/// Waits for the alarm about an edited row.
async fn alarm_about(api: &Api, object: &str) {
    eventually("the alarm is in the log", PATIENCE, async || {
        let path = format!("/log/entries?action=security.row_edited&object={object}&limit=1");
        (!api.list(&path).await.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m1_a_version_of_a_key_that_somebody_writes_by_sql_signs_nothing() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        rotate(&api, "access-token-key").await;
        eventually("the new key signs", SETTLED, async || {
            let fresh = server.api().await;
            (key_of(&fresh.token) != key_of(&api.token)).then_some(())
        })
        .await;
        let api = server.api().await;
        let (store, foreign) = (server.store().await, jwt::TokenKey::foreign());
        let spki = {
            let pem = foreign.public_pem();
            let lines = pem.lines().filter(|line| !line.starts_with('-'));
            STANDARD.decode(lines.collect::<String>()).expect("it is PEM")
        };
        let spki = store.blob(&spki);
        let (mut header, claims) = jwt::parts(&api.token);
        header["kid"] = json!(foreign.id());
        let forged = api.with_token(foreign.sign(&header, &claims));
        let refused = async |what: &str| {
            // Nodes read the rows every two seconds, and again for a key that they do not know.
            for _ in 0..4 {
                assert_eq!(forged.get("/policies").await.status, 401, "{what}");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            assert_eq!(api.get("/policies").await.status, 200, "{what}: honest tokens are good");
        };
        refused("before").await;
        for (what, number, place) in [("a store", 99, "vault:a/b"), ("the folder", 98, "file"), ("the table", 97, "embedded")] {
            store
                .execute(&format!(
                    "INSERT INTO secrets_version (tenant_id, name, version, place, store_version, public_key, created_at, \
                     activates_at) SELECT tenant_id, name, {number}, '{place}', '1', {spki}, created_at, 0 \
                     FROM secrets_version WHERE name = 'access-token-key' AND version = 2"
                ))
                .await;
            refused(what).await;
        }
        store
            .execute("DELETE FROM secrets_version WHERE version > 90")
            .await;
        store
            .execute(&format!(
                "UPDATE secrets_version SET public_key = {spki}, place = 'vault:a/b' WHERE name = 'access-token-key'"
            ))
            .await;
        refused("edited rows").await;
        store
            .execute("DELETE FROM secrets_version WHERE name = 'access-token-key'")
            .await;
        refused("no rows").await;
        alarm_about(&api, "access-token-key").await;
        // The next version has a number of its own, and everything goes on.
        store
            .execute("UPDATE secrets_record SET rotated_at = rotated_at - 120000000 WHERE name = 'access-token-key'")
            .await;
        rotate(&api, "access-token-key").await;
        assert_eq!(version_of(&api, "access-token-key").await, 3);
        refused("another rotation").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m1_an_ended_key_does_not_come_back_when_its_entries_are_hidden() {
    each_database(async |options| {
        let mut server = Server::start(options).await;
        let api = server.api().await;
        rotate(&api, "access-token-key").await;
        let fresh = eventually("the new key signs", SETTLED, async || {
            let fresh = server.api().await;
            (key_of(&fresh.token) != key_of(&api.token)).then_some(fresh)
        })
        .await;
        fresh
            .post("/secrets/access-token-key/revoke", &json!({}))
            .await
            .ok();
        assert_eq!(api.get("/policies").await.status, 401, "it is ended");
        let store = server.store().await;
        for hide in [
            "UPDATE audit_entry SET object_id = 'x' WHERE object_id = 'access-token-key'",
            "DELETE FROM secrets_version WHERE name = 'access-token-key' AND version > 1",
            "UPDATE secrets_version SET retires_at = NULL WHERE name = 'access-token-key'",
        ] {
            store.execute(hide).await;
        }
        for _ in 0..4 {
            assert_eq!(
                api.get("/policies").await.status,
                401,
                "what was read once stays known"
            );
            assert_eq!(fresh.get("/policies").await.status, 200);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // A start finds in the key folder that the log went further.
        server.restart_unready().await;
        let ready = async |server: &Server| {
            let answer = reqwest::get(format!("{}/readyz", server.admin.ops_url)).await;
            answer.expect("it answers").status().as_u16()
        };
        assert_eq!(ready(&server).await, 503);
        let floor = server.data_dir().join("keys/rings.json");
        std::fs::remove_file(&floor).expect("it is there");
        server.restart().await;
        assert_eq!(ready(&server).await, 200, "as for who takes a backup into use");
    })
    .await;
}

/// Where others read the tenant's keys of signals.
fn key_set(server: &Server) -> String {
    format!(
        "{}/signals/{}/jwks.json",
        server.admin.admin_url, server.admin.tenant
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn m1_a_key_of_signals_is_shown_as_its_secret_says_and_is_rotated_by_hand() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let shown = async || -> Vec<Value> {
            let keys = answer(api.http.get(key_set(&server))).await.ok()["keys"].clone();
            keys.as_array().expect("a list").clone()
        };
        let first = shown().await;
        assert_eq!(first.len(), 1);
        let store = server.store().await;
        let foreign = store.blob(&[4; 65]);
        store
            .execute(&format!("UPDATE signals_key SET point = {foreign}"))
            .await;
        assert_eq!(shown().await, first);
        alarm_about(&api, first[0]["kid"].as_str().expect("text")).await;
        // Another one is shown beside it, and signs later.
        api.post("/secrets/signal-key/rotate", &json!({}))
            .await
            .expect(202);
        let both = eventually("another key is shown", PATIENCE, async || {
            let keys = shown().await;
            (keys.len() == 2).then_some(keys)
        })
        .await;
        assert!(both.contains(&first[0]));
        // Somebody has it: nothing of before is good any more.
        api.post("/secrets/signal-key/revoke", &json!({})).await.ok();
        eventually("one new key is shown", PATIENCE, async || {
            let keys = shown().await;
            (keys.len() == 1 && !both.contains(&keys[0])).then_some(())
        })
        .await;
        // Whoever may do so does not make others refuse everything again and again.
        api.post("/secrets/signal-key/revoke", &json!({}))
            .await
            .refused(429, "rate_limited");
        // One that does not open is replaced.
        let damaged = store.blob(&[9; 90]);
        store
            .execute(&format!("UPDATE signals_key SET secret = {damaged}"))
            .await;
        assert_eq!(shown().await.len(), 0, "what does not open is not shown");
        eventually("it is replaced", PATIENCE, async || {
            (shown().await.len() == 1).then_some(())
        })
        .await;
        assert_eq!(version_of(&api, "signal-key").await, 4);
    })
    .await;
}

/// Columns that hold something sealed. What else holds bytes must hold nothing that begins as sealed values do.
const SEALED: [&str; 9] = [
    "access_connection.secret",
    "access_trust.secret",
    "alerts_delivery.secret",
    "alerts_destination.previous_secret",
    "alerts_destination.secret",
    "signals_key.secret",
    "signals_source.secret",
    "signals_source.secret_before",
    "sinks_sink.secret",
];

/// The columns of bytes with rows that begin so.
async fn columns_with(store: &Store, head: &[u8]) -> Vec<String> {
    let columns = match store {
        Store::Sqlite(_) => {
            "SELECT m.name, p.name FROM sqlite_master m JOIN pragma_table_info(m.name) p \
             WHERE m.type = 'table' AND p.type = 'BYTEA' ORDER BY 1, 2"
        }
        Store::Postgres(_) => {
            "SELECT table_name::text, column_name::text FROM information_schema.columns \
             WHERE table_schema = 'public' AND data_type = 'bytea' ORDER BY 1, 2"
        }
    };
    let (head, mut found) = (store.blob(head), Vec::new());
    for row in store.rows(columns).await {
        let (table, column) = (row[0].text().to_owned(), row[1].text().to_owned());
        // Its values are sealed with the key of the key folder, which is the first version as well.
        if table == "secrets_value" {
            continue;
        }
        let sql = format!("SELECT COUNT(*) FROM {table} WHERE substr({column}, 1, 9) = {head}");
        if store.value(&sql).await.integer() > 0 {
            found.push(format!("{table}.{column}"));
        }
    }
    // Keys that devices obey are sealed under the key of the key folder, whichever version of the ring is used.
    found
        .retain(|column: &String| column != "secrets_tenant_keys.sealed" && column != "tenants_draft.sealed");
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_is_sealed_is_sealed_anew_when_the_sealing_key_rotates() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let hook = |secret: &str, host: &str| {
            json!({
                "place": {"kind": "webhook", "url": format!("https://{host}.example/x")},
                "secret": secret,
            })
        };
        let (one, two) = ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_dGhlLXNlY29uZC1zZWNyZXQtb2YtdGhpcy10ZXN0ISE=");
        let three = "whsec_c2VjcmV0LXRocmVlLW9mLXRoZS10ZXN0LWhlcmU=";
        // A new place for a destination is told to the old one: that message waits with the secret of then.
        api.put("/alert-destinations/hook", &hook(one, "first")).await.ok();
        api.put("/alert-destinations/hook", &hook(two, "second")).await.ok();
        api.put("/alert-destinations/hook", &hook(three, "second"))
            .await
            .ok();
        let sink = json!({
            "place": {"kind": "webhook", "url": "https://sink.example/x"},
            "secret": one,
        });
        let made = api.put("/sinks/sink", &sink).await;
        assert!(made.status < 300, "{}", made.text());
        let connection = json!({
            "definition": {"issuer": "https://id.example", "client_id": "muster"},
            "client_secret": "a-client-secret-of-the-test",
        });
        let made = api.put("/access/connections/provider", &connection).await;
        assert!(made.status < 300, "{}", made.text());
        let trust = json!({
            "definition": {"people": {
                "connection": "provider", "audience": "https://api.example", "required_scope": "muster",
                "introspection_endpoint": "https://id.example/introspect", "introspection_client_id": "muster",
            }},
            "introspection_secret": "an-introspection-secret",
        });
        let made = api.put("/trusts/people", &trust).await;
        assert!(made.status < 300, "{}", made.text());
        let source = json!({"from": {
            "kind": "webhook", "authentication": "hmac",
            "fields": {"device": "/host/serial"}, "verdicts": {"infected": "fail"},
        }});
        let made = api.put("/signal-sources/edr", &source).await;
        assert!(made.status < 300, "{}", made.text());
        for _ in 0..2 {
            let made = api.post("/signal-sources/edr/secret", &json!({})).await;
            assert!(made.status < 300, "{}", made.text());
        }
        answer(api.http.get(key_set(&server))).await.ok();
        let store = server.store().await;
        let sealed = store.value("SELECT secret FROM alerts_destination").await;
        let head = sealed.bytes()[..9].to_vec();
        assert_eq!(columns_with(&store, &head).await, SEALED, "each column is tried");
        rotate(&api, "sealing-key").await;
        eventually("nothing is sealed with the first key", Duration::from_secs(60), async || {
            columns_with(&store, &head).await.is_empty().then_some(())
        })
        .await;
        let sealed = store.value("SELECT secret FROM alerts_destination").await;
        assert_eq!(columns_with(&store, &sealed.bytes()[..9]).await, SEALED);
        // Each has a record.
        for name in [
            "destination:hook", "sink:sink", "connection:provider", "trust:people", "signal-source:edr", "signal-key",
        ] {
            assert!(version_of(&api, name).await >= 1, "{name}");
        }
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_logins_of_the_database_take_turns_under_load_and_no_request_fails() {
    on_postgres(async |options| {
        let Place::Postgres(database) = &options.place else {
            return;
        };
        let Some(admin) = options.as_superuser().await else {
            return;
        };
        let unique = Uuid::new_v4().simple().to_string();
        let (owner, first, second) = (
            format!("own_{unique}"),
            format!("a_{unique}"),
            format!("b_{unique}"),
        );
        admin.execute(&format!("CREATE ROLE {owner} NOLOGIN")).await;
        for login in [&first, &second] {
            admin
                .execute(&format!(
                    "CREATE ROLE {login} LOGIN PASSWORD 'one' IN ROLE {owner}"
                ))
                .await;
            admin
                .execute(&format!("ALTER ROLE {login} SET role TO {owner}"))
                .await;
        }
        admin
            .execute(&format!("GRANT ALL ON SCHEMA public TO {owner}"))
            .await;
        let folder = tempfile::tempdir().expect("a folder can be made");
        let file = folder.path().join("database-password");
        let write = |login: &str, password: &str| {
            let fresh = folder.path().join("fresh");
            std::fs::write(&fresh, format!("{login}\n{password}\n")).expect("it can be written");
            std::fs::rename(&fresh, &file).expect("it can be moved");
        };
        write(&first, "one");
        let url = database.url();
        let (_, place) = url.rsplit_once('@').expect("the URL names a user");
        let url = format!("postgres://{place}?connection_seconds=5");
        let started = Options::default()
            .with("--database-url", &url)
            .with("--database-password-file", file.display());
        let server = Server::start(started).await;
        let api = server.api().await;
        let connections = async |login: &str| {
            let sql = format!("SELECT COUNT(*) FROM pg_stat_activity WHERE usename = '{login}'");
            admin.value(&sql).await.integer()
        };
        assert!(connections(&first).await > 0);
        let load = Arc::new(Load::default());
        let tasks = load.begin(vec![server.admin.clone()], api.clone());
        for (old, new) in [(&first, &second), (&second, &first)] {
            admin
                .execute(&format!("ALTER ROLE {new} PASSWORD 'two' LOGIN"))
                .await;
            // File times are whole seconds.
            tokio::time::sleep(Duration::from_millis(1100)).await;
            write(new, "two");
            eventually("every connection is of the new login", PATIENCE, async || {
                (connections(old).await == 0 && connections(new).await > 0).then_some(())
            })
            .await;
            admin.execute(&format!("ALTER ROLE {old} NOLOGIN")).await;
            tokio::time::sleep(Duration::from_secs(6)).await;
        }
        let done = load.end(tasks).await;
        println!("{done} requests while two logins took turns, none failed");
        let shown = api.get("/secrets/database-password").await.ok();
        assert_eq!(shown["place"], "file");
        assert!(shown["version"].as_i64() >= Some(2), "{shown}");
        assert!(!server.log().contains("two\n"));
        drop(server);
        for role in [&first, &second, &owner] {
            // They end with the database at the latest.
            let _ = admin.try_execute(&format!("DROP OWNED BY {role} CASCADE")).await;
            let _ = admin.try_execute(&format!("DROP ROLE {role}")).await;
        }
    })
    .await;
}
