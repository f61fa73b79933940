//! What is destructive: asked, approved by people, released within the budget, and checked again by the device.

use muster_model::{CommandKind, command::WipeMode};
use muster_trust::{approval::Counted, key::SigningKey};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    PATIENCE,
    api::{Api, answer},
    approvers::{
        approve, approver, ask_wipe, at_once, batch_of, change_root, command_of, hand_in, name, reaches,
        two_of,
    },
    database::{each_database, on_postgres},
    device::{Device, Obedient, logged, now},
    eventually, furnish,
    machine::{activate, ended},
    server::{Options, Server, assert_healthy},
};

const WIPE: CommandKind = CommandKind::Wipe { mode: WipeMode::Full };

/// A server whose root document names Ada, Grace and Radia, two of whom must approve.
async fn with_people(options: Options) -> (Server, Api, Vec<SigningKey>) {
    let mut server = Server::start(options).await;
    let keys = two_of(&mut server, &["Ada", "Grace", "Radia"]).await;
    let api = server.api().await;
    (server, api, keys)
}

/// Lets a device check in until it has carried something out.
async fn carries_out(device: &mut Obedient, count: usize) {
    eventually("its command comes", PATIENCE, async || {
        device.obey().await;
        (device.executed.len() >= count).then_some(())
    })
    .await;
}

async fn shown(api: &Api, command: &str) -> Value {
    api.get(&format!("/commands/{command}")).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn m1_m9_a_wipe_that_two_people_approved_is_carried_out_once() {
    each_database(async |options| {
        let (server, api, keys) = with_people(options).await;
        let mut device = Obedient::enroll(&api, &server.admin).await;
        let operation = ask_wipe(&api, &device.device.id()).await;
        let command = command_of(&operation);
        assert_eq!(shown(&api, &command).await["state"], "awaiting_approval");
        device.obey().await;
        let first = approve(&api, &operation, &keys[0]).await.ok();
        assert_eq!(first["state"], "awaiting_approval", "{first}");
        assert_eq!(first["approval"]["people"][0]["person"], "Ada");
        device.obey().await;
        assert!(device.executed.is_empty() && device.refused.is_empty());
        let second = approve(&api, &operation, &keys[1]).await.ok();
        assert_eq!(second["state"], "running", "{second}");
        carries_out(&mut device, 1).await;
        assert_eq!(device.executed, [WIPE]);
        let done = ended(&api, &command).await;
        assert_eq!((&done["state"], &done["type"]), (&json!("done"), &json!("wipe")));
        assert!(done["released_at"].is_string(), "{done}");
        let listed = api
            .list(&format!("/commands?device={}", device.device.id()))
            .await;
        assert_eq!(listed.len(), 1, "{listed:?}");
        // Asked again and approved again, there is nothing to do: what was wiped says so while it is on the wire.
        let again = ask_wipe(&api, &device.device.id()).await;
        approve(&api, &again, &keys[2]).await.ok();
        approve(&api, &again, &keys[0]).await.ok();
        let noop = eventually("it says so", PATIENCE, async || {
            device.obey().await;
            let shown = shown(&api, &command_of(&again)).await;
            (shown["state"] == "noop").then_some(shown)
        })
        .await;
        assert_eq!((device.executed.len(), &noop["type"]), (1, &json!("wipe")));
        let approved = logged(&api, "operation.approved", 4).await;
        assert_eq!(approved[0]["actor"].as_str(), approved[1]["actor"].as_str());
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m2_who_does_not_count_is_told_why() {
    let mut server = Server::start(Options::default()).await;
    let boss = server.admin.client_id.clone();
    let keys: Vec<SigningKey> = (0..4).map(|_| SigningKey::generate_ed25519().unwrap()).collect();
    change_root(&mut server, |root| {
        root.approval = at_once();
        root.approval.cool_down_seconds = 3600;
        let earlier = root.issued_at.minus(std::time::Duration::from_secs(7200));
        for (key, person, accounts, is_old) in [
            (&keys[0], "Ada", vec![], true),
            (&keys[1], "Ada", vec![], true),
            (&keys[2], "The boss", vec![boss.as_str()], true),
            (&keys[3], "Somebody new", vec![], false),
        ] {
            let mut approver = approver(person, &accounts);
            if is_old {
                approver.added_at = earlier;
            }
            name(root, key, approver, 2);
        }
    })
    .await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    let operation = ask_wipe(&api, &device.id()).await;
    let refused = async |key: &SigningKey, words: &str| {
        let detail = approve(&api, &operation, key)
            .await
            .refused(403, "approver_refused");
        assert!(detail.contains(words), "{detail}");
    };
    refused(
        &SigningKey::generate_ed25519().unwrap(),
        "no approver with this key",
    )
    .await;
    refused(&keys[2], "Whoever asked").await;
    refused(&keys[3], "too short a time ago").await;
    approve(&api, &operation, &keys[0]).await.ok();
    let twice = approve(&api, &operation, &keys[1]).await.ok();
    assert_eq!(
        twice["state"], "awaiting_approval",
        "one person counts once: {twice}"
    );
    let other = ask_wipe(&api, &device.id()).await;
    let for_other = batch_of(&api, &other).await.approve(&keys[0]).unwrap();
    let detail = hand_in(&api, &operation, &for_other)
        .await
        .refused(403, "approver_refused");
    assert!(detail.contains("does not verify"), "{detail}");
    // Without the scope nothing is handed in.
    let reader = api
        .client_with("reader", &["command:read", "command:write"])
        .await;
    approve(&reader, &operation, &keys[0])
        .await
        .refused(403, "insufficient_scope");
}

/// The name on a link is free to choose: who signs somebody else in asks themselves.
#[tokio::test(flavor = "multi_thread")]
async fn m2_whoever_made_the_link_by_which_it_was_asked_does_not_approve_it() {
    each_database(async |options| {
        let mut server = Server::start(options).await;
        let api = server.api().await;
        let scopes = [
            "device:read",
            "client:write",
            "command:read",
            "command:write",
            "command:wipe",
            "approval:write",
        ];
        let made = api
            .post("/clients", &json!({"name": "bobs-own", "scopes": scopes}))
            .await
            .expect(201);
        let [id, secret] =
            ["client_id", "client_secret"].map(|field| made[field].as_str().unwrap().to_owned());
        let [bob, ada, grace] = [(); 3].map(|()| SigningKey::generate_ed25519().unwrap());
        let root = change_root(&mut server, |root| {
            root.approval = at_once();
            name(root, &bob, approver("Bob", &["bob", &id]), 1);
            name(root, &ada, approver("Ada", &["ada"]), 1);
            name(root, &grace, approver("Grace", &["grace"]), 1);
        })
        .await;
        let api = server.api().await;
        let mut device = Obedient::enroll(&api, &server.admin).await;
        let shown = api.get(&format!("/devices/{}", device.device.id())).await.ok();
        let bobs = api.sign_in_as(&id, &secret).await;
        let (cookie, csrf) = furnish::sign_in_by(&bobs, &json!({"person": "ada"})).await;
        let form = [
            ("csrf", csrf.as_str()),
            ("type", "wipe"),
            ("mode", "full"),
            ("device", shown["id"].as_str().unwrap()),
            ("count", "1"),
            ("confirm", shown["name"].as_str().unwrap()),
        ];
        let url = format!("{}/commands/new", api.origin);
        let sent = answer(api.http.post(url).header("cookie", cookie).form(&form)).await;
        assert_eq!(sent.status, 303, "{}", sent.text());
        let operation = sent
            .header("location")
            .split(['/', '?'])
            .nth(2)
            .unwrap()
            .to_owned();
        // The statement says so, so that devices refuse him without the server.
        let batch = batch_of(&api, &operation).await;
        assert_eq!(batch.read().unwrap().requested_by, id);
        let counted = batch.person(&batch.approve(&bob).unwrap(), &root, now()).unwrap();
        assert!(matches!(counted, Counted::Requester(_)), "{counted:?}");
        // Ada is said to have asked, too: the server takes her approval as little.
        for key in [&bob, &ada] {
            approve(&bobs, &operation, key)
                .await
                .refused(403, "approver_refused");
        }
        device.obey().await;
        assert!(device.executed.is_empty());
        let asked = logged(&api, "operation.asked", 1).await;
        assert_eq!(asked[0]["detail"]["asked_through"], format!("client:{id}"));
        approve(&bobs, &operation, &grace).await.ok();
        carries_out(&mut device, 1).await;
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m3_a_new_account_asks_nothing_destructive_and_that_is_written_down() {
    let (mut server, _, _) = with_people(Options::default()).await;
    change_root(&mut server, |root| root.approval.cool_down_seconds = 86_400).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    let fresh = api
        .client_with(
            "fresh",
            &["command:read", "command:write", "command:wipe", "approval:write"],
        )
        .await;
    let wipe = json!({"type": "wipe", "mode": "full"});
    for path in [
        format!("/devices/{}/commands", device.id()),
        "/commands".to_owned(),
    ] {
        let mut body = wipe.clone();
        if path == "/commands" {
            body["devices"] = json!([device.id()]);
        }
        fresh.post(&path, &body).await.refused(403, "account_too_new");
    }
    logged(&api, "security.destructive_refused", 2).await;
    // What is not destructive it may.
    fresh
        .post(
            &format!("/devices/{}/commands", device.id()),
            &json!({"type": "lock"}),
        )
        .await
        .expect(202);
}

#[tokio::test(flavor = "multi_thread")]
async fn m4_every_way_to_ask_needs_approvals() {
    each_database(async |options| {
        let (server, api, _) = with_people(options).await;
        let mut device = Obedient::enroll(&api, &server.admin).await;
        let id = device.device.id();
        let wipe = json!({"type": "wipe", "mode": "enterprise"});
        let named = {
            let mut body = wipe.clone();
            body["devices"] = json!([id]);
            body
        };
        let matched = {
            let mut body = wipe.clone();
            body["filter"] = json!("state:active");
            body
        };
        for (path, body) in [
            (format!("/devices/{id}/commands"), wipe),
            ("/commands".to_owned(), named),
            ("/commands".to_owned(), matched),
        ] {
            let asked = api
                .post_once(&path, &format!("key-{path}-{}", body.to_string().len()), &body)
                .await;
            assert_eq!(asked.expect(202)["state"], "awaiting_approval");
        }
        device.obey().await;
        assert!(device.executed.is_empty() && device.refused.is_empty());
        assert_eq!(api.list("/operations?state=awaiting_approval").await.len(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m6_the_budget_of_an_hour_holds_over_many_requests_at_once() {
    each_database(async |options| {
        const DEVICES: usize = 8;
        const BUDGET: usize = 3;
        let mut server = Server::start(options).await;
        let keys = two_of(&mut server, &["Ada", "Grace"]).await;
        change_root(&mut server, |root| {
            root.budgets.destructive_per_hour_min = BUDGET as u32
        })
        .await;
        let api = server.api().await;
        let mut devices = Vec::new();
        for _ in 0..DEVICES {
            devices.push(Obedient::enroll(&api, &server.admin).await);
        }
        // Four of one, and one of four.
        let mut operations = Vec::new();
        for device in &devices[..4] {
            operations.push(ask_wipe(&api, &device.device.id()).await);
        }
        let list: Vec<String> = devices[4..].iter().map(|device| device.device.id()).collect();
        let asked = api
            .post(
                "/commands",
                &json!({"type": "wipe", "mode": "full", "devices": list}),
            )
            .await
            .expect(202);
        operations.push(asked["operation_id"].as_str().unwrap().to_owned());
        let mut approving = JoinSet::new();
        for operation in operations {
            let (api, keys) = (
                api.with_token(api.token.clone()),
                keys.iter()
                    .map(|key| key.to_pkcs8_der().unwrap())
                    .collect::<Vec<_>>(),
            );
            approving.spawn(async move {
                for key in keys {
                    let key = SigningKey::from_pkcs8_der(&key).unwrap();
                    approve(&api, &operation, &key).await.ok();
                }
            });
        }
        while let Some(approved) = approving.join_next().await {
            approved.expect("approvals are taken");
        }
        logged(&api, "operation.stopped", 1).await;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let mut wiped = 0;
        for device in &mut devices {
            device.obey().await;
            wiped += device.executed.len();
        }
        assert_eq!(wiped, BUDGET);
        let held = api.list("/operations?state=running").await;
        assert!(
            held.iter()
                .any(|operation| operation["because"] == "the budget of this hour is used up"),
            "{held:?}"
        );
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m7_the_halt_switch_stops_what_no_device_was_handed() {
    each_database(async |options| {
        let (server, api, keys) = with_people(options).await;
        let mut device = Obedient::enroll(&api, &server.admin).await;
        let mut other = Obedient::enroll(&api, &server.admin).await;
        let id = device.device.id();
        let before = ask_wipe(&api, &id).await;
        approve(&api, &before, &keys[0]).await.ok();
        approve(&api, &before, &keys[1]).await.ok();
        reaches(&api, &before, "completed").await;
        let halted = api.post("/halt", &json!({"reason": "stolen session"})).await.ok();
        assert_eq!(halted["halted"], true);
        let after = ask_wipe(&api, &other.device.id()).await;
        approve(&api, &after, &keys[0]).await.ok();
        approve(&api, &after, &keys[1]).await.ok();
        let told = json!({"type": "message", "text": "Please come to the desk."});
        api.post(&format!("/devices/{id}/commands"), &told)
            .await
            .expect(202);
        carries_out(&mut device, 1).await;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        device.obey().await;
        other.obey().await;
        assert!(!device.executed.contains(&WIPE) && other.executed.is_empty());
        assert_eq!(api.get("/halt").await.ok()["reason"], "stolen session");
        api.post("/halt/lift", &json!({"reason": "found"})).await.ok();
        carries_out(&mut device, 2).await;
        carries_out(&mut other, 1).await;
        assert_eq!(ended(&api, &command_of(&before)).await["state"], "done");
        logged(&api, "commands.halted", 1).await;
        logged(&api, "commands.halt_lifted", 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m7_a_halt_counts_on_every_node_at_once() {
    on_postgres(async |options| {
        let (first, api, keys) = with_people(options).await;
        let second = first.second_node().await;
        let mut device = Obedient::enroll(&api, &second.admin).await;
        let operation = ask_wipe(&api, &device.device.id()).await;
        approve(&api, &operation, &keys[0]).await.ok();
        approve(&api, &operation, &keys[1]).await.ok();
        reaches(&api, &operation, "completed").await;
        api.post("/halt", &json!({"reason": "drill"})).await.ok();
        // The device is at the other node.
        for _ in 0..3 {
            device.obey().await;
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        }
        assert!(device.executed.is_empty(), "{:?}", device.executed);
        api.post("/halt/lift", &json!({})).await.ok();
        carries_out(&mut device, 1).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m5_m8_the_list_is_the_one_that_was_asked_for() {
    let (server, api, keys) = with_people(Options::default()).await;
    let mut devices = Vec::new();
    for _ in 0..2 {
        devices.push(Obedient::enroll(&api, &server.admin).await);
    }
    let asked = api
        .post(
            "/commands",
            &json!({"type": "wipe", "mode": "full", "filter": "state:active"}),
        )
        .await
        .expect(202);
    let operation = asked["operation_id"].as_str().unwrap().to_owned();
    let targets = api.list(&format!("/operations/{operation}/targets")).await;
    assert_eq!(targets.len(), 2);
    let mut late = Obedient::enroll(&api, &server.admin).await;
    approve(&api, &operation, &keys[0]).await.ok();
    approve(&api, &operation, &keys[1]).await.ok();
    for device in &mut devices {
        carries_out(device, 1).await;
    }
    late.obey().await;
    assert!(late.executed.is_empty());
    let done = reaches(&api, &operation, "completed").await;
    assert_eq!(
        (&done["count"], &done["progress"]["done"]),
        (&json!(2), &json!(2)),
        "{done}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_rejected_or_taken_back_and_then_approved_by_nobody() {
    let (server, api, keys) = with_people(Options::default()).await;
    let mut device = Obedient::enroll(&api, &server.admin).await;
    let id = device.device.id();
    let rejected = ask_wipe(&api, &id).await;
    approve(&api, &rejected, &keys[0]).await.ok();
    let path = format!("/operations/{rejected}/reject");
    let said = api.post(&path, &json!({"reason": "a mistake"})).await.ok();
    assert_eq!(
        (&said["state"], &said["because"]),
        (&json!("rejected"), &json!("a mistake"))
    );
    approve(&api, &rejected, &keys[1])
        .await
        .refused(409, "illegal_state");
    assert_eq!(shown(&api, &command_of(&rejected)).await["state"], "cancelled");
    let taken_back = ask_wipe(&api, &id).await;
    let path = format!("/commands/{}/cancel", command_of(&taken_back));
    assert_eq!(api.post(&path, &json!({})).await.ok()["state"], "cancelled");
    approve(&api, &taken_back, &keys[1])
        .await
        .refused(409, "illegal_state");
    device.obey().await;
    assert!(device.executed.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_approvers_a_wipe_waits_and_says_what_to_do() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    let operation = ask_wipe(&api, &device.id()).await;
    let shown = api.get(&format!("/operations/{operation}")).await.ok();
    let because = shown["because"].as_str().expect("it says why");
    assert!(because.contains("muster root add-approver"), "{because}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_what_was_asked_before_a_restore_is_never_carried_out() {
    let (mut server, api, keys) = with_people(Options::default()).await;
    let device = Obedient::enroll(&api, &server.admin).await;
    let operation = ask_wipe(&api, &device.device.id()).await;
    approve(&api, &operation, &keys[0]).await.ok();
    change_root(&mut server, |root| root.restore_epoch += 1).await;
    let api = server.api().await;
    let detail = approve(&api, &operation, &keys[1])
        .await
        .refused(403, "approver_refused");
    assert!(detail.contains("restore epoch"), "{detail}");
}

/// Enrolls so many devices that do nothing.
async fn devices(server: &Server, api: &Api, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(Device::enroll(api, &server.admin).await.id());
    }
    ids
}

/// The operation that a refusal names.
fn named_in(detail: &str) -> String {
    let word = |word: &str| uuid::Uuid::parse_str(word.trim_matches('.')).ok();
    let id = detail.split(' ').find_map(word).expect("it names an operation");
    id.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn m12_a_policy_asks_less_of_many_devices_only_when_people_approved_it() {
    each_database(async |options| {
        let (server, api, keys) = with_people(options).await;
        let ids = devices(&server, &api, 7).await;
        let stages = json!([{"name": "full"}]);
        let strict = json!({"passcode.min_length": 12, "camera.allowed": false});
        activate(&api, "base", "1", &strict).await;
        for (version, settings) in [
            ("2", json!({"passcode.min_length": 13, "camera.allowed": false})),
            ("3", json!({"passcode.min_length": 13})),
            ("4", json!({"passcode.min_length": 4})),
        ] {
            api.post(
                "/policies/base/versions",
                &json!({"version": version, "settings": settings}),
            )
            .await
            .expect(201);
        }
        let order = |version: &str| json!({"version": version, "stages": stages});
        // What asks more needs nobody.
        api.post("/policies/base/activate", &order("2")).await.expect(202);
        let refused = api.post("/policies/base/activate", &order("3")).await;
        let detail = refused.refused(403, "approval_required");
        assert!(
            detail.contains("camera.allowed") && detail.contains("7 devices"),
            "{detail}"
        );
        let operation = named_in(&detail);
        let again = api.post("/policies/base/activate", &order("3")).await;
        assert_eq!(
            named_in(&again.refused(403, "approval_required")),
            operation,
            "it asks once"
        );
        let shown = api.get(&format!("/operations/{operation}")).await.ok();
        assert_eq!(
            (&shown["type"], &shown["count"]),
            (&json!("loosen-policy"), &json!(7))
        );
        approve(&api, &operation, &keys[0]).await.ok();
        let one = api.post("/policies/base/activate", &order("3")).await;
        one.refused(403, "approval_required");
        approve(&api, &operation, &keys[2]).await.ok();
        reaches(&api, &operation, "completed").await;
        // One bundle was approved, and no other.
        let other = api.post("/policies/base/activate", &order("4")).await;
        assert_ne!(named_in(&other.refused(403, "approval_required")), operation);
        let begun = api.post("/policies/base/activate", &order("3")).await.expect(202);
        let entry = logged(&api, "rollout.activated", 3)
            .await
            .pop()
            .expect("it is logged");
        assert_eq!(entry["detail"]["approved_by"], json!(operation), "{entry}");
        // A person goes back at once from what is new.
        let rollout = begun["rollout_id"].as_str().expect("it has an id");
        api.post(&format!("/rollouts/{rollout}/rollback"), &json!({}))
            .await
            .expect(200);
        // For fewer devices it is less as well, and of few devices it is nobody's business.
        let few = json!({"version": "2", "stages": stages, "target": {"devices": ids[..1]}});
        let narrowed = api.post("/policies/base/activate", &few).await;
        assert!(narrowed.refused(403, "approval_required").contains("target"));
        // Nor does it come off by leaving it out of the configuration.
        let document = json!({"format": 1, "policies": [], "prune": true});
        let plan = api.post("/plan", &document).await.ok();
        let applied = api
            .post("/apply", &json!({"plan_sha256": plan["plan_sha256"]}))
            .await;
        let withdrawal = named_in(&applied.refused(403, "approval_required"));
        let shown = api.get(&format!("/operations/{withdrawal}")).await.ok();
        assert_eq!(shown["arguments"]["bundle_sha256"], Value::Null);
        let few = json!({"stages": stages, "target": {"devices": ids[..5]}});
        for (name, version, settings) in [
            ("few", "1", &strict),
            ("few", "2", &json!({"passcode.min_length": 6})),
        ] {
            if version == "1" {
                api.post("/policies", &json!({"name": name})).await.expect(201);
            }
            let content = json!({"version": version, "settings": settings});
            api.post(&format!("/policies/{name}/versions"), &content)
                .await
                .expect(201);
            let mut order = few.clone();
            order["version"] = json!(version);
            api.post(&format!("/policies/{name}/activate"), &order)
                .await
                .expect(202);
        }
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m12_a_group_that_policies_are_for_is_defined_anew_only_when_people_approved_it() {
    each_database(async |options| {
        let (server, api, keys) = with_people(options).await;
        devices(&server, &api, 7).await;
        for name in ["all", "none", "unused"] {
            let include = if name == "none" { "false" } else { "true" };
            let body = json!({"name": name, "include": include});
            api.post("/groups", &body).await.expect(201);
        }
        let shown = async |name: &str| { api.get(&format!("/groups/{name}")).await.ok() };
        let (all, none) = (shown("all").await["id"].clone(), shown("none").await["id"].clone());
        eventually("everybody is in it", PATIENCE, async || {
            (shown("all").await["members"] == 7).then_some(())
        })
        .await;
        api.post("/policies", &json!({"name": "base"})).await.expect(201);
        let version = json!({"version": "1", "settings": {"camera.allowed": false}});
        api.post("/policies/base/versions", &version).await.expect(201);
        let order = json!({"version": "1", "stages": [{"name": "full"}],
            "target": {"groups": [all], "exclude_groups": [none]}});
        api.post("/policies/base/activate", &order).await.expect(202);
        // Whoever may change groups takes nothing off by it: neither by the group that it is for, nor by the one that it is not for.
        let only = api.client_with("groups-alone", &["group:read", "group:write"]).await;
        let patch = async |api: &Api, name: &str, body: Value| {
            let url = format!("{}/api/v1/groups/{name}", api.origin);
            answer(api.http.patch(url).bearer_auth(&api.token).json(&body)).await
        };
        let nobody = json!({"include": "device.platform == \"windows\""});
        let refused = patch(&only, "all", nobody.clone()).await;
        let detail = refused.refused(403, "approval_required");
        assert!(detail.contains("7 devices") && detail.contains("target"), "{detail}");
        let operation = named_in(&detail);
        let everybody = patch(&only, "none", json!({"include": "true"})).await;
        assert_eq!(named_in(&everybody.refused(403, "approval_required")), operation, "the same policy stays");
        let asked = api.get(&format!("/operations/{operation}")).await.ok();
        let reason = asked["reason"].as_str().unwrap_or_default();
        assert!(reason.contains("base stays at version 1 while its group all"), "{asked}");
        assert_eq!(shown("all").await["include"], "true");
        // Its name is its name, and a group that no policy is for is nobody's business.
        patch(&only, "all", json!({"description": "every device"})).await.ok();
        patch(&only, "unused", json!({"include": "false"})).await.ok();
        // By a document neither.
        let group = |include: &str| json!({"format": 1, "partial": true, "policies": [], "groups": [{"name": "all", "include": include}]});
        let plan = api.post("/plan", &group("false")).await.ok();
        let applied = api.post("/apply", &json!({"plan_sha256": plan["plan_sha256"]})).await;
        assert_eq!(named_in(&applied.refused(403, "approval_required")), operation);
        approve(&api, &operation, &keys[0]).await.ok();
        approve(&api, &operation, &keys[1]).await.ok();
        reaches(&api, &operation, "completed").await;
        patch(&only, "all", nobody).await.ok();
        eventually("nobody is in it", PATIENCE, async || {
            (shown("all").await["members"] == 0).then_some(())
        })
        .await;
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m12_no_more_devices_are_retired_within_the_hour_than_the_budget() {
    each_database(async |options| {
        let (server, api, _) = with_people(options).await;
        let ids = devices(&server, &api, 6).await;
        for id in &ids[..5] {
            api.post(&format!("/devices/{id}/retire"), &json!({}))
                .await
                .expect(204);
        }
        let refused = api.post(&format!("/devices/{}/retire", ids[5]), &json!({})).await;
        refused.refused(429, "over_budget");
        let device = api.get(&format!("/devices/{}", ids[5])).await.ok();
        assert_eq!(device["state"], "active");
        logged(&api, "security.destructive_refused", 1).await;
    })
    .await;
}
