//! Routes of the transparency log: C2SP tlog-tiles for tools, JSON for people and programs.

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use muster_model::{EntryId, TenantId};
use muster_trust::{
    dsse::Envelope,
    entry::{ActorKind, LogEntry},
    tile::{self, TILE_WIDTH, Tile, TilePath},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{EntryRow, Head, proofs, sequence::read_tile, store};
use crate::{
    App,
    access::{
        Permit,
        problem::{INVALID, NOT_FOUND, Problem, UNAVAILABLE},
        request::{Params, PathOf},
        scope::LogRead,
    },
    page::page_limit,
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(checkpoint))
        .routes(routes!(root_documents))
        .routes(routes!(tile))
        .routes(routes!(entries))
        .routes(routes!(proof))
        .routes(routes!(consistency))
}

#[utoipa::path(
    get, path = "/log/checkpoint", tag = "log", security(("oauth2" = ["log:read"])),
    responses((status = 200, body = String, content_type = "text/plain")),
)]
async fn checkpoint(permit: Permit<LogRead>, State(app): State<App>) -> Result<Response, Problem> {
    let head = head(&app, permit.tenant())?;
    Ok(plain(head.note.clone(), "no-cache"))
}

/// The tenant's root documents: who may sign what, from version 1 on.
#[derive(Debug, Serialize, ToSchema)]
struct RootDocumentsView {
    /// DSSE envelopes; each is signed by the threshold of the one before.
    #[schema(value_type = Vec<Object>)]
    items: Vec<Envelope>,
}

/// The root documents. Compare the first one with what a device pinned before believing the rest.
#[utoipa::path(
    get, path = "/log/root", tag = "log", security(("oauth2" = ["log:read"])),
    responses((status = 200, body = RootDocumentsView)),
)]
async fn root_documents(
    permit: Permit<LogRead>,
    State(app): State<App>,
) -> Result<Json<RootDocumentsView>, Problem> {
    let keys = app.keys.tenant(permit.tenant()).map_err(Problem::internal)?;
    let items = keys.root_documents.clone();
    Ok(Json(RootDocumentsView { items }))
}

#[utoipa::path(
    get, path = "/log/tile/{*path}", tag = "log", params(("path" = String, Path)),
    security(("oauth2" = ["log:read"])),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream")),
)]
async fn tile(
    permit: Permit<LogRead>,
    State(app): State<App>,
    PathOf(path): PathOf<String>,
) -> Result<Response, Problem> {
    let wanted: TilePath = format!("tile/{path}").parse().map_err(|_| {
        INVALID.detail(
            "The path is not that of a tile: <level>/<index> or entries/<index>, see C2SP tlog-tiles.",
        )
    })?;
    let head = head(&app, permit.tenant())?;
    let tenant = permit.tenant();
    let bytes = app
        .db
        .read(permit.storage(), move |tx| tile_bytes(tx, tenant, &head, &wanted))
        .await?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CACHE_CONTROL, "max-age=31536000, immutable"),
    ];
    Ok((headers, Bytes::from(bytes)).into_response())
}

fn tile_bytes(
    tx: &mut muster_storage::Tx,
    tenant: TenantId,
    head: &Head,
    path: &TilePath,
) -> Result<Vec<u8>, Problem> {
    let missing = || NOT_FOUND.detail("The tree does not reach this tile yet.");
    let (TilePath::Hashes(wanted) | TilePath::Entries(wanted)) = path;
    let there = Tile::in_tree(wanted.level, wanted.index, head.size).ok_or_else(missing)?;
    if wanted.width > there.width {
        return Err(missing());
    }
    match path {
        TilePath::Hashes(wanted) => {
            let hashes = read_tile(tx, tenant, *wanted)?;
            hashes
                .get(..wanted.width as usize)
                .map(tile::encode_hashes)
                .ok_or_else(missing)
        }
        TilePath::Entries(wanted) => {
            let from = wanted.index * u64::from(TILE_WIDTH);
            let rows = store::entries_from(tx, tenant, from, i64::from(wanted.width))?;
            if rows.len() != wanted.width as usize {
                return Err(missing());
            }
            tile::encode_entries(rows.iter().map(|row| row.body.as_slice()))
                .ok_or_else(|| Problem::internal("an entry is longer than an entry bundle can hold"))
        }
    }
}

/// An entry of the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct EntryView {
    /// The entry's place in the tree, from 0.
    pub index: u64,
    pub id: String,
    pub at: String,
    pub actor_kind: String,
    pub actor: String,
    pub action: String,
    pub object_kind: String,
    pub object: String,
    #[schema(value_type = Object)]
    pub detail: serde_json::Map<String, serde_json::Value>,
}

impl EntryView {
    /// The entry as it is shown.
    pub fn of(place: u64, entry: LogEntry) -> EntryView {
        let actor_kind = match entry.actor.kind {
            ActorKind::Client => "client",
            ActorKind::User => "user",
            ActorKind::Device => "device",
            ActorKind::System => "system",
        };
        EntryView {
            index: place,
            id: entry.id.to_string(),
            at: entry.at.to_string(),
            actor_kind: actor_kind.to_owned(),
            actor: entry.actor.id,
            action: entry.action,
            object_kind: entry.object.kind,
            object: entry.object.id,
            detail: entry.detail,
        }
    }
}

/// Which entries to list.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct EntriesQuery {
    /// Start behind this place; without it at the beginning.
    after: Option<i64>,
    /// The same as `after`, as lists call it.
    cursor: Option<i64>,
    limit: Option<usize>,
    /// Only entries about this object, such as `dev_…`.
    object: Option<String>,
    /// Only this action, such as `device.enrolled`.
    action: Option<String>,
    /// `newest` lists backwards from `after`.
    order: Option<Order>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Order {
    Oldest,
    Newest,
}

/// A page of entries.
#[derive(Debug, Serialize, ToSchema)]
struct EntriesView {
    items: Vec<EntryView>,
    /// Send it as `after` for the next page.
    next_cursor: Option<i64>,
}

#[utoipa::path(
    get, path = "/log/entries", tag = "log", params(EntriesQuery), security(("oauth2" = ["log:read"])),
    responses((status = 200, body = EntriesView)),
)]
async fn entries(
    permit: Permit<LogRead>,
    State(app): State<App>,
    Params(query): Params<EntriesQuery>,
) -> Result<Json<EntriesView>, Problem> {
    let (tenant, limit) = (permit.tenant(), page_limit(query.limit));
    let after = query.after.or(query.cursor);
    let newest = query.object.is_some() || query.order == Some(Order::Newest);
    let rows = app
        .db
        .read(permit.storage(), move |tx| {
            let fetch = i64::try_from(limit).unwrap_or(i64::MAX);
            let before = after.unwrap_or(i64::MAX);
            Ok::<_, Problem>(match &query.object {
                Some(object) => store::entries_of(tx, tenant, object, before, fetch)?,
                None if newest => store::entries_before(tx, tenant, before, fetch)?,
                None => store::entries_from(
                    tx,
                    tenant,
                    after.map_or(0, |after| u64::try_from(after.saturating_add(1)).unwrap_or(0)),
                    fetch,
                )?,
            })
        })
        .await?;
    let full = rows.len() == limit;
    let next_cursor = rows
        .last()
        .filter(|_| full)
        .map(|row| i64::try_from(row.place).unwrap_or(i64::MAX));
    let items = rows.into_iter().filter_map(|row| view(&row)).filter(|entry| {
        query
            .action
            .as_deref()
            .is_none_or(|action| entry.action == action)
    });
    Ok(Json(EntriesView {
        items: items.collect(),
        next_cursor,
    }))
}

fn view(row: &EntryRow) -> Option<EntryView> {
    row.entry().ok().map(|entry| EntryView::of(row.place, entry))
}

/// Which entry to prove: its id, or its place.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ProofQuery {
    /// `ent_…` or a number.
    entry: String,
}

/// The proof that an entry is in the log at the checkpoint (RFC 6962 §2.1.1).
#[derive(Debug, Serialize, ToSchema)]
struct ProofView {
    /// The entry's bytes, base64: the leaf is SHA-256(0x00 ‖ bytes).
    entry: String,
    index: u64,
    tree_size: u64,
    /// The audit path, lowest first, base64.
    hashes: Vec<String>,
    /// The signed head that it leads to.
    checkpoint: String,
}

#[utoipa::path(
    get, path = "/log/proof", tag = "log", params(ProofQuery), security(("oauth2" = ["log:read"])),
    responses((status = 200, body = ProofView)),
)]
async fn proof(
    permit: Permit<LogRead>,
    State(app): State<App>,
    Params(query): Params<ProofQuery>,
) -> Result<Json<ProofView>, Problem> {
    let (tenant, shared, head) = (permit.tenant(), app.clone(), head(&app, permit.tenant())?);
    let missing = || {
        NOT_FOUND.detail("The log has no such entry, or not yet: an entry gets its place within a second.")
    };
    let place = query.entry.parse::<u64>().ok();
    let id = query.entry.parse::<EntryId>().ok();
    let view = app
        .db
        .read(permit.storage(), move |tx| {
            let proof = match (place, id) {
                (Some(place), _) => proofs::place_proof(&shared, tx, tenant, place, &head)?,
                (None, Some(id)) => {
                    proofs::entry_proof(&shared, tx, tenant, id, &head)?.ok_or_else(missing)?
                }
                (None, None) => {
                    return Err(INVALID.detail("entry is an id, ent_…, or the number of its place."));
                }
            };
            Ok(ProofView {
                entry: STANDARD.encode(&proof.entry),
                index: proof.index,
                tree_size: proof.tree_size,
                hashes: proof.hashes.iter().map(|hash| hash.to_base64()).collect(),
                checkpoint: head.note.clone(),
            })
        })
        .await?;
    Ok(Json(view))
}

/// Two sizes of the tree.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ConsistencyQuery {
    from: u64,
    /// The newest checkpoint's size unless given.
    to: Option<u64>,
}

/// The proof that the larger tree extends the smaller one (RFC 6962 §2.1.2).
#[derive(Debug, Serialize, ToSchema)]
struct ConsistencyView {
    from: u64,
    to: u64,
    hashes: Vec<String>,
}

#[utoipa::path(
    get, path = "/log/consistency", tag = "log", params(ConsistencyQuery), security(("oauth2" = ["log:read"])),
    responses((status = 200, body = ConsistencyView)),
)]
async fn consistency(
    permit: Permit<LogRead>,
    State(app): State<App>,
    Params(query): Params<ConsistencyQuery>,
) -> Result<Json<ConsistencyView>, Problem> {
    let (tenant, shared, head) = (permit.tenant(), app.clone(), head(&app, permit.tenant())?);
    let (from, to) = (query.from, query.to.unwrap_or(head.size));
    if to > head.size {
        return Err(INVALID.detail(format!("The tree has {} entries.", head.size)));
    }
    let hashes = app
        .db
        .read(permit.storage(), move |tx| {
            proofs::consistency(&shared, tx, tenant, from, to)
        })
        .await?;
    Ok(Json(ConsistencyView {
        from,
        to,
        hashes: hashes.iter().map(|hash| hash.to_base64()).collect(),
    }))
}

fn head(app: &App, tenant: TenantId) -> Result<std::sync::Arc<Head>, Problem> {
    proofs::head(app, tenant).ok_or_else(|| {
        UNAVAILABLE
            .detail("The log has no checkpoint yet. Try again in a second.")
            .retry_after(1)
    })
}

fn plain(text: String, cache: &'static str) -> Response {
    let mut response = text.into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}
