//! Questions about the fleet: the field for one, its answer, what there is to ask, what was saved, and asking devices anew.

use std::collections::BTreeMap;

use askama::Template;
use axum::{
    Json, Router,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use muster_control::{
    App,
    access::{
        problem::{Problem, QUERY_INVALID, QUERY_TOO_COSTLY, RATE_LIMITED},
        scope::{DeviceRead, QueryWrite},
    },
    audit,
    query::{self, AnswerView, EXAMPLES, Expected, Progress, RefreshState, SCHEMA, SavedChange},
};
use muster_model::{
    RefreshId,
    query::{Column, Table},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    form::Sent,
    session::{Ask, At, Session, encode, parse},
    shell::{Refusal, Section, Shell, page, see_other},
    ui::When,
};

/// Rows that the page shows; the file has more.
const ROWS: usize = 200;

pub fn router() -> Router<App> {
    Router::new()
        .route("/query", get(show))
        .route("/query/csv", get(download))
        .route("/query/refresh", post(refresh))
        .route("/query/refreshes/{id}/progress", get(progress))
        .route("/query/save", post(save))
        .route("/query/saved/{name}/delete", post(delete))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Search {
    q: String,
    saved: String,
    refresh: Option<String>,
}

/// A value of the answer.
#[derive(Debug)]
pub struct CellView {
    pub text: String,
    pub when: Option<When>,
    pub is_number: bool,
}

/// An answer as a table.
#[derive(Debug)]
pub struct Shown {
    pub names: Vec<String>,
    pub rows: Vec<Vec<CellView>>,
    pub view: AnswerView,
    pub oldest: Option<When>,
    pub newest: Option<When>,
    pub csv: String,
}

#[derive(Debug)]
pub struct SavedRow {
    pub name: String,
    pub href: String,
    pub delete: String,
    pub description: String,
    pub schedule: Option<String>,
}

#[derive(Debug)]
pub struct RefreshView {
    pub progress: Progress,
    pub is_running: bool,
    pub live: String,
    pub state: &'static str,
    pub deadline: When,
}

#[derive(Template)]
#[template(path = "query.html")]
pub struct QueryPage {
    pub shell: Shell,
    pub question: String,
    pub refused: Option<String>,
    pub shown: Option<Shown>,
    pub refresh: Option<RefreshView>,
    pub saved: Vec<SavedRow>,
    /// What is asked, the question, and where it leads.
    pub examples: Vec<(&'static str, &'static str, String)>,
    pub tables: &'static [Table],
    pub shared: &'static [Column],
    pub name: String,
}

fn ask_path(question: &str) -> String {
    format!("/query?q={}", encode(question))
}

async fn show(
    State(app): State<App>,
    session: Session,
    Ask(search): Ask<Search>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<DeviceRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let refresh_id: Option<RefreshId> = search.refresh.as_deref().map(parse).transpose()?;
    let name = search.saved.clone();
    let read = app.db.read(permit.storage(), move |tx| {
        let saved = query::list_saved(tx, tenant)?;
        let chosen = match name.is_empty() {
            true => None,
            false => Some(query::find_saved(tx, tenant, &name)?),
        };
        let progress = refresh_id.map(|id| query::progress(tx, tenant, id)).transpose()?;
        Ok::<_, Problem>((saved, chosen, progress))
    });
    let (saved, chosen, progress) = read.await?;
    let question = chosen.map_or(search.q, |chosen| chosen.question);
    let (mut refused, mut shown) = (None, None);
    if !question.trim().is_empty() {
        match query::ask(&app, tenant, &question, ROWS).await {
            Ok(answered) => shown = Some(shown_of(AnswerView::of(&answered), &question, now)),
            Err(problem) if [QUERY_INVALID, QUERY_TOO_COSTLY, RATE_LIMITED].contains(&problem.kind) => {
                refused = Some(problem.detail);
            }
            Err(problem) => return Err(problem.into()),
        }
    }
    let rows = saved.into_iter().map(|saved| SavedRow {
        href: format!("/query?saved={}", encode(&saved.name)),
        delete: format!("/query/saved/{}/delete", encode(&saved.name)),
        description: saved.description,
        schedule: saved.schedule.map(|schedule| schedule.describe()),
        name: saved.name,
    });
    page(&QueryPage {
        shell: session.shell("Query", Section::Query),
        refused,
        shown,
        refresh: progress.map(|progress| RefreshView {
            is_running: progress.state == RefreshState::Running,
            live: format!("/query/refreshes/{}/progress", progress.id),
            state: state_key(&progress),
            deadline: When::new(progress.deadline_at, now),
            progress,
        }),
        saved: rows.collect(),
        examples: EXAMPLES
            .iter()
            .map(|(asks, question)| (*asks, *question, ask_path(question)))
            .collect(),
        tables: SCHEMA.tables,
        shared: SCHEMA.shared,
        name: search.saved,
        question,
    })
}

fn shown_of(view: AnswerView, question: &str, now: muster_model::Timestamp) -> Shown {
    let cell = |(kind, value): (&String, &Value)| {
        let text = match value {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        CellView {
            when: (kind == "time").then(|| When::read(&text, now)).flatten(),
            is_number: value.is_number(),
            text,
        }
    };
    let kinds: Vec<String> = view.columns.iter().map(|column| column.kind.clone()).collect();
    let rows = view.rows.iter();
    Shown {
        names: view.columns.iter().map(|column| column.name.clone()).collect(),
        rows: rows
            .map(|row| kinds.iter().zip(row).map(cell).collect())
            .collect(),
        oldest: view.facts_oldest_at.map(|at| When::new(at, now)),
        newest: view.facts_newest_at.map(|at| When::new(at, now)),
        csv: format!("/query/csv?q={}", encode(question)),
        view,
    }
}

async fn download(
    State(app): State<App>,
    session: Session,
    Ask(search): Ask<Search>,
) -> Result<Response, Refusal> {
    let _permit = session.permit::<DeviceRead>()?;
    let answered = query::ask(&app, session.tenant(), &search.q, query::CSV_ROWS_MAX).await?;
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"answer.csv\""),
    ];
    Ok((headers, query::csv(&AnswerView::of(&answered))?).into_response())
}

async fn refresh(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<QueryWrite>()?;
    let question = sent.fields.text("q");
    let progress = query::start_refresh(&app, permit.author(), question, None).await?;
    Ok(see_other(&format!(
        "{}&refresh={}",
        ask_path(question),
        progress.id
    )))
}

/// What makes the page load again: each time that more devices answered would be too often, the end is right.
fn state_key(progress: &Progress) -> &'static str {
    match progress.state {
        RefreshState::Running => "running",
        RefreshState::Done => "done",
        RefreshState::Expired => "expired",
    }
}

/// The numbers for a page that follows them.
async fn progress(State(app): State<App>, session: Session, At(id): At<String>) -> Result<Response, Refusal> {
    let permit = session.permit::<DeviceRead>()?;
    let (tenant, id) = (session.tenant(), parse::<RefreshId>(&id)?);
    let read = app
        .db
        .read(permit.storage(), move |tx| query::progress(tx, tenant, id));
    let progress = read.await?;
    let fields = BTreeMap::from([
        ("answered", progress.answered),
        ("asked", progress.asked),
        ("offline", progress.offline),
    ]);
    Ok(Json(serde_json::json!({"state": state_key(&progress), "fields": fields})).into_response())
}

async fn save(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<QueryWrite>()?;
    let name = sent.fields.text("name").to_owned();
    let change = SavedChange {
        question: sent.fields.text("q").to_owned(),
        description: sent.fields.text("description").to_owned(),
        schedule: None,
    };
    let path = format!("/query?saved={}&notice=query-saved", encode(&name));
    audit::commit(&app, permit.author(), move |tx| {
        // What the form does not show stays as it is.
        let tenant = tx.tenant();
        let before = query::find_saved(tx, tenant, &name).ok();
        let change = SavedChange {
            schedule: before.and_then(|before| before.schedule),
            ..change.clone()
        };
        query::save(tx, &name, &change, Expected::Anything).map(drop)
    })
    .await?;
    app.nudges.queries.notify_one();
    Ok(see_other(&path))
}

async fn delete(State(app): State<App>, At(name): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<QueryWrite>()?;
    audit::commit(&app, permit.author(), move |tx| {
        query::remove(tx, &name, Expected::Anything)
    })
    .await?;
    Ok(see_other("/query?notice=query-deleted"))
}
