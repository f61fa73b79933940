//! The admin API over HTTPS: one authority, a short-lived token, refusals as [`CliError::Refused`].

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, IF_MATCH, RETRY_AFTER};
use reqwest::{Certificate, Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use crate::assertion;
use crate::context::{self, Context, Credentials, SYSTEM_AUTHORITIES};
use crate::error::Problem;
use crate::{CliError, Globals};

/// Longest time for one answer.
const CALL_TIME_MAX: Duration = Duration::from_secs(60);
/// How long an answer may take that is as long as a tenant is large.
const DOWNLOAD_TIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// Longest time until a connection stands.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Largest answer: a policy bundle.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How often a call that may be repeated is tried.
const TRIES_MAX: u32 = 3;
/// Longest wait that the server may ask for between tries; for longer ones the verb fails and says so.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);
/// Pause after a broken connection.
const RETRY_DELAY: Duration = Duration::from_millis(300);

/// A client of one install.
#[derive(Clone, Debug)]
pub struct Api {
    http: reqwest::Client,
    base: Url,
    context: Arc<Context>,
    token: Arc<Mutex<Option<String>>>,
}

/// An answer: the server's JSON as it came, and the part of it that this library knows.
#[derive(Clone, Debug)]
pub struct Answer<T> {
    /// Every member, known or not.
    pub value: Value,
    /// The known ones.
    pub known: T,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    method: Method,
    segments: Vec<&'a str>,
    query: Vec<(&'a str, String)>,
    body: Option<Body>,
    idempotency_key: Option<String>,
    if_match: Option<String>,
    accept: &'static str,
}

/// What a request carries.
#[derive(Clone, Debug)]
enum Body {
    Json(Value),
    /// Bytes of another media type.
    Bytes(&'static str, Vec<u8>),
}

impl<'a> Call<'a> {
    fn new(method: Method, segments: &[&'a str]) -> Self {
        let segments = segments.to_vec();
        Self {
            method,
            segments,
            query: Vec::new(),
            body: None,
            idempotency_key: None,
            if_match: None,
            accept: "application/json",
        }
    }

    /// Reads `/api/v1/…`; each segment is percent-encoded.
    pub fn get(segments: &[&'a str]) -> Self {
        Self::new(Method::GET, segments)
    }

    /// Acts on something that is there.
    pub fn post(segments: &[&'a str]) -> Self {
        Self::new(Method::POST, segments)
    }

    /// Makes something: with a key, so that repeating the request makes it once.
    pub fn create(segments: &[&'a str], body: Value, key: Option<String>) -> Self {
        let key = key.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
        Self {
            body: Some(Body::Json(body)),
            idempotency_key: Some(key),
            ..Self::new(Method::POST, segments)
        }
    }

    /// Replaces something.
    pub fn put(segments: &[&'a str], body: Value) -> Self {
        Self::new(Method::PUT, segments).body(body)
    }

    /// Changes a part of something.
    pub fn patch(segments: &[&'a str], body: Value) -> Self {
        Self::new(Method::PATCH, segments).body(body)
    }

    /// Removes something.
    pub fn delete(segments: &[&'a str]) -> Self {
        Self::new(Method::DELETE, segments)
    }

    /// With a body.
    pub fn body(mut self, body: Value) -> Self {
        self.body = Some(Body::Json(body));
        self
    }

    /// With a body of another media type than JSON.
    pub fn bytes(mut self, media_type: &'static str, bytes: Vec<u8>) -> Self {
        self.body = Some(Body::Bytes(media_type, bytes));
        self
    }

    /// With a query parameter where there is a value.
    pub fn query(mut self, name: &'a str, value: Option<impl ToString>) -> Self {
        if let Some(value) = value {
            self.query.push((name, value.to_string()));
        }
        self
    }

    /// Only if it is still at this version.
    pub fn if_match(mut self, version: &str) -> Self {
        self.if_match = Some(format!("\"{version}\""));
        self
    }

    /// Asking for another media type.
    pub fn accept(mut self, media_type: &'static str) -> Self {
        self.accept = media_type;
        self
    }

    fn may_repeat(&self) -> bool {
        self.method == Method::GET || self.idempotency_key.is_some()
    }
}

/// An answer before it is read.
#[derive(Debug)]
pub struct RawAnswer {
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub bytes: Vec<u8>,
}

/// How one try ended without an answer that counts.
enum Attempt {
    Done(RawAnswer),
    /// The token was refused.
    Unauthenticated(CliError),
    /// It may go better after this pause.
    Again(Duration, CliError),
}

impl Api {
    /// A client of the install that the flags name.
    pub fn connect(globals: &Globals) -> Result<Self, CliError> {
        Self::new(context::resolve(globals)?)
    }

    /// A client of this install.
    pub fn new(context: Context) -> Result<Self, CliError> {
        let unusable = |error: reqwest::Error| {
            CliError::Usage(format!("the CA file holds no usable certificate: {error}"))
        };
        let mut builder = reqwest::Client::builder();
        if context.ca_pem != SYSTEM_AUTHORITIES {
            let anchors = Certificate::from_pem_bundle(context.ca_pem.as_bytes()).map_err(unusable)?;
            if anchors.is_empty() {
                return Err(CliError::Usage("the CA file holds no certificate".to_owned()));
            }
            builder = builder.tls_certs_only(anchors);
        }
        if let (Some(certificate), Some(key)) = (&context.certificate_file, &context.key_file) {
            let pem = [context::read_file(certificate)?, context::read_file(key)?].concat();
            let identity = reqwest::Identity::from_pem(&pem).map_err(|_| {
                CliError::Usage(
                    "the certificate and its key are no PEM files of one certificate and its key".to_owned(),
                )
            })?;
            builder = builder.identity(identity);
        }
        let http = builder
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .timeout(CALL_TIME_MAX)
            .connect_timeout(CONNECT_TIME_MAX)
            .user_agent(concat!("muster/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(unusable)?;
        let base = Url::parse(&context.admin_url).map_err(|error| {
            CliError::Usage(format!("`{}` is not an address: {error}", context.admin_url))
        })?;
        Ok(Self {
            http,
            base,
            context: Arc::new(context),
            token: Arc::new(Mutex::new(None)),
        })
    }

    /// The install's address.
    pub fn address(&self) -> &str {
        self.base.as_str()
    }

    /// Sends a request and reads its JSON answer.
    pub async fn send<T: DeserializeOwned>(&self, call: Call<'_>) -> Result<Answer<T>, CliError> {
        read_answer(&self.send_raw(call).await?.bytes)
    }

    /// Sends a request whose answer has no body that matters.
    pub async fn send_quiet(&self, call: Call<'_>) -> Result<(), CliError> {
        self.send_raw(call).await.map(drop)
    }

    /// Sends a request and takes the answer as it comes.
    pub async fn send_raw(&self, call: Call<'_>) -> Result<RawAnswer, CliError> {
        let url = self.url(&call)?;
        let mut has_fresh_token = false;
        let mut tries = 0;
        loop {
            tries += 1;
            let token = self.token(has_fresh_token).await?;
            match self.attempt(&call, &url, &token).await? {
                Attempt::Done(answer) => return Ok(answer),
                Attempt::Unauthenticated(error) if has_fresh_token => return Err(error),
                Attempt::Unauthenticated(_) => {
                    self.forget(&token).await;
                    has_fresh_token = true;
                }
                Attempt::Again(_, error) if tries >= TRIES_MAX || !call.may_repeat() => return Err(error),
                Attempt::Again(pause, _) => tokio::time::sleep(pause).await,
            }
        }
    }

    /// Sends a request and hands the body of its answer on as it comes, however long it is. It is not tried again.
    pub async fn download(
        &self,
        call: Call<'_>,
        mut take: impl FnMut(&[u8]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let (url, token) = (self.url(&call)?, self.token(false).await?);
        let request = self
            .http
            .request(call.method.clone(), url)
            .timeout(DOWNLOAD_TIME_MAX)
            .bearer_auth(&token)
            .header(ACCEPT, call.accept);
        let unreachable = |error: reqwest::Error| self.unreachable(&error);
        let mut response = request.send().await.map_err(unreachable)?;
        let (status, headers) = (response.status(), response.headers().clone());
        if !status.is_success() {
            let bytes = match read_body(response).await {
                Ok(bytes) => bytes,
                Err(ReadError::TooLarge) => Vec::new(),
                Err(ReadError::Broken(error)) => return Err(self.unreachable(&error)),
            };
            return Err(CliError::Refused(Box::new(read_problem(
                status, &headers, &bytes,
            ))));
        }
        while let Some(part) = response.chunk().await.map_err(unreachable)? {
            take(&part)?;
        }
        Ok(())
    }

    async fn attempt(&self, call: &Call<'_>, url: &Url, token: &str) -> Result<Attempt, CliError> {
        let mut request = self
            .http
            .request(call.method.clone(), url.clone())
            .bearer_auth(token)
            .header(ACCEPT, call.accept);
        request = match &call.body {
            None => request,
            Some(Body::Json(body)) => request.json(body),
            Some(Body::Bytes(media_type, bytes)) => {
                request.header(CONTENT_TYPE, *media_type).body(bytes.clone())
            }
        };
        if let Some(key) = &call.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(version) = &call.if_match {
            request = request.header(IF_MATCH, version);
        }
        let response = match request.send().await {
            Ok(response) => response,
            // Nobody listens: waiting a moment changes nothing.
            Err(error) if error.is_connect() || error.is_builder() => return Err(self.unreachable(&error)),
            Err(error) => return Ok(Attempt::Again(RETRY_DELAY, self.unreachable(&error))),
        };
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = match read_body(response).await {
            Ok(bytes) => bytes,
            Err(ReadError::TooLarge) => {
                return Err(CliError::Answer(format!(
                    "it is larger than {ANSWER_BYTES_MAX} bytes"
                )));
            }
            Err(ReadError::Broken(error)) => {
                return Ok(Attempt::Again(RETRY_DELAY, self.unreachable(&error)));
            }
        };
        if status.is_success() {
            return Ok(Attempt::Done(RawAnswer { headers, bytes }));
        }
        let problem = read_problem(status, &headers, &bytes);
        let pause = Duration::from_secs(problem.retry_after_seconds.unwrap_or(1));
        let error = CliError::Refused(Box::new(problem));
        Ok(match status {
            StatusCode::UNAUTHORIZED => Attempt::Unauthenticated(error),
            StatusCode::SERVICE_UNAVAILABLE if pause <= RETRY_DELAY_MAX => Attempt::Again(pause, error),
            _ => return Err(error),
        })
    }

    fn url(&self, call: &Call<'_>) -> Result<Url, CliError> {
        let mut url = self.base.clone();
        {
            let mut path = url
                .path_segments_mut()
                .map_err(|()| CliError::Usage(format!("`{}` cannot have a path", self.base)))?;
            path.clear().extend(["api", "v1"]);
            for segment in &call.segments {
                // The URL standard drops such segments, and the request would go elsewhere.
                if segment.is_empty() || *segment == "." || *segment == ".." {
                    return Err(CliError::Usage(format!(
                        "`{segment}` is neither an id nor a name"
                    )));
                }
                path.push(segment);
            }
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        Ok(url)
    }

    async fn token(&self, is_renewal: bool) -> Result<String, CliError> {
        let mut held = self.token.lock().await;
        if let Some(token) = held.as_ref() {
            return Ok(token.clone());
        }
        let token = match self.fetch_token().await {
            // A server that restarts closes connections that looked open.
            Err(CliError::Unreachable { .. }) if is_renewal => self.fetch_token().await?,
            other => other?,
        };
        *held = Some(token.clone());
        Ok(token)
    }

    async fn forget(&self, token: &str) {
        let mut held = self.token.lock().await;
        if held.as_deref() == Some(token) {
            *held = None;
        }
    }

    /// Gets an access token by what the context holds.
    async fn fetch_token(&self) -> Result<String, CliError> {
        #[derive(Deserialize)]
        struct Granted {
            access_token: String,
        }
        let client = self.context.client_id.as_str();
        let granted: Granted = match self.context.credentials() {
            Credentials::Token(token) => return Ok(token.to_owned()),
            Credentials::Secret(secret) => {
                let form = [
                    ("grant_type", "client_credentials"),
                    ("client_id", client),
                    ("client_secret", secret),
                ];
                self.post_form("token", &form).await?
            }
            Credentials::Key(file) => {
                let assertion = assertion::sign(file, client, &self.context.admin_url)?;
                let form = [
                    ("grant_type", "client_credentials"),
                    ("client_id", client),
                    ("client_assertion_type", assertion::TYPE),
                    ("client_assertion", &assertion),
                ];
                self.post_form("token", &form).await?
            }
            Credentials::Certificate => {
                let form = [("grant_type", "client_credentials"), ("client_id", client)];
                self.post_form("token", &form).await?
            }
            Credentials::Exchange(file) => {
                let token = context::read_file(file)?;
                return self.exchange(&String::from_utf8_lossy(&token)).await;
            }
        };
        Ok(granted.access_token)
    }

    /// Exchanges a workload's token (RFC 8693).
    pub async fn exchange(&self, token: &str) -> Result<String, CliError> {
        #[derive(Deserialize)]
        struct Granted {
            access_token: String,
        }
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("client_id", self.context.client_id.as_str()),
            ("subject_token", token.trim()),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
        ];
        let granted: Granted = self.post_form("token", &form).await?;
        Ok(granted.access_token)
    }

    /// Asks the authorization server; a refusal of its kind is [`CliError::SignIn`].
    pub async fn post_form<T: DeserializeOwned>(
        &self,
        endpoint: &str,
        form: &[(&str, &str)],
    ) -> Result<T, CliError> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Refusal {
            error: String,
            error_description: String,
        }
        let url = self
            .base
            .join(&format!("/oauth2/{endpoint}"))
            .map_err(|error| CliError::Usage(error.to_string()))?;
        let response = self
            .http
            .post(url)
            .form(form)
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = match read_body(response).await {
            Ok(bytes) => bytes,
            Err(ReadError::TooLarge) => return Err(CliError::Answer("the token is too large".to_owned())),
            Err(ReadError::Broken(error)) => return Err(self.unreachable(&error)),
        };
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(not_understood);
        }
        match serde_json::from_slice::<Refusal>(&bytes) {
            Ok(Refusal {
                error,
                error_description: description,
            }) if !error.is_empty() => Err(CliError::SignIn { error, description }),
            _ => Err(CliError::Refused(Box::new(read_problem(
                status, &headers, &bytes,
            )))),
        }
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        // Each error repeats the ones before it or says only "client error"; the last one has the reason.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        let cause = if error.is_timeout() {
            "no answer in time".to_owned()
        } else {
            cause.to_string()
        };
        CliError::Unreachable {
            url: self.base.to_string(),
            cause,
        }
    }
}

enum ReadError {
    TooLarge,
    Broken(reqwest::Error),
}

async fn read_body(mut response: reqwest::Response) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(ReadError::Broken)? {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(ReadError::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Reads an answer twice: whole, and as the known type. A body that is absent reads as `null`.
pub fn read_answer<T: DeserializeOwned>(bytes: &[u8]) -> Result<Answer<T>, CliError> {
    let bytes: &[u8] = if bytes.is_empty() { b"null" } else { bytes };
    Ok(Answer {
        value: serde_json::from_slice(bytes).map_err(not_understood)?,
        known: serde_json::from_slice(bytes).map_err(not_understood)?,
    })
}

fn not_understood(error: serde_json::Error) -> CliError {
    CliError::Answer(error.to_string())
}

fn read_problem(status: StatusCode, headers: &HeaderMap, bytes: &[u8]) -> Problem {
    let mut problem: Problem = serde_json::from_slice(bytes).unwrap_or_default();
    problem.status = status.as_u16();
    problem.retry_after_seconds = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.trim().parse().ok());
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api() -> Api {
        let ca = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let context = Context {
            admin_url: "https://host.example:8440".to_owned(),
            ca_pem: ca.to_owned(),
            client_id: "c".to_owned(),
            client_secret: "s".to_owned(),
            key_file: None,
            certificate_file: None,
            exchange_token_file: None,
            token: None,
        };
        // The certificate is not read before it is used, so any base64 will do for addresses.
        let base = Url::parse(&context.admin_url).expect("an address");
        Api {
            http: reqwest::Client::new(),
            base,
            context: Arc::new(context),
            token: Arc::default(),
        }
    }

    #[test]
    fn ids_are_percent_encoded_and_stay_one_segment() {
        let url = |segments: &[&str]| api().url(&Call::get(segments)).map(|url| url.to_string());
        assert_eq!(
            url(&["devices", "a/b ?#é"]).expect("encoded"),
            "https://host.example:8440/api/v1/devices/a%2Fb%20%3F%23%C3%A9"
        );
        for hostile in ["", ".", ".."] {
            assert!(
                matches!(url(&["devices", hostile]), Err(CliError::Usage(_))),
                "{hostile:?}"
            );
        }
        let call = Call::get(&["devices"])
            .query("filter", Some("a b&c"))
            .query("limit", None::<u32>);
        assert_eq!(
            api().url(&call).expect("an address").as_str(),
            "https://host.example:8440/api/v1/devices?filter=a+b%26c"
        );
    }

    #[test]
    fn only_harmless_calls_are_repeated() {
        assert!(Call::get(&["devices"]).may_repeat());
        assert!(Call::create(&["policies"], Value::Null, None).may_repeat());
        assert!(!Call::post(&["clients"]).may_repeat());
        assert!(!Call::put(&["enrollment-policy"], Value::Null).may_repeat());
        assert!(!Call::delete(&["clients", "x"]).may_repeat());
    }

    #[test]
    fn each_creation_has_a_key_of_its_own() {
        let key = || Call::create(&["policies"], Value::Null, None).idempotency_key;
        assert_ne!(key(), key());
        let given = Call::create(&["policies"], Value::Null, Some("k".to_owned())).idempotency_key;
        assert_eq!(given.as_deref(), Some("k"));
    }

    #[test]
    fn an_answer_keeps_members_that_are_not_known() {
        #[derive(Deserialize)]
        struct Known {
            id: String,
        }
        let answer = read_answer::<Known>(br#"{"id":"x","new":1}"#).expect("an answer");
        assert_eq!(
            (answer.known.id.as_str(), &answer.value["new"]),
            ("x", &Value::from(1))
        );
        assert!(read_answer::<Known>(b"<html>").is_err());
        assert!(
            read_answer::<Option<Known>>(b"")
                .expect("no body")
                .known
                .is_none()
        );
    }

    #[test]
    fn a_gateway_page_is_a_problem_with_a_status() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, reqwest::header::HeaderValue::from_static("7"));
        let problem = read_problem(StatusCode::BAD_GATEWAY, &headers, b"<html>");
        assert_eq!((problem.status, problem.retry_after_seconds), (502, Some(7)));
    }
}
