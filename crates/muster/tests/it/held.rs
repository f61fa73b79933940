//! What is held because it is unusual, what needs people because it is for many, and what a wiped machine says.

use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{
    PATIENCE,
    api::Api,
    approvers::{approve, ask_wipe, change_root, command_of, operation_of, reaches, two_of},
    database::each_database,
    device::{Applicant, Device, Door, Obedient, logged},
    eventually,
    machine::{Machine, ended},
    server::{Options, Server, assert_healthy},
};

async fn fleet(server: &Server, api: &Api, count: usize) -> Vec<String> {
    const AT_ONCE: usize = 8;
    let mut ids = Vec::new();
    while ids.len() < count {
        let mut enrolling = JoinSet::new();
        for _ in 0..AT_ONCE.min(count - ids.len()) {
            let (api, admin) = (api.clone(), server.admin.clone());
            enrolling.spawn(async move { Device::enroll(&api, &admin).await.id() });
        }
        ids.extend(enrolling.join_all().await);
    }
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn m3_m6_a_new_account_releases_nothing_that_is_held_as_unusual() {
    // One more than a call that is never unusual.
    const DEVICES: usize = 101;
    let mut server = Server::start(Options::default()).await;
    change_root(&mut server, |root| root.approval.cool_down_seconds = 86_400).await;
    let api = server.api().await;
    let mut device = Obedient::enroll(&api, &server.admin).await;
    fleet(&server, &api, DEVICES - 1).await;
    let scopes = ["command:read", "command:write", "approval:write"];
    let thief = api.client_with("thief", &scopes).await;
    let accomplice = api.client_with("accomplice", &scopes).await;
    let lock = json!({"type": "lock", "filter": "state:active"});
    let asked = thief.post("/commands", &lock).await.expect(202);
    assert_eq!(
        (&asked["state"], &asked["commands"]),
        (&json!("held"), &json!(DEVICES))
    );
    let path = format!("/operations/{}", asked["operation_id"].as_str().expect("an id"));
    let because = api.get(&path).await.ok()["because"].clone();
    assert!(
        because.as_str().is_some_and(|why| why.contains("actor: ")),
        "{because}"
    );
    let release = format!("{path}/release");
    thief
        .post(&release, &json!({}))
        .await
        .refused(403, "insufficient_scope");
    accomplice
        .post(&release, &json!({}))
        .await
        .refused(403, "account_too_new");
    // Whoever may only ask and read does not come so far.
    let reader = api
        .client_with("reader", &["command:read", "command:write"])
        .await;
    reader
        .post(&release, &json!({}))
        .await
        .refused(403, "insufficient_scope");
    device.obey().await;
    assert!(device.executed.is_empty());
    assert_eq!(api.get(&path).await.ok()["state"], "held");
    logged(&api, "security.mass_command", 1).await;
    // The account of the first run is as old as the tenant.
    api.post(&release, &json!({})).await.ok();
    eventually("the command comes", PATIENCE, async || {
        device.obey().await;
        (device.executed.len() == 1).then_some(())
    })
    .await;
    logged(&api, "operation.released", 1).await;
    assert_healthy(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m12_scripts_and_the_like_need_people_above_the_hours_budget_whoever_asks_for_the_rest() {
    each_database(async |options| {
        const BUDGET: usize = 2;
        let mut server = Server::start(options).await;
        let keys = two_of(&mut server, &["Ada", "Grace"]).await;
        change_root(&mut server, |root| {
            root.budgets.destructive_per_hour_min = BUDGET as u32;
        })
        .await;
        let api = server.api().await;
        let ids = fleet(&server, &api, BUDGET + 2).await;
        let script = json!({"name": "Erase", "interpreter": "sh", "text": "rm -rf /srv\n"});
        let script = api.post("/scripts", &script).await.expect(201)["sha256"].clone();
        let scopes = ["command:read", "command:write", "script:read", "script:run"];
        let first = api.client_with("first", &scopes).await;
        let few = json!({"type": "run-script", "sha256": script, "devices": ids[..BUDGET]});
        let asked = first.post("/commands", &few).await.expect(202);
        assert_ne!(asked["state"], "awaiting_approval", "{asked}");
        // The hour's allowance is used up, for every account and for everything of this class.
        let mut waiting = Vec::new();
        for (number, kind) in [
            json!({"type": "run-script", "sha256": script}),
            json!({"type": "remove-app", "package": "ssh"}),
            json!({"type": "clear-passcode"}),
            json!({"type": "shut-down"}),
        ]
        .into_iter()
        .enumerate()
        {
            let client = api.client_with(&format!("other-{number}"), &scopes).await;
            let path = format!("/devices/{}/commands", ids[BUDGET]);
            let asked = client.post(&path, &kind).await.expect(202);
            assert_eq!(asked["state"], "awaiting_approval", "{kind}");
            waiting.push(operation_of(&asked["command_id"]));
        }
        let lock = json!({"type": "lock", "devices": ids});
        let asked = first.post("/commands", &lock).await.expect(202);
        assert_ne!(asked["state"], "awaiting_approval", "a lock is not of this class");
        // With people it goes its way.
        approve(&api, &waiting[0], &keys[0]).await.ok();
        let approved = approve(&api, &waiting[0], &keys[1]).await.ok();
        assert_eq!(approved["state"], "running", "{approved}");
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m10_a_machine_that_was_wiped_answers_noop_and_touches_nothing() {
    each_database(async |options| {
        const ERASED: &str = "/run/muster/wiped";
        let mut server = Server::start(options).await;
        let keys = two_of(&mut server, &["Ada", "Grace"]).await;
        let api = server.api().await;
        let mut machine = Machine::new();
        machine.enroll(&api, &server.admin).await;
        // Both are on their way before the machine has heard of either.
        let mut commands = Vec::new();
        for _ in 0..2 {
            let operation = ask_wipe(&api, &machine.device).await;
            for key in &keys {
                approve(&api, &operation, key).await.ok();
            }
            reaches(&api, &operation, "completed").await;
            commands.push(command_of(&operation));
        }
        machine.start();
        assert_eq!(ended(&api, &commands[0]).await["state"], "done");
        let second = ended(&api, &commands[1]).await;
        assert_eq!(second["state"], "noop", "{second}");
        assert_eq!(machine.read(ERASED).as_deref(), Some("full\n"));
        assert_eq!(machine.logged(&format!("executing command={}", commands[0])), 1);
        assert_eq!(
            machine.logged(&format!("executing command={}", commands[1])),
            0,
            "{}",
            machine.log()
        );
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m11_no_way_to_ask_brings_a_full_wipe_to_a_personal_device() {
    each_database(async |options| {
        let mut server = Server::start(options).await;
        let keys = two_of(&mut server, &["Ada", "Grace"]).await;
        let api = server.api().await;
        let applicant = Applicant::new();
        let token = json!({"device_uuid": applicant.device_uuid, "ownership": "personal"});
        let token = api.post("/enrollment-tokens", &token).await.expect(201)["token"].clone();
        let token = token.as_str().expect("a token is text");
        let finished = applicant.try_enroll(&Door::of(&server.admin), token).await;
        finished.expect(201);
        let mut personal = Obedient::of(applicant.with_identity(&server.admin, &finished));
        let mut company = Obedient::enroll(&api, &server.admin).await;
        let id = personal.device.id();
        let wipe = json!({"type": "wipe", "mode": "full"});
        let path = format!("/devices/{id}/commands");
        api.post(&path, &wipe).await.refused(400, "invalid");
        // In a list it is left out, or the list is refused; the rest of it does not bring it there either.
        let all = json!({"type": "wipe", "mode": "full", "filter": "state:active"});
        let asked = api.post("/commands", &all).await;
        if asked.status == 202 {
            let operation = asked.json()["operation_id"].as_str().expect("an id").to_owned();
            for key in &keys {
                approve(&api, &operation, key).await.ok();
            }
            eventually("the company's device is wiped", PATIENCE, async || {
                company.obey().await;
                (company.executed.len() == 1).then_some(())
            })
            .await;
        } else {
            asked.refused(400, "invalid");
        }
        personal.obey().await;
        assert!(personal.executed.is_empty(), "{:?}", personal.executed);
        // What belongs to the organization can be taken back.
        let enterprise = json!({"type": "wipe", "mode": "enterprise"});
        let asked = api.post(&path, &enterprise).await.expect(202);
        let operation = operation_of(&asked["command_id"]);
        for key in &keys {
            approve(&api, &operation, key).await.ok();
        }
        eventually("it is carried out", PATIENCE, async || {
            personal.obey().await;
            (personal.executed.len() == 1).then_some(())
        })
        .await;
        assert_healthy(&server).await;
    })
    .await;
}
