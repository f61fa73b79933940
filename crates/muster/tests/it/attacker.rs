//! An attacker holds a full admin session and can write the database: how many devices can he wipe? None.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use muster_channel_agent::checkin::CheckinResponse;
use muster_trust::{
    approval::{ApprovedBatch, TargetList},
    dsse,
    encoding::to_base64,
    key::SigningKey,
    root::{Role, RoleKeys, RootDocument},
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    PATIENCE,
    api::Api,
    approvers::{approve, approver, ask_wipe, batch_of, command_of, hand_in, root_documents, two_of},
    database::{Store, each_database},
    device::{Obedient, logged},
    eventually,
    machine::{Machine, ended, order},
    server::{Options, Server, everything, maintain, muster},
    variable,
};

/// Simulated devices that must not wipe, unless the variable says otherwise.
const DEVICES: u32 = 60;
const DEVICES_VARIABLE: &str = "MUSTER_TEST_ATTACKED_DEVICES";
const LETTER: &str = "/home/ada/letter";

/// What was tried, what came of it, and which alarm told of it after how long.
#[derive(Default)]
struct Table(Vec<[String; 3]>);

impl Table {
    /// The answer itself says it.
    fn row(&mut self, tried: &str, came: impl Into<String>) {
        self.alarmed(tried, came, "the refusal itself");
    }

    fn alarmed(&mut self, tried: &str, came: impl Into<String>, alarm: impl Into<String>) {
        self.0.push([tried.to_owned(), came.into(), alarm.into()]);
    }
}

/// A fleet of simulated devices in a process of its own.
struct Fleet {
    child: tokio::process::Child,
    output: std::path::PathBuf,
}

impl Fleet {
    async fn start(server: &Server, api: &Api, devices: u32) -> Fleet {
        let output = server.folder().path().join("farm.json");
        let file = std::fs::File::create(&output).expect("a file can be made");
        let child = muster()
            .args([
                "farm",
                "--json",
                "--fail-rate",
                "0",
                "--seed",
                "7",
                "--admin-file",
            ])
            .arg(server.admin_file())
            .args(["--devices", &devices.to_string()])
            .stdout(file)
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("the farm starts");
        // Three devices a second at least, on a busy machine.
        let patience = (PATIENCE * 4).max(Duration::from_millis(u64::from(devices) * 300));
        eventually("the fleet is there", patience, async || {
            let enrolled = api.list("/devices?limit=500").await.len();
            (enrolled >= devices as usize).then_some(())
        })
        .await;
        Fleet { child, output }
    }

    /// Ends the fleet; answers its summary.
    async fn end(mut self) -> Value {
        let id = self.child.id().expect("it runs").to_string();
        let id: i32 = id.parse().expect("a process id");
        let pid = rustix::process::Pid::from_raw(id).expect("a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it can be asked to end");
        tokio::time::timeout(Duration::from_secs(30), self.child.wait())
            .await
            .expect("the farm ends")
            .expect("its status can be read");
        let text = std::fs::read_to_string(&self.output).expect("it has written");
        serde_json::from_str(text.lines().last().expect("a summary")).expect("it is JSON")
    }
}

/// Everything that the attacker does, against this device and the whole fleet.
struct Attack<'a> {
    api: &'a Api,
    store: &'a Store,
    server: &'a Server,
    /// The real agent's device.
    device: &'a str,
    /// Keys of his own.
    own: [SigningKey; 2],
    table: Table,
}

impl Attack<'_> {
    /// Waits until the log names an object; answers the action and how long it took.
    async fn alarm(&self, action: &str, object: &str, since: Instant) -> String {
        eventually(&format!("{action} tells of {object}"), PATIENCE, async || {
            let path = format!("/log/entries?action={action}&object={object}&limit=1");
            (!self.api.list(&path).await.is_empty()).then_some(())
        })
        .await;
        format!("{action} after {:.1} s", since.elapsed().as_secs_f64())
    }

    /// Every way to ask by the API: nothing is delivered without approvals, and his own do not count.
    async fn by_the_api(&mut self) {
        let api = self.api;
        let mut operations = vec![ask_wipe(api, self.device).await];
        for body in [
            json!({"type": "wipe", "mode": "full", "filter": "state:active"}),
            json!({"type": "unenroll", "filter": "platform:linux"}),
            json!({"type": "wipe", "mode": "enterprise", "devices": [self.device]}),
        ] {
            let asked = api.post("/commands", &body).await.expect(202);
            assert_eq!(asked["state"], "awaiting_approval", "{asked}");
            operations.push(asked["operation_id"].as_str().expect("an id").to_owned());
        }
        self.table.row(
            "wipe and unenroll by REST: one, a list, a filter",
            "awaiting approval",
        );
        for operation in &operations {
            for key in &self.own {
                approve(api, operation, key)
                    .await
                    .refused(403, "approver_refused");
            }
            api.post(&format!("/operations/{operation}/release"), &json!({}))
                .await
                .refused(409, "illegal_state");
        }
        self.table.row(
            "approving with keys of his own; releasing what awaits approval",
            "refused",
        );
        let fresh = api
            .client_with(
                "accomplice",
                &["command:read", "command:write", "command:wipe", "approval:write"],
            )
            .await;
        let path = format!("/devices/{}/commands", self.device);
        fresh
            .post(&path, &json!({"type": "wipe", "mode": "full"}))
            .await
            .expect(202);
        self.table.row(
            "a second account (no cool-down in this tenant)",
            "awaiting approval",
        );
        for body in [
            json!({"type": "wipe", "mode": "full", "state": "queued"}),
            json!({"type": "wipe", "mode": "full", "approved": true}),
        ] {
            api.post(&path, &body).await.refused(400, "invalid");
        }
        self.table
            .row("members that no request has (state, approved)", "refused");
    }

    /// Rows that say that it was approved, and one that asks to be signed anew.
    async fn by_rows(&mut self) {
        let (api, store) = (self.api, self.store);
        let lock = order(api, self.device, &json!({"type": "lock", "message": "bait"})).await;
        ended(api, &lock).await;
        let wipe = ("wipe", r#"{"type":"wipe","mode":"full"}"#);
        let off = ("shut-down", r#"{"type":"shut-down"}"#);
        for (what, sequence, (kind, arguments), extra) in [
            ("a queued wipe with a lock's envelope", 1000, wipe, "NULL, NULL"),
            ("the same, released and of an operation", 1001, wipe, "0, 1"),
            (
                "a wipe that the device has overtaken, to be signed anew",
                0,
                wipe,
                "NULL, NULL",
            ),
            ("a shutdown that the device has overtaken", 0, off, "NULL, NULL"),
        ] {
            let id = Uuid::new_v4();
            let sql = format!(
                "INSERT INTO commands_command (tenant_id, command_id, operation_id, device_id, epoch, sequence, kind, \
                 arguments, state, envelope, entry_id, created_by, created_at, expires_at, attempts, position, \
                 released_at) SELECT tenant_id, {}, operation_id, device_id, epoch, {sequence}, '{kind}', '{arguments}', \
                 'queued', envelope, entry_id, created_by, created_at, expires_at, 0, {extra} FROM commands_command \
                 WHERE command_id = {}",
                store.uuid(id),
                store.id(&lock),
            );
            assert_eq!(store.execute(&sql).await, 1, "{what}");
            let since = Instant::now();
            // Whatever makes the device come by.
            let told = json!({"type": "message", "text": "All is well."});
            ended(api, &order(api, self.device, &told).await).await;
            let command = format!("cmd_{}", id.simple());
            let alarm = self.alarm("security.row_edited", &command, since).await;
            let row = store
                .value(&format!(
                    "SELECT sequence FROM commands_command WHERE command_id = {}",
                    store.uuid(id)
                ))
                .await;
            assert_eq!(row.integer(), sequence, "{what}: it is not signed");
            // The numbers of a lane are unique.
            if sequence == 0 {
                let id = store.uuid(id);
                store
                    .execute(&format!("DELETE FROM commands_command WHERE command_id = {id}"))
                    .await;
            }
            self.table
                .alarmed(&format!("INSERT: {what}"), "not delivered, not signed", alarm);
        }
        let operation = ask_wipe(api, self.device).await;
        let id = store.uuid(Uuid::parse_str(&operation).expect("a UUID"));
        let batch = batch_of(api, &operation).await;
        let forged: Vec<Value> = self
            .own
            .iter()
            .map(|key| {
                json!({"person": "Ada", "at": "2026-01-01T00:00:00Z", "approval": batch.approve(key).expect("signs")})
            })
            .collect();
        // What stops it is said once, so the word is taken away before each.
        for (what, set) in [
            ("it runs", "state = 'running', next_at = 1".to_owned()),
            (
                "approvals by keys of his own",
                format!("approvals = '{}', state = 'running', next_at = 1", json!(forged)),
            ),
            (
                "no batch at all",
                "batch = NULL, batch_sha256 = NULL, approvals = NULL, state = 'running', next_at = 1"
                    .to_owned(),
            ),
        ] {
            let sql =
                format!("UPDATE commands_operation SET {set}, because = NULL WHERE operation_id = {id}");
            assert_eq!(store.execute(&sql).await, 1, "{what}");
            tokio::time::sleep(Duration::from_millis(1500)).await;
            let shown = api.get(&format!("/operations/{operation}")).await.ok();
            let because = shown["because"]
                .as_str()
                .unwrap_or("it is tried again and again")
                .to_owned();
            self.table.alarmed(
                &format!("UPDATE of an operation: {what}"),
                "no command is made",
                format!("the operation says: {because}"),
            );
        }
        let made = store
            .value(&format!(
                "SELECT COUNT(*) FROM commands_command WHERE operation_id = {id}"
            ))
            .await;
        assert_eq!(made.integer(), 0);
        // He has no wish to be found: an operation that cannot go on is tried over and over otherwise.
        store
            .execute(&format!(
                "DELETE FROM commands_operation WHERE operation_id = {id}"
            ))
            .await;
    }

    /// A real approval of one device, bent to others.
    async fn by_a_real_approval(&mut self, people: &[SigningKey], victims: &[String]) {
        let (api, store) = (self.api, self.store);
        self.by_a_swapped_statement(people, victims).await;
        self.by_an_approval_that_was_taken_back(people, &victims[0]).await;
        // Halted, so that there is time between approval and release.
        api.post("/halt", &json!({"reason": "time"})).await.ok();
        let operation = ask_wipe(api, &victims[0]).await;
        approve(api, &operation, &people[0]).await.ok();
        approve(api, &operation, &people[1]).await.ok();
        let id = store.uuid(Uuid::parse_str(&operation).expect("a UUID"));
        let mut target = store_uuid_bytes(&victims[1]);
        target.extend_from_slice(&1_u32.to_be_bytes());
        let sql = format!(
            "UPDATE commands_target SET targets = {} WHERE operation_id = {id}",
            store.blob(&target)
        );
        assert_eq!(store.execute(&sql).await, 1);
        api.post("/halt/lift", &json!({})).await.ok();
        let stopped = eventually("it is stopped", PATIENCE, async || {
            let shown = api.get(&format!("/operations/{operation}")).await.ok();
            let because = shown["because"].as_str().unwrap_or_default().to_owned();
            because.contains("edited").then_some(shown)
        })
        .await;
        assert_eq!(stopped["released"], Value::Null);
        self.table.row(
            "UPDATE of the list between approval and release",
            "not released; said so",
        );
        let other = ask_wipe(api, &victims[1]).await;
        let batch = batch_of(api, &operation).await;
        let stolen = batch.approve(&people[0]).expect("signs");
        hand_in(api, &other, &stolen)
            .await
            .refused(403, "approver_refused");
        self.table.row("a real approval of another request", "refused");
        for operation in [operation, other] {
            api.post(&format!("/operations/{operation}/cancel"), &json!({}))
                .await
                .ok();
        }
    }

    /// People are shown a message to one device, and the statement that they would sign wipes two.
    async fn by_a_swapped_statement(&mut self, people: &[SigningKey], victims: &[String]) {
        let (api, store) = (self.api, self.store);
        let operation = ask_wipe(api, &victims[0]).await;
        let id = store.uuid(Uuid::parse_str(&operation).expect("a UUID"));
        let mut statement = batch_of(api, &operation).await.read().expect("it is a statement");
        let list = TargetList::new(victims.iter().map(|victim| (victim.parse().expect("an id"), 1)));
        (statement.count, statement.targets_root) = (list.count(), list.root());
        let forged = ApprovedBatch::new(&statement).expect("it is a statement");
        let sql = format!(
            "UPDATE commands_operation SET batch = {}, batch_sha256 = {} WHERE operation_id = {id}",
            store.blob(&forged.payload),
            store.blob(forged.sha256().as_bytes()),
        );
        assert_eq!(store.execute(&sql).await, 1);
        let since = Instant::now();
        approve(api, &operation, &people[0])
            .await
            .refused(409, "row_edited");
        let alarm = self.alarm("security.row_edited", &operation, since).await;
        self.table.alarmed(
            "UPDATE of what people sign, not of what they read",
            "nobody can sign it",
            alarm,
        );
        api.post(&format!("/operations/{operation}/cancel"), &json!({}))
            .await
            .ok();
    }

    /// People approved it and took it back: the word of its state is set again.
    async fn by_an_approval_that_was_taken_back(&mut self, people: &[SigningKey], victim: &str) {
        let (api, store) = (self.api, self.store);
        api.post("/halt", &json!({"reason": "time"})).await.ok();
        let operation = ask_wipe(api, victim).await;
        for key in people {
            approve(api, &operation, key).await.ok();
        }
        api.post(&format!("/operations/{operation}/cancel"), &json!({}))
            .await
            .ok();
        api.post("/halt/lift", &json!({})).await.ok();
        let id = store.uuid(Uuid::parse_str(&operation).expect("a UUID"));
        let sql = format!(
            "UPDATE commands_operation SET state = 'running', next_at = 1, ended_at = NULL WHERE operation_id = {id}"
        );
        assert_eq!(store.execute(&sql).await, 1);
        let since = Instant::now();
        let alarm = self.alarm("operation.stopped", &operation, since).await;
        let made = store
            .value(&format!(
                "SELECT COUNT(*) FROM commands_command WHERE operation_id = {id}"
            ))
            .await;
        assert_eq!(made.integer(), 0);
        self.table
            .alarmed("UPDATE that revives what people took back", "not released", alarm);
        store
            .execute(&format!(
                "DELETE FROM commands_operation WHERE operation_id = {id}"
            ))
            .await;
    }

    /// What a device says to a real wipe of another, to a forged one by the server's own keys, and to a replay.
    async fn at_the_device(&mut self, people: &[SigningKey]) {
        let api = self.api;
        let mut first = Obedient::enroll(api, &self.server.admin).await;
        let mut second = Obedient::enroll(api, &self.server.admin).await;
        let operation = ask_wipe(api, &first.device.id()).await;
        approve(api, &operation, &people[0]).await.ok();
        approve(api, &operation, &people[1]).await.ok();
        let told = json!({"type": "message", "text": "All is well."});
        order(api, &second.device.id(), &told).await;
        // Both are handed something under the same head of the log, so that proofs for one are good for the other.
        let (answer, own) = eventually("the wipe comes, and the message", PATIENCE, async || {
            let (answer, own) = (first.ask().await, second.ask().await);
            let head = |answer: &CheckinResponse| Some(answer.commands.first()?.proof.tree_size);
            (head(&answer).is_some() && head(&answer) == head(&own)).then_some((answer, own))
        })
        .await;
        let mut handed = own.clone();
        handed.commands.clone_from(&answer.commands);
        let actions = second.take(&handed);
        second.perform(actions).await;
        assert!(second.executed.is_empty() && !second.refused.is_empty());
        self.table.row(
            "a real wipe handed to another device",
            second.refused[0].code.clone(),
        );
        // With the action key of the server, which a database does not hold.
        let path = format!("keys/tenants/{}/action.pem", self.server.admin.tenant);
        let action = std::fs::read_to_string(self.server.data_dir().join(path)).expect("the key is there");
        let action = SigningKey::from_pkcs8_pem(&action).expect("it is a key");
        let mut forged = handed.clone();
        forged.checkpoint = None;
        for due in &mut forged.commands {
            let mut statement: Value = serde_json::from_slice(&due.envelope.payload).expect("JSON");
            statement["device_id"] = json!(second.device.id());
            statement["command_id"] = json!(format!("cmd_{}", Uuid::new_v4().simple()));
            statement["sequence"] = json!(77);
            let payload = statement.to_string().into_bytes();
            due.envelope =
                dsse::sign(&due.envelope.payload_type.clone(), &payload, &[&action]).expect("signs");
        }
        let actions = second.take(&forged);
        second.perform(actions).await;
        assert!(second.executed.is_empty());
        let code = second.refused.last().expect("it refuses").code.clone();
        self.table
            .row("the same, signed anew with the stolen action key", code);
        let actions = first.take(&answer);
        first.perform(actions).await;
        let actions = first.take(&answer);
        first.perform(actions).await;
        assert_eq!(first.executed.len(), 1, "the approved one is carried out once");
        first.obey().await;
        assert_eq!(ended(api, &command_of(&operation)).await["state"], "done");
        self.table
            .row("the approved wipe, handed out again", "carried out once");
    }

    /// A root document that names him, by keys that the server has.
    async fn by_the_root(&mut self) {
        let (root, envelopes) = root_documents(self.server);
        let mut next = root.clone();
        next.version += 1;
        for key in &self.own {
            next.keys.insert(key.key_id(), key.public().clone());
            next.approvers.insert(key.key_id(), approver("Mallory", &[]));
        }
        let role = RoleKeys {
            keys: next.approvers.keys().copied().collect(),
            threshold: 1,
        };
        next.roles.insert(Role::Approver, role);
        for key in ["action", "policy", "log"] {
            let path = format!("keys/tenants/{}/{key}.pem", self.server.admin.tenant);
            let text = std::fs::read_to_string(self.server.data_dir().join(path)).expect("the key is there");
            let signer = SigningKey::from_pkcs8_pem(&text).expect("it is a key");
            let envelope = next.sign(&[&signer]).expect("it can be signed");
            assert!(RootDocument::verify_next(&root, &envelope).is_err(), "{key}");
        }
        assert!(envelopes.len() >= 2);
        self.table.row(
            "a root document that names him, by each key of the server",
            "refused by every device",
        );
    }
}

fn store_uuid_bytes(device: &str) -> Vec<u8> {
    let digits = device.strip_prefix("dev_").expect("a device's id");
    Uuid::parse_str(digits).expect("a UUID").as_bytes().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn m1_m4_m5_full_admin_and_database_write_wipes_nobody() {
    let devices: u32 = variable(DEVICES_VARIABLE).map_or(DEVICES, |text| text.parse().expect("a number"));
    each_database(async |options: Options| {
        let mut server = Server::start(options).await;
        let people = two_of(&mut server, &["Ada", "Grace"]).await;
        let api = server.api().await;
        let mut machine = Machine::running(&api, &server.admin).await;
        machine.write(LETTER, "kept");
        let fleet = Fleet::start(&server, &api, devices).await;
        let store = server.store().await;
        let victims: Vec<String> = api
            .list("/devices?limit=500")
            .await
            .iter()
            .filter_map(|device| device["id"].as_str())
            .filter(|id| *id != machine.device)
            .take(2)
            .map(str::to_owned)
            .collect();
        let own = [(); 2].map(|()| SigningKey::generate_ed25519().expect("a key can be made"));
        let mut attack = Attack {
            api: &api,
            store: &store,
            server: &server,
            device: &machine.device,
            own,
            table: Table::default(),
        };
        // The rows first: whoever asks something of a thousand devices has everything held that is not harmless.
        attack.by_rows().await;
        attack.by_the_api().await;
        attack.by_a_real_approval(&people, &victims).await;
        attack.at_the_device(&people).await;
        attack.by_the_root().await;
        let table = attack.table;
        // Whatever was put there: every device comes by once more.
        let message = json!({"type": "message", "text": "All is well.", "filter": "state:active"});
        api.post("/commands", &message).await.expect(202);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(machine.read(LETTER).as_deref(), Some("kept"));
        assert!(machine.runs());
        assert_eq!(machine.logged("kind=\"wipe\""), 0, "{}", machine.log());
        let summary = fleet.end().await;
        assert_eq!(summary["wiped"], 0, "{summary}");
        logged(&api, "operation.stopped", 1).await;
        let doctor = maintain(&server, &["doctor"]).await;
        assert_eq!(doctor.status.code(), Some(1), "{}", everything(&doctor));
        for [tried, came, alarm] in &table.0 {
            println!("{tried:<64} | 0 of {devices} wiped | {came} | {alarm}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_batch_says_the_same_to_everybody_who_signs() {
    let mut server = Server::start(Options::default()).await;
    let people = two_of(&mut server, &["Ada", "Grace"]).await;
    let api = server.api().await;
    let device = Obedient::enroll(&api, &server.admin).await;
    let operation = ask_wipe(&api, &device.device.id()).await;
    let batch: ApprovedBatch = batch_of(&api, &operation).await;
    let shown = api.get(&format!("/operations/{operation}")).await.ok();
    assert_eq!(shown["approval"]["payload"], to_base64(&batch.payload));
    assert_eq!(shown["approval"]["sha256"], batch.sha256().to_string());
    let statement = batch.read().expect("it is a statement");
    assert_eq!(
        (statement.count, statement.reason.map(|why| why.to_string())),
        (1, Some("stolen".into()))
    );
    approve(&api, &operation, &people[0]).await.ok();
}
