//! Routes of questions.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use muster_model::{QueryRunId, RefreshId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    CSV_ROWS_MAX, ROWS, ROWS_MAX,
    ask::ask,
    reconcile::Difference,
    refresh::{self, Progress},
    saved::{self, Expected, Saved, SavedChange},
    store, table,
    view::{AnswerView, QuerySchemaView, RunView, SavedView, WholeRunView},
};
use crate::{
    App,
    access::{
        Permit,
        problem::{INVALID, NOT_FOUND, Problem},
        request::{Body, Params, PathOf},
        scope::{DeviceRead, QueryWrite},
    },
    audit,
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(query_schema))
        .routes(routes!(run_query))
        .routes(routes!(list_queries))
        .routes(routes!(get_query, put_query, delete_query))
        .routes(routes!(list_query_runs))
        .routes(routes!(get_query_run))
        .routes(routes!(start_query_refresh))
        .routes(routes!(get_query_refresh))
}

/// Everything of a short list.
#[derive(Debug, Serialize, ToSchema)]
struct QueryItems<T> {
    items: Vec<T>,
}

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Format {
    Json,
    Csv,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct FormatQuery {
    /// `json` (the default) or `csv`; the header `Accept: text/csv` says it too.
    #[param(inline)]
    format: Option<Format>,
}

/// A question: its text, or the name of a saved one.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct QuestionRequest {
    /// `SELECT … FROM … WHERE …`
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<String>,
    /// The name of a saved question.
    #[serde(skip_serializing_if = "Option::is_none")]
    saved: Option<String>,
    /// Rows of the answer: 1000 unless another number is given, at most 10,000, and 100,000 as CSV.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<usize>,
}

/// A refresh: whose facts, and for how long it is waited.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct RefreshRequest {
    /// The question. Devices are asked that it can be about, by their own columns: platform, model, owner and the like.
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<String>,
    /// The name of a saved question.
    #[serde(skip_serializing_if = "Option::is_none")]
    saved: Option<String>,
    /// How long devices have to answer: 120 unless another number is given, 10 to 3600. The time that it takes to ask them all, 500
    /// in a second, is added.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_seconds: Option<u64>,
}

/// Tables, columns, and questions to begin with.
#[utoipa::path(
    get, path = "/query-schema", tag = "queries", security(("oauth2" = ["device:read"])),
    responses((status = 200, body = QuerySchemaView)),
)]
async fn query_schema(_permit: Permit<DeviceRead>) -> Json<QuerySchemaView> {
    Json(QuerySchemaView::read())
}

/// Answers a question from what is stored. It changes nothing.
#[utoipa::path(
    post, path = "/queries/run", tag = "queries", params(FormatQuery), security(("oauth2" = ["device:read"])),
    request_body = QuestionRequest, responses((status = 200, body = AnswerView)),
)]
async fn run_query(
    permit: Permit<DeviceRead>,
    State(app): State<App>,
    Params(form): Params<FormatQuery>,
    headers: HeaderMap,
    Body(request): Body<QuestionRequest>,
) -> Result<Response, Problem> {
    let question = question_of(&app, &permit, request.question, request.saved).await?;
    let format = format_of(form.format, &headers);
    let (usual, most) = match format {
        Format::Json => (ROWS, ROWS_MAX),
        Format::Csv => (CSV_ROWS_MAX, CSV_ROWS_MAX),
    };
    let rows = request.limit.unwrap_or(usual).clamp(1, most);
    let answered = ask(&app, permit.tenant(), &question, rows).await?;
    answer(&AnswerView::of(&answered), format)
}

fn format_of(asked: Option<Format>, headers: &HeaderMap) -> Format {
    let accepts_csv = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.trim_start().starts_with("text/csv"));
    asked.unwrap_or(match accepts_csv {
        true => Format::Csv,
        false => Format::Json,
    })
}

fn answer(view: &AnswerView, format: Format) -> Result<Response, Problem> {
    match format {
        Format::Json => Ok(Json(view).into_response()),
        Format::Csv => {
            let headers = [
                (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
                (header::CONTENT_DISPOSITION, "attachment; filename=\"answer.csv\""),
            ];
            Ok((headers, table::csv(view)?).into_response())
        }
    }
}

async fn question_of<S>(
    app: &App,
    permit: &Permit<S>,
    question: Option<String>,
    name: Option<String>,
) -> Result<String, Problem> {
    match (question, name) {
        (Some(question), None) => Ok(question),
        (None, Some(name)) => {
            let tenant = permit.tenant();
            let found = app
                .db
                .read(permit.storage(), move |tx| saved::find(tx, tenant, &name))
                .await?;
            Ok(found.question)
        }
        _ => Err(INVALID.detail("Send question, or the name of a saved one as saved.")),
    }
}

/// Saved questions.
#[utoipa::path(
    get, path = "/queries", tag = "queries", security(("oauth2" = ["device:read"])),
    responses((status = 200, body = QueryItems<SavedView>)),
)]
async fn list_queries(
    permit: Permit<DeviceRead>,
    State(app): State<App>,
) -> Result<Json<QueryItems<SavedView>>, Problem> {
    let tenant = permit.tenant();
    let all = app
        .db
        .read(permit.storage(), move |tx| saved::list(tx, tenant))
        .await?;
    Ok(Json(QueryItems {
        items: all.into_iter().map(SavedView::from).collect(),
    }))
}

/// A saved question, with its version as `ETag`.
#[utoipa::path(
    get, path = "/queries/{name}", tag = "queries", params(("name" = String, Path)),
    security(("oauth2" = ["device:read"])), responses((status = 200, body = SavedView)),
)]
async fn get_query(
    permit: Permit<DeviceRead>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<Response, Problem> {
    let tenant = permit.tenant();
    let found = app
        .db
        .read(permit.storage(), move |tx| saved::find(tx, tenant, &name))
        .await?;
    with_etag(found)
}

fn with_etag(saved: Saved) -> Result<Response, Problem> {
    let etag = HeaderValue::from_str(&format!("\"{}\"", saved.version)).map_err(Problem::internal)?;
    Ok(([(header::ETAG, etag)], Json(SavedView::from(saved))).into_response())
}

/// What `If-Match` and `If-None-Match` ask for.
fn expected(headers: &HeaderMap) -> Result<Expected, Problem> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_NONE_MATCH).is_some_and(|value| value.trim() == "*") {
        return Ok(Expected::Absent);
    }
    match text(header::IF_MATCH) {
        None => Ok(Expected::Anything),
        Some(value) => {
            let version = value.trim().trim_matches('"').parse();
            let version =
                version.map_err(|_| INVALID.detail("If-Match: send the ETag of the saved question."))?;
            Ok(Expected::Version(version))
        }
    }
}

/// Saves a question, or changes the one of this name. `If-Match` refuses to change another version than the one that was read,
/// `If-None-Match: *` to change one at all.
#[utoipa::path(
    put, path = "/queries/{name}", tag = "queries",
    params(("name" = String, Path), ("If-Match" = Option<String>, Header), ("If-None-Match" = Option<String>, Header)),
    security(("oauth2" = ["query:write"])), request_body = SavedChange, responses((status = 200, body = SavedView)),
)]
async fn put_query(
    permit: Permit<QueryWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    headers: HeaderMap,
    Body(change): Body<SavedChange>,
) -> Result<Response, Problem> {
    let expected = expected(&headers)?;
    let saved = audit::commit(&app, permit.author(), move |tx| {
        saved::put(tx, &name, &change, expected)
    })
    .await?;
    app.nudges.queries.notify_one();
    with_etag(saved)
}

/// Deletes a saved question with its answers.
#[utoipa::path(
    delete, path = "/queries/{name}", tag = "queries",
    params(("name" = String, Path), ("If-Match" = Option<String>, Header)),
    security(("oauth2" = ["query:write"])), responses((status = 204)),
)]
async fn delete_query(
    permit: Permit<QueryWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let expected = expected(&headers)?;
    audit::commit(&app, permit.author(), move |tx| {
        saved::remove(tx, &name, expected)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The runs of a scheduled question that are kept, the newest first.
#[utoipa::path(
    get, path = "/queries/{name}/runs", tag = "queries", params(("name" = String, Path)),
    security(("oauth2" = ["device:read"])), responses((status = 200, body = QueryItems<RunView>)),
)]
async fn list_query_runs(
    permit: Permit<DeviceRead>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<Json<QueryItems<RunView>>, Problem> {
    let tenant = permit.tenant();
    let runs = app.db.read(permit.storage(), move |tx| {
        saved::find(tx, tenant, &name)?;
        Ok::<_, Problem>(store::runs(tx, tenant, &name)?)
    });
    let items = runs.await?.iter().map(RunView::from).collect();
    Ok(Json(QueryItems { items }))
}

/// The answer of a run, and what changed since the run before.
#[utoipa::path(
    get, path = "/queries/{name}/runs/{run}", tag = "queries",
    params(("name" = String, Path), ("run" = String, Path, description = "Id, or newest"), FormatQuery),
    security(("oauth2" = ["device:read"])), responses((status = 200, body = WholeRunView)),
)]
async fn get_query_run(
    permit: Permit<DeviceRead>,
    State(app): State<App>,
    PathOf((name, run)): PathOf<(String, String)>,
    Params(form): Params<FormatQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = permit.tenant();
    let missing = || NOT_FOUND.detail("There is no such run.");
    let read = app.db.read(permit.storage(), move |tx| {
        let id: QueryRunId = match run.as_str() {
            "newest" => store::runs(tx, tenant, &name)?.first().ok_or_else(missing)?.id,
            text => text
                .parse()
                .map_err(|_| INVALID.detail("A run is named by its id, qrn_…, or as newest."))?,
        };
        let (run, answer) = store::run(tx, tenant, &name, id)?.ok_or_else(missing)?;
        Ok::<_, Problem>((run, answer, store::answer_before(tx, tenant, &name, id)?))
    });
    let (run, answer_text, before) = read.await?;
    let view = |text: String| serde_json::from_str::<AnswerView>(&text).map_err(Problem::internal);
    let (kept, before) = (answer_text.map(view).transpose()?, before.map(view).transpose()?);
    if format_of(form.format, &headers) == Format::Csv {
        let kept = kept.ok_or_else(|| NOT_FOUND.detail("The run has no answer."))?;
        return answer(&kept, Format::Csv);
    }
    let difference = match (&before, &kept) {
        (Some(before), Some(after)) => Difference::between(&before.rows, &after.rows),
        _ => Difference::default(),
    };
    let whole = WholeRunView {
        run: RunView::from(&run),
        answer: kept,
        added_rows: difference.added,
        removed_rows: difference.removed,
    };
    Ok(Json(whole).into_response())
}

/// Asks the devices that a question can be about to report their facts anew.
#[utoipa::path(
    post, path = "/query-refreshes", tag = "queries", security(("oauth2" = ["query:write"])),
    request_body = RefreshRequest, responses((status = 202, body = Progress)),
)]
async fn start_query_refresh(
    permit: Permit<QueryWrite>,
    State(app): State<App>,
    Body(request): Body<RefreshRequest>,
) -> Result<(StatusCode, Json<Progress>), Problem> {
    let question = question_of(&app, &permit, request.question, request.saved).await?;
    let progress = refresh::start(&app, permit.author(), &question, request.deadline_seconds).await?;
    Ok((StatusCode::ACCEPTED, Json(progress)))
}

/// How far a refresh is.
#[utoipa::path(
    get, path = "/query-refreshes/{id}", tag = "queries", params(("id" = String, Path)),
    security(("oauth2" = ["device:read"])), responses((status = 200, body = Progress)),
)]
async fn get_query_refresh(
    permit: Permit<DeviceRead>,
    State(app): State<App>,
    PathOf(id): PathOf<RefreshId>,
) -> Result<Json<Progress>, Problem> {
    let tenant = permit.tenant();
    let progress = app
        .db
        .read(permit.storage(), move |tx| refresh::progress(tx, tenant, id))
        .await?;
    Ok(Json(progress))
}
