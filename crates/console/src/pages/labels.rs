//! Labels: of one device as lines, of many from a table.

use std::collections::BTreeMap;

use askama::Template;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    response::Response,
    routing::{get, post},
};
use muster_control::{
    App,
    access::{
        problem::{CSV_INVALID, FieldError, INVALID},
        scope::{DeviceRead, DeviceWrite},
    },
    devices::{self, ImportMode, ImportOutcome},
    fleet::{self, WantedLabels},
};
use muster_model::{
    DeviceId, Labels,
    text::{LabelKey, LabelValue},
};

use super::token_table::{Wrong, shown};
use crate::{
    form::Sent,
    session::{At, Session, parse},
    shell::{Refusal, Section, Shell, page, see_other},
};

/// Bytes of a table; longer ones go through the API or the command line.
const CSV_BYTES_MAX: usize = 1024 * 1024;
/// What a table looks like.
const EXAMPLE: &str = "serial,department,site\nSN-1042,sales,north\nSN-1043,,-\n";

pub fn router() -> Router<App> {
    Router::new()
        .route("/devices/{id}/labels", post(put))
        .route("/labels/table", get(show).post(import))
}

/// The labels of a device as the form has them: a line for each.
pub fn lines(labels: &Labels) -> String {
    let lines = labels.iter().map(|(key, value)| format!("{key}={value}\n"));
    lines.collect()
}

/// Reads the lines of the form.
fn read(lines: &str) -> Result<Labels, String> {
    let mut labels = BTreeMap::new();
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let key = LabelKey::parse(key).map_err(|error| {
            format!(
                "The key before = {error}: a small letter comes first, then small letters, digits and . _ -"
            )
        })?;
        let value = LabelValue::parse(value).map_err(|error| format!("The value of {key} {error}."))?;
        if labels.insert(key.clone(), value).is_some() {
            return Err(format!("The label {key} is there twice."));
        }
    }
    Labels::new(labels).map_err(|error| format!("{error}."))
}

async fn put(State(app): State<App>, At(id): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<DeviceWrite>()?;
    sent.session.require_fresh(&app)?;
    let device: DeviceId = parse(&id)?;
    let labels = read(sent.fields.text("labels"))
        .map_err(|why| Refusal(INVALID.detail(format!("No label was changed. {why}"))))?;
    fleet::set_labels(
        &app,
        permit.author(),
        device.to_string(),
        WantedLabels::All(labels),
    )
    .await?;
    Ok(see_other(&format!("/devices/{device}?notice=labels-changed")))
}

#[derive(Template)]
#[template(path = "label_table.html")]
pub struct TablePage {
    pub shell: Shell,
    pub csv: String,
    pub refused: Option<String>,
    pub errors: Vec<Wrong>,
    pub more_errors: usize,
    pub outcome: Option<ImportOutcome>,
    pub example: &'static str,
}

async fn show(State(_app): State<App>, session: Session) -> Result<Response, Refusal> {
    let _permit = session.permit::<DeviceRead>()?;
    table_page(&session, String::new(), None, Vec::new(), None)
}

fn table_page(
    session: &Session,
    csv: String,
    refused: Option<String>,
    errors: Vec<FieldError>,
    outcome: Option<ImportOutcome>,
) -> Result<Response, Refusal> {
    let (errors, more_errors) = shown(errors);
    page(&TablePage {
        shell: session.shell("Labels from a table", Section::Devices),
        csv,
        refused,
        errors,
        more_errors,
        outcome,
        example: EXAMPLE,
    })
}

/// `POST /labels/table`: the file, or what is pasted where there is no file.
async fn import(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<DeviceWrite>()?;
    sent.session.require_fresh(&app)?;
    let csv = match sent.fields.text("file") {
        "" => sent.fields.text("csv"),
        file => file,
    }
    .to_owned();
    let refuse = |csv: String, why: &str, errors: Vec<FieldError>| {
        table_page(&sent.session, csv, Some(why.to_owned()), errors, None)
    };
    if csv.is_empty() {
        return refuse(csv, "Choose a file, or paste a table.", Vec::new());
    }
    if csv.len() > CSV_BYTES_MAX {
        let why = "The table has more than 1 MiB. Use muster label import, which takes 8 MiB.";
        return refuse(String::new(), why, Vec::new());
    }
    let mode = ImportMode {
        dry_run: sent.fields.text("do") == "check",
        partial: sent.fields.text("do") == "partial",
    };
    let table = Bytes::from(csv.clone());
    match devices::import_labels(&app, permit.author(), table, mode).await {
        Ok(outcome) => {
            let errors = outcome.errors.clone();
            let kept = if outcome.dry_run { csv } else { String::new() };
            table_page(&sent.session, kept, None, errors, Some(outcome))
        }
        Err(problem) if problem.kind == CSV_INVALID => {
            let errors = problem.errors.into_vec();
            let why = match errors.is_empty() {
                true => problem.detail.as_str(),
                false => "Correct the rows that are not right, or carry the good ones out anyway.",
            };
            refuse(csv, why, errors)
        }
        Err(problem) => Err(Refusal(problem)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_labels_and_labels_lines() {
        let labels = read("department=sales\r\n\n note = a=b \nflag").expect("they are labels");
        assert_eq!(lines(&labels), "department=sales\nflag=\nnote=a=b\n");
        for wrong in ["Bad=x", "a=1\na=2", "=x"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let many: String = (0..65).map(|number| format!("k{number}=v\n")).collect();
        assert!(read(&many).is_err());
    }
}
