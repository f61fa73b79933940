//! What the operator allows each tenant: set by the operator's tenant alone, and seen by the tenant itself.

use axum::{Json, extract::State};
use muster_model::TenantId;
use muster_storage::{Scope, Tx};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::state::{find, require_operator, tell};
use crate::{
    App, Settings,
    access::{
        Author, Permit, TenantRow,
        budget::caller_of,
        limits::{self, Limits, Set},
        problem::Problem,
        request::{Body, PathOf},
        scope::{TenantRead, TenantWrite},
    },
    audit, devices, directory, secrets,
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_tenant_limits, put_tenant_limits))
        .routes(routes!(get_own_limits))
}

/// One limit of a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct LimitView {
    /// What the operator set; absent where nothing is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<u32>,
    /// What counts: what is set, or the installation's, and of a caller at most half of the tenant's; absent where there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_force: Option<u32>,
    /// How many there are; absent of what is counted by the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
}

impl LimitView {
    /// Whether one more would be refused.
    pub fn is_reached(&self) -> bool {
        matches!((self.in_force, self.used), (Some(most), Some(used)) if used >= u64::from(most))
    }
}

/// The limits of a tenant, what is used of them, and who set them.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LimitsView {
    #[schema(value_type = String)]
    pub tenant: TenantId,
    pub name: String,
    /// Requests of its programs in a second, and as many of its people in the console; five times as many at once.
    pub requests_per_second: LimitView,
    /// Of these, requests of one service account or person.
    pub requests_per_second_of_caller: LimitView,
    /// Messages of its devices in a second; five times as many at once.
    pub device_messages_per_second: LimitView,
    /// Devices that are enrolled and not retired.
    pub devices_max: LimitView,
    /// People of its directory.
    pub people_max: LimitView,
    /// The account of the operator that set them last; absent where nobody ever did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<String>,
}

impl LimitsView {
    /// What is set, as it is sent to set it.
    pub fn set(&self) -> Limits {
        Limits {
            requests_per_second: self.requests_per_second.set,
            requests_per_second_of_caller: self.requests_per_second_of_caller.set,
            device_messages_per_second: self.device_messages_per_second.set,
            devices_max: self.devices_max.set,
            people_max: self.people_max.set,
        }
    }
}

fn view(tx: &mut Tx, row: &TenantRow, settings: &Settings) -> Result<LimitsView, Problem> {
    let set = limits::set_of(tx, row.id)?;
    let limits = set.as_ref().map(|set| set.limits).unwrap_or_default();
    let by_second = |set: Option<u32>, installation: u32| LimitView {
        set,
        in_force: Some(set.unwrap_or(installation)),
        used: None,
    };
    let counted = |set: Option<u32>, used: i64| LimitView {
        set,
        in_force: set,
        used: Some(u64::try_from(used).unwrap_or_default()),
    };
    let (changed_by, changed_at) = set
        .map(
            |Set {
                 changed_by,
                 changed_at,
                 ..
             }| (changed_by, changed_at),
        )
        .unzip();
    Ok(LimitsView {
        tenant: row.id,
        name: row.name.clone(),
        requests_per_second: by_second(limits.requests_per_second, settings.api_requests_per_second),
        requests_per_second_of_caller: LimitView {
            in_force: Some(caller_of(
                limits
                    .requests_per_second
                    .unwrap_or(settings.api_requests_per_second),
                limits
                    .requests_per_second_of_caller
                    .unwrap_or(settings.api_requests_per_second_of_caller),
            )),
            ..by_second(limits.requests_per_second_of_caller, 0)
        },
        device_messages_per_second: by_second(
            limits.device_messages_per_second,
            settings.device_messages_per_second,
        ),
        devices_max: counted(limits.devices_max, devices::live(tx, row.id)?),
        people_max: counted(limits.people_max, directory::size(tx, row.id)?),
        changed_by,
        changed_at: changed_at.map(|at| at.to_string()),
    })
}

/// The limits of a tenant. Whose they are to see is asked before.
async fn of(app: &App, row: TenantRow) -> Result<LimitsView, Problem> {
    let settings = app.settings.clone();
    app.db
        .read(Scope::System, move |tx| view(tx, &row, &settings))
        .await
}

/// The limits of the tenant `text` by its id or name, for somebody of the operator's tenant.
pub async fn limits(app: &App, author: &Author, text: &str) -> Result<LimitsView, Problem> {
    require_operator(app, author.tenant).await?;
    of(app, find(app, text).await?).await
}

/// The limits of one's own tenant.
pub async fn own_limits(app: &App, tenant: TenantId) -> Result<LimitsView, Problem> {
    of(app, find(app, &tenant.to_string()).await?).await
}

/// Sets what a tenant may, for somebody of the operator's tenant. Both logs say what was and what is. What the tenant has more of than it
/// may have is left as it is.
pub async fn set_limits(
    app: &App,
    author: &Author,
    text: &str,
    wanted: Limits,
) -> Result<LimitsView, Problem> {
    require_operator(app, author.tenant).await?;
    wanted.check()?;
    let row = find(app, text).await?;
    let (operator, tenant) = (author.tenant, row.id);
    let ours = secrets::keys_of(app, operator).await?;
    let theirs = secrets::keys_of(app, tenant).await?;
    audit::commit_across(app, author, ours, theirs, move |tx| {
        let before = limits::limits_of(tx, tenant)?;
        if before == wanted {
            return Ok(());
        }
        limits::put(tx, tenant, &wanted)?;
        let detail = serde_json::json!({"before": before, "limits": wanted});
        tell(tx, operator, tenant, "tenant.limits_changed", detail)
    })
    .await?;
    limits::follow(app).await?;
    of(app, row).await
}

/// What the operator allows a tenant, and what is used of it. For the operator's tenant alone; a tenant sees its own under
/// `/settings/limits`.
#[utoipa::path(
    get, path = "/tenants/{id}/limits", tag = "tenants", params(("id" = String, Path)),
    security(("oauth2" = ["tenant:read"])), responses((status = 200, body = LimitsView)),
)]
async fn get_tenant_limits(
    permit: Permit<TenantRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<Json<LimitsView>, Problem> {
    limits(&app, permit.author(), &id).await.map(Json)
}

/// Sets what a tenant may, all of it: what is absent is the installation's. It counts on every node within seconds. A number below what
/// is there takes nothing away: one more is refused.
#[utoipa::path(
    put, path = "/tenants/{id}/limits", tag = "tenants", params(("id" = String, Path)),
    security(("oauth2" = ["tenant:write"])), request_body = Limits, responses((status = 200, body = LimitsView)),
)]
async fn put_tenant_limits(
    permit: Permit<TenantWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    Body(wanted): Body<Limits>,
) -> Result<Json<LimitsView>, Problem> {
    set_limits(&app, permit.author(), &id, wanted).await.map(Json)
}

/// What the operator of the installation allows this tenant, and what is used of it.
#[utoipa::path(
    get, path = "/settings/limits", tag = "tenants", security(("oauth2" = ["tenant:read"])),
    responses((status = 200, body = LimitsView)),
)]
async fn get_own_limits(
    permit: Permit<TenantRead>,
    State(app): State<App>,
) -> Result<Json<LimitsView>, Problem> {
    own_limits(&app, permit.tenant()).await.map(Json)
}
