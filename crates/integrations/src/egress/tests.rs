use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn network(text: &str) -> Network {
    text.parse().expect("a network")
}

#[test]
fn j7_addresses_that_are_not_of_the_public_internet_are_refused() {
    let fence = Fence::default();
    for text in [
        "127.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "169.254.169.254",
        "172.31.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "198.18.0.1",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:db8::1",
        "::127.0.0.1",
    ] {
        assert!(!fence.allows(text.parse().expect("an address")), "{text}");
    }
    for text in [
        "8.8.8.8",
        "1.1.1.1",
        "2606:4700::1111",
        "::ffff:8.8.8.8",
        "172.32.0.1",
    ] {
        assert!(fence.allows(text.parse().expect("an address")), "{text}");
    }
}

#[test]
fn networks_are_allowed_by_name_and_exactly() {
    let fence = Fence {
        allowed: [network("10.2.0.0/16"), network("127.0.0.1"), network("fd00::/8")].into(),
    };
    let allows = |text: &str| fence.allows(text.parse().expect("an address"));
    assert!(allows("10.2.3.4") && allows("127.0.0.1") && allows("fd12::1") && allows("::ffff:10.2.0.1"));
    assert!(!allows("10.3.0.1") && !allows("127.0.0.2") && !allows("169.254.169.254"));
    for wrong in [
        "10.2.0.1/16",
        "10.0.0.0/33",
        "host",
        "",
        "10.0.0.0/",
        "::/129",
        "1.2.3.4/-1",
    ] {
        assert!(wrong.parse::<Network>().is_err(), "{wrong}");
    }
    assert!(network("0.0.0.0/0").contains("8.8.8.8".parse().expect("an address")));
    assert!(network("::/0").contains("::1".parse().expect("an address")));
}

async fn refused(url: &str) -> Option<ExchangeError> {
    let egress = Egress::new(&[network("192.168.7.0/24")], None).expect("a client");
    egress.exchange(url, |http, url| http.get(url)).await.err()
}

#[tokio::test]
async fn j7_every_spelling_of_an_address_is_looked_at() {
    for url in [
        "https://127.0.0.1/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0177.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://169.254.169.254/latest/meta-data",
        "https://localhost/",
        "https://127.1/",
    ] {
        assert_eq!(
            refused(url).await,
            Some(ExchangeError::Refused(Refused::Address)),
            "{url}"
        );
    }
    assert_eq!(
        refused("http://8.8.8.8/").await,
        Some(ExchangeError::Refused(Refused::Plain))
    );
    for url in ["file:///etc/passwd", "gopher://example.com", "nonsense"] {
        assert_eq!(
            refused(url).await,
            Some(ExchangeError::Refused(Refused::Url)),
            "{url}"
        );
    }
}

#[tokio::test]
async fn j7_no_connection_is_made_to_what_is_refused() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("it can be asked");
    let port = listener.local_addr().expect("it is bound").port();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        assert!(refused(&format!("https://{host}:{port}/")).await.is_some());
    }
    let egress = Egress::new(&[], None).expect("a client");
    assert!(egress.connect("127.0.0.1", port).await.is_err());
    assert!(listener.accept().is_err(), "nobody came");
}

/// What a hostile server does once it has read a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hostile {
    /// Says a gigabyte, and sends for as long as somebody reads.
    Long,
    /// As `Long`, without a word of how much it is.
    Chunked,
    /// A byte at a time.
    Drip,
    Silent,
    /// Headers without end.
    Headers,
    /// Interim answers without end (RFC 9110 section 15.2).
    Interim,
    /// Says that it is compressed.
    Bomb,
    /// Sends to itself again and again.
    Elsewhere,
    /// No HTTP.
    Noise,
}

/// How a hostile server was met: connections, and bytes that somebody took from it.
#[derive(Debug, Default)]
struct Met {
    connections: AtomicUsize,
    bytes: AtomicUsize,
}

/// Starts one on a port of its own, and answers its address.
async fn hostile(kind: Hostile) -> (String, Arc<Met>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let met = Arc::new(Met::default());
    let counted = Arc::clone(&met);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.connections.fetch_add(1, Ordering::SeqCst);
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let (head, again) = match kind {
                    Hostile::Long => (
                        "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n",
                        "x".repeat(65_536),
                    ),
                    Hostile::Chunked => (
                        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                        format!("8000\r\n{}\r\n", "x".repeat(0x8000)),
                    ),
                    Hostile::Drip => ("HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", "x".to_owned()),
                    Hostile::Silent => ("", String::new()),
                    Hostile::Headers => ("HTTP/1.1 200 OK\r\n", format!("X-{}: x\r\n", "a".repeat(200))),
                    Hostile::Interim => ("", "HTTP/1.1 103 Early Hints\r\n\r\n".to_owned()),
                    Hostile::Bomb => (
                        "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x7f\x08\x00",
                        String::new(),
                    ),
                    Hostile::Elsewhere => (
                        "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n",
                        String::new(),
                    ),
                    Hostile::Noise => ("SSH-2.0-OpenSSH_9.2\r\n\r\n", String::new()),
                };
                let pause = if kind == Hostile::Drip { 5 } else { 0 };
                let mut part = head.to_owned();
                while stream.write_all(part.as_bytes()).await.is_ok() {
                    counted.bytes.fetch_add(part.len(), Ordering::SeqCst);
                    if again.is_empty() {
                        tokio::time::sleep(Duration::from_secs(3600)).await;
                    }
                    tokio::time::sleep(Duration::from_millis(pause)).await;
                    part.clone_from(&again);
                }
            });
        }
    });
    (format!("http://127.0.0.1:{port}/"), met)
}

/// Every answer of a provider, store, pager or sink that speaks HTTP is read here.
#[tokio::test(flavor = "multi_thread")]
async fn j11_hostile_answers_are_bounded_in_bytes_time_and_connections() {
    let egress = Egress::new(&[network("127.0.0.1")], None).expect("a client");
    let bounds = Bounds {
        answer_bytes_max: ANSWER_BYTES_MAX,
        time: Duration::from_millis(500),
    };
    let patience = Duration::from_secs(30);
    for kind in [
        Hostile::Long,
        Hostile::Chunked,
        Hostile::Drip,
        Hostile::Silent,
        Hostile::Headers,
        Hostile::Interim,
        Hostile::Bomb,
        Hostile::Elsewhere,
        Hostile::Noise,
    ] {
        let (url, met) = hostile(kind).await;
        let asked = egress.exchange_within(bounds, &url, |http, url| http.get(url));
        let ended = tokio::time::timeout(patience, asked).await;
        let answer = ended.unwrap_or_else(|_| panic!("{kind:?} is waited for without end"));
        match (kind, &answer) {
            (Hostile::Long | Hostile::Chunked, Err(ExchangeError::TooLong)) => {}
            // What says that it is compressed is not made longer.
            (Hostile::Bomb, Ok(answer)) => assert_eq!(answer.body, [0x1f, 0x7f, 8, 0]),
            (Hostile::Elsewhere, Ok(answer)) => assert_eq!(answer.status, 302),
            (
                Hostile::Drip | Hostile::Silent | Hostile::Headers | Hostile::Interim | Hostile::Noise,
                Err(ExchangeError::Unreachable(why)),
            ) => {
                assert!(!why.contains("127.0.0.1"), "{why}");
            }
            (kind, answer) => panic!("{kind:?}: {answer:?}"),
        }
        // The rest is what the system keeps between two programs.
        let bytes = met.bytes.load(Ordering::SeqCst);
        assert!(
            kind == Hostile::Interim || bytes < 32 * 1024 * 1024,
            "{kind:?}: {bytes} bytes"
        );
        assert!(met.connections.load(Ordering::SeqCst) <= 2, "{kind:?}: {met:?}");
        // A server of HTTP is no server of TLS.
        let secure = url.replace("http:", "https:");
        let asked = egress.exchange_within(bounds, &secure, |http, url| http.get(url));
        let ended = tokio::time::timeout(patience, asked).await.expect("it ends");
        assert!(
            matches!(ended, Err(ExchangeError::Unreachable(_))),
            "{kind:?}: {ended:?}"
        );
    }
}

proptest::proptest! {
    #[test]
    fn no_text_makes_a_network_panic(text in "[0-9a-f.:/]{0,40}") {
        let _ = text.parse::<Network>();
    }

    #[test]
    fn an_address_is_in_its_own_network(bits in 0_u8..=128, address in proptest::prelude::any::<u128>()) {
        let address = IpAddr::V6(address.into());
        let network = Network { address, bits };
        proptest::prop_assert!(network.contains(address));
    }
}
