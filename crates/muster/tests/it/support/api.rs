//! A client of the admin API that shows everything of an answer.

use std::fs;

use reqwest::{Method, header::HeaderMap};
use serde_json::Value;

use super::server::AdminFile;

/// A signed-in client of one tenant.
#[derive(Clone)]
pub struct Api {
    pub http: reqwest::Client,
    /// `https://host:port`.
    pub origin: String,
    /// The access token that every call carries; empty for none.
    pub token: String,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub bytes: Vec<u8>,
}

impl Api {
    /// A client that has no token.
    pub fn anonymous(admin: &AdminFile) -> Api {
        let ca = fs::read(&admin.ca_file).expect("the certificate of the install is there");
        let ca = reqwest::Certificate::from_pem(&ca).expect("it is a certificate");
        let builder = reqwest::Client::builder()
            .tls_certs_only([ca])
            .redirect(reqwest::redirect::Policy::none());
        let http = builder.build().expect("a client can be made");
        Api {
            http,
            origin: admin.admin_url.clone(),
            token: String::new(),
        }
    }

    /// Signs in as the service account of `admin.json`, with every scope that it holds.
    pub async fn sign_in(admin: &AdminFile) -> Api {
        Api::anonymous(admin)
            .sign_in_as(&admin.client_id, &admin.client_secret)
            .await
    }

    /// This client, signed in as another service account.
    pub async fn sign_in_as(&self, client_id: &str, client_secret: &str) -> Api {
        let answer = self
            .ask_token(&[("client_id", client_id), ("client_secret", client_secret)])
            .await;
        let token = answer.ok()["access_token"]
            .as_str()
            .expect("a token is text")
            .to_owned();
        Api {
            token,
            ..self.clone()
        }
    }

    /// A new service account with these scopes, signed in.
    pub async fn client_with(&self, name: &str, scopes: &[&str]) -> Api {
        let made = self
            .post("/clients", &serde_json::json!({"name": name, "scopes": scopes}))
            .await
            .ok();
        let text = |field: &str| made[field].as_str().expect("credentials are text").to_owned();
        self.sign_in_as(&text("client_id"), &text("client_secret")).await
    }

    /// This client with another token.
    pub fn with_token(&self, token: impl Into<String>) -> Api {
        Api {
            token: token.into(),
            ..self.clone()
        }
    }

    /// Asks for a token with these form fields beside the grant type.
    pub async fn ask_token(&self, fields: &[(&str, &str)]) -> Answer {
        let mut form = vec![("grant_type", "client_credentials")];
        form.extend_from_slice(fields);
        self.form("/oauth2/token", &form).await
    }

    /// Posts a form to a path of the origin, without a token.
    pub async fn form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        answer(self.http.post(format!("{}{path}", self.origin)).form(fields)).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::POST, path).json(body)).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        answer(self.request(Method::PUT, path).json(body)).await
    }

    /// Posts with an `Idempotency-Key`.
    pub async fn post_once(&self, path: &str, key: &str, body: &Value) -> Answer {
        answer(
            self.request(Method::POST, path)
                .header("idempotency-key", key)
                .json(body),
        )
        .await
    }

    /// Posts bytes as JSON that may be none.
    pub async fn post_bytes(&self, path: &str, body: impl Into<Vec<u8>>) -> Answer {
        answer(
            self.request(Method::POST, path)
                .header("content-type", "application/json")
                .body(body.into()),
        )
        .await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }

    /// A request under `/api/v1` with this client's token.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("{}/api/v1{path}", self.origin));
        if self.token.is_empty() {
            request
        } else {
            request.bearer_auth(&self.token)
        }
    }

    /// Every item of a list, page by page.
    pub async fn list(&self, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = None::<String>;
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let from = cursor
                .map(|cursor| format!("{separator}cursor={cursor}"))
                .unwrap_or_default();
            let page = self.get(&format!("{path}{from}")).await.ok();
            items.extend(
                page["items"]
                    .as_array()
                    .expect("a list has items")
                    .iter()
                    .cloned(),
            );
            cursor = match &page["next_cursor"] {
                Value::Null => return items,
                Value::String(text) => Some(text.clone()),
                other => Some(other.to_string()),
            };
        }
    }
}

/// Sends a request and reads the whole answer.
pub async fn answer(request: reqwest::RequestBuilder) -> Answer {
    try_answer(request).await.expect("the server answers")
}

/// As [`answer`], for a server that may be killed meanwhile.
pub async fn try_answer(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer {
        status,
        headers,
        bytes: response.bytes().await?.to_vec(),
    })
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The body as JSON; `null` where it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_default()
    }

    /// The body of a call that must have succeeded.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!(
            (200..300).contains(&self.status),
            "answered {}: {}",
            self.status,
            self.text()
        );
        self.json()
    }

    /// The body of a call that must have answered this status.
    #[track_caller]
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        self.json()
    }

    /// Asserts a problem (RFC 9457) with this status and code; answers its sentence.
    #[track_caller]
    pub fn refused(&self, status: u16, code: &str) -> String {
        let body = self.expect(status);
        assert_eq!(self.header("content-type"), "application/problem+json", "{body}");
        assert_eq!(
            (body["code"].as_str(), body["status"].as_u64()),
            (Some(code), Some(u64::from(status))),
            "{body}"
        );
        body["detail"]
            .as_str()
            .expect("a problem has a sentence")
            .to_owned()
    }

    /// The status, and the code of a refusal, for tables.
    pub fn word(&self) -> String {
        let body = self.json();
        let code = body["code"].as_str().map(|code| format!(" {code}"));
        format!("{}{}", self.status, code.unwrap_or_default())
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}
