//! A stand-in for Azure Key Vault's secrets and for Microsoft Entra's token endpoint, over TLS. It counts only as long as Azure's own
//! libraries work with it too.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use axum::{
    Router,
    body::to_bytes,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    serve::Listener,
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Mutex,
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
    server::TlsStream,
};
use uuid::Uuid;

pub const TENANT: &str = "0f0e0d0c-0000-4000-8000-000000000001";
pub const CLIENT: &str = "0f0e0d0c-0000-4000-8000-000000000002";
pub const CLIENT_SECRET: &str = "the-client-secret-of-the-test";

#[derive(Default)]
struct Inside {
    /// Versions with their values, oldest first.
    secrets: BTreeMap<String, Vec<(String, String)>>,
    tokens: Vec<String>,
    is_throttled: bool,
    authority: String,
}

pub struct Azure {
    /// `host:port` of both.
    pub address: String,
    /// The authority of its certificate.
    pub ca_file: PathBuf,
    inside: Arc<Mutex<Inside>>,
    serving: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Drop for Azure {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A listener whose connections are over TLS.
struct Secured {
    tcp: TcpListener,
    tls: TlsAcceptor,
}

impl Listener for Secured {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            if let Ok((stream, from)) = self.tcp.accept().await
                && let Ok(stream) = self.tls.accept(stream).await
            {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

impl Azure {
    pub async fn start() -> Azure {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let ca_file = folder.path().join("ca.pem");
        std::fs::write(&ca_file, made.cert.pem()).expect("it can be written");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a certificate with its key");
        let tcp = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("there is a free port");
        let port = tcp.local_addr().expect("it is bound").port();
        let address = format!("localhost:{port}");
        let inside = Arc::new(Mutex::new(Inside {
            authority: address.clone(),
            ..Inside::default()
        }));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&inside));
        let secured = Secured {
            tcp,
            tls: TlsAcceptor::from(Arc::new(config)),
        };
        let serving = tokio::spawn(async move {
            let _ = axum::serve(secured, router).await;
        });
        Azure {
            address,
            ca_file,
            inside,
            serving,
            _folder: folder,
        }
    }

    pub async fn throttle(&self, is_throttled: bool) {
        self.inside.lock().await.is_throttled = is_throttled;
    }

    /// The values of a secret, oldest first.
    pub async fn values(&self, name: &str) -> Vec<String> {
        let inside = self.inside.lock().await;
        let versions = inside.secrets.get(name).cloned().unwrap_or_default();
        versions.into_iter().map(|(_, value)| value).collect()
    }
}

async fn answer(State(inside): State<Arc<Mutex<Inside>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap_or_default();
    let mut inside = inside.lock().await;
    let path = parts.uri.path().trim_matches('/').to_owned();
    if let Some(rest) = path.strip_prefix(TENANT) {
        return entra(&mut inside, rest, &body);
    }
    if inside.is_throttled {
        let mut response = refuse(429, "Throttled");
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        return response;
    }
    let bearer = parts
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let is_known = bearer
        .and_then(|value| value.strip_prefix("Bearer "))
        .is_some_and(|token| inside.tokens.iter().any(|known| known == token));
    if !is_known {
        let mut response = refuse(401, "Unauthorized");
        let challenge = format!(
            "Bearer authorization=\"https://{}/{TENANT}\", resource=\"https://vault.azure.net\"",
            inside.authority
        );
        let challenge = HeaderValue::from_str(&challenge).expect("it is text");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        return response;
    }
    let words: Vec<&str> = path.split('/').collect();
    let authority = inside.authority.clone();
    let shown = |name: &str, (version, value): &(String, String)| {
        let id = format!("https://{authority}/secrets/{name}/{version}");
        let attributes = json!({"enabled": true, "created": 1_800_000_000, "updated": 1_800_000_000, "recoveryLevel": "Recoverable"});
        say(json!({"id": id, "value": value, "attributes": attributes}))
    };
    match (parts.method.as_str(), words.as_slice()) {
        ("PUT", ["secrets", name]) => {
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let Some(value) = body["value"].as_str() else {
                return refuse(400, "BadParameter");
            };
            let fresh = (Uuid::new_v4().simple().to_string(), value.to_owned());
            let versions = inside.secrets.entry((*name).to_owned()).or_default();
            versions.push(fresh.clone());
            shown(name, &fresh)
        }
        ("GET", ["secrets", name]) => match inside.secrets.get(*name).and_then(|versions| versions.last()) {
            Some(version) => shown(name, version),
            None => refuse(404, "SecretNotFound"),
        },
        ("GET", ["secrets", name, wanted]) => {
            let versions = inside.secrets.get(*name).map(Vec::as_slice).unwrap_or_default();
            match versions.iter().find(|(version, _)| version == wanted) {
                Some(version) => shown(name, version),
                None => refuse(404, "SecretNotFound"),
            }
        }
        _ => refuse(404, "NotFound"),
    }
}

fn entra(inside: &mut Inside, rest: &str, body: &[u8]) -> Response {
    let base = format!("https://{}/{TENANT}", inside.authority);
    if rest.ends_with("/.well-known/openid-configuration") {
        return say(json!({
            "issuer": format!("{base}/v2.0"),
            "authorization_endpoint": format!("{base}/oauth2/v2.0/authorize"),
            "token_endpoint": format!("{base}/oauth2/v2.0/token"),
        }));
    }
    let body = String::from_utf8_lossy(body);
    let has = |pair: &str| body.split('&').any(|found| found == pair);
    let is_secret = has(&format!("client_secret={CLIENT_SECRET}"));
    let is_federated = has(&format!("client_assertion={CLIENT_SECRET}"));
    let is_ours = rest == "/oauth2/v2.0/token"
        && has("grant_type=client_credentials")
        && has(&format!("client_id={CLIENT}"))
        && body.contains("vault.azure.net%2F.default")
        && (is_secret || is_federated);
    if !is_ours {
        return (
            StatusCode::UNAUTHORIZED,
            axum::Json(json!({"error": "invalid_client"})),
        )
            .into_response();
    }
    let token = Uuid::new_v4().simple().to_string();
    inside.tokens.push(token.clone());
    say(json!({"token_type": "Bearer", "expires_in": 3599, "access_token": token}))
}

fn say(value: Value) -> Response {
    axum::Json(value).into_response()
}

fn refuse(status: u16, code: &str) -> Response {
    let status = StatusCode::from_u16(status).expect("it is a status");
    (
        status,
        axum::Json(json!({"error": {"code": code, "message": code}})),
    )
        .into_response()
}
