//! A client of SCEP and EST made of OpenSSL's and curl's programs: keys, requests and envelopes are theirs, and only the
//! attributes that SCEP adds to a signature are written here, byte for byte as a test wants them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::{
    api::{Answer, Api, answer},
    device::Door,
    server::{AdminFile, everything, tool},
};

pub const SCEP: &str = "/scep?operation=PKIOperation";
pub const PKCS_REQ: &str = "19";
pub const RENEWAL_REQ: &str = "17";

/// A made token of SCEP or EST: its challenge.
pub async fn challenge_for(api: &Api, protocol: &str, device_uuid: Uuid) -> String {
    challenge_with(api, json!({"protocol": protocol, "device_uuid": device_uuid})).await
}

/// As [`challenge_for`], with the whole request for the token.
pub async fn challenge_with(api: &Api, token: Value) -> String {
    let made = api.post("/enrollment-tokens", &token).await.expect(201);
    made["token"].as_str().expect("a challenge is text").to_owned()
}

/// A key in a file, and the certificate that goes with it at the moment.
#[derive(Clone)]
pub struct Key {
    pub path: PathBuf,
    /// PEM.
    pub certificate: PathBuf,
}

/// What a request asks for.
#[derive(Clone)]
pub struct Asked {
    pub common_name: String,
    /// More lines of the subject, such as `O = Example`.
    pub subject: &'static str,
    pub challenge: Option<String>,
    /// Lines of the extensions that are asked for.
    pub extensions: String,
    /// The digest of its signature, as an option of `openssl req`.
    pub digest: &'static str,
}

impl Asked {
    pub fn of(device_uuid: Uuid, challenge: &str) -> Asked {
        Asked {
            common_name: device_uuid.to_string(),
            subject: "",
            challenge: Some(challenge.to_owned()),
            extensions: String::new(),
            digest: "-sha256",
        }
    }

    pub fn extension(self, lines: &str) -> Asked {
        Asked {
            extensions: lines.to_owned(),
            ..self
        }
    }
}

/// What is in a SCEP message, to be changed by tests.
pub struct Message {
    pub kind: &'static str,
    pub transaction: String,
    pub nonce: Vec<u8>,
    /// What is enclosed for the server (DER).
    pub envelope: Vec<u8>,
    /// The digest of the signature, as an option of `openssl dgst`.
    pub digest: &'static str,
}

/// A folder with OpenSSL in it.
pub struct Enrollee {
    folder: TempDir,
    pub door: Door,
    ca_file: PathBuf,
}

impl Enrollee {
    pub async fn of(admin: &AdminFile) -> Enrollee {
        let folder = tempfile::Builder::new().prefix("muster-scep-").tempdir();
        let enrollee = Enrollee {
            folder: folder.expect("a folder can be made"),
            door: Door::of(admin),
            ca_file: admin.ca_file.clone(),
        };
        let chain = enrollee.get("/scep?operation=GetCACert").await;
        assert_eq!(chain.header("content-type"), "application/x-x509-ca-ra-cert");
        let pems = enrollee.certificates_in(&chain.bytes).await;
        assert_eq!(
            pems.len(),
            4,
            "registration authority, device CA, its own CA, root"
        );
        enrollee.write("ra.pem", pems[0].as_bytes());
        enrollee.write("issuers.pem", pems[1..].concat().as_bytes());
        enrollee
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("the folder takes files");
        path
    }

    /// A file of a new name.
    fn fresh(&self, bytes: &[u8]) -> PathBuf {
        self.write(&Uuid::new_v4().simple().to_string(), bytes)
    }

    /// A new key, such as `["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]`, with a certificate over itself.
    pub async fn key(&self, algorithm: &[&str]) -> Key {
        let path = self.path(&format!("{}.key", Uuid::new_v4().simple()));
        let out = text(&path);
        openssl(&[&["genpkey"], algorithm, &["-out", out]].concat()).await;
        self.with_own_certificate(&path).await
    }

    pub async fn rsa(&self) -> Key {
        self.key(&["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"])
            .await
    }

    pub async fn p256(&self) -> Key {
        self.key(&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .await
    }

    /// A key with a certificate over itself.
    pub async fn with_own_certificate(&self, key: &Path) -> Key {
        let certificate = key.with_extension("pem");
        let arguments = [
            "req",
            "-x509",
            "-key",
            text(key),
            "-subj",
            "/CN=self",
            "-days",
            "1",
            "-out",
            text(&certificate),
        ];
        openssl(&arguments).await;
        Key {
            path: key.to_owned(),
            certificate,
        }
    }

    /// The same key with a certificate (DER).
    pub async fn with_certificate(&self, key: &Key, der: &[u8]) -> Key {
        let certificate = self.fresh(&[]);
        let der = self.fresh(der);
        openssl(&[
            "x509",
            "-inform",
            "DER",
            "-in",
            text(&der),
            "-out",
            text(&certificate),
        ])
        .await;
        Key {
            path: key.path.clone(),
            certificate,
        }
    }

    /// A request (PKCS#10, DER).
    pub async fn csr(&self, key: &Key, asked: &Asked) -> Vec<u8> {
        let mut config = format!(
            "[req]\nprompt = no\nstring_mask = utf8only\ndistinguished_name = dn\n{}{}[dn]\nCN = {}\n{}\n",
            if asked.challenge.is_some() {
                "attributes = attributes\n"
            } else {
                ""
            },
            if asked.extensions.is_empty() {
                ""
            } else {
                "req_extensions = extensions\n"
            },
            asked.common_name,
            asked.subject,
        );
        if let Some(challenge) = &asked.challenge {
            config += &format!("[attributes]\nchallengePassword = {challenge}\n");
        }
        if !asked.extensions.is_empty() {
            config += &format!("[extensions]\n{}\n", asked.extensions);
        }
        let config = self.fresh(config.as_bytes());
        let arguments = [
            "req",
            "-new",
            "-key",
            text(&key.path),
            "-config",
            text(&config),
            asked.digest,
            "-outform",
            "DER",
        ];
        openssl(&arguments).await
    }

    /// Encloses bytes for the registration authority, with more options of `openssl cms`.
    pub async fn enclose(&self, content: &[u8], options: &[&str]) -> Vec<u8> {
        self.enclose_for(content, &self.path("ra.pem"), options).await
    }

    /// Encloses bytes for a certificate (PEM).
    pub async fn enclose_for(&self, content: &[u8], recipient: &Path, options: &[&str]) -> Vec<u8> {
        let content = self.fresh(content);
        let before = [
            "cms",
            "-encrypt",
            "-binary",
            "-outform",
            "DER",
            "-in",
            text(&content),
        ];
        // A key option belongs to the recipient before it.
        let recipient = ["-recip", text(recipient)];
        openssl(&[&before[..], &recipient, options].concat()).await
    }

    pub async fn message(&self, kind: &'static str, csr: &[u8]) -> Message {
        Message {
            kind,
            transaction: Uuid::new_v4().simple().to_string(),
            nonce: Uuid::new_v4().as_bytes().to_vec(),
            envelope: self.enclose(csr, &["-aes-128-cbc"]).await,
            digest: "-sha256",
        }
    }

    /// The message under the signature of a key (RFC 8894 §3.1).
    pub async fn sign(&self, message: &Message, key: &Key) -> Vec<u8> {
        const SCEP_ATTRIBUTE: [u8; 9] = [0x60, 0x86, 0x48, 0x01, 0x86, 0xf8, 0x45, 0x01, 0x09];
        let scep = |last: u8, value: Vec<u8>| attribute(&[&SCEP_ATTRIBUTE[..], &[last]].concat(), &value);
        let pkcs9 =
            |last: u8, value: Vec<u8>| attribute(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, last], &value);
        let content = self.fresh(&message.envelope);
        let digest = openssl(&["dgst", message.digest, "-binary", text(&content)]).await;
        let mut attributes = [
            scep(2, tlv(0x13, &[message.kind.as_bytes()])),
            scep(5, tlv(0x04, &[&message.nonce])),
            scep(7, tlv(0x13, &[message.transaction.as_bytes()])),
            pkcs9(3, tlv(0x06, &[&DATA])),
            pkcs9(4, tlv(0x04, &[&digest])),
        ];
        attributes.sort();
        let attributes: Vec<&[u8]> = attributes.iter().map(Vec::as_slice).collect();
        let signed = self.fresh(&tlv(0x31, &attributes));
        let arguments = [
            "dgst",
            message.digest,
            "-sign",
            text(&key.path),
            "-binary",
            text(&signed),
        ];
        let signature = openssl(&arguments).await;
        let certificate = self.der_of(&key.certificate).await;
        let digest = tlv(0x30, &[&tlv(0x06, &[digest_oid(message.digest)]), &[0x05, 0]]);
        let rsa = tlv(
            0x30,
            &[
                &tlv(0x06, &[&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1]]),
                &[0x05, 0],
            ],
        );
        let signer = tlv(
            0x30,
            &[
                &[0x02, 1, 1],
                &issuer_and_serial(&certificate),
                &digest,
                &tlv(0xa0, &attributes),
                &rsa,
                &tlv(0x04, &[&signature]),
            ],
        );
        let enclosed = tlv(
            0x30,
            &[
                &tlv(0x06, &[&DATA]),
                &tlv(0xa0, &[&tlv(0x04, &[&message.envelope])]),
            ],
        );
        let data = tlv(
            0x30,
            &[
                &[0x02, 1, 1],
                &tlv(0x31, &[&digest]),
                &enclosed,
                &tlv(0xa0, &[&certificate]),
                &tlv(0x31, &[&signer]),
            ],
        );
        tlv(0x30, &[&tlv(0x06, &[&SIGNED_DATA]), &tlv(0xa0, &[&data])])
    }

    /// A request of SCEP, whole.
    pub async fn question(&self, kind: &'static str, key: &Key, asked: &Asked) -> Vec<u8> {
        let csr = self.csr(key, asked).await;
        self.sign(&self.message(kind, &csr).await, key).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(self.door.http.get(format!("{}{path}", self.door.url))).await
    }

    pub async fn post(&self, path: &str, content_type: &str, bytes: Vec<u8>) -> Answer {
        self.door
            .send(Method::POST, path, Some(content_type), bytes)
            .await
    }

    /// Sends a message and reads the answer.
    pub async fn ask(&self, message: Vec<u8>) -> Reply {
        let answer = self.post(SCEP, "application/x-pki-message", message).await;
        Reply::of(&answer)
    }

    /// The certificates (PEM) in a certs-only message (DER), in its order.
    pub async fn certificates_in(&self, der: &[u8]) -> Vec<String> {
        let path = self.fresh(der);
        let text = openssl(&["pkcs7", "-inform", "DER", "-in", text(&path), "-print_certs"]).await;
        let text = String::from_utf8(text).expect("PEM is text");
        const END: &str = "-----END CERTIFICATE-----\n";
        text.split_inclusive(END)
            .filter_map(|part| part.find("-----BEGIN").map(|begin| part[begin..].to_owned()))
            .collect()
    }

    /// The certificate (DER) that a successful answer encloses for a key, after OpenSSL verified who signed the answer.
    pub async fn opened(&self, reply: &Reply, key: &Key) -> Vec<u8> {
        let (path, content) = (self.fresh(&reply.bytes), self.fresh(&[]));
        openssl(&[
            "cms",
            "-verify",
            "-inform",
            "DER",
            "-in",
            text(&path),
            "-CAfile",
            text(&self.ca_file),
            "-certfile",
            text(&self.path("issuers.pem")),
            "-purpose",
            "any",
            "-binary",
            "-out",
            text(&content),
        ])
        .await;
        let certificates = openssl(&[
            "cms",
            "-decrypt",
            "-inform",
            "DER",
            "-in",
            text(&content),
            "-inkey",
            text(&key.path),
            "-recip",
            text(&key.certificate),
            "-binary",
        ])
        .await;
        let pems = self.certificates_in(&certificates).await;
        self.checked(&pems[0]).await
    }

    /// A device certificate (PEM) as DER, after OpenSSL verified its chain.
    pub async fn checked(&self, pem: &str) -> Vec<u8> {
        let path = self.fresh(pem.as_bytes());
        let issuers = self.path("issuers.pem");
        openssl(&[
            "verify",
            "-CAfile",
            text(&self.ca_file),
            "-untrusted",
            text(&issuers),
            "-purpose",
            "sslclient",
            text(&path),
        ])
        .await;
        self.der_of(&path).await
    }

    pub async fn der_of(&self, pem: &Path) -> Vec<u8> {
        openssl(&["x509", "-in", text(pem), "-outform", "DER"]).await
    }

    /// Runs curl against a path of the device listener; its status and body.
    pub async fn curl(&self, path: &str, arguments: &[&str]) -> (u16, String) {
        let url = format!("{}{path}", self.door.url);
        let before = [
            "-sS",
            "--cacert",
            text(&self.ca_file),
            "--tlsv1.3",
            "-w",
            "\n%{http_code}",
        ];
        let output = tool("curl", &[&before[..], arguments, &[&url]].concat()).await;
        assert!(output.status.success(), "curl: {}", everything(&output));
        let text = String::from_utf8(output.stdout).expect("EST speaks text");
        let (body, status) = text.rsplit_once('\n').expect("the status is there");
        (status.parse().expect("a status is a number"), body.to_owned())
    }

    /// Enrolls by EST with curl; the status and the body.
    pub async fn est(&self, verb: &str, credentials: &[&str], csr: &[u8]) -> (u16, String) {
        let body = self.fresh(STANDARD.encode(csr).as_bytes());
        let body = format!("@{}", text(&body));
        let arguments = ["--data-binary", &body, "-H", "Content-Type: application/pkcs10"];
        self.curl(
            &format!("/.well-known/est/{verb}"),
            &[credentials, &arguments].concat(),
        )
        .await
    }

    /// The certificate (DER) in an EST answer.
    pub async fn est_certificate(&self, body: &str) -> Vec<u8> {
        let text: String = body.split_ascii_whitespace().collect();
        let der = STANDARD.decode(text).expect("EST answers base64");
        let pems = self.certificates_in(&der).await;
        assert_eq!(pems.len(), 1);
        self.checked(&pems[0]).await
    }

    /// The options of curl that show a key's certificate.
    pub fn showing(key: &Key) -> [&str; 4] {
        ["--cert", text(&key.certificate), "--key", text(&key.path)]
    }
}

/// What the server answered to a message.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// `0` for success, `2` for failure; nothing where the answer is no message.
    pub pki_status: Option<String>,
    pub fail_info: Option<String>,
    pub bytes: Vec<u8>,
}

impl Reply {
    fn of(answer: &Answer) -> Reply {
        Reply {
            status: answer.status,
            pki_status: printable(&answer.bytes, 3),
            fail_info: printable(&answer.bytes, 4),
            bytes: answer.bytes.clone(),
        }
    }

    /// The answer in a word: `granted`, `failure N`, or the status.
    pub fn word(&self) -> String {
        match (self.pki_status.as_deref(), self.fail_info.as_deref()) {
            (Some("0"), None) => "granted".to_owned(),
            (Some("2"), Some(info)) => format!("failure {info}"),
            other => format!("{} {other:?}", self.status),
        }
    }

    pub fn granted(self) -> Reply {
        assert_eq!(self.word(), "granted", "{}", String::from_utf8_lossy(&self.bytes));
        self
    }
}

/// The text of a SCEP attribute that stands in an answer in clear.
fn printable(bytes: &[u8], last: u8) -> Option<String> {
    let name = [
        0x06, 0x0a, 0x60, 0x86, 0x48, 0x01, 0x86, 0xf8, 0x45, 0x01, 0x09, last,
    ];
    let at = bytes.windows(name.len()).position(|window| window == name)? + name.len();
    let length = usize::from(*bytes.get(at + 3)?);
    let value = bytes.get(at + 4..at + 4 + length)?;
    (bytes[at] == 0x31 && bytes[at + 2] == 0x13).then(|| String::from_utf8_lossy(value).into_owned())
}

const DATA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
const SIGNED_DATA: [u8; 9] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];

fn digest_oid(option: &str) -> &'static [u8] {
    match option {
        "-sha256" => &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1],
        "-sha512" => &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3],
        "-sha1" => &[0x2b, 0x0e, 3, 2, 0x1a],
        "-md5" => &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 5],
        other => panic!("no digest {other}"),
    }
}

/// A DER element.
pub fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        length @ 0..128 => out.push(u8::try_from(length).expect("it is short")),
        length => {
            let bytes = u16::try_from(length).expect("messages are short").to_be_bytes();
            match bytes {
                [0, low] => out.extend([0x81, low]),
                [high, low] => out.extend([0x82, high, low]),
            }
        }
    }
    out.extend(content);
    out
}

fn attribute(name: &[u8], value: &[u8]) -> Vec<u8> {
    tlv(0x30, &[&tlv(0x06, &[name]), &tlv(0x31, &[value])])
}

fn issuer_and_serial(certificate: &[u8]) -> Vec<u8> {
    let (_, read) = x509_parser::parse_x509_certificate(certificate).expect("a certificate");
    tlv(0x30, &[read.issuer().as_raw(), &tlv(0x02, &[read.raw_serial()])])
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths here are text")
}

/// Runs `openssl`, which must succeed, and answers what it wrote.
pub async fn openssl(arguments: &[&str]) -> Vec<u8> {
    let output = tool("openssl", arguments).await;
    assert!(
        output.status.success(),
        "openssl {arguments:?}: {}",
        everything(&output)
    );
    output.stdout
}
