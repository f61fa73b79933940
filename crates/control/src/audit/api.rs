//! Routes of the transparency log: C2SP tlog-tiles for tools, JSON for people and programs.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Bytes,
    extract::State,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use muster_model::{EntryId, TenantId, Timestamp};
use muster_trust::{
    dsse::Envelope,
    entry::{ActorKind, LogEntry},
    tile::{self, TILE_WIDTH, Tile, TilePath},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Head, clock,
    export::{LineFormat, line},
    proofs,
    search::{Found, Search, search},
    sequence::read_tile,
    state::{Field, Subject, state_at},
    store,
};
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
        .routes(routes!(state))
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
    /// The server's clock was this many seconds behind the entry before: its time cannot be believed. The order can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_back_seconds: Option<u64>,
}

/// The word for a kind of party.
pub(super) fn actor_kind(kind: ActorKind) -> &'static str {
    match kind {
        ActorKind::Client => "client",
        ActorKind::User => "user",
        ActorKind::Device => "device",
        ActorKind::System => "system",
    }
}

impl EntryView {
    /// The entry as it is shown.
    pub fn of(place: u64, entry: LogEntry) -> EntryView {
        let actor_kind = actor_kind(entry.actor.kind);
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
            clock_back_seconds: None,
        }
    }
}

/// Which entries to list. Everything that is given must hold.
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
    /// Only entries about objects whose id has this text in it.
    object_contains: Option<String>,
    /// Only entries about this kind of object, such as `device`.
    object_kind: Option<String>,
    /// Only entries of this actor, such as `cli_…`.
    actor: Option<String>,
    /// Only this action, such as `device.enrolled`; with a dot at the end, such as `device.`, every action that begins so.
    action: Option<String>,
    /// Only entries from this time on.
    #[param(value_type = Option<String>)]
    since: Option<Timestamp>,
    /// Only entries before this time.
    #[param(value_type = Option<String>)]
    until: Option<Timestamp>,
    /// One line for each entry instead of a JSON document: `json_lines`, `ocsf` or `cef`. The header `x-next-cursor` says where
    /// the next page goes on.
    #[param(inline)]
    format: Option<LineFormat>,
    /// `newest` lists backwards from `after`. Entries about one object come so unless `oldest` is asked for.
    #[param(inline)]
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
    /// Send it as `after` for the next page. A page looks at a bounded number of entries: it may be short, even empty, and
    /// still have a next one.
    next_cursor: Option<i64>,
}

#[utoipa::path(
    get, path = "/log/entries", tag = "log", params(EntriesQuery), security(("oauth2" = ["log:read"])),
    responses((status = 200, content(
        (EntriesView = "application/json"), (String = "application/x-ndjson"), (String = "text/plain"),
    ))),
)]
async fn entries(
    permit: Permit<LogRead>,
    State(app): State<App>,
    Params(query): Params<EntriesQuery>,
) -> Result<Response, Problem> {
    let (tenant, limit) = (permit.tenant(), page_limit(query.limit));
    let after = query.after.or(query.cursor);
    let newest_first = match query.order {
        Some(order) => order == Order::Newest,
        None => query.object.is_some(),
    };
    let wanted = Search {
        object: query.object,
        object_contains: query.object_contains,
        object_kind: query.object_kind,
        actor: query.actor,
        action: query.action,
        since: query.since,
        until: query.until,
        action_contains: None,
        actor_contains: None,
    };
    if let Some(format) = query.format {
        let found = app
            .db
            .read(permit.storage(), move |tx| {
                search(tx, tenant, &wanted, after, newest_first, limit)
            })
            .await?;
        return lines(format, found);
    }
    let (items, next_cursor) = app
        .db
        .read(permit.storage(), move |tx| {
            let found = search(tx, tenant, &wanted, after, newest_first, limit)?;
            let went_back = clock::went_back(tx, tenant, &found.rows)?;
            let items: Vec<EntryView> = found
                .rows
                .into_iter()
                .zip(went_back)
                .map(|((row, entry), seconds)| EntryView {
                    clock_back_seconds: seconds,
                    ..EntryView::of(row.place, entry)
                })
                .collect();
            Ok::<_, Problem>((items, found.next))
        })
        .await?;
    Ok(Json(EntriesView { items, next_cursor }).into_response())
}

fn lines(format: LineFormat, found: Found) -> Result<Response, Problem> {
    let mut text = String::new();
    for (row, entry) in &found.rows {
        text.push_str(&line(format, row.place, entry)?);
    }
    let mut response = ([(header::CONTENT_TYPE, format.media_type())], text).into_response();
    if let Some(next) = found.next {
        response
            .headers_mut()
            .insert("x-next-cursor", HeaderValue::from(next));
    }
    Ok(response)
}

/// Which object, and when.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct StateQuery {
    /// `device:dev_…`, `policy:pol_…` or `client:cli_…`.
    object: String,
    /// The moment; now unless given.
    #[param(value_type = Option<String>)]
    at: Option<Timestamp>,
}

/// An object as it was, from the log alone.
#[derive(Debug, Serialize, ToSchema)]
struct StateView {
    object: String,
    at: String,
    /// Every field with the entry that set it. Empty: the log knew nothing of the object then.
    fields: BTreeMap<String, Field>,
    /// How many entries it was folded from.
    entries: usize,
    /// The object has more entries than are folded; later ones are missing.
    is_cut: bool,
}

#[utoipa::path(
    get, path = "/log/state", tag = "log", params(StateQuery), security(("oauth2" = ["log:read"])),
    responses((status = 200, body = StateView)),
)]
async fn state(
    permit: Permit<LogRead>,
    State(app): State<App>,
    Params(query): Params<StateQuery>,
) -> Result<Json<StateView>, Problem> {
    let (tenant, at) = (permit.tenant(), query.at.unwrap_or_else(|| app.clock.now()));
    let subject: Subject = query.object.parse()?;
    let found = app
        .db
        .read(permit.storage(), move |tx| state_at(tx, tenant, &subject, at))
        .await?;
    Ok(Json(StateView {
        object: query.object,
        at: at.to_string(),
        fields: found.fields,
        entries: found.entries,
        is_cut: found.is_cut,
    }))
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
