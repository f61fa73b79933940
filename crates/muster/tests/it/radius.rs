//! E7: a device certificate used for real. FreeRADIUS lets it onto the Wi-Fi by EAP-TLS, and not once it is revoked.

use std::{fs, net::UdpSocket, path::Path};

use serde_json::json;
use tokio::process::Child;

use crate::support::{
    PATIENCE,
    attested::{pem as certificate_pem, put_policy},
    device::Device,
    eventually,
    machine::Machine,
    pki::{Files, fetch, openssl_ok, peer_is_installed, pem, text},
    server::{Options, Server, everything, start_tool, tool_with},
    swtpm,
};

const SECRET: &str = "between-access-point-and-server";

/// A RADIUS server on a port of its own. It ends with the test.
struct Radius {
    _child: Child,
    port: u16,
}

impl Radius {
    /// Starts FreeRADIUS in `folder`, which trusts what is in `trust`: authorities and their revocation lists.
    async fn start(folder: &Path, trust: &Path, round: u32) -> Radius {
        let port = UdpSocket::bind("127.0.0.1:0")
            .and_then(|socket| socket.local_addr())
            .expect("there is a free port")
            .port();
        let config = configuration(folder, trust, port);
        fs::write(folder.join("radiusd.conf"), config).expect("it can be written");
        let log = folder.join(format!("radius-{round}.log"));
        let child = start_tool("/usr/sbin/freeradius", &["-X", "-d", text(folder)], &log);
        eventually("FreeRADIUS is ready", PATIENCE, async || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            assert!(!said.contains("Errors reading"), "{said}");
            said.contains("Ready to process requests").then_some(())
        })
        .await;
        Radius { _child: child, port }
    }

    /// Whether a client with this certificate is let in.
    async fn admits(&self, folder: &Path, files: &Files) -> (bool, String) {
        self.admits_with(folder, &files.leaf, &files.key, &[]).await
    }

    /// The same, with a key that OpenSSL needs more to use.
    async fn admits_with(
        &self,
        folder: &Path,
        certificate: &Path,
        key: &Path,
        environment: &[(&str, &str)],
    ) -> (bool, String) {
        let network = format!(
            "network={{\n ssid=\"muster\"\n key_mgmt=WPA-EAP\n eap=TLS\n identity=\"device\"\n ca_cert=\"{}\"\n \
             client_cert=\"{}\"\n private_key=\"{}\"\n}}\n",
            text(&folder.join("server.pem")),
            text(certificate),
            text(key)
        );
        let path = folder.join("eap.conf");
        fs::write(&path, network).expect("it can be written");
        let port = self.port.to_string();
        let output = tool_with(
            "eapol_test",
            &[
                "-c",
                text(&path),
                "-a",
                "127.0.0.1",
                "-p",
                &port,
                "-s",
                SECRET,
                "-t",
                "15",
            ],
            environment,
        )
        .await;
        let said = everything(&output);
        let is_admitted = output.status.success() && said.lines().last() == Some("SUCCESS");
        (is_admitted, said)
    }
}

/// The least that FreeRADIUS needs for EAP-TLS with revocation lists.
fn configuration(folder: &Path, trust: &Path, port: u16) -> String {
    let folder = text(folder);
    let trust = text(trust);
    format!(
        r#"
prefix = {folder}
logdir = {folder}
run_dir = {folder}
raddbdir = {folder}
libdir = /usr/lib/freeradius
dictionary_dir = /usr/share/freeradius
pidfile = {folder}/radiusd.pid
log {{
    destination = stdout
}}
security {{
    allow_vulnerable_openssl = yes
}}
thread pool {{
    start_servers = 1
    max_servers = 2
    min_spare_servers = 1
    max_spare_servers = 1
}}
client loopback {{
    ipaddr = 127.0.0.1
    secret = {SECRET}
}}
modules {{
    eap {{
        default_eap_type = tls
        tls-config wifi {{
            private_key_file = {folder}/server.key
            certificate_file = {folder}/server.pem
            ca_file = {trust}
            check_crl = yes
            tls_min_version = "1.2"
            tls_max_version = "1.2"
        }}
        tls {{
            tls = wifi
        }}
    }}
}}
server wifi {{
    listen {{
        type = auth
        ipaddr = 127.0.0.1
        port = {port}
    }}
    authorize {{
        eap
    }}
    authenticate {{
        eap
    }}
}}
"#
    )
}

/// The RADIUS server's own certificate.
async fn own_certificate(folder: &Path) {
    openssl_ok(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=radius",
        "-keyout",
        text(&folder.join("server.key")),
        "-out",
        text(&folder.join("server.pem")),
    ])
    .await;
}

/// What an administrator gives FreeRADIUS: root, device CA, and the list of the moment.
async fn trust(server: &Server, files: &Files, folder: &Path) -> std::path::PathBuf {
    let authorities = fs::read_to_string(&files.trust).expect("it was written");
    trust_in(server, &authorities, folder).await
}

async fn trust_in(server: &Server, authorities: &str, folder: &Path) -> std::path::PathBuf {
    let list = fetch(server, "/pki/device-ca.crl").await;
    let path = folder.join("trust.pem");
    fs::write(&path, format!("{authorities}{}", pem("X509 CRL", &list.bytes))).expect("it can be written");
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_freeradius_admits_a_valid_certificate_and_rejects_a_revoked_one() {
    if !peer_is_installed("freeradius", "command -v freeradius && command -v eapol_test").await {
        return;
    }
    let server = Server::start(Options::default().with("--pki-listen", "127.0.0.1:0")).await;
    let api = server.api().await;
    let (device, other) = (
        Device::enroll(&api, &server.admin).await,
        Device::enroll(&api, &server.admin).await,
    );
    let (files, other_files) = (
        Files::of(&server, &device, "wifi"),
        Files::of(&server, &other, "other"),
    );
    let folder = server.folder().path().join("raddb");
    fs::create_dir(&folder).expect("a folder can be made");
    own_certificate(&folder).await;

    let before = trust(&server, &files, &folder).await;
    let radius = Radius::start(&folder, &before, 1).await;
    for files in [&files, &other_files] {
        let (is_admitted, said) = radius.admits(&folder, files).await;
        assert!(is_admitted, "{said}");
    }
    drop(radius);

    api.post(
        &format!("/devices/{}/certificates/revoke", device.id()),
        &json!({}),
    )
    .await
    .expect(204);
    let after = trust(&server, &files, &folder).await;
    let radius = Radius::start(&folder, &after, 2).await;
    let (is_admitted, said) = radius.admits(&folder, &files).await;
    assert!(!is_admitted, "{said}");
    let log = fs::read_to_string(folder.join("radius-2.log")).expect("there is a log");
    assert!(
        log.contains("certificate revoked"),
        "it is refused for the right reason"
    );
    let (is_admitted, said) = radius.admits(&folder, &other_files).await;
    assert!(is_admitted, "{said}");
}

/// How OpenSSL is told of the provider that uses keys in a TPM.
const PROVIDERS: &str = "openssl_conf = start\n[start]\nproviders = providers\n[providers]\ndefault = both\ntpm2 = both\n\
    [both]\nactivate = 1\n";

#[tokio::test(flavor = "multi_thread")]
async fn e7_a_key_in_a_tpm_opens_the_wifi_and_not_once_its_certificate_is_revoked() {
    let look = "command -v freeradius && command -v eapol_test && ls /usr/lib/*/ossl-modules/tpm2.so";
    if !peer_is_installed("tpm2-openssl", look).await {
        return;
    }
    let Some(maker) = swtpm::Maker::new() else {
        return;
    };
    let tpm = maker.tpm("wifi", &[]);
    let server = Server::start(Options::default().with("--pki-listen", "127.0.0.1:0")).await;
    let api = server.api().await;
    let roots = format!(
        "{}{}",
        certificate_pem(maker.root()),
        certificate_pem(maker.issuer())
    );
    put_policy(
        &api,
        json!({"attestation": ["tpm2"], "tpm": {"roots_pem": roots}}),
    )
    .await
    .ok();
    let mut machine = Machine::new();
    machine.set_environment("MUSTER_TPM", &tpm.tcti());
    machine.enroll(&api, &server.admin).await;
    let shown = api.get(&format!("/devices/{}", machine.device)).await.ok();
    assert_eq!(shown["attestation"]["level"], "tpm2");

    let exported = machine.export().await;
    let key = fs::read_to_string(exported.join("device.key")).expect("it was written");
    assert!(
        key.starts_with("-----BEGIN TSS2 PRIVATE KEY-----"),
        "the key stays in the TPM"
    );
    let folder = server.folder().path().join("raddb");
    fs::create_dir(&folder).expect("a folder can be made");
    own_certificate(&folder).await;
    let providers = folder.join("openssl.cnf");
    fs::write(&providers, PROVIDERS).expect("it can be written");
    let tcti = tpm.tcti();
    let environment = [
        ("OPENSSL_CONF", text(&providers)),
        ("TPM2OPENSSL_TCTI", tcti.as_str()),
    ];
    let (certificate, key) = (exported.join("device.pem"), exported.join("device.key"));
    let authorities = authorities(&server, &certificate);

    let before = trust_in(&server, &authorities, &folder).await;
    let radius = Radius::start(&folder, &before, 1).await;
    let (is_admitted, said) = radius
        .admits_with(&folder, &certificate, &key, &environment)
        .await;
    assert!(is_admitted, "{said}");
    drop(radius);

    api.post(
        &format!("/devices/{}/certificates/revoke", machine.device),
        &json!({}),
    )
    .await
    .expect(204);
    let after = trust_in(&server, &authorities, &folder).await;
    let radius = Radius::start(&folder, &after, 2).await;
    let (is_admitted, said) = radius
        .admits_with(&folder, &certificate, &key, &environment)
        .await;
    assert!(!is_admitted, "{said}");
    let log = fs::read_to_string(folder.join("radius-2.log")).expect("there is a log");
    assert!(
        log.contains("certificate revoked"),
        "it is refused for the right reason"
    );
}

/// The root, and what stands in a device's chain behind its own certificate.
fn authorities(server: &Server, chain: &Path) -> String {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let root = fs::read_to_string(&server.admin.ca_file).expect("ca.pem is there");
    let chain = fs::read_to_string(chain).expect("it was written");
    let issuers: String = chain
        .split(BEGIN)
        .skip(2)
        .map(|rest| format!("{BEGIN}{rest}"))
        .collect();
    root + &issuers
}
