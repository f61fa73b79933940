//! Commands: delivered at least once, executed once, and only what was signed and logged.

use muster_trust::{dsse::Envelope, key::SigningKey};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    PATIENCE,
    api::Api,
    database::{Store, each_database},
    device::{Device, Obedient, logged},
    eventually,
    machine::{Machine, ended, order},
    server::{Options, Server, assert_healthy, everything, maintain},
};

/// A folder of somebody's that a wipe would take.
const LETTER: &str = "/home/ada/letter";

async fn with_machine(options: Options) -> (Server, Api, Machine) {
    let server = Server::start(options).await;
    let api = server.api().await;
    let machine = Machine::running(&api, &server.admin).await;
    machine.write(LETTER, "kept");
    (server, api, machine)
}

async fn shown(api: &Api, command: &str) -> Value {
    api.get(&format!("/commands/{command}")).await.ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_done_and_a_second_one_is_a_noop() {
    each_database(async |options| {
        let (server, api, machine) = with_machine(options).await;
        let lock = json!({"type": "lock", "message": "call 112"});
        let first = ended(&api, &order(&api, &machine.device, &lock).await).await;
        assert_eq!(
            (&first["state"], &first["receipt"]["outcome"]),
            (&json!("done"), &json!("done")),
            "{first}"
        );
        assert_eq!(
            machine.read("/run/muster/locked").as_deref(),
            Some("locked\ncall 112\n")
        );
        let second = ended(&api, &order(&api, &machine.device, &lock).await).await;
        assert_eq!(second["state"], "noop");
        for member in ["delivered_at", "completed_at", "entry_id"] {
            assert!(second[member].is_string(), "{member}: {second}");
        }
        let completed = logged(&api, "command.completed", 2).await;
        assert!(
            completed
                .iter()
                .all(|entry| entry["actor"] == json!(machine.device)),
            "{completed:?}"
        );
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_and_collect_inventory_are_carried_out() {
    let (_server, api, machine) = with_machine(Options::default()).await;
    let restart = order(
        &api,
        &machine.device,
        &json!({"type": "restart", "delay_seconds": 30}),
    )
    .await;
    assert_eq!(ended(&api, &restart).await["state"], "done");
    let note = machine
        .read("/run/muster/restart-requested")
        .expect("the restart was asked for");
    assert!(note.contains("delay_seconds 30"), "{note}");
    let path = format!("/devices/{}/facts", machine.device);
    let before = eventually("the first facts come", PATIENCE, async || {
        let answer = api.get(&path).await;
        (answer.status == 200).then(|| answer.json()["updated_at"].clone())
    })
    .await;
    let collect = order(&api, &machine.device, &json!({"type": "collect-inventory"})).await;
    assert_eq!(ended(&api, &collect).await["state"], "done");
    assert_ne!(
        api.get(&path).await.ok()["updated_at"],
        before,
        "the facts are newer"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn m1_a_wipe_waits_for_approvals_and_wipes_nothing() {
    each_database(async |options| {
        let (_server, api, mut machine) = with_machine(options).await;
        for mode in ["full", "enterprise"] {
            let wipe = order(&api, &machine.device, &json!({"type": "wipe", "mode": mode})).await;
            assert_eq!(shown(&api, &wipe).await["state"], "awaiting_approval");
        }
        // The device goes on.
        let lock = order(&api, &machine.device, &json!({"type": "lock"})).await;
        assert_eq!(ended(&api, &lock).await["state"], "done");
        assert_eq!(machine.read(LETTER).as_deref(), Some("kept"));
        assert!(machine.read("/etc/os-release").is_some() && machine.runs());
        assert_eq!(machine.logged("kind=\"wipe\""), 0, "{}", machine.log());
    })
    .await;
}

/// A command row as whoever can write to the database would put it there.
struct Insertion {
    what: &'static str,
    kind: &'static str,
    arguments: &'static str,
    envelope: String,
}

impl Insertion {
    /// Copies a command's row with another id and sequence, and this kind and envelope; answers the new id.
    async fn put(&self, store: &Store, original: &str, sequence: i64) -> String {
        let id = Uuid::new_v4();
        let sql = format!(
            "INSERT INTO commands_command (tenant_id, command_id, operation_id, device_id, epoch, sequence, kind, \
             arguments, state, envelope, entry_id, created_by, created_at, expires_at, attempts) \
             SELECT tenant_id, {}, operation_id, device_id, epoch, {sequence}, '{}', '{}', 'queued', '{}', entry_id, \
             created_by, created_at, expires_at, 0 FROM commands_command WHERE command_id = {}",
            store.uuid(id),
            self.kind,
            self.arguments,
            self.envelope.replace('\'', "''"),
            store.id(original),
        );
        assert_eq!(store.execute(&sql).await, 1, "{}", self.what);
        format!("cmd_{}", id.simple())
    }
}

/// The stored envelope of a command.
async fn envelope_of(store: &Store, command: &str) -> Envelope {
    let sql = format!(
        "SELECT envelope FROM commands_command WHERE command_id = {}",
        store.id(command)
    );
    serde_json::from_str(store.value(&sql).await.text()).expect("it is an envelope")
}

/// The statement of an envelope with a wipe in place of what it says, signed by `keys`; with the old signatures where there
/// are none.
fn forged(original: &Envelope, keys: &[&SigningKey], renumber: bool) -> String {
    let mut statement: Value = serde_json::from_slice(&original.payload).expect("a statement is JSON");
    statement["kind"] = json!({"type": "wipe", "mode": "full"});
    if renumber {
        statement["sequence"] = json!(statement["sequence"].as_u64().expect("a number") + 1000);
        statement["command_id"] = json!(format!("cmd_{}", Uuid::new_v4().simple()));
    }
    let payload = statement.to_string().into_bytes();
    let envelope = if keys.is_empty() {
        Envelope {
            payload,
            ..original.clone()
        }
    } else {
        muster_trust::dsse::sign(&original.payload_type, &payload, keys).expect("a key signs")
    };
    serde_json::to_string(&envelope).expect("an envelope is JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn m1_a_wipe_row_inserted_by_sql_wipes_nothing_and_the_doctor_names_it() {
    each_database(async |options| {
        let (server, api, mut machine) = with_machine(options).await;
        let first = order(
            &api,
            &machine.device,
            &json!({"type": "lock", "message": "genuine"}),
        )
        .await;
        ended(&api, &first).await;
        let store = server.store().await;
        let original = envelope_of(&store, &first).await;
        let stranger = SigningKey::generate_ed25519().expect("a key can be made");
        let action = std::fs::read_to_string(
            server
                .data_dir()
                .join(format!("keys/tenants/{}/action.pem", server.admin.tenant)),
        );
        let action = SigningKey::from_pkcs8_pem(&action.expect("the key is there")).expect("it is a key");
        let wipe = r#"{"type":"wipe","mode":"full"}"#;
        let rows = [
            (
                "the envelope of a lock",
                serde_json::to_string(&original).expect("JSON"),
            ),
            ("a bent envelope", forged(&original, &[], false)),
            ("a bent envelope with a new number", forged(&original, &[], true)),
            ("a stranger's signature", forged(&original, &[&stranger], true)),
            (
                "a stolen action key, never logged",
                forged(&original, &[&action], true),
            ),
            ("no envelope at all", "{}".to_owned()),
        ];
        let mut inserted = Vec::new();
        for (number, (what, envelope)) in rows.into_iter().enumerate() {
            let row = Insertion {
                what,
                kind: "wipe",
                arguments: wipe,
                envelope,
            };
            inserted.push((
                what,
                row.put(&store, &first, 100 + i64::try_from(number).expect("few"))
                    .await,
            ));
        }
        // An honest command makes the node look at its queue. One bad row does not keep the others from their device.
        let honest = order(
            &api,
            &machine.device,
            &json!({"type": "lock", "message": "after"}),
        )
        .await;
        assert_eq!(ended(&api, &honest).await["state"], "done");
        assert_eq!(machine.read(LETTER).as_deref(), Some("kept"));
        assert!(machine.runs());
        assert_eq!(machine.logged("kind=\"wipe\""), 0, "{}", machine.log());
        for (what, command) in &inserted {
            let row = shown(&api, command).await;
            assert_eq!(
                (&row["state"], &row["attempts"]),
                (&json!("queued"), &json!(0)),
                "{what} was not delivered"
            );
        }
        let doctor = maintain(&server, &["doctor"]).await;
        let said = everything(&doctor);
        assert_eq!(doctor.status.code(), Some(1), "{said}");
        for (what, command) in &inserted {
            assert!(
                said.contains(command.as_str()),
                "{what}: {command} is not in {said}"
            );
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m9_a_command_that_is_delivered_again_is_executed_once_and_answered_alike() {
    each_database(async |options| {
        let (server, api, machine) = with_machine(options).await;
        let restart = order(
            &api,
            &machine.device,
            &json!({"type": "restart", "delay_seconds": 30}),
        )
        .await;
        let first = ended(&api, &restart).await;
        machine.remove("/run/muster/restart-requested");
        let store = server.store().await;
        for delivery in 2..4 {
            let again = format!(
                "UPDATE commands_command SET state = 'queued', completed_at = NULL, receipt = NULL, \
                 receipt_envelope = NULL WHERE command_id = {}",
                store.id(&restart)
            );
            assert_eq!(store.execute(&again).await, 1);
            // Another command makes the node look at its queue.
            ended(
                &api,
                &order(&api, &machine.device, &json!({"type": "lock"})).await,
            )
            .await;
            let second = ended(&api, &restart).await;
            assert_eq!(second["receipt"], first["receipt"], "delivery {delivery}");
        }
        assert!(
            machine.read("/run/muster/restart-requested").is_none(),
            "it was not carried out again"
        );
        assert_eq!(machine.logged(&format!("executing command={restart}")), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_time_is_over_is_expired_and_never_delivered() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let mut device = Obedient::enroll(&api, &server.admin).await;
        device.obey().await;
        let command = order(
            &api,
            &device.device.id(),
            &json!({"type": "restart", "ttl_seconds": 1}),
        )
        .await;
        let expired = ended(&api, &command).await;
        assert_eq!(
            (&expired["state"], &expired["receipt"]),
            (&json!("expired"), &Value::Null)
        );
        device.obey().await;
        assert_eq!(device.executed, []);
        let entry = logged(&api, "command.expired", 1).await.remove(0);
        assert_eq!(entry["detail"]["command_id"], json!(command));
        for ttl in [0_i64, -1, 7_776_001] {
            let body = json!({"type": "lock", "ttl_seconds": ttl});
            let answer = api
                .post(&format!("/devices/{}/commands", device.device.id()), &body)
                .await;
            answer.refused(400, "invalid");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_was_delivered_and_not_answered_in_time_is_unknown_and_a_late_answer_is_noted() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    let command = order(&api, &device.id(), &json!({"type": "restart", "ttl_seconds": 4})).await;
    eventually("it is delivered", PATIENCE, async || {
        (!device.checkin().await.commands.is_empty()).then_some(())
    })
    .await;
    assert_eq!(ended(&api, &command).await["state"], "unknown");
    device
        .checkin_with("receipts", json!([device.receipt(&command, "done")]))
        .await;
    assert_eq!(shown(&api, &command).await["state"], "unknown");
    logged(&api, "receipt.refused", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_command_is_never_delivered() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let mut machine = Machine::new();
        machine.enroll(&api, &server.admin).await;
        let command = order(&api, &machine.device, &json!({"type": "restart"})).await;
        let cancelled = api
            .post(&format!("/commands/{command}/cancel"), &json!({}))
            .await
            .ok();
        assert_eq!(cancelled["state"], "cancelled");
        api.post(&format!("/commands/{command}/cancel"), &json!({}))
            .await
            .refused(409, "illegal_state");
        machine.start();
        let later = order(&api, &machine.device, &json!({"type": "lock"})).await;
        assert_eq!(ended(&api, &later).await["state"], "done");
        assert!(machine.read("/run/muster/restart-requested").is_none());
        let state = shown(&api, &command).await;
        assert_eq!(
            (&state["state"], &state["attempts"]),
            (&json!("cancelled"), &json!(0))
        );
        api.post(&format!("/commands/{later}/cancel"), &json!({}))
            .await
            .refused(409, "illegal_state");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_a_device_are_executed_in_their_order_and_each_once() {
    const COUNT: usize = 40;
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let mut device = Obedient::enroll(&api, &server.admin).await;
        let mut asked = Vec::new();
        for number in 0..COUNT {
            let body = json!({"type": "lock", "message": format!("{number}")});
            asked.push(order(&api, &device.device.id(), &body).await);
        }
        eventually("all of them end", PATIENCE, async || {
            device.obey().await;
            (device.executed.len() >= COUNT).then_some(())
        })
        .await;
        device.obey().await;
        let messages: Vec<String> = device
            .executed
            .iter()
            .map(|kind| json!(kind)["message"].to_string())
            .collect();
        assert_eq!(
            messages,
            (0..COUNT)
                .map(|number| format!("\"{number}\""))
                .collect::<Vec<_>>()
        );
        assert!(device.refused.is_empty(), "{:?}", device.refused);
        for command in &asked {
            assert_eq!(shown(&api, command).await["state"], "done");
        }
        // The answer to a check-in that is lost brings the same commands once more, and they are not repeated.
        let body = json!({"type": "restart"});
        order(&api, &device.device.id(), &body).await;
        eventually("it is delivered into the void", PATIENCE, async || {
            (!device.ask().await.commands.is_empty()).then_some(())
        })
        .await;
        device.obey().await;
        device.obey().await;
        assert_eq!(device.executed.len(), COUNT + 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_devices_take_one_bulk_command_each() {
    const DEVICES: usize = 6;
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let mut devices = Vec::new();
    for _ in 0..DEVICES {
        devices.push(Obedient::enroll(&api, &server.admin).await);
    }
    let ids: Vec<String> = devices.iter().map(|device| device.device.id()).collect();
    let asked = api
        .post("/commands", &json!({"type": "lock", "devices": ids}))
        .await
        .expect(202);
    assert_eq!(asked["commands"], DEVICES);
    for device in &mut devices {
        eventually("its command comes", PATIENCE, async || {
            device.obey().await;
            (device.executed.len() == 1).then_some(())
        })
        .await;
    }
    let listed = api.list("/commands").await;
    assert!(
        listed
            .iter()
            .all(|command| command["operation_id"] == asked["operation_id"]),
        "{listed:?}"
    );
    assert!(
        listed.iter().all(|command| command["state"] == "done"),
        "{listed:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_never_sees_the_commands_of_another() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let (asked, other) = (
        Device::enroll(&api, &server.admin).await,
        Device::enroll(&api, &server.admin).await,
    );
    order(&api, &asked.id(), &json!({"type": "lock"})).await;
    eventually("the command is delivered", PATIENCE, async || {
        (!asked.checkin().await.commands.is_empty()).then_some(())
    })
    .await;
    for _ in 0..3 {
        assert_eq!(other.checkin().await.commands, []);
    }
    // A body that names the other device is no message of the protocol.
    let answer = other.try_checkin_with("device_id", json!(asked.id())).await;
    answer.refused(400, "malformed");
}
