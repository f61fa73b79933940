//! D: what is too much, too deep, too slow or half finished on the admin listener. The server goes on for everyone else.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{
    api::{Api, answer},
    raw,
    server::{Options, Server},
};

/// How soon somebody else must be answered while the server is under attack.
const SOON: Duration = Duration::from_secs(10);
/// How long a head may take (`Limits::header_timeout`), with room for a busy machine.
const HEAD_PATIENCE: Duration = Duration::from_secs(25);
/// How long a body may take (`Limits::body_timeout`), with room for a busy machine.
const BODY_PATIENCE: Duration = Duration::from_secs(45);

/// Asserts that a new client is served as ever, on both listeners.
async fn serves(server: &mut Server) {
    let api = timeout(SOON, server.api()).await.expect("a new client signs in");
    timeout(SOON, api.get("/policies"))
        .await
        .expect("it is answered")
        .ok();
    let ping = api.http.get(format!("{}/agent/v1/ping", server.admin.device_url));
    timeout(SOON, answer(ping))
        .await
        .expect("the device listener answers")
        .expect(200);
    assert!(server.runs());
}

async fn server_with_policy() -> (Server, Api) {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    api.post("/policies", &json!({"name": "p"})).await.expect(201);
    (server, api)
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_deep_wide_and_odd_json_is_refused() {
    let (mut server, api) = server_with_policy().await;
    let nested =
        |open: &str, close: &str, depth: usize| format!("{}{}", open.repeat(depth), close.repeat(depth));
    let keys: String = (0..100_000).map(|key| format!("\"k{key}\":1,")).collect();
    let settings = |value: &str| format!(r#"{{"version":"1","settings":{value}}}"#);
    let bodies = [
        ("/policies", nested("[", "]", 100_000)),
        ("/policies", nested("{\"a\":", "}", 100_000)),
        (
            "/policies",
            format!(r#"{{"name":{}}}"#, nested("[", "]", 100_000)),
        ),
        ("/policies", "[".repeat(1_000_000)),
        ("/policies", r#"{"name":"a","name":"b"}"#.into()),
        ("/policies", r#"{"name":"a"}{"name":"b"}"#.into()),
        ("/policies", r#"{"name":"a",}"#.into()),
        ("/policies", r#"{"name":NaN}"#.into()),
        ("/policies", r#"{"name":"\ud800"}"#.into()),
        ("/policies", r#"{"name":null}"#.into()),
        ("/policies", format!(r#"{{"name":{}}}"#, "9".repeat(10_000))),
        ("/policies", format!(r#"{{"name":"{}"}}"#, "x".repeat(1_000_000))),
        ("/policies", format!(r#"{{{keys}"name":"a"}}"#)),
        ("/policies/p/versions", settings(&nested("[", "]", 50_000))),
        (
            "/policies/p/versions",
            settings(&format!(r#"{{"wifi.networks":{}}}"#, nested("[", "]", 50_000))),
        ),
        (
            "/policies/p/versions",
            settings(&format!("{{{}}}", keys.trim_end_matches(','))),
        ),
        (
            "/policies/p/versions",
            settings(r#"{"passcode.min_length":8,"passcode.min_length":4}"#),
        ),
        (
            "/policies/p/versions",
            settings(&format!(r#"{{"passcode.min_length":{}}}"#, "9".repeat(10_000))),
        ),
        (
            "/policies/p/versions",
            settings(r#"{"passcode.min_length":1e999}"#),
        ),
        ("/policies/p/versions", settings(r#"{"passcode.min_length":8.0}"#)),
        ("/policies/p/versions", settings("[]")),
        ("/policies/p/versions", settings("null")),
        (
            "/policies/p/versions",
            format!(
                r#"{{"version":"1","settings":{{}},"rules":{}}}"#,
                nested("[", "]", 50_000)
            ),
        ),
        (
            "/policies/p/versions",
            r#"{"version":"1","settings":{},"settings":{"firewall.enabled":true}}"#.into(),
        ),
        (
            "/policies/p/activate",
            format!(r#"{{"version":"1","stages":{}}}"#, nested("[", "]", 50_000)),
        ),
        (
            "/policies/p/activate",
            format!(
                r#"{{"version":"1","target":{}}}"#,
                nested("{\"all\":", "}", 50_000)
            ),
        ),
        (
            "/commands",
            format!(r#"{{"type":"lock","devices":{}}}"#, nested("[", "]", 50_000)),
        ),
        (
            "/commands",
            r#"{"type":"restart","delay_seconds":99999999999999999999,"filter":""}"#.into(),
        ),
        (
            "/commands",
            r#"{"type":"restart","delay_seconds":-1,"filter":""}"#.into(),
        ),
        (
            "/commands",
            r#"{"type":"lock","ttl_seconds":18446744073709551615,"filter":""}"#.into(),
        ),
        ("/commands", r#"{"type":"explode","filter":""}"#.into()),
        (
            "/enrollment-tokens",
            r#"{"device_uuid":"00000000-0000-0000-0000-000000000000"}"#.into(),
        ),
        (
            "/enrollment-tokens",
            format!(
                r#"{{"device_uuid":"{}","ttl_seconds":9223372036854775807}}"#,
                uuid::Uuid::new_v4()
            ),
        ),
        (
            "/enrollment-tokens",
            format!(
                r#"{{"device_uuid":"{}","ttl_seconds":-9223372036854775808}}"#,
                uuid::Uuid::new_v4()
            ),
        ),
    ];
    for (path, body) in bodies {
        let answer = api.post_bytes(path, body.clone()).await;
        let problem = answer.header("content-type") == "application/problem+json";
        let refused = [400, 413, 422].contains(&answer.status);
        assert!(
            refused && problem,
            "{path} {body:.80} answered {}: {:.300}",
            answer.status,
            answer.text()
        );
        assert!(
            answer.bytes.len() < 100_000,
            "{path} {body:.80}: the answer is short: {}",
            answer.bytes.len()
        );
    }
    for bytes in [
        b"{\"name\":\"\xff\xfe\"}".to_vec(),
        b"\xef\xbb\xbf{\"name\":\"a\"}".to_vec(),
        vec![0; 1000],
        Vec::new(),
    ] {
        api.post_bytes("/policies", bytes).await.expect(400);
    }
    assert_eq!(api.list("/policies").await.len(), 1);
    assert_eq!(api.list("/policies/p/versions").await.len(), 0);
    serves(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_a_body_over_the_limit_is_refused_unread() {
    let (mut server, api) = server_with_policy().await;
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(2 * 1024 * 1024));
    api.post_bytes("/policies", large.clone())
        .await
        .refused(413, "body_too_large");
    let chunks = futures_util::stream::iter(
        large
            .clone()
            .into_bytes()
            .chunks(60_000)
            .map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()))
            .collect::<Vec<_>>(),
    );
    let request = api
        .request(Method::POST, "/policies")
        .header("content-type", "application/json");
    answer(request.body(reqwest::Body::wrap_stream(chunks)))
        .await
        .refused(413, "body_too_large");

    let mut endless = format!(
        "POST /api/v1/policies HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: 9999999999\r\n\r\n",
        api.token
    );
    endless.push_str(&large);
    let begun = Instant::now();
    let answer = raw::send(&server.admin, endless.as_bytes()).await;
    // The connection may be gone before the answer was read, as more was on its way.
    assert!(answer.status == 413 || answer.status == 0, "{}", answer.head);
    assert!(begun.elapsed() < SOON, "what is too large is not waited for");
    serves(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_compressed_bodies_are_not_inflated() {
    let (_server, api) = server_with_policy().await;
    for encoding in ["gzip", "br", "zstd", "deflate", "gzip, gzip"] {
        let request = api
            .request(Method::POST, "/policies")
            .header("content-type", "application/json");
        let answer = answer(
            request
                .header("content-encoding", encoding)
                .body(vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0]),
        )
        .await;
        assert!(
            answer.status == 400 || answer.status == 415,
            "{encoding}: {}",
            answer.status
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_heads_that_are_too_large_are_refused() {
    let (mut server, _api) = server_with_policy().await;
    let many: String = (0..10_000).map(|number| format!("X-{number}: y\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "y".repeat(1_000_000));
    let authorization = format!("Authorization: Bearer {}\r\n", "y".repeat(100_000));
    for headers in [many, long, authorization] {
        let request =
            format!("GET /api/v1/policies HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n");
        let answer = raw::send(&server.admin, request.as_bytes()).await;
        assert!([0, 400, 401, 431].contains(&answer.status), "{}", answer.status);
        let target = format!("/api/v1/policies?filter={}", "y".repeat(200_000));
        let answer = raw::get(&server.admin, &target, &[]).await;
        assert!(
            [0, 400, 401, 414, 431].contains(&answer.status),
            "{}",
            answer.status
        );
    }
    serves(&mut server).await;
}

/// Waits for the server to close a connection; how long it took.
async fn closed(stream: &mut (impl AsyncReadExt + Unpin)) -> Duration {
    let begun = Instant::now();
    let mut rest = Vec::new();
    let ended = timeout(HEAD_PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the server closes the connection");
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_a_head_that_drips_is_cut_off() {
    let (mut server, _api) = server_with_policy().await;
    let admin = server.admin.clone();
    let mut stream = raw::connect(&admin, admin.admin_address(), b"http/1.1")
        .await
        .expect("it connects");
    stream
        .write_all(b"GET /api/v1/policies HTTP/1.1\r\nHost: localhost\r\n")
        .await
        .expect("it is open");
    let begun = Instant::now();
    let dripped = timeout(HEAD_PATIENCE, async {
        loop {
            if stream.write_all(b"X-A: b\r\n").await.is_err() || stream.flush().await.is_err() {
                return;
            }
            let mut byte = [0];
            if matches!(
                timeout(Duration::from_millis(500), stream.read(&mut byte)).await,
                Ok(Ok(0) | Err(_))
            ) {
                return;
            }
        }
    });
    assert!(dripped.await.is_ok(), "still open after {:?}", begun.elapsed());
    serves(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_a_body_that_drips_is_cut_off() {
    let (mut server, _api) = server_with_policy().await;
    let admin = server.admin.clone();
    let mut stream = raw::connect(&admin, admin.admin_address(), b"http/1.1")
        .await
        .expect("it connects");
    let head = "POST /oauth2/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\
                Content-Type: application/x-www-form-urlencoded\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("it is open");
    let dripped = timeout(BODY_PATIENCE, async {
        loop {
            let mut byte = [0];
            let written = stream.write_all(b"a").await.is_ok() && stream.flush().await.is_ok();
            if !written
                || timeout(Duration::from_millis(500), stream.read(&mut byte))
                    .await
                    .is_ok()
            {
                return;
            }
        }
    });
    assert!(dripped.await.is_ok(), "the body is not waited for any longer");
    serves(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_a_connection_that_asks_for_nothing_is_closed() {
    let (mut server, _api) = server_with_policy().await;
    let admin = server.admin.clone();
    let mut silent = Vec::new();
    for (address, protocol, bytes) in [
        (admin.admin_address(), "http/1.1", &b""[..]),
        (admin.admin_address(), "http/1.1", b"P"),
        (admin.admin_address(), "h2", b""),
        (admin.admin_address(), "h2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (admin.device_address(), "h2", b"PRI * HTTP/2.0\r\n\r\n"),
    ] {
        let mut stream = raw::connect(&admin, address, protocol.as_bytes())
            .await
            .expect("it connects");
        stream.write_all(bytes).await.expect("it is open");
        silent.push(stream);
    }
    for stream in &mut silent {
        closed(stream).await;
    }
    let mut without_hello = TcpStream::connect(admin.admin_address())
        .await
        .expect("it connects");
    closed(&mut without_hello).await;
    serves(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_half_open_connections_keep_nobody_waiting() {
    const HALF_OPEN: usize = 600;
    let (mut server, _api) = server_with_policy().await;
    let admin = server.admin.clone();
    let hello = client_hello(&admin);
    let mut held = Vec::new();
    for number in 0..HALF_OPEN {
        for address in [admin.admin_address(), admin.device_address()] {
            let mut socket = TcpStream::connect(address).await.expect("it connects");
            match number % 3 {
                0 => {}
                1 => socket.write_all(&hello[..20]).await.expect("it is open"),
                _ => socket.write_all(&hello).await.expect("it is open"),
            }
            held.push(socket);
        }
    }
    serves(&mut server).await;
}

/// The first message of a TLS client that then goes silent.
fn client_hello(admin: &crate::support::server::AdminFile) -> Vec<u8> {
    let config = raw::client_config(admin, b"h2");
    let name = rustls::pki_types::ServerName::try_from("localhost").expect("it is a name");
    let mut client = rustls::ClientConnection::new(config, name).expect("a client can be made");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a vector takes it");
    bytes
}

const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("frames here are small")
        .to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET /` for `localhost`, in HPACK without a table.
fn get_headers() -> Vec<u8> {
    [&[0x82, 0x84, 0x87, 0x41, 9][..], b"localhost"].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_rapid_reset_ends_the_connection_and_nothing_else() {
    const STREAMS: u32 = 20_000;
    let (mut server, _api) = server_with_policy().await;
    let admin = server.admin.clone();
    for address in [admin.admin_address(), admin.device_address()] {
        let mut stream = raw::connect(&admin, address, b"h2").await.expect("it connects");
        stream.write_all(H2_PREFACE).await.expect("it is open");
        let attack = async {
            for number in 0..STREAMS {
                let id = 2 * number + 1;
                let mut bytes = frame(1, 5, id, &get_headers());
                bytes.extend(frame(3, 0, id, &8_u32.to_be_bytes()));
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            let _ = stream.flush().await;
        };
        let _ = timeout(SOON, attack).await;
        let mut rest = Vec::new();
        let ended = timeout(SOON, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the server ends a connection that only resets");
        serves(&mut server).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_a_flood_of_continuations_ends_the_connection_and_nothing_else() {
    let (mut server, _api) = server_with_policy().await;
    let admin = server.admin.clone();
    let mut stream = raw::connect(&admin, admin.admin_address(), b"h2")
        .await
        .expect("it connects");
    stream.write_all(H2_PREFACE).await.expect("it is open");
    stream
        .write_all(&frame(1, 1, 1, &get_headers()))
        .await
        .expect("it is open");
    let more = frame(
        9,
        0,
        1,
        &[&[0x40, 1, b'x', 0x7f, 0x81, 0x7e][..], &[b'y'; 253]].concat(),
    );
    let attack = async {
        for _ in 0..50_000 {
            if stream.write_all(&more).await.is_err() {
                return true;
            }
        }
        false
    };
    assert!(
        timeout(SOON, attack).await.expect("the server reads or closes"),
        "13 MB of headers were not taken"
    );
    serves(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_many_streams_at_once_are_all_answered_or_refused() {
    let (mut server, api) = server_with_policy().await;
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let api = api.clone();
        asked.spawn(async move { api.get("/policies").await.status });
    }
    let statuses = asked.join_all().await;
    assert!(statuses.iter().all(|status| *status == 200));
    serves(&mut server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_two_parsers_would_read_differently_are_refused() {
    let (mut server, _api) = server_with_policy().await;
    let smuggled = [
        "POST /oauth2/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "POST /oauth2/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        "POST /oauth2/token HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "POST /oauth2/token HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "GET /api/v1/version HTTP/1.1\r\nHost: local host\r\nX: a\0b\r\n\r\n",
        "GET /api/v1/version HTTP/1.1\r\n Host: localhost\r\n\r\n",
        "GET /api/v1/version\r\n\r\n",
        "GET  /api/v1/version HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03",
        "GET /api/v1/version HTTP/9.9\r\nHost: localhost\r\n\r\n",
    ];
    for request in smuggled {
        let mut stream = raw::connect(&server.admin, server.admin.admin_address(), b"http/1.1")
            .await
            .expect("it connects");
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = raw::read_answer(&mut stream, Duration::from_secs(3)).await;
        assert!(
            answer.status == 0 || (400..500).contains(&answer.status),
            "{request:?} answered {}",
            answer.status
        );
    }
    serves(&mut server).await;
}
