//! The connection itself: TLS, certificates that are not ours any more, held streams, silent clients.

use std::{fs, path::Path, process::Stdio, sync::Arc, time::Duration};

use muster_channel_agent::path;
use muster_trust::key::SigningKey;
use reqwest::Method;
use serde_json::json;

use crate::{
    protocol::Ground,
    support::{
        PATIENCE,
        device::{Device, Handshake, Line, tls},
        eventually,
        machine::activate,
        server::{Options, Server, everything, program, tool},
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn tls_gives_no_resumption_and_no_older_version() {
    let ground = Ground::open().await;
    let chain = ground.device.chain();
    let handshake = Handshake {
        identity: Some((chain, &ground.device.applicant.key)),
        protocol: b"http/1.1",
    };
    let config = tls(&ground.server.admin, handshake);
    for _ in 0..3 {
        let mut line = Line::open(&ground.server.admin, &config)
            .await
            .expect("a connection");
        let (status, _) = line
            .post(path::CHECKIN, &ground.device.checkin_body())
            .await
            .expect("an answer");
        assert_eq!(status, 200);
        let session = line.0.get_ref().1;
        assert_eq!(session.handshake_kind(), Some(rustls::HandshakeKind::Full));
        assert_eq!(session.tls13_tickets_received(), 0);
        assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    }
    let address = ground.server.admin.device_address().to_owned();
    for version in ["-tls1_2", "-tls1_1"] {
        let output = tool("openssl", &["s_client", "-connect", &address, version, "-brief"]).await;
        assert!(
            !output.status.success(),
            "{version}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let output = tool(
        "openssl",
        &["s_client", "-connect", &address, "-tls1_3", "-brief"],
    )
    .await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `openssl s_client` as a device that asks for something and then leaves; what it says.
async fn s_client(address: &str, arguments: &[&str], request: &str) -> String {
    use tokio::io::AsyncWriteExt;
    let mut command = program(Path::new("openssl"));
    command
        .args(["s_client", "-connect", address, "-tls1_3"])
        .args(arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.kill_on_drop(true).spawn().expect("openssl starts");
    let mut input = child.stdin.take().expect("it is piped");
    input.write_all(request.as_bytes()).await.expect("it reads");
    input.flush().await.expect("it reads");
    let ended = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    drop(input);
    everything(&ended.expect("the server ends the connection").expect("it ends"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_session_of_a_device_is_worth_nothing() {
    let ground = Ground::open().await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (identity, session) = (file("device.pem"), file("session.pem"));
    fs::write(&identity, ground.device.identity_pem()).expect("a file can be written");
    let address = ground.server.admin.device_address();
    let body = ground.device.checkin_body().to_string();
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
        Content-Length: {}\r\n\r\n{body}",
        path::CHECKIN,
        body.len()
    );
    let with_key = ["-cert", &identity, "-key", &identity];
    let saving = [&with_key[..], &["-sess_out", &session]].concat();
    let said = s_client(address, &saving, &request).await;
    assert!(said.contains("HTTP/1.1 200"), "{said}");
    assert!(!said.contains("New Session Ticket arrived"), "{said}");
    // Where openssl kept nothing there is nothing to steal. What it kept is offered without the key.
    if Path::new(&session).exists() {
        let said = s_client(address, &["-sess_in", &session], &request).await;
        assert!(!said.contains("Reused"), "{said}");
        assert!(said.contains("certificate_required"), "{said}");
    }
    let reconnecting = [
        &["s_client", "-connect", address, "-tls1_3", "-reconnect"],
        &with_key[..],
    ]
    .concat();
    let said = everything(&tool("openssl", &reconnecting).await);
    assert_eq!(said.matches("New, TLSv1.3").count(), 6, "{said}");
    assert!(!said.contains("Reused"), "{said}");
}

/// A certificate for `key` that says what the device's certificate says, by an authority that the test made.
pub fn imitation(device: &Device, key: &SigningKey, expired: bool) -> Vec<Vec<u8>> {
    let authority_key = rcgen::KeyPair::generate().expect("a key");
    let mut authority = rcgen::CertificateParams::new(Vec::new()).expect("no names are fine");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let issuer_certificate = authority.self_signed(&authority_key).expect("a certificate");
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let pem = key.to_pkcs8_pem().expect("it can be written");
    let pair = rcgen::KeyPair::from_pem(&pem).expect("it is a key");
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("no names are fine");
    let name = format!(
        "urn:muster:{}:{}:{}",
        device.enrolled.tenant,
        device.id(),
        device.enrolled.epoch
    );
    parameters.subject_alt_names = vec![rcgen::SanType::URI(name.as_str().try_into().expect("a URI"))];
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    if expired {
        parameters.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    let leaf = parameters.signed_by(&pair, &issuer).expect("a certificate");
    vec![leaf.der().to_vec(), issuer_certificate.der().to_vec()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_refused_in_the_handshake() {
    let ground = Ground::open().await;
    let key = &ground.device.applicant.key;
    let real = ground.device.chain();
    let foreign = Server::start(Options::default()).await;
    let foreign_device = ground
        .device
        .applicant
        .enroll(&foreign.api().await, &foreign.admin)
        .await;
    let foreign_chain = foreign_device.chain();
    let own = imitation(&ground.device, key, false);
    let shown = [
        ("another authority", own.clone()),
        (
            "another authority, with the real one behind it",
            [own, real[1..].to_vec()].concat(),
        ),
        ("expired", imitation(&ground.device, key, true)),
        ("another installation", foreign_chain),
    ];
    for (what, chain) in shown {
        let handshake = Handshake {
            identity: Some((chain, key)),
            protocol: b"http/1.1",
        };
        let config = tls(&ground.server.admin, handshake);
        let outcome = async {
            let mut line = Line::open(&ground.server.admin, &config).await?;
            line.post(path::CHECKIN, &ground.device.checkin_body()).await
        };
        let outcome = tokio::time::timeout(PATIENCE, outcome)
            .await
            .expect("the connection ends");
        assert!(outcome.is_err(), "{what}: {outcome:?}");
    }
    let handshake = Handshake {
        identity: Some((real, key)),
        protocol: b"http/1.1",
    };
    let config = tls(&ground.server.admin, handshake);
    let mut line = Line::open(&ground.server.admin, &config)
        .await
        .expect("the real one is accepted");
    line.post(path::CHECKIN, &ground.device.checkin_body())
        .await
        .expect("and served");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_takes_effect_on_the_next_message_of_an_open_connection() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    for (verb, code) in [
        ("certificates/revoke", "certificate_revoked"),
        ("retire", "device_blocked"),
    ] {
        let device = Device::enroll(&api, &server.admin).await;
        let chain = device.chain();
        let handshake = Handshake {
            identity: Some((chain, &device.applicant.key)),
            protocol: b"http/1.1",
        };
        let config = tls(&server.admin, handshake);
        let mut line = Line::open(&server.admin, &config).await.expect("a connection");
        let (status, _) = line
            .post(path::CHECKIN, &device.checkin_body())
            .await
            .expect("an answer");
        assert_eq!(status, 200);
        api.post(&format!("/devices/{}/{verb}", device.id()), &json!({}))
            .await
            .expect(204);
        let (status, body) = line
            .post(path::CHECKIN, &device.checkin_body())
            .await
            .expect("an answer");
        assert_eq!((status, body["code"].as_str()), (403, Some(code)));
    }
}

/// The lines of a held stream, as they come.
pub struct Stream(reqwest::Response);

impl Stream {
    pub async fn of(device: &Device) -> Stream {
        let url = format!("{}{}", device.door.url, path::WAKE);
        let request = device.door.http.get(url).timeout(Duration::from_secs(120));
        let response = request.send().await.expect("the server answers");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/x-ndjson");
        Stream(response)
    }

    /// The next line; `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<String> {
        let chunk = tokio::time::timeout(PATIENCE, self.0.chunk())
            .await
            .expect("a line comes in time");
        chunk
            .ok()
            .flatten()
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_stream_calls_for_a_command_and_ends_with_the_certificate() {
    let ground = Ground::open().await;
    let device = &ground.device;
    device.send_facts().await;
    // Until nothing is due, the first line may call.
    device.checkin().await;
    let mut stream = Stream::of(device).await;
    assert!(stream.next().await.is_some(), "the first line comes at once");
    ground
        .api
        .post(
            &format!("/devices/{}/commands", device.id()),
            &json!({"type": "lock"}),
        )
        .await
        .expect(202);
    loop {
        let line = stream.next().await.expect("the stream is open");
        assert!(line.ends_with('\n') && line.len() <= 1024, "{line:?}");
        if line.contains("{\"wake\":true}") {
            break;
        }
    }
    ground
        .api
        .post(
            &format!("/devices/{}/certificates/revoke", device.id()),
            &json!({}),
        )
        .await
        .expect(204);
    let mut lines = 0;
    while stream.next().await.is_some() {
        lines += 1;
        assert!(lines < 3, "the stream of a revoked certificate ends");
    }
    device
        .door
        .send(Method::GET, path::WAKE, None, Vec::new())
        .await
        .refused(403, "certificate_revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_that_say_nothing_do_not_keep_a_device_out() {
    const SILENT: usize = 300;
    let mut ground = Ground::open().await;
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        let address = ground.server.admin.device_address();
        silent.push(
            tokio::net::TcpStream::connect(address)
                .await
                .expect("it is accepted"),
        );
    }
    let fresh = Arc::new(ground.device.at(&ground.server.admin));
    eventually("a device gets through", PATIENCE, async || {
        let request = fresh.door.try_post(path::CHECKIN, &fresh.checkin_body()).await;
        request.is_ok_and(|answer| answer.status == 200).then_some(())
    })
    .await;
    drop(silent);
    ground.still_serves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_stream_calls_for_a_policy_right_after_the_first_facts_came() {
    let ground = Ground::open().await;
    let device = &ground.device;
    device.checkin().await;
    let mut stream = Stream::of(device).await;
    assert!(stream.next().await.is_some(), "the first line comes at once");
    // With its first facts the node reads the device anew; a call in this moment must not pass it by.
    device.send_facts().await;
    activate(&ground.api, "base", "1", &json!({"camera.allowed": false})).await;
    loop {
        let line = stream.next().await.expect("the stream is open");
        if line.contains("{\"wake\":true}") {
            break;
        }
    }
    eventually("the policy is there", PATIENCE, async || {
        device.checkin().await.desired
    })
    .await;
}
