//! The fleet as a person sees it: devices with what their policies say of them, decisions about devices, the overview.
//!
//! This slice owns no table: it puts together what the others know.

mod api;
mod labels;

use muster_model::{CommandState, DeviceId, Labels, TenantId, Timestamp};
use muster_storage::Tx;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    App,
    access::{Permit, problem::Problem, scope::DeviceWrite},
    audit,
    certificates::{self, RevocationReason},
    commands, compliance,
    devices::{self, Device, DeviceFilter, DeviceView, QuarantineDecision, Summary},
    enrollment::{self, Funnel},
    rollout::{self, Activations},
};
pub use api::router;
pub use labels::{Wanted as WantedLabels, set as set_labels};

/// The days that the overview looks back on.
const OVERVIEW_DAYS: u64 = 7;
const REFUSED_COUNTED_MAX: i64 = 1000;

/// A device's policy in short.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FleetPolicyView)]
pub struct PolicyView {
    #[schema(value_type = String)]
    pub policy_id: muster_model::PolicyId,
    pub version: String,
    /// Of the bundle, lower hex.
    pub sha256: String,
    /// `pending`, `verified`, `weaker`, `applied` or `failed`.
    pub state: String,
}

/// A device's newest certificate.
#[derive(Debug, Serialize, ToSchema)]
pub struct CertificateView {
    /// Lower hex.
    pub serial: String,
    pub not_after: String,
    pub revoked_at: Option<String>,
}

/// A certificate of a device, in full.
#[derive(Debug, Serialize, ToSchema)]
pub struct CertificateDetail {
    /// Lower hex.
    pub serial: String,
    pub epoch: u32,
    pub not_before: String,
    pub not_after: String,
    pub revoked_at: Option<String>,
    pub revocation_reason: Option<String>,
    /// The id of the authority that signed it; its revocation list is `/pki/ID.crl`.
    pub authority: Option<String>,
}

/// A device with everything that a list shows of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct FleetDevice {
    #[serde(flatten)]
    pub device: DeviceView,
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub labels: Labels,
    pub policy: Option<PolicyView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificateView>,
}

/// Devices with their policies, in their order.
pub fn with_policies(
    tx: &mut Tx,
    activations: &Activations,
    tenant: TenantId,
    devices: Vec<Device>,
    now: Timestamp,
) -> Result<Vec<FleetDevice>, Problem> {
    let policies = rollout::policies_of(tx, activations, tenant, &devices, now)?;
    let ids: Vec<DeviceId> = devices.iter().map(|device| device.id).collect();
    let mut labels = devices::labels_of(tx, tenant, &ids)?;
    let views = devices
        .into_iter()
        .zip(policies)
        .map(|(device, policy)| FleetDevice {
            labels: labels.remove(&device.id).unwrap_or_default(),
            device: device.into(),
            policy: policy.map(|policy| PolicyView {
                policy_id: policy.policy,
                version: policy.version.to_string(),
                sha256: policy.sha256,
                state: policy.state.as_str().to_owned(),
            }),
            certificate: None,
        });
    Ok(views.collect())
}

/// One device with its policy and its newest certificate.
pub fn device(
    tx: &mut Tx,
    activations: &Activations,
    tenant: TenantId,
    text: &str,
    now: Timestamp,
) -> Result<FleetDevice, Problem> {
    let device = devices::resolve(tx, tenant, text)?;
    let id = device.id;
    let mut views = with_policies(tx, activations, tenant, vec![device], now)?;
    let mut view = views
        .pop()
        .ok_or_else(|| Problem::internal("one device gives one view"))?;
    view.certificate = certificates::of_device(tx, tenant, id)?
        .into_iter()
        .next()
        .map(|newest| CertificateView {
            serial: newest.serial,
            not_after: newest.not_after.to_string(),
            revoked_at: newest.revoked_at.map(|at| at.to_string()),
        });
    Ok(view)
}

/// The certificates of a device, newest first.
pub fn certificates_of(tx: &mut Tx, tenant: TenantId, text: &str) -> Result<Vec<CertificateDetail>, Problem> {
    let device = devices::resolve(tx, tenant, text)?;
    let held = certificates::of_device(tx, tenant, device.id)?;
    let details = held.into_iter().map(|held| CertificateDetail {
        serial: held.serial,
        epoch: held.epoch,
        not_before: held.not_before.to_string(),
        not_after: held.not_after.to_string(),
        revoked_at: held.revoked_at.map(|at| at.to_string()),
        revocation_reason: held.revocation_reason,
        authority: held.authority,
    });
    Ok(details.collect())
}

/// What needs a person, and how large everything is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Overview {
    pub devices: Summary,
    /// Devices with a held wake stream on this node.
    pub connected: usize,
    pub quarantined: i64,
    pub noncompliant: i64,
    /// Commands of the last seven days by state.
    pub commands: std::collections::BTreeMap<String, i64>,
    /// Commands of the last seven days that failed or whose outcome nobody knows.
    pub commands_failed: i64,
    /// Enrollment tokens of the last seven days.
    pub enrollment: Funnel,
    /// Attempts of the last seven days to change a policy version, or to push a bundle that is not the tenant's: refused
    /// and logged. Counted to 1000.
    pub changes_refused: usize,
    pub log_entries: u64,
    /// Entries that wait for witnesses before a device is shown them.
    pub log_unpublished: u64,
    /// Devices that proved to hold a head of the log that is not ours. Counted to 100.
    pub split_views: usize,
}

/// Gathers the overview.
pub fn overview(app: &App, tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Overview, Problem> {
    let since = now.minus(std::time::Duration::from_secs(OVERVIEW_DAYS * 86_400));
    let summary = devices::summary(tx, tenant)?;
    let commands: std::collections::BTreeMap<String, i64> =
        commands::by_state(tx, tenant, since)?.into_iter().collect();
    let shown = audit::head(app, tenant).map_or(0, |head| head.size);
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let of = |state: CommandState| commands.get(state.as_str()).copied().unwrap_or(0);
    Ok(Overview {
        connected: app.registry.connected(),
        quarantined: summary.by_state.get("quarantined").copied().unwrap_or(0),
        noncompliant: summary.by_compliance.get("noncompliant").copied().unwrap_or(0),
        commands_failed: of(CommandState::Failed) + of(CommandState::Unknown),
        commands,
        enrollment: enrollment::funnel(tx, tenant, since, now)?,
        changes_refused: audit::refused_since(tx, tenant, since, REFUSED_COUNTED_MAX)?.len(),
        log_entries: shown,
        log_unpublished: audit::signed_head(app, tenant).map_or(0, |head| head.size.saturating_sub(shown)),
        split_views: audit::split_views(tx, &keys)?.len(),
        devices: summary,
    })
}

/// A page of devices after `after`, at most `limit`.
pub fn list(
    tx: &mut Tx,
    activations: &Activations,
    tenant: TenantId,
    filter: &DeviceFilter,
    after: Option<DeviceId>,
    limit: usize,
    now: Timestamp,
) -> Result<Vec<FleetDevice>, Problem> {
    let devices = devices::list(tx, tenant, filter, after, limit)?;
    with_policies(tx, activations, tenant, devices, now)
}

/// Decides about a quarantined device; whoever is retired by it loses every certificate.
pub async fn decide(
    app: &App,
    permit: &Permit<DeviceWrite>,
    device: String,
    decision: QuarantineDecision,
    continues: Option<String>,
) -> Result<(), Problem> {
    let changed = audit::commit(app, permit.author(), move |tx| {
        let tenant = tx.tenant();
        let device = devices::resolve(tx, tenant, &device)?;
        let continues = match &continues {
            Some(text) => Some(devices::resolve(tx, tenant, text)?.id),
            None => None,
        };
        let retired = devices::decide(tx, &device, decision, continues)?;
        for id in &retired {
            compliance::end(tx, *id)?;
            certificates::revoke_all(tx, *id, "the device was retired")?;
        }
        Ok(retired.into_iter().chain([device.id]).collect::<Vec<_>>())
    })
    .await?;
    app.revocations.forget();
    changed.into_iter().for_each(|id| app.registry.forget(id));
    app.memory.settle().await;
    Ok(())
}

/// Ends a device's time in the tenant: no command reaches it, no certificate of it is accepted.
pub async fn retire(app: &App, permit: &Permit<DeviceWrite>, device: String) -> Result<(), Problem> {
    let retired = audit::commit(app, permit.author(), move |tx| {
        let tenant = tx.tenant();
        let device = devices::resolve(tx, tenant, &device)?;
        commands::note_retirement(tx)?;
        devices::retire(tx, &device)?;
        compliance::end(tx, device.id)?;
        certificates::revoke_all(tx, device.id, "the device was retired")?;
        Ok(device.id)
    })
    .await;
    let id = commands::alarmed(app, permit.author(), retired).await?;
    app.revocations.forget();
    app.registry.forget(id);
    app.memory.settle().await;
    Ok(())
}

/// Revokes every certificate of a device: once this returns no node accepts its next message, and it must enroll again.
pub async fn revoke_certificates(
    app: &App,
    permit: &Permit<DeviceWrite>,
    device: String,
) -> Result<(), Problem> {
    let id = audit::commit(app, permit.author(), move |tx| {
        let tenant = tx.tenant();
        let device = devices::resolve(tx, tenant, &device)?;
        certificates::revoke_all(tx, device.id, "revoked by an administrator")?;
        Ok(device.id)
    })
    .await?;
    app.revocations.forget();
    app.registry.forget(id);
    app.memory.settle().await;
    Ok(())
}

/// Revokes one certificate of a device: relying parties refuse it, and so does the next message under it.
pub async fn revoke_certificate(
    app: &App,
    permit: &Permit<DeviceWrite>,
    device: String,
    serial: String,
    reason: RevocationReason,
) -> Result<(), Problem> {
    let id = audit::commit(app, permit.author(), move |tx| {
        let tenant = tx.tenant();
        let device = devices::resolve(tx, tenant, &device)?;
        certificates::revoke(tx, device.id, &serial, reason)?;
        Ok(device.id)
    })
    .await?;
    app.revocations.forget();
    app.registry.forget(id);
    app.memory.settle().await;
    Ok(())
}
