//! What would be, and why it is: predictions are held against what then happens, and a question changes nothing.

use std::collections::BTreeMap;

use muster_channel_agent::path;
use muster_trust::key::sha256;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    api::Api,
    database::{Store, each_database},
    device::{Applicant, Obedient, facts},
    eventually,
    machine::setting,
    server::{Options, Server, everything, muster},
};

/// Every run is one of these; a failure names it.
const SEEDS: [u64; 3] = [1, 7, 2026];
/// Changes of each run.
const ROUNDS: usize = 4;
/// Tables whose rows a question could leave behind.
const TABLES: [&str; 7] = [
    "audit_entry",
    "access_idempotency",
    "configuration_plan",
    "devices_device",
    "policy_version",
    "rollout_rollout",
    "rollout_report",
];

/// A small generator (SplitMix64), so that a seed gives the same policies everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn choose(&mut self, from: &[Value]) -> Value {
        let sides = u64::try_from(from.len()).expect("it is small");
        from[usize::try_from(self.roll(sides)).expect("it is small")].clone()
    }

    /// Settings and rules.
    fn content(&mut self) -> (Value, Value) {
        let (mut settings, mut rules) = (json!({}), json!([]));
        for (key, values) in [
            ("passcode.min_length", vec![json!(6), json!(8), json!(12)]),
            ("camera.allowed", vec![json!(true), json!(false)]),
            ("usb.storage", vec![json!("readonly"), json!("deny")]),
            ("os.min_version", vec![json!("12"), json!("13"), json!("14")]),
            ("disk_encryption.required", vec![json!(true)]),
        ] {
            if self.roll(2) == 0 {
                settings[key] = self.choose(&values);
            }
        }
        if self.roll(2) == 0 {
            let version = self.choose(&[json!("12.4"), json!("13"), json!("99")]);
            rules =
                json!([{"name": "current", "check": {"fact": "os.version", "op": "ge", "value": version}}]);
        }
        if settings == json!({}) && rules == json!([]) {
            settings = json!({"bluetooth.allowed": false});
        }
        (settings, rules)
    }

    fn target(&mut self, fleet: &[Obedient]) -> Value {
        match self.roll(4) {
            0 => json!({"platforms": ["linux"]}),
            1 => json!({"devices": [fleet[0].device.id(), fleet[1].device.id()]}),
            _ => Value::Null,
        }
    }
}

async fn enrolled(api: &Api, server: &Server, platform: &str, version: &str, encrypted: bool) -> Obedient {
    let applicant = Applicant::new().claiming("platform", json!(platform));
    let device = applicant.enroll(api, &server.admin).await;
    let mut facts = facts();
    facts["os"]["version"] = json!(version);
    facts["disks"][0]["encrypted"] = json!(encrypted);
    let body = json!({"epoch": device.enrolled.epoch, "facts": facts}).to_string();
    let kind = Some("application/json");
    device
        .door
        .send(Method::PUT, path::INVENTORY, kind, body.into())
        .await
        .expect(204);
    Obedient::of(device)
}

async fn fleet(api: &Api, server: &Server) -> Vec<Obedient> {
    vec![
        enrolled(api, server, "linux", "12.5", true).await,
        enrolled(api, server, "linux", "13.1", false).await,
        enrolled(api, server, "macos", "14.2", true).await,
        enrolled(api, server, "windows", "10.0.19045", true).await,
    ]
}

async fn make(api: &Api, policy: &str, version: &str, settings: &Value, rules: &Value) {
    if api.get(&format!("/policies/{policy}")).await.status == 404 {
        api.post("/policies", &json!({"name": policy})).await.expect(201);
    }
    let body = json!({"version": version, "settings": settings, "rules": rules});
    api.post(&format!("/policies/{policy}/versions"), &body)
        .await
        .expect(201);
}

/// What a device is: its word and the values that should be in force.
type Standing = (String, BTreeMap<String, Value>);

async fn standing(api: &Api, device: &str) -> Standing {
    let view = api.get(&format!("/devices/{device}/settings")).await.ok();
    let rows = view["settings"].as_array().expect("settings are a list");
    let values = rows.iter().map(|row| {
        let key = row["key"].as_str().expect("a key is text").to_owned();
        (key, row["value"].clone())
    });
    let word = view["compliance"].as_str().expect("it is a word").to_owned();
    (word, values.collect())
}

async fn standings(api: &Api, fleet: &[Obedient]) -> BTreeMap<String, Standing> {
    let mut all = BTreeMap::new();
    for obedient in fleet {
        let id = obedient.device.id();
        all.insert(id.clone(), standing(api, &id).await);
    }
    all
}

/// Lets every device take up what it should be at, and report; again where a rollout that ended thereby left something else.
async fn settle(api: &Api, fleet: &mut [Obedient]) {
    take_up(api, fleet).await;
    rest(api).await;
    take_up(api, fleet).await;
}

async fn take_up(api: &Api, fleet: &mut [Obedient]) {
    for obedient in fleet {
        let address = format!("/devices/{}/settings", obedient.device.id());
        eventually("the device reports", PATIENCE, async || {
            obedient.obey().await;
            let view = api.get(&address).await.ok();
            (view["is_current"] == true).then_some(())
        })
        .await;
        assert!(obedient.refused.is_empty(), "{:?}", obedient.refused);
    }
}

async fn what_if(api: &Api, policy: &str, body: &Value) -> Value {
    api.post(&format!("/policies/{policy}/what-if"), body).await.ok()
}

/// How many rows there are: the log has one for each entry, with or without its place.
async fn footprint(store: &Store) -> Vec<i64> {
    let mut rows = Vec::new();
    for table in TABLES {
        rows.push(store.count(table).await);
    }
    rows
}

/// Waits until the server has written what it writes by itself: that rollouts are completed.
async fn rest(api: &Api) {
    eventually("every rollout has ended", PATIENCE, async || {
        let rollouts = api.list("/rollouts").await;
        let ended = rollouts.iter().all(|rollout| rollout["state"] != "running");
        ended.then_some(())
    })
    .await;
}

/// What the answer says of every device that it names: the word that it would be, and the changes of its values.
type Predicted = BTreeMap<String, (String, BTreeMap<String, (Value, Value)>)>;

fn predicted(view: &Value) -> Predicted {
    let mut all = BTreeMap::new();
    for class in [
        "changes",
        "become_noncompliant",
        "become_compliant",
        "become_unknown",
    ] {
        for device in view["examples"][class].as_array().expect("examples are a list") {
            let changes = device["settings"].as_array().expect("changes are a list");
            let changes = changes.iter().map(|change| {
                let key = change["key"].as_str().expect("a key is text").to_owned();
                (key, (change["from"].clone(), change["to"].clone()))
            });
            let text = |name: &str| device[name].as_str().expect("it is text").to_owned();
            all.insert(text("device_id"), (text("then"), changes.collect()));
        }
    }
    all
}

fn differences(before: &Standing, after: &Standing) -> BTreeMap<String, (Value, Value)> {
    let keys = before.1.keys().chain(after.1.keys());
    let value = |of: &Standing, key: &str| of.1.get(key).cloned().unwrap_or_default();
    keys.map(|key| (key.clone(), (value(before, key), value(after, key))))
        .filter(|(_, (from, to))| from != to)
        .collect()
}

/// Holds a prediction against what became of every device; answers how many changed.
fn check(
    view: &Value,
    before: &BTreeMap<String, Standing>,
    after: &BTreeMap<String, Standing>,
    what: &str,
) -> u64 {
    let predicted = predicted(view);
    let mut changed = 0;
    for (id, was) in before {
        let is = &after[id];
        let differences = differences(was, is);
        changed += u64::from(!differences.is_empty());
        let nothing = (was.0.clone(), BTreeMap::new());
        let said = predicted.get(id).unwrap_or(&nothing);
        assert_eq!(
            (&said.0, &said.1),
            (&is.0, &differences),
            "{what}: {id}: {view:#}"
        );
    }
    assert_eq!(view["counts"]["settings_change"], changed, "{what}: {view:#}");
    for (member, word) in [
        ("become_noncompliant", "noncompliant"),
        ("become_compliant", "compliant"),
        ("become_unknown", "unknown"),
    ] {
        let became = before
            .iter()
            .filter(|(id, was)| after[*id].0 == word && was.0 != word)
            .count();
        assert_eq!(view["counts"][member], became, "{what}: {member}");
    }
    changed
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_predicted_is_what_happens_and_a_question_changes_nothing() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let store = server.store().await;
        let mut fleet = fleet(&api, &server).await;
        settle(&api, &mut fleet).await;
        let (mut changed, mut asked) = (0, 0);
        for seed in SEEDS {
            let mut dice = Dice(seed);
            for round in 0..ROUNDS {
                let what = format!("seed {seed}, round {round}");
                let policy = ["alpha", "beta"][usize::from(dice.roll(2) == 0)];
                let (version, (settings, rules)) = (format!("{seed}.{round}"), dice.content());
                let target = dice.target(&fleet);
                println!("{what}: {policy} {settings} {rules} for {target}");
                make(&api, policy, &version, &settings, &rules).await;
                let before = standings(&api, &fleet).await;
                let mut question = json!({"version": version, "examples_max": 200});
                let mut activation = json!({"version": version, "stages": [{"name": "full"}]});
                let mut unstored = json!({"settings": settings, "rules": rules, "examples_max": 200});
                if !target.is_null() {
                    for body in [&mut question, &mut activation, &mut unstored] {
                        body["target"] = target.clone();
                    }
                }
                rest(&api).await;
                let footprint_before = footprint(&store).await;
                let view = what_if(&api, policy, &question).await;
                let same = what_if(&api, policy, &unstored).await;
                for member in [
                    "counts",
                    "settings",
                    "support",
                    "conflicts",
                    "lasting",
                    "examples",
                ] {
                    assert_eq!(
                        same[member], view[member],
                        "{what}: {member} before it is a version"
                    );
                }
                assert_eq!(footprint(&store).await, footprint_before, "{what}");
                assert_eq!(standings(&api, &fleet).await, before, "{what}");
                assert_eq!(view["progress"]["devices"], fleet.len(), "{what}");
                api.post(&format!("/policies/{policy}/activate"), &activation)
                    .await
                    .expect(202);
                settle(&api, &mut fleet).await;
                changed += check(&view, &before, &standings(&api, &fleet).await, &what);
                asked += fleet.len() as u64;
            }
        }
        assert!(
            changed > 5 && changed < asked,
            "some change, some do not: {changed}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawal_conflicts_and_platforms_are_foretold() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let mut fleet = fleet(&api, &server).await;
        make(&api, "base", "1", &json!({"passcode.min_length": 12}), &json!([])).await;
        let activated = api
            .post(
                "/policies/base/activate",
                &json!({"version": "1", "stages": [{"name": "full"}]}),
            )
            .await
            .expect(202);
        settle(&api, &mut fleet).await;

        make(
            &api,
            "loose",
            "1",
            &json!({"passcode.min_length": 6, "usb.storage": "deny"}),
            &json!([]),
        )
        .await;
        let view = what_if(&api, "loose", &json!({"version": "1"})).await;
        let conflict = &view["conflicts"][0];
        assert_eq!(
            (
                &conflict["key"],
                &conflict["rule"],
                &conflict["winner_name"],
                &conflict["value"]
            ),
            (
                &json!("passcode.min_length"),
                &json!("highest"),
                &json!("base"),
                &json!(12)
            )
        );
        assert_eq!(conflict["overruled"][0]["name"], "loose");
        assert_eq!(conflict["overruled"][0]["value"], 6);
        assert_eq!(conflict["devices"], fleet.len());
        assert_eq!(view["active_version"], Value::Null);
        let support = view["support"].as_array().expect("support is a list");
        let rows = |key: &str| support.iter().filter(|row| row["key"] == key).collect::<Vec<_>>();
        for key in ["passcode.min_length", "usb.storage"] {
            let devices: u64 = rows(key).iter().filter_map(|row| row["devices"].as_u64()).sum();
            assert_eq!(devices, fleet.len() as u64, "{key} on every device in one way");
        }
        for row in support {
            let is_exact = row["support"] == "exact";
            assert_eq!(is_exact, row["why"] == "", "{row}");
        }
        let only_mac = json!({"version": "1", "target": {"platforms": ["macos"]}});
        let view = what_if(&api, "loose", &only_mac).await;
        assert_eq!(view["counts"]["devices_in_target"], 1);
        assert_eq!(view["counts"]["gain_policy"], 1);

        let before = standings(&api, &fleet).await;
        let view = what_if(&api, "base", &json!({"withdraw": true})).await;
        assert_eq!(view["counts"]["lose_policy"], fleet.len());
        assert_eq!(
            view["settings"][0]["changes"],
            json!([{"from": 12, "to": null, "devices": fleet.len()}])
        );
        let rollout = activated["rollout_id"].as_str().expect("an id is text");
        api.post(&format!("/rollouts/{rollout}/rollback"), &json!({}))
            .await
            .ok();
        settle(&api, &mut fleet).await;
        check(&view, &before, &standings(&api, &fleet).await, "withdrawn");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_of_the_fleet_add_up_to_the_whole() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let fleet = fleet(&api, &server).await;
    let rules = json!([{"name": "current", "check": {"fact": "os.version", "op": "ge", "value": "13"}}]);
    make(&api, "base", "1", &json!({"camera.allowed": false}), &rules).await;
    let whole = what_if(&api, "base", &json!({"version": "1"})).await;
    assert_eq!(whole["progress"]["truncated"], false);
    let (mut cursor, mut seen, mut worse, mut parts) = (Value::Null, 0, 0, 0);
    loop {
        let mut question = json!({"version": "1", "devices_max": 1});
        if !cursor.is_null() {
            question["cursor"] = cursor;
        }
        let part = what_if(&api, "base", &question).await;
        parts += 1;
        seen += part["progress"]["devices"].as_u64().expect("it is a number");
        worse += part["counts"]["become_noncompliant"]
            .as_u64()
            .expect("it is a number");
        cursor = part["progress"]["next_cursor"].clone();
        assert_eq!(part["progress"]["truncated"], !cursor.is_null());
        if cursor.is_null() {
            break;
        }
        assert!(parts <= fleet.len(), "it ends");
    }
    assert_eq!((parts, seen), (fleet.len(), fleet.len() as u64));
    assert_eq!(whole["counts"]["become_noncompliant"], worse);
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_that_make_no_sense_are_refused() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    make(&api, "base", "1", &json!({"camera.allowed": false}), &json!([])).await;
    for (body, status, code) in [
        (json!({}), 400, "invalid"),
        (json!({"version": "1", "withdraw": true}), 400, "invalid"),
        (json!({"version": "no such"}), 400, "invalid"),
        (json!({"version": "2"}), 404, "not_found"),
        (
            json!({"version": "1", "target": {"platforms": ["amiga"]}}),
            400,
            "invalid",
        ),
        (json!({"version": "1", "target": {"devices": []}}), 400, "invalid"),
        (json!({"version": "1", "cursor": "x"}), 400, "cursor_invalid"),
        (json!({"version": "1", "devices_max": -1}), 400, "invalid"),
        (json!({"version": "1", "extra": 1}), 400, "invalid"),
        (json!({"settings": {"no.such": 1}}), 422, "settings_invalid"),
        (json!({"settings": []}), 422, "settings_invalid"),
        (
            json!({"rules": [{"name": "a", "expression": "("}]}),
            400,
            "invalid",
        ),
        (json!({"settings": {"camera.allowed": "\u{0}"}}), 400, "invalid"),
    ] {
        let answer = api.post("/policies/base/what-if", &body).await;
        assert_eq!(answer.word(), format!("{status} {code}"), "{body}");
    }
    for bytes in [
        &b"{"[..],
        b"[1",
        b"\xff\xfe",
        b"{\"version\":\"1\",\"version\":\"1\"}",
    ] {
        let answer = api.post_bytes("/policies/base/what-if", bytes).await;
        assert!((400..500).contains(&answer.status), "{}", answer.text());
    }
    let huge = format!("{{\"settings\":{{\"a\":\"{}\"}}}}", "x".repeat(400_000));
    let answer = api.post_bytes("/policies/base/what-if", huge).await;
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    let deep = format!("{{\"settings\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let answer = api.post_bytes("/policies/base/what-if", deep).await;
    assert!((400..500).contains(&answer.status), "{}", answer.status);
    api.get("/policies/base").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_version_is_refused_and_logged() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    make(&api, "base", "1", &json!({"camera.allowed": false}), &json!([])).await;
    server
        .store()
        .await
        .execute("UPDATE policy_version SET bundle_sha256 = 'aa'")
        .await;
    api.post("/policies/base/what-if", &json!({"version": "1"}))
        .await
        .refused(409, "bundle_changed");
    crate::support::device::logged(&api, "policy.bundle_tampered", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_is_explained_from_its_verdict_to_the_signed_report() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let mut fleet = vec![enrolled(&api, &server, "linux", "12.5", true).await];
        let device = fleet[0].device.id();
        let rules = json!([{"name": "current", "check": {"fact": "os.version", "op": "ge", "value": "13"}}]);
        make(&api, "base", "1", &json!({"passcode.min_length": 8}), &rules).await;
        make(
            &api,
            "strict",
            "7",
            &json!({"passcode.min_length": 12}),
            &json!([]),
        )
        .await;
        let mut rollouts = Vec::new();
        for (policy, version) in [("base", "1"), ("strict", "7")] {
            let path = format!("/policies/{policy}/activate");
            let activated = api
                .post(&path, &json!({"version": version, "stages": [{"name": "full"}]}))
                .await
                .expect(202);
            rollouts.push(activated["rollout_id"].clone());
        }
        let path = format!("/devices/{device}/why");
        let early = api.get(&format!("{path}?subject=passcode.min_length")).await.ok();
        assert_eq!(early["chains"][0]["receipt"], Value::Null);
        assert_eq!(early["chains"][0]["statement"]["is_reported"], false);
        settle(&api, &mut fleet).await;

        let whole = api.get(&path).await.ok();
        assert_eq!(whole["compliance"], "noncompliant");
        assert_eq!(whole["because"], "1 of what is asked is not met.");
        assert_eq!(
            whole["subjects"][0]["subject"], "current",
            "what decides comes first"
        );
        assert_eq!(whole["subjects"][0]["is_decisive"], true);
        assert_eq!(whole["subjects"][1]["is_decisive"], false);
        assert_eq!(whole["chains"], json!([]));

        let view = api.get(&format!("{path}?subject=passcode.min_length")).await.ok();
        let chain = &view["chains"][0];
        assert_eq!(chain["subject"]["verdict"], "compliant");
        assert_eq!(chain["effective"]["value"], 12);
        assert_eq!(chain["effective"]["rule"], "highest");
        let mut asked: Vec<_> = chain["asked"]
            .as_array()
            .expect("it is a list")
            .iter()
            .map(|asked| {
                format!(
                    "{} {} {} {}",
                    asked["policy_name"], asked["version"], asked["value"], asked["outcome"]
                )
            })
            .collect();
        asked.sort();
        assert_eq!(
            asked,
            [r#""base" "1" 8 "overruled""#, r#""strict" "7" 12 "decides""#]
        );
        let version = api.get("/policies/strict/versions/7").await.ok();
        assert_eq!(chain["version"]["bundle_sha256"], version["sha256"]);
        assert_eq!(chain["version"]["created_by"], version["created_by"]);
        assert_eq!(chain["version"]["entry"]["entry_id"], version["entry_id"]);
        assert_eq!(chain["rollout"]["id"], rollouts[1]);
        assert_eq!(chain["approval"]["state"], "not_required");
        assert_eq!(chain["known_since"], view["reported_at"]);
        let receipt = &chain["receipt"];
        assert_eq!(
            (&receipt["state"], &receipt["observed"]),
            (&json!("verified"), &json!(12))
        );
        assert_eq!(receipt["state_digest"], chain["statement"]["state_digest"]);
        assert_eq!(chain["statement"]["is_reported"], true);
        let stored = server
            .store()
            .await
            .value("SELECT envelope FROM rollout_report")
            .await;
        let digest = sha256(stored.text().as_bytes()).to_hex();
        assert_eq!(receipt["envelope_sha256"], digest, "of the envelope that is kept");

        // Each step's entry can be proved with one call.
        for (entry, action) in [
            (&chain["version"]["entry"], "policy.version_created"),
            (&chain["activation"], "rollout.activated"),
        ] {
            let path = entry["proof"].as_str().expect("it is text");
            let path = path.strip_prefix("/api/v1").expect("it is of the API");
            let proof = api.get(path).await.ok();
            assert_eq!(proof["index"], entry["index"]);
            let index = entry["index"].as_u64().expect("it has a place");
            let listed = api.list("/log/entries").await;
            let found = listed
                .iter()
                .find(|listed| listed["index"] == index)
                .expect("it is listed");
            assert_eq!(found["id"], entry["entry_id"]);
            assert_eq!(found["action"], action);
        }

        let rule = api.get(&format!("{path}?subject=current")).await.ok();
        let chain = &rule["chains"][0];
        assert_eq!(
            (&chain["subject"]["kind"], &chain["subject"]["verdict"]),
            (&json!("rule"), &json!("noncompliant"))
        );
        assert!(chain["subject"]["reason"].to_string().contains("12.5"), "{chain}");
        assert!(chain["condition"].to_string().contains("os.version"), "{chain}");
        assert_eq!(chain["rollout"]["id"], rollouts[0]);
        api.get(&format!("{path}?subject=no.such"))
            .await
            .refused(404, "not_found");
        api.get("/devices/nobody/why").await.refused(404, "not_found");
        api.get(&format!("{path}?other=1")).await.refused(400, "invalid");
    })
    .await;
}

/// Runs the command line against the server; answers its exit code and what it said.
async fn cli(server: &Server, words: &[&str]) -> (Option<i32>, String) {
    let mut command = muster();
    command.args(words).arg("--admin-file").arg(server.admin_file());
    let output = command.output().await.expect("the program starts");
    (output.status.code(), everything(&output))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_asks_and_fails_a_pipeline_where_it_is_told_to() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let mut fleet = vec![enrolled(&api, &server, "linux", "12.5", true).await];
    let rules = json!([{"name": "current", "check": {"fact": "os.version", "op": "ge", "value": "13"}}]);
    make(&api, "base", "1", &json!({"passcode.min_length": 12}), &rules).await;
    let (code, said) = cli(&server, &["policy", "what-if", "base", "--version", "1"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("become noncompliant") && said.contains("passcode.min_length"),
        "{said}"
    );
    let words = [
        "policy",
        "what-if",
        "base",
        "--version",
        "1",
        "--fail-on",
        "noncompliant",
    ];
    let (code, said) = cli(&server, &words).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("1 would become noncompliant"), "{said}");
    let folder = tempfile::tempdir().expect("a folder can be made");
    std::fs::write(folder.path().join("settings.json"), r#"{"camera.allowed":false}"#)
        .expect("it is written");
    let path = folder.path().to_str().expect("paths here are text");
    let words = [
        "policy",
        "what-if",
        "base",
        "--file",
        path,
        "--fail-on",
        "noncompliant",
        "-o",
        "json",
    ];
    let (code, said) = cli(&server, &words).await;
    assert_eq!(code, Some(0), "{said}");
    let view: Value = serde_json::from_str(&said).expect("it is JSON");
    assert_eq!(view["settings"][0]["key"], "camera.allowed");

    api.post(
        "/policies/base/activate",
        &json!({"version": "1", "stages": [{"name": "full"}]}),
    )
    .await
    .expect(202);
    settle(&api, &mut fleet).await;
    let device = fleet[0].device.id();
    let view = api.get(&format!("/devices/{device}/settings")).await.ok();
    assert_eq!(setting(&view, "passcode.min_length")["state"], "verified");
    let (code, said) = cli(&server, &["device", "why", &device]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("1 of what is asked is not met."), "{said}");
    let (code, said) = cli(&server, &["device", "why", &device, "passcode.min_length"]).await;
    assert_eq!(code, Some(0), "{said}");
    for step in [
        "← Value: 12",
        "← Version: base 1",
        "← Rollout: rol_",
        "← Approval: not required",
        "← Report: verified",
    ] {
        assert!(said.contains(step), "{step}: {said}");
    }
}
