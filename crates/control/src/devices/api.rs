//! Routes of devices.

use axum::{Json, extract::State};
use muster_model::{AttestationLevel, ComplianceState, DeviceId, Ownership, Platform, TenantId};
use muster_trust::key::sha256;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{Device, DeviceState, Protocol};
use crate::{
    App,
    access::{
        Permit,
        problem::{ILLEGAL_STATE, NOT_FOUND, Problem},
        request::{Params, PathOf},
        scope::{DeviceRead, LogRead},
    },
    audit::{self, EntryView},
    page::{Page, cursor, page_limit},
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(facts))
        .routes(routes!(quarantine))
        .routes(routes!(timeline))
}

/// What is known of how a device proved itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct AttestationView {
    /// `unattested`, `tpm2`, `android_tee`, `android_strongbox` or `apple`.
    #[schema(value_type = String)]
    pub level: AttestationLevel,
    /// What the proof said of the hardware, of its boot and of its operating system.
    #[schema(value_type = Object)]
    pub facts: serde_json::Value,
}

/// A device's verdict.
#[derive(Debug, Serialize, ToSchema)]
pub struct ComplianceView {
    #[schema(value_type = String)]
    pub state: ComplianceState,
    pub evaluated_at: Option<String>,
}

/// A device, without what its policies say (that part is added by the slices that know).
#[derive(Debug, Serialize, ToSchema)]
pub struct DeviceView {
    #[schema(value_type = String)]
    pub id: DeviceId,
    pub device_uuid: Uuid,
    pub serial: Option<String>,
    pub name: String,
    pub owner: Option<String>,
    #[schema(value_type = String)]
    pub platform: Platform,
    pub model: Option<String>,
    pub vendor: Option<String>,
    pub epoch: u32,
    pub state: DeviceState,
    pub quarantine_reason: Option<String>,
    pub attestation: AttestationView,
    pub compliance: ComplianceView,
    pub agent_version: Option<String>,
    #[schema(value_type = String)]
    pub ownership: Ownership,
    /// How the device enrolled.
    pub protocol: Protocol,
    /// The device that a retired one lives on as.
    #[schema(value_type = Option<String>)]
    pub merged_into: Option<DeviceId>,
    pub last_seen_at: String,
    pub enrolled_at: String,
}

impl From<Device> for DeviceView {
    fn from(device: Device) -> DeviceView {
        DeviceView {
            id: device.id,
            device_uuid: device.device_uuid,
            serial: device.serial,
            name: device.name,
            owner: device.owner,
            platform: device.platform,
            model: device.model,
            vendor: device.vendor,
            epoch: device.epoch,
            state: device.state,
            quarantine_reason: device.quarantine_reason,
            attestation: AttestationView {
                level: device.attestation_level,
                facts: serde_json::from_str(&device.attestation).unwrap_or_default(),
            },
            compliance: ComplianceView {
                state: device.compliance,
                evaluated_at: device.compliance_at.map(|at| at.to_string()),
            },
            agent_version: device.agent_version,
            ownership: device.ownership,
            protocol: device.protocol,
            merged_into: device.merged_into,
            last_seen_at: device.last_seen_at.to_string(),
            enrolled_at: device.enrolled_at.to_string(),
        }
    }
}

/// A device's facts and when they came.
#[derive(Debug, Serialize, ToSchema)]
struct FactsView {
    #[schema(value_type = Object)]
    facts: muster_model::facts::Facts,
    updated_at: String,
}

#[utoipa::path(
    get, path = "/devices/{id}/facts", tag = "devices", params(("id" = String, Path)),
    security(("oauth2" = ["device:read"])), responses((status = 200, body = FactsView)),
)]
async fn facts(
    permit: Permit<DeviceRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<Json<FactsView>, Problem> {
    let tenant = permit.tenant();
    let found = app
        .db
        .read(permit.storage(), move |tx| {
            let device = super::resolve(tx, tenant, &id)?;
            super::facts(tx, tenant, device.id)
        })
        .await?;
    let (facts, at) = found.ok_or_else(|| {
        NOT_FOUND.detail("The device has sent no facts yet. A collect-inventory command asks for them.")
    })?;
    Ok(Json(FactsView {
        facts,
        updated_at: at.to_string(),
    }))
}

/// A device beside another, with what tells two devices apart.
#[derive(Debug, Serialize, ToSchema)]
struct SideView {
    #[serde(flatten)]
    device: DeviceView,
    /// SHA-256 of the public key (SPKI in DER), hex: the device's identity.
    key_sha256: String,
    /// What the device says of its hardware, whoever holds it.
    claims: Vec<ClaimView>,
}

/// A hardware identifier.
#[derive(Debug, Serialize, ToSchema)]
struct ClaimView {
    /// `uuid`, `serial`, `imei` or `tpm_ek`.
    kind: String,
    value: String,
}

/// Both sides of a quarantine.
#[derive(Debug, Serialize, ToSchema)]
struct QuarantineView {
    device: SideView,
    /// Devices that hold an identifier which the device claims too; none where the holder is gone.
    rivals: Vec<SideView>,
}

fn side(tx: &mut muster_storage::Tx, tenant: TenantId, device: Device) -> Result<SideView, Problem> {
    let claims = super::said(tx, tenant, device.id)?;
    Ok(SideView {
        key_sha256: sha256(&device.spki).to_hex(),
        device: device.into(),
        claims: claims
            .into_iter()
            .map(|(kind, value)| ClaimView { kind, value })
            .collect(),
    })
}

#[utoipa::path(
    get, path = "/devices/{id}/quarantine", tag = "devices", params(("id" = String, Path)),
    security(("oauth2" = ["device:read"])), responses((status = 200, body = QuarantineView)),
)]
async fn quarantine(
    permit: Permit<DeviceRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
) -> Result<Json<QuarantineView>, Problem> {
    let tenant = permit.tenant();
    let view = app
        .db
        .read(permit.storage(), move |tx| {
            let device = super::resolve(tx, tenant, &id)?;
            if device.state != DeviceState::Quarantined {
                return Err(ILLEGAL_STATE.detail("The device is not in quarantine."));
            }
            let mut rivals = Vec::new();
            for rival in super::rivals(tx, tenant, &device)? {
                rivals.push(side(tx, tenant, rival)?);
            }
            Ok::<_, Problem>(QuarantineView {
                device: side(tx, tenant, device)?,
                rivals,
            })
        })
        .await?;
    Ok(Json(view))
}

/// Paging of a timeline.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct TimelineQuery {
    cursor: Option<String>,
    limit: Option<usize>,
}

#[utoipa::path(
    get, path = "/devices/{id}/timeline", tag = "devices", params(("id" = String, Path), TimelineQuery),
    security(("oauth2" = ["log:read"])), responses((status = 200, body = Page<EntryView>)),
)]
async fn timeline(
    permit: Permit<LogRead>,
    State(app): State<App>,
    PathOf(id): PathOf<String>,
    Params(query): Params<TimelineQuery>,
) -> Result<Json<Page<EntryView>>, Problem> {
    let (tenant, limit) = (permit.tenant(), page_limit(query.limit));
    let before = cursor::<i64>(query.cursor.as_deref())?.unwrap_or(i64::MAX);
    let rows = app
        .db
        .read(permit.storage(), move |tx| {
            let device = super::resolve(tx, tenant, &id)?;
            audit::entries_of(
                tx,
                tenant,
                &device.id.to_string(),
                before,
                i64::try_from(limit + 1).unwrap_or(i64::MAX),
            )
        })
        .await?;
    let items = rows
        .iter()
        .filter_map(|row| row.entry().ok().map(|entry| EntryView::of(row.place, entry)));
    Ok(Json(Page::of(items.collect(), limit, |entry: &EntryView| {
        entry.index.to_string()
    })))
}
