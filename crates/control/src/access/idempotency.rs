//! `Idempotency-Key`: a repeated request gets the first one's answer, from the same transaction that made the change.

use axum::{
    Json,
    extract::FromRequestParts,
    http::{HeaderName, HeaderValue, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use muster_trust::key::sha256;
use serde::Serialize;

use super::{
    Author, Permit,
    problem::{IDEMPOTENCY_KEY_REUSED, INVALID, Problem},
    store::{self, IdempotentRequest},
};
use crate::{
    App,
    audit::{self, LoggedTx},
};

const KEY_CHARS_MAX: usize = 255;
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The caller's key, where one was sent.
pub struct IdempotencyKey(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get("idempotency-key") else {
            return Ok(IdempotencyKey(None));
        };
        let text = value.to_str().unwrap_or_default();
        if text.is_empty() || text.len() > KEY_CHARS_MAX {
            return Err(INVALID.detail("An Idempotency-Key has 1 to 255 printable characters."));
        }
        Ok(IdempotencyKey(Some(text.to_owned())))
    }
}

/// A change with its answer: carried out once per (tenant, actor, route, key).
pub async fn commit_once<S, Q, T, F>(
    app: &App,
    permit: &Permit<S>,
    key: IdempotencyKey,
    route: &'static str,
    request: &Q,
    mut change: F,
) -> Result<Response, Problem>
where
    Q: Serialize,
    T: Serialize,
    F: FnMut(&mut LoggedTx<'_>) -> Result<(StatusCode, T), Problem> + Send + 'static,
{
    let request = key
        .0
        .map(|key| identify(permit.author(), route, key, request))
        .transpose()?;
    let (status, body, replayed) = audit::commit(app, permit.author(), move |tx| {
        let Some(request) = &request else {
            let (status, answer) = change(tx)?;
            return Ok((
                status,
                serde_json::to_string(&answer).map_err(Problem::internal)?,
                false,
            ));
        };
        let at = tx.at();
        if !store::claim_key(tx, request, at)? {
            return replay(tx, request);
        }
        // The key's own row, and below its answer, are no change that the log must show.
        tx.excuse(2);
        let (status, answer) = change(tx)?;
        let body = serde_json::to_string(&answer).map_err(Problem::internal)?;
        store::store_answer(tx, request, status.as_u16(), &body)?;
        Ok((status, body, false))
    })
    .await?;
    let answer = serde_json::value::RawValue::from_string(body).map_err(Problem::internal)?;
    let mut response = (status, Json(answer)).into_response();
    if replayed {
        response
            .headers_mut()
            .insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn identify<Q: Serialize>(
    author: &Author,
    route: &'static str,
    key: String,
    request: &Q,
) -> Result<IdempotentRequest, Problem> {
    let body = serde_json::to_vec(request).map_err(Problem::internal)?;
    Ok(IdempotentRequest {
        tenant: author.tenant,
        actor: author.text(),
        route,
        key,
        request_sha256: *sha256(&body).as_bytes(),
    })
}

fn replay(tx: &mut LoggedTx<'_>, request: &IdempotentRequest) -> Result<(StatusCode, String, bool), Problem> {
    let stored = store::stored_answer(tx, request)?;
    let Some(stored) = stored.filter(|stored| stored.request_sha256 == request.request_sha256) else {
        return Err(IDEMPOTENCY_KEY_REUSED
            .detail("This key was sent with another body. Use a new key for a new request."));
    };
    let (Some(status), Some(response)) = (stored.status, stored.response) else {
        return Err(Problem::internal(
            "an idempotency key was committed without its answer",
        ));
    };
    let status = u16::try_from(status)
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok());
    Ok((status.unwrap_or(StatusCode::OK), response, true))
}
