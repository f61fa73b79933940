//! Syslog: messages of RFC 5424 with counted octets (RFC 6587 section 3.4.1) over TLS (RFC 5425), or over TCP in networks that the
//! operator allowed.
//!
//! Syslog has no acknowledgment. What there is instead is the end of the connection: each batch has one of its own, after the last
//! message we say that we are done (`close_notify`, RFC 5425 section 4.4; the end of the stream on TCP), and the receiver answers
//! with its own end when it has read everything before. Only then is the batch taken; in every other case it is sent again, under
//! the same ids. An end that came before ours is no answer, and neither is one of a connection of which TCP does not know that
//! every byte arrived: whoever closes what it did not read has its system reset the connection (RFC 2525 section 2.17). A receiver
//! that reads and then loses what it read is not noticed, and nor is what a proxy of TCP in between took and did not hand on.

use std::{io, time::Duration};

use muster_control::sinks::{
    Item, NotSent, Probe, ProbeStep, Refusal, SinkAddress, SinkPlace, SyslogSecurity, Verdict,
};
use rustls::AlertDescription;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_rustls::client::TlsStream;

use super::{failed, failed_at, misplaced, not_sent, reach_host, secret};
use crate::egress::{Egress, Identity, Protection, tls_version};

/// How long writing a batch may take.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// How long the receiver may take to answer the end of the stream.
const CLOSE_TIME: Duration = Duration::from_secs(15);
/// How long is listened for an end that comes before ours.
const EARLY_END_TIME: Duration = Duration::from_millis(5);
/// How often it is looked whether TCP is over with a connection.
const OVER_EVERY: Duration = Duration::from_millis(5);
/// How long is listened for a refusal where no answer is asked for.
const REFUSAL_TIME: Duration = Duration::from_secs(1);
/// What is read of a receiver that talks, which none should.
const TALK_BYTES_MAX: usize = 4096;
/// "log audit" of RFC 5424 section 6.2.1.
const FACILITY: u8 = 13;
const MSGID_BYTES_MAX: usize = 32;

/// A place of syslog, taken apart.
struct Receiver<'a> {
    host: &'a str,
    port: u16,
    security: SyslogSecurity,
    certificate: Option<&'a str>,
    enterprise_id: u32,
    message_bytes_max: usize,
    confirm: bool,
}

fn receiver<'a>(to: &SinkAddress<'a>) -> Result<Receiver<'a>, NotSent> {
    let SinkPlace::Syslog {
        host,
        port,
        security,
        client_certificate,
        enterprise_id,
        message_bytes_max,
        confirm,
    } = to.place
    else {
        return Err(misplaced());
    };
    Ok(Receiver {
        host,
        port: *port,
        security: *security,
        certificate: client_certificate.as_deref(),
        enterprise_id: *enterprise_id,
        message_bytes_max: usize::try_from(*message_bytes_max).unwrap_or(usize::MAX),
        confirm: *confirm,
    })
}

impl Receiver<'_> {
    fn protection(&self) -> Protection {
        match self.security {
            SyslogSecurity::Tls => Protection::Tls,
            SyslogSecurity::Plain => Protection::Plain,
        }
    }

    fn end(&self) -> End {
        match self.confirm {
            true => End::Confirmed(CLOSE_TIME),
            false => End::Written,
        }
    }

    fn identity(&self, to: &SinkAddress<'_>) -> Result<Option<Identity>, NotSent> {
        let Some(certificate) = self.certificate else {
            return Ok(None);
        };
        Identity::read(certificate, secret(to)?)
            .map(Some)
            .map_err(|why| not_sent(why.to_owned(), Refusal::Later))
    }
}

/// When a batch is taken.
#[derive(Debug, Clone, Copy)]
enum End {
    /// When the receiver answered the end of the stream within this time.
    Confirmed(Duration),
    /// When it was written.
    Written,
}

/// Messages in their frames, and what there is to say of those that are too long.
struct Framed {
    bytes: Vec<u8>,
    verdicts: Vec<Verdict>,
}

pub async fn send(egress: &Egress, to: &SinkAddress<'_>, items: &[Item]) -> Result<Vec<Verdict>, NotSent> {
    let receiver = receiver(to)?;
    let framed = framed(&receiver, to, items);
    if framed.bytes.is_empty() {
        return Ok(framed.verdicts);
    }
    let found = egress
        .look_up_host(receiver.host, receiver.port, receiver.protection())
        .await
        .map_err(failed)?;
    let stream = egress.connect_to(&found).await.map_err(failed)?;
    match receiver.security {
        SyslogSecurity::Plain => hand_over(stream, &framed.bytes, receiver.end()).await?,
        SyslogSecurity::Tls => {
            let identity = receiver.identity(to)?;
            let tls = egress.secure(receiver.host, stream, identity).await;
            let tls = tls.map_err(|why| not_sent(format!("TLS fails: {why}"), Refusal::Later))?;
            hand_over(tls, &framed.bytes, receiver.end()).await?;
        }
    }
    Ok(framed.verdicts)
}

/// A test, step by step. With TLS 1.3 a receiver refuses a certificate only after the handshake (RFC 8446 section 4.4.2): that is
/// why the secret is judged by what follows.
pub async fn probe(egress: &Egress, to: &SinkAddress<'_>, items: &[Item], probe: &mut Probe) {
    let receiver = match receiver(to) {
        Ok(receiver) => receiver,
        Err(failed) => return failed_at(probe, ProbeStep::Resolve, failed.why),
    };
    let address = (receiver.host, receiver.port);
    let Some(stream) = reach_host(egress, address, receiver.protection(), probe).await else {
        return;
    };
    let framed = framed(&receiver, to, items);
    let handed = match receiver.security {
        SyslogSecurity::Plain => hand_over(stream, &framed.bytes, receiver.end()).await,
        SyslogSecurity::Tls => {
            let identity = match receiver.identity(to) {
                Ok(identity) => identity,
                Err(failed) => return failed_at(probe, ProbeStep::Tls, failed.why),
            };
            let shows = identity.is_some();
            match egress.secure(receiver.host, stream, identity).await {
                Err(why) => return failed_at(probe, ProbeStep::Tls, why),
                Ok(tls) => {
                    probe.note(ProbeStep::Tls, Ok(tls_version(&tls)));
                    let handed = hand_over(tls, &framed.bytes, receiver.end()).await;
                    match &handed {
                        Err(failed) if failed.why.starts_with(ALERT) => {
                            return failed_at(probe, ProbeStep::Authenticate, failed.why.clone());
                        }
                        _ if shows => {
                            probe.note(
                                ProbeStep::Authenticate,
                                Ok("the certificate is not refused".to_owned()),
                            );
                        }
                        _ => {}
                    }
                    handed
                }
            }
        }
    };
    let said = match (handed, receiver.confirm) {
        (Ok(()), true) => Ok("the receiver read a test event to its end".to_owned()),
        (Ok(()), false) => Ok("a test event was written; whether it was read nobody says".to_owned()),
        (Err(failed), _) => Err(failed.why),
    };
    probe.note(ProbeStep::Write, said);
}

/// How the text begins when the receiver ended TLS with an alert.
const ALERT: &str = "the receiver refuses TLS";

/// A connection, with or without TLS.
trait Connection: AsyncRead + AsyncWrite + Unpin {
    /// The connection of TCP that it is, or that is under it.
    fn tcp(&self) -> &TcpStream;
}

impl Connection for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Connection for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Writes everything, ends the stream, and waits for the receiver's end.
async fn hand_over<S: Connection>(mut stream: S, bytes: &[u8], end: End) -> Result<(), NotSent> {
    let writing = async {
        stream.write_all(bytes).await?;
        stream.flush().await?;
        if matches!(end, End::Confirmed(_)) {
            // What ends before we are done did not answer our end.
            match timeout(EARLY_END_TIME, read_to_end(&mut stream)).await {
                Ok(Ok(())) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(Err(error)) => return Err(error),
                Err(_) => {}
            }
        }
        stream.shutdown().await
    };
    match timeout(WRITE_TIME, writing).await {
        Err(_) => {
            return Err(not_sent(
                "it does not read what is sent".to_owned(),
                Refusal::Later,
            ));
        }
        Ok(Err(error)) => {
            // Why it went away stands in what it sent before.
            let why = match timeout(CLOSE_TIME, read_to_end(&mut stream)).await {
                Ok(Err(read)) => broken(&read),
                Ok(Ok(())) | Err(_) => broken(&error),
            };
            return Err(not_sent(why, Refusal::Later));
        }
        Ok(Ok(())) => {}
    }
    let End::Confirmed(within) = end else {
        // Nothing is asked for; but whoever says no is heard.
        return match timeout(REFUSAL_TIME, read_to_end(&mut stream)).await {
            Ok(Err(error)) if is_refusal(&error) => Err(not_sent(broken(&error), Refusal::Later)),
            Ok(_) | Err(_) => Ok(()),
        };
    };
    let answering = async {
        read_to_end(&mut stream).await?;
        everything_arrived(stream.tcp()).await
    };
    match timeout(within, answering).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(not_sent(broken(&error), Refusal::Later)),
        Err(_) => Err(not_sent(
            "it does not answer the end of the connection: nobody knows whether it read everything (confirm)"
                .to_owned(),
            Refusal::Later,
        )),
    }
}

/// Waits until TCP is over with a connection that both sides ended. The system then knows no peer any more (`getpeername` of
/// `TCP_CLOSE`): every byte and our end were acknowledged, or it was reset, or it timed out, and of those two an error is left.
async fn everything_arrived(tcp: &TcpStream) -> io::Result<()> {
    loop {
        match tcp.peer_addr() {
            Ok(_) => sleep(OVER_EVERY).await,
            Err(error) if error.kind() == io::ErrorKind::NotConnected => break,
            Err(error) => return Err(error),
        }
    }
    tcp.take_error()?.map_or(Ok(()), Err)
}

async fn read_to_end(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let (mut buffer, mut read) = ([0; 512], 0);
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            more => read += more,
        }
        if read > TALK_BYTES_MAX {
            return Err(io::Error::other("it talks"));
        }
    }
}

/// The alert with which the receiver ended TLS (RFC 8446 section 6.2), if it did.
fn alert(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

fn is_refusal(error: &io::Error) -> bool {
    alert(error).is_some() || error.kind() == io::ErrorKind::ConnectionReset
}

fn broken(error: &io::Error) -> String {
    match alert(error) {
        Some(alert) => format!("{ALERT}: {alert:?}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the connection ended before the receiver said that it is done".to_owned()
        }
        None => format!("the connection broke: {}", error.kind()),
    }
}

fn framed(receiver: &Receiver<'_>, to: &SinkAddress<'_>, items: &[Item]) -> Framed {
    let mut framed = Framed {
        bytes: Vec::new(),
        verdicts: Vec::with_capacity(items.len()),
    };
    for item in items {
        let message = message(receiver.enterprise_id, to, item);
        if message.len() > receiver.message_bytes_max {
            framed.verdicts.push(Verdict::TooLong(format!(
                "the message has {} bytes, and the receiver takes {} (message_bytes_max)",
                message.len(),
                receiver.message_bytes_max
            )));
            continue;
        }
        framed
            .bytes
            .extend_from_slice(format!("{} ", message.len()).as_bytes());
        framed.bytes.extend_from_slice(message.as_bytes());
        framed.verdicts.push(Verdict::Taken);
    }
    framed
}

/// One message (RFC 5424 section 6): what happened is the MSGID, and structured data says which event it is.
fn message(enterprise_id: u32, to: &SinkAddress<'_>, item: &Item) -> String {
    let priority = FACILITY * 8 + severity(item.severity);
    let kind: String = item
        .name
        .chars()
        .filter(char::is_ascii_graphic)
        .take(MSGID_BYTES_MAX)
        .collect();
    let kind = if kind.is_empty() { "-" } else { &kind };
    let data = format!(
        "[muster@{enterprise_id} id=\"{}\" tenant=\"{}\" stream=\"{}\" place=\"{}\"]",
        escaped(&item.id),
        to.tenant,
        item.stream.as_str(),
        item.place
    );
    // JSON is written in ASCII, so that no byte order mark is needed before it; CEF keeps its UTF-8.
    let document = match to.format.is_json() {
        true => ascii(&item.document),
        false => item.document.clone(),
    };
    format!(
        "<{priority}>1 {} muster muster - {kind} {data} {document}",
        time(item)
    )
}

/// At most six digits behind the second (RFC 5424 section 6.2.3).
fn time(item: &Item) -> String {
    item.at.to_string()
}

/// From 1 to 5, to the severities of syslog: critical, error, warning, notice, informational.
fn severity(severity: u8) -> u8 {
    match severity {
        5.. => 2,
        4 => 3,
        3 => 4,
        2 => 5,
        0 | 1 => 6,
    }
}

/// A value of structured data (RFC 5424 section 6.3.3).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '"' | '\\' | ']') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// JSON of the same meaning in ASCII: nothing but texts holds other characters.
fn ascii(json: &str) -> String {
    let mut plain = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            plain.push(character);
        } else {
            let mut units = [0; 2];
            for unit in character.encode_utf16(&mut units) {
                plain.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use muster_control::sinks::{SinkFormat, StreamKind};
    use muster_model::{TenantId, Timestamp};

    use super::*;

    fn item(document: &str) -> Item {
        Item {
            stream: StreamKind::Events,
            place: 9,
            id: "a\"]\\b".to_owned(),
            at: Timestamp::from_micros(1_800_000_000_250_000),
            name: "crash".to_owned(),
            severity: 4,
            document: document.to_owned(),
        }
    }

    fn place(message_bytes_max: u32) -> SinkPlace {
        SinkPlace::Syslog {
            host: "logs.example.com".to_owned(),
            port: 6514,
            security: SyslogSecurity::Tls,
            client_certificate: None,
            enterprise_id: 32_473,
            message_bytes_max,
            confirm: true,
        }
    }

    fn address(place: &SinkPlace) -> SinkAddress<'_> {
        SinkAddress {
            tenant: TenantId::from_uuid(uuid::Uuid::nil()),
            name: "siem",
            place,
            format: SinkFormat::Json,
            secret: None,
            now: Timestamp::from_unix_seconds(1_800_000_000),
        }
    }

    #[test]
    fn a_message_has_the_fields_of_rfc_5424_in_ascii() {
        let place = place(8192);
        let written = message(32_473, &address(&place), &item("{\"name\":\"ü𝄞\"}"));
        let (head, rest) = written.split_once(" [").expect("structured data");
        assert_eq!(head, "<107>1 2027-01-15T08:00:00.250000Z muster muster - crash");
        assert!(
            rest.starts_with(r#"muster@32473 id="a\"\]\\b" tenant="tnt_"#),
            "{rest}"
        );
        assert!(
            rest.ends_with(r#" stream="events" place="9"] {"name":"\u00fc\ud834\udd1e"}"#),
            "{rest}"
        );
    }

    #[test]
    fn a_message_that_is_too_long_is_set_aside_alone() {
        let place = place(2048);
        let to = address(&place);
        let items = [item("{}"), item(&"x".repeat(2048)), item("{}")];
        let framed = framed(&receiver(&to).expect("a receiver"), &to, &items);
        assert!(matches!(
            framed.verdicts.as_slice(),
            [Verdict::Taken, Verdict::TooLong(_), Verdict::Taken]
        ));
        let text = String::from_utf8(framed.bytes).expect("it is text");
        let (length, rest) = text.split_once(' ').expect("a frame");
        let length: usize = length.parse().expect("a number");
        assert!(rest[length..].starts_with(&format!("{length} <107>1 ")), "{text}");
    }

    /// What is said of a batch that a receiver takes its own way; it runs on a thread of its own.
    async fn handed(
        receiver: impl FnOnce(std::net::TcpStream) + Send + 'static,
        pause: Duration,
    ) -> Result<(), NotSent> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let at = listener.local_addr().expect("it has an address");
        let receiving = std::thread::spawn(move || receiver(listener.accept().expect("somebody comes").0));
        let stream = TcpStream::connect(at).await.expect("it listens");
        sleep(pause).await;
        let handed = hand_over(stream, &[7; 1000], End::Confirmed(Duration::from_millis(500))).await;
        let _ = tokio::task::spawn_blocking(|| receiving.join()).await;
        handed
    }

    fn read_all(stream: &mut std::net::TcpStream) -> usize {
        let mut all = Vec::new();
        std::io::Read::read_to_end(stream, &mut all).unwrap_or(0)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn only_the_receiver_s_own_end_says_that_it_has_everything() {
        let none = Duration::ZERO;
        // It reads to the end, and ends.
        for _ in 0..50 {
            let taken = handed(|mut stream| assert_eq!(read_all(&mut stream), 1000), none).await;
            assert!(taken.is_ok(), "{taken:?}");
        }
        // It reads, and never ends.
        let (ended, wait) = std::sync::mpsc::channel::<()>();
        let keeps = move |mut stream: std::net::TcpStream| {
            read_all(&mut stream);
            let _ = wait.recv_timeout(Duration::from_secs(1));
        };
        assert!(handed(keeps, none).await.is_err());
        drop(ended);
        // It reads a part, and goes away.
        let part = |mut stream: std::net::TcpStream| {
            let _ = std::io::Read::read(&mut stream, &mut [0; 100]);
        };
        for _ in 0..50 {
            assert!(handed(part, none).await.is_err());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_connection_that_the_receiver_closed_without_reading_is_never_taken() {
        for micros in (0..300).map(|round| round * 7) {
            let taken = handed(drop, Duration::from_micros(micros)).await;
            assert!(taken.is_err(), "after {micros} microseconds");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_reset_behind_an_end_is_no_answer() {
        // The receiver's end came while we were ending, and the system answered what it did not read with a reset.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let at = listener.local_addr().expect("it has an address");
        for _ in 0..50 {
            let mut stream = TcpStream::connect(at).await.expect("it listens");
            drop(listener.accept().expect("somebody comes"));
            stream.write_all(&[7; 1000]).await.expect("the system takes it");
            let _ = stream.shutdown().await;
            // The end is read before the reset is noticed.
            assert!(read_to_end(&mut stream).await.is_ok());
            assert!(everything_arrived(&stream).await.is_err());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_end_of_tls_that_came_before_ours_is_no_answer() {
        for reads in [false, true] {
            let (connector, acceptor) = tls();
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
                .await
                .expect("a port is free");
            let at = listener.local_addr().expect("it has an address");
            let receiving = tokio::spawn(async move {
                for _ in 0..20 {
                    let (stream, _) = listener.accept().await.expect("somebody comes");
                    let mut tls = acceptor.accept(stream).await.expect("TLS is spoken");
                    if reads {
                        let mut all = Vec::new();
                        let _ = tls.read_to_end(&mut all).await;
                    }
                    let _ = tls.shutdown().await;
                }
            });
            for _ in 0..20 {
                let stream = TcpStream::connect(at).await.expect("it listens");
                let name = "localhost".try_into().expect("a name");
                let tls = connector.connect(name, stream).await.expect("TLS is spoken");
                let handed = hand_over(tls, &[7; 1000], End::Confirmed(Duration::from_secs(5))).await;
                assert_eq!(handed.is_ok(), reads, "{handed:?}");
            }
            receiving.await.expect("it ends");
        }
    }

    fn tls() -> (tokio_rustls::TlsConnector, tokio_rustls::TlsAcceptor) {
        use std::sync::Arc;
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("it can be made");
        let certificate = made.cert.der().clone();
        let key = rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).expect("it is one");
        let ours = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("there are some")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let theirs = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("there are some")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key.into())
            .expect("they fit");
        (Arc::new(ours).into(), Arc::new(theirs).into())
    }
}
