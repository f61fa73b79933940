//! Forms: read only for a signed-in person whose session made them.

use axum::{
    Form, RequestExt,
    extract::{FromRequest, FromRequestParts, Request},
    http::header,
    response::{IntoResponse, Response},
};
use multer::{Constraints, Multipart, SizeLimit, parse_boundary};
use muster_control::{
    App,
    access::problem::{INVALID, MALFORMED},
};

use crate::{BODY_BYTES_MAX, session::Session, shell::Refusal};

/// Fields that a form with a file may have.
const PARTS_MAX: usize = 32;
/// Fields whose files are no text.
const PICTURES: &[&str] = &["logo"];

/// A form with the person who sent it. There is no other way to a form's fields, so no handler can forget the check.
pub struct Sent {
    pub session: Session,
    pub fields: Fields,
}

/// The fields of a form, in their order.
#[derive(Debug, Default)]
pub struct Fields {
    texts: Vec<(String, String)>,
    /// Files that are no text, in their order.
    files: Vec<(String, Vec<u8>)>,
}

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
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        if let Some(boundary) = content_type.and_then(|text| parse_boundary(text).ok()) {
            return read_parts(request, boundary).await;
        }
        match Form::<Vec<(String, String)>>::from_request(request, app).await {
            Ok(Form(pairs)) => Ok(Fields::of(pairs)),
            Err(_) => Err(Refusal(MALFORMED.detail("The form could not be read."))),
        }
    }
}

/// Reads a form that carries a file (`multipart/form-data`, RFC 7578). A file is text here, as every field is, but for pictures.
async fn read_parts(request: Request, boundary: String) -> Result<Fields, Refusal> {
    let unreadable = |_| Refusal(MALFORMED.detail("The form could not be read, or has more than 2 MiB."));
    let limit = SizeLimit::new().whole_stream(BODY_BYTES_MAX as u64);
    let body = request.with_limited_body().into_body().into_data_stream();
    let mut parts = Multipart::with_constraints(body, boundary, Constraints::new().size_limit(limit));
    let (mut pairs, mut files) = (Vec::new(), Vec::new());
    while let Some(part) = parts.next_field().await.map_err(unreadable)? {
        if pairs.len() + files.len() >= PARTS_MAX {
            return Err(Refusal(
                MALFORMED.detail("The form has more fields than any of ours."),
            ));
        }
        let name = part.name().unwrap_or_default().to_owned();
        let bytes = part.bytes().await.map_err(unreadable)?;
        if PICTURES.contains(&name.as_str()) {
            files.push((name, bytes.to_vec()));
            continue;
        }
        let text = String::from_utf8(bytes.to_vec()).map_err(|_| {
            Refusal(INVALID.detail(format!(
                "{name}: the file is not UTF-8 text. Save it again as \u{201c}CSV UTF-8\u{201d}."
            )))
        })?;
        pairs.push((name, text));
    }
    Ok(Fields { texts: pairs, files })
}

impl Fields {
    /// The fields that a form would have sent.
    pub fn of(pairs: Vec<(String, String)>) -> Fields {
        Fields {
            texts: pairs,
            files: Vec::new(),
        }
    }

    /// A file that is no text; none where the form has no such part.
    pub fn file(&self, name: &str) -> Option<&[u8]> {
        self.files
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, bytes)| bytes.as_slice())
    }

    /// A field without the spaces around it; empty where it is missing.
    pub fn text(&self, name: &str) -> &str {
        self.texts
            .iter()
            .find(|(field, _)| field == name)
            .map_or("", |(_, value)| value.trim())
    }

    /// A field that may be left empty.
    pub fn optional(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// Whether one of the fields of this name has this value: a box that is checked.
    pub fn has(&self, name: &str, value: &str) -> bool {
        self.all(name).any(|sent| sent == value)
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
        self.texts
            .iter()
            .filter(move |(field, _)| field == name)
            .map(|(_, value)| value.trim())
    }
}
