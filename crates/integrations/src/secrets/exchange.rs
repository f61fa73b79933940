//! A bounded exchange over HTTP with a store.

use std::{path::Path, time::Duration};

use muster_control::secrets::StoreError;
use reqwest::{Client, RequestBuilder, StatusCode, header::RETRY_AFTER, redirect};
use serde_json::Value;

use super::SecretStoreError;

const CONNECT_TIME: Duration = Duration::from_secs(2);
/// For one request, from connecting to the last byte of the answer.
const EXCHANGE_TIME: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// An answer, read to its end.
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
    pub retry_after: Option<Duration>,
}

/// A client that trusts one authority (PEM) besides those that the system knows.
pub fn client(ca_file: Option<&Path>) -> Result<Client, SecretStoreError> {
    let wrong = |why: String| SecretStoreError::Settings(why);
    let mut builder = Client::builder()
        .connect_timeout(CONNECT_TIME)
        .timeout(EXCHANGE_TIME)
        // A credential must not follow somebody's redirect to somewhere else.
        .redirect(redirect::Policy::none())
        .user_agent(concat!("Muster/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = ca_file {
        let pem = std::fs::read(path).map_err(|error| wrong(format!("{}: {error}", path.display())))?;
        let authority = reqwest::Certificate::from_pem(&pem)
            .map_err(|_| wrong(format!("{} holds no certificate in PEM", path.display())))?;
        builder = builder.tls_certs_merge([authority]);
    }
    builder
        .build()
        .map_err(|_| wrong("no client for the store of secrets can be made".to_owned()))
}

/// Sends a request and reads the answer.
pub async fn send(request: RequestBuilder) -> Result<Answer, StoreError> {
    let mut response = request.send().await.map_err(|error| broken(&error))?;
    let status = response.status();
    let retry_after = response.headers().get(RETRY_AFTER);
    let retry_after = retry_after
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    // The answer may hold a value.
    let mut bytes = zeroize::Zeroizing::new(Vec::new());
    while let Some(chunk) = response.chunk().await.map_err(|error| broken(&error))? {
        if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(StoreError::Invalid("its answer is too large".to_owned()));
        }
        bytes.extend_from_slice(&chunk);
    }
    let body = match serde_json::from_slice(&bytes) {
        Ok(body) => body,
        Err(_) if status.is_success() && !bytes.is_empty() => {
            return Err(StoreError::Invalid("its answer is no JSON".to_owned()));
        }
        Err(_) => Value::Null,
    };
    Ok(Answer {
        status,
        body,
        retry_after,
    })
}

/// What a refusal means, by its status alone.
pub fn refusal(who: &str, answer: &Answer) -> StoreError {
    let status = answer.status;
    match status {
        StatusCode::NOT_FOUND => StoreError::Missing,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => StoreError::Conflict,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => StoreError::Denied(format!(
            "{who} answers {status}: it does not know this installation, or does not let it"
        )),
        _ if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => StoreError::Away {
            why: format!("{who} answers {status}"),
            retry_after: answer.retry_after,
        },
        _ => StoreError::Invalid(format!("{who} answers {status}")),
    }
}

fn broken(error: &reqwest::Error) -> StoreError {
    StoreError::away(if error.is_timeout() {
        "it did not answer in time"
    } else if error.is_connect() {
        "it cannot be reached, or its certificate is not trusted"
    } else {
        "the exchange broke off"
    })
}
