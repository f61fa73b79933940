//! Policies on their way to a device: immutable, signed, logged, and refused by the device where anything is not.

use muster_channel_agent::{
    ContentType,
    checkin::CheckinResponse,
    decode,
    device::{Action, Begin, DeviceCore},
    encode,
};
use muster_trust::{
    bundle::{self, BundleSource, OpenBundle},
    dsse,
    key::{Digest, SigningKey, sha256},
    root::RootDocument,
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    api::{Answer, Api, answer},
    database::each_database,
    device::{Device, Obedient, logged},
    eventually,
    machine::{Machine, activate, order, reported, setting},
    server::{Options, Server, assert_healthy, tool},
};

const CAMERA: &str = "/etc/modprobe.d/00-muster-camera.conf";
const BLUETOOTH: &str = "/etc/modprobe.d/00-muster-bluetooth.conf";

/// Makes a version of the policy `base`; answers its view.
async fn make(api: &Api, version: &str, settings: &Value) -> Value {
    if api.get("/policies/base").await.status == 404 {
        api.post("/policies", &json!({"name": "base"})).await.expect(201);
    }
    let body = json!({"version": version, "settings": settings});
    api.post("/policies/base/versions", &body).await.expect(201)
}

async fn bundle_of(api: &Api, version: &str) -> Answer {
    api.get(&format!("/policies/base/versions/{version}/bundle"))
        .await
}

/// The root document that devices of the tenant are at.
async fn root_of(api: &Api, server: &Server) -> RootDocument {
    let device = Device::enroll(api, &server.admin).await;
    let documents = &device.enrolled.root_documents;
    let mut root = RootDocument::verify_first(&documents[0], None).expect("the first root document verifies");
    for document in &documents[1..] {
        root = RootDocument::verify_next(&root, document).expect("root documents form a chain");
    }
    root
}

/// A private key of the tenant.
fn key_of(server: &Server, name: &str) -> SigningKey {
    let path = server
        .data_dir()
        .join(format!("keys/tenants/{}/{name}.pem", server.admin.tenant));
    SigningKey::from_pkcs8_pem(&std::fs::read_to_string(path).expect("the key is there"))
        .expect("it is a key")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_curl_activates_a_version() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    make(&api, "2026.05", &json!({"camera.allowed": false})).await;
    let mut device = Obedient::enroll(&api, &server.admin).await;
    let ca = server.admin.ca_file.to_str().expect("paths here are text");
    let url = format!("{}/api/v1/policies/base/activate", server.admin.admin_url);
    let bearer = format!("Authorization: Bearer {}", api.token);
    let arguments = [
        "-sS",
        "-w",
        "\n%{http_code}",
        "--cacert",
        ca,
        "-X",
        "POST",
        &url,
        "-H",
        &bearer,
        "-H",
        "Content-Type: application/json",
        "-d",
        r#"{"version":"2026.05"}"#,
    ];
    let output = tool("curl", &arguments).await;
    let said = crate::support::server::everything(&output);
    let (body, status) = said.rsplit_once('\n').expect("a body and a status");
    assert_eq!(status, "202", "{said}");
    let body: Value = serde_json::from_str(body).expect("it is JSON");
    assert_eq!(body["generation"], 1);
    let rollout = body["rollout_id"].as_str().expect("an id is text");
    eventually("the device has it", PATIENCE, async || {
        device.obey().await;
        (device.core.effective_settings().len() == 1).then_some(())
    })
    .await;
    eventually("the rollout is completed", PATIENCE, async || {
        let shown = api.get(&format!("/rollouts/{rollout}")).await.ok();
        (shown["state"] == "completed").then_some(())
    })
    .await;
    assert!(device.refused.is_empty(), "{:?}", device.refused);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_cannot_be_made_twice_with_other_content_and_the_attempt_is_logged() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let first = make(&api, "2026.05", &json!({"camera.allowed": false})).await;
        let same = json!({"version": "2026.05", "settings": {"camera.allowed": false}});
        let again = api.post("/policies/base/versions", &same).await.expect(200);
        assert_eq!(again["sha256"], first["sha256"]);
        let other = json!({"version": "2026.05", "settings": {"camera.allowed": true}});
        api.post("/policies/base/versions", &other)
            .await
            .refused(409, "version_exists");
        let entry = logged(&api, "policy.change_refused", 1).await.remove(0);
        assert_eq!(entry["detail"]["bundle_sha256"], first["sha256"]);
        assert_eq!(api.list("/policies/base/versions").await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_what_it_says_signed_by_the_policy_key_and_can_be_rebuilt_byte_by_byte() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let made = make(
            &api,
            "2026.05",
            &json!({"camera.allowed": false, "passcode.min_length": 12}),
        )
        .await;
        let download = bundle_of(&api, "2026.05").await;
        download.expect(200);
        assert_eq!(download.header("content-type"), "application/zip");
        let digest = sha256(&download.bytes);
        assert_eq!(made["sha256"], digest.to_string());
        let etag = format!("\"{digest}\"");
        assert_eq!(download.header("etag"), etag);
        assert!(download.header("cache-control").contains("immutable"));
        let path = "/policies/base/versions/2026.05/bundle";
        let held = answer(api.request(Method::GET, path).header("if-none-match", &etag)).await;
        assert_eq!(
            (held.status, held.bytes.len(), held.header("etag")),
            (304, 0, etag.as_str())
        );

        let open: OpenBundle = bundle::open(&download.bytes).expect("it is of the one form");
        let root = root_of(&api, &server).await;
        open.verify(&root).expect("the policy key signed it");
        assert_eq!(
            (open.manifest.version.as_str(), open.manifest.policy_name.as_str()),
            ("2026.05", "base")
        );
        let settings: Value = serde_json::from_slice(open.settings_json()).expect("settings are JSON");
        assert_eq!(
            settings,
            json!({"camera.allowed": false, "passcode.min_length": 12})
        );
        let source = BundleSource {
            tenant: open.manifest.tenant,
            policy_id: open.manifest.policy_id,
            policy_name: &open.manifest.policy_name,
            version: &open.manifest.version,
            sequence: open.manifest.sequence,
            created_at: open.manifest.created_at,
            settings_json: open.settings_json(),
            rules_json: open.rules_json(),
        };
        let rebuilt = bundle::build(&source, &[&key_of(&server, "policy")]).expect("it can be built");
        assert!(
            rebuilt.bytes == download.bytes,
            "the same source gives the same bytes"
        );

        // Any zip program reads it.
        let folder = tempfile::tempdir().expect("a folder can be made");
        let file = folder.path().join("policy.zip");
        std::fs::write(&file, &download.bytes).expect("it can be written");
        let listing = tool("python3", &["-m", "zipfile", "-t", file.to_str().expect("text")]).await;
        assert!(
            listing.status.success(),
            "{}",
            crate::support::server::everything(&listing)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_bundle_that_was_edited_in_the_database_goes_nowhere_and_is_logged() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        make(&api, "1", &json!({"camera.allowed": false})).await;
        let mut device = Obedient::enroll(&api, &server.admin).await;
        let good = bundle_of(&api, "1").await.bytes;
        let store = server.store().await;
        let mut bent = good.clone();
        let middle = bent.len() / 2;
        bent[middle] ^= 1;
        let own_key = SigningKey::generate_ed25519().expect("a key can be made");
        let resigned = resign(&good, &[&own_key], |settings| {
            settings["camera.allowed"] = json!(true)
        });
        let edits = [
            ("one bit", bent.clone(), None),
            (
                "another content under another key",
                resigned.clone(),
                Some(sha256(&resigned)),
            ),
            ("cut off", good[..good.len() - 1].to_vec(), None),
            ("empty", Vec::new(), None),
        ];
        let count = edits.len();
        for (what, bytes, digest) in edits {
            let digest = digest.unwrap_or(sha256(&good)).to_string();
            let sql = format!(
                "UPDATE policy_version SET bundle = {}, bundle_sha256 = '{digest}'",
                store.blob(&bytes)
            );
            assert_eq!(store.execute(&sql).await, 1);
            let activation = api
                .post("/policies/base/activate", &json!({"version": "1"}))
                .await;
            assert_eq!(
                (activation.status, activation.json()["code"].as_str()),
                (409, Some("bundle_changed")),
                "{what}"
            );
            bundle_of(&api, "1").await.refused(409, "bundle_changed");
        }
        let entries = logged(&api, "policy.bundle_tampered", count).await;
        assert!(entries.len() >= count, "{entries:?}");
        assert_eq!(api.list("/rollouts").await, [] as [Value; 0]);

        // Edited after its activation: the device gets no bytes of it, and keeps what it has.
        let restore = format!(
            "UPDATE policy_version SET bundle = {}, bundle_sha256 = '{}'",
            store.blob(&good),
            sha256(&good)
        );
        store.execute(&restore).await;
        api.post("/policies/base/activate", &json!({"version": "1"}))
            .await
            .expect(202);
        store
            .execute(&format!(
                "UPDATE policy_version SET bundle = {}",
                store.blob(&bent)
            ))
            .await;
        let response = eventually("the device is told of it", PATIENCE, async || {
            let response = device.ask().await;
            response.desired.is_some().then_some(response)
        })
        .await;
        let actions = device.take(&response);
        assert!(
            actions.contains(&Action::FetchBundle {
                sha256: sha256(&good)
            }),
            "{actions:?}"
        );
        let url = format!("{}/agent/v1/bundles/{}", device.device.door.url, sha256(&good));
        answer(device.device.door.http.get(&url))
            .await
            .refused(409, "bundle_changed");
        assert!(applied(&device.take_bundle(sha256(&good), &bent)).is_none());
    })
    .await;
}

/// A bundle with other settings, signed by other keys.
fn resign(bytes: &[u8], keys: &[&SigningKey], change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let open = bundle::open(bytes).expect("it is a bundle");
    let mut settings: Value = serde_json::from_slice(open.settings_json()).expect("settings are JSON");
    change(&mut settings);
    let settings = settings.to_string();
    let source = BundleSource {
        tenant: open.manifest.tenant,
        policy_id: open.manifest.policy_id,
        policy_name: &open.manifest.policy_name,
        version: &open.manifest.version,
        sequence: open.manifest.sequence,
        created_at: open.manifest.created_at,
        settings_json: settings.as_bytes(),
        rules_json: open.rules_json(),
    };
    bundle::build(&source, keys).expect("it can be built").bytes
}

/// The settings that a list of actions puts in force.
fn applied(actions: &[Action]) -> Option<Value> {
    actions.iter().find_map(|action| match action {
        Action::Apply { settings } => Some(json!(settings)),
        _ => None,
    })
}

/// A device between the server's answer and the bundle that it names, with a genuine command in the same answer.
struct Crossing {
    server: Server,
    device: Obedient,
    response: CheckinResponse,
    digest: Digest,
    bytes: Vec<u8>,
}

impl Crossing {
    async fn open() -> Crossing {
        let server = Server::start(Options::default()).await;
        let api = server.api().await;
        let mut device = Obedient::enroll(&api, &server.admin).await;
        device.obey().await;
        order(
            &api,
            &device.device.id(),
            &json!({"type": "lock", "message": "genuine"}),
        )
        .await;
        activate(&api, "base", "1", &json!({"camera.allowed": false})).await;
        let response = eventually("both are on their way", PATIENCE, async || {
            let response = device.ask().await;
            (response.desired.is_some() && !response.commands.is_empty()).then_some(response)
        })
        .await;
        let digest = response
            .desired
            .as_ref()
            .map(|desired| desired.bundles[0].sha256)
            .expect("it names a bundle");
        let bytes = device.download(digest).await;
        Crossing {
            server,
            device,
            response,
            digest,
            bytes,
        }
    }

    /// Gives an answer to a copy of the device; what it would execute, and what it would fetch.
    fn give(&self, response: &CheckinResponse) -> (DeviceCore, Vec<Action>) {
        let mut core = self.device.core.clone();
        let key = &self.device.device.applicant.key;
        let actions = core.on_checkin(response, &self.device.reading(), &mut |kind, payload| {
            dsse::sign(kind, payload, &[key])
        });
        (core, actions)
    }

    /// The settings that a device puts in force which got the genuine answer and these bytes.
    fn give_bundle(&self, digest: Digest, bytes: &[u8]) -> Option<Value> {
        let (mut core, _) = self.give(&self.response);
        let key = &self.device.device.applicant.key;
        let actions = core.on_bundle(digest, bytes, &self.device.reading(), &mut |kind, payload| {
            dsse::sign(kind, payload, &[key])
        });
        applied(&actions)
    }

    /// Every command that a device begins which got this answer.
    fn executed(&self, response: &CheckinResponse) -> Vec<Value> {
        let (mut core, actions) = self.give(response);
        let key = &self.device.device.applicant.key;
        let begun = actions.into_iter().filter_map(|action| match action {
            Action::Execute { command_id } => {
                let mut sign = |kind: &str, payload: &[u8]| dsse::sign(kind, payload, &[key]);
                match core.begin(command_id, &self.device.reading(), &mut sign) {
                    Begin::Run(statement) => Some(json!(statement)),
                    Begin::Nothing => None,
                }
            }
            _ => None,
        });
        begun.collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_a_bundle_with_any_byte_changed_on_its_way_is_not_put_in_force() {
    let crossing = Crossing::open().await;
    let genuine = crossing
        .give_bundle(crossing.digest, &crossing.bytes)
        .expect("the genuine one is put in force");
    assert_eq!(genuine, json!({"camera.allowed": false}));
    for place in 0..crossing.bytes.len() {
        let mut bent = crossing.bytes.clone();
        bent[place] ^= 1 << (place % 8);
        assert_eq!(crossing.give_bundle(crossing.digest, &bent), None, "byte {place}");
    }
    for length in [0, 1, crossing.bytes.len() / 2, crossing.bytes.len() - 1] {
        assert_eq!(
            crossing.give_bundle(crossing.digest, &crossing.bytes[..length]),
            None,
            "{length} bytes"
        );
    }
    let longer = [crossing.bytes.as_slice(), &[0]].concat();
    assert_eq!(crossing.give_bundle(crossing.digest, &longer), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_p2_a_bundle_of_another_key_or_digest_is_not_put_in_force() {
    let crossing = Crossing::open().await;
    let stranger = SigningKey::generate_ed25519().expect("a key can be made");
    let (action, policy) = (
        key_of(&crossing.server, "action"),
        key_of(&crossing.server, "policy"),
    );
    let signers: [(&str, &SigningKey); 3] = [
        ("a stranger", &stranger),
        ("the action key", &action),
        ("the policy key, never activated", &policy),
    ];
    for (what, key) in signers {
        let other = resign(&crossing.bytes, &[key], |settings| {
            settings["camera.allowed"] = json!(true)
        });
        for digest in [crossing.digest, sha256(&other)] {
            assert_eq!(crossing.give_bundle(digest, &other), None, "{what}");
            // An answer that names it, as only a server without the action key can write it.
            let mut response = crossing.response.clone();
            let desired = response.desired.as_mut().expect("it is there");
            desired.bundles[0].sha256 = digest;
            let (mut core, _) = crossing.give(&response);
            let device_key = &crossing.device.device.applicant.key;
            let actions = core.on_bundle(
                digest,
                &other,
                &crossing.device.reading(),
                &mut |kind, payload| dsse::sign(kind, payload, &[device_key]),
            );
            assert_eq!(applied(&actions), None, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_an_answer_with_any_bit_changed_moves_a_device_to_nothing_that_was_not_meant() {
    const ROUNDS: u64 = 3000;
    let crossing = Crossing::open().await;
    let genuine = crossing.executed(&crossing.response);
    assert_eq!(genuine.len(), 1, "the genuine command is executed");
    let bytes = encode(ContentType::Json, &crossing.response).expect("it can be written");
    let seed = u64::from_le_bytes(crossing.digest.as_bytes()[..8].try_into().expect("8 bytes")) | 1;
    println!("seed {seed}");
    let mut state = seed;
    let mut readable = 0;
    for round in 0..ROUNDS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let mut bent = bytes.clone();
        let place = usize::try_from(state).unwrap_or(usize::MAX) % bent.len();
        bent[place] ^= 1 << (round % 7);
        let Ok(response) = decode::<CheckinResponse>(ContentType::Json, &bent, bent.len()) else {
            continue;
        };
        readable += 1;
        for statement in crossing.executed(&response) {
            assert!(
                genuine.contains(&statement),
                "round {round}: executed {statement}"
            );
        }
        let (mut core, _) = crossing.give(&response);
        let key = &crossing.device.device.applicant.key;
        let actions = core.on_bundle(
            crossing.digest,
            &crossing.bytes,
            &crossing.device.reading(),
            &mut |kind, payload| dsse::sign(kind, payload, &[key]),
        );
        if let Some(settings) = applied(&actions) {
            assert_eq!(settings, json!({"camera.allowed": false}), "round {round}");
        }
    }
    assert!(
        readable > ROUNDS / 10,
        "the changes were not all trivial: {readable}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_orders_that_were_swapped_stripped_or_signed_by_others_are_refused() {
    let crossing = Crossing::open().await;
    let stranger = SigningKey::generate_ed25519().expect("a key can be made");
    let policy = key_of(&crossing.server, "policy");
    let due = &crossing.response.commands[0];
    let wiping = {
        let mut statement: Value = serde_json::from_slice(&due.envelope.payload).expect("JSON");
        statement["kind"] = json!({"type": "wipe", "mode": "full"});
        statement.to_string().into_bytes()
    };
    let mut altered = Vec::new();
    let mut alter = |what: &'static str, change: &dyn Fn(&mut CheckinResponse)| {
        let mut response = crossing.response.clone();
        change(&mut response);
        altered.push((what, response));
    };
    alter("a wipe under the old signature", &|response| {
        response.commands[0].envelope.payload = wiping.clone()
    });
    for (what, key) in [
        ("a wipe by a stranger", &stranger),
        ("a wipe by the policy key", &policy),
    ] {
        let envelope = dsse::sign(&due.envelope.payload_type, &wiping, &[key]).expect("a key signs");
        alter(what, &|response| response.commands[0].envelope = envelope.clone());
    }
    alter("no signature", &|response| {
        response.commands[0].envelope.signatures.clear()
    });
    alter("another type", &|response| {
        response.commands[0].envelope.payload_type = "application/vnd.muster.receipt+json".to_owned();
    });
    alter("no proof", &|response| response.commands[0].proof.hashes.clear());
    alter("the proof of something else", &|response| {
        let other = response.desired.as_ref().expect("it is there").bundles[0]
            .proof
            .clone();
        response.commands[0].proof = other;
    });
    alter("no checkpoint", &|response| response.checkpoint = None);
    alter("a checkpoint without its signature", &|response| {
        let update = response.checkpoint.as_mut().expect("it is there");
        update.note = update
            .note
            .split("\n\n")
            .next()
            .expect("a note has a text")
            .to_owned()
            + "\n\n";
    });
    for (what, response) in altered {
        assert_eq!(crossing.executed(&response), Vec::<Value>::new(), "{what}");
    }
    assert_eq!(
        crossing.executed(&crossing.response).len(),
        1,
        "the genuine one is executed all the same"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_what_another_device_or_installation_was_told_moves_nobody_else() {
    let crossing = Crossing::open().await;
    let api = crossing.server.api().await;
    let mut neighbor = Obedient::enroll(&api, &crossing.server.admin).await;
    neighbor.take(&crossing.response);
    assert!(neighbor.core.effective_settings().is_empty() && !neighbor.core.has_news());
    let own = neighbor.take_bundle(crossing.digest, &crossing.bytes);
    assert_eq!(
        applied(&own),
        None,
        "a desired state for another device puts nothing in force"
    );

    let other = Server::start(Options::default()).await;
    let mut stranger = Obedient::enroll(&other.api().await, &other.admin).await;
    let actions = stranger.take(&crossing.response);
    assert!(
        actions.iter().all(|action| matches!(action, Action::Refused(_))),
        "{actions:?}"
    );
    assert!(
        !stranger.core.has_news(),
        "what is not of its tenant is not even answered"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_an_older_answer_does_not_bring_an_older_policy_back() {
    let mut crossing = Crossing::open().await;
    let api = crossing.server.api().await;
    crossing.device.obey().await;
    activate(
        &api,
        "base",
        "2",
        &json!({"camera.allowed": false, "bluetooth.allowed": false}),
    )
    .await;
    eventually("the second version is in force", PATIENCE, async || {
        crossing.device.obey().await;
        (crossing.device.core.effective_settings().len() == 2).then_some(())
    })
    .await;
    let executed = crossing.device.executed.len();
    let old = crossing.response.clone();
    let actions = crossing.device.take(&old);
    crossing.device.perform(actions).await;
    assert_eq!(crossing.device.executed.len(), executed, "no command twice");
    assert_eq!(crossing.device.core.effective_settings().len(), 2);
    let digest = crossing.digest;
    let bytes = crossing.bytes.clone();
    assert_eq!(applied(&crossing.device.take_bundle(digest, &bytes)), None);
}

/// The rollout in its newest state.
async fn rollout(api: &Api, id: &str) -> Value {
    api.get(&format!("/rollouts/{id}")).await.ok()
}

async fn rollout_is(api: &Api, id: &str, state: &str) {
    eventually(&format!("{id} is {state}"), PATIENCE, async || {
        (rollout(api, id).await["state"] == state).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_paused_resumed_and_rolled_back_on_a_real_machine() {
    each_database(async |options| {
        let server = Server::start(options).await;
        let api = server.api().await;
        let mut machine = Machine::running(&api, &server.admin).await;
        let device = machine.device.clone();
        let first = activate(&api, "base", "1", &json!({"camera.allowed": false})).await;
        reported(&api, &device, "1").await;
        rollout_is(&api, &first, "completed").await;
        assert!(machine.read(CAMERA).is_some());

        machine.stop().await;
        let second = activate(&api, "base", "2", &json!({"bluetooth.allowed": false})).await;
        let verb = async |id: &str, verb: &str| api.post(&format!("/rollouts/{id}/{verb}"), &json!({})).await;
        verb(&second, "pause").await.ok();
        assert_eq!(rollout(&api, &second).await["state"], "paused");
        machine.start();
        // A command shows that the machine was here and took no policy along.
        let command = order(&api, &device, &json!({"type": "lock"})).await;
        crate::support::machine::ended(&api, &command).await;
        assert!(
            machine.read(CAMERA).is_some() && machine.read(BLUETOOTH).is_none(),
            "a paused rollout moves nobody"
        );
        verb(&second, "resume").await.ok();
        let settings = reported(&api, &device, "2").await;
        assert_eq!(setting(&settings, "bluetooth.allowed")["state"], "verified");
        assert!(machine.read(CAMERA).is_none() && machine.read(BLUETOOTH).is_some());
        rollout_is(&api, &second, "completed").await;

        verb(&second, "rollback").await.ok();
        reported(&api, &device, "1").await;
        assert!(
            machine.read(CAMERA).is_some() && machine.read(BLUETOOTH).is_none(),
            "the first version is back"
        );
        assert_eq!(rollout(&api, &second).await["state"], "rolled_back");
        verb(&second, "rollback").await.refused(409, "illegal_state");
        for action in [
            "rollout.paused",
            "rollout.resumed",
            "rollout.rolled_back",
            "rollout.completed",
        ] {
            logged(&api, action, 1).await;
        }
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_first_rollout_takes_the_policy_from_the_machine() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let mut machine = Machine::new();
    machine.write("/etc/issue", "Debian\n");
    machine.enroll(&api, &server.admin).await;
    machine.start();
    // A second device that never comes keeps the rollout from being completed.
    Device::enroll(&api, &server.admin).await;
    let wanted = json!({"camera.allowed": false, "lockscreen.message": "Property of Example"});
    let only = activate(&api, "base", "1", &wanted).await;
    reported(&api, &machine.device, "1").await;
    assert!(
        machine
            .read("/etc/issue")
            .is_some_and(|text| text.contains("Example"))
    );
    api.post(&format!("/rollouts/{only}/abort"), &json!({}))
        .await
        .ok();
    assert_eq!(rollout(&api, &only).await["state"], "aborted");
    eventually("the machine is as it was", PATIENCE, async || {
        let gone = machine.read(CAMERA).is_none();
        (gone && machine.read("/etc/issue").as_deref() == Some("Debian\n")).then_some(())
    })
    .await;
    api.post(&format!("/rollouts/{only}/resume"), &json!({}))
        .await
        .refused(409, "illegal_state");
}
