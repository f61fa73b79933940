//! A machine with a TPM that speaks the agent protocol by hand, on a connection whose exporter it knows.

use base64::{Engine, engine::general_purpose::STANDARD};
use muster_attest::{
    testing::{EkKind, Maker, SoftwareTpm},
    tpm::{Credential, activation_proof},
};
use muster_channel_agent::{
    enroll::{EXPORTER_LABEL, NO_EXPORTER, Transcript},
    path,
};
use muster_trust::key::SigningKey;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;
use uuid::Uuid;

use super::{
    api::{Answer, Api},
    device::{certificate_request, now, token_for},
    raw,
    server::{AdminFile, Server},
};

/// The root of a maker, PEM.
pub fn pem(der: &[u8]) -> String {
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        STANDARD.encode(der)
    )
}

/// Puts the whole enrollment policy.
pub async fn put_policy(api: &Api, policy: Value) -> Answer {
    let request = api.request(reqwest::Method::PUT, "/enrollment-policy");
    super::api::answer(request.json(&json!({"policy": policy}))).await
}

/// A maker of TPMs, and a policy that trusts it and nobody else.
pub async fn trusted_maker(api: &Api) -> Maker {
    let maker = Maker::new("Example Semiconductor", now());
    put_policy(api, trusting(&maker)).await.ok();
    maker
}

/// The policy that trusts a maker's TPMs and asks for one.
pub fn trusting(maker: &Maker) -> Value {
    json!({
        "attestation": ["tpm2"],
        "tpm": {"well_known_roots": false, "roots_pem": pem(maker.root().certificate())},
    })
}

/// One connection to the device listener, HTTP/1.1.
pub struct Wire {
    stream: TlsStream<TcpStream>,
    pub exporter: [u8; 32],
    host: String,
}

impl Wire {
    pub async fn connect(admin: &AdminFile) -> Wire {
        let host = admin.device_address().to_owned();
        let stream = raw::connect(admin, &host, b"http/1.1")
            .await
            .expect("the listener answers");
        let (_, connection) = stream.get_ref();
        let exporter = connection
            .export_keying_material([0; 32], EXPORTER_LABEL, None)
            .expect("the handshake is over");
        Wire {
            stream,
            exporter,
            host,
        }
    }

    /// Posts a JSON body and reads the answer.
    pub async fn post(&mut self, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        self.stream
            .write_all(&[head.as_bytes(), body.as_bytes()].concat())
            .await
            .expect("the request goes out");
        let mut bytes = Vec::new();
        loop {
            if let Some(answer) = parse(&bytes) {
                return answer;
            }
            let read = self.stream.read_buf(&mut bytes).await.expect("an answer");
            assert!(read > 0, "the connection ended within an answer");
        }
    }
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).expect("a head is text");
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        headers.append(
            name.parse::<HeaderName>().expect("a header's name"),
            value.parse::<HeaderValue>().expect("a header's value"),
        );
    }
    let length: usize = headers.get("content-length")?.to_str().ok()?.parse().ok()?;
    let body = bytes.get(end + 4..end + 4 + length)?;
    Some(Answer {
        status,
        headers,
        bytes: body.to_vec(),
    })
}

/// A machine with a TPM.
pub struct Attested {
    pub tpm: SoftwareTpm,
    pub key: SigningKey,
    pub hardware: Value,
}

/// What the first call left on the machine.
pub struct Begun {
    pub answer: Value,
    pub transcript: Transcript,
}

impl Attested {
    pub fn new(maker: &Maker) -> Attested {
        Attested::of_kind(maker, EkKind::P256)
    }

    pub fn of_kind(maker: &Maker, kind: EkKind) -> Attested {
        let device_uuid = Uuid::new_v4();
        let tpm = SoftwareTpm::new(maker, kind);
        Attested {
            key: SigningKey::from_pkcs8_der(tpm.device_pkcs8()).expect("a key of this kind"),
            tpm,
            hardware: json!({
                "device_uuid": device_uuid,
                "serial": format!("T{}", device_uuid.simple()),
                "platform": "linux",
                "vendor": "Example",
                "model": "Model 7",
            }),
        }
    }

    /// The machine is installed anew: its TPM stays and makes other keys.
    pub fn install_anew(&mut self) {
        self.tpm.make_fresh_keys();
        self.key = SigningKey::from_pkcs8_der(self.tpm.device_pkcs8()).expect("a key of this kind");
    }

    pub fn device_uuid(&self) -> Uuid {
        let text = self.hardware["device_uuid"]
            .as_str()
            .expect("hardware has a UUID");
        text.parse().expect("it is one")
    }

    pub fn begin_body(&self, token: &str) -> Value {
        let certificates: Vec<String> = self
            .tpm
            .ek_certificates()
            .iter()
            .map(|der| STANDARD.encode(der))
            .collect();
        json!({
            "token": token,
            "hardware": self.hardware,
            "public_key": STANDARD.encode(self.key.public().spki_der()),
            "channel_binding": "tls_exporter",
            "attestation": {
                "format": "tpm2",
                "ek_certificates": certificates,
                "ak_public": STANDARD.encode(self.tpm.ak_public()),
                "device_public": STANDARD.encode(self.tpm.device_public()),
            },
        })
    }

    /// What this machine makes of the first answer, on the connection with this exporter.
    pub fn begun(&self, token: &str, answer: Value, exporter: [u8; 32]) -> Begun {
        let nonce = bytes(&answer["nonce"]).try_into().expect("32 bytes");
        let exporter = if answer["channel_binding"] == "tls_exporter" {
            exporter
        } else {
            NO_EXPORTER
        };
        Begun {
            transcript: Transcript::of(token, &nonce, &self.key.public().spki_der(), &exporter),
            answer,
        }
    }

    /// The second call's body, with everything as it should be.
    pub fn finish_body(&self, begun: &Begun) -> Value {
        self.finish_body_over(begun, &begun.transcript)
    }

    /// The second call's body of a machine that means another transcript.
    pub fn finish_body_over(&self, begun: &Begun, transcript: &Transcript) -> Value {
        let proof = self.key.sign(&transcript.bytes()).expect("a key signs");
        json!({
            "session": begun.answer["session"],
            "proof": STANDARD.encode(proof),
            "csr": STANDARD.encode(certificate_request(&self.key)),
            "attestation": self.evidence(&begun.answer["attestation"], transcript),
        })
    }

    /// What the TPM answers to a challenge, over a transcript.
    pub fn evidence(&self, challenge: &Value, transcript: &Transcript) -> Value {
        let credential = Credential {
            id_object: bytes(&challenge["id_object"]),
            encrypted_secret: bytes(&challenge["encrypted_secret"]),
        };
        // A TPM that cannot open the credential has no secret; whoever pretends sends a made-up one.
        let secret = self.tpm.activate(&credential).unwrap_or([0; 32]);
        let selection: Vec<u8> = challenge["pcr_selection"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|index| u8::try_from(index.as_u64().expect("a number")).expect("a register"))
            .collect();
        let qualifying = transcript.qualifying_data();
        let (attest, signature) = self.tpm.certify(&qualifying);
        let quote = self.tpm.quote(&qualifying, &selection);
        let values: Vec<Value> = quote
            .values
            .iter()
            .map(|(index, value)| json!({"index": index, "sha256": STANDARD.encode(value)}))
            .collect();
        json!({
            "format": "tpm2",
            "activation_proof": STANDARD.encode(activation_proof(&secret, &transcript.bytes())),
            "certify_attest": STANDARD.encode(attest),
            "certify_signature": STANDARD.encode(signature),
            "quote_attest": STANDARD.encode(quote.attest),
            "quote_signature": STANDARD.encode(quote.signature),
            "pcr_values": values,
        })
    }

    /// The first call, which must succeed.
    pub async fn begin(&self, wire: &mut Wire, token: &str) -> Begun {
        let answer = wire.post(path::ENROLL_BEGIN, &self.begin_body(token)).await.ok();
        self.begun(token, answer, wire.exporter)
    }

    /// Both calls, as far as they go, with a new token of `api`.
    pub async fn try_enroll(&self, api: &Api, admin: &AdminFile) -> Answer {
        let token = token_for(api, self.device_uuid()).await;
        let mut wire = Wire::connect(admin).await;
        let answer = wire.post(path::ENROLL_BEGIN, &self.begin_body(&token)).await;
        if answer.status != 200 {
            return answer;
        }
        let begun = self.begun(&token, answer.json(), wire.exporter);
        wire.post(path::ENROLL_FINISH, &self.finish_body(&begun)).await
    }

    /// Both calls, which must succeed; answers the device's id.
    pub async fn enroll(&self, server: &Server, api: &Api) -> String {
        let answer = self.try_enroll(api, &server.admin).await.expect(201);
        answer["device_id"].as_str().expect("an id is text").to_owned()
    }
}

pub fn bytes(value: &Value) -> Vec<u8> {
    STANDARD
        .decode(value.as_str().expect("base64 is text"))
        .expect("it is base64")
}
