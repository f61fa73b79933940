//! Receivers that are not ours: rsyslog with TLS, and nats-server with JetStream.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, process::Child};

use super::{
    PATIENCE, eventually,
    haproxy::free_port,
    objects::python,
    pki::peer_is_installed,
    server::{everything, program, start_tool, tool},
    siem::Arrived,
};

/// What a certificate is for.
#[derive(Clone, Copy)]
enum Use {
    Server,
    Client,
}

/// An authority of its own, with a certificate for `localhost` and one for `muster`, as files.
pub struct Certificates {
    folder: PathBuf,
    pub client: String,
    pub client_key: String,
}

impl Certificates {
    pub fn make(folder: &Path) -> Certificates {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("a certificate");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "receivers");
        let authority = params.self_signed(&key).expect("a certificate");
        fs::write(folder.join("ca.pem"), authority.pem()).expect("it can be written");
        let issuer = Issuer::new(params, key);
        let issued = |name: &str, purpose: Use| {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a certificate");
            params.distinguished_name.push(DnType::CommonName, name);
            params.extended_key_usages = vec![match purpose {
                Use::Server => ExtendedKeyUsagePurpose::ServerAuth,
                Use::Client => ExtendedKeyUsagePurpose::ClientAuth,
            }];
            let made = params.signed_by(&key, &issuer).expect("a certificate");
            (made.pem(), key.serialize_pem())
        };
        let (server, server_key) = issued("localhost", Use::Server);
        fs::write(folder.join("server.pem"), server).expect("it can be written");
        fs::write(folder.join("server.key"), server_key).expect("it can be written");
        let (client, client_key) = issued("muster", Use::Client);
        Certificates {
            folder: folder.to_owned(),
            client,
            client_key,
        }
    }

    pub fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }
}

async fn answers(port: u16) {
    eventually("it listens", PATIENCE, async || {
        TcpStream::connect(("127.0.0.1", port))
            .await
            .is_ok()
            .then_some(())
    })
    .await;
}

/// A running rsyslog that lets in the certificate of `muster` alone, and writes each message as a JSON line.
pub struct Rsyslog {
    child: Option<Child>,
    driver: &'static str,
    folder: PathBuf,
    pub port: u16,
}

impl Rsyslog {
    /// With one of its libraries for TLS: `ossl` or `gtls`.
    pub async fn start(folder: &Path, driver: &'static str) -> Option<Rsyslog> {
        let look = format!("test -n \"$(find /usr/lib -name lmnsd_{driver}.so)\" && command -v rsyslogd");
        if !peer_is_installed("rsyslog", &look).await {
            return None;
        }
        let mut rsyslog = Rsyslog {
            child: None,
            driver,
            folder: folder.to_owned(),
            port: free_port(),
        };
        rsyslog.open().await;
        Some(rsyslog)
    }

    pub async fn open(&mut self) {
        let (driver, folder, port) = (self.driver, self.folder.display(), self.port);
        let configuration = format!(
            r#"global(defaultNetstreamDriverCAFile="{folder}/ca.pem" defaultNetstreamDriverCertFile="{folder}/server.pem"
  defaultNetstreamDriverKeyFile="{folder}/server.key" workDirectory="{folder}" maxMessageSize="64k"
  processInternalMessages="on")
module(load="imtcp" StreamDriver.Name="{driver}" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/name"
  PermittedPeer=["muster"] MaxFrameSize="200000")
template(name="line" type="list") {{ property(name="jsonmesg") constant(value="\n") }}
input(type="imtcp" port="{port}" address="127.0.0.1" ruleset="all")
ruleset(name="all") {{ action(type="omfile" file="{folder}/{driver}.out" template="line") }}
call all
"#
        );
        let file = self.folder.join(format!("{driver}.conf"));
        fs::write(&file, configuration).expect("it can be written");
        let file = file.display().to_string();
        let arguments = ["-n", "-f", &file, "-i", "NONE"];
        let log = self.folder.join(format!("{driver}.log"));
        let child = start_tool("/usr/sbin/rsyslogd", &arguments, &log);
        // rsyslog 8.2302 closes the descriptor of each connection twice: a file that its worker opens in between gets the same
        // number, is closed under it, and what is written then goes into the next connection or nowhere. Its own first message,
        // before there is any connection, has it open the file.
        let started = format!("x-pid=\\\"{}\\\"", child.id().expect("it runs"));
        self.child = Some(child);
        eventually("it has its file open", PATIENCE, async || {
            self.written().contains(&started).then_some(())
        })
        .await;
        answers(port).await;
    }

    /// Ends it in order: what it has read it writes down first.
    pub async fn close(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let process = child.id().expect("it runs").to_string();
        tool("kill", &["-TERM", &process]).await;
        child.wait().await.expect("it ends");
    }

    /// The body that names it as a sink.
    pub fn sink(&self, certificates: &Certificates) -> Value {
        json!({
            "place": {
                "kind": "syslog", "host": "localhost", "port": self.port, "message_bytes_max": 65_536,
                "client_certificate": certificates.client,
            },
            "secret": certificates.client_key,
        })
    }

    fn written(&self) -> String {
        fs::read_to_string(self.folder.join(format!("{}.out", self.driver))).unwrap_or_default()
    }

    /// Every message of Muster as rsyslog read it.
    pub fn messages(&self) -> Vec<Value> {
        // The last line may be under way.
        let text = self.written();
        let lines = text.lines().map(serde_json::from_str::<Value>);
        let of_muster = lines
            .filter_map(Result::ok)
            .filter(|line| line["app-name"] == "muster");
        of_muster.collect()
    }

    pub fn arrived(&self) -> Vec<Arrived> {
        self.messages().iter().map(arrived).collect()
    }
}

fn arrived(message: &Value) -> Arrived {
    let data = message["structured-data"].as_str().expect("structured data");
    let value = |name: &str| -> String {
        let rest = data.split_once(&format!("{name}=\"")).expect("it is there").1;
        rest.split('"').next().expect("it ends").to_owned()
    };
    Arrived {
        stream: value("stream"),
        place: value("place").parse().expect("a number"),
        id: value("id"),
        document: message["msg"]
            .as_str()
            .expect("a message")
            .trim_start()
            .to_owned(),
    }
}

/// A running nats-server with a stream that takes `muster.>`, over TLS, for whoever has the token.
pub struct Nats {
    child: Option<Child>,
    folder: PathBuf,
    python: PathBuf,
    pub port: u16,
}

pub const NATS_TOKEN: &str = "s3cr3t-of-nats";

/// Makes the stream, or tells everything in it, with the client of its makers.
const CLIENT: &str = r#"
import asyncio, json, ssl, sys, nats
port, folder, token, what = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
async def main():
    context = ssl.create_default_context(cafile=folder + "/ca.pem")
    client = await nats.connect("tls://localhost:%d" % port, tls=context, token=token, connect_timeout=5)
    stream = client.jetstream()
    if what == "make":
        await stream.add_stream(name="MUSTER", subjects=["muster.>"], max_msg_size=int(sys.argv[5]))
    else:
        state = (await stream.stream_info("MUSTER")).state
        for number in range(1, state.last_seq + 1):
            message = await stream.get_msg("MUSTER", number)
            headers = {name.lower(): value for name, value in (message.headers or {}).items()}
            print(json.dumps({"subject": message.subject, "id": headers.get("nats-msg-id"), "data": message.data.decode()}))
    await client.close()
asyncio.run(main())
"#;

impl Nats {
    pub async fn start(folder: &Path) -> Option<Nats> {
        if !peer_is_installed("nats-server", "command -v nats-server").await {
            return None;
        }
        let mut nats = Nats {
            child: None,
            folder: folder.to_owned(),
            python: python()?,
            port: free_port(),
        };
        nats.open().await;
        Some(nats)
    }

    pub async fn open(&mut self) {
        let (folder, port) = (self.folder.display(), self.port);
        let configuration = format!(
            "listen: 127.0.0.1:{port}\njetstream {{ store_dir: \"{folder}/jetstream\" }}\n\
             tls {{ cert_file: \"{folder}/server.pem\", key_file: \"{folder}/server.key\" }}\n\
             authorization {{ token: \"{NATS_TOKEN}\" }}\n"
        );
        let file = self.folder.join("nats.conf");
        fs::write(&file, configuration).expect("it can be written");
        let file = file.display().to_string();
        self.child = Some(start_tool(
            "/usr/sbin/nats-server",
            &["-c", &file],
            &self.folder.join("nats.log"),
        ));
        answers(port).await;
    }

    pub async fn close(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().await.expect("a child can be killed");
        }
    }

    async fn client(&self, words: &[&str]) -> String {
        let mut command = program(&self.python);
        command
            .args(["-c", CLIENT, &self.port.to_string()])
            .arg(&self.folder)
            .arg(NATS_TOKEN)
            .args(words)
            .kill_on_drop(true);
        let output = command.output().await.expect("python starts");
        assert!(output.status.success(), "{}", everything(&output));
        String::from_utf8(output.stdout).expect("it is text")
    }

    /// Makes the stream; no message in it is longer than so many bytes.
    pub async fn make_stream(&self, message_bytes_max: usize) {
        self.client(&["make", &message_bytes_max.to_string()]).await;
    }

    pub fn sink(&self) -> Value {
        json!({
            "place": {"kind": "nats", "url": format!("tls://localhost:{}", self.port)}, "secret": NATS_TOKEN,
        })
    }

    /// Everything in the stream.
    pub async fn arrived(&self) -> Vec<Arrived> {
        let said = self.client(&["tell"]).await;
        let read = |line: &str| -> Arrived {
            let message: Value = serde_json::from_str(line).expect("a line is JSON");
            let document = serde_json::from_str(message["data"].as_str().expect("text")).expect("it is JSON");
            let arrived = Arrived::of_document(&document);
            assert_eq!(message["id"], arrived.id.as_str());
            assert_eq!(message["subject"], format!("muster.{}", arrived.stream));
            arrived
        };
        said.lines().map(read).collect()
    }
}
