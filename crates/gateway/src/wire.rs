//! Bodies of the agent protocol: bounded before they are read, JSON or CBOR by content type, answered in kind.

use axum::{
    body::{Body, Bytes, to_bytes},
    http::{HeaderMap, HeaderValue, Request, StatusCode, header},
    response::{IntoResponse, Response},
};
use muster_channel_agent::codec::{ContentType, DecodeError, decode, encode};
use muster_control::access::problem::{BODY_TOO_LARGE, MALFORMED, Problem, UNSUPPORTED_MEDIA_TYPE};
use serde::{Serialize, de::DeserializeOwned};

/// A message with the encoding that the answer is to have.
pub struct Message<T> {
    pub value: T,
    pub answer_as: ContentType,
}

/// Reads one message of at most `bytes_max` bytes.
pub async fn read<T: DeserializeOwned>(
    request: Request<Body>,
    bytes_max: usize,
) -> Result<Message<T>, Problem> {
    let (content_type, answer_as) = types(request.headers())?;
    let bytes = body(request, bytes_max).await?;
    let value = decode(content_type, &bytes, bytes_max).map_err(|error| match error {
        DecodeError::TooLarge { .. } => BODY_TOO_LARGE.detail(error.to_string()),
        DecodeError::TooDeep | DecodeError::Malformed(_) => MALFORMED.detail(short(&error.to_string())),
    })?;
    Ok(Message { value, answer_as })
}

/// Answers a message.
pub fn answer<T: Serialize>(
    status: StatusCode,
    content_type: ContentType,
    value: &T,
) -> Result<Response, Problem> {
    let bytes = encode(content_type, value).map_err(Problem::internal)?;
    let mut response = (status, Bytes::from(bytes)).into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(content_type.as_str()),
    );
    Ok(response)
}

/// Reads a body of at most `bytes_max` bytes.
pub async fn body(request: Request<Body>, bytes_max: usize) -> Result<Bytes, Problem> {
    let too_large = || BODY_TOO_LARGE.detail(format!("The body may have at most {bytes_max} bytes."));
    if announced(request.headers()).is_some_and(|length| length > bytes_max) {
        return Err(too_large());
    }
    to_bytes(request.into_body(), bytes_max).await.map_err(|error| {
        let error = std::error::Error::source(&error);
        if error.is_some_and(<dyn std::error::Error>::is::<http_body_util::LengthLimitError>) {
            return too_large();
        }
        MALFORMED.detail("The body broke off or took too long.")
    })
}

/// How long a body says that it is.
pub fn announced(headers: &HeaderMap) -> Option<usize> {
    headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok())
}

/// How a body is encoded, and how its answer is to be.
pub fn types(headers: &HeaderMap) -> Result<(ContentType, ContentType), Problem> {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let content_type = text(header::CONTENT_TYPE)
        .and_then(ContentType::from_header)
        .ok_or_else(|| {
            UNSUPPORTED_MEDIA_TYPE.detail("Send the message as application/json or application/cbor.")
        })?;
    Ok((
        content_type,
        ContentType::from_accept(text(header::ACCEPT), content_type),
    ))
}

/// A parser's sentence, cut to a length that cannot fill a log.
pub fn short(text: &str) -> String {
    const CHARS_MAX: usize = 300;
    text.chars().take(CHARS_MAX).collect()
}
