//! Bodies and parameters of requests: read typed, bounded and only after authorization.

use axum::{
    Json,
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::JsonRejection},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use super::problem::{BODY_TOO_LARGE, INVALID, MALFORMED, Problem, UNSUPPORTED_MEDIA_TYPE};

/// A JSON body. Being the last extractor, it is parsed after authentication and authorization.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let bytes = Bytes::from_request(Request::from_parts(parts.clone(), body), state)
            .await
            .map_err(|error| unreadable(error.status(), &error.body_text()))?;
        if escapes_nul(&bytes) {
            return Err(INVALID.detail(NUL));
        }
        match Json::<T>::from_request(Request::from_parts(parts, bytes.into()), state).await {
            Ok(Json(value)) => Ok(Body(value)),
            Err(JsonRejection::MissingJsonContentType(_)) => Err(UNSUPPORTED_MEDIA_TYPE
                .detail("Send the body as JSON with the header Content-Type: application/json.")),
            Err(JsonRejection::JsonDataError(error)) => Err(INVALID.detail(cause(&error.body_text()))),
            Err(error) => Err(unreadable(error.status(), &error.body_text())),
        }
    }
}

fn unreadable(status: StatusCode, text: &str) -> Problem {
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return BODY_TOO_LARGE.detail("The body is over the limit of this call.");
    }
    MALFORMED.detail(cause(text))
}

/// PostgreSQL keeps no text with a NUL, and nothing here needs one.
const NUL: &str = "A text holds the character NUL, which is not allowed anywhere.";

/// Whether a JSON text holds the escape of NUL, the only way that JSON has to write one.
fn escapes_nul(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        if rest[at + 1..].starts_with(b"u0000") {
            return true;
        }
        // What follows the backslash belongs to it, be it another backslash.
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    false
}

/// Whether a part of a URL holds NUL in the only way that it can.
fn encodes_nul(text: &str) -> bool {
    text.contains("%00")
}

/// A typed path parameter: an id or a name.
pub struct PathOf<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if encodes_nul(parts.uri.path()) {
            return Err(INVALID.detail(NUL));
        }
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(PathOf(value)),
            Err(error) => Err(INVALID.detail(cause(&error.body_text()))),
        }
    }
}

/// Typed query parameters; unknown ones are refused where the type says so.
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        if parts.uri.query().is_some_and(encodes_nul) {
            return Err(INVALID.detail(NUL));
        }
        match Query::<T>::from_request_parts(parts, state).await {
            Ok(Query(value)) => Ok(Params(value)),
            Err(error) => Err(INVALID.detail(cause(&error.body_text()))),
        }
    }
}

/// The parser's sentence, cut to a length that cannot fill a log.
fn cause(text: &str) -> String {
    const CAUSE_CHARS_MAX: usize = 300;
    let text = text.trim_start_matches("Failed to deserialize the JSON body into the target type: ");
    text.chars().take(CAUSE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j5_nul_is_found_however_json_and_urls_write_it() {
        for text in [r#""\u0000""#, r#""\\\u0000""#, r#"{"a":"x\u0000y"}"#] {
            assert!(escapes_nul(text.as_bytes()), "{text}");
        }
        for text in [r#""\\u0000""#, r#""u0000""#, r#""\u0001""#, r#""\"#, "", "\\"] {
            assert!(!escapes_nul(text.as_bytes()), "{text}");
        }
        assert!(encodes_nul("a%00b") && !encodes_nul("a%2500"));
    }
}
