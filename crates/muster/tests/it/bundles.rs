//! Bundles that are built and signed without the server, and what the server refuses to take.

use std::{collections::BTreeMap, path::PathBuf, process::Output};

use muster_trust::{
    archive,
    bundle::{self, BundleSource, OpenBundle},
    key::{SigningKey, sha256},
};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    PATIENCE,
    api::{Answer, Api, answer},
    database::each_database,
    device::{Obedient, logged},
    eventually,
    server::{Options, Server, everything, run_muster},
};

const SETTINGS: &str = "passcode.min_length: 12\ncamera.allowed: false\n";
const RULES: &str = "- name: os\n  check: {fact: os.version, op: ge, value: '12'}\n";
const CREATED: &str = "2026-05-04T08:00:00Z";

/// A pipeline's workplace: the policy key, settings and rules beside a server.
struct Pipeline {
    server: Server,
    api: Api,
    folder: TempDir,
    policy_id: String,
}

impl Pipeline {
    async fn new(options: Options) -> Pipeline {
        let server = Server::start(options).await;
        let api = server.api().await;
        let made = api.post("/policies", &json!({"name": "base"})).await.expect(201);
        let folder = tempfile::tempdir().expect("a folder can be made");
        std::fs::write(folder.path().join("settings.yml"), SETTINGS).expect("it can be written");
        std::fs::write(folder.path().join("rules.yml"), RULES).expect("it can be written");
        std::fs::copy(key_file(&server, "policy"), folder.path().join("policy.pem"))
            .expect("it can be copied");
        Pipeline {
            policy_id: made["id"].as_str().expect("an id is text").to_owned(),
            server,
            api,
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).expect("the file is there")
    }

    /// Runs a line without any credentials; words that begin with `@` are files of the pipeline.
    async fn offline(&self, line: &str) -> Output {
        let word = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.path(name).into_os_string(),
            None => word.into(),
        };
        run_muster(line.split_whitespace().map(word)).await
    }

    async fn online(&self, line: &str) -> Output {
        let line = format!("{line} --admin-file {}", self.server.admin_file().display());
        self.offline(&line).await
    }

    /// The flags of a build that needs no server.
    fn identity(&self, version: &str, sequence: u64) -> String {
        format!(
            "--tenant {} --policy-id {} --policy base --version {version} --sequence {sequence} --settings @settings.yml \
             --rules @rules.yml --created-at {CREATED}",
            self.server.admin.tenant, self.policy_id
        )
    }

    async fn built(&self, version: &str, sequence: u64) -> Vec<u8> {
        let line = format!(
            "bundle build {} --key @policy.pem --out @built.zip",
            self.identity(version, sequence)
        );
        done(&self.offline(&line).await);
        self.bytes("built.zip")
    }

    async fn push(&self, bytes: impl Into<Vec<u8>>) -> Answer {
        push(&self.api, "base", bytes).await
    }

    /// The tenant's root document in a file.
    async fn save_root(&self) {
        let root = self.api.get("/log/root").await;
        root.expect(200);
        std::fs::write(self.path("root.json"), &root.bytes).expect("it can be written");
    }
}

async fn push(api: &Api, policy: &str, bytes: impl Into<Vec<u8>>) -> Answer {
    let request = api.request(Method::POST, &format!("/policies/{policy}/bundles"));
    answer(
        request
            .header("content-type", "application/zip")
            .body(bytes.into()),
    )
    .await
}

fn key_file(server: &Server, name: &str) -> PathBuf {
    server
        .data_dir()
        .join(format!("keys/tenants/{}/{name}.pem", server.admin.tenant))
}

fn key_of(server: &Server, name: &str) -> SigningKey {
    let pem = std::fs::read_to_string(key_file(server, name)).expect("the key is there");
    SigningKey::from_pkcs8_pem(&pem).expect("it is a key")
}

#[track_caller]
fn done(output: &Output) -> String {
    let said = everything(output);
    assert!(output.status.success(), "{said}");
    said
}

#[track_caller]
fn failed(output: &Output) -> String {
    let said = everything(output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

/// A bundle of other things than `open`, signed by these keys.
fn resigned<'a>(
    open: &'a OpenBundle,
    keys: &[&SigningKey],
    change: impl FnOnce(&mut BundleSource<'a>),
) -> Vec<u8> {
    let manifest = &open.manifest;
    let mut source = BundleSource {
        tenant: manifest.tenant,
        policy_id: manifest.policy_id,
        policy_name: &manifest.policy_name,
        version: &manifest.version,
        sequence: manifest.sequence,
        created_at: manifest.created_at,
        settings_json: open.settings_json(),
        rules_json: open.rules_json(),
    };
    change(&mut source);
    bundle::build(&source, keys).expect("it can be built").bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_built_twice_or_by_the_server_is_the_same_bytes() {
    each_database(async |options| {
        let pipeline = Pipeline::new(options).await;
        let first = pipeline.built("2026.05", 1).await;
        let second = pipeline.built("2026.05", 1).await;
        assert!(first == second, "two builds differ");
        let draft = format!("bundle build {} --out @draft.zip", pipeline.identity("2026.05", 1));
        done(&pipeline.offline(&draft).await);
        assert!(pipeline.bytes("draft.zip") != first);
        failed(&pipeline.offline("bundle verify @draft.zip").await);
        done(&pipeline.offline("bundle sign --key @policy.pem @draft.zip --out @signed.zip").await);
        assert!(pipeline.bytes("signed.zip") == first, "signing elsewhere gives other bytes");

        // The server builds the same content at its own time: that time given, the bytes are the same.
        let rules: Value = json!([{"name": "os", "check": {"fact": "os.version", "op": "ge", "value": "12"}}]);
        let body = json!({"version": "2026.06", "rules": rules,
            "settings": {"camera.allowed": false, "passcode.min_length": 12}});
        pipeline.api.post("/policies/base/versions", &body).await.expect(201);
        let served = pipeline.api.get("/policies/base/versions/2026.06/bundle").await;
        let at = bundle::open(&served.bytes).expect("it is a bundle").manifest.created_at;
        let line = format!(
            "bundle build --policy base --version 2026.06 --settings @settings.yml --rules @rules.yml --created-at {at} --key \
             @policy.pem --out @again.zip"
        );
        done(&pipeline.online(&line).await);
        assert!(pipeline.bytes("again.zip") == served.bytes, "the server's build differs");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_bundle_is_a_version_that_devices_obey() {
    each_database(async |options| {
        let pipeline = Pipeline::new(options).await;
        let bytes = pipeline.built("2026.05", 1).await;
        pipeline.save_root().await;
        done(&pipeline.offline("bundle verify --root @root.json @built.zip").await);
        done(&pipeline.offline("bundle show @built.zip").await);
        done(&pipeline.online("bundle push @built.zip").await);
        let again = pipeline.push(bytes.clone()).await.expect(200);
        assert_eq!(again["sha256"], sha256(&bytes).to_hex());
        let served = pipeline.api.get("/policies/base/versions/2026.05/bundle").await;
        assert!(served.bytes == bytes, "another bundle is handed out");
        let entry = logged(&pipeline.api, "policy.version_created", 1).await.remove(0);
        assert_eq!(
            entry["detail"]["signed_by"],
            json!([key_of(&pipeline.server, "policy").key_id()])
        );

        let mut device = Obedient::enroll(&pipeline.api, &pipeline.server.admin).await;
        pipeline
            .api
            .post("/policies/base/activate", &json!({"version": "2026.05"}))
            .await
            .expect(202);
        eventually("the device has it", PATIENCE, async || {
            device.obey().await;
            (device.core.effective_settings().len() == 2).then_some(())
        })
        .await;
        assert!(device.refused.is_empty(), "{:?}", device.refused);
        // The next version is made by the server, the one after it by the pipeline, which asks for its sequence.
        let body = json!({"version": "2026.06", "settings": {"camera.allowed": true}});
        pipeline.api.post("/policies/base/versions", &body).await.expect(201);
        let line = "bundle build --policy base --version 2026.07 --settings @settings.yml --created-at 2026-05-04T08:00:00Z --key \
                    @policy.pem --out @next.zip";
        done(&pipeline.online(line).await);
        let pushed = pipeline.push(pipeline.bytes("next.zip")).await.expect(201);
        assert_eq!(pushed["sequence"], 3);
        // The build that is repeated after its push is the same again.
        done(&pipeline.online(line).await);
        assert_eq!(pipeline.push(pipeline.bytes("next.zip")).await.status, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_a_pushed_bundle_with_any_byte_changed_is_refused() {
    let pipeline = Pipeline::new(Options::default()).await;
    let good = pipeline.built("2026.05", 1).await;
    pipeline.save_root().await;
    for place in 0..good.len() {
        let mut bent = good.clone();
        bent[place] ^= 1 << (place % 8);
        let answer = pipeline.push(bent.clone()).await;
        assert_eq!(answer.status, 422, "byte {place}: {}", answer.text());
        if place % 50 == 0 {
            std::fs::write(pipeline.path("bent.zip"), &bent).expect("it can be written");
            failed(
                &pipeline
                    .offline("bundle verify --root @root.json @bent.zip")
                    .await,
            );
        }
    }
    for bent in [
        &good[..0],
        &good[..good.len() / 2],
        &good[..good.len() - 1],
        &[good.as_slice(), &[0]].concat(),
    ] {
        pipeline.push(bent).await.refused(422, "bundle_refused");
    }
    assert_eq!(pipeline.api.list("/policies/base/versions").await.len(), 0);
    pipeline.push(good).await.expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn p2_a_bundle_of_another_key_tenant_or_policy_is_refused_and_logged() {
    each_database(async |options| {
        let pipeline = Pipeline::new(options).await;
        let (server, api) = (&pipeline.server, &pipeline.api);
        let good = bundle::open(&pipeline.built("1", 1).await).expect("it is a bundle");
        let (policy, action) = (key_of(server, "policy"), key_of(server, "action"));
        let stranger = SigningKey::generate_ed25519().expect("a key can be made");
        api.post("/policies", &json!({"name": "other"})).await.expect(201);
        let other_tenant = muster_model::TenantId::from_uuid(uuid::Uuid::new_v4());
        let other_policy = muster_model::PolicyId::from_uuid(uuid::Uuid::new_v4());
        let foreign = [
            ("an unknown key", resigned(&good, &[&stranger], |_| {})),
            ("the key of another role", resigned(&good, &[&action], |_| {})),
            (
                "another tenant",
                resigned(&good, &[&policy], |source| source.tenant = other_tenant),
            ),
            (
                "another policy",
                resigned(&good, &[&policy], |source| source.policy_id = other_policy),
            ),
            (
                "another name",
                resigned(&good, &[&policy], |source| source.policy_name = "other"),
            ),
        ];
        pipeline.save_root().await;
        for (what, bytes) in &foreign {
            let answer = pipeline.push(bytes.clone()).await;
            assert!(
                answer.refused(422, "bundle_refused").contains("in the log"),
                "{what}"
            );
        }
        for (what, bytes) in &foreign[..3] {
            std::fs::write(pipeline.path("foreign.zip"), bytes).expect("it can be written");
            let output = pipeline
                .offline("bundle verify --root @root.json @foreign.zip")
                .await;
            assert_eq!(output.status.code(), Some(1), "{what}: {}", everything(&output));
        }
        let genuine = resigned(&good, &[&policy], |_| {});
        push(api, "other", genuine.clone())
            .await
            .refused(422, "bundle_refused");
        let entries = logged(api, "policy.bundle_refused", foreign.len() + 1).await;
        assert_eq!(entries.len(), foreign.len() + 1);
        let overview = api.get("/overview").await.ok();
        assert_eq!(overview["changes_refused"], foreign.len() + 1);
        assert_eq!(api.list("/policies/base/versions").await.len(), 0);
        // One signature of the tenant's key is enough, whoever else signed.
        let both = resigned(&good, &[&stranger, &policy], |_| {});
        pipeline.push(both).await.expect(201);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p3_rollback_gaps_the_future_and_mixed_files_are_refused() {
    each_database(async |options| {
        let pipeline = Pipeline::new(options).await;
        let key = key_of(&pipeline.server, "policy");
        let first = pipeline.built("1", 1).await;
        pipeline.push(first.clone()).await.expect(201);
        let open = bundle::open(&first).expect("it is a bundle");
        let newer: muster_model::text::VersionLabel = "2".parse().expect("it is a label");
        for sequence in [1, 3, u64::MAX] {
            let bytes = resigned(&open, &[&key], |source| {
                source.version = &newer;
                source.sequence = sequence;
            });
            let said = pipeline.push(bytes).await;
            assert!(
                said.refused(409, "conflict").contains("--sequence 2"),
                "{sequence}"
            );
        }
        let future = resigned(&open, &[&key], |source| {
            source.version = &newer;
            source.sequence = 2;
            source.created_at = source
                .created_at
                .plus(std::time::Duration::from_secs(40 * 365 * 86_400));
        });
        pipeline.push(future).await.refused(422, "bundle_refused");
        // The settings of one with the manifest of another.
        let other = resigned(&open, &[&key], |source| {
            source.version = &newer;
            source.sequence = 2;
            source.settings_json = br#"{"camera.allowed":true}"#;
        });
        let (ours, theirs) = (archive_of(&first), archive_of(&other));
        for name in [bundle::SETTINGS, bundle::MANIFEST, bundle::SIGNATURE] {
            let mut mixed = theirs.clone();
            mixed.insert(name.to_owned(), ours[name].clone());
            let bytes = archive::write(&mixed).expect("it is an archive");
            pipeline.push(bytes).await.refused(422, "bundle_refused");
        }
        // Signed as it should be, and not in the one form, or not of the catalogue.
        for (settings, code) in [
            (&br#"{ "camera.allowed": true }"#[..], "bundle_refused"),
            (br#"{"camera.alowed":true}"#, "settings_invalid"),
            (b"{}", "settings_invalid"),
            (
                br#"{"camera.allowed":true,"camera.allowed":true}"#,
                "settings_invalid",
            ),
        ] {
            let bytes = resigned(&open, &[&key], |source| {
                source.version = &newer;
                source.sequence = 2;
                source.settings_json = settings;
                source.rules_json = b"[]";
            });
            pipeline.push(bytes).await.refused(422, code);
        }
        assert_eq!(pipeline.api.list("/policies/base/versions").await.len(), 1);
        pipeline.push(other).await.expect(201);
    })
    .await;
}

fn archive_of(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    archive::read(bytes).expect("it is an archive")
}

#[tokio::test(flavor = "multi_thread")]
async fn p10_archives_that_readers_could_take_for_something_else_are_refused() {
    let pipeline = Pipeline::new(Options::default()).await;
    let good = pipeline.built("1", 1).await;
    let renamed = |to: &str| {
        let mut bytes = good.clone();
        let from = bundle::RULES.as_bytes();
        assert_eq!(from.len(), to.len());
        let places: Vec<usize> = (0..bytes.len() - from.len())
            .filter(|at| bytes[*at..].starts_with(from))
            .collect();
        for at in places {
            bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        }
        bytes
    };
    let compressed = |script: &str| {
        let script = script.to_owned();
        let (folder, good) = (pipeline.folder.path().to_owned(), good.clone());
        async move {
            std::fs::write(folder.join("good.zip"), good).expect("it can be written");
            let program = format!(
                "import zipfile,sys\na=zipfile.ZipFile(sys.argv[1]+'/good.zip')\nf={{n:a.read(n) for n in a.namelist()}}\n\
                 z=zipfile.ZipFile(sys.argv[1]+'/out.zip','w',{script}\nz.close()"
            );
            let output = crate::support::server::tool(
                "python3",
                &["-W", "ignore", "-c", &program, folder.to_str().expect("text")],
            )
            .await;
            done(&output);
            std::fs::read(folder.join("out.zip")).expect("it was written")
        }
    };
    let attacks = [
        ("traversal", renamed("../es.json")),
        ("absolute", renamed("/ules.json")),
        ("backslash", renamed("..\\es.json")),
        ("another case", renamed("Rules.json")),
        ("in front", [b"PK".as_slice(), &good].concat()),
        ("behind", [good.as_slice(), b"x"].concat()),
        (
            "deflated",
            compressed("zipfile.ZIP_DEFLATED)\n[z.writestr(n,b) for n,b in f.items()]").await,
        ),
        (
            "other times",
            compressed("zipfile.ZIP_STORED)\n[z.writestr(n,b) for n,b in f.items()]").await,
        ),
        (
            "twice",
            compressed("zipfile.ZIP_STORED)\n[z.writestr(n,b) for n,b in list(f.items())+list(f.items())]").await,
        ),
        (
            "many",
            compressed("zipfile.ZIP_STORED)\n[z.writestr(str(n),b'') for n in range(20000)]").await,
        ),
        (
            "a bomb",
            compressed("zipfile.ZIP_DEFLATED)\nz.writestr('settings.json',b' '*(200<<20))").await,
        ),
        (
            "nested",
            compressed("zipfile.ZIP_STORED)\nz.write(sys.argv[1]+'/good.zip','settings.json')").await,
        ),
        (
            "a link",
            compressed(
                "zipfile.ZIP_STORED)\ni=zipfile.ZipInfo('settings.json')\ni.external_attr=0o120777<<16\nz.writestr(i,'/etc/passwd')",
            )
            .await,
        ),
    ];
    for (what, bytes) in attacks {
        assert!(bytes.len() < 4 << 20, "{what} would be refused by its size alone");
        let answer = pipeline.push(bytes.clone()).await;
        answer.refused(422, "bundle_refused");
        std::fs::write(pipeline.path("attack.zip"), &bytes).expect("it can be written");
        let output = pipeline.offline("bundle show @attack.zip").await;
        assert_eq!(output.status.code(), Some(1), "{what}: {}", everything(&output));
    }
    pipeline
        .push(vec![0; (4 << 20) + 1])
        .await
        .refused(413, "body_too_large");
    let request = pipeline
        .api
        .request(Method::POST, "/policies/base/bundles")
        .body(good);
    answer(request).await.refused(415, "unsupported_media_type");
    assert_eq!(pipeline.api.list("/policies/base/versions").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_attempt_to_change_a_version_is_refused_logged_and_needs_a_person() {
    each_database(async |options| {
        let pipeline = Pipeline::new(options).await;
        let api = &pipeline.api;
        let first = pipeline.built("1", 1).await;
        pipeline.push(first.clone()).await.expect(201);
        api.post("/policies/base/activate", &json!({"version": "1"}))
            .await
            .expect(202);
        let key = key_of(&pipeline.server, "policy");
        let open = bundle::open(&first).expect("it is a bundle");
        let other = resigned(&open, &[&key], |source| {
            source.settings_json = br#"{"camera.allowed":true}"#
        });
        let said = pipeline.push(other.clone()).await;
        assert!(said.refused(409, "version_exists").contains("other content"));
        let later = resigned(&open, &[&key], |source| {
            source.created_at = source.created_at.plus(std::time::Duration::from_secs(1));
        });
        let said = pipeline.push(later).await;
        assert!(
            said.refused(409, "version_exists")
                .contains("the same content in another bundle")
        );
        let body = json!({"version": "1", "settings": {"camera.allowed": true}});
        api.post("/policies/base/versions", &body)
            .await
            .refused(409, "version_exists");
        for path in ["/policies/base/versions/1", "/policies/base/versions/1/bundle"] {
            for method in [Method::PUT, Method::PATCH, Method::DELETE] {
                let request = api.request(method, path).json(&body);
                answer(request).await.refused(405, "method_not_allowed");
            }
        }
        let entries = logged(api, "policy.change_refused", 3).await;
        assert_eq!(entries.len(), 3, "{entries:?}");
        assert!(
            entries
                .iter()
                .any(|entry| { entry["detail"]["offered_bundle_sha256"] == json!(sha256(&other).to_hex()) })
        );
        assert_eq!(api.get("/overview").await.ok()["changes_refused"], 3);
        let served = api.get("/policies/base/versions/1/bundle").await;
        assert!(served.bytes == first);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_made_offline_is_private_and_signs_nothing_before_the_root_document_names_it() {
    let pipeline = Pipeline::new(Options::default()).await;
    let output = pipeline
        .offline("key generate --role policy --out @own.pem -o json")
        .await;
    done(&output);
    let made: Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    let mode = std::os::unix::fs::MetadataExt::mode(
        &std::fs::metadata(pipeline.path("own.pem")).expect("it is there"),
    );
    assert_eq!(mode & 0o777, 0o600);
    let before = pipeline.bytes("own.pem");
    failed(
        &pipeline
            .offline("key generate --role policy --out @own.pem")
            .await,
    );
    assert_eq!(pipeline.bytes("own.pem"), before);
    let shown = done(&pipeline.offline("key show @own.pem").await);
    assert!(
        shown.contains(made["key_id"].as_str().expect("it has an id")),
        "{shown}"
    );
    assert!(!shown.contains("PRIVATE"), "{shown}");

    let build = format!(
        "bundle build {} --key @own.pem --out @own.zip",
        pipeline.identity("1", 1)
    );
    done(&pipeline.offline(&build).await);
    pipeline.save_root().await;
    failed(&pipeline.offline("bundle verify --root @root.json @own.zip").await);
    pipeline
        .push(pipeline.bytes("own.zip"))
        .await
        .refused(422, "bundle_refused");
    // A second signature by the tenant's key makes it a bundle.
    done(&pipeline.offline("bundle sign --key @policy.pem @own.zip").await);
    done(&pipeline.offline("bundle verify --root @root.json @own.zip").await);
    // The time is a part of the bundle: without one nothing is built.
    let timeless = pipeline
        .identity("1", 1)
        .replace(&format!("--created-at {CREATED}"), "");
    let output = pipeline
        .offline(&format!("bundle build {timeless} --out @x.zip"))
        .await;
    assert_eq!(output.status.code(), Some(2), "{}", everything(&output));
}
