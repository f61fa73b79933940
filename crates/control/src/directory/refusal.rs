//! Refusals of SCIM inside of transactions, which know only the problems of the API, and how both are answered.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use muster_scim::{MEDIA_TYPE, ScimError, ScimType};

use crate::access::problem::{
    BODY_TOO_LARGE, CONFLICT, FORBIDDEN, FieldError, ILLEGAL_STATE, INVALID, NOT_FOUND, Problem,
};

/// The field under which a problem carries a refusal of SCIM: its keyword and status.
const CARRIED: &str = "scim";

impl From<ScimError> for Problem {
    fn from(error: ScimError) -> Problem {
        let kind = match error.status {
            403 => FORBIDDEN,
            404 => NOT_FOUND,
            409 => CONFLICT,
            412 => ILLEGAL_STATE,
            413 => BODY_TOO_LARGE,
            _ => INVALID,
        };
        kind.detail(error.detail).with_errors(vec![FieldError {
            field: CARRIED.to_owned(),
            code: error.kind.map_or("", ScimType::as_str).to_owned(),
            detail: error.status.to_string(),
        }])
    }
}

/// A problem as SCIM says it.
pub fn scim_error(problem: &Problem) -> ScimError {
    let carried = problem.errors.iter().find(|error| error.field == CARRIED);
    ScimError {
        status: carried
            .and_then(|carried| carried.detail.parse().ok())
            .unwrap_or(problem.kind.status),
        kind: carried.and_then(|carried| ScimType::read(&carried.code)),
        detail: problem.detail.clone(),
    }
}

/// A refusal as it is answered.
#[derive(Debug)]
pub struct Refused(pub Problem);

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Refused {
        Refused(problem)
    }
}

impl From<ScimError> for Refused {
    fn from(error: ScimError) -> Refused {
        Refused(error.into())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Refused(problem) = self;
        let error = scim_error(&problem);
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = error.body();
        // The cause is logged, and the headers are set, where every refusal's are.
        let mut response = problem.into_response();
        let headers = std::mem::take(response.headers_mut());
        let mut said = (status, Json(body)).into_response();
        for (name, value) in &headers {
            if name != header::CONTENT_TYPE && name != header::CONTENT_LENGTH {
                said.headers_mut().insert(name, value.clone());
            }
        }
        said.headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_survives_the_way_through_a_transaction() {
        for error in [
            ScimError::of(ScimType::Uniqueness, "taken"),
            ScimError::of(ScimType::NoTarget, "nothing"),
            ScimError::new(412, "changed"),
            ScimError::new(501, "not here"),
        ] {
            assert_eq!(scim_error(&Problem::from(error.clone())), error);
        }
        assert_eq!(scim_error(&Problem::internal("secret")).status, 500);
        assert!(!scim_error(&Problem::internal("secret")).detail.contains("secret"));
    }
}
