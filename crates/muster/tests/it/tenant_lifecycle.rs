//! Tenants made, paused and ended through the API: what the operator may do, what only the root keys may, and that the end is whole.

use std::{collections::BTreeMap, time::Duration};

use muster_model::{TenantId, Timestamp};
use muster_trust::{
    closure::{self, TenantClosureStatement},
    dsse::{self, Envelope},
    encoding::from_base64,
    key::{SigningKey, sha256},
    root::{self, RootDocument},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    api::{Answer, Api, answer},
    database::{Store, each_database, on_postgres},
    device::{Device, now},
    eventually,
    server::{AdminFile, Options, Server, assert_healthy, everything, run_muster},
};

/// How long a tenant's end may take: every node has some seconds to forget it.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// A tenant that was made through the API.
pub(crate) struct Made {
    pub(crate) id: String,
    pub(crate) admin: AdminFile,
    root_key: SigningKey,
    /// The signed first document.
    envelope: Envelope,
}

fn key() -> SigningKey {
    SigningKey::generate_ed25519().expect("a key can be made")
}

async fn draft(operator: &Api, name: &str, keys: &[&SigningKey], threshold: u32) -> Answer {
    let pems: Vec<String> = keys.iter().map(|key| key.public().to_pem()).collect();
    let body = json!({"name": name, "root_keys": pems, "root_threshold": threshold});
    operator.post("/tenants", &body).await
}

fn sign(draft: &Value, keys: &[&SigningKey]) -> Envelope {
    let payload = from_base64(draft["payload"].as_str().expect("text")).expect("base64");
    dsse::sign(root::PAYLOAD_TYPE, &payload, keys).expect("it can be signed")
}

/// Makes a tenant by the two steps.
pub(crate) async fn make(operator: &Api, server: &Server, name: &str) -> Made {
    let root_key = key();
    let draft = draft(operator, name, &[&root_key], 1).await.expect(201);
    let id = draft["id"].as_str().expect("text").to_owned();
    let envelope = sign(&draft, &[&root_key]);
    let made = operator
        .post(&format!("/tenants/{id}/root"), &json!(envelope))
        .await
        .expect(201);
    let text = |name: &str| made[name].as_str().expect("text").to_owned();
    let admin = AdminFile {
        tenant: id.clone(),
        client_id: text("client_id"),
        client_secret: text("client_secret"),
        ..server.admin.clone()
    };
    Made {
        id,
        admin,
        root_key,
        envelope,
    }
}

impl Made {
    fn closure(&self, keys: &[&SigningKey], change: impl Fn(&mut TenantClosureStatement)) -> Value {
        let document: RootDocument =
            serde_json::from_slice(&self.envelope.payload).expect("it is a root document");
        let mut statement = TenantClosureStatement {
            tenant: document.tenant,
            root_version: 1,
            root_sha256: sha256(&self.envelope.payload),
            reason: "the contract ended".to_owned(),
            issued_at: now(),
            expires_at: now().plus(Duration::from_secs(3600)),
        };
        change(&mut statement);
        json!(closure::sign(&statement, keys).expect("it can be signed"))
    }
}

/// How many rows each table has of a tenant.
async fn rows_of(store: &Store, tables: &[String], tenant: &str) -> BTreeMap<String, i64> {
    let mut rows = BTreeMap::new();
    for table in tables {
        let sql = format!(
            "SELECT COUNT(*) FROM {table} WHERE tenant_id = {}",
            store.id(tenant)
        );
        rows.insert(table.clone(), store.value(&sql).await.integer());
    }
    rows
}

/// The files of an archive, by name.
fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let (mut files, mut at) = (BTreeMap::new(), 0);
    while archive[at] != 0 {
        let header = &archive[at..at + 512];
        let text = |from: usize, to: usize| {
            let bytes = &header[from..to];
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8(bytes[..end].to_vec()).expect("it is text")
        };
        let size = usize::from_str_radix(&text(124, 136), 8).expect("a size is octal");
        files.insert(text(0, 100), archive[at + 512..at + 512 + size].to_vec());
        at += 512 + size.next_multiple_of(512);
    }
    files
}

async fn export(api: &Api, tenant: &str) -> BTreeMap<String, Vec<u8>> {
    let answer = api.get(&format!("/tenants/{tenant}/export")).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    files(&answer.bytes)
}

fn tables_of(files: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let manifest: Value = serde_json::from_slice(&files["muster-export/manifest.json"]).expect("JSON");
    let tables = manifest["tables"].as_array().expect("a list");
    let names = tables.iter().map(|table| table["name"].as_str().expect("text"));
    names.map(str::to_owned).collect()
}

async fn state(operator: &Api, tenant: &str) -> String {
    let shown = operator.get(&format!("/tenants/{tenant}")).await.ok();
    shown["state"].as_str().expect("text").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_made_only_by_its_root_keys_over_exactly_what_the_server_wrote() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let operator = server.api().await;
        let (ada, bob, eve) = (key(), key(), key());
        let answered = draft(&operator, "acme", &[&ada, &bob], 2).await.expect(201);
        let path = format!("/tenants/{}/root", answered["id"].as_str().expect("text"));
        assert_eq!(state(&operator, "acme").await, "awaiting_root");
        draft(&operator, "acme", &[&eve], 1)
            .await
            .refused(409, "name_taken");
        draft(&operator, "default", &[&eve], 1)
            .await
            .refused(409, "name_taken");
        draft(&operator, "No Name", &[&eve], 1)
            .await
            .refused(400, "invalid");
        // One of two, others, another purpose, another document.
        let refuse = async |envelope: &Envelope| {
            operator
                .post(&path, &json!(envelope))
                .await
                .refused(422, "root_refused")
        };
        refuse(&sign(&answered, &[&ada])).await;
        refuse(&sign(&answered, &[&ada, &eve])).await;
        let mut other = sign(&answered, &[&ada, &bob]);
        other.payload.push(b' ');
        refuse(&other).await;
        let payload = from_base64(answered["payload"].as_str().expect("text")).expect("base64");
        refuse(&dsse::sign("application/json", &payload, &[&ada, &bob]).expect("signed")).await;
        let mut document: RootDocument = serde_json::from_slice(&payload).expect("a root document");
        document.budgets.destructive_per_hour_min = 1_000_000;
        refuse(&document.sign(&[&ada, &bob]).expect("signed")).await;
        let whole = sign(&answered, &[&ada, &bob]);
        // Two at once: one makes it.
        let body = json!(whole);
        let (one, two) = tokio::join!(operator.post(&path, &body), operator.post(&path, &body));
        assert!([&one, &two].iter().any(|answer| answer.status == 201));
        // An answer that was lost is given anew, to whoever has the same envelope, as long as nobody used what was in it.
        let first = operator.post(&path, &body).await.expect(201);
        let again = operator.post(&path, &body).await.expect(201);
        assert_eq!(first["client_id"], again["client_id"]);
        let text = |made: &Value, name: &str| made[name].as_str().expect("text").to_owned();
        let admin = |made: &Value| AdminFile {
            tenant: text(made, "id"),
            client_id: text(made, "client_id"),
            client_secret: text(made, "client_secret"),
            ..server.admin.clone()
        };
        let earlier = admin(&first);
        Api::anonymous(&server.admin)
            .ask_token(&[
                ("client_id", earlier.client_id.as_str()),
                ("client_secret", earlier.client_secret.as_str()),
            ])
            .await
            .expect(401);
        operator
            .post(&path, &json!(sign(&answered, &[&bob, &ada])))
            .await
            .refused(409, "illegal_state");
        Api::sign_in(&admin(&again)).await.get("/devices").await.ok();
        operator.post(&path, &body).await.refused(409, "illegal_state");
        assert_eq!(state(&operator, "acme").await, "active");
        let listed = operator.list("/tenants").await;
        assert_eq!(listed.len(), 2);
        assert_eq!(listed[0]["is_operator"], true);
        // A draft can be taken back; a tenant cannot.
        let spare = draft(&operator, "spare", &[&eve], 1).await.expect(201);
        let spare = format!("/tenants/{}", spare["id"].as_str().expect("text"));
        operator.delete(&spare).await.expect(204);
        operator.get(&spare).await.refused(404, "not_found");
        operator
            .delete("/tenants/acme")
            .await
            .refused(409, "illegal_state");
        for number in 0..20 {
            draft(&operator, &format!("draft-{number}"), &[&eve], 1)
                .await
                .expect(201);
        }
        draft(&operator, "draft-20", &[&eve], 1)
            .await
            .refused(409, "conflict");
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_the_operators_tenant_sees_or_changes_tenants() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let operator = server.api().await;
        let made = make(&operator, &server, "acme").await;
        let theirs = Api::sign_in(&made.admin).await;
        let own = &server.admin.tenant;
        let calls = [
            (Method::GET, "/tenants".to_owned(), json!(null)),
            (
                Method::POST,
                "/tenants".to_owned(),
                json!({"name": "x", "root_keys": []}),
            ),
            (Method::GET, format!("/tenants/{own}"), json!(null)),
            (Method::GET, format!("/tenants/{}", made.id), json!(null)),
            (
                Method::PATCH,
                format!("/tenants/{own}"),
                json!({"display_name": "x"}),
            ),
            (Method::DELETE, format!("/tenants/{own}"), json!(null)),
            (Method::POST, format!("/tenants/{own}/root"), json!(made.envelope)),
            (Method::POST, format!("/tenants/{own}/suspend"), json!({})),
            (Method::POST, format!("/tenants/{}/suspend", made.id), json!({})),
            (Method::POST, format!("/tenants/{own}/resume"), json!({})),
            (
                Method::POST,
                format!("/tenants/{own}/close"),
                json!(made.envelope),
            ),
            (Method::GET, format!("/tenants/{own}/export"), json!(null)),
        ];
        for (method, path, body) in calls {
            let mut request = theirs.request(method.clone(), &path);
            if !body.is_null() {
                request = request.json(&body);
            }
            let refused = answer(request).await;
            assert_eq!(refused.word(), "403 operator_only", "{method} {path}");
        }
        // Its own tenant it takes away at any time; the operator only when its root keys have closed it.
        let files = export(&theirs, &made.id).await;
        assert!(files.contains_key("muster-export/summary.json"));
        let path = format!("/tenants/{}", made.id);
        let exported = format!("{path}/export");
        operator.get(&exported).await.refused(409, "illegal_state");
        operator.post(&format!("{path}/suspend"), &json!({})).await.ok();
        operator.get(&exported).await.refused(409, "illegal_state");
        let closure = made.closure(&[&made.root_key], |_| {});
        operator
            .post(&format!("{path}/close"), &closure)
            .await
            .expect(202);
        let files = export(&operator, &made.id).await;
        assert!(files.contains_key("muster-export/summary.json"));
        operator.post(&format!("{path}/resume"), &json!({})).await.ok();
        operator.get(&exported).await.refused(409, "illegal_state");
        // Its people hear of it when it goes on.
        eventually("it is an alert", PATIENCE, async || {
            let alerts = theirs.list("/alerts").await;
            alerts
                .iter()
                .any(|alert| alert["rule"] == "tenant_shut")
                .then_some(())
        })
        .await;
        // The operator's tenant is there for good.
        for (what, body) in [("suspend", json!({})), ("close", json!(made.envelope))] {
            operator
                .post(&format!("/tenants/{own}/{what}"), &body)
                .await
                .refused(409, "illegal_state");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_tenant_is_shut_at_once_and_goes_on_where_it_was() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let operator = server.api().await;
        let made = make(&operator, &server, "acme").await;
        let theirs = Api::sign_in(&made.admin).await;
        let device = Device::enroll(&theirs, &made.admin).await;
        device.checkin().await;
        let from = json!({"kind": "ssf", "issuer": "https://idp.example.com", "jwks_url": "https://idp.example.com/jwks"});
        let source = theirs.put("/signal-sources/idp", &json!({"from": from})).await.ok();
        let address = source["address"].as_str().expect("an address").to_owned();
        let store = server.store().await;
        let path = format!("/tenants/{}", made.id);
        operator
            .post(&format!("{path}/suspend"), &json!({"reason": "unpaid"}))
            .await
            .ok();
        theirs.get("/devices").await.refused(403, "tenant_suspended");
        let fields = [
            ("client_id", made.admin.client_id.as_str()),
            ("client_secret", made.admin.client_secret.as_str()),
        ];
        theirs.ask_token(&fields).await.refused(403, "tenant_suspended");
        let later = device.try_checkin_with("agent_version", json!("1.2.3")).await;
        later.refused(503, "unavailable");
        assert_eq!(later.header("retry-after"), "300");
        operator
            .post(&format!("{path}/suspend"), &json!({}))
            .await
            .refused(409, "illegal_state");
        // A source outside comes later, and nobody who asks makes keys of a tenant that is shut.
        let sent = answer(theirs.http.post(&address).body("{}")).await;
        assert_eq!((sent.status, sent.header("retry-after")), (429, "300"));
        let keys = store.value("SELECT COUNT(*) FROM signals_key").await.integer();
        let url = format!("{}/signals/{}/jwks.json", server.admin.admin_url, made.id);
        assert_eq!(answer(theirs.http.get(&url)).await.status, 200);
        assert_eq!(store.value("SELECT COUNT(*) FROM signals_key").await.integer(), keys);
        operator.post(&format!("{path}/resume"), &json!({})).await.ok();
        assert_eq!(
            theirs.get("/devices").await.ok()["items"]
                .as_array()
                .map(Vec::len),
            Some(1)
        );
        device.checkin().await;
        // Both logs tell of it.
        for api in [&operator, &theirs] {
            for action in ["tenant.created", "tenant.suspended", "tenant.resumed"] {
                eventually("it is logged", PATIENCE, async || {
                    let found = api.list(&format!("/log/entries?action={action}")).await;
                    let entry = found
                        .iter()
                        .find(|entry| entry["object"] == made.id.as_str())?;
                    // In the log of another tenant an account of the operator's is named as theirs.
                    let by = &entry["detail"]["by_tenant"];
                    if std::ptr::eq(api, &operator) {
                        assert!(by.is_null(), "{entry}");
                    } else {
                        assert_eq!(by, server.admin.tenant.as_str());
                    }
                    Some(())
                })
                .await;
            }
        }
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_ends_by_its_root_keys_alone_and_nothing_of_it_is_left() {
    each_database(async |options| {
        let mut server = Server::start(options.with("--tenant-closing-hours", 0)).await;
        let operator = server.api().await;
        let (ends, stays) = (
            make(&operator, &server, "ends").await,
            make(&operator, &server, "stays").await,
        );
        for made in [&ends, &stays] {
            let api = Api::sign_in(&made.admin).await;
            Device::enroll(&api, &made.admin).await.send_facts().await;
            api.post("/policies", &json!({"name": "base"})).await.expect(201);
            let version = json!({"version": "1", "settings": {"firewall.enabled": true}});
            api.post("/policies/base/versions", &version).await.expect(201);
            api.post("/policies/base/activate", &json!({"version": "1"}))
                .await
                .expect(202);
            let hook = json!({
                "place": {"kind": "webhook", "url": "https://192.0.2.1/hook"},
                "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            });
            api.put("/alert-destinations/hook", &hook).await.ok();
        }
        let files = export(&Api::sign_in(&ends.admin).await, &ends.id).await;
        let path = format!("/tenants/{}", ends.id);
        let good = ends.closure(&[&ends.root_key], |_| {});
        operator
            .post(&format!("{path}/close"), &good)
            .await
            .refused(409, "illegal_state");
        for made in [&ends, &stays] {
            let path = format!("/tenants/{}/suspend", made.id);
            operator.post(&path, &json!({})).await.ok();
        }
        // An administrator of the operator is not enough, nor is what anything else signed.
        let stranger = key();
        let other: TenantId = stays.id.parse().expect("an id");
        let refused = [
            ends.closure(&[&stranger], |_| {}),
            ends.closure(&[&stays.root_key], |_| {}),
            ends.closure(&[&ends.root_key], |statement| statement.tenant = other),
            ends.closure(&[&ends.root_key], |statement| statement.root_version = 2),
            ends.closure(&[&ends.root_key], |statement| {
                statement.root_sha256 = sha256(b"x")
            }),
            ends.closure(&[&ends.root_key], |statement| {
                statement.issued_at = Timestamp::from_unix_seconds(1_000);
                statement.expires_at = Timestamp::from_unix_seconds(2_000);
            }),
            json!(ends.envelope),
        ];
        for closure in refused {
            operator
                .post(&format!("{path}/close"), &closure)
                .await
                .refused(422, "closure_refused");
        }
        assert_eq!(state(&operator, "ends").await, "suspended");
        let text: String = files
            .iter()
            .filter(|(name, _)| name.contains("/tables/"))
            .map(|(_, content)| String::from_utf8(content.clone()).expect("NDJSON is text"))
            .collect();
        assert!(!text.contains(&ends.admin.client_secret) && !text.contains("whsec_"));
        assert!(text.contains("\"base\""), "what is no secret is there");
        let tables = tables_of(&files);
        let store = server.store().await;
        // What was logged last gets its place.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let before = rows_of(&store, &tables, &stays.id).await;
        assert!(rows_of(&store, &tables, &ends.id).await["devices_device"] > 0);
        let folder = server.data_dir().join("keys/tenants").join(&ends.id);
        assert!(folder.join("root.json").exists());

        operator.post(&format!("{path}/close"), &good).await.expect(202);
        eventually("its end has begun", ENDS_WITHIN, async || {
            (state(&operator, &ends.id).await == "erasing").then_some(())
        })
        .await;
        // Cut off anywhere, it goes on.
        tokio::time::sleep(Duration::from_secs(5)).await;
        server.kill().await;
        server.restart().await;
        let operator = server.api().await;
        let ended = eventually("it is deleted", ENDS_WITHIN, async || {
            let shown = operator.get(&path).await.ok();
            (shown["state"] == "deleted").then_some(shown)
        })
        .await;
        let store = server.store().await;
        let left = rows_of(&store, &tables, &ends.id).await;
        assert!(left.values().all(|rows| *rows == 0), "{left:?}");
        // Its own background work goes on and may add rows.
        let after = rows_of(&store, &tables, &stays.id).await;
        let lost: Vec<&String> = before
            .iter()
            .filter(|(table, rows)| after[*table] < **rows)
            .map(|(table, _)| table)
            .collect();
        assert!(lost.is_empty(), "the other lost rows of {lost:?}");
        eventually("its keys are gone", PATIENCE, async || {
            (!folder.exists()).then_some(())
        })
        .await;
        assert!(
            ended["closing"]["checkpoint"]
                .as_str()
                .is_some_and(|note| note.contains(&ends.id))
        );
        assert!(ended["closing"]["removed"]["devices_device"].as_u64() > Some(0));
        eventually("the operator's log has the tombstone", PATIENCE, async || {
            let found = operator.list("/log/entries?action=tenant.deleted").await;
            (found.len() == 1).then_some(())
        })
        .await;
        Api::anonymous(&server.admin)
            .ask_token(&[
                ("client_id", ends.admin.client_id.as_str()),
                ("client_secret", ends.admin.client_secret.as_str()),
            ])
            .await
            .expect(401);
        operator
            .post(&format!("{path}/resume"), &json!({}))
            .await
            .refused(404, "not_found");
        // The other one goes on, and the name is free again.
        operator
            .post(&format!("/tenants/{}/resume", stays.id), &json!({}))
            .await
            .ok();
        let stayed = AdminFile {
            tenant: stays.admin.tenant.clone(),
            client_id: stays.admin.client_id.clone(),
            client_secret: stays.admin.client_secret.clone(),
            ..server.admin.clone()
        };
        let stayed = Api::sign_in(&stayed).await;
        assert_eq!(
            stayed.get("/devices").await.ok()["items"]
                .as_array()
                .map(Vec::len),
            Some(1)
        );
        make(&operator, &server, "ends").await;
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_tenant_is_taken_back_while_it_waits_and_is_not_made_by_sql() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let operator = server.api().await;
        let made = make(&operator, &server, "acme").await;
        let path = format!("/tenants/{}", made.id);
        operator.post(&format!("{path}/suspend"), &json!({})).await.ok();
        let closure = made.closure(&[&made.root_key], |_| {});
        let closing = operator.post(&format!("{path}/close"), &closure).await.expect(202);
        assert_eq!(closing["state"], "closing");
        assert!(closing["closing"]["erase_at"].as_str() > closing["closing"]["asked_at"].as_str());
        Api::anonymous(&made.admin)
            .ask_token(&[
                ("client_id", made.admin.client_id.as_str()),
                ("client_secret", made.admin.client_secret.as_str()),
            ])
            .await
            .refused(403, "tenant_suspended");
        operator.post(&format!("{path}/resume"), &json!({})).await.ok();
        let theirs = Api::sign_in(&made.admin).await;
        theirs.get("/devices").await.ok();

        // Whoever holds the database writes that it ends, by a signature that is not the root keys'.
        let store = server.store().await;
        let forged = made.closure(&[&key()], |_| {}).to_string();
        let sql = format!(
            "INSERT INTO tenants_closing (tenant_id, closing_id, name, state, statement, signers, reason, asked_by, asked_at, \
             erase_at, removed) VALUES ({}, {}, 'acme', 'erasing', {}, '', 'x', 'x', 0, 0, '{{}}')",
            store.id(&server.admin.tenant),
            store.id(&made.id),
            store.blob(forged.as_bytes()),
        );
        store.execute(&sql).await;
        store
            .execute("UPDATE tenants_closing SET erasing_at = 1")
            .await;
        eventually("it is an alarm", PATIENCE, async || {
            let found = operator.list("/log/entries?action=security.row_edited").await;
            (!found.is_empty()).then_some(())
        })
        .await;
        let goes_on = async || {
            tokio::time::sleep(Duration::from_secs(3)).await;
            theirs.get("/devices").await.ok();
            assert!(server.data_dir().join("keys/tenants").join(&made.id).exists());
        };
        goes_on().await;
        // Nor by the statement that the root keys signed and that was taken back, whatever the row says of its time.
        let old = store.blob(closure.to_string().as_bytes());
        store
            .execute(&format!("UPDATE tenants_closing SET statement = {old}"))
            .await;
        goes_on().await;
        store
            .execute("UPDATE tenants_closing SET state = 'waiting', erasing_at = NULL, erase_at = 0")
            .await;
        goes_on().await;
        store.execute("DELETE FROM tenants_closing").await;
        operator.post(&format!("{path}/suspend"), &json!({})).await.ok();
        operator
            .post(&format!("{path}/close"), &closure)
            .await
            .refused(422, "closure_refused");
        let again = made.closure(&[&made.root_key], |statement| {
            statement.reason = "this time it ends".to_owned();
        });
        operator.post(&format!("{path}/close"), &again).await.expect(202);
        // The waiting time is that of the log, not of the row.
        store.execute("UPDATE tenants_closing SET erase_at = 0").await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(state(&operator, "acme").await, "closing");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_made_on_one_node_is_served_by_the_other_within_seconds() {
    on_postgres(async |options| {
        let first = Server::start(options).await;
        let mut second = first.second_node().await;
        let operator = first.api().await;
        let made = make(&operator, &first, "acme").await;
        // At once, with no file that anybody copied.
        let there = AdminFile {
            tenant: made.admin.tenant.clone(),
            client_id: made.admin.client_id.clone(),
            client_secret: made.admin.client_secret.clone(),
            ..second.admin.clone()
        };
        let api = Api::sign_in(&there).await;
        let device = Device::enroll(&api, &there).await;
        api.post("/policies", &json!({"name": "base"})).await.expect(201);
        let version = json!({"version": "1", "settings": {"firewall.enabled": true}});
        api.post("/policies/base/versions", &version).await.expect(201);
        api.post("/policies/base/activate", &json!({"version": "1"}))
            .await
            .expect(202);
        eventually("the device is told its policy", PATIENCE, async || {
            device.checkin().await.desired.is_some().then_some(())
        })
        .await;
        // After a restart as well.
        second.restart().await;
        let there = AdminFile {
            tenant: made.admin.tenant.clone(),
            client_id: made.admin.client_id.clone(),
            client_secret: made.admin.client_secret.clone(),
            ..second.admin.clone()
        };
        let api = Api::sign_in(&there).await;
        api.get("/devices").await.ok();
        // Suspended on one, shut on the other.
        operator
            .post(&format!("/tenants/{}/suspend", made.id), &json!({}))
            .await
            .ok();
        api.get("/devices").await.refused(403, "tenant_suspended");
        device
            .at(&second.admin)
            .try_checkin_with("agent_version", json!("1.2.3"))
            .await
            .refused(503, "unavailable");
        assert_healthy(&first).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_makes_exports_and_ends_a_tenant() {
    let server = Server::start(Options::default().with("--tenant-closing-hours", 0)).await;
    let folder = server.folder();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let admin = server.admin_file().display().to_string();
    let run = async |words: &[&str]| {
        let arguments = words.iter().copied().chain(["--admin-file", admin.as_str()]);
        let output = run_muster(arguments).await;
        assert!(
            output.status.success(),
            "muster {words:?}: {}",
            everything(&output)
        );
        everything(&output)
    };
    run(&[
        "tenant",
        "create",
        "acme",
        "--display-name",
        "Acme Ltd",
        "--out",
        &file("acme.json"),
    ])
    .await;
    let theirs = Api::sign_in(&AdminFile::read(&folder.path().join("acme.json"))).await;
    theirs
        .post("/policies", &json!({"name": "base"}))
        .await
        .expect(201);
    let listed = run(&["tenant", "list"]).await;
    assert!(listed.contains("acme") && listed.contains("Acme Ltd"), "{listed}");
    // Its owner takes it away; the operator could only when its root keys have closed it.
    let (archive, owner) = (file("acme.tar"), file("acme.json"));
    let exported = run_muster([
        "tenant",
        "export",
        "acme",
        "--out",
        &archive,
        "--admin-file",
        &owner,
    ])
    .await;
    assert!(exported.status.success(), "{}", everything(&exported));
    run(&["tenant", "suspend", "acme", "--reason", "the contract ends"]).await;
    let archive = std::fs::read(folder.path().join("acme.tar")).expect("it is there");
    for (name, content) in files(&archive) {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("it can be made");
        std::fs::write(path, content).expect("it can be written");
    }
    // The log of the archive verifies with nothing but its key.
    let roots = file("muster-export/log/root.json");
    let printed = run_muster(["log", "key", "--root-file", &roots, "-o", "json"]).await;
    let keys: Value = serde_json::from_slice(&printed.stdout).expect("JSON");
    let log_key = first_key(&keys).unwrap_or_else(|| panic!("no key: {keys}"));
    let verified = run_muster([
        "log",
        "verify",
        "--folder",
        &file("muster-export/log"),
        "--key",
        &log_key,
    ])
    .await;
    assert!(verified.status.success(), "{}", everything(&verified));
    run(&[
        "tenant",
        "sign-closure",
        "--root-file",
        &roots,
        "--reason",
        "the contract ended",
        "--root-key",
        &file("root-key-acme.pem"),
        "--out",
        &file("closure.json"),
    ])
    .await;
    run(&[
        "tenant",
        "close",
        "acme",
        "--closure",
        &file("closure.json"),
        "--yes",
    ])
    .await;
    let operator = server.api().await;
    eventually("it is deleted", ENDS_WITHIN, async || {
        (state(&operator, "acme").await == "deleted").then_some(())
    })
    .await;
    let shown = run(&["tenant", "show", "acme"]).await;
    assert!(shown.contains("the contract ended"), "{shown}");
    assert_healthy(&server).await;
}

/// The first text in a JSON answer that is a verifier key.
fn first_key(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if text.matches('+').count() >= 2 => Some(text.clone()),
        Value::Array(items) => items.iter().find_map(first_key),
        Value::Object(members) => members.values().find_map(first_key),
        _ => None,
    }
}
