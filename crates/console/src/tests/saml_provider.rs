//! Signing in with a real SAML identity provider in a real browser: SimpleSAMLphp and Chromium.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Stdio},
    time::Duration,
};

use axum::http::Method;
use base64::{Engine, engine::general_purpose::STANDARD};
use muster_integrations::Egress;
use muster_saml::testing::{KeyKind, Provider as Keys};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::{
    browser::{Stage, stage_of},
    chromium::program,
};
use crate::testing::Scene;

const INSTALLED: &str = "/usr/share/simplesamlphp/www";
const FIND: &str = "test -d /usr/share/simplesamlphp/www && command -v php && command -v curl; \
    test \"$CI\" = true -o \"$MUSTER_REQUIRE_PEERS\" = 1 && echo required >&2; true";
const PATH: &str = "/api/v1/access/connections/corp";

/// Whether everything is installed. Without it the tests say so; where peers are required they fail.
fn is_installed() -> bool {
    let output = program("sh")
        .args(["-c", FIND])
        .output()
        .expect("a shell can be started");
    let is_there = String::from_utf8_lossy(&output.stdout).lines().count() == 2;
    if !is_there {
        assert!(
            output.stderr.is_empty(),
            "SimpleSAMLphp is required here and is not installed"
        );
        println!("SKIPPED simplesamlphp: it is not installed");
    }
    is_there
}

/// The identity provider, started.
struct Provider {
    folder: tempfile::TempDir,
    base: String,
    process: Child,
}

impl Drop for Provider {
    fn drop(&mut self) {
        // It is our own child; one that has ended already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Provider {
    fn start() -> Provider {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port is free")
            .port();
        let base = format!("http://127.0.0.1:{port}/");
        configure(folder.path(), &base);
        let process = program("php")
            .args(["-S", &format!("127.0.0.1:{port}"), "-t", INSTALLED])
            .env("SIMPLESAMLPHP_CONFIG_DIR", folder.path())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log/php")).expect("a file can be made"))
            .spawn()
            .expect("php can be started");
        let provider = Provider {
            folder,
            base,
            process,
        };
        for _ in 0..400 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return provider;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("php does not listen");
    }

    fn metadata(&self) -> String {
        let output = program("curl")
            .args(["--silent", "--fail", "--max-time", "60"])
            .arg(format!("{}saml2/idp/metadata.php", self.base))
            .output()
            .expect("curl can be started");
        assert!(output.status.success(), "the provider has no metadata");
        String::from_utf8(output.stdout).expect("it is text")
    }

    /// Tells the provider about this server, by its metadata.
    fn know(&self, metadata: &str) {
        fs::write(self.folder.path().join("meta/sp.xml"), metadata).expect("a file can be written");
    }

    /// Tells it so by hand, and to encrypt what it sends.
    fn encrypt_for(&self, addresses: &Value, certificate: &str) {
        let text = |name: &str| addresses[name].as_str().expect("it has this address").to_owned();
        let entry = format!(
            "<?php $metadata['{}'] = ['AssertionConsumerService' => '{}', 'assertion.encryption' => true, 'certData' => '{certificate}',
            'simplesaml.nameidattribute' => 'uid', 'NameIDFormat' => 'urn:oasis:names:tc:SAML:2.0:nameid-format:persistent'];",
            text("entity_id"),
            text("acs_url"),
        );
        fs::write(self.folder.path().join("meta/saml20-sp-remote.php"), entry)
            .expect("a file can be written");
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let lines: Vec<&str> = body
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("base64 is ASCII"))
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

fn configure(folder: &Path, base: &str) {
    let at = folder.display();
    for name in ["cert", "log", "tmp", "meta"] {
        fs::create_dir(folder.join(name)).expect("a folder can be made");
    }
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("a file can be written");
    let keys = Keys::new(KeyKind::Rsa);
    write("cert/idp.key", &pem("PRIVATE KEY", keys.pkcs8()));
    write("cert/idp.crt", &pem("CERTIFICATE", keys.certificate().der()));
    // Somebody else's, until it is told about this server.
    let usual = muster_saml::Profile::usual();
    write("meta/sp.xml", &Keys::service_provider().metadata(&usual));
    write("meta/saml20-sp-remote.php", "<?php ");
    write(
        "config.php",
        &format!(
            "<?php $config = ['baseurlpath' => '{base}', 'certdir' => '{at}/cert/', 'loggingdir' => '{at}/log/',
            'datadir' => '{at}/tmp/', 'tempdir' => '{at}/tmp', 'secretsalt' => 'for this test', 'timezone' => 'UTC',
            'auth.adminpassword' => 'for this test', 'technicalcontact_email' => 'a@example.com', 'debug' => null,
            'technicalcontact_name' => 'x', 'enable.saml20-idp' => true, 'store.type' => 'phpsession',
            'module.enable' => ['exampleauth' => true, 'core' => true, 'saml' => true],
            'session.cookie.secure' => false, 'session.cookie.samesite' => null,
            'session.phpsession.cookiename' => 'SSP', 'session.phpsession.savepath' => '{at}/tmp',
            'metadatadir' => '{at}/meta', 'metadata.sources' => [['type' => 'flatfile', 'directory' => '{at}/meta'],
            ['type' => 'xml', 'file' => '{at}/meta/sp.xml']], 'logging.handler' => 'file', 'logging.level' => 5,
            'errorreporting' => true, 'showerrors' => true, 'language.default' => 'en', 'theme.use' => 'default',
            'admin.protectindexpage' => false];"
        ),
    );
    let person = |name: &str, shown: &str, groups: &str| {
        format!(
            "'{name}:pw' => ['uid' => ['{name}'], 'email' => ['{name}@example.com'], 'displayName' => ['{shown}'], 'groups' => [{groups}]]"
        )
    };
    write(
        "authsources.php",
        &format!(
            "<?php $config = ['admin' => ['core:AdminPassword'], 'people' => ['exampleauth:UserPass', {}, {}]];",
            person("ada", "Ada Lovelace", "'mdm-admins', 'staff'"),
            person("cleo", "Cleo", "'staff'"),
        ),
    );
    write(
        "meta/saml20-idp-hosted.php",
        &format!(
            "<?php $metadata['{base}idp'] = ['host' => '__DEFAULT__', 'privatekey' => 'idp.key',
            'certificate' => 'idp.crt', 'auth' => 'people', 'saml20.sign.response' => true,
            'signature.algorithm' => 'http://www.w3.org/2001/04/xmldsig-more#rsa-sha256',
            'saml20.sign.assertion' => true, 'sign.logout' => true, 'validate.logout' => true,
            'simplesaml.nameidattribute' => 'uid',
            'NameIDFormat' => 'urn:oasis:names:tc:SAML:2.0:nameid-format:persistent'];"
        ),
    );
}

/// A stage whose tenant is connected with the provider; the connection as the API tells of it.
async fn connected() -> Option<(Stage, Provider, Value)> {
    if !is_installed() {
        return None;
    }
    let stage = stage_of(async |base: &str| Scene::at_now(base).await).await?;
    let networks = ["127.0.0.0/8", "::1"].map(|text| text.parse().expect("it is a network"));
    let egress = Egress::new(&networks, None).expect("a client can be made");
    assert!(
        stage.scene.app.web.set(Box::new(egress)).is_ok(),
        "it is set once"
    );
    let provider = block_in_place(Provider::start);
    let metadata = block_in_place(|| provider.metadata());
    let body = json!({"definition": {"kind": "saml", "metadata": metadata, "must_be_signed": "both"}});
    let made = stage.scene.call(Method::PUT, PATH, &body.to_string()).await;
    assert_eq!(made["definition"]["entity_id"], format!("{}idp", provider.base));
    let grant = json!({"role": "owner", "group": "mdm-admins", "source": "corp"});
    stage
        .scene
        .call(Method::POST, "/api/v1/access/grants", &grant.to_string())
        .await;
    Some((stage, provider, made))
}

async fn our_metadata(stage: &Stage, made: &Value) -> String {
    let id = made["id"].as_str().expect("it has an id");
    stage.scene.get(&format!("/auth/saml/{id}/metadata")).await.body
}

fn log_in_at_provider(stage: &mut Stage, who: &str) {
    stage.scene.catch_up();
    stage.until("document.readyState === 'complete' && document.querySelector('[name=username]') !== null");
    stage.evaluate(&format!(
        "document.querySelector('[name=username]').value = '{who}'"
    ));
    stage.evaluate("document.querySelector('[name=password]').value = 'pw'");
    stage.evaluate("document.forms.f.submit()");
    post_back(stage);
}

/// The provider's page posts its answer; without its script a person presses the button.
fn post_back(stage: &mut Stage) {
    stage.until(
        "location.hostname === 'localhost' || (document.readyState === 'complete' && \
         document.getElementById('postLoginSubmitButton') !== null)",
    );
    stage.evaluate(
        "location.hostname === 'localhost' || document.getElementById('postLoginSubmitButton').click()",
    );
    stage.until("location.hostname === 'localhost' && document.readyState === 'complete'");
}

fn sign_in(stage: &mut Stage, who: &str) {
    stage.open("/signin?next=/devices");
    stage.evaluate("document.querySelector('a.primary').click()");
    log_in_at_provider(stage, who);
}

/// A page that needs a person leads to where people sign in.
fn is_signed_out(stage: &mut Stage) {
    let page = json!(format!("{}/devices", stage.base));
    stage.evaluate(&format!("location.href = {page}"));
    stage.until("location.pathname === '/signin' && document.readyState === 'complete'");
}

async fn outcome_of(stage: &Stage, step: &str) -> (String, String) {
    let path = format!("{PATH}/test");
    let test = stage.scene.call(Method::POST, &path, "").await;
    let steps = test["items"].as_array().expect("it is a list").iter();
    let found = steps.clone().find(|found| found["step"] == step);
    let found = found.unwrap_or_else(|| panic!("there is a step {step}: {test}"));
    let text = |name: &str| found[name].as_str().unwrap_or_default().to_owned();
    (text("outcome"), text("detail"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_signs_in_proves_it_again_and_signs_out_in_both_directions() {
    let Some((mut stage, provider, made)) = connected().await else {
        return;
    };
    provider.know(&our_metadata(&stage, &made).await);
    for step in ["metadata", "certificates", "keys", "logout", "reach"] {
        let (outcome, detail) = outcome_of(&stage, step).await;
        assert_eq!(outcome, "ok", "{step}: {detail}");
    }
    sign_in(&mut stage, "ada");
    stage.until("location.pathname === '/devices' && document.readyState === 'complete'");
    let shown = stage
        .evaluate("document.querySelector('header').textContent")
        .to_string();
    assert!(
        shown.contains("Ada Lovelace") && shown.contains("Access"),
        "{shown}"
    );
    assert_eq!(outcome_of(&stage, "claims").await.0, "ok");

    // Before what changes who may do what the provider asks again, though it knows her.
    stage.scene.pass_seconds(14 * 60);
    stage.open("/devices");
    stage.scene.pass_seconds(2 * 60);
    stage.open("/access/roles");
    stage.evaluate("document.querySelector('[name=name]').value = 'viewer'");
    stage.evaluate("document.querySelector('[name=scope]').checked = true");
    stage.evaluate("document.querySelector('form[action=\"/access/roles/put\"] button').click()");
    stage.until("document.body.textContent.includes('Prove who you are')");
    stage.evaluate("document.querySelector('a.primary').click()");
    stage.until("location.pathname === '/step-up' && document.readyState === 'complete'");
    stage.scene.catch_up();
    stage.evaluate("document.querySelector('a.primary').click()");
    log_in_at_provider(&mut stage, "ada");
    stage.until("location.pathname === '/access/roles' && location.search === '?notice=proven'");

    // She signs out here, and from here there.
    stage.evaluate("document.querySelector('.person button').click()");
    stage.until("location.pathname === '/signin' && document.readyState === 'complete'");
    stage.scene.catch_up();
    stage.evaluate("document.querySelector('.notice a').click()");
    stage.until("location.search === '?left=everywhere' && document.readyState === 'complete'");
    is_signed_out(&mut stage);

    // The provider has forgotten her as well: it asks. Then the session is ended there, and is over here.
    sign_in(&mut stage, "ada");
    stage.until("location.pathname === '/devices' && document.readyState === 'complete'");
    let end = format!("{0}saml2/idp/initSLO.php?RelayState={0}robots.txt", provider.base);
    stage.scene.catch_up();
    stage.evaluate(&format!("location.href = {}", json!(end)));
    stage.until("location.pathname === '/robots.txt' || document.body.textContent.includes('logged out')");
    is_signed_out(&mut stage);

    // Somebody without a role gets a page that says so, and no session.
    sign_in(&mut stage, "cleo");
    stage.until("document.body.textContent.includes('You have no role here')");
    is_signed_out(&mut stage);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_simplesamlphp_encrypts_with_cbc_is_refused_and_the_reason_stands_at_the_connection() {
    let Some((mut stage, provider, made)) = connected().await else {
        return;
    };
    let metadata = our_metadata(&stage, &made).await;
    let (_, rest) = metadata
        .split_once("use=\"encryption\"")
        .expect("there is a key for it");
    let certificate = rest
        .split_once("<ds:X509Certificate>")
        .and_then(|(_, rest)| rest.split_once("</ds:X509Certificate>"))
        .expect("it has a certificate")
        .0;
    provider.encrypt_for(&made["addresses"], certificate);
    sign_in(&mut stage, "ada");
    stage.until("document.body.textContent.includes('The sign-in was refused')");
    let page = stage.evaluate("document.body.textContent").to_string();
    assert!(
        page.contains("the connection corp") && !page.contains("CBC"),
        "{page}"
    );
    is_signed_out(&mut stage);
    let (outcome, detail) = outcome_of(&stage, "claims").await;
    assert!(
        outcome == "failed" && detail.contains("encryption.algorithm"),
        "{detail}"
    );
}
