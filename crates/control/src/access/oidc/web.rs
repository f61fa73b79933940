//! The way to an identity provider: a port, so that it is reached through the one way out that refuses private addresses.

use futures_util::future::BoxFuture;

/// One request. Nothing of it is logged.
#[derive(Debug)]
pub struct WebRequest {
    pub url: String,
    /// Sent with POST as `application/x-www-form-urlencoded`; without it the request is a GET.
    pub form: Option<Vec<(&'static str, String)>>,
    /// The `Authorization` header.
    pub authorization: Option<String>,
}

impl WebRequest {
    pub fn get(url: impl Into<String>) -> WebRequest {
        WebRequest {
            url: url.into(),
            form: None,
            authorization: None,
        }
    }
}

/// An answer, read to its end, at most 64 KiB.
#[derive(Debug, Clone)]
pub struct WebAnswer {
    pub status: u16,
    /// Where a redirect leads; it is not followed.
    pub location: Option<String>,
    pub body: Vec<u8>,
}

/// Why there is no answer, in words that name no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebError {
    /// The address is not one that may be reached.
    #[error("{0}")]
    Refused(String),
    #[error("the name does not resolve")]
    Unresolved,
    #[error("it does not answer: {0}")]
    Unreachable(String),
    #[error("its answer is too long")]
    TooLong,
}

/// Sends requests to identity providers.
pub trait Web: Send + Sync {
    fn send(&self, request: WebRequest) -> BoxFuture<'_, Result<WebAnswer, WebError>>;
}
