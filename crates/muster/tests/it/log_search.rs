//! Finding entries, time travel, and entries as lines for other systems.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::support::{
    PATIENCE,
    api::{Api, answer},
    database::each_database,
    device::{Applicant, Device, logged},
    eventually,
    objects::python,
    server::{Options, Server, everything, muster, program},
};

async fn all_placed(server: &Server) {
    let store = server.store().await;
    eventually("every entry has its place", PATIENCE, async || {
        let waiting = store
            .value("SELECT COUNT(*) FROM audit_entry WHERE seq IS NULL")
            .await;
        (waiting.integer() == 0).then_some(())
    })
    .await;
}

/// A fleet with some history: a device that was labeled, given a command and retired; a policy; a client.
struct Story {
    device: String,
    policy: String,
    client: String,
}

async fn story(server: &Server, api: &Api) -> Story {
    let device = Device::enroll(api, &server.admin).await.id();
    let labels = json!({"labels": {"site": "north"}});
    let changed = api.request(reqwest::Method::PUT, &format!("/devices/{device}/labels"));
    answer(changed.json(&labels)).await.ok();
    let lock = api
        .post(&format!("/devices/{device}/commands"), &json!({"type": "lock"}))
        .await;
    lock.expect(202);
    let policy = api.post("/policies", &json!({"name": "found"})).await.expect(201);
    let client = api
        .post("/clients", &json!({"name": "helper", "scopes": ["log:read"]}))
        .await
        .expect(201);
    all_placed(server).await;
    let text = |value: &Value| value.as_str().expect("an id is text").to_owned();
    Story {
        device,
        policy: text(&policy["id"]),
        client: text(&client["client_id"]),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_are_found_by_who_what_when_and_about_what() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let story = story(&server, &api).await;
        let all = api.list("/log/entries?limit=500").await;
        let time = all[all.len() / 2]["at"]
            .as_str()
            .expect("a time is text")
            .to_owned();
        let part = &story.device[story.device.len() - 8..];
        let by = |test: &dyn Fn(&Value) -> bool| all.iter().filter(|entry| test(entry)).count();
        let text = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let cases = [
            (
                format!("object={}", story.device),
                by(&|e| text(e, "object") == story.device),
            ),
            (
                format!("object_contains={part}"),
                by(&|e| text(e, "object").contains(part)),
            ),
            (
                "object_kind=policy".to_owned(),
                by(&|e| text(e, "object_kind") == "policy"),
            ),
            (
                "action=policy.created".to_owned(),
                by(&|e| text(e, "action") == "policy.created"),
            ),
            (
                "action=device.".to_owned(),
                by(&|e| text(e, "action").starts_with("device.")),
            ),
            (
                format!("actor={}", server.admin.client_id),
                by(&|e| text(e, "actor") == server.admin.client_id),
            ),
            (format!("since={time}"), by(&|e| text(e, "at") >= time)),
            (format!("until={time}"), by(&|e| text(e, "at") < time)),
            (
                format!(
                    "actor={}&action=device.&object_kind=device",
                    server.admin.client_id
                ),
                by(&|e| {
                    text(e, "actor") == server.admin.client_id && text(e, "action").starts_with("device.")
                }),
            ),
            ("actor=nobody".to_owned(), 0),
        ];
        for (query, expected) in cases {
            for order in ["oldest", "newest"] {
                let found = api
                    .list(&format!("/log/entries?{query}&order={order}&limit=3"))
                    .await;
                assert_eq!(found.len(), expected, "{query} {order}");
                let places: Vec<u64> = found
                    .iter()
                    .map(|e| e["index"].as_u64().expect("a number"))
                    .collect();
                assert!(
                    places
                        .windows(2)
                        .all(|pair| (pair[0] < pair[1]) == (order == "oldest")),
                    "{query} {order}: {places:?}"
                );
            }
        }
        for bad in ["since=yesterday", "actor=a&sort=seal", "format=xml"] {
            assert_eq!(api.get(&format!("/log/entries?{bad}")).await.status, 400, "{bad}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_of_an_object_at_a_moment_comes_from_the_log_alone() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let story = story(&server, &api).await;
        let at = |object: String, at: &str| {
            let query = if at.is_empty() {
                String::new()
            } else {
                format!("&at={at}")
            };
            format!("/log/state?object={object}{query}")
        };
        let device = format!("device:{}", story.device);
        let enrolled = logged(&api, "device.enrolled", 1).await;
        let before = api
            .get(&at(device.clone(), enrolled[0]["at"].as_str().expect("text")))
            .await
            .ok();
        assert_eq!(before["fields"]["state"]["value"], "active");
        assert_eq!(before["fields"]["state"]["entry"], enrolled[0]["id"]);
        api.post(&format!("/devices/{}/retire", story.device), &json!({}))
            .await;
        all_placed(&server).await;
        // Nothing but the log is asked: the tables may be gone.
        let store = server.store().await;
        store.execute("DELETE FROM compliance_device").await;
        let now = api.get(&at(device.clone(), "")).await.ok();
        assert_eq!(now["fields"]["state"]["value"], "retired");
        assert_eq!(now["fields"]["state"]["action"], "device.retired");
        let then = api
            .get(&at(device, enrolled[0]["at"].as_str().expect("text")))
            .await
            .ok();
        assert_eq!(
            then["fields"]["state"]["value"], "active",
            "the past does not change"
        );
        let policy = api.get(&at(format!("policy:{}", story.policy), "")).await.ok();
        assert_eq!(policy["fields"]["name"]["value"], "found");
        let client = api.get(&at(format!("client:{}", story.client), "")).await.ok();
        assert_eq!(client["fields"]["scopes"]["value"], "log:read");
        let nothing = api
            .get(&at(format!("policy:{}", story.policy), "2020-01-01T00:00:00Z"))
            .await
            .ok();
        assert_eq!(nothing["fields"], json!({}));
        for bad in ["device:x", "rocket:dev_1", "dev_1", "device:dev_../x"] {
            assert_eq!(api.get(&at(bad.to_owned(), "")).await.status, 400, "{bad}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l3_an_exported_folder_verifies_without_the_server() {
    let mut server = Server::start(Options::default()).await;
    let api = server.api().await;
    for number in 0..300 {
        api.post("/policies", &json!({"name": format!("p-{number}")}))
            .await
            .expect(201);
    }
    all_placed(&server).await;
    let admin_file = server.admin_file().display().to_string();
    let folder = server.folder().path().join("export");
    let home = server.folder();
    let run = async |arguments: &[&str]| {
        let mut command = muster();
        command.args(arguments).env("XDG_CONFIG_HOME", home.path());
        command.output().await.expect("the program muster starts")
    };
    let out = folder.display().to_string();
    let exported = run(&["log", "export", "--out", &out, "--admin-file", &admin_file]).await;
    assert!(exported.status.success(), "{}", everything(&exported));
    let key = run(&["log", "key", "--admin-file", &admin_file]).await;
    let key = String::from_utf8(key.stdout)
        .expect("a key is text")
        .trim()
        .to_owned();
    let cef = run(&["log", "export", "--format", "cef", "--admin-file", &admin_file]).await;
    let lines = String::from_utf8(cef.stdout).expect("lines are text");
    assert!(lines.lines().count() > 300 && lines.lines().all(|line| line.starts_with("CEF:0|Muster|")));
    let at = run(&[
        "log",
        "at",
        "policy:pol_00000000000000000000000000000000",
        "--admin-file",
        &admin_file,
    ])
    .await;
    assert!(at.status.success(), "{}", everything(&at));
    server.stop().await;
    let good = run(&["log", "verify", "--folder", &out, "--key", &key]).await;
    assert!(good.status.success(), "{}", everything(&good));
    let bundle = folder.join("tile/entries/000");
    let mut bytes = std::fs::read(&bundle).expect("the bundle is there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&bundle, bytes).expect("it can be written");
    let bad = run(&["log", "verify", "--folder", &out, "--key", &key]).await;
    assert_eq!(bad.status.code(), Some(1));
    assert!(everything(&bad).contains("entry "), "{}", everything(&bad));
}

/// Judges events by the schema: class by class, with every object that it refers to.
const JUDGE: &str = r#"
import json, sys, jsonschema
from ocsf_json_schema import get_ocsf_schema, OcsfJsonSchemaEmbedded
schemas = OcsfJsonSchemaEmbedded(get_ocsf_schema(version="1.5.0"))
validators = {}
seen = 0
for line in sys.stdin:
    event = json.loads(line)
    uid = event["class_uid"]
    if uid not in validators:
        name = schemas.lookup_class_name_from_uid(uid)
        validators[uid] = jsonschema.Draft202012Validator(schemas.get_class_schema(name))
    for error in validators[uid].iter_errors(event):
        print(uid, event["metadata"]["event_code"], list(error.absolute_path), error.message[:300])
    seen += 1
print("judged", seen)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn l8_events_in_ocsf_are_valid_by_the_schema() {
    let Some(python) = python() else { return };
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    story(&server, &api).await;
    let answer = api.get("/log/entries?format=ocsf&limit=500").await;
    assert!(answer.header("content-type").starts_with("application/x-ndjson"));
    let golden = include_str!("../../../control/src/audit/export/golden/entries.ocsf.jsonl");
    let of_devices = include_str!("../../../control/src/sinks/formats/golden/events.ocsf.jsonl");
    judged_valid(&python, &(answer.text() + golden + of_devices)).await;
}

/// Asserts that every line is an event that the schema allows.
pub async fn judged_valid(python: &std::path::Path, lines: &str) {
    let mut command = program(python);
    command
        .args(["-c", JUDGE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().expect("python starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(lines.as_bytes()).await.expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().await.expect("it ends");
    let said = everything(&output);
    assert_eq!(said.trim(), format!("judged {}", lines.lines().count()), "{said}");
}

/// What a field of CEF holds, its escapes read as the specification has them.
fn cef_field(line: &str, key: &str) -> Option<String> {
    let (_, rest) = line.split_once(&format!(" {key}="))?;
    let (mut value, mut raw) = (String::new(), rest.chars());
    while let Some(character) = raw.next() {
        match character {
            '\\' => match raw.next()? {
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                other => value.push(other),
            },
            // The next key begins: no value holds a bare sign.
            '=' => return value.rsplit_once(' ').map(|(value, _)| value.to_owned()),
            other => value.push(other),
        }
    }
    Some(value)
}

#[tokio::test(flavor = "multi_thread")]
async fn l7_l8_a_name_that_is_an_attack_is_one_line_and_one_event_with_the_same_value() {
    const NASTY: [&str; 9] = [
        "CEF:0|Muster|muster|1|fake|Fake|10|act=fake",
        "a|b\\|c=d\\=e f=g",
        "\\n\\r\\u000a",
        "]\" SID=\"x\" [x@1 a=\"b\"]",
        "\"}\n{\"forged\":true}",
        "${jndi:ldap://127.0.0.1/x} %x%n {{7*7}}",
        "\u{e9}\u{4e2d}\u{1f4a9}",
        "msg=hidden externalId=ent_0",
        "<14>1 - forged - - - -",
    ];
    // What a machine says of itself, which a label printer never would.
    const SERIAL: &str = "S|1=\\ \"x\"] CEF:0|a externalId=ent_0 <14>1";
    let Some(python) = python() else { return };
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let mut kept = vec![("device.enrolled", "serial", SERIAL)];
        let named = Applicant::new().claiming("serial", json!(SERIAL));
        named.enroll(&api, &server.admin).await;
        for nasty in NASTY {
            let client = json!({"name": nasty, "scopes": ["log:read"]});
            let named = api.post("/clients", &client).await;
            // What would break a line is not even taken.
            let has_break = nasty.contains('\n');
            assert_eq!(named.status >= 400, has_break, "{nasty:?}: {}", named.word());
            if !has_break {
                kept.push(("client.created", "name", nasty));
            }
        }
        assert_eq!(kept.len(), NASTY.len());
        all_placed(&server).await;
        let entries = api.list("/log/entries?limit=500").await;
        let page = async |format: &str| {
            let answer = api.get(&format!("/log/entries?format={format}&limit=500")).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer.text()
        };
        let (cef, ocsf, json_lines) = (page("cef").await, page("ocsf").await, page("json_lines").await);
        for text in [&cef, &ocsf, &json_lines] {
            assert_eq!(
                text.split('\n').filter(|line| !line.is_empty()).count(),
                entries.len()
            );
        }
        assert!(cef.lines().all(|line| line.starts_with("CEF:0|Muster|")));
        for (action, member, nasty) in kept {
            let is_about = |entry: &&Value| entry["action"] == action && entry["detail"][member] == nasty;
            let entry = entries.iter().find(is_about).expect("it is in the log");
            let id = entry["id"].as_str().expect("an id");
            let lines: Vec<&str> = cef
                .lines()
                .filter(|line| cef_field(line, "externalId").as_deref() == Some(id))
                .collect();
            assert_eq!(lines.len(), 1, "{nasty:?}");
            let detail = cef_field(lines[0], "cs3").expect("it has its detail");
            let detail: Value =
                serde_json::from_str(&detail).unwrap_or_else(|why| panic!("{nasty:?}: {why}: {detail}"));
            assert_eq!(detail, entry["detail"], "{nasty:?}");
            let events: Vec<Value> = ocsf
                .lines()
                .map(|line| serde_json::from_str(line).expect("it is JSON"))
                .filter(|event: &Value| event["metadata"]["uid"] == json!(id))
                .collect();
            assert_eq!(events.len(), 1, "{nasty:?}");
            assert_eq!(events[0]["unmapped"]["detail"], entry["detail"], "{nasty:?}");
        }
        judged_valid(&python, &ocsf).await;
    })
    .await;
}
