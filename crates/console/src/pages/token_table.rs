//! Tokens from a table: what is wrong in each row, or the tokens, shown once, to download and to print.

use askama::Template;
use axum::{
    Router,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use muster_control::{
    App,
    access::{
        problem::{CSV_INVALID, FieldError, INVALID},
        scope::{TokenRead, TokenWrite},
    },
    audit,
    enrollment::{self, BULK_ROWS_MAX, BulkOutcome, BulkRow},
};

use crate::{
    form::Sent,
    qr::{self, Drawing},
    session::Session,
    shell::{Refusal, Section, Shell, page},
    ui::When,
};

/// Bytes of a table.
const CSV_BYTES_MAX: usize = 1024 * 1024;
/// Errors that a page lists.
const ERRORS_SHOWN: usize = 200;
/// Codes that a page draws: each is some twenty kilobytes.
const CODES_SHOWN: usize = 100;
/// What a table looks like.
const EXAMPLE: &str =
    "device_uuid,serial,owner,protocol\n4c4c4544-0042-3510-8052-b4c04f4b3132,SN-1042,A. Person,agent\n";

pub fn router() -> Router<App> {
    Router::new()
        .route("/tokens/table", get(show).post(create))
        .route("/tokens/table/csv", post(download))
}

/// What is wrong in a row.
#[derive(Debug)]
pub struct Wrong {
    pub row: String,
    pub column: String,
    pub detail: String,
}

impl Wrong {
    /// `row 3: serial` is a row and a column.
    fn of(error: FieldError) -> Wrong {
        let (row, column) = match error.field.split_once(':') {
            Some((row, column)) => (row.to_owned(), column.trim().to_owned()),
            None => (error.field, String::new()),
        };
        Wrong {
            row: row.trim_start_matches("row ").to_owned(),
            column,
            detail: error.detail,
        }
    }
}

/// The first of the errors, and how many more there are.
pub fn shown(errors: Vec<FieldError>) -> (Vec<Wrong>, usize) {
    let more = errors.len().saturating_sub(ERRORS_SHOWN);
    (
        errors.into_iter().take(ERRORS_SHOWN).map(Wrong::of).collect(),
        more,
    )
}

#[derive(Template)]
#[template(path = "token_table.html")]
pub struct TablePage {
    pub shell: Shell,
    pub csv: String,
    pub refused: Option<String>,
    pub errors: Vec<Wrong>,
    pub more_errors: usize,
    pub rows_max: usize,
    pub example: &'static str,
}

async fn show(State(_app): State<App>, session: Session) -> Result<Response, Refusal> {
    let _permit = session.permit::<TokenRead>()?;
    form_page(&session, String::new(), None, Vec::new())
}

fn form_page(
    session: &Session,
    csv: String,
    refused: Option<String>,
    errors: Vec<FieldError>,
) -> Result<Response, Refusal> {
    let (errors, more_errors) = shown(errors);
    page(&TablePage {
        shell: session.shell("Tokens from a table", Section::Tokens),
        csv,
        refused,
        errors,
        more_errors,
        rows_max: BULK_ROWS_MAX,
        example: EXAMPLE,
    })
}

/// A token to print.
#[derive(Debug)]
pub struct Code {
    pub row: usize,
    pub device_uuid: String,
    pub serial: String,
    pub owner: String,
    pub protocol: &'static str,
    pub expires: When,
    pub qr: Option<Drawing>,
}

#[derive(Template)]
#[template(path = "token_table_done.html")]
pub struct DonePage {
    pub shell: Shell,
    pub count: usize,
    pub csv: String,
    pub codes: Vec<Code>,
    pub without_code: usize,
    pub errors: Vec<Wrong>,
    pub more_errors: usize,
}

/// `POST /tokens/table`: the file, or what is pasted where there is no file.
async fn create(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<TokenWrite>()?;
    let csv = match sent.fields.text("file") {
        "" => sent.fields.text("csv"),
        file => file,
    }
    .to_owned();
    if csv.is_empty() {
        let refused = "Choose a file, or paste a table.".to_owned();
        return form_page(&sent.session, csv, Some(refused), Vec::new());
    }
    if csv.len() > CSV_BYTES_MAX {
        let refused = "The table has more than 1 MiB. Split it.".to_owned();
        return form_page(&sent.session, String::new(), Some(refused), Vec::new());
    }
    let (work, table) = (app.clone(), csv.clone());
    let is_partial = sent.fields.text("partial") == "yes";
    let made = audit::commit(&app, permit.author(), move |tx| {
        enrollment::create_tokens(tx, &work, table.as_bytes(), is_partial)
    })
    .await;
    match made {
        Ok(outcome) => done_page(&app, &sent.session, outcome),
        Err(problem) if [CSV_INVALID, INVALID].contains(&problem.kind) => {
            let errors = problem.errors.into_vec();
            let refused = if errors.is_empty() {
                problem.detail
            } else {
                "Correct the rows that are not right, or make the good ones anyway.".to_owned()
            };
            form_page(&sent.session, csv, Some(refused), errors)
        }
        Err(problem) => Err(Refusal(problem)),
    }
}

fn done_page(app: &App, session: &Session, outcome: BulkOutcome) -> Result<Response, Refusal> {
    let now = app.clock.now();
    let (errors, more_errors) = shown(outcome.errors);
    let code = |made: &BulkRow| Code {
        row: made.row,
        device_uuid: made.request.device_uuid.to_string(),
        serial: made.request.serial.clone().unwrap_or_default(),
        owner: made.request.owner.clone().unwrap_or_default(),
        protocol: crate::ui::protocol(made.request.protocol),
        expires: When::new(made.token.expires_at, now),
        qr: qr::draw(&made.token.secret),
    };
    page(&DonePage {
        shell: session.shell("Tokens from a table", Section::Tokens),
        count: outcome.made.len(),
        csv: table_of(&outcome.made)?,
        codes: outcome.made.iter().take(CODES_SHOWN).map(code).collect(),
        without_code: outcome.made.len().saturating_sub(CODES_SHOWN),
        errors,
        more_errors,
    })
}

/// The made tokens as a table (RFC 4180).
fn table_of(made: &[BulkRow]) -> Result<String, Refusal> {
    let broken =
        |error: &dyn std::fmt::Display| Refusal(muster_control::access::problem::Problem::internal(error));
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer
        .write_record([
            "row",
            "device_uuid",
            "serial",
            "owner",
            "protocol",
            "token",
            "expires_at",
        ])
        .map_err(|error| broken(&error))?;
    for made in made {
        let request = &made.request;
        writer
            .write_record([
                made.row.to_string().as_str(),
                &request.device_uuid.to_string(),
                &inert(request.serial.as_deref()),
                &inert(request.owner.as_deref()),
                request.protocol.as_str(),
                &made.token.secret,
                &made.token.expires_at.to_string(),
            ])
            .map_err(|error| broken(&error))?;
    }
    let bytes = writer.into_inner().map_err(|error| broken(&error))?;
    String::from_utf8(bytes).map_err(|error| broken(&error))
}

/// A text that no spreadsheet takes for a formula.
fn inert(text: Option<&str>) -> String {
    let text = text.unwrap_or_default();
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

/// `POST /tokens/table/csv`: what the page before showed, as a file. Nothing is stored for it in between.
async fn download(State(_app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let _permit = sent.session.permit::<TokenWrite>()?;
    let mut response = format!("{}\r\n", sent.fields.text("csv")).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/csv; charset=utf-8"),
    );
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"muster-tokens.csv\""),
    );
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_cell_is_named_by_row_and_column() {
        let wrong = |field: &str| {
            let wrong = Wrong::of(FieldError {
                field: field.to_owned(),
                code: "invalid".to_owned(),
                detail: String::new(),
            });
            (wrong.row, wrong.column)
        };
        assert_eq!(wrong("row 3: serial"), ("3".to_owned(), "serial".to_owned()));
        assert_eq!(wrong("row 3"), ("3".to_owned(), String::new()));
        assert_eq!(wrong("row 3: "), ("3".to_owned(), String::new()));
    }

    #[test]
    fn no_cell_is_a_formula() {
        for text in ["=1+1", "+1", "-1", "@A1", "\t=1"] {
            assert!(inert(Some(text)).starts_with('\''), "{text}");
        }
        assert_eq!(inert(Some("A. Person")), "A. Person");
        assert_eq!(inert(None), "");
    }
}
