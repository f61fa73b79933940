//! What surrounds every request: its id, and bodies that are read typed, bounded and only after authorization.

use axum::{
    Json,
    extract::{FromRequest, FromRequestParts, Path, Query, Request, rejection::JsonRejection},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use super::problem::{BODY_TOO_LARGE, INVALID, MALFORMED, Problem, UNSUPPORTED_MEDIA_TYPE};

tokio::task_local! {
    static REQUEST_ID: String;
}

/// Runs a request under its id, which every problem and log line then carries.
pub async fn with_id<F: Future>(id: String, run: F) -> F::Output {
    REQUEST_ID.scope(id, run).await
}

/// The id of the request that this task serves.
pub fn current_id() -> Option<String> {
    REQUEST_ID.try_with(Clone::clone).ok()
}

/// A JSON body. Being the last extractor, it is parsed after authentication and authorization.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(value)) => Ok(Body(value)),
            Err(JsonRejection::MissingJsonContentType(_)) => Err(UNSUPPORTED_MEDIA_TYPE
                .detail("Send the body as JSON with the header Content-Type: application/json.")),
            Err(JsonRejection::JsonDataError(error)) => Err(INVALID.detail(cause(&error.body_text()))),
            Err(JsonRejection::JsonSyntaxError(error)) => Err(MALFORMED.detail(cause(&error.body_text()))),
            Err(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(BODY_TOO_LARGE.detail("The body is over the limit of this call."))
            }
            Err(error) => Err(MALFORMED.detail(cause(&error.body_text()))),
        }
    }
}

/// A typed path parameter: an id or a name.
pub struct PathOf<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
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
