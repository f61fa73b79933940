//! Trying a connection step by step, and saying at which one it fails and what to do.

use serde::Serialize;
use utoipa::ToSchema;

use super::Connection;
use crate::{
    App,
    access::{oidc, problem::Problem, saml},
};

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Ok,
    Failed,
    /// It cannot be seen from here, or an earlier step failed.
    Unknown,
}

/// A step of the test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Checked {
    /// OpenID Connect: `reach`, `metadata`, `issuer`, `logout`, `keys`, `client`, `redirect_uri` or `claims`. SAML: `metadata`,
    /// `certificates`, `keys`, `logout`, `reach` or `claims`.
    pub step: &'static str,
    pub outcome: Outcome,
    /// What was found, and what to do about it.
    pub detail: String,
}

/// Tries a connection as far as that is possible without a person.
pub async fn probe(app: &App, connection: &Connection) -> Result<Vec<Checked>, Problem> {
    if connection.kind == saml::BY_SAML {
        saml::probe(app, connection).await
    } else {
        oidc::probe(app, connection).await
    }
}

pub fn checked(step: &'static str, outcome: Outcome, detail: impl Into<String>) -> Checked {
    Checked {
        step,
        outcome,
        detail: detail.into(),
    }
}

/// How the last sign-in went: what the provider says of people is seen when somebody comes.
pub fn last_sign_in(connection: &Connection) -> Checked {
    match (&connection.error, connection.succeeded_at) {
        (Some(error), _) => checked(
            "claims",
            Outcome::Failed,
            format!("The last sign-in failed. {error}"),
        ),
        (None, Some(at)) => checked(
            "claims",
            Outcome::Ok,
            format!("The last sign-in went well, {at}."),
        ),
        (None, None) => checked(
            "claims",
            Outcome::Unknown,
            "Nobody has signed in yet: what the provider says of people is seen when somebody does.",
        ),
    }
}

/// A text as a sentence.
pub fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", chars.as_str().trim_end_matches('.'))
}
