//! Proxies between devices and the server: those that end the devices' TLS, and those that only relay connections.

use std::{fs, net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use muster_channel_agent::path;
use muster_trust::key::{SigningKey, sha256};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream, UnixStream},
};

use crate::{
    support::{
        api::Api,
        device::{Applicant, Device, Handshake, Line, tls, token_for},
        haproxy::{Haproxy, free_port, haproxy},
        server::{AdminFile, Options, Server, everything, run_muster},
    },
    transport::imitation,
};

/// The identity of a proxy at the server: a certificate that nobody but itself has signed.
struct Hop {
    key: SigningKey,
    der: Vec<u8>,
    pem: String,
}

impl Hop {
    fn new() -> Hop {
        let key = SigningKey::generate_p256().expect("a key can be made");
        let key_pem = key.to_pkcs8_pem().expect("it can be written");
        let pair = rcgen::KeyPair::from_pem(&key_pem).expect("it is a key");
        let certificate = rcgen::CertificateParams::new(["proxy".to_owned()])
            .and_then(|parameters| parameters.self_signed(&pair))
            .expect("a certificate can be made");
        Hop {
            key,
            der: certificate.der().to_vec(),
            pem: format!("{}{}", certificate.pem(), *key_pem),
        }
    }

    fn fingerprint(&self) -> String {
        sha256(&self.der).to_string()
    }

    /// A connection of this proxy to a listener.
    async fn connect(&self, listener: &AdminFile) -> std::io::Result<Line> {
        let identity = Some((vec![self.der.clone()], &self.key));
        let protocol = b"http/1.1";
        Line::open(listener, &tls(listener, Handshake { identity, protocol })).await
    }
}

/// A server with a listener of proxies, and the one that may use it.
struct Ground {
    server: Server,
    api: Api,
    hop: Hop,
    /// The install, with the listener of proxies in the place of that of devices.
    behind: AdminFile,
}

impl Ground {
    async fn open(options: Options) -> Ground {
        let hop = Hop::new();
        let options = options
            .with("--proxy-listen", "127.0.0.1:0")
            .with("--proxy-identities", hop.fingerprint());
        let server = Server::start(options).await;
        let place = place_of_proxies(&server);
        Ground {
            api: server.api().await,
            behind: reached_at(&server, &place),
            server,
            hop,
        }
    }

    /// A connection of the proxy.
    async fn proxy(&self) -> Line {
        let line = self.hop.connect(&self.behind).await;
        line.expect("the proxy is let in")
    }

    async fn refused_count(&self) -> u64 {
        let url = format!("{}/metrics", self.server.admin.ops_url);
        let text = reqwest::get(url).await.expect("metrics are served").text().await;
        let text = text.expect("metrics are text");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("mdm_client_cert_refused_total "));
        line.and_then(|count| count.parse().ok()).expect("it is counted")
    }
}

/// What the banner says of the listener of proxies.
fn place_of_proxies(server: &Server) -> String {
    let banner = server.banner();
    let line = banner
        .lines()
        .find_map(|line| line.trim().strip_prefix("Proxies "));
    line.expect("the banner names it").trim().to_owned()
}

fn reached_at(server: &Server, address: &str) -> AdminFile {
    AdminFile {
        device_url: format!("https://{address}"),
        ..server.admin.clone()
    }
}

/// A device's certificate as a proxy passes it on (RFC 9440).
fn header_of(der: &[u8]) -> (&'static str, String) {
    ("Client-Cert", format!(":{}:", STANDARD.encode(der)))
}

fn leaf(device: &Device) -> &[u8] {
    &device.enrolled.certificate_chain[0].0
}

/// A check-in on a line with these headers; its status and code.
async fn checkin(line: &mut Line, device: &Device, headers: &[(&str, String)]) -> (u16, Option<String>) {
    let answer = line
        .post_with(path::CHECKIN, headers, &device.checkin_body())
        .await;
    let (status, body) = answer.expect("an answer");
    (status, body["code"].as_str().map(str::to_owned))
}

fn refused(status: u16, code: &str) -> (u16, Option<String>) {
    (status, Some(code.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a70_a_certificate_in_a_header_is_refused_on_the_public_listener() {
    let ground = Ground::open(Options::default()).await;
    let device = Device::enroll(&ground.api, &ground.server.admin).await;
    let chain = device.chain();
    for identity in [None, Some((chain, &*device.applicant.key))] {
        let protocol = b"http/1.1";
        let config = tls(&ground.server.admin, Handshake { identity, protocol });
        for name in [
            "Client-Cert",
            "client_cert",
            "Client-Cert-Chain",
            "CLIENT_CERT_CHAIN",
            "client-cert_chain",
        ] {
            let mut line = Line::open(&ground.server.admin, &config)
                .await
                .expect("a connection");
            let headers = [(name, header_of(leaf(&device)).1)];
            let got = checkin(&mut line, &device, &headers).await;
            assert_eq!(got, refused(400, "client_cert_refused"), "{name}");
        }
    }
    assert_eq!(ground.refused_count().await, 10);
    let said = ground.server.log().matches("certificate in a header").count();
    assert_eq!(said, 1, "strangers do not fill the log");
    device.checkin().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a72_only_a_listed_proxy_reaches_the_listener_of_proxies() {
    let ground = Ground::open(Options::default()).await;
    let device = Device::enroll(&ground.api, &ground.server.admin).await;
    let chain = device.chain();
    let unlisted = Hop::new();
    let strangers = [
        ("no certificate", None),
        ("another proxy", Some((vec![unlisted.der.clone()], &unlisted.key))),
        ("a device", Some((chain, &*device.applicant.key))),
    ];
    for (who, identity) in strangers {
        let protocol = b"http/1.1";
        let config = tls(&ground.behind, Handshake { identity, protocol });
        let outcome = async {
            let mut line = Line::open(&ground.behind, &config).await?;
            let headers = [header_of(leaf(&device))];
            line.post_with(path::CHECKIN, &headers, &device.checkin_body())
                .await
        };
        assert!(outcome.await.is_err(), "{who}");
    }
    let mut line = ground.proxy().await;
    let got = checkin(&mut line, &device, &[header_of(leaf(&device))]).await;
    assert_eq!(got, (200, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_speaks_for_many_devices_and_each_message_is_checked() {
    let ground = Ground::open(Options::default()).await;
    let (one, other) = (
        Device::enroll(&ground.api, &ground.server.admin).await,
        Device::enroll(&ground.api, &ground.server.admin).await,
    );
    let own = header_of(leaf(&one));
    let foreign = |expired| imitation(&one, &one.applicant.key, expired)[0].clone();
    let revoked = || refused(403, "certificate_revoked");
    let refusals: [(&[(&str, String)], _); 9] = [
        (&[], refused(401, "certificate_required")),
        (&[header_of(&foreign(false))], revoked()),
        (&[header_of(&foreign(true))], revoked()),
        (&[header_of(&[0x30, 0])], revoked()),
        (
            &[own.clone(), header_of(leaf(&other))],
            refused(400, "client_cert_refused"),
        ),
        (
            &[own.clone(), ("client_cert", own.1.clone())],
            refused(400, "client_cert_refused"),
        ),
        (
            &[("client_cert", own.1.clone())],
            refused(400, "client_cert_refused"),
        ),
        (
            &[("Client-Cert", STANDARD.encode(leaf(&one)))],
            refused(400, "client_cert_refused"),
        ),
        (
            &[("Client-Cert", format!(":{}:", "A".repeat(10_928)))],
            refused(400, "client_cert_refused"),
        ),
    ];
    for (headers, refusal) in refusals {
        // A refusal that comes before the body was read ends a connection of HTTP/1.1.
        let mut line = ground.proxy().await;
        assert_eq!(checkin(&mut line, &one, headers).await, refusal, "{headers:?}");
    }
    assert_eq!(ground.refused_count().await, 5);

    let mut line = ground.proxy().await;
    for device in [&one, &other, &one] {
        assert_eq!(
            checkin(&mut line, device, &[header_of(leaf(device))]).await,
            (200, None)
        );
    }
    ground
        .api
        .post(&format!("/devices/{}/certificates/revoke", one.id()), &json!({}))
        .await
        .expect(204);
    assert_eq!(
        checkin(&mut line, &other, &[header_of(leaf(&other))]).await,
        (200, None)
    );
    assert_eq!(checkin(&mut line, &one, &[own]).await, revoked());

    let applicant = Applicant::new();
    let token = token_for(&ground.api, applicant.device_uuid).await;
    let mut line = ground.proxy().await;
    let begun = line.post(path::ENROLL_BEGIN, &applicant.begin_body(&token)).await;
    assert_eq!(
        begun.expect("an answer").0,
        200,
        "who has no certificate yet may enroll"
    );
}

/// One request of HTTP/1.1 over a Unix socket; its status and body, or nothing if the connection just ends.
async fn over_unix(socket: &Path, device: &Device) -> Option<(u16, Value)> {
    let mut stream = UnixStream::connect(socket).await.expect("it is served");
    let (name, value) = header_of(leaf(device));
    let body = device.checkin_body().to_string();
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
        {name}: {value}\r\nContent-Length: {}\r\n\r\n{body}",
        path::CHECKIN,
        body.len()
    );
    let _ = stream.write_all(request.as_bytes()).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).unwrap_or_default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_serves_the_proxies_of_the_users_that_are_named() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let socket = folder.path().join("proxies");
    let listen = format!("unix:{}", socket.display());
    let mut server = Server::start(Options::default().with("--proxy-listen", &listen)).await;
    assert_eq!(place_of_proxies(&server), listen);
    let mode = fs::metadata(&socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    assert_eq!(
        over_unix(&socket, &device).await.map(|(status, _)| status),
        Some(200)
    );
    server.kill().await;
    assert!(socket.exists(), "a killed server leaves it behind");
    server.restart().await;
    assert_eq!(
        over_unix(&socket, &device).await.map(|(status, _)| status),
        Some(200)
    );

    let elsewhere = folder.path().join("others");
    let options = Options::default()
        .with("--proxy-listen", format!("unix:{}", elsewhere.display()))
        .with("--proxy-users", "4242424");
    let other = Server::start(options).await;
    let stranger = Device::enroll(&other.api().await, &other.admin).await;
    assert_eq!(
        over_unix(&elsewhere, &stranger).await,
        None,
        "we are not user 4242424"
    );
}

/// A TLS connection to the device listener from an address of loopback, after these bytes.
async fn after(server: &Server, from: &str, bytes: &[u8]) -> std::io::Result<Line> {
    let config = tls(
        &server.admin,
        Handshake {
            identity: None,
            protocol: b"http/1.1",
        },
    );
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.parse().expect("an address"), 0))?;
    let target = server.admin.device_address().parse().expect("an address");
    let mut stream = socket.connect(target).await?;
    stream.write_all(bytes).await?;
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("it is a name");
    let connector = tokio_rustls::TlsConnector::from(config);
    Ok(Line(connector.connect(name, stream).await?))
}

const RELAY: &str = "127.0.0.9";
const HEADER: &[u8] = b"PROXY TCP4 203.0.113.77 192.0.2.1 56324 443\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_protocol_is_demanded_from_relays_and_refused_from_everyone_else() {
    let options = Options::default().with("--proxy-protocol-from", format!("{RELAY}/32"));
    let server = Server::start(options).await;
    assert!(after(&server, "127.0.0.1", HEADER).await.is_err(), "it is no TLS");
    assert!(after(&server, RELAY, b"").await.is_err(), "TLS is no header");
    assert!(server.log().contains("must begin with the PROXY protocol"));
    after(&server, "127.0.0.1", b"")
        .await
        .expect("everyone else comes as ever");
    let mut line = after(&server, RELAY, HEADER)
        .await
        .expect("a relay says whose connection it is");
    let header = [("Client-Cert", String::new())];
    let answer = line.post_with("/agent/v1/ping", &header, &json!({})).await;
    assert_eq!(answer.expect("an answer").0, 400);
    assert!(server.log().contains("203.0.113.77:56324"), "{}", server.log());
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    after(&server, RELAY, local)
        .await
        .expect("a health check is the relay's own");
    after(&server, RELAY, b"PROXY UNKNOWN\r\n")
        .await
        .expect("an unknown client is one");
}

/// As `docs/how-to/run-behind-a-proxy.md` says it; the second door only relays.
fn configuration(ground: &Ground, folder: &Path, front: u16, relay: u16) -> String {
    let folder = folder.display();
    let proxies = ground.behind.device_address();
    let devices = ground.server.admin.device_address();
    let ca = ground.server.admin.ca_file.display();
    format!(
        "global
    tune.ssl.cachesize 0
defaults
    timeout connect 5s
    timeout client 60s
    timeout server 60s
frontend devices
    mode http
    bind 127.0.0.1:{front} ssl crt {folder}/proxy.pem ca-file {folder}/device-ca.pem verify optional ssl-min-ver TLSv1.3 no-tls-tickets alpn h2,http/1.1
    http-request del-header Client-Cert
    http-request del-header Client-Cert-Chain
    http-request set-header Client-Cert :%[ssl_c_der,base64]: if {{ ssl_c_used }}
    default_backend muster
backend muster
    mode http
    server one {proxies} ssl crt {folder}/hop.pem ca-file {ca} verify required verifyhost localhost source {RELAY} send-proxy-v2
listen relay
    mode tcp
    bind 127.0.0.1:{relay}
    server one {devices} source {RELAY} send-proxy-v2
"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_served_behind_haproxy_and_what_they_write_into_its_header_is_lost() {
    let Some(binary) = haproxy() else { return };
    let ground = Ground::open(Options::default().with("--proxy-protocol-from", format!("{RELAY}/32"))).await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let out = folder.path().to_str().expect("paths here are text");
    let data_dir = ground.server.data_dir();
    let data_dir = data_dir.to_str().expect("paths here are text");
    let issued = [
        "proxy-certificate",
        "--data-dir",
        data_dir,
        "--names",
        "localhost,127.0.0.1",
        "--out-dir",
        out,
    ];
    let issued = run_muster(issued).await;
    assert!(issued.status.success(), "{}", everything(&issued));
    fs::write(folder.path().join("hop.pem"), &ground.hop.pem).expect("a file can be written");
    let (front, relay) = (free_port(), free_port());
    let text = configuration(&ground, folder.path(), front, relay);
    let _haproxy = Haproxy::start(&binary, folder.path(), &text, front).await;
    let behind = reached_at(&ground.server, &format!("127.0.0.1:{front}"));

    let device = Device::enroll(&ground.api, &ground.server.admin).await;
    device.at(&behind).checkin().await;
    let relayed = reached_at(&ground.server, &format!("127.0.0.1:{relay}"));
    device.at(&relayed).checkin().await;

    // Who writes the header itself is who its TLS connection says, or nobody.
    let victim = Device::enroll(&ground.api, &ground.server.admin).await;
    let nobody = Handshake {
        identity: None,
        protocol: b"http/1.1",
    };
    let anonymous = tls(&behind, nobody);
    let mut line = Line::open(&behind, &anonymous).await.expect("a connection");
    let spoofed = [header_of(leaf(&victim)), header_of(leaf(&victim))];
    assert_eq!(
        checkin(&mut line, &victim, &spoofed).await,
        refused(401, "certificate_required")
    );
    let revoke = format!("/devices/{}/certificates/revoke", victim.id());
    ground.api.post(&revoke, &json!({})).await.expect(204);
    let chain = device.chain();
    let itself = Handshake {
        identity: Some((chain, &*device.applicant.key)),
        protocol: b"http/1.1",
    };
    let mut line = Line::open(&behind, &tls(&behind, itself))
        .await
        .expect("a connection");
    assert_eq!(
        checkin(&mut line, &device, &spoofed).await,
        (200, None),
        "it is not the victim"
    );
    victim
        .at(&behind)
        .try_checkin_with("epoch", json!(1))
        .await
        .refused(403, "certificate_revoked");

    underscore_from(&behind, anonymous, &victim).await;
    assert!(
        ground.server.log().contains("127.0.0.5:"),
        "{}",
        ground.server.log()
    );
}

/// An underscore passes HAProxy. The client comes from an address that the server can only know from the PROXY protocol.
async fn underscore_from(behind: &AdminFile, config: Arc<rustls::ClientConfig>, victim: &Device) {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket
        .bind("127.0.0.5:0".parse().expect("an address"))
        .expect("loopback is wide");
    let target = behind.device_address().parse().expect("an address");
    let stream: TcpStream = socket.connect(target).await.expect("haproxy listens");
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("it is a name");
    let stream = tokio_rustls::TlsConnector::from(config)
        .connect(name, stream)
        .await;
    let mut line = Line(stream.expect("a connection"));
    let headers = [("client_cert", header_of(leaf(victim)).1)];
    let got = checkin(&mut line, victim, &headers).await;
    assert_eq!(got, refused(400, "client_cert_refused"));
}
