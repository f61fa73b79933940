//! A mail server that is not ours, aiosmtpd with STARTTLS, and an Alertmanager.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Once,
};

use serde_json::Value;
use tokio::{net::TcpStream, process::Child};

use super::{PATIENCE, eventually, haproxy::free_port, objects::python, server::program, variable};

/// Takes mail after STARTTLS and a password alone, and writes each message as a JSON line.
const SERVER: &str = r#"
import asyncio, email, json, ssl, sys
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
port, folder = int(sys.argv[1]), sys.argv[2]

class Handler:
    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content)
        parts = {part.get_content_type(): part.get_payload(decode=True).decode() for part in mail.walk() if not part.is_multipart()}
        subject = str(email.header.make_header(email.header.decode_header(mail["Subject"])))
        line = {"from": envelope.mail_from, "to": envelope.rcpt_tos, "subject": subject, "parts": parts,
                "tls": session.ssl is not None, "headers": dict(mail.items())}
        with open(folder + "/mail.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")
        return "250 taken"

def login(server, session, envelope, mechanism, data):
    return AuthResult(success=data.login == b"mdm" and data.password == b"open sesame")

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder + "/mail.pem", folder + "/mail.key")
controller = Controller(Handler(), hostname="127.0.0.1", port=port, tls_context=context, require_starttls=True,
                        auth_required=True, authenticator=login)
controller.start()
asyncio.new_event_loop().run_forever()
"#;

/// A running mail server.
pub struct Mail {
    _child: Child,
    folder: PathBuf,
    pub port: u16,
}

impl Mail {
    /// Starts it with a certificate of an authority of its own, which is `authority()`.
    pub async fn start(folder: &Path) -> Option<Mail> {
        let python = python()?;
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        fs::write(folder.join("mail.pem"), made.cert.pem()).expect("it can be written");
        fs::write(folder.join("mail.key"), made.signing_key.serialize_pem()).expect("it can be written");
        let port = free_port();
        let log = fs::File::create(folder.join("mail.log")).expect("a file can be made");
        let mut command = program(&python);
        command
            .args(["-c", SERVER, &port.to_string()])
            .arg(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.kill_on_drop(true).spawn().expect("python starts");
        eventually("the mail server listens", PATIENCE, async || {
            TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        Some(Mail {
            _child: child,
            folder: folder.to_owned(),
            port,
        })
    }

    /// The certificate to trust, PEM.
    pub fn authority(&self) -> PathBuf {
        self.folder.join("mail.pem")
    }

    /// Every message, oldest first.
    pub fn taken(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.join("mail.jsonl")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).expect("a line is JSON"))
            .collect()
    }
}

/// A running Alertmanager that tells nobody.
pub struct Alertmanager {
    _child: Child,
    pub origin: String,
}

impl Alertmanager {
    pub async fn start(folder: &Path) -> Option<Alertmanager> {
        let binary = tool("prometheus-alertmanager", "alertmanager")?;
        let configuration = folder.join("alertmanager.yml");
        fs::write(
            &configuration,
            "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n",
        )
        .expect("it can be written");
        let port = free_port();
        let log = fs::File::create(folder.join("alertmanager.log")).expect("a file can be made");
        let mut command = program(&binary);
        command
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!(
                "--storage.path={}",
                folder.join("alertmanager").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--cluster.listen-address=")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.kill_on_drop(true).spawn().expect("it starts");
        let origin = format!("http://127.0.0.1:{port}");
        let url = format!("{origin}/-/ready");
        eventually("Alertmanager is ready", PATIENCE, async || {
            reqwest::get(&url)
                .await
                .ok()
                .filter(|answer| answer.status().is_success())
                .map(drop)
        })
        .await;
        Some(Alertmanager {
            _child: child,
            origin,
        })
    }

    /// The names of the alerts that are active there.
    pub async fn active(&self) -> Vec<String> {
        let answer = reqwest::get(format!("{}/api/v2/alerts", self.origin))
            .await
            .expect("it answers");
        let alerts: Vec<Value> = answer.json().await.expect("it answers JSON");
        let name = |alert: &Value| {
            alert["labels"]["alertname"]
                .as_str()
                .unwrap_or_default()
                .to_owned()
        };
        alerts.iter().map(name).collect()
    }
}

/// A program of Debian's, if it is installed. Without it says so loudly, or panics where that is not allowed.
pub fn tool(name: &'static str, peer: &'static str) -> Option<PathBuf> {
    static SAID: Once = Once::new();
    let path = variable("PATH").unwrap_or_default();
    let found = path
        .split(':')
        .map(|folder| Path::new(folder).join(name))
        .find(|candidate| candidate.exists());
    if found.is_none() {
        let required = variable("CI").as_deref() == Some("true")
            || variable("MUSTER_REQUIRE_PEERS").as_deref() == Some("1");
        assert!(
            !required,
            "{name} is not installed, and this run must not skip it"
        );
        // Straight to the stream: the test runner swallows what a passing test prints.
        SAID.call_once(|| {
            let _ = writeln!(std::io::stderr(), "SKIPPED {peer}: {name} is not installed");
        });
    }
    found
}
