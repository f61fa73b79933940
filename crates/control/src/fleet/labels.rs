//! Labels of devices: changed one by one or from a table, with the groups that read them.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
};
use muster_model::{
    Labels,
    text::{LabelKey, LabelValue},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    App,
    access::{
        Author, Permit,
        problem::{CSV_INVALID, INVALID, Problem},
        request::{Body, Params, PathOf},
        scope::DeviceWrite,
    },
    audit,
    devices::{self, ImportMode, ImportOutcome, LABEL_TABLE_BYTES_MAX, LabelChange},
    groups,
};

/// Labels that one change may name: all that a device may have, and as many to remove.
const CHANGED_MAX: usize = 2 * muster_model::subject::LABELS_MAX;

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(put_labels, change_labels))
        .merge(
            OpenApiRouter::new()
                .routes(routes!(import_labels))
                .layer(DefaultBodyLimit::max(LABEL_TABLE_BYTES_MAX)),
        )
}

/// What is to become of a device's labels.
#[derive(Debug, Clone)]
pub enum Wanted {
    /// These labels and no others.
    All(Labels),
    /// This change; what it does not name stays.
    Change(LabelChange),
}

/// Changes the labels of a device, and the groups that it is in; answers the labels as they are then.
pub async fn set(app: &App, author: &Author, device: String, wanted: Wanted) -> Result<Labels, Problem> {
    let shared = app.clone();
    let (labels, moves) = audit::commit(app, author, move |tx| {
        let (tenant, now) = (tx.tenant(), tx.at());
        let device = devices::resolve(tx, tenant, &device)?;
        let (labels, is_changed) = match &wanted {
            Wanted::All(labels) => devices::put_labels(tx, &device, labels)?,
            Wanted::Change(change) => devices::change_labels(tx, &device, change)?,
        };
        let moves = match is_changed {
            true => groups::settle(&shared, tx, tenant, &[device.id], now)?,
            false => groups::Moves::default(),
        };
        Ok((labels, moves))
    })
    .await?;
    groups::note(app, &moves);
    Ok(labels)
}

/// All labels of a device.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LabelsBody {
    /// At most 64. A key is a small letter, then at most 62 of small letters, digits and `._-`; a value has at most 256
    /// characters.
    #[schema(value_type = BTreeMap<String, String>)]
    labels: Labels,
}

/// Labels to set, and with `null` to remove.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LabelsPatch {
    #[schema(value_type = BTreeMap<String, Option<String>>)]
    labels: BTreeMap<LabelKey, Option<LabelValue>>,
}

impl LabelsPatch {
    fn change(self) -> Result<LabelChange, Problem> {
        if self.labels.len() > CHANGED_MAX {
            return Err(INVALID.detail(format!("One change names at most {CHANGED_MAX} labels.")));
        }
        let mut change = LabelChange::default();
        for (key, value) in self.labels {
            match value {
                Some(value) => drop(change.set.insert(key, value)),
                None => drop(change.removed.insert(key)),
            }
        }
        Ok(change)
    }
}

#[utoipa::path(
    put, path = "/devices/{id}/labels", tag = "devices", params(("id" = String, Path)),
    security(("oauth2" = ["device:write"])), request_body = LabelsBody, responses((status = 200, body = LabelsBody)),
)]
async fn put_labels(
    permit: Permit<DeviceWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    Body(request): Body<LabelsBody>,
) -> Result<Json<LabelsBody>, Problem> {
    let labels = set(&app, permit.author(), id, Wanted::All(request.labels)).await?;
    Ok(Json(LabelsBody { labels }))
}

#[utoipa::path(
    patch, path = "/devices/{id}/labels", tag = "devices", params(("id" = String, Path)),
    security(("oauth2" = ["device:write"])), request_body = LabelsPatch, responses((status = 200, body = LabelsBody)),
)]
async fn change_labels(
    permit: Permit<DeviceWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    Body(request): Body<LabelsPatch>,
) -> Result<Json<LabelsBody>, Problem> {
    let labels = set(&app, permit.author(), id, Wanted::Change(request.change()?)).await?;
    Ok(Json(LabelsBody { labels }))
}

/// How to take a table.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ImportQuery {
    /// Only say what would change, and what is wrong.
    #[serde(default)]
    dry_run: bool,
    /// Whether good rows are carried out when others are bad; otherwise one bad row refuses the table.
    #[serde(default)]
    partial: bool,
}

#[utoipa::path(
    post, path = "/labels/import", tag = "devices", params(ImportQuery), security(("oauth2" = ["device:write"])),
    request_body(content = String, content_type = "text/csv"), responses((status = 200, body = ImportOutcome)),
)]
async fn import_labels(
    permit: Permit<DeviceWrite>,
    State(app): State<App>,
    Params(query): Params<ImportQuery>,
    table: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Json<ImportOutcome>, Problem> {
    let table = table
        .map_err(|_| CSV_INVALID.detail("The table could not be read, or has more than 8 MiB. Split it."))?;
    let mode = ImportMode {
        dry_run: query.dry_run,
        partial: query.partial,
    };
    let outcome = devices::import_labels(&app, permit.author(), table, mode).await?;
    Ok(Json(outcome))
}
