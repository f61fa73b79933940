//! A stand-in for HashiCorp Vault: AppRole and Kubernetes login, renewal, the transit engine for ECDSA P-256, the KV engine
//! (version 2, mounted at `secret`) and the PKI engine (mounted at `pki`, with the role `muster` for names below `example`), with the
//! faults that tests ask for. It counts only as long as `hvac`, the usual client of the real one, works with it too.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::{
    digest::{Digest, SHA256},
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair},
};
use axum::{
    Router,
    body::{Bytes, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::{sync::Mutex, task::JoinHandle};
use uuid::Uuid;

use super::pki::pem;

pub const ROLE_ID: &str = "muster";
pub const SECRET_ID: &str = "the-secret-id-of-the-test";
/// SubjectPublicKeyInfo of P-256 before the point.
const SPKI_HEAD: &str = "3059301306072a8648ce3d020106082a8648ce3d030107034200";

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    Sealed,
    /// Every token is refused.
    Denied,
    /// 429 with `Retry-After`.
    Throttled,
    /// It does not answer.
    Silent,
    /// It answers what is no JSON.
    Garbage,
    /// It answers without end.
    Endless,
    /// It signs with another key than the one that it showed.
    WrongKey,
    /// It takes values and gives none back.
    Unreadable,
}

struct Inside {
    fault: Fault,
    tokens: BTreeSet<String>,
    keys: BTreeMap<String, EcdsaKeyPair>,
    /// Versions of secrets, oldest first.
    secrets: BTreeMap<String, Vec<Value>>,
    renewals: u64,
    lease_seconds: u64,
    signatures: u64,
    /// Keys that wrap, and what they wrapped: what is wrapped and what is in it.
    wrapping: BTreeSet<String>,
    wrapped: BTreeMap<String, Value>,
    /// Versions of a secret that the mount keeps.
    max_versions: usize,
    authority: super::authority::TestAuthority,
    /// How long certificates live.
    certificate_seconds: u64,
}

pub struct Vault {
    pub url: String,
    /// The token of an operator, which is good from the start.
    pub token: String,
    inside: Arc<Mutex<Inside>>,
    serving: JoinHandle<()>,
}

impl Drop for Vault {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Vault {
    pub async fn start() -> Vault {
        let token = format!("hvs.{}", Uuid::new_v4().simple());
        let inside = Arc::new(Mutex::new(Inside {
            fault: Fault::None,
            tokens: BTreeSet::from([token.clone()]),
            keys: BTreeMap::new(),
            secrets: BTreeMap::new(),
            renewals: 0,
            lease_seconds: 60,
            signatures: 0,
            wrapping: BTreeSet::new(),
            wrapped: BTreeMap::new(),
            max_versions: 10,
            authority: super::authority::TestAuthority::new("the PKI engine"),
            certificate_seconds: 3600,
        }));
        let tcp = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("there is a free port");
        let url = format!("http://{}", tcp.local_addr().expect("it is bound"));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&inside));
        let serving = tokio::spawn(async move {
            let _ = axum::serve(tcp, router).await;
        });
        Vault {
            url,
            token,
            inside,
            serving,
        }
    }

    pub async fn set(&self, fault: Fault) {
        self.inside.lock().await.fault = fault;
    }

    /// Forgets every token, as when they expire.
    pub async fn forget_tokens(&self) {
        self.inside.lock().await.tokens.clear();
    }

    /// How long tokens live from now on.
    pub async fn lease(&self, seconds: u64) {
        self.inside.lock().await.lease_seconds = seconds;
    }

    /// How many versions of a secret its mount keeps from now on.
    pub async fn keep_versions(&self, count: usize) {
        self.inside.lock().await.max_versions = count;
    }

    /// How long certificates live from now on.
    pub async fn certify_for(&self, seconds: u64) {
        self.inside.lock().await.certificate_seconds = seconds;
    }

    /// The certificate of the PKI engine's authority (PEM).
    pub async fn authority_pem(&self) -> String {
        self.inside.lock().await.authority.pem()
    }

    pub async fn renewals(&self) -> u64 {
        self.inside.lock().await.renewals
    }

    /// The versions of a secret.
    pub async fn versions(&self, path: &str) -> Vec<Value> {
        self.inside
            .lock()
            .await
            .secrets
            .get(path)
            .cloned()
            .unwrap_or_default()
    }

    pub async fn signatures(&self) -> u64 {
        self.inside.lock().await.signatures
    }
}

async fn answer(State(inside): State<Arc<Mutex<Inside>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body: Bytes = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut inside = inside.lock().await;
    match inside.fault {
        Fault::None | Fault::Denied | Fault::WrongKey | Fault::Unreadable => {}
        Fault::Sealed => return refuse(503, "Vault is sealed"),
        Fault::Throttled => {
            let mut response = refuse(429, "rate limit quota exceeded");
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("17"));
            return response;
        }
        Fault::Silent => {
            drop(inside);
            tokio::time::sleep(Duration::from_secs(60)).await;
            return refuse(500, "too late");
        }
        Fault::Garbage => return (StatusCode::OK, "<html>").into_response(),
        Fault::Endless => return (StatusCode::OK, vec![b' '; 1 << 20]).into_response(),
    }
    let path = parts.uri.path().trim_start_matches("/v1/").to_owned();
    if path == "sys/health" {
        return say(json!({"initialized": true, "sealed": false, "standby": false}));
    }
    if path == "auth/approle/login" || path == "auth/kubernetes/login" {
        let is_role =
            path.contains("approle") && body["role_id"] == ROLE_ID && body["secret_id"] == SECRET_ID;
        let is_pod = path.contains("kubernetes") && body["role"] == ROLE_ID && body["jwt"] == SECRET_ID;
        if !is_role && !is_pod {
            return refuse(400, "invalid role or secret ID");
        }
        let seconds = inside.lease_seconds;
        let token = format!("hvs.{}", Uuid::new_v4().simple());
        inside.tokens.insert(token.clone());
        return say(
            json!({"auth": {"client_token": token, "lease_duration": seconds, "renewable": true, "policies": []}}),
        );
    }
    let is_known = token_of(&parts.headers).is_some_and(|token| inside.tokens.contains(token));
    if !is_known || inside.fault == Fault::Denied {
        return refuse(403, "permission denied");
    }
    if path == "auth/token/renew-self" {
        inside.renewals += 1;
        let (token, seconds) = (token_of(&parts.headers).unwrap_or_default(), inside.lease_seconds);
        return say(json!({"auth": {"client_token": token, "lease_duration": seconds, "renewable": true}}));
    }
    if let Some(rest) = path.strip_prefix("secret/") {
        let query = parts.uri.query().unwrap_or_default();
        return key_value(&mut inside, &parts.method, rest, query, &body);
    }
    if let Some(role) = path.strip_prefix("pki/sign/") {
        return certify(&inside, role, &body);
    }
    transit(&mut inside, &parts.method, &path, &body)
}

fn certify(inside: &Inside, role: &str, body: &Value) -> Response {
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    let alternatives = text("alt_names");
    let names: Vec<String> = std::iter::once(text("common_name"))
        .chain(alternatives.split(',').map(str::to_owned))
        .filter(|name| !name.is_empty())
        .collect();
    if role != "muster" {
        return refuse(400, "unknown role");
    }
    if names.is_empty() || names.iter().any(|name| !name.ends_with(".example")) {
        return refuse(400, "common name not allowed by this role");
    }
    let lifetime = Duration::from_secs(inside.certificate_seconds);
    let Some(certificate) = inside.authority.certify_request(&text("csr"), &names, lifetime) else {
        return refuse(400, "certificate request could not be parsed");
    };
    let ca = inside.authority.pem();
    say(json!({"data": {
        "certificate": certificate, "issuing_ca": ca, "ca_chain": [ca], "serial_number": "17:00",
        "expiration": 1_900_000_000,
    }}))
}

fn key_value(inside: &mut Inside, method: &Method, rest: &str, query: &str, body: &Value) -> Response {
    if rest == "config" && *method == Method::GET {
        return say(
            json!({"data": {"cas_required": false, "delete_version_after": "0s", "max_versions": inside.max_versions}}),
        );
    }
    let Some((of, name)) = rest.split_once('/') else {
        return refuse(404, "");
    };
    let about = |version: usize| json!({"version": version, "created_time": "2026-01-01T00:00:00Z", "deletion_time": "", "destroyed": false});
    match (method.as_str(), of) {
        ("POST" | "PUT", "data") => {
            let versions = inside.secrets.entry(name.to_owned()).or_default();
            if let Some(after) = body["options"]["cas"].as_u64()
                && after != versions.len() as u64
            {
                return refuse(400, "check-and-set parameter did not match the current version");
            }
            versions.push(body["data"].clone());
            say(json!({"data": about(versions.len())}))
        }
        ("GET", "data") if inside.fault == Fault::Unreadable => refuse(500, "internal error"),
        ("GET", "data") => {
            let kept = inside.max_versions;
            let versions = inside.secrets.get(name).map(Vec::as_slice).unwrap_or_default();
            let asked = query
                .strip_prefix("version=")
                .and_then(|number| number.parse().ok());
            let number = asked.filter(|number| *number > 0).unwrap_or(versions.len());
            let is_gone = number + kept <= versions.len();
            match number
                .checked_sub(1)
                .filter(|_| !is_gone)
                .and_then(|place| versions.get(place))
            {
                Some(data) => say(json!({"data": {"data": data, "metadata": about(number)}})),
                None => refuse(404, ""),
            }
        }
        ("GET", "metadata") => match inside.secrets.get(name) {
            Some(versions) => {
                say(json!({"data": {"current_version": versions.len(), "max_versions": 0, "versions": {}}}))
            }
            None => refuse(404, ""),
        },
        _ => refuse(404, "no handler for route"),
    }
}

fn token_of(headers: &HeaderMap) -> Option<&str> {
    headers.get("x-vault-token")?.to_str().ok()
}

fn transit(inside: &mut Inside, method: &Method, path: &str, body: &Value) -> Response {
    let words: Vec<&str> = path.split('/').collect();
    match (method.as_str(), words.as_slice()) {
        ("POST", ["transit", "keys", name]) if body["type"] == "aes256-gcm96" => {
            inside.wrapping.insert((*name).to_owned());
            StatusCode::NO_CONTENT.into_response()
        }
        ("GET", ["transit", "keys", name]) if inside.wrapping.contains(*name) => say(json!({"data": {
            "type": "aes256-gcm96", "latest_version": 1, "exportable": false, "allow_plaintext_backup": false,
            "keys": {"1": 1_790_000_000},
        }})),
        ("POST" | "PUT", ["transit", "encrypt", name]) if inside.wrapping.contains(*name) => {
            let ciphertext = format!("vault:v1:{}", STANDARD.encode(Uuid::new_v4().as_bytes()));
            inside
                .wrapped
                .insert(format!("{name} {ciphertext}"), body["plaintext"].clone());
            say(json!({"data": {"ciphertext": ciphertext, "key_version": 1}}))
        }
        ("POST" | "PUT", ["transit", "decrypt", name]) => {
            let known = format!("{name} {}", body["ciphertext"].as_str().unwrap_or_default());
            match inside.wrapped.get(&known) {
                Some(plain) => say(json!({"data": {"plaintext": plain}})),
                None => refuse(400, "cipher: message authentication failed"),
            }
        }
        ("POST", ["transit", "keys", name]) => {
            if body["type"] != "ecdsa-p256" || body["exportable"] == true {
                return refuse(400, "this stand-in makes keys of one kind");
            }
            inside.keys.entry((*name).to_owned()).or_insert_with(fresh_key);
            StatusCode::NO_CONTENT.into_response()
        }
        ("GET", ["transit", "keys", name]) => match inside.keys.get(*name) {
            None => refuse(404, ""),
            Some(key) => {
                let spki = [
                    hex::decode(SPKI_HEAD).expect("it is hex"),
                    key.public_key().as_ref().to_vec(),
                ]
                .concat();
                say(json!({"data": {
                    "type": "ecdsa-p256", "latest_version": 1, "exportable": false,
                    "allow_plaintext_backup": false, "keys": {"1": {"public_key": pem("PUBLIC KEY", &spki)}},
                }}))
            }
        },
        // The hash's name is a part of the path or a field of the body; both are Vault's API.
        ("POST" | "PUT", ["transit", "sign", name, hash @ ..])
            if hash.first().copied().or(body["hash_algorithm"].as_str()) == Some("sha2-256") =>
        {
            let wrong = (inside.fault == Fault::WrongKey).then(fresh_key);
            let Some(key) = wrong.as_ref().or(inside.keys.get(*name)) else {
                return refuse(400, "signing key not found");
            };
            let input = STANDARD.decode(body["input"].as_str().unwrap_or_default());
            let (Ok(input), "asn1") = (input, body["marshaling_algorithm"].as_str().unwrap_or("asn1")) else {
                return refuse(400, "unable to decode input");
            };
            let digest = match body["prehashed"].as_bool().unwrap_or(false) {
                true => Digest::import_less_safe(&input, &SHA256).ok(),
                false => Some(aws_lc_rs::digest::digest(&SHA256, &input)),
            };
            let Some(digest) = digest else {
                return refuse(400, "the digest has another length");
            };
            let signature = key.sign_digest(&digest).expect("a key signs");
            inside.signatures += 1;
            say(json!({"data": {
                "key_version": 1, "signature": format!("vault:v1:{}", STANDARD.encode(signature)),
            }}))
        }
        _ => refuse(404, "no handler for route"),
    }
}

fn fresh_key() -> EcdsaKeyPair {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new());
    let pkcs8 = pkcs8.expect("a key can be made");
    EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).expect("it is a key")
}

fn say(value: Value) -> Response {
    axum::Json(value).into_response()
}

fn refuse(status: u16, why: &str) -> Response {
    let status = StatusCode::from_u16(status).expect("it is a status");
    (status, axum::Json(json!({"errors": [why]}))).into_response()
}
