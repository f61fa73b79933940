//! The device CA's key outside the server: on a PKCS#11 token and in Vault's transit engine, there, gone and back.

use std::{fs, path::Path};

use crate::support::{
    api::Answer,
    device::{Applicant, Device, Door, token_for},
    pki::{Files, active_device_ca, fetch, openssl_ok, peer_is_installed, rotate, text},
    server::{Options, Server, assert_healthy, everything, tool_with},
    vault::{Fault, ROLE_ID, SECRET_ID, Vault},
};

const PIN: &str = "4711-of-the-test";
const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// Asserts that a refusal says that the key is away, and when to come again.
fn refused_for_now(answer: &Answer) {
    answer.refused(503, "ca_unavailable");
    let again: u64 = answer.header("retry-after").parse().expect("it says when");
    assert!((1..=300).contains(&again), "{again}");
}

/// Whether a key of the active device CA lies in the key folder.
async fn has_key_file(server: &Server) -> bool {
    let id = active_device_ca(&server.data_dir()).await;
    server
        .data_dir()
        .join(format!("keys/authorities/{id}.pem"))
        .exists()
}

/// Everything that the key folder holds, as one text.
fn keys_text(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            all.push_str(&keys_text(&path));
        } else {
            all.push_str(&String::from_utf8_lossy(
                &fs::read(&path).expect("it can be read"),
            ));
        }
    }
    all
}

/// A SoftHSM token in a folder of its own.
struct Token {
    folder: tempfile::TempDir,
}

impl Token {
    async fn init() -> Token {
        let folder = tempfile::tempdir().expect("a folder can be made");
        fs::create_dir(folder.path().join("tokens")).expect("a folder can be made");
        let config = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            folder.path().join("tokens").display()
        );
        fs::write(folder.path().join("softhsm2.conf"), config).expect("it can be written");
        fs::write(folder.path().join("pin"), format!("{PIN}\n")).expect("it can be written");
        let token = Token { folder };
        let arguments = [
            "--init-token",
            "--free",
            "--label",
            "muster",
            "--so-pin",
            "0000-of-the-test",
            "--pin",
            PIN,
        ];
        let made = tool_with("softhsm2-util", &arguments, &[("SOFTHSM2_CONF", &token.config())]).await;
        assert!(made.status.success(), "{}", everything(&made));
        token
    }

    fn config(&self) -> String {
        text(&self.folder.path().join("softhsm2.conf")).to_owned()
    }

    fn options(&self) -> Options {
        Options::default()
            .with("--device-ca-key", "pkcs11:device-ca-1")
            .with("--pkcs11-module", MODULE)
            .with("--pkcs11-token", "muster")
            .with("--pkcs11-pin-file", self.folder.path().join("pin").display())
            .with("--pki-listen", "127.0.0.1:0")
            .with_variable("SOFTHSM2_CONF", self.config())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pkcs11_token_keeps_the_device_cas_key() {
    let look = format!("command -v softhsm2-util && command -v pkcs11-tool && test -e {MODULE}");
    if !peer_is_installed("softhsm2", &look).await {
        return;
    }
    let token = Token::init().await;
    let mut server = Server::start(token.options()).await;
    assert!(!has_key_file(&server).await, "the key is on the token alone");
    let device = Device::enroll(&server.api().await, &server.admin).await;
    let files = Files::of(&server, &device, "token");
    openssl_ok(&["verify", "-CAfile", text(&files.trust), text(&files.leaf)]).await;
    assert_eq!(fetch(&server, "/pki/device-ca.crl").await.status, 200);
    let arguments = [
        "--module",
        MODULE,
        "--token-label",
        "muster",
        "--login",
        "--pin",
        PIN,
        "--list-objects",
        "--type",
        "privkey",
    ];
    let listed = tool_with("pkcs11-tool", &arguments, &[("SOFTHSM2_CONF", &token.config())]).await;
    let listed = everything(&listed);
    assert!(
        listed.contains("device-ca-1") && listed.contains("never extractable"),
        "{listed}"
    );
    assert!(!keys_text(&server.data_dir().join("keys")).contains(PIN));
    assert!(!server.log().contains(PIN));

    server.restart().await;
    let device = device.at(&server.admin);
    device.checkin().await;

    // The wrong PIN is a token that is away: the server starts, serves its devices, and uses no enrollment token up.
    fs::write(token.folder.path().join("pin"), "wrong").expect("it can be written");
    server.restart().await;
    device.at(&server.admin).checkin().await;
    let api = server.api().await;
    let (door, applicant) = (Door::of(&server.admin), Applicant::new());
    let ticket = token_for(&api, applicant.device_uuid).await;
    let begun = applicant.begin(&door, &ticket).await.ok();
    refused_for_now(&applicant.finish(&door, &ticket, &begun).await);
    fs::write(token.folder.path().join("pin"), PIN).expect("it can be written");
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let done = applicant.finish(&door, &ticket, &begun).await;
    done.expect(201);
    applicant.with_identity(&server.admin, &done).checkin().await;
    assert_healthy(&server).await;
}

impl Vault {
    fn options(&self, login: &[(&str, &str)]) -> Options {
        let options = Options::default()
            .with("--device-ca-key", "vault:muster-device-ca")
            .with("--vault-url", &self.url)
            .with("--pki-listen", "127.0.0.1:0");
        login
            .iter()
            .fold(options, |options, (name, value)| options.with(name, value))
    }
}

/// Asks the stand-in what our server asks, through the client library of the real one.
const HVAC: &str = r#"
import base64, hashlib, sys
import hvac
url, role_id, secret_id = sys.argv[1:4]
client = hvac.Client(url=url)
client.token = client.auth.approle.login(role_id, secret_id=secret_id)["auth"]["client_token"]
client.secrets.transit.create_key("judged", key_type="ecdsa-p256")
key = client.secrets.transit.read_key("judged")["data"]
assert key["type"] == "ecdsa-p256" and "BEGIN PUBLIC KEY" in key["keys"]["1"]["public_key"], key
digest = base64.b64encode(hashlib.sha256(b"x").digest()).decode()
signed = client.secrets.transit.sign_data(
    "judged", hash_input=digest, hash_algorithm="sha2-256", prehashed=True, marshaling_algorithm="asn1")
assert signed["data"]["signature"].startswith("vault:v1:"), signed
transit = client.secrets.transit
transit.create_key("wraps", key_type="aes256-gcm96")
assert transit.read_key("wraps")["data"]["type"] == "aes256-gcm96"
plain = base64.b64encode(b"a key").decode()
sealed = transit.encrypt_data("wraps", plaintext=plain)["data"]["ciphertext"]
assert sealed.startswith("vault:v1:") and transit.decrypt_data("wraps", ciphertext=sealed)["data"]["plaintext"] == plain
try:
    transit.decrypt_data("wraps", ciphertext="vault:v1:AAAA")
    sys.exit("what nobody wrapped was opened")
except hvac.exceptions.InvalidRequest:
    pass
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
key = ec.generate_private_key(ec.SECP256R1())
name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mdm.example")])
csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
pem = csr.public_bytes(serialization.Encoding.PEM).decode()
made = client.secrets.pki.sign_certificate("muster", pem, "mdm.example", extra_params={"alt_names": "m.example"})["data"]
leaf = x509.load_pem_x509_certificate(made["certificate"].encode())
assert leaf.public_key().public_numbers() == key.public_key().public_numbers()
issuer = x509.load_pem_x509_certificate(made["issuing_ca"].encode()).public_key()
issuer.verify(leaf.signature, leaf.tbs_certificate_bytes, ec.ECDSA(leaf.signature_hash_algorithm))
try:
    client.secrets.pki.sign_certificate("muster", pem, "mdm.elsewhere.com")
    sys.exit("a name that the role does not allow was certified")
except hvac.exceptions.InvalidRequest:
    pass
try:
    hvac.Client(url=url, token="hvs.none").secrets.transit.read_key("judged")
    sys.exit("a wrong token was accepted")
except hvac.exceptions.Forbidden:
    pass
print("judged")
"#;

/// The stand-in's own gate: without the vendor's client library it proves nothing.
pub async fn is_judged(vault: &Vault) -> bool {
    if !peer_is_installed("hvac", "/usr/bin/python3 -c 'import hvac'").await {
        return false;
    }
    say_judged(
        "/usr/bin/python3",
        &["-c", HVAC, &vault.url, ROLE_ID, SECRET_ID],
        &[],
    )
    .await;
    true
}

/// Asserts that a vendor's client, in Python, is content with a stand-in.
pub async fn say_judged(python: &str, arguments: &[&str], environment: &[(&str, &str)]) {
    let output = tool_with(python, arguments, environment).await;
    let said = everything(&output);
    assert!(output.status.success() && said.contains("judged"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn l9_vault_keeps_the_device_cas_key_and_its_absence_loses_nothing() {
    let vault = Vault::start().await;
    if !is_judged(&vault).await {
        return;
    }
    let secrets = tempfile::tempdir().expect("a folder can be made");
    let secret_file = secrets.path().join("secret-id");
    fs::write(&secret_file, SECRET_ID).expect("it can be written");
    let login = [
        ("--vault-role-id", ROLE_ID),
        ("--vault-secret-id-file", text(&secret_file)),
    ];
    let mut server = Server::start(vault.options(&login)).await;
    assert!(!has_key_file(&server).await, "the key is in Vault alone");
    let device = Device::enroll(&server.api().await, &server.admin).await;
    let files = Files::of(&server, &device, "vault");
    openssl_ok(&["verify", "-CAfile", text(&files.trust), text(&files.leaf)]).await;
    assert!(vault.signatures().await >= 2);

    // Vault goes away between the serial number and the signature: the same request finds the certificate again.
    let api = server.api().await;
    let (door, applicant) = (Door::of(&server.admin), Applicant::new());
    let ticket = token_for(&api, applicant.device_uuid).await;
    let begun = applicant.begin(&door, &ticket).await.ok();
    Device::enroll(&api, &server.admin).await;
    vault.set(Fault::Sealed).await;
    refused_for_now(&applicant.finish(&door, &ticket, &begun).await);
    let store = server.store().await;
    let waiting = "SELECT COUNT(*) FROM certificates_certificate WHERE to_sign IS NOT NULL";
    assert_eq!(store.value(waiting).await.integer(), 1);
    let all = store.count("certificates_certificate").await;
    vault.set(Fault::None).await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let done = applicant.finish(&door, &ticket, &begun).await;
    done.expect(201);
    applicant.with_identity(&server.admin, &done).checkin().await;
    assert_eq!(store.value(waiting).await.integer(), 0);
    assert_eq!(
        store.count("certificates_certificate").await,
        all,
        "no second one was made"
    );

    // A token that is over is replaced by a fresh login, and nobody notices.
    vault.forget_tokens().await;
    Device::enroll(&server.api().await, &server.admin).await;

    // A sealed Vault does not keep the server from starting or from serving devices that have their certificate.
    vault.set(Fault::Sealed).await;
    server.restart().await;
    let device = device.at(&server.admin);
    device.checkin().await;
    let api = server.api().await;
    let (door, applicant) = (Door::of(&server.admin), Applicant::new());
    let ticket = token_for(&api, applicant.device_uuid).await;
    let begun = applicant.begin(&door, &ticket).await.ok();
    for fault in [
        Fault::Sealed,
        Fault::Denied,
        Fault::Throttled,
        Fault::Garbage,
        Fault::Endless,
        Fault::WrongKey,
        Fault::Silent,
    ] {
        vault.set(fault).await;
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        let answer = applicant.finish(&door, &ticket, &begun).await;
        refused_for_now(&answer);
        if fault == Fault::Throttled {
            assert_eq!(answer.header("retry-after"), "17");
        }
        let list = fetch(&server, "/pki/device-ca.crl").await;
        refused_for_now(&list);
        device.checkin().await;
    }
    vault.set(Fault::None).await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let done = applicant.finish(&door, &ticket, &begun).await;
    done.expect(201);
    applicant.with_identity(&server.admin, &done).checkin().await;
    assert_eq!(fetch(&server, "/pki/device-ca.crl").await.status, 200);
    assert!(!server.log().contains(SECRET_ID) && !server.log().contains("hvs."));
    assert_healthy(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_device_cas_key_moves_from_a_file_into_vault() {
    let vault = Vault::start().await;
    if !is_judged(&vault).await {
        return;
    }
    let secrets = tempfile::tempdir().expect("a folder can be made");
    let token_file = secrets.path().join("token");
    fs::write(&token_file, &vault.token).expect("it can be written");
    let server = Server::start(
        Options::default()
            .with("--vault-url", &vault.url)
            .with("--vault-token-file", text(&token_file))
            .with("--pki-listen", "127.0.0.1:0"),
    )
    .await;
    assert!(has_key_file(&server).await);
    let before = fetch(&server, "/pki/device-ca.der").await.bytes;
    let more = [
        "--key",
        "vault:second",
        "--vault-url",
        &vault.url,
        "--vault-token-file",
        text(&token_file),
    ];
    rotate(&server, "device", &more).await;
    crate::support::eventually("the new device CA signs", crate::support::PATIENCE, async || {
        (fetch(&server, "/pki/device-ca.der").await.bytes != before).then_some(())
    })
    .await;
    assert!(!has_key_file(&server).await);
    let device = Device::enroll(&server.api().await, &server.admin).await;
    assert_ne!(device.enrolled.certificate_chain[1].0, before);
    device.checkin().await;
    assert_healthy(&server).await;
}

/// A server whose sealing key is wrapped: no file holds it, what it sealed opens after a restart, and a start without the keeper says so.
async fn the_sealing_key_is_wrapped(options: Options, (break_it, mend_it): (impl AsyncFn(), impl AsyncFn())) {
    let folder = std::sync::Arc::new(tempfile::tempdir().expect("a folder can be made"));
    // The first start has a key in a file, as every installation has had.
    let mut server = Server::start_in(
        std::sync::Arc::clone(&folder),
        "data",
        Options {
            arguments: Vec::new(),
            ..options.clone()
        },
    )
    .await;
    let file = server.data_dir().join("keys/sealing.key");
    let key = fs::read_to_string(&file).expect("it is there");
    let hook = serde_json::json!({
        "place": {"kind": "webhook", "url": "https://hook.example/x"},
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    });
    server
        .api()
        .await
        .put("/alert-destinations/hook", &hook)
        .await
        .ok();
    server.stop().await;
    for _ in 0..2 {
        let mut server = Server::start_in(std::sync::Arc::clone(&folder), "data", options.clone()).await;
        assert!(!file.exists(), "the key is in no file any more");
        let api = server.api().await;
        api.post("/alert-destinations/hook/test", &serde_json::json!({}))
            .await
            .expect(202);
        let patience = crate::support::PATIENCE;
        let said = crate::support::eventually("the message was tried", patience, async || {
            let all = api.list("/alert-deliveries").await;
            let tried = all.iter().find(|delivery| delivery["error"].is_string())?;
            Some(tried["error"].to_string())
        })
        .await;
        assert!(!said.contains("does not open"), "{said}");
        server.stop().await;
    }
    let keys = folder.path().join("data/keys");
    assert!(
        !keys_text(&keys).contains(key.trim()),
        "nothing in the folder holds it"
    );
    let start = async |options: &Options| {
        let arguments = crate::support::server::serve_arguments(&folder.path().join("data"), options);
        let mut command = crate::support::server::muster();
        command
            .args(&arguments)
            .envs(options.environment.iter().cloned())
            .kill_on_drop(true);
        let ended = tokio::time::timeout(std::time::Duration::from_secs(60), command.output()).await;
        let output = ended.expect("it ends").expect("it runs");
        assert!(!output.status.success());
        everything(&output)
    };
    break_it().await;
    let said = start(&options).await;
    assert!(said.contains("sealing key cannot be unwrapped"), "{said}");
    assert!(!said.contains(key.trim()) && !said.contains(PIN));
    mend_it().await;
    let forgotten = Options {
        arguments: Vec::new(),
        ..options.clone()
    };
    let said = start(&forgotten).await;
    assert!(said.contains("--sealing-key"), "{said}");
    assert!(!file.exists(), "nothing was made in its place");
}

#[tokio::test(flavor = "multi_thread")]
async fn l9_vault_wraps_the_sealing_key_and_a_start_without_it_says_so() {
    let vault = Vault::start().await;
    if !is_judged(&vault).await {
        return;
    }
    let secrets = tempfile::tempdir().expect("a folder can be made");
    let token_file = secrets.path().join("token");
    fs::write(&token_file, &vault.token).expect("it can be written");
    let options = Options::default()
        .with("--sealing-key", "vault:muster-sealing")
        .with("--vault-url", &vault.url)
        .with("--vault-token-file", text(&token_file));
    let (broken, mended) = (
        async || vault.set(Fault::Sealed).await,
        async || vault.set(Fault::None).await,
    );
    the_sealing_key_is_wrapped(options, (broken, mended)).await;
}

/// The sealing key moves from a file that the settings name into Vault, and nothing that it sealed is lost: a start that would make
/// another one in its place is refused.
#[tokio::test(flavor = "multi_thread")]
async fn the_sealing_key_moves_from_a_named_file_into_vault() {
    let vault = Vault::start().await;
    if !is_judged(&vault).await {
        return;
    }
    let folder = std::sync::Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let (named, token_file) = (folder.path().join("named"), folder.path().join("token"));
    fs::write(&named, "5a".repeat(32)).expect("it can be written");
    fs::write(&token_file, &vault.token).expect("it can be written");
    let in_file = Options::default().with("--sealing-key-file", text(&named));
    let mut server = Server::start_in(std::sync::Arc::clone(&folder), "data", in_file).await;
    let hook = serde_json::json!({
        "place": {"kind": "webhook", "url": "https://hook.example/x"},
        "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    });
    let api = server.api().await;
    api.put("/alert-destinations/hook", &hook).await.ok();
    let keys = server.data_dir().join("keys");
    server.stop().await;
    let in_vault = Options::default()
        .with("--sealing-key", "vault:muster-sealing")
        .with("--vault-url", &vault.url)
        .with("--vault-token-file", text(&token_file));
    let refused = async |options: &Options| {
        let arguments = crate::support::server::serve_arguments(&folder.path().join("data"), options);
        let mut command = crate::support::server::muster();
        command.args(&arguments).kill_on_drop(true);
        let ended = tokio::time::timeout(std::time::Duration::from_secs(60), command.output()).await;
        let output = ended.expect("it ends").expect("it runs");
        assert!(!output.status.success());
        let said = everything(&output);
        assert!(said.contains("this is no first run"), "{said}");
    };
    refused(&in_vault).await;
    refused(&Options::default()).await;
    assert!(!keys.join("sealing.json").exists() && !keys.join("sealing.key").exists());
    let both = in_vault.clone().with("--sealing-key-file", text(&named));
    for options in [both, in_vault] {
        let mut server = Server::start_in(std::sync::Arc::clone(&folder), "data", options).await;
        assert!(keys.join("sealing.json").exists() && !keys.join("sealing.key").exists());
        let api = server.api().await;
        api.post("/alert-destinations/hook/test", &serde_json::json!({}))
            .await
            .expect(202);
        let said =
            crate::support::eventually("the message was tried", crate::support::PATIENCE, async || {
                let all = api.list("/alert-deliveries").await;
                let tried = all.iter().find(|delivery| delivery["error"].is_string())?;
                Some(tried["error"].to_string())
            })
            .await;
        assert!(!said.contains("does not open"), "{said}");
        server.stop().await;
        let _ = fs::remove_file(&named);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pkcs11_token_wraps_the_sealing_key() {
    let look = format!("command -v softhsm2-util && command -v pkcs11-tool && test -e {MODULE}");
    if !peer_is_installed("softhsm2", &look).await {
        return;
    }
    let token = Token::init().await;
    let pin = token.folder.path().join("pin");
    let options = Options::default()
        .with("--sealing-key", "pkcs11:sealing")
        .with("--pkcs11-module", MODULE)
        .with("--pkcs11-token", "muster")
        .with("--pkcs11-pin-file", pin.display())
        .with_variable("SOFTHSM2_CONF", token.config());
    let write = |text: &'static str| {
        let pin = pin.clone();
        async move || fs::write(&pin, text).expect("it can be written")
    };
    the_sealing_key_is_wrapped(options, (write("wrong"), write(PIN))).await;
    let arguments = [
        "--module",
        MODULE,
        "--token-label",
        "muster",
        "--login",
        "--pin",
        PIN,
        "--list-objects",
        "--type",
        "secrkey",
    ];
    let listed = tool_with("pkcs11-tool", &arguments, &[("SOFTHSM2_CONF", &token.config())]).await;
    let listed = everything(&listed);
    assert!(
        listed.contains("sealing") && listed.contains("never extractable"),
        "{listed}"
    );
}
