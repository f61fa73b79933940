//! Forms: read only for a signed-in person whose session made them.

use axum::{
    Form,
    extract::{FromRequest, FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use muster_control::{
    App,
    access::problem::{INVALID, MALFORMED},
};

use crate::{session::Session, shell::Refusal};

/// A form with the person who sent it. There is no other way to a form's fields, so no handler can forget the check.
pub struct Sent {
    pub session: Session,
    pub fields: Fields,
}

/// The fields of a form, in their order.
#[derive(Debug, Default)]
pub struct Fields(Vec<(String, String)>);

impl FromRequest<App> for Sent {
    type Rejection = Response;

    async fn from_request(request: Request, app: &App) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let session = Session::from_request_parts(&mut parts, app).await?;
        let fields = Fields::from_request(Request::from_parts(parts, body), app)
            .await
            .map_err(IntoResponse::into_response)?;
        let checked = session.page_permit().check_csrf(fields.text("csrf"));
        checked.map_err(|problem| Refusal(problem).into_response())?;
        Ok(Sent { session, fields })
    }
}

impl FromRequest<App> for Fields {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &App) -> Result<Self, Refusal> {
        match Form::<Vec<(String, String)>>::from_request(request, app).await {
            Ok(Form(pairs)) => Ok(Fields(pairs)),
            Err(_) => Err(Refusal(MALFORMED.detail("The form could not be read."))),
        }
    }
}

impl Fields {
    /// A field without the spaces around it; empty where it is missing.
    pub fn text(&self, name: &str) -> &str {
        self.0
            .iter()
            .find(|(field, _)| field == name)
            .map_or("", |(_, value)| value.trim())
    }

    /// A field that may be left empty.
    pub fn optional(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// A field read as a type of the model; an empty one is absent.
    pub fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, Refusal> {
        let read = |text: &str| {
            text.parse()
                .map_err(|error| Refusal(INVALID.detail(format!("{name}: {error}."))))
        };
        self.optional(name).map(read).transpose()
    }

    /// Every value of a field that may stand several times.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(field, _)| field == name)
            .map(|(_, value)| value.trim())
    }
}
