//! Devices: identity, hardware claims and their collisions, facts, and what this node knows of who is here.

mod api;
mod filter;
mod registry;
mod rules;
mod store;
mod targets;
#[cfg(test)]
mod tests;

use muster_model::{ComplianceState, DeviceId, Platform, TenantId, Timestamp, facts::Facts};
use muster_storage::{Scope, Statement, Tx};
use muster_trust::key::sha256;
use uuid::Uuid;

use crate::{
    App,
    access::problem::{CSR_INVALID, DEVICE_BLOCKED, ILLEGAL_STATE, KEY_REUSED, INVALID, NOT_FOUND, Problem, UNAVAILABLE},
    audit::{self, LoggedTx},
};
pub use api::{DeviceView, router};
pub use filter::DeviceFilter;
pub use registry::{Connected, Identity, Registry, Seat};
pub use rules::Admission;
pub use store::Claim;
pub use targets::*;

/// Every statement of this slice, for the test that prepares them all on both engines.
pub const STATEMENTS: &[Statement] = store::ALL;

/// A device as stored.
#[derive(Debug, Clone)]
pub struct Device {
    pub id: DeviceId,
    pub device_uuid: Uuid,
    pub serial: Option<String>,
    pub name: String,
    pub owner: Option<String>,
    pub platform: Platform,
    pub model: Option<String>,
    pub vendor: Option<String>,
    pub epoch: u32,
    pub state: DeviceState,
    pub quarantine_reason: Option<String>,
    pub attestation_level: String,
    /// The attested (or only claimed) public key, SPKI in DER: the device's identity.
    pub spki: Vec<u8>,
    pub compliance: ComplianceState,
    pub compliance_at: Option<Timestamp>,
    pub agent_version: Option<String>,
    pub enrolled_at: Timestamp,
    pub last_seen_at: Timestamp,
}

/// Where a device stands with its tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    Active,
    Quarantined,
    Retired,
}

impl DeviceState {
    pub const ALL: [DeviceState; 3] = [
        DeviceState::Active,
        DeviceState::Quarantined,
        DeviceState::Retired,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            DeviceState::Active => "active",
            DeviceState::Quarantined => "quarantined",
            DeviceState::Retired => "retired",
        }
    }

    /// A word that the database holds; an unknown one is the state with the fewest rights.
    fn parse(text: &str) -> DeviceState {
        DeviceState::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .unwrap_or(DeviceState::Retired)
    }
}

/// What an enrolling device says of itself, parsed.
#[derive(Debug, Clone)]
pub struct Applicant {
    pub device_uuid: Uuid,
    pub serial: Option<String>,
    pub imei: Vec<String>,
    pub owner: Option<String>,
    pub platform: Platform,
    pub model: Option<String>,
    pub vendor: Option<String>,
    pub agent_version: Option<String>,
    pub spki: Vec<u8>,
}

impl Applicant {
    /// The hardware identifiers that must be unique among active devices.
    pub fn claims(&self) -> Vec<Claim> {
        let uuid = Claim {
            kind: "uuid",
            value: self.device_uuid.as_hyphenated().to_string(),
        };
        let serial = self.serial.iter().map(|serial| Claim {
            kind: "serial",
            value: serial.clone(),
        });
        let imei = self.imei.iter().map(|imei| Claim {
            kind: "imei",
            value: imei.clone(),
        });
        std::iter::once(uuid).chain(serial).chain(imei).collect()
    }
}

/// A device as it came out of an enrollment.
#[derive(Debug, Clone)]
pub struct Admitted {
    pub id: DeviceId,
    pub epoch: u32,
    pub state: DeviceState,
}

/// Decides about an applicant from what is stored, without changing anything.
pub fn consider(tx: &mut Tx, tenant: TenantId, applicant: &Applicant) -> Result<Admission, Problem> {
    let same_key = store::by_key(tx, tenant, sha256(&applicant.spki).as_bytes())?;
    let mut held = Vec::new();
    for claim in applicant.claims() {
        if let Some(holder) = store::holder(tx, tenant, &claim)? {
            let claims = store::claims(tx, tenant, holder)?;
            if let Some(device) = store::by_id(tx, tenant, holder)? {
                held.push(rules::Holding {
                    claim,
                    device,
                    claims,
                });
            }
        }
    }
    Ok(rules::admit(applicant, same_key, held))
}

/// Carries out an admission inside the enrollment's transaction. Nothing stored is overwritten by a collision.
pub fn admit(
    tx: &mut LoggedTx<'_>,
    applicant: &Applicant,
    admission: Admission,
) -> Result<Admitted, Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    match admission {
        Admission::Refuse(problem) => Err(problem),
        Admission::Again { device, state } => {
            let epoch = store::next_epoch(tx, tenant, device, state, applicant.owner.as_deref(), at)?;
            if state == DeviceState::Active {
                take_claims(tx, applicant, device)?;
            }
            record_enrolled(tx, applicant, device, epoch, state, None)?;
            Ok(Admitted {
                id: device,
                epoch,
                state,
            })
        }
        Admission::New { quarantine } => {
            let id = DeviceId::generate(at, crate::clock::random());
            let state = if quarantine.is_some() {
                DeviceState::Quarantined
            } else {
                DeviceState::Active
            };
            store::insert(tx, tenant, &fresh(id, applicant, state, quarantine.clone(), at))?;
            if state == DeviceState::Active {
                take_claims(tx, applicant, id)?;
            }
            record_enrolled(tx, applicant, id, 1, state, quarantine)?;
            Ok(Admitted { id, epoch: 1, state })
        }
    }
}

/// Gives a device another key (SPKI, DER), whose possession the caller has seen proven beside that of the old one.
///
/// Nothing attests the new key, so a device whose key was attested keeps that one.
pub fn rekey(tx: &mut LoggedTx<'_>, device: &Device, spki: &[u8]) -> Result<(), Problem> {
    let tenant = tx.tenant();
    if device.attestation_level.is_attested() {
        return Err(CSR_INVALID.detail("The device's key was attested. It renews for that key alone."));
    }
    if store::by_key(tx, tenant, sha256(spki).as_bytes())?.is_some() {
        return Err(KEY_REUSED.detail("Another device has this key. Make a new one."));
    }
    store::rekey(tx, tenant, device.id, spki)?;
    tx.record(
        "device.rekeyed",
        ("device", device.id.to_string()),
        serde_json::json!({
            "epoch": device.epoch,
            "key_sha256": sha256(spki).to_string(),
            "old_key_sha256": sha256(&device.spki).to_string(),
        }),
    )?;
    Ok(())
}

/// The device that an id, a unique name or a hardware UUID names.
pub fn resolve(tx: &mut Tx, tenant: TenantId, text: &str) -> Result<Device, Problem> {
    let missing = || NOT_FOUND.detail("There is no such device.");
    if let Ok(id) = text.parse::<DeviceId>() {
        return store::by_id(tx, tenant, id)?.ok_or_else(missing);
    }
    let mut found = match Uuid::parse_str(text) {
        Ok(device_uuid) => store::by_uuid(tx, tenant, device_uuid)?,
        Err(_) => store::by_name(tx, tenant, text)?,
    };
    match found.len() {
        0 => Err(missing()),
        1 => Ok(found.remove(0)),
        _ => Err(INVALID.detail("More than one device has this name. Use the id, dev_….")),
    }
}

/// The device with this id.
pub fn get(tx: &mut Tx, tenant: TenantId, id: DeviceId) -> Result<Device, Problem> {
    store::by_id(tx, tenant, id)?.ok_or_else(|| NOT_FOUND.detail("There is no such device."))
}

/// A page of devices after `after`, at most `limit`.
pub fn list(
    tx: &mut Tx,
    tenant: TenantId,
    filter: &DeviceFilter,
    after: Option<DeviceId>,
    limit: usize,
) -> Result<Vec<Device>, Problem> {
    let after = after.unwrap_or(DeviceId::from_uuid(Uuid::nil()));
    Ok(store::list(
        tx,
        tenant,
        filter,
        after,
        i64::try_from(limit).unwrap_or(i64::MAX),
    )?)
}

/// How many devices a filter matches.
pub fn count(tx: &mut Tx, tenant: TenantId, filter: &DeviceFilter) -> Result<i64, Problem> {
    Ok(store::count(tx, tenant, filter)?)
}

/// How many devices there are by platform, state and compliance.
#[derive(Debug, Clone, Default, serde::Serialize, utoipa::ToSchema)]
pub struct Summary {
    pub total: i64,
    pub by_state: std::collections::BTreeMap<String, i64>,
    /// Active devices only.
    pub by_compliance: std::collections::BTreeMap<String, i64>,
    /// Active devices only.
    pub by_platform: std::collections::BTreeMap<String, i64>,
}

/// Counts the tenant's devices.
pub fn summary(tx: &mut Tx, tenant: TenantId) -> Result<Summary, Problem> {
    let mut summary = Summary::default();
    for (platform, state, compliance, devices) in store::summary(tx, tenant)? {
        summary.total += devices;
        if state == DeviceState::Active.as_str() {
            *summary.by_compliance.entry(compliance).or_default() += devices;
            *summary.by_platform.entry(platform).or_default() += devices;
        }
        *summary.by_state.entry(state).or_default() += devices;
    }
    Ok(summary)
}

/// Stores a device's verdict.
pub fn set_compliance(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    state: ComplianceState,
    at: Timestamp,
) -> Result<(), Problem> {
    store::set_compliance(tx, tenant, device, state, at)?;
    Ok(())
}

/// Stores a device's facts and what they say of its model and name.
pub fn put_facts(
    tx: &mut Tx,
    device: &Device,
    tenant: TenantId,
    facts: &Facts,
    at: Timestamp,
) -> Result<(), Problem> {
    let text = serde_json::to_string(facts).map_err(Problem::internal)?;
    store::put_facts(
        tx,
        tenant,
        device.id,
        &text,
        sha256(text.as_bytes()).as_bytes(),
        at,
    )?;
    let hardware = &facts.hardware;
    store::learn(
        tx,
        tenant,
        device.id,
        hardware.model.as_deref(),
        hardware.vendor.as_deref(),
        facts.agent_version.as_deref(),
        "",
    )?;
    Ok(())
}

/// A device's newest facts and when they came.
pub fn facts(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Option<(Facts, Timestamp)>, Problem> {
    let Some((text, at)) = store::facts(tx, tenant, device)? else {
        return Ok(None);
    };
    let facts = serde_json::from_str(&text).map_err(Problem::internal)?;
    Ok(Some((facts, at)))
}

/// Whether a device ever sent facts.
pub fn has_facts(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<bool, Problem> {
    Ok(store::has_facts(tx, tenant, device)?)
}

/// The hardware claims of a device as (kind, value).
pub fn claims(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Vec<(String, String)>, Problem> {
    Ok(store::claims(tx, tenant, device)?)
}

/// Devices that hold a claim which this device makes too: the other side of a quarantine.
pub fn rivals(tx: &mut Tx, tenant: TenantId, device: &Device) -> Result<Vec<Device>, Problem> {
    let mut rivals: Vec<Device> = Vec::new();
    for claim in own_claims(device) {
        if let Some(holder) = store::holder(tx, tenant, &claim)?.filter(|holder| *holder != device.id)
            && rivals.iter().all(|rival| rival.id != holder)
        {
            rivals.extend(store::by_id(tx, tenant, holder)?);
        }
    }
    Ok(rivals)
}

/// What an operator decides about a quarantined device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuarantineDecision {
    /// The new device is the true one: it becomes active, and those that hold its claims are retired.
    Accept,
    /// The new device is retired.
    Reject,
}

/// Carries out a quarantine decision; answers the devices that were retired by it.
pub fn decide(
    tx: &mut LoggedTx<'_>,
    device: &Device,
    decision: QuarantineDecision,
) -> Result<Vec<DeviceId>, Problem> {
    let tenant = tx.tenant();
    if device.state != DeviceState::Quarantined {
        return Err(ILLEGAL_STATE.detail("The device is not in quarantine."));
    }
    let retired = match decision {
        QuarantineDecision::Reject => vec![device.id],
        QuarantineDecision::Accept => rivals(tx, tenant, device)?
            .into_iter()
            .map(|rival| rival.id)
            .collect(),
    };
    for id in &retired {
        store::set_state(tx, tenant, *id, DeviceState::Retired, None)?;
        store::release(tx, tenant, *id)?;
        tx.record(
            "device.retired",
            ("device", id.to_string()),
            serde_json::json!({"because_of": device.id.to_string()}),
        )?;
    }
    if decision == QuarantineDecision::Accept {
        store::set_state(tx, tenant, device.id, DeviceState::Active, None)?;
        hold(tx, tenant, own_claims(device), device.id)?;
    }
    tx.record(
        "device.quarantine_decided",
        ("device", device.id.to_string()),
        serde_json::json!({"decision": decision}),
    )?;
    Ok(retired)
}

/// Ends a device's time in the tenant. Its certificates are for the caller to revoke.
pub fn retire(tx: &mut LoggedTx<'_>, device: &Device) -> Result<(), Problem> {
    if device.state == DeviceState::Retired {
        return Err(ILLEGAL_STATE.detail("The device is retired already."));
    }
    let tenant = tx.tenant();
    store::set_state(tx, tenant, device.id, DeviceState::Retired, None)?;
    store::release(tx, tenant, device.id)?;
    tx.record(
        "device.retired",
        ("device", device.id.to_string()),
        serde_json::json!({"epoch": device.epoch}),
    )?;
    Ok(())
}

/// Refuses devices that are not active.
pub fn require_active(device: &Device) -> Result<(), Problem> {
    match device.state {
        DeviceState::Active => Ok(()),
        DeviceState::Quarantined => {
            Err(DEVICE_BLOCKED.detail("The device is in quarantine. Decide about it first."))
        }
        DeviceState::Retired => Err(DEVICE_BLOCKED.detail("The device is retired. Enroll it again first.")),
    }
}

/// What breaks "a hardware identifier belongs to one active device", for the doctor.
pub fn broken_claims(tx: &mut Tx, tenant: TenantId) -> Result<Vec<String>, Problem> {
    let held = store::held_by_inactive(tx, tenant)?;
    Ok(held
        .into_iter()
        .map(|(kind, value, device)| format!("{kind} {value} is held by {device}, which is not active"))
        .collect())
}

/// Stores the last-seen times that have gathered. A reconciler's step.
pub async fn store_seen(app: &App) -> Result<usize, Problem> {
    const BATCH: usize = 500;
    let seen = app.registry.take_seen();
    let count = seen.len();
    for batch in seen.chunks(BATCH) {
        let batch = batch.to_vec();
        audit::housekeeping(app, Scope::System, move |tx| {
            for (tenant, device, at) in &batch {
                store::seen(tx, *tenant, *device, *at)?;
            }
            Ok(())
        })
        .await?;
    }
    Ok(count)
}

fn own_claims(device: &Device) -> Vec<Claim> {
    let uuid = Claim {
        kind: "uuid",
        value: device.device_uuid.as_hyphenated().to_string(),
    };
    let serial = device.serial.iter().map(|serial| Claim {
        kind: "serial",
        value: serial.clone(),
    });
    std::iter::once(uuid).chain(serial).collect()
}

fn take_claims(tx: &mut LoggedTx<'_>, applicant: &Applicant, device: DeviceId) -> Result<(), Problem> {
    let tenant = tx.tenant();
    hold(tx, tenant, applicant.claims(), device)
}

/// Takes claims for a device that becomes active. Two transactions may both have found a claim free, so the row decides: the
/// later one is undone and finds the holder when it is repeated.
fn hold(tx: &mut Tx, tenant: TenantId, claims: Vec<Claim>, device: DeviceId) -> Result<(), Problem> {
    for claim in claims {
        if !store::claim(tx, tenant, &claim, device)? {
            return Err(UNAVAILABLE
                .detail("Another device took the same hardware identifier just now. Nothing was changed; repeat the call.")
                .retry_after(1));
        }
    }
    Ok(())
}

fn record_enrolled(
    tx: &mut LoggedTx<'_>,
    applicant: &Applicant,
    device: DeviceId,
    epoch: u32,
    state: DeviceState,
    reason: Option<String>,
) -> Result<(), Problem> {
    tx.record(
        if state == DeviceState::Quarantined {
            "device.quarantined"
        } else {
            "device.enrolled"
        },
        ("device", device.to_string()),
        serde_json::json!({
            "device_uuid": applicant.device_uuid,
            "serial": applicant.serial,
            "platform": applicant.platform,
            "epoch": epoch,
            "key_sha256": sha256(&applicant.spki).to_string(),
            "reason": reason,
        }),
    )?;
    Ok(())
}

fn fresh(
    id: DeviceId,
    applicant: &Applicant,
    state: DeviceState,
    reason: Option<String>,
    at: Timestamp,
) -> Device {
    let short = applicant.device_uuid.as_simple().to_string();
    let label = applicant.serial.clone().unwrap_or_else(|| short[..8].to_owned());
    let model = applicant
        .model
        .clone()
        .unwrap_or_else(|| applicant.platform.as_str().to_owned());
    Device {
        id,
        device_uuid: applicant.device_uuid,
        serial: applicant.serial.clone(),
        name: format!("{model} {label}"),
        owner: applicant.owner.clone(),
        platform: applicant.platform,
        model: applicant.model.clone(),
        vendor: applicant.vendor.clone(),
        epoch: 1,
        state,
        quarantine_reason: reason,
        attestation_level: "none".to_owned(),
        spki: applicant.spki.clone(),
        compliance: ComplianceState::Pending,
        compliance_at: None,
        agent_version: applicant.agent_version.clone(),
        enrolled_at: at,
        last_seen_at: at,
    }
}
