//! What the operator sees of tenants.

use muster_model::TenantId;
use muster_storage::{Scope, Tx};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    CLOSINGS_MAX,
    make::not_found,
    store::{self, Closing, ClosingState, Draft},
};
use crate::{
    App,
    access::{self, TenantRow, problem::Problem},
    audit, secrets,
};

/// A tenant.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TenantView {
    #[schema(value_type = String)]
    pub id: TenantId,
    pub name: String,
    /// What people call it; empty where nobody said.
    pub display_name: String,
    /// `awaiting_root`, `active`, `suspended`, `closing`, `erasing` or `deleted`.
    pub state: &'static str,
    /// Whether it is the operator's tenant, which can be neither suspended nor closed.
    pub is_operator: bool,
    pub created_at: Option<String>,
    /// Since when it is in this state.
    pub state_since: Option<String>,
    /// Of one that awaits its root document: when its draft is forgotten.
    pub expires_at: Option<String>,
    pub devices: u64,
    pub people: u64,
    /// The version of the newest root document that this node knows.
    pub root_version: Option<u64>,
    /// Entries of its log that are under a signed checkpoint.
    pub log_entries: u64,
    /// Of one that ends or has ended.
    pub closing: Option<ClosingView>,
}

/// How a tenant ends.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ClosingView {
    pub reason: String,
    /// The root keys that signed it.
    pub signers: Vec<String>,
    pub asked_by: String,
    pub asked_at: String,
    /// Until then it can be taken back.
    pub erase_at: String,
    pub deleted_at: Option<String>,
    /// The newest checkpoint of its log: whoever has an export, or a device, can compare it.
    pub checkpoint: Option<String>,
    /// Rows that were deleted, by table.
    #[schema(value_type = Object)]
    pub removed: serde_json::Value,
}

/// What there is of a tenant, before its details are read.
#[derive(Clone)]
enum Known {
    Tenant(TenantRow, Option<Closing>),
    Draft(Draft),
    Deleted(Closing),
}

impl Known {
    fn id(&self) -> TenantId {
        match self {
            Known::Tenant(row, _) => row.id,
            Known::Draft(draft) => draft.id,
            Known::Deleted(closing) => closing.id,
        }
    }

    fn name(&self) -> &str {
        match self {
            Known::Tenant(row, _) => &row.name,
            Known::Draft(draft) => &draft.name,
            Known::Deleted(closing) => &closing.name,
        }
    }
}

/// Tenants, drafts and those that ended, in the order of their ids: the oldest first.
fn known(tx: &mut Tx, operator: TenantId, now: muster_model::Timestamp) -> Result<Vec<Known>, Problem> {
    let mut closings = store::closings(tx, operator, CLOSINGS_MAX)?;
    let mut known = Vec::new();
    for row in access::tenant_rows(tx)? {
        let at = closings.iter().position(|closing| closing.id == row.id);
        let closing = at.map(|at| closings.swap_remove(at));
        known.push(Known::Tenant(row, closing));
    }
    let drafts = store::drafts(tx, operator)?.into_iter();
    known.extend(drafts.filter(|draft| draft.expires_at > now).map(Known::Draft));
    let ended = closings
        .into_iter()
        .filter(|closing| closing.state == ClosingState::Deleted);
    known.extend(ended.map(Known::Deleted));
    known.sort_by_key(Known::id);
    Ok(known)
}

fn closing_view(closing: &Closing) -> ClosingView {
    ClosingView {
        reason: closing.reason.clone(),
        signers: closing.signers.split_whitespace().map(str::to_owned).collect(),
        asked_by: closing.asked_by.clone(),
        asked_at: closing.asked_at.to_string(),
        erase_at: closing.erase_at.to_string(),
        deleted_at: closing.deleted_at.map(|at| at.to_string()),
        checkpoint: closing.note.clone(),
        removed: serde_json::from_str(&closing.removed).unwrap_or_default(),
    }
}

fn view(app: &App, tx: &mut Tx, operator: TenantId, known: &Known) -> Result<TenantView, Problem> {
    let empty = TenantView {
        id: known.id(),
        name: known.name().to_owned(),
        display_name: String::new(),
        state: "deleted",
        is_operator: known.id() == operator,
        created_at: None,
        state_since: None,
        expires_at: None,
        devices: 0,
        people: 0,
        root_version: None,
        log_entries: 0,
        closing: None,
    };
    Ok(match known {
        Known::Draft(draft) => TenantView {
            display_name: draft.display_name.clone(),
            state: "awaiting_root",
            state_since: Some(draft.created_at.to_string()),
            expires_at: Some(draft.expires_at.to_string()),
            ..empty
        },
        Known::Deleted(closing) => TenantView {
            state_since: closing.deleted_at.map(|at| at.to_string()),
            closing: Some(closing_view(closing)),
            ..empty
        },
        Known::Tenant(row, closing) => TenantView {
            display_name: row.display_name.clone(),
            state: row.state.as_str(),
            created_at: Some(row.created_at.to_string()),
            state_since: Some(row.state_at.unwrap_or(row.created_at).to_string()),
            devices: store::count_in(tx, row.id, "devices_device")?,
            people: store::count_in(tx, row.id, "access_person")?,
            root_version: app.keys.tenant(row.id).ok().map(|keys| keys.root.version),
            log_entries: audit::stored_checkpoint(tx, row.id)?.map_or(0, |(size, _)| size),
            closing: closing.as_ref().map(closing_view),
            ..empty
        },
    })
}

/// The tenants behind one, up to a number and one more.
pub async fn all(
    app: &App,
    operator: TenantId,
    behind: Option<TenantId>,
    limit: usize,
) -> Result<Vec<TenantView>, Problem> {
    let (shared, now) = (app.clone(), app.clock.now());
    app.db
        .read(Scope::System, move |tx| {
            let known = known(tx, operator, now)?.into_iter();
            let page = known
                .filter(|known| behind.is_none_or(|behind| known.id() > behind))
                .take(limit + 1);
            page.map(|known| view(&shared, tx, operator, &known)).collect()
        })
        .await
}

/// A tenant by its id or its name; of several that had the name, the one that there is.
pub async fn one(app: &App, operator: TenantId, text: &str) -> Result<TenantView, Problem> {
    let (shared, now) = (app.clone(), app.clock.now());
    let (id, name) = (text.parse::<TenantId>().ok(), text.to_owned());
    app.db
        .read(Scope::System, move |tx| {
            let known = known(tx, operator, now)?;
            let is = |known: &&Known| match id {
                Some(id) => known.id() == id,
                None => known.name() == name,
            };
            let is_there = |known: &&Known| !matches!(known, Known::Deleted(_));
            let found = known
                .iter()
                .filter(is)
                .find(is_there)
                .or_else(|| known.iter().rfind(is));
            let found = found.ok_or_else(not_found)?;
            view(&shared, tx, operator, found)
        })
        .await
}

/// The id of a tenant that there is, or was, or is to be, by its id or its name.
pub async fn id_of(app: &App, operator: TenantId, text: &str) -> Result<TenantId, Problem> {
    match text.parse::<TenantId>() {
        Ok(id) => Ok(id),
        Err(_) => one(app, operator, text).await.map(|view| view.id),
    }
}

/// What the operator's pages say first: the installation's tenant, or nothing where the caller is of another.
pub async fn is_operator(app: &App, tenant: TenantId) -> Result<bool, Problem> {
    Ok(secrets::operator(app).await? == Some(tenant))
}
