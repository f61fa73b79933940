//! A device that speaks the agent protocol by hand (`docs/agent-protocol.md`): every byte that it sends is the test's
//! choice. [`Obedient`] carries the real device core on top, for tests of what a device does with what it is given.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use muster_channel_agent::{
    ContentType,
    checkin::CheckinResponse,
    clock::ClockReading,
    decode,
    device::{Action, Begin, DeviceCore, DeviceIdentity, Execution, Refused},
    encode,
    enroll::{EnrollFinishResponse, NO_EXPORTER, Transcript},
    path,
};
use muster_model::{
    SettingReport, SettingState, command::CommandKind, platform::Platform, settings::SettingValue,
    time::Timestamp,
};
use muster_trust::{
    dsse,
    key::{Digest, SigningKey, sha256},
    obey::Trust,
};
use reqwest::Method;
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    api::{Answer, Api, answer, try_answer},
    server::AdminFile,
};

const JSON: &str = "application/json";
pub const CBOR: &str = "application/cbor";
/// Answers in the tests are far below this.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Makes an enrollment token for one hardware UUID.
pub async fn token_for(api: &Api, device_uuid: Uuid) -> String {
    let made = api
        .post("/enrollment-tokens", &json!({"device_uuid": device_uuid}))
        .await
        .expect(201);
    made["token"].as_str().expect("a token is text").to_owned()
}

/// Now, for what devices say of their clocks.
pub fn now() -> Timestamp {
    Timestamp::from_unix_seconds(super::unix_seconds())
}

/// The device listener as someone sees it who has no certificate.
#[derive(Clone)]
pub struct Door {
    pub http: reqwest::Client,
    /// `https://host:port`.
    pub url: String,
}

impl Door {
    pub fn of(admin: &AdminFile) -> Door {
        let http = client(&ca_of(admin)).build().expect("a client can be made");
        Door {
            http,
            url: admin.device_url.clone(),
        }
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.http.post(format!("{}{path}", self.url)).json(body)).await
    }

    /// As [`Door::post`], for a server that may be killed meanwhile.
    pub async fn try_post(&self, path: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        try_answer(self.http.post(format!("{}{path}", self.url)).json(body)).await
    }

    /// Posts bytes under a content type.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&str>,
        bytes: Vec<u8>,
    ) -> Answer {
        let request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .body(bytes);
        let request = match content_type {
            Some(kind) => request.header("content-type", kind),
            None => request,
        };
        answer(request).await
    }
}

fn ca_of(admin: &AdminFile) -> reqwest::Certificate {
    let ca = fs::read(&admin.ca_file).expect("the certificate of the install is there");
    reqwest::Certificate::from_pem(&ca).expect("it is a certificate")
}

fn client(ca: &reqwest::Certificate) -> reqwest::ClientBuilder {
    let builder = reqwest::Client::builder().tls_certs_only([ca.clone()]);
    builder
        .redirect(reqwest::redirect::Policy::none())
        .timeout(Duration::from_secs(60))
}

/// A machine with a key of its own that has no identity yet.
#[derive(Clone)]
pub struct Applicant {
    pub key: Arc<SigningKey>,
    pub device_uuid: Uuid,
    /// `hardware` of the first call.
    pub hardware: Value,
}

impl Applicant {
    /// A machine like no other.
    pub fn new() -> Applicant {
        let device_uuid = Uuid::new_v4();
        Applicant::with_hardware(json!({
            "device_uuid": device_uuid,
            "serial": format!("S{}", device_uuid.simple()),
            "platform": "linux",
            "vendor": "Example",
            "model": "Model 7",
        }))
    }

    /// A machine that makes these claims, with a fresh key.
    pub fn with_hardware(hardware: Value) -> Applicant {
        let device_uuid = hardware["device_uuid"]
            .as_str()
            .and_then(|text| text.parse().ok());
        Applicant {
            key: Arc::new(SigningKey::generate_p256().expect("a key can be made")),
            device_uuid: device_uuid.expect("hardware has a UUID"),
            hardware,
        }
    }

    /// The same hardware with another key.
    pub fn with_fresh_key(&self) -> Applicant {
        Applicant::with_hardware(self.hardware.clone())
    }

    /// The same key with one other claim.
    pub fn claiming(&self, name: &str, value: Value) -> Applicant {
        let mut changed = self.clone();
        changed.hardware[name] = value;
        changed
    }

    pub fn spki(&self) -> Vec<u8> {
        self.key.public().spki_der()
    }

    pub fn begin_body(&self, token: &str) -> Value {
        json!({
            "token": token,
            "hardware": self.hardware,
            "public_key": STANDARD.encode(self.spki()),
            "agent_version": "1.2.3",
        })
    }

    /// The second call's body for the first call's answer.
    pub fn finish_body(&self, token: &str, begun: &Value) -> Value {
        json!({
            "session": begun["session"],
            "proof": STANDARD.encode(self.proof(token, begun)),
            "csr": STANDARD.encode(certificate_request(&self.key)),
        })
    }

    pub fn proof(&self, token: &str, begun: &Value) -> Vec<u8> {
        let nonce = STANDARD
            .decode(begun["nonce"].as_str().expect("the nonce is text"))
            .expect("it is base64");
        let nonce: [u8; 32] = nonce.try_into().expect("the nonce has 32 bytes");
        self.key
            .sign(&Transcript::of(token, &nonce, &self.spki(), &NO_EXPORTER).bytes())
            .expect("a key signs")
    }

    pub async fn begin(&self, door: &Door, token: &str) -> Answer {
        door.post(path::ENROLL_BEGIN, &self.begin_body(token)).await
    }

    pub async fn finish(&self, door: &Door, token: &str, begun: &Value) -> Answer {
        door.post(path::ENROLL_FINISH, &self.finish_body(token, begun))
            .await
    }

    /// Both calls, as far as they go.
    pub async fn try_enroll(&self, door: &Door, token: &str) -> Answer {
        let begun = self.begin(door, token).await;
        if begun.status != 200 {
            return begun;
        }
        self.finish(door, token, &begun.json()).await
    }

    /// Both calls, which must succeed, with a new token.
    pub async fn enroll(&self, api: &Api, admin: &AdminFile) -> Device {
        let token = token_for(api, self.device_uuid).await;
        let answer = self.try_enroll(&Door::of(admin), &token).await;
        answer.expect(201);
        self.with_identity(admin, &answer)
    }

    /// The device that the answer to the second call makes of this machine.
    pub fn with_identity(&self, admin: &AdminFile, finished: &Answer) -> Device {
        let enrolled =
            decode(ContentType::Json, &finished.bytes, ANSWER_BYTES_MAX).expect("an enrollment answer");
        Device::new(self.clone(), enrolled, admin)
    }
}

/// A PKCS#10 request over a key.
pub fn certificate_request(key: &SigningKey) -> Vec<u8> {
    certificate_request_with(key, |_| {})
}

/// A PKCS#10 request over a key that asks for more than it should.
pub fn certificate_request_with(
    key: &SigningKey,
    ask: impl FnOnce(&mut rcgen::CertificateParams),
) -> Vec<u8> {
    let pem = key.to_pkcs8_pem().expect("it can be written");
    let pair = rcgen::KeyPair::from_pem(&pem).expect("it is a key");
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("no names are fine");
    ask(&mut parameters);
    parameters
        .serialize_request(&pair)
        .expect("it can be signed")
        .der()
        .to_vec()
}

/// A device with an identity, on a connection of its own.
pub struct Device {
    pub applicant: Applicant,
    pub enrolled: EnrollFinishResponse,
    pub door: Door,
    ca: reqwest::Certificate,
}

impl Device {
    /// The device's certificates (DER, leaf first), as [`Handshake::identity`] shows them.
    pub fn chain(&self) -> Vec<Vec<u8>> {
        let chain = self.enrolled.certificate_chain.iter();
        chain.map(|der| der.0.clone()).collect()
    }

    fn new(applicant: Applicant, enrolled: EnrollFinishResponse, admin: &AdminFile) -> Device {
        let ca = ca_of(admin);
        let pem = identity_pem(
            &applicant.key,
            enrolled.certificate_chain.iter().map(|der| der.0.as_slice()),
        );
        let door = Door {
            http: with_certificate(&ca, &pem),
            url: admin.device_url.clone(),
        };
        Device {
            applicant,
            enrolled,
            door,
            ca,
        }
    }

    /// A fresh machine, enrolled.
    pub async fn enroll(api: &Api, admin: &AdminFile) -> Device {
        Applicant::new().enroll(api, admin).await
    }

    /// The same device on a connection that shows another chain for its key.
    pub fn showing(&self, chain: &[Vec<u8>]) -> Device {
        let pem = identity_pem(&self.applicant.key, chain.iter().map(Vec::as_slice));
        let door = Door {
            http: with_certificate(&self.ca, &pem),
            url: self.door.url.clone(),
        };
        Device {
            applicant: self.applicant.clone(),
            enrolled: self.enrolled.clone(),
            door,
            ca: self.ca.clone(),
        }
    }

    /// The same device where the server listens after a restart.
    pub fn at(&self, admin: &AdminFile) -> Device {
        Device::new(self.applicant.clone(), self.enrolled.clone(), admin)
    }

    /// Its certificates and its key, as PEM.
    pub fn identity_pem(&self) -> String {
        let chain = self.enrolled.certificate_chain.iter();
        identity_pem(&self.applicant.key, chain.map(|der| der.0.as_slice()))
    }

    /// `dev_…`.
    pub fn id(&self) -> String {
        self.enrolled.device_id.to_string()
    }

    /// A check-in of a device that has nothing and saw nothing.
    pub fn checkin_body(&self) -> Value {
        json!({
            "epoch": self.enrolled.epoch,
            "state_digest": sha256(b"").to_string(),
            "tree_size": 0,
            "root_version": 1,
            "last_sequence": 0,
            "clock": now(),
        })
    }

    /// A check-in that must be answered.
    pub async fn checkin(&self) -> CheckinResponse {
        self.checkin_with("agent_version", json!("1.2.3")).await
    }

    /// A check-in with one other member, which must be answered.
    pub async fn checkin_with(&self, member: &str, value: Value) -> CheckinResponse {
        let answer = self.try_checkin_with(member, value).await;
        answer.expect(200);
        decode(ContentType::Json, &answer.bytes, ANSWER_BYTES_MAX).expect("a check-in answer")
    }

    /// A check-in with one other member.
    pub async fn try_checkin_with(&self, member: &str, value: Value) -> Answer {
        let mut body = self.checkin_body();
        body[member] = value;
        self.door.post(path::CHECKIN, &body).await
    }

    pub async fn send<T: Serialize>(
        &self,
        method: Method,
        path: &str,
        kind: ContentType,
        message: &T,
    ) -> Answer {
        let bytes = encode(kind, message).expect("it can be written");
        self.door.send(method, path, Some(kind.as_str()), bytes).await
    }

    /// The facts that a device of this test says of itself.
    pub async fn send_facts(&self) {
        let body = json!({"epoch": self.enrolled.epoch, "facts": facts()});
        self.door
            .send(Method::PUT, path::INVENTORY, Some(JSON), body.to_string().into())
            .await
            .expect(204);
    }

    /// A receipt for a command, signed by this device, as it goes into `receipts`.
    pub fn receipt(&self, command: &str, outcome: &str) -> Value {
        self.receipt_of(&self.receipt_statement(command, outcome))
    }

    pub fn receipt_statement(&self, command: &str, outcome: &str) -> Value {
        json!({
            "tenant": self.enrolled.tenant,
            "device_id": self.enrolled.device_id,
            "epoch": self.enrolled.epoch,
            "command_id": command,
            "outcome": outcome,
            "at": now(),
        })
    }

    pub fn receipt_of(&self, statement: &Value) -> Value {
        self.signed("receipt", statement)
    }

    /// A policy report, signed by this device.
    pub fn report(&self, changes: Value) -> Value {
        let mut statement = json!({
            "tenant": self.enrolled.tenant,
            "device_id": self.enrolled.device_id,
            "epoch": self.enrolled.epoch,
            "state_digest": sha256(b"").to_string(),
            "generation": 0,
            "settings": {},
            "at": now(),
        });
        for (name, value) in changes.as_object().expect("changes are an object") {
            statement[name] = value.clone();
        }
        self.signed("policy-report", &statement)
    }

    /// An envelope over any statement, by the device key.
    pub fn signed(&self, kind: &str, statement: &Value) -> Value {
        let kind = format!("application/vnd.muster.{kind}+json");
        let envelope = dsse::sign(&kind, statement.to_string().as_bytes(), &[&self.applicant.key]);
        serde_json::to_value(envelope.expect("a key signs")).expect("an envelope is JSON")
    }
}

/// Facts of an ordinary machine.
pub fn facts() -> Value {
    json!({
        "hardware": {"vendor": "Example", "model": "Model 7", "cpu_cores": 4, "memory_bytes": 8_589_934_592_u64},
        "os": {"id": "debian", "name": "Debian GNU/Linux", "version": "13.1", "kernel": "6.12", "architecture": "x86_64"},
        "disks": [{"name": "nvme0n1", "size_bytes": 512_000_000_000_u64, "encrypted": true, "removable": false}],
        "packages": [{"name": "openssl", "version": "3.5.1"}],
        "agent_version": "1.2.3",
        "collected_at": now(),
    })
}

fn with_certificate(ca: &reqwest::Certificate, pem: &str) -> reqwest::Client {
    let identity = reqwest::Identity::from_pem(pem.as_bytes()).expect("it is an identity");
    client(ca)
        .identity(identity)
        .build()
        .expect("a client can be made")
}

/// Certificates and a private key, as PEM.
fn identity_pem<'a>(key: &SigningKey, chain: impl Iterator<Item = &'a [u8]>) -> String {
    let block = |der: &[u8]| {
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            STANDARD.encode(der)
        )
    };
    let mut pem: String = chain.map(block).collect();
    pem.push_str(&key.to_pkcs8_pem().expect("it can be written"));
    pem
}

/// A device with the real core: it obeys what is signed and logged, and keeps what it did in memory.
pub struct Obedient {
    pub device: Device,
    pub core: DeviceCore,
    /// What was executed, in order.
    pub executed: Vec<CommandKind>,
    /// Everything that was refused.
    pub refused: Vec<Refused>,
    begun: Instant,
}

impl Obedient {
    /// A fresh machine, enrolled, that trusts what its enrollment gave it.
    pub async fn enroll(api: &Api, admin: &AdminFile) -> Obedient {
        Obedient::of(Device::enroll(api, admin).await)
    }

    pub fn of(device: Device) -> Obedient {
        let enrolled = &device.enrolled;
        let documents = &enrolled.root_documents;
        let mut trust =
            Trust::pin(&documents[0], enrolled.tenant).expect("the first root document can be pinned");
        for document in &documents[1..] {
            trust.advance_root(document).expect("root documents form a chain");
        }
        trust
            .advance_checkpoint(&enrolled.checkpoint, &[])
            .expect("the checkpoint is the log's");
        let identity = DeviceIdentity {
            tenant: enrolled.tenant,
            device_id: enrolled.device_id,
            epoch: enrolled.epoch,
            platform: Platform::Linux,
            ownership: enrolled.ownership,
        };
        let begun = Instant::now();
        let (_, leaf) =
            x509_parser::parse_x509_certificate(&enrolled.certificate_chain[0].0).expect("a certificate");
        let from = Timestamp::from_unix_seconds(leaf.validity().not_before.timestamp());
        let core = DeviceCore::new(identity, "1.2.3", trust, from, &reading(begun));
        Obedient {
            device,
            core,
            executed: Vec::new(),
            refused: Vec::new(),
            begun,
        }
    }

    pub fn reading(&self) -> ClockReading {
        reading(self.begun)
    }

    /// One check-in; its answer is not taken in yet.
    pub async fn ask(&mut self) -> CheckinResponse {
        let request = self.core.checkin_request(&reading(self.begun));
        let answer = self
            .device
            .send(Method::POST, path::CHECKIN, ContentType::Json, &request)
            .await;
        answer.expect(200);
        decode(ContentType::Json, &answer.bytes, ANSWER_BYTES_MAX).expect("a check-in answer")
    }

    /// Goes on where the server listens after a restart.
    pub fn move_to(&mut self, admin: &AdminFile) {
        self.device = self.device.at(admin);
    }

    /// Checks in and does what is asked, as far as the server answers.
    pub async fn try_obey(&mut self) {
        const ROUNDS_MAX: usize = 4;
        for _ in 0..ROUNDS_MAX {
            let request = self.core.checkin_request(&reading(self.begun));
            let body = serde_json::to_value(&request).expect("it is JSON");
            let Ok(answer) = self.device.door.try_post(path::CHECKIN, &body).await else {
                return;
            };
            if answer.status != 200 {
                return;
            }
            let response =
                decode(ContentType::Json, &answer.bytes, ANSWER_BYTES_MAX).expect("a check-in answer");
            let mut actions = self.take(&response);
            // What needs another call waits for a server that stands.
            actions.retain(|action| !matches!(action, Action::SendInventory));
            self.perform(actions).await;
            if !self.core.has_news() {
                return;
            }
        }
    }

    /// Takes an answer in, genuine or not; answers what is to be done.
    pub fn take(&mut self, response: &CheckinResponse) -> Vec<Action> {
        let (reading, key) = (self.reading(), Arc::clone(&self.device.applicant.key));
        self.core.on_checkin(response, &reading, &mut |kind, payload| {
            dsse::sign(kind, payload, &[&key])
        })
    }

    /// Takes the bytes of a bundle in, genuine or not.
    pub fn take_bundle(&mut self, sha256: Digest, bytes: &[u8]) -> Vec<Action> {
        let (reading, key) = (self.reading(), Arc::clone(&self.device.applicant.key));
        self.core
            .on_bundle(sha256, bytes, &reading, &mut |kind, payload| {
                dsse::sign(kind, payload, &[&key])
            })
    }

    /// Downloads a bundle.
    pub async fn download(&self, sha256: Digest) -> Vec<u8> {
        let url = format!("{}{}{sha256}", self.device.door.url, path::BUNDLES);
        let answer = answer(self.device.door.http.get(url)).await;
        answer.ok();
        answer.bytes
    }

    /// Checks in and does what is asked until there is no news.
    pub async fn obey(&mut self) {
        const ROUNDS_MAX: usize = 16;
        for _ in 0..ROUNDS_MAX {
            let response = self.ask().await;
            let actions = self.take(&response);
            self.perform(actions).await;
            if !self.core.has_news() {
                return;
            }
        }
        panic!("a device has news after {ROUNDS_MAX} check-ins");
    }

    /// Does what is asked. Settings are said to be verified as they were wanted; commands are written down.
    pub async fn perform(&mut self, actions: Vec<Action>) {
        let mut waiting = std::collections::VecDeque::from(actions);
        while let Some(action) = waiting.pop_front() {
            match action {
                Action::Refused(refused) => self.refused.push(refused),
                Action::Execute { command_id } => self.execute(command_id),
                Action::FetchBundle { sha256 } => {
                    let bytes = self.download(sha256).await;
                    waiting.extend(self.take_bundle(sha256, &bytes));
                }
                Action::Apply { .. } | Action::ReadBack { .. } if self.core.departed().is_some() => {}
                Action::Apply { settings } | Action::ReadBack { settings } => {
                    let reports = settings.into_iter().map(verified).collect();
                    let (reading, key) = (self.reading(), Arc::clone(&self.device.applicant.key));
                    let mut sign = |kind: &str, payload: &[u8]| dsse::sign(kind, payload, &[&key]);
                    self.core.on_applied(&reports, &reading, &mut sign);
                }
                Action::SendInventory => {
                    self.device.send_facts().await;
                    self.core.on_inventory_sent(sha256(b"facts"));
                }
                Action::Renew | Action::Depart { .. } => {}
            }
        }
    }

    fn execute(&mut self, command_id: muster_model::CommandId) {
        let (reading, key) = (self.reading(), Arc::clone(&self.device.applicant.key));
        let mut sign = |kind: &str, payload: &[u8]| dsse::sign(kind, payload, &[&key]);
        if let Begin::Run(statement) = self.core.begin(command_id, &reading, &mut sign) {
            let execution = if self.executed.contains(&statement.kind) {
                Execution::noop()
            } else {
                Execution::done()
            };
            self.executed.push(statement.kind);
            self.core.on_executed(command_id, execution, &reading, &mut sign);
        }
    }
}

fn verified((key, value): (String, SettingValue)) -> (String, SettingReport) {
    (
        key,
        SettingReport {
            state: SettingState::Verified,
            observed: Some(value),
            detail: None,
        },
    )
}

fn reading(begun: Instant) -> ClockReading {
    ClockReading {
        wall: now(),
        since_boot: begun.elapsed(),
        boot: 7,
    }
}

/// The entries of an action, when there are at least `count_min`.
pub async fn logged(api: &Api, action: &str, count_min: usize) -> Vec<Value> {
    super::eventually(
        &format!("{count_min} × {action} in the log"),
        super::PATIENCE,
        async || {
            let entries = api.list(&format!("/log/entries?limit=500&action={action}")).await;
            (entries.len() >= count_min).then_some(entries)
        },
    )
    .await
}

/// What a TLS client shows and offers.
pub struct Handshake<'a> {
    /// Certificates (DER, leaf first) and the key, or nothing.
    pub identity: Option<(Vec<Vec<u8>>, &'a SigningKey)>,
    pub protocol: &'a [u8],
}

/// A TLS 1.3 configuration that trusts the install's CA. Use it for several connections to try resumption.
pub fn tls(admin: &AdminFile, handshake: Handshake<'_>) -> Arc<rustls::ClientConfig> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
    let pem = fs::read(&admin.ca_file).expect("the certificate of the install is there");
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        roots
            .add(certificate.expect("ca.pem holds certificates"))
            .expect("it is a certificate");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3 is known");
    let builder = builder.with_root_certificates(roots);
    let mut config = match handshake.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = chain.into_iter().map(CertificateDer::from).collect();
            let key = key.to_pkcs8_der().expect("it can be written").to_vec();
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
            builder
                .with_client_auth_cert(chain, key)
                .expect("the certificate is over the key")
        }
    };
    config.alpn_protocols = vec![handshake.protocol.to_vec()];
    Arc::new(config)
}

/// An HTTP/1.1 connection that is kept: one request after the other on the very same TLS session.
pub struct Line(pub tokio_rustls::client::TlsStream<tokio::net::TcpStream>);

impl Line {
    pub async fn open(admin: &AdminFile, config: &Arc<rustls::ClientConfig>) -> std::io::Result<Line> {
        let socket = tokio::net::TcpStream::connect(admin.device_address()).await?;
        let name = rustls::pki_types::ServerName::try_from("localhost").expect("it is a name");
        Ok(Line(
            tokio_rustls::TlsConnector::from(Arc::clone(config))
                .connect(name, socket)
                .await?,
        ))
    }

    /// Posts JSON and reads the answer: its status and its body.
    pub async fn post(&mut self, path: &str, body: &Value) -> std::io::Result<(u16, Value)> {
        self.post_with(path, &[], body).await
    }

    /// As [`Line::post`], with more header fields.
    pub async fn post_with(
        &mut self,
        path: &str,
        fields: &[(&str, String)],
        body: &Value,
    ) -> std::io::Result<(u16, Value)> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let body = body.to_string();
        let fields: String = fields
            .iter()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .collect();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{fields}Content-Length: {}\r\n\r\n",
            body.len()
        );
        self.0.write_all(head.as_bytes()).await?;
        self.0.write_all(body.as_bytes()).await?;
        self.0.flush().await?;
        let mut bytes = Vec::new();
        loop {
            let mut chunk = [0; 4096];
            let count = self.0.read(&mut chunk).await?;
            bytes.extend_from_slice(&chunk[..count]);
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length")
                        .then(|| value.trim().parse::<usize>().ok())?
                });
                if body.len() >= length.unwrap_or(0) {
                    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
                    return Ok((
                        status.expect("an answer has a status"),
                        serde_json::from_str(body).unwrap_or_default(),
                    ));
                }
            }
            if count == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
