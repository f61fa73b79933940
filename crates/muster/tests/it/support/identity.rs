//! The shortest way to a device: an enrollment by hand, and the certificate that it gives.

use base64::{Engine, engine::general_purpose::STANDARD};
use muster_trust::key::{SigningKey, sha256};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    api::{Answer, Api, answer},
    server::AdminFile,
};

/// A device that enrolled and does nothing else.
pub struct Identity {
    /// `dev_…`.
    pub device: String,
    pub device_uuid: Uuid,
    /// Certificates and private key, as PEM.
    pub pem: String,
}

/// Enrolls a device of `api`'s tenant over the device listener.
pub async fn enroll(api: &Api, admin: &AdminFile) -> Identity {
    let device_uuid = Uuid::new_v4();
    let asked = json!({"device_uuid": device_uuid});
    let token = text(&api.post("/enrollment-tokens", &asked).await.expect(201), "token");
    let key = SigningKey::generate_p256().expect("a key can be made");
    let spki = key.public().spki_der();
    let begin = json!({
        "token": token,
        "hardware": {"device_uuid": device_uuid, "platform": "linux", "serial": format!("S{}", device_uuid.simple())},
        "public_key": STANDARD.encode(&spki),
    });
    let begun = post(api, admin, "begin", &begin).await.ok();
    let nonce = STANDARD
        .decode(text(&begun, "nonce"))
        .expect("the nonce is base64");
    let transcript = [
        b"muster-enroll-v1\0".as_slice(),
        sha256(token.as_bytes()).as_bytes(),
        &nonce,
        sha256(&spki).as_bytes(),
    ]
    .concat();
    let finish = json!({
        "session": begun["session"],
        "proof": STANDARD.encode(key.sign(&transcript).expect("a key signs")),
        "csr": STANDARD.encode(request_certificate(&key)),
    });
    let finished = post(api, admin, "finish", &finish).await.expect(201);
    let chain = finished["certificate_chain"]
        .as_array()
        .expect("a chain is a list");
    let mut pem: String = chain
        .iter()
        .map(|der| pem_of("CERTIFICATE", der.as_str().expect("it is base64")))
        .collect();
    pem.push_str(&key.to_pkcs8_pem().expect("it can be written"));
    Identity {
        device: text(&finished, "device_id"),
        device_uuid,
        pem,
    }
}

async fn post(api: &Api, admin: &AdminFile, step: &str, body: &Value) -> Answer {
    answer(
        api.http
            .post(format!("{}/agent/v1/enroll/{step}", admin.device_url))
            .json(body),
    )
    .await
}

fn request_certificate(key: &SigningKey) -> Vec<u8> {
    let pem = key.to_pkcs8_pem().expect("it can be written");
    let pair = rcgen::KeyPair::from_pem(&pem).expect("it is a key");
    let parameters = rcgen::CertificateParams::new(Vec::new()).expect("no names are fine");
    parameters
        .serialize_request(&pair)
        .expect("it can be signed")
        .der()
        .to_vec()
}

fn pem_of(kind: &str, base64: &str) -> String {
    format!("-----BEGIN {kind}-----\n{base64}\n-----END {kind}-----\n")
}

fn text(value: &Value, field: &str) -> String {
    value[field]
        .as_str()
        .unwrap_or_else(|| panic!("{field} is text: {value}"))
        .to_owned()
}
