//! E7: a device certificate used for real. FreeRADIUS lets it onto the Wi-Fi by EAP-TLS, and not once it is revoked.

use std::{fs, net::UdpSocket, path::Path};

use serde_json::json;
use tokio::process::Child;

use crate::support::{
    PATIENCE,
    attested::{Attested, bytes, trusted_maker},
    device::Device,
    eventually,
    pki::{Files, fetch, openssl_ok, peer_is_installed, pem, text},
    server::{Options, Server, everything, start_tool, tool},
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
        self.admits_with(folder, &files.leaf, &files.key).await
    }

    async fn admits_with(&self, folder: &Path, certificate: &Path, key: &Path) -> (bool, String) {
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
        let output = tool(
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

#[tokio::test(flavor = "multi_thread")]
async fn e7_the_certificate_of_an_attested_device_opens_the_wifi_and_not_once_it_is_revoked() {
    if !peer_is_installed("freeradius", "command -v freeradius && command -v eapol_test").await {
        return;
    }
    let server = Server::start(Options::default().with("--pki-listen", "127.0.0.1:0")).await;
    let api = server.api().await;
    let maker = trusted_maker(&api).await;
    let machine = Attested::new(&maker);
    let enrolled = machine.try_enroll(&api, &server.admin).await.expect(201);
    assert_eq!(enrolled["attestation_level"], "tpm2");
    let folder = server.folder().path().join("raddb");
    fs::create_dir(&folder).expect("a folder can be made");
    own_certificate(&folder).await;
    let chain: Vec<Vec<u8>> = enrolled["certificate_chain"]
        .as_array()
        .expect("a list")
        .iter()
        .map(bytes)
        .collect();
    let (certificate, key) = (folder.join("device.pem"), folder.join("device.key"));
    fs::write(&certificate, pem("CERTIFICATE", &chain[0])).expect("it can be written");
    fs::write(&key, pem("PRIVATE KEY", machine.tpm.device_pkcs8())).expect("it can be written");
    let root = fs::read_to_string(&server.admin.ca_file).expect("ca.pem is there");
    let authorities = root + &pem("CERTIFICATE", &chain[1]);

    let before = trust_in(&server, &authorities, &folder).await;
    let radius = Radius::start(&folder, &before, 1).await;
    let (is_admitted, said) = radius.admits_with(&folder, &certificate, &key).await;
    assert!(is_admitted, "{said}");
    drop(radius);

    let device = enrolled["device_id"].as_str().expect("an id is text");
    api.post(&format!("/devices/{device}/certificates/revoke"), &json!({}))
        .await
        .expect(204);
    let after = trust_in(&server, &authorities, &folder).await;
    let radius = Radius::start(&folder, &after, 2).await;
    let (is_admitted, said) = radius.admits_with(&folder, &certificate, &key).await;
    assert!(!is_admitted, "{said}");
    let log = fs::read_to_string(folder.join("radius-2.log")).expect("there is a log");
    assert!(
        log.contains("certificate revoked"),
        "it is refused for the right reason"
    );
}
