//! Root documents: made and signed with the command line, published, followed by nodes and devices, and by nothing else.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use muster_model::time::Timestamp;
use muster_trust::{
    dsse::{self, Envelope},
    key::SigningKey,
    root::{PAYLOAD_TYPE, RootDocument},
};
use serde_json::{Value, json};
use tokio::process::Child;

use crate::support::{
    PATIENCE,
    api::Api,
    approvers::{ask_wipe, reaches},
    database::{each_database, on_postgres},
    device::Device,
    eventually,
    machine::{Machine, Relay, ended, order},
    server::{
        AdminFile, Options, Server, assert_healthy, create_tenant, everything, maintain, muster, run_muster,
    },
};

/// How soon every node has a document that another one published.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(5);

/// A server with a folder for the ceremony's files.
struct Office {
    server: Server,
    api: Api,
}

impl Office {
    async fn open(options: Options) -> Office {
        let server = Server::start(options).await;
        let api = server.api().await;
        Office { server, api }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.server.folder().path().join(name)
    }

    /// The root key of the first run.
    fn root_key(&self) -> PathBuf {
        let name = format!("root-key-{}.pem", self.server.admin.tenant);
        self.server.data_dir().join("take-away").join(name)
    }

    /// Runs a line; words that begin with `@` are files of the ceremony, and `ROOT` is the first root key.
    async fn try_line(&self, line: &str) -> Output {
        let word = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.path(name).into_os_string(),
            None if word == "ROOT" => self.root_key().into_os_string(),
            None => word.into(),
        };
        let mut words: Vec<std::ffi::OsString> = line.split_whitespace().map(word).collect();
        words.push("--admin-file".into());
        words.push(self.server.admin_file().into_os_string());
        let mut command = muster();
        command
            .args(words)
            .env("XDG_CONFIG_HOME", self.path("config"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command.output().await.expect("the program muster starts")
    }

    async fn line(&self, line: &str) -> Output {
        let output = self.try_line(line).await;
        assert!(output.status.success(), "{line}: {}", everything(&output));
        output
    }

    async fn refused(&self, line: &str, words: &str) {
        let output = self.try_line(line).await;
        let said = everything(&output);
        assert!(!output.status.success() && said.contains(words), "{line}: {said}");
    }

    async fn version(&self) -> u64 {
        self.root().await["version"].as_u64().expect("a number")
    }

    async fn root(&self) -> Value {
        self.api.get("/root").await.ok()
    }

    /// A document with one more version, changed by the test and signed by these keys.
    async fn offer(&self, change: impl FnOnce(&mut RootDocument), keys: &[&SigningKey]) -> Envelope {
        let mut document: RootDocument =
            serde_json::from_value(self.root().await["document"].clone()).expect("a root document");
        document.version += 1;
        change(&mut document);
        dsse::sign(PAYLOAD_TYPE, &document.to_bytes(), keys).expect("it signs")
    }

    fn first_key(&self) -> SigningKey {
        let pem = std::fs::read_to_string(self.root_key()).expect("the first root key is there");
        SigningKey::from_pkcs8_pem(&pem).expect("it is a key")
    }

    async fn publish(&self, envelope: &Envelope) -> crate::support::api::Answer {
        let body = serde_json::to_value(envelope).expect("JSON");
        self.api.post("/root", &body).await
    }

    /// The details of the entries of an action.
    async fn logged(&self, action: &str) -> Vec<Value> {
        let entries = self
            .api
            .list(&format!("/log/entries?action={action}&limit=500"))
            .await;
        entries.iter().map(|entry| entry["detail"].clone()).collect()
    }
}

/// Puts a new key into the place of the server's action key, on disk. Answers its public half as a file.
fn replace_action_key(office: &Office, data_dir: &Path) {
    let key = SigningKey::generate_ed25519().expect("a key");
    let tenant = &office.server.admin.tenant;
    let path = data_dir.join("keys/tenants").join(tenant).join("action.pem");
    std::fs::write(&path, key.to_pkcs8_pem().expect("PEM").as_bytes()).expect("it can be replaced");
    std::fs::write(office.path("action.pub"), key.public().to_pem()).expect("it can be written");
}

/// The id of the key that signs for a role.
async fn key_of(office: &Office, role: &str) -> String {
    let root = office.root().await;
    root["document"]["roles"][role]["keys"][0]
        .as_str()
        .expect("a role has a key")
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_agent_walks_to_a_new_document_and_obeys_its_keys() {
    each_database(async |options| {
        let office = Office::open(options).await;
        let machine = Machine::running(&office.api, &office.server.admin).await;
        replace_action_key(&office, &office.server.data_dir());
        let old = key_of(&office, "action").await;
        office.line("root fetch --out @root.json").await;
        office
            .line(&format!(
                "root rotate --in @root.json --old {old} --new @action.pub --out @next.json"
            ))
            .await;
        let said = everything(&office.line("root sign --in @next.json --key ROOT --yes").await);
        assert!(
            said.contains("is removed") && said.contains("1 of 1 root keys"),
            "{said}"
        );
        office.line("root publish --in @next.json").await;
        assert_eq!(office.version().await, 2);
        assert_ne!(key_of(&office, "action").await, old);
        eventually("the agent stands at version 2", PATIENCE, async || {
            (machine.status().await["root_version"] == 2).then_some(())
        })
        .await;
        // Signed by the new key: a device that had not walked would refuse it.
        let command = order(
            &office.api,
            &machine.device,
            &json!({"type": "message", "text": "hello"}),
        )
        .await;
        let outcome = ended(&office.api, &command).await;
        assert!(
            ["done", "noop"].contains(&outcome["state"].as_str().unwrap_or_default()),
            "{outcome}"
        );
        let published = office.logged("root.published").await;
        assert_eq!(published.len(), 1);
        assert_eq!(published[0]["version"], 2);
        assert!(
            published[0]["weakens"].to_string().contains("is added"),
            "{published:?}"
        );
        assert_healthy(&office.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_devices_would_not_follow_is_refused() {
    each_database(async |options| {
        let mut office = Office::open(options).await;
        let (own, stranger) = (office.first_key(), SigningKey::generate_ed25519().expect("a key"));
        let wrong = office.offer(|_| {}, &[&stranger]).await;
        office.publish(&wrong).await.refused(422, "root_refused");
        let swapped = office
            .offer(
                |document| {
                    let role = document
                        .roles
                        .get_mut(&muster_trust::root::Role::Root)
                        .expect("a role");
                    role.keys = [stranger.key_id()].into();
                    document.keys.remove(&own.key_id());
                    document.keys.insert(stranger.key_id(), stranger.public().clone());
                },
                &[&stranger],
            )
            .await;
        office.publish(&swapped).await.refused(422, "root_refused");
        let skipped = office.offer(|document| document.version = 3, &[&own]).await;
        office.publish(&skipped).await.refused(409, "conflict");
        let expired = office
            .offer(
                |document| document.expires_at = document.issued_at.plus(Duration::from_micros(1)),
                &[&own],
            )
            .await;
        office.publish(&expired).await.refused(422, "root_refused");
        let statement = dsse::sign("application/vnd.muster.command+json", b"{}", &[&own]).expect("it signs");
        office.publish(&statement).await.refused(422, "root_refused");
        office
            .api
            .post("/root", &json!({"version": 2}))
            .await
            .refused(400, "invalid");
        assert_eq!(office.version().await, 1);
        eventually("every refusal is in the log", PATIENCE, async || {
            (office.logged("root.refused").await.len() == 4).then_some(())
        })
        .await;

        let good = office.offer(|document| document.restore_epoch = 1, &[&own]).await;
        office.publish(&good).await.expect(201);
        office.publish(&good).await.expect(200);
        let forked = office
            .offer(
                |document| {
                    document.version = 2;
                    document.budgets.destructive_per_hour_min = 1;
                },
                &[&own],
            )
            .await;
        office.publish(&forked).await.refused(409, "conflict");
        let back = office.offer(|document| document.restore_epoch = 0, &[&own]).await;
        office.publish(&back).await.refused(422, "root_refused");

        office.server.stop().await;
        let file = create_tenant(&office.server, "other").await;
        office.server.restart().await;
        let made = AdminFile::read(&file);
        let other = AdminFile {
            tenant: made.tenant,
            client_id: made.client_id,
            client_secret: made.client_secret,
            ..office.server.admin.clone()
        };
        office.api = office.server.api().await;
        let next = office.offer(|_| {}, &[&own]).await;
        let body = serde_json::to_value(&next).expect("JSON");
        let theirs = Api::sign_in(&other).await;
        theirs.post("/root", &body).await.refused(422, "root_refused");
        assert_eq!(theirs.get("/root").await.ok()["version"], 1);
        assert_healthy(&office.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_sql_wrote_is_ignored_loudly_and_gives_way() {
    each_database(async |options| {
        let office = Office::open(options).await;
        let stranger = SigningKey::generate_ed25519().expect("a key");
        let forged = office
            .offer(
                |document| document.budgets.destructive_per_hour_min = 1_000_000,
                &[&stranger],
            )
            .await;
        let store = office.server.store().await;
        let tenant = store.id(&office.server.admin.tenant);
        let insert = format!(
            "INSERT INTO secrets_root_document (tenant_id, version, envelope, created_by, created_at) \
             VALUES ({tenant}, 2, {}, 'system muster', 0)",
            store.blob(&forged.to_json())
        );
        assert_eq!(store.execute(&insert).await, 1);
        eventually("the forged row is in the log", PATIENCE, async || {
            (office.logged("root.row_ignored").await.len() == 1).then_some(())
        })
        .await;
        let root = office.root().await;
        assert_eq!(root["version"], 1);
        assert!(root["warnings"].to_string().contains("does not verify"), "{root}");
        let metrics = reqwest::get(format!("{}/metrics", office.server.admin.ops_url)).await;
        let metrics = metrics.expect("it answers").text().await.expect("text");
        assert!(metrics.contains("mdm_root_document_rows_ignored 1"), "{metrics}");
        let doctor = maintain(&office.server, &["doctor"]).await;
        assert!(!doctor.status.success(), "{}", everything(&doctor));
        assert!(everything(&doctor).contains("BAD"), "{}", everything(&doctor));

        // It keeps no proper document out.
        office
            .line("root set-budget --per-hour 3 --sign-with ROOT --publish --yes")
            .await;
        let root = office.root().await;
        assert_eq!((&root["version"], &root["warnings"]), (&json!(2), &json!([])));
        assert_eq!(root["document"]["budgets"]["destructive_per_hour_min"], 3);
        let published = eventually("the publication is in the log", PATIENCE, async || {
            office.logged("root.published").await.into_iter().next()
        })
        .await;
        assert!(published["replaced_row_sha256"].is_string(), "{published}");
        assert_healthy(&office.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_follows_and_a_database_that_went_back_takes_nobody_back() {
    on_postgres(async |options| {
        let office = Office::open(options).await;
        let second = office.server.second_node().await;
        let there = second.api().await;
        let begun = Instant::now();
        office.line("root renew --sign-with ROOT --publish --yes").await;
        eventually(
            "the second node stands at version 2",
            FOLLOWED_WITHIN,
            async || (there.get("/root").await.ok()["version"] == 2).then_some(()),
        )
        .await;
        println!("command line, publication and second node: {:?}", begun.elapsed());
    })
    .await;
    each_database(async |options| {
        let mut office = Office::open(options).await;
        office.line("root renew --sign-with ROOT --publish --yes").await;
        assert_eq!(office.version().await, 2);
        office.server.stop().await;
        let store = office.server.store().await;
        assert_eq!(store.execute("DELETE FROM secrets_root_document").await, 1);
        drop(store);
        office.server.restart().await;
        office.api = office.server.api().await;
        assert_eq!(office.version().await, 2);
        eventually("the row is back", PATIENCE, async || {
            (office.logged("root.put_back").await.len() == 1).then_some(())
        })
        .await;
        assert_healthy(&office.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_root_key_is_rotated_out_by_the_others() {
    each_database(async |options| {
        let office = Office::open(options).await;
        std::fs::write(office.path("passphrase"), "correct horse battery\n").expect("written");
        office.line("root fetch --out @root.json").await;
        std::fs::create_dir(office.path("stick")).expect("a folder");
        office
            .line(
                "root init --in @root.json --keys 3 --threshold 2 --keys-out @stick --passphrase-file @passphrase --sign-with \
                 ROOT --out @next.json --yes",
            )
            .await;
        office.line("root publish --in @next.json").await;
        let root = office.root().await;
        assert_eq!(root["document"]["roles"]["root"]["threshold"], 2);
        // The key of the first run is worth nothing any more.
        let old = office.first_key();
        let alone = office.offer(|_| {}, &[&old]).await;
        office.publish(&alone).await.refused(422, "root_refused");

        // Key 1 is lost: the two others name a new one.
        let lost = office.path("stick/root-key-1-of-3.pem");
        let lost_id = {
            let output = office
                .line(&format!(
                    "key show {} --passphrase-file @passphrase -o json",
                    lost.display()
                ))
                .await;
            let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            shown["key_id"].as_str().expect("an id").to_owned()
        };
        std::fs::remove_file(&lost).expect("it is lost");
        office
            .line("key generate --role root --out @stick/root-key-4.pem --no-passphrase")
            .await;
        office
            .line("key show @stick/root-key-4.pem --public-out @root-key-4.pub")
            .await;
        office.line("root fetch --out @root.json").await;
        office
            .line(&format!(
                "root rotate --in @root.json --old {lost_id} --new @root-key-4.pub --out @next.json"
            ))
            .await;
        let sign = "root sign --in @next.json --passphrase-file @passphrase --yes --key";
        office.line(&format!("{sign} @stick/root-key-2-of-3.pem")).await;
        office
            .refused("root publish --in @next.json", "1 of 2 root keys of version 2")
            .await;
        office.line(&format!("{sign} @stick/root-key-3-of-3.pem")).await;
        office.line("root publish --in @next.json").await;
        let root = office.root().await;
        assert_eq!(root["version"], 3);
        assert!(!root["document"]["keys"].to_string().contains(&lost_id));
        assert_healthy(&office.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn approvers_are_named_in_a_ceremony_and_one_alone_is_said() {
    let office = Office::open(Options::default()).await;
    for person in ["ada", "bob"] {
        office
            .line(&format!(
                "approver init --person {person} --out @{person}.pem --no-passphrase"
            ))
            .await;
        let again = format!("approver init --person {person} --out @{person}.pem --no-passphrase");
        office.refused(&again, "exists").await;
    }
    office.line("root fetch --out @root.json").await;
    office
        .refused(
            "root add-approver --in @root.json --person Ada --key @ada.pem --out @next.json",
            "private key",
        )
        .await;
    let add = |person: &str, from: &str| {
        format!(
            "root add-approver --in @{from}.json --person {person} --key @{person}.pub --account {person} --out @next.json"
        )
    };
    office.line(&add("ada", "root")).await;
    let said = everything(&office.line(&add("bob", "next")).await);
    assert!(said.contains("2 people must approve"), "{said}");
    // Without a terminal, nobody can be asked.
    office
        .refused("root sign --in @next.json --key ROOT", "--yes")
        .await;
    office.line("root sign --in @next.json --key ROOT --yes").await;
    office.line("root verify --in @next.json").await;
    office.line("root publish --in @next.json").await;
    let root = office.root().await;
    assert_eq!(root["document"]["roles"]["approver"]["threshold"], 2);
    let shown = everything(&office.line("root show").await);
    assert!(shown.contains("ada") && shown.contains("bob"), "{shown}");

    office
        .line("root set-threshold --role approver --threshold 1 --sign-with ROOT --publish --yes")
        .await;
    eventually("what weakens is in the log", PATIENCE, async || {
        let published = office.logged("root.published").await;
        let newest = published.last()?;
        newest["weakens"].to_string().contains("m = 1").then_some(())
    })
    .await;
    // A file that somebody changed is refused before it is signed.
    let text = std::fs::read_to_string(office.path("next.json")).expect("it is there");
    let mut value: Value = serde_json::from_str(&text).expect("JSON");
    value["next"]["payload"] = value["items"][0]["payload"].clone();
    std::fs::write(office.path("next.json"), value.to_string()).expect("written");
    office.refused("root verify --in @next.json", "wrong").await;
    assert_healthy(&office.server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_approve_from_their_own_machines() {
    each_database(async |options| {
        let office = Office::open(options).await;
        let device = Device::enroll(&office.api, &office.server.admin).await;
        let mut from = "";
        for person in ["ada", "bob"] {
            office
                .line(&format!("approver init --person {person} --out @{person}.pem --no-passphrase"))
                .await;
            office
                .line(&format!(
                    "root add-approver {from} --person {person} --key @{person}.pub --account {person} --out @next.json"
                ))
                .await;
            from = "--in @next.json";
        }
        office
            .line("root set-approval --in @next.json --cool-down 0s --delay 0s --out @next.json")
            .await;
        office.line("root sign --in @next.json --key ROOT --yes").await;
        office.line("root publish --in @next.json").await;
        let operation = ask_wipe(&office.api, &device.id()).await;
        let listed = everything(&office.line("approver list").await);
        assert!(listed.contains(&operation), "{listed}");
        let shown = everything(&office.line(&format!("approver show {operation}")).await);
        assert!(shown.contains("1 devices verified") && shown.contains(&device.id()), "{shown}");
        office
            .line(&format!("approver approve {operation} --key @ada.pem --yes"))
            .await;
        // The second one never meets the network.
        office
            .line(&format!("approver show {operation} --out @request.json"))
            .await;
        office
            .line("approver approve --request @request.json --key @bob.pem --out @approval.json --yes")
            .await;
        let said = everything(&office.line("approver send @approval.json").await);
        assert!(said.contains("2 of 2 people"), "{said}");
        // Its only command is made at once, for a device that is not there to take it.
        reaches(&office.api, &operation, "completed").await;
        // A list that somebody changed on the way.
        let text = std::fs::read_to_string(office.path("request.json")).expect("it is there");
        let mut request: Value = serde_json::from_str(&text).expect("JSON");
        request["targets"][0]["epoch"] = json!(2);
        std::fs::write(office.path("request.json"), request.to_string()).expect("written");
        office
            .refused(
                "approver approve --request @request.json --key @ada.pem --out @approval.json --yes",
                "do not approve",
            )
            .await;
        office.line(&format!("operation show {operation}")).await;
        office.line(&format!("operation targets {operation}")).await;
        office.line("halt --reason test").await;
        let halted = everything(&office.line("halt show").await);
        assert!(halted.contains("test"), "{halted}");
        office.line("halt lift --reason over --yes").await;
        office
            .line(&format!("operation cancel {operation} --reason enough --yes"))
            .await;
        let shown = office.api.get(&format!("/operations/{operation}")).await.ok();
        assert_eq!(shown["state"], "cancelled", "{shown}");
    })
    .await;
}

/// Simulated devices on the wire.
fn farm(server: &Server, devices: usize) -> Child {
    muster()
        .args([
            "farm",
            "--seed",
            "5",
            "--fail-rate",
            "0",
            "--devices",
            &devices.to_string(),
        ])
        .arg("--admin-file")
        .arg(server.admin_file())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("the farm starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_farm_walks_to_a_new_document() {
    const DEVICES: usize = 8;
    let office = Office::open(Options::default()).await;
    let _farm = farm(&office.server, DEVICES);
    let devices = eventually("every device is enrolled", PATIENCE * 2, async || {
        let devices = office.api.list("/devices?filter=state%3Aactive&limit=500").await;
        (devices.len() == DEVICES).then_some(devices)
    })
    .await;
    replace_action_key(&office, &office.server.data_dir());
    let old = key_of(&office, "action").await;
    office
        .line(&format!(
            "root rotate --old {old} --new @action.pub --sign-with ROOT --publish --yes"
        ))
        .await;
    for device in devices.iter().take(3) {
        let id = device["id"].as_str().expect("an id is text");
        let command = order(&office.api, id, &json!({"type": "message", "text": "hello"})).await;
        let outcome = ended(&office.api, &command).await;
        assert!(
            ["done", "noop"].contains(&outcome["state"].as_str().unwrap_or_default()),
            "{outcome}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_devices_follow_with_a_new_restore_epoch_alone() {
    let mut office = Office::open(Options::default()).await;
    let relay = Relay::to(&office.server.admin).await;
    let mut machine = Machine::running(&office.api, &relay.in_front_of(&office.server.admin)).await;
    let message = json!({"type": "message", "text": "hello"});
    let command = order(&office.api, &machine.device, &message).await;
    ended(&office.api, &command).await;
    machine.stop().await;
    office.server.stop().await;
    let database = office.server.data_dir().join("muster.db");
    std::fs::copy(&database, office.path("backup.db")).expect("it can be copied");
    office.server.restart().await;
    relay.point(&office.server.admin);
    office.api = office.server.api().await;
    machine.start();
    // What the backup does not have.
    let lost = order(&office.api, &machine.device, &message).await;
    ended(&office.api, &lost).await;

    office.server.stop().await;
    for name in ["muster.db", "muster.db-wal", "muster.db-shm"] {
        let _ = std::fs::remove_file(office.server.data_dir().join(name));
    }
    std::fs::copy(office.path("backup.db"), &database).expect("it can be copied");
    office.server.restart().await;
    relay.point(&office.server.admin);
    office.api = office.server.api().await;
    office
        .line("root begin-restore --sign-with ROOT --publish --yes")
        .await;
    assert_eq!(office.root().await["restore_epoch"], 1);
    eventually("the agent stands at version 2", PATIENCE, async || {
        (machine.status().await["root_version"] == 2).then_some(())
    })
    .await;
    let policy = json!({"firewall.enabled": true});
    crate::support::machine::activate(&office.api, "after", "1", &policy).await;
    crate::support::machine::reported(&office.api, &machine.device, "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_holds_every_scope_of_before_holds_the_new_ones() {
    let office = Office::open(Options::default()).await;
    let reader = office.api.client_with("reader", &["root:read"]).await;
    assert_eq!(reader.get("/root").await.ok()["version"], 1);
    reader
        .post("/root", &json!({}))
        .await
        .refused(403, "insufficient_scope");
    let output = run_muster(["root", "verify", "--in", "/dev/null"]).await;
    assert!(!output.status.success());
    let made: Timestamp = office.root().await["issued_at"]
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("a time");
    assert!(made > Timestamp::from_unix_seconds(0));
}
