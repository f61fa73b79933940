//! SimpleSAMLphp signs somebody in: our metadata and request, its login form, its response.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_saml::testing::{GENUINE, KeyKind, SERVICE_PROVIDER, attacks, decryption_pair, signing_pair};
use muster_saml::{
    Ask, Certificate, DecryptionKey, Endpoint, Expected, Identity, IdentityProvider, LogoutQuery,
    LogoutTarget, MustBeSigned, Profile, Reject, ServiceProvider, SigningKey, Verifier,
};

use crate::peers::{clock, installed, program, skip};

const INSTALLED: &str = "/usr/share/simplesamlphp/www";
const CONSUMER: &str = "https://mdm.example.com/saml/acs";

/// The identity provider, started.
struct SimpleSaml {
    folder: tempfile::TempDir,
    base: String,
    process: Child,
}

impl Drop for SimpleSaml {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl SimpleSaml {
    /// With the service provider known by its metadata, and by a second name that wants assertions encrypted.
    fn start(metadata: &str, encryption: &Certificate) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a port is free")
            .port();
        let base = format!("http://127.0.0.1:{port}/");
        configure(folder.path(), &base, metadata, encryption);
        let log = fs::File::create(folder.path().join("log/php")).expect("a file");
        let process = program("php")
            .args(["-S", &format!("127.0.0.1:{port}"), "-t", INSTALLED])
            .env("SIMPLESAMLPHP_CONFIG_DIR", folder.path())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("php starts");
        let started = Self {
            folder,
            base,
            process,
        };
        for _ in 0..400 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return started;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("php does not listen");
    }

    /// Asks for a page like a browser that keeps cookies and follows redirects.
    fn page(&self, arguments: &[&str]) -> String {
        let jar = self.folder.path().join("cookies");
        let output = program("curl")
            .args([
                "--silent",
                "--show-error",
                "--location",
                "--max-time",
                "60",
                "--cookie",
            ])
            .arg(&jar)
            .arg("--cookie-jar")
            .arg(&jar)
            .args(arguments)
            .output()
            .expect("curl runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Where a page of its own sends the browser in the end: the first address that is not its.
    fn sent_to(&self, address: &str) -> String {
        let mut next = address.to_owned();
        for _ in 0..10 {
            let head = self.page(&[
                "--no-location",
                "--dump-header",
                "-",
                "--output",
                "/dev/null",
                &next,
            ]);
            let location = head.lines().find_map(|line| line.strip_prefix("Location: "));
            let location = location.unwrap_or_else(|| panic!("{next} leads nowhere: {head}"));
            next = location.trim().to_owned();
            if !next.starts_with(&self.base) {
                return next;
            }
        }
        panic!("{next} leads in a circle");
    }

    /// Goes the way of a browser from our address through the login form, to the field that it would post to us.
    fn sign_in(&self, address: &str) -> Option<String> {
        let form = self.page(&[address]);
        let state = field(&form, "AuthState")?;
        let address = format!("{}module.php/core/loginuserpass.php", self.base);
        let state = format!("AuthState={state}");
        let posted = self.page(&[
            "--data-urlencode",
            "username=alice",
            "--data-urlencode",
            "password=pw",
            "--data-urlencode",
            &state,
            &address,
        ]);
        let response = field(&posted, "SAMLResponse");
        assert!(response.is_some(), "{posted}");
        response
    }
}

/// The value of a hidden field of a form.
fn field(page: &str, name: &str) -> Option<String> {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\""))?;
    let value = rest.split_once('"')?.0;
    Some(
        value
            .replace("&quot;", "\"")
            .replace("&#039;", "'")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&"),
    )
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

fn configure(folder: &Path, base: &str, metadata: &str, encryption: &Certificate) {
    let at = folder.display();
    for name in ["cert", "log", "tmp", "meta"] {
        fs::create_dir(folder.join(name)).expect("a folder");
    }
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("a file");
    let (pkcs8, certificate) = signing_pair(KeyKind::Rsa);
    write("cert/idp.key", &pem("PRIVATE KEY", &pkcs8));
    write("cert/idp.crt", &pem("CERTIFICATE", certificate.der()));
    write("meta/sp.xml", metadata);
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
    write(
        "authsources.php",
        "<?php $config = ['admin' => ['core:AdminPassword'], 'people' => ['exampleauth:UserPass', 'alice:pw' => [
        'uid' => ['alice'], 'email' => ['alice@example.com'], 'groups' => ['mdm-admins', 'tenant:finance']]]];",
    );
    write(
        "meta/saml20-idp-hosted.php",
        &format!(
            "<?php $metadata['{base}idp'] = ['host' => '__DEFAULT__', 'privatekey' => 'idp.key',
            'certificate' => 'idp.crt', 'auth' => 'people', 'saml20.sign.response' => true,
            'signature.algorithm' => 'http://www.w3.org/2001/04/xmldsig-more#rsa-sha256',
            'saml20.sign.assertion' => true, 'sign.logout' => true, 'validate.logout' => true, 'simplesaml.nameidattribute' => 'uid',
            'NameIDFormat' => 'urn:oasis:names:tc:SAML:2.0:nameid-format:persistent'];"
        ),
    );
    write(
        "meta/saml20-sp-remote.php",
        &format!(
            "<?php $metadata['{SERVICE_PROVIDER}/encrypted'] = ['AssertionConsumerService' => '{CONSUMER}',
            'simplesaml.nameidattribute' => 'uid', 'assertion.encryption' => true, 'certData' => '{}',
            'NameIDFormat' => 'urn:oasis:names:tc:SAML:2.0:nameid-format:persistent'];",
            STANDARD.encode(encryption.der())
        ),
    );
}

fn is_installed() -> bool {
    if !Path::new(INSTALLED).is_dir() {
        skip("simplesamlphp: not installed");
        return false;
    }
    installed("php", &["--version"]) && installed("curl", &["--version"])
}

fn service_provider(name: &str, decryption: DecryptionKey, encryption: &Certificate) -> ServiceProvider {
    let (pkcs8, signing) = signing_pair(KeyKind::Rsa);
    let key = SigningKey::from_pkcs8(&pkcs8).expect("the key is acceptable");
    let logout = Endpoint::parse("https://mdm.example.com/saml/logout").expect("an address");
    ServiceProvider::new(name, Endpoint::parse(CONSUMER).expect("an address"))
        .map(|here| here.with_single_logout(logout))
        .and_then(|here| here.with_signing(key, signing))
        .and_then(|here| here.with_decryption(decryption, encryption.clone()))
        .expect("the service provider is acceptable")
}

fn profile() -> Profile {
    Profile {
        groups_attribute: Some("groups".to_owned()),
        ..Profile::usual()
    }
}

#[test]
fn a_person_signs_in_at_simplesamlphp() {
    if !is_installed() {
        return;
    }
    let (decryption, encryption) = decryption_pair();
    let here = service_provider(SERVICE_PROVIDER, decryption, &encryption);
    let profile = profile();
    let peer = SimpleSaml::start(&here.metadata(&profile), &encryption);
    let metadata = peer.page(&[&format!("{}saml2/idp/metadata.php", peer.base)]);
    let there = IdentityProvider::from_metadata(metadata.as_bytes(), clock()).expect("its metadata is read");
    assert_eq!(there.entity_id(), format!("{}idp", peer.base));

    let ask = Ask {
        relay_state: Some("back to /devices?a=b"),
        force_authn: true,
    };
    let asked = here
        .authn_request(&there, &profile, &ask, clock(), [3; 20])
        .expect("the request is made");
    // It checks our signature: an address that was changed on the way gets no form.
    let changed = asked.url.replacen("RelayState=back", "RelayState=away", 1);
    assert_eq!(peer.sign_in(&changed), None);
    let posted = peer.sign_in(&asked.url).expect("there is a login form");

    let judge = |must_be_signed, message: &[u8], request: &str| -> Result<Identity, Reject> {
        let profile = Profile {
            must_be_signed,
            ..profile.clone()
        };
        Verifier::new(&here, &there, &profile)?.document(message, Expected::AnswerTo(request), clock())
    };
    let verifier = Verifier::new(&here, &there, &profile).expect("the profile is usable");
    let identity = verifier
        .response(&posted, Expected::AnswerTo(&asked.id), clock())
        .expect("the response is taken");
    assert_eq!(identity.name_id.value, "alice");
    assert_eq!(identity.groups, ["mdm-admins", "tenant:finance"]);
    assert_eq!(identity.values("email"), ["alice@example.com"]);
    assert!(identity.session_index.is_some());
    sign_out(&peer, &verifier, &here, &there, &identity);
    let other = verifier.response(&posted, Expected::AnswerTo("_other"), clock());
    assert_eq!(other.map(|_| ()), Err(Reject::InResponseTo));

    // A10 with what a real identity provider signed.
    let message = STANDARD.decode(&posted).expect("base64");
    let genuine = String::from_utf8(message).expect("text");
    for must_be_signed in [
        MustBeSigned::Assertion,
        MustBeSigned::Response,
        MustBeSigned::Both,
    ] {
        for attack in attacks(&genuine) {
            let verdict = judge(must_be_signed, &attack.message, &asked.id);
            assert_eq!(
                verdict.is_ok(),
                attack.name == GENUINE,
                "{} {must_be_signed:?}: {:?}",
                attack.name,
                verdict.map(|_| ())
            );
        }
    }
}

/// Ends the session there, and judges what it says about that.
fn sign_out(
    peer: &SimpleSaml,
    verifier: &Verifier<'_>,
    here: &ServiceProvider,
    there: &IdentityProvider,
    identity: &Identity,
) {
    let target = LogoutTarget {
        name_id: &identity.name_id,
        session_index: identity.session_index.as_deref(),
    };
    let asked = here
        .logout_request(there, &target, Some("out"), clock(), [5; 20])
        .expect("the request is made");
    let answered = peer.sent_to(&asked.url);
    let (address, query) = answered.split_once('?').expect("a query");
    assert_eq!(address, "https://mdm.example.com/saml/logout");
    let verdict = verifier.logout_response(LogoutQuery(query), &asked.id, clock());
    assert_eq!(verdict, Ok(()), "{query}");
    let changed = query.replace("RelayState=out", "RelayState=in");
    assert_ne!(changed, query);
    let verdict = verifier.logout_response(LogoutQuery(&changed), &asked.id, clock());
    assert_eq!(verdict, Err(Reject::SignatureInvalid));
}

#[test]
fn an_assertion_that_simplesamlphp_encrypts_with_cbc_is_refused() {
    if !is_installed() {
        return;
    }
    let (decryption, encryption) = decryption_pair();
    let here = service_provider(&format!("{SERVICE_PROVIDER}/encrypted"), decryption, &encryption);
    let profile = profile();
    let peer = SimpleSaml::start(&here.metadata(&profile).replace("/encrypted", ""), &encryption);
    let metadata = peer.page(&[&format!("{}saml2/idp/metadata.php", peer.base)]);
    let there = IdentityProvider::from_metadata(metadata.as_bytes(), clock()).expect("its metadata is read");
    let ask = Ask {
        relay_state: None,
        force_authn: false,
    };
    let asked = here
        .authn_request(&there, &profile, &ask, clock(), [4; 20])
        .expect("the request is made");
    let posted = peer.sign_in(&asked.url).expect("there is a login form");
    let verifier = Verifier::new(&here, &there, &profile).expect("the profile is usable");
    let verdict = verifier.response(&posted, Expected::AnswerTo(&asked.id), clock());
    // Version 1.19 knows no other way to encrypt for a certificate.
    assert_eq!(verdict.map(|_| ()), Err(Reject::EncryptionAlgorithm));
}
