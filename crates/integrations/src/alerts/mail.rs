//! Mail over SMTP (RFC 5321), with TLS always: STARTTLS (RFC 3207) or from the first byte (RFC 8314).

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use lettre::{
    Message,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, AsyncTokioStream, Certificate, TlsParameters},
        extension::ClientId,
    },
};
use muster_control::alerts::{Address, Event, MailSecurity, NotDelivered, Notice, Place};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{again, failed, given_up};
use crate::egress::Egress;

/// How long handing over one message may take.
const EXCHANGE_TIME: Duration = Duration::from_secs(30);

pub async fn deliver(
    egress: &Egress,
    to: &Address<'_>,
    notice: &Notice,
) -> Result<Option<u16>, NotDelivered> {
    let Place::Email {
        host,
        port,
        security,
        username,
        from,
        to: recipients,
    } = to.place
    else {
        return Err(given_up("that is no mail server".to_owned()));
    };
    if notice.event == Event::Heartbeat {
        return Err(given_up("mail takes no heartbeats".to_owned()));
    }
    let message = message(notice, from, recipients, to.delivery)?;
    let password = to.secret.map(|secret| secret.reveal());
    let credentials = username.as_ref().zip(password);
    let handing = async {
        let mut connection = connect(egress, host, *port, *security).await?;
        if let Some((name, password)) = credentials {
            let credentials = Credentials::new(name.clone(), password.to_owned());
            let said = connection
                .auth(&[Mechanism::Plain, Mechanism::Login], &credentials)
                .await;
            said.map_err(|error| refused(&error, "it does not accept the user name and password"))?;
        }
        let sent = connection.send(message.envelope(), &message.formatted()).await;
        let answer = sent.map_err(|error| refused(&error, "it does not take the message"))?;
        // The message is theirs by now: that the goodbye fails changes nothing.
        let _ = connection.quit().await;
        Ok(Some(u16::from(answer.code())))
    };
    match tokio::time::timeout(EXCHANGE_TIME, handing).await {
        Ok(came) => came,
        Err(_) => Err(again("the mail server took too long".to_owned())),
    }
}

async fn connect(
    egress: &Egress,
    host: &str,
    port: u16,
    security: MailSecurity,
) -> Result<AsyncSmtpConnection, NotDelivered> {
    let hello = ClientId::Domain("muster.invalid".to_owned());
    let stream = egress.connect(host, port).await.map_err(failed)?;
    let broken =
        |error: lettre::transport::smtp::Error| refused(&error, "it does not speak SMTP as it should");
    match security {
        MailSecurity::Tls => {
            let address = stream
                .peer_addr()
                .map_err(|error| again(error.kind().to_string()))?;
            let stream = secured(egress, host, stream).await?;
            let stream = Secured { stream, address };
            AsyncSmtpConnection::connect_with_transport(Box::new(stream), &hello)
                .await
                .map_err(broken)
        }
        MailSecurity::Starttls => {
            let mut connection = AsyncSmtpConnection::connect_with_transport(Box::new(stream), &hello)
                .await
                .map_err(broken)?;
            if !connection.can_starttls() {
                return Err(again(
                    "it offers no STARTTLS, and nothing is sent without".to_owned(),
                ));
            }
            let mut parameters = TlsParameters::builder(host.to_owned());
            for authority in egress.authorities() {
                let authority = Certificate::from_der(authority.to_vec());
                let authority = authority.map_err(|_| again("an authority cannot be read".to_owned()))?;
                parameters = parameters.add_root_certificate(authority);
            }
            let parameters = parameters.build_rustls().map_err(broken)?;
            let secured = connection.starttls(parameters, &hello).await;
            secured.map_err(|error| refused(&error, "TLS fails, or its certificate is not trusted"))?;
            Ok(connection)
        }
    }
}

async fn secured(
    egress: &Egress,
    host: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, NotDelivered> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| again(error.to_string()))?
        .with_root_certificates(Arc::clone(egress.roots()))
        .with_no_client_auth();
    let name =
        ServerName::try_from(host.to_owned()).map_err(|_| given_up("that is no host name".to_owned()))?;
    let secured = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    secured.map_err(|_| again("TLS fails, or its certificate is not trusted".to_owned()))
}

/// What the server said is kept short and without what was sent.
fn refused(error: &lettre::transport::smtp::Error, what: &str) -> NotDelivered {
    let status = error.status().map(u16::from);
    let is_for_good = status.is_some_and(|status| (550..=559).contains(&status));
    let why = status.map_or_else(
        || what.to_owned(),
        |status| format!("{what}: it answered {status}"),
    );
    NotDelivered {
        status,
        may_retry: !is_for_good,
        ..given_up(why)
    }
}

fn message(notice: &Notice, from: &str, to: &[String], delivery: &str) -> Result<Message, NotDelivered> {
    let mailbox = |address: &str| -> Result<Mailbox, NotDelivered> {
        let address = address
            .parse()
            .map_err(|_| given_up("an address is no mailbox".to_owned()))?;
        Ok(Mailbox::new(None, address))
    };
    // A program wrote it: nobody's absence notice answers (RFC 3834), and what belongs together is shown together.
    let automatic = HeaderValue::new(
        HeaderName::new_from_ascii_str("Auto-Submitted"),
        "auto-generated".to_owned(),
    );
    let thread = format!("<{}@muster.invalid>", notice.dedup_key.replace('/', "."));
    // Whose alert it is stands where people look first: one installation may send for many tenants.
    let mut sender = mailbox(from)?;
    // The library cannot write a control character there, and panics.
    let name = notice.tenant_name.replace(char::is_control, " ");
    sender.name = (!name.trim().is_empty()).then_some(name);
    let mut builder = Message::builder()
        .from(sender)
        .subject(notice.headline())
        .message_id(Some(format!("<{delivery}@muster.invalid>")))
        .references(thread)
        .raw_header(automatic);
    for address in to {
        builder = builder.to(mailbox(address)?);
    }
    builder
        .multipart(MultiPart::alternative_plain_html(plain(notice), html(notice)))
        .map_err(|error| given_up(error.to_string()))
}

fn plain(notice: &Notice) -> String {
    let mut lines = vec![notice.headline(), String::new()];
    lines.extend(notice.lines().into_iter().map(|line| format!("- {line}")));
    lines.extend(notice.because.clone());
    for (title, text) in [("What it means", &notice.meaning), ("What to do", &notice.remedy)] {
        if !text.is_empty() {
            lines.extend([String::new(), format!("{title}: {text}")]);
        }
    }
    lines.push(String::new());
    if !notice.tenant_name.is_empty() {
        lines.push(format!("Tenant:   {}", notice.tenant_name));
    }
    lines.extend([
        format!("Since:    {}", notice.started_at),
        format!("Muster:   {}", notice.console_url),
        format!("Runbook:  {}", notice.runbook_url),
    ]);
    lines.join("\r\n")
}

fn html(notice: &Notice) -> String {
    let mut body = format!("<p><strong>{}</strong></p>", escaped(&notice.headline()));
    let lines: String = notice
        .lines()
        .iter()
        .map(|line| format!("<li>{}</li>", escaped(line)))
        .collect();
    if !lines.is_empty() {
        body += &format!("<ul>{lines}</ul>");
    }
    for text in notice.because.iter().chain([&notice.meaning, &notice.remedy]) {
        if !text.is_empty() {
            body += &format!("<p>{}</p>", escaped(text));
        }
    }
    if !notice.tenant_name.is_empty() {
        body += &format!("<p>{}</p>", escaped(&notice.tenant_name));
    }
    body += &format!(
        "<p>Since {} · <a href=\"{}\">Open in Muster</a> · <a href=\"{}\">Runbook</a></p>",
        notice.started_at,
        escaped(&notice.console_url),
        escaped(&notice.runbook_url)
    );
    format!("<!doctype html><html lang=\"en\"><body>{body}</body></html>")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// TLS from the first byte, as the library wants streams.
struct Secured {
    stream: TlsStream<TcpStream>,
    address: SocketAddr,
}

impl fmt::Debug for Secured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secured")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncTokioStream for Secured {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::{super::testing::notice, *};

    #[test]
    fn a_mail_says_what_it_means_in_text_and_in_html() {
        let to = ["admin@example.com".to_owned()];
        let mail = message(&notice(Event::Firing), "mdm@example.com", &to, "dlv_1").expect("a mail");
        let text = String::from_utf8(mail.formatted()).expect("it is text");
        for part in [
            "Auto-Submitted: auto-generated",
            "multipart/alternative",
            "Ask them.",
            "Message-ID: <dlv_1@muster.invalid>",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(
            !text.contains("<!channel>") || text.contains("text/plain"),
            "{text}"
        );
        assert!(html(&notice(Event::Firing)).contains("&lt;!channel&gt;"));
    }

    #[test]
    fn a_mail_names_the_tenant_where_it_has_a_name() {
        let to = ["admin@example.com".to_owned()];
        let mut named = notice(Event::Firing);
        named.tenant_name = "Acme <Ltd>".to_owned();
        let mail = message(&named, "mdm@example.com", &to, "dlv_1").expect("a mail");
        let text = String::from_utf8(mail.formatted()).expect("it is text");
        assert!(text.contains(&named_sender("Acme <Ltd>")), "{text}");
        named.tenant_name = "Zoo".to_owned();
        let mail = message(&named, "mdm@example.com", &to, "dlv_1").expect("a mail");
        let text = String::from_utf8(mail.formatted()).expect("it is text");
        assert!(text.contains("From: Zoo <mdm@example.com>\r\n"), "{text}");
        named.tenant_name = "Acme <Ltd>".to_owned();
        assert!(plain(&named).contains("Tenant:   Acme <Ltd>"));
        assert!(html(&named).contains("<p>Acme &lt;Ltd&gt;</p>"));
        assert!(!plain(&notice(Event::Firing)).contains("Tenant:"));
    }

    /// The header of a sender whose name is more than a word (RFC 2047).
    fn named_sender(name: &str) -> String {
        let encoded = STANDARD.encode(name);
        format!("From: =?utf-8?b?{encoded}?= <mdm@example.com>\r\n")
    }

    #[test]
    fn no_text_of_an_alert_becomes_a_header() {
        let mut notice = notice(Event::Firing);
        notice.title = "x\r\nBcc: victim@example.com".to_owned();
        notice.tenant_name = "Acme\r\nBcc: victim@example.com".to_owned();
        let to = ["admin@example.com".to_owned()];
        let text = message(&notice, "mdm@example.com", &to, "dlv_1").map(|mail| mail.formatted());
        let text = String::from_utf8(text.expect("a mail")).expect("it is text");
        let head = text.split("\r\n\r\n").next().unwrap_or_default();
        assert!(
            !head
                .lines()
                .any(|line| line.to_ascii_lowercase().starts_with("bcc:")),
            "{head}"
        );
    }
}
