//! L1 and M14: secrets that were planted on purpose, and everything that server, agent and command line say meanwhile.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    log_archive::archived,
    log_tamper::all_placed,
    support::{
        PATIENCE,
        api::{Answer, Api, answer},
        approvers::{ask_wipe, two_of},
        database::{each_database, on_postgres},
        device::{Applicant, Device, Door, logged},
        eventually,
        machine::{Machine, activate, ended, order, reported},
        server::{
            Options, Server, assert_healthy, everything, maintain, muster, run_muster, serve_arguments,
        },
    },
};

/// Parts of secrets that stand for themselves: long enough to be nothing else.
const CANARY_CHARS_MIN: usize = 12;

/// Secrets, by what they are.
#[derive(Default)]
struct Canaries(Vec<(String, Vec<u8>)>);

impl Canaries {
    fn plant(&mut self, what: &str, secret: &str) {
        assert!(
            secret.len() >= CANARY_CHARS_MIN,
            "{what} is too short to be looked for"
        );
        self.0.push((what.to_owned(), secret.as_bytes().to_vec()));
    }

    /// What only the holder of a JWT has: its signature.
    fn plant_token(&mut self, what: &str, token: &str) {
        let signature = token.trim().rsplit('.').next().expect("a token has a signature");
        self.plant(what, signature);
    }

    /// Every private key beneath a folder, by a line of its body.
    fn plant_keys(&mut self, folder: &Path) {
        let before = self.0.len();
        for path in files(folder) {
            let text = String::from_utf8_lossy(&fs::read(&path).expect("it can be read")).into_owned();
            let mut in_key = false;
            for line in text.lines() {
                in_key = (in_key || line.contains("PRIVATE KEY")) && !line.contains("END");
                // The first line of a PKCS#8 key says what kind of key it is, as in every other.
                if in_key && !line.starts_with('-') && line.len() >= CANARY_CHARS_MIN {
                    let tail = &line[line.len() - CANARY_CHARS_MIN..];
                    self.plant(&path.display().to_string(), tail);
                }
            }
        }
        assert!(self.0.len() > before, "{} holds keys", folder.display());
    }

    fn found_in(&self, bytes: &[u8]) -> Vec<&str> {
        let holds = |secret: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
        let found = self.0.iter().filter(|(_, secret)| holds(secret));
        found.map(|(what, _)| what.as_str()).collect()
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            if path.is_dir() {
                folders.push(path)
            } else {
                found.push(path)
            }
        }
    }
    found
}

/// What was said, by who said it.
#[derive(Default)]
struct Said(Vec<(String, Vec<u8>)>);

impl Said {
    fn hear(&mut self, who: impl Into<String>, what: impl Into<Vec<u8>>) {
        self.0.push((who.into(), what.into()));
    }

    fn hear_output(&mut self, who: &str, output: &Output) {
        self.hear(who, everything(output));
    }

    /// Asserts that no canary was said, and that `known` was said by whoever should know it: the search finds what is there.
    fn is_clean(&self, canaries: &Canaries) {
        for (who, what) in &self.0 {
            assert!(!what.is_empty(), "{who} said nothing");
            let found = canaries.found_in(what);
            assert!(found.is_empty(), "{who} said {found:?}");
        }
    }

    fn has(&self, who: &str, known: &str) {
        let heard = self.0.iter().filter(|(name, _)| name == who);
        let mut texts = heard.map(|(_, what)| String::from_utf8_lossy(what));
        assert!(
            texts.any(|text| text.contains(known)),
            "{who} did not say {known}"
        );
    }
}

/// A server that archives its log and writes security events, with what it says about itself.
struct Scene {
    server: Server,
    api: Api,
    said: Said,
}

impl Scene {
    async fn open(options: Options) -> Scene {
        let folder = std::sync::Arc::new(tempfile::tempdir().expect("a folder can be made"));
        let (archive, events) = (folder.path().join("archive"), folder.path().join("events.jsonl"));
        fs::create_dir(&archive).expect("a folder can be made");
        let options = options
            .with("--log-archive", format!("file://{}", archive.display()))
            .with("--security-events", events.display());
        let mut server = Server::start_in(folder, "data", options).await;
        two_of(&mut server, &["Ada", "Grace"]).await;
        let api = server.api().await;
        Scene {
            server,
            api,
            said: Said::default(),
        }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.server.folder().path().join(name)
    }

    /// Everything that the server writes for people and other systems.
    async fn listen(&mut self) {
        let api = &self.api;
        for path in ["/metrics", "/readyz", "/version"] {
            let answer = reqwest::get(format!("{}{path}", self.server.admin.ops_url)).await;
            let text = answer.expect("it answers").text().await.expect("text");
            self.said.hear(path, text);
        }
        for format in ["json", "json_lines", "ocsf", "cef"] {
            let query = if format == "json" {
                String::new()
            } else {
                format!("&format={format}")
            };
            let entries = api.get(&format!("/log/entries?limit=500{query}")).await;
            self.said.hear(format!("the log as {format}"), entries.bytes);
        }
        let archive = self.place("archive");
        archived(&self.server).await;
        for path in files(&archive) {
            self.said
                .hear("the archive", fs::read(path).expect("it can be read"));
        }
        if let Ok(events) = fs::read(self.place("events.jsonl"))
            && !events.is_empty()
        {
            self.said.hear("security events", events);
        }
        for verb in [&["doctor"][..], &["log", "verify"][..]] {
            let output = maintain(&self.server, verb).await;
            self.said.hear_output("maintenance", &output);
        }
        self.said.hear("the server", self.server.log());
    }

    /// Hears an answer of the server that must be a refusal.
    fn refusal(&mut self, what: &str, answer: &Answer) {
        assert!((400..600).contains(&answer.status), "{what}: {}", answer.word());
        self.said
            .hear(format!("the answer to {what}"), answer.bytes.clone());
    }
}

/// Requests that hold a secret in a place where none belongs, or a wrong one in a place where one does.
async fn wrong_requests(scene: &mut Scene, canaries: &mut Canaries) {
    let api = scene.api.clone();
    for (what, secret) in [
        ("a bearer token", "canary-bearer-7731"),
        ("a query", "canary-query-7732"),
        ("a body that is no JSON", "canary-body-7733"),
        ("a member", "canary-member-7734"),
        ("a client secret", "canary-client-7735"),
        ("an enrollment token", "canary-enroll-7736"),
        ("a PIN of a lock", "canary-pin-7737-4711"),
        ("a recovery key", "canary-recovery-7738"),
        ("a cookie", "canary-cookie-7739"),
        ("a path", "canary-path-7740"),
        ("an approval", "canary-approval-7741"),
        ("a challenge", "canary-challenge-7742"),
    ] {
        canaries.plant(what, secret);
    }
    let device = format!("/devices/dev_{}/commands", "0".repeat(32));
    let real = format!(
        "/devices/{}/commands",
        Device::enroll(&api, &scene.server.admin).await.id()
    );
    let answers = [
        (
            "a bearer token",
            api.with_token("canary-bearer-7731").get("/devices").await,
        ),
        (
            "a query",
            api.get("/devices?access_token=canary-query-7732").await,
        ),
        ("a body", api.post_bytes("/policies", "{\"canary-body-7733").await),
        (
            "a member",
            api.post("/clients", &json!({"name": "n", "canary-member-7734": 1}))
                .await,
        ),
        (
            "a client secret",
            api.ask_token(&[
                ("client_id", scene.server.admin.client_id.as_str()),
                ("client_secret", "canary-client-7735"),
            ])
            .await,
        ),
        (
            "a PIN",
            api.post(&real, &json!({"type": "lock", "pin": "canary-pin-7737-4711"}))
                .await,
        ),
        (
            "a recovery key",
            api.post(
                &device,
                &json!({"type": "unlock", "recovery_key": "canary-recovery-7738"}),
            )
            .await,
        ),
        (
            "a cookie",
            answer(
                api.with_token("")
                    .request(Method::GET, "/devices")
                    .header("cookie", "session=canary-cookie-7739"),
            )
            .await,
        ),
        ("a path", api.get("/policies/canary-path-7740").await),
    ];
    for (what, answered) in &answers {
        // A name in a path is what was asked for, and an unknown member is named: neither is a secret's place.
        if !matches!(*what, "a path" | "a member") {
            scene.refusal(what, answered);
        }
        assert!(
            (400..500).contains(&answered.status),
            "{what}: {}",
            answered.word()
        );
    }
    let operation = ask_wipe(&api, &Device::enroll(&api, &scene.server.admin).await.id()).await;
    let approval = json!({"keyid": "0".repeat(64), "sig": "canary-approval-7741"});
    let refused = api
        .post(&format!("/operations/{operation}/approvals"), &approval)
        .await;
    scene.refusal("an approval", &refused);
    let applicant = Applicant::new();
    let refused = applicant
        .begin(&Door::of(&scene.server.admin), "canary-enroll-7736")
        .await;
    scene.refusal("an enrollment token", &refused);
    let door = Door::of(&scene.server.admin);
    let refused = door
        .send(
            Method::POST,
            "/scep?operation=PKIOperation",
            Some("text/plain"),
            b"canary-challenge-7742".to_vec(),
        )
        .await;
    scene.refusal("a challenge", &refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn l1_no_planted_secret_is_in_anything_that_server_agent_or_command_line_say() {
    each_database(async |options| {
        const PASSPHRASE: &str = "canary-wifi-passphrase-7701";
        let mut scene = Scene::open(options).await;
        let api = scene.api.clone();
        let mut canaries = Canaries::default();
        canaries.plant("the administrator's secret", &scene.server.admin.client_secret);
        canaries.plant_token("an access token", &api.token);
        canaries.plant_keys(&scene.server.data_dir().join("keys"));
        canaries.plant_keys(&scene.server.data_dir().join("take-away"));
        let made = json!({"name": "canary", "scopes": ["device:read"]});
        let made = api.post("/clients", &made).await.expect(201);
        canaries.plant("a client's secret", made["client_secret"].as_str().expect("text"));
        let link = api
            .post("/console-links", &json!({"person": "Ada"}))
            .await
            .expect(201);
        let link = link["url"]
            .as_str()
            .expect("text")
            .split('#')
            .nth(1)
            .expect("a secret")
            .to_owned();
        canaries.plant("a sign-in link", &link);
        let token = api
            .post("/enrollment-tokens", &json!({"device_uuid": Uuid::new_v4()}))
            .await
            .expect(201);
        canaries.plant_token(
            "an enrollment token that waits",
            token["token"].as_str().expect("text"),
        );

        let machine = Machine::running(&api, &scene.server.admin).await;
        canaries.plant_token("the machine's enrollment token", &machine.token());
        canaries.plant_keys(machine.state_dir());
        canaries.plant("a Wi-Fi passphrase", PASSPHRASE);
        let wifi = json!([{"ssid": "office", "security": "wpa-psk", "passphrase": PASSPHRASE}]);
        activate(
            &api,
            "wifi",
            "1",
            &json!({"wifi.networks": wifi, "camera.allowed": false}),
        )
        .await;
        let settings = reported(&api, &machine.device, "1").await;
        scene.said.hear("the settings of a device", settings.to_string());
        for kind in [
            json!({"type": "lock", "message": "shown"}),
            json!({"type": "collect-inventory"}),
            json!({"type": "rotate-key", "key": "certificate"}),
            json!({"type": "rotate-key", "key": "disk-recovery"}),
        ] {
            let command = order(&api, &machine.device, &kind).await;
            let ended = ended(&api, &command).await;
            scene.said.hear("a command", ended.to_string());
        }
        wrong_requests(&mut scene, &mut canaries).await;

        // A machine that is given a wrong token, and whoever gives a wrong database or a wrong secret.
        let other = Machine::new();
        let refused = other
            .try_enroll_with("canary-machine-7750", &scene.server.admin)
            .await;
        canaries.plant("a wrong token of a machine", "canary-machine-7750");
        scene.said.hear("an agent that is refused", refused);
        for output in wrong_programs(&scene, &mut canaries).await {
            scene.said.hear_output("a program that is refused", &output);
        }
        logged(&api, "device.enrolled", 3).await;
        all_placed(&scene.server.store().await).await;
        scene.listen().await;
        scene.said.hear("the agent", machine.log());
        let status = machine.status().await;
        scene.said.hear("the agent's status", status.to_string());

        scene.said.is_clean(&canaries);
        // The same search finds what is there.
        scene.said.has("the log as cef", &machine.device);
        scene.said.has("the archive", &machine.device);
        scene.said.has("the agent", "executing command=");
        scene.said.has("the settings of a device", "office");
        assert_eq!(
            canaries.found_in(format!("x{PASSPHRASE}y").as_bytes()),
            ["a Wi-Fi passphrase"]
        );
        assert_healthy(&scene.server).await;
    })
    .await;
}

/// Programs of ours that get a secret which is wrong or in a wrong place.
async fn wrong_programs(scene: &Scene, canaries: &mut Canaries) -> Vec<Output> {
    canaries.plant("a database's password", "canary-database-7760");
    canaries.plant("a secret in a file", "canary-file-7761");
    canaries.plant("a secret in the environment", "canary-environment-7762");
    let place = |name: &str| scene.place(name).display().to_string();
    let mut outputs = Vec::new();
    for url in [
        "postgres://muster:canary-database-7760@127.0.0.1:1/muster",
        "postgres://muster:canary-database-7760@127.0.0.1:1/muster?sslmode=sometimes",
        "postgres//muster:canary-database-7760@127.0.0.1/muster",
    ] {
        let options = Options::default().with("--database-url", url);
        outputs.push(run_muster(serve_arguments(&scene.place("nowhere"), &options)).await);
    }
    let admin = json!({
        "admin_url": scene.server.admin.admin_url, "device_url": "", "ops_url": "",
        "ca_file": scene.server.admin.ca_file, "tenant": scene.server.admin.tenant,
        "client_id": scene.server.admin.client_id, "client_secret": "canary-file-7761",
    });
    fs::write(scene.place("wrong.json"), admin.to_string()).expect("it can be written");
    fs::write(
        scene.place("bent.json"),
        "{\"client_secret\": \"canary-file-7761\",",
    )
    .expect("it can be written");
    for name in ["wrong.json", "bent.json"] {
        let words = ["device", "list", "--admin-file", &place(name)];
        outputs.push(run_muster(words).await);
    }
    let mut command = muster();
    command
        .args(["device", "list"])
        .env("MUSTER_TOKEN", "canary-environment-7762")
        .env("MUSTER_URL", &scene.server.admin.admin_url)
        .env("XDG_CONFIG_HOME", scene.place("config"));
    outputs.push(command.output().await.expect("the program muster starts"));
    for output in &outputs {
        assert!(!output.status.success(), "{}", everything(output));
    }
    outputs
}

#[tokio::test(flavor = "multi_thread")]
async fn l1_the_password_of_the_database_is_in_nothing_that_a_server_says() {
    const PASSWORD: &str = "canary-database-7770";
    on_postgres(async |options| {
        let (options, password) = options.with_password(PASSWORD);
        let mut canaries = Canaries::default();
        canaries.plant("the database's password", &password);
        let mut scene = Scene::open(options).await;
        Device::enroll(&scene.api, &scene.server.admin).await;
        let store = scene.server.store().await;
        // An error of the database, whose words go to the log.
        store
            .execute("ALTER TABLE policy_policy RENAME TO policy_gone")
            .await;
        let refused = scene.api.post("/policies", &json!({"name": "p"})).await;
        scene.refusal("a broken table", &refused);
        store
            .execute("ALTER TABLE policy_gone RENAME TO policy_policy")
            .await;
        scene.listen().await;
        scene.said.is_clean(&canaries);
        scene.said.has("the server", "a request failed");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m14_what_a_command_says_to_its_device_is_in_no_log_archive_or_export() {
    each_database(async |options| {
        let mut scene = Scene::open(options).await;
        let api = scene.api.clone();
        let machine = Machine::running(&api, &scene.server.admin).await;
        let mut canaries = Canaries::default();
        for (what, secret) in [
            ("the message of a lock", "canary-lock-message-7780"),
            ("the message of lost mode", "canary-lost-message-7781"),
            ("the number of lost mode", "+49 30 canary-7782"),
            ("a message", "canary-message-7783"),
            ("an argument of a script", "canary-argument-7784"),
            ("a script", "canary-script-7785"),
            ("an output", "canary-output-7786"),
            ("a PIN", "canary-pin-7787-4711"),
            ("a recovery key", "canary-recovery-7788"),
        ] {
            canaries.plant(what, secret);
        }
        // No command of ours has a PIN, a passcode or a recovery key in it: such a request is refused, and not repeated.
        for (kind, member, value) in [
            ("lock", "pin", "canary-pin-7787-4711"),
            ("unlock", "pin", "canary-pin-7787-4711"),
            ("clear-passcode", "passcode", "canary-pin-7787-4711"),
            ("wipe", "pin", "canary-pin-7787-4711"),
            ("rotate-key", "recovery_key", "canary-recovery-7788"),
        ] {
            let path = format!("/devices/{}/commands", machine.device);
            let body = json!({"type": kind, member: value, "mode": "full", "key": "disk-recovery"});
            let refused = api.post(&path, &body).await;
            refused.refused(400, "invalid");
            scene.refusal(member, &refused);
        }
        let script = json!({"name": "Prints", "interpreter": "sh", "text": "# canary-script-7785\nid\n"});
        let script = api.post("/scripts", &script).await.expect(201)["sha256"].clone();
        let mut last = Value::Null;
        for kind in [
            json!({"type": "lock", "message": "canary-lock-message-7780"}),
            json!({"type": "lost-mode-on", "message": "canary-lost-message-7781", "phone": "+49 30 canary-7782"}),
            json!({"type": "lost-mode-off"}),
            json!({"type": "unlock"}),
            json!({"type": "clear-passcode"}),
            json!({"type": "message", "text": "canary-message-7783"}),
            json!({"type": "run-script", "sha256": script, "arguments": ["canary-argument-7784"]}),
        ] {
            let command = order(&api, &machine.device, &kind).await;
            last = ended(&api, &command).await;
        }
        assert_eq!(last["state"], "done", "{last}");
        let device = Device::enroll(&api, &scene.server.admin).await;
        let command = order(&api, &device.id(), &json!({"type": "collect-logs"})).await;
        eventually("the command is delivered", PATIENCE, async || {
            (!device.checkin().await.commands.is_empty()).then_some(())
        })
        .await;
        let mut statement = device.receipt_statement(&command, "done");
        statement["output"] = json!("canary-output-7786\n");
        device.checkin_with("receipts", json!([device.receipt_of(&statement)])).await;
        let output = api.get(&format!("/commands/{command}/output")).await;
        assert_eq!(output.text(), "canary-output-7786\n", "who may sees it");
        all_placed(&scene.server.store().await).await;
        scene.listen().await;
        scene.said.hear("the agent", machine.log());
        scene.said.is_clean(&canaries);
        scene.said.has("the log as cef", "command.completed");
        scene.said.has("the agent", "executing command=");
        assert_healthy(&scene.server).await;
    })
    .await;
}
