//! Devices: identity, hardware claims and their collisions, facts, and what this node knows of who is here.

mod admission;
mod api;
pub mod changes;
mod filter;
mod labels;
mod quarantine;
mod registry;
mod rules;
mod store;
mod targets;
#[cfg(test)]
mod tests;
mod traits;
mod trust;

use muster_model::{
    AttestationLevel, ComplianceState, DeviceId, Ownership, Platform, TenantId, Timestamp, facts::Facts,
};
use muster_storage::{Scope, Statement, Tx};
use muster_trust::key::sha256;
use uuid::Uuid;

use crate::{
    App,
    access::problem::{DEVICE_BLOCKED, ILLEGAL_STATE, INVALID, NOT_FOUND, Problem},
    audit::{self, LoggedTx},
};
pub use admission::{
    Admitted, Applicant, Population, Protocol, admit, consider, live, population,
    refuse_tpm_of_another_tenant, rekey,
};
pub use api::{DeviceView, router};
pub use changes::CHANGE_STATEMENTS;
pub use filter::{DeviceFilter, terms};
pub use labels::{
    DEPARTMENT, ImportMode, ImportOutcome, LABEL_ROWS_MAX, LABEL_STATEMENTS, LABEL_TABLE_BYTES_MAX,
    LabelChange, OWNER_GROUPS, change_labels, import as import_labels, labeled, labels, labels_of,
    put_labels,
};
pub use quarantine::{QuarantineDecision, decide, rivals};
pub use registry::{Connected, Identity, Registry, Seat};
pub use rules::{Admission, leaves_as_it_is};
pub use store::Claim;
pub use targets::*;
pub use traits::{Held, Traits, stratum};
pub use trust::{FOLLOWED_WITHIN, MemoryTrust};

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
    pub attestation_level: AttestationLevel,
    /// What the proof of the hardware said, as a JSON object.
    pub attestation: String,
    pub ownership: Ownership,
    /// How the device enrolled.
    pub protocol: Protocol,
    /// The device that an operator said this one lives on as.
    pub merged_into: Option<DeviceId>,
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

/// The device with this id, if it is active.
pub fn active(tx: &mut Tx, tenant: TenantId, id: DeviceId) -> Result<Option<Device>, Problem> {
    let found = store::by_id(tx, tenant, id)?;
    Ok(found.filter(|device| device.state == DeviceState::Active))
}

/// Ids and epochs of the active devices that a filter matches, in the order of the ids, at most `limit`.
pub fn list_epochs(
    tx: &mut Tx,
    tenant: TenantId,
    filter: &DeviceFilter,
    limit: usize,
) -> Result<Vec<(DeviceId, u32)>, Problem> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(store::list_epochs(tx, tenant, filter, limit)?)
}

/// The enrollment epoch of a device, if it is active.
pub fn epoch_of_active(tx: &mut Tx, tenant: TenantId, id: DeviceId) -> Result<Option<u32>, Problem> {
    Ok(store::epoch_of_active(tx, tenant, id)?)
}

/// How many devices are active.
pub fn active_count(tx: &mut Tx, tenant: TenantId) -> Result<u64, Problem> {
    let active = DeviceFilter::active();
    Ok(u64::try_from(store::count(tx, tenant, &active)?).unwrap_or_default())
}

/// The devices of the owner with this [`muster_scim::name_key`], at most `limit`; retired ones too.
pub fn of_owner(
    tx: &mut Tx,
    tenant: TenantId,
    owner_key: &str,
    limit: usize,
) -> Result<Vec<Device>, Problem> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(store::of_owner(tx, tenant, owner_key, limit)?)
}

/// The device that holds a hardware name: of `kind` `uuid` (with hyphens, lower case), `serial` or `imei`.
pub fn claimed(
    tx: &mut Tx,
    tenant: TenantId,
    kind: &'static str,
    value: &str,
) -> Result<Option<DeviceId>, Problem> {
    let claim = Claim {
        kind,
        value: value.to_owned(),
    };
    Ok(store::holder(tx, tenant, &claim)?)
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

/// A device's newest facts, if they can be read: one that cannot be must not hold up what works through many.
pub fn readable_facts(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Option<Facts>, Problem> {
    let found = store::facts(tx, tenant, device)?;
    Ok(found.and_then(|(text, _)| serde_json::from_str(&text).ok()))
}

/// The facts of every device after `after` up to `until`. What cannot be read is absent.
pub fn facts_between(
    tx: &mut Tx,
    tenant: TenantId,
    after: DeviceId,
    until: DeviceId,
) -> Result<std::collections::HashMap<DeviceId, Facts>, Problem> {
    let rows = store::facts_between(tx, tenant, after, until)?;
    let facts = rows
        .into_iter()
        .filter_map(|(device, text)| Some((device, serde_json::from_str(&text).ok()?)));
    Ok(facts.collect())
}

/// The facts of devices, in the order of `devices`' ids, as the JSON text that is stored, with when they came. Reading them one by
/// one is for few devices; many of one page are read at once.
pub fn dated_facts(
    tx: &mut Tx,
    tenant: TenantId,
    devices: &[DeviceId],
) -> Result<std::collections::HashMap<DeviceId, (String, Timestamp)>, Problem> {
    const ONE_BY_ONE_MAX: usize = 16;
    let mut found = std::collections::HashMap::with_capacity(devices.len());
    let (Some(first), Some(last)) = (devices.iter().min(), devices.iter().max()) else {
        return Ok(found);
    };
    if devices.len() <= ONE_BY_ONE_MAX {
        for device in devices {
            if let Some(facts) = store::facts(tx, tenant, *device)? {
                found.insert(*device, facts);
            }
        }
        return Ok(found);
    }
    for (device, text, at) in store::dated_facts_between(tx, tenant, *first, *last)? {
        found.insert(device, (text, at));
    }
    Ok(found)
}

/// Whether a device ever sent facts.
pub fn has_facts(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<bool, Problem> {
    Ok(store::has_facts(tx, tenant, device)?)
}

/// The hardware claims of a device as (kind, value).
pub fn claims(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Vec<(String, String)>, Problem> {
    Ok(store::claims(tx, tenant, device)?)
}

/// Everything that a device says of its hardware, as (kind, value), whoever holds it.
pub fn said(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Vec<(String, String)>, Problem> {
    let mut said = store::claims(tx, tenant, device)?;
    for (kind, value, _) in store::said_claims(tx, tenant, device)? {
        said.push((kind, value));
    }
    said.sort();
    said.dedup();
    Ok(said)
}

/// Ends a device's time in the tenant. Its certificates are for the caller to revoke.
pub fn retire(tx: &mut LoggedTx<'_>, device: &Device) -> Result<(), Problem> {
    if device.state == DeviceState::Retired {
        return Err(ILLEGAL_STATE.detail("The device is retired already."));
    }
    let tenant = tx.tenant();
    let has_names = has_its_names_alone(tx, tenant, device)?;
    store::set_state(tx, tenant, device.id, DeviceState::Retired, None)?;
    admission::release(tx, tenant, device.id)?;
    tx.record(
        "device.retired",
        ("device", device.id.to_string()),
        serde_json::json!({"epoch": device.epoch, "has_names": has_names}),
    )?;
    Ok(())
}

/// Whether what a device says of its hardware is said by it alone. Of one in quarantine, or of one that an operator lets say what
/// another says too, the names may be those of somebody else's machine.
fn has_its_names_alone(tx: &mut Tx, tenant: TenantId, device: &Device) -> Result<bool, Problem> {
    let is_shared = store::said_claims(tx, tenant, device.id)?
        .iter()
        .any(|(_, _, is_shared)| *is_shared);
    Ok(device.state == DeviceState::Active && !is_shared && rivals(tx, tenant, device)?.is_empty())
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
