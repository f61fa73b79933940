//! Devices: identity, hardware claims and their collisions, facts, and what this node knows of who is here.

mod api;
mod filter;
mod registry;
mod rules;
mod store;
mod targets;
#[cfg(test)]
mod tests;
mod trust;

use muster_model::{
    AttestationLevel, ComplianceState, DeviceId, Ownership, Platform, TenantId, Timestamp, facts::Facts,
};
use muster_storage::{Scope, Statement, StorageError, Tx};
use muster_trust::key::sha256;
use uuid::Uuid;

use crate::{
    App,
    access::problem::{
        DEVICE_BLOCKED, IDENTITY_CONFLICT, ILLEGAL_STATE, INVALID, NOT_FOUND, Problem, UNAVAILABLE,
    },
    audit::{self, LoggedTx},
};
pub use api::{DeviceView, router};
pub use filter::DeviceFilter;
pub use registry::{Connected, Identity, Registry, Seat};
pub use rules::Admission;
pub use store::Claim;
pub use targets::*;
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

/// How a device enrolls.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// The agent protocol, with a signed token.
    #[default]
    Agent,
    /// ACME with `device-attest-01`.
    Acme,
    /// SCEP (RFC 8894).
    Scep,
    /// EST (RFC 7030).
    Est,
}

impl Protocol {
    pub const ALL: [Protocol; 4] = [Protocol::Agent, Protocol::Acme, Protocol::Scep, Protocol::Est];

    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Agent => "agent",
            Protocol::Acme => "acme",
            Protocol::Scep => "scep",
            Protocol::Est => "est",
        }
    }

    /// The protocol that a word names.
    pub fn parse(word: &str) -> Option<Protocol> {
        Protocol::ALL
            .into_iter()
            .find(|protocol| protocol.as_str() == word)
    }
}

/// What an enrolling device says of itself, parsed, and what its hardware proved.
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
    pub protocol: Protocol,
    pub ownership: Ownership,
    pub level: AttestationLevel,
    /// What the proof of the hardware said, as a JSON object.
    pub attestation: String,
    /// SHA-256 of the TPM's endorsement key (SPKI): the hardware that outlives every key made in it.
    pub tpm_ek_sha256: Option<[u8; 32]>,
}

impl Applicant {
    /// A company's device that says nothing of itself and proves nothing but its key.
    pub fn unattested(device_uuid: Uuid, platform: Platform, spki: Vec<u8>) -> Applicant {
        Applicant {
            device_uuid,
            serial: None,
            imei: Vec::new(),
            owner: None,
            platform,
            model: None,
            vendor: None,
            agent_version: None,
            spki,
            protocol: Protocol::Agent,
            ownership: Ownership::Company,
            level: AttestationLevel::Unattested,
            attestation: "{}".to_owned(),
            tpm_ek_sha256: None,
        }
    }

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
        let tpm = self.tpm_ek_sha256.iter().map(|ek| Claim {
            kind: TPM_CLAIM,
            value: hex::encode(ek),
        });
        std::iter::once(uuid)
            .chain(serial)
            .chain(imei)
            .chain(tpm)
            .collect()
    }
}

/// The kind of claim that is proven: a TPM's endorsement key.
const TPM_CLAIM: &str = "tpm_ek";

/// A device as it came out of an enrollment.
#[derive(Debug, Clone)]
pub struct Admitted {
    pub id: DeviceId,
    pub epoch: u32,
    pub state: DeviceState,
}

/// Refuses a TPM that belongs to a device of another tenant. It runs outside of the tenant's own view of the tables.
pub async fn refuse_tpm_of_another_tenant(
    app: &App,
    tenant: TenantId,
    ek_sha256: [u8; 32],
) -> Result<(), Problem> {
    let elsewhere = app
        .db
        .read(Scope::System, move |tx| {
            Ok::<_, Problem>(store::tpm_elsewhere(tx, tenant, &hex::encode(ek_sha256))?)
        })
        .await?;
    if elsewhere { Err(tpm_elsewhere()) } else { Ok(()) }
}

fn tpm_elsewhere() -> Problem {
    IDENTITY_CONFLICT
        .detail("This TPM belongs to a device that is enrolled elsewhere. It must be retired there first.")
}

/// How many devices count against a tenant's limits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Population {
    pub live: i64,
    /// Of the applicant's owner; 0 where it has none.
    pub of_owner: i64,
    /// Of the applicant's model; 0 where it names none.
    pub of_model: i64,
    pub enrolled_in_the_last_hour: i64,
}

/// Counts the devices that an applicant would join.
pub fn population(
    tx: &mut Tx,
    tenant: TenantId,
    applicant: &Applicant,
    now: Timestamp,
) -> Result<Population, Problem> {
    let hour_ago = now.minus(std::time::Duration::from_secs(3600));
    Ok(Population {
        live: store::live(tx, tenant)?,
        of_owner: match &applicant.owner {
            Some(owner) => store::owned(tx, tenant, owner)?,
            None => 0,
        },
        of_model: match &applicant.model {
            Some(model) => store::of_model(tx, tenant, model)?,
            None => 0,
        },
        enrolled_in_the_last_hour: store::enrolled_since(tx, tenant, hour_ago)?,
    })
}

/// Decides about an applicant from what is stored, without changing anything.
pub fn consider(tx: &mut Tx, tenant: TenantId, applicant: &Applicant) -> Result<Admission, Problem> {
    let same_key = store::by_key(tx, tenant, sha256(&applicant.spki).as_bytes())?;
    let shared: Vec<(String, String)> = match &same_key {
        None => Vec::new(),
        Some(own) => store::said_claims(tx, tenant, own.id)?
            .into_iter()
            .filter(|(_, _, shared)| *shared)
            .map(|(kind, value, _)| (kind, value))
            .collect(),
    };
    let mut held = Vec::new();
    for claim in applicant.claims() {
        if shared
            .iter()
            .any(|(kind, value)| kind == claim.kind && *value == claim.value)
        {
            continue;
        }
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
        Admission::Again { device, quarantine } => {
            let state = state_for(quarantine.as_ref());
            let epoch = store::next_epoch(tx, tenant, device, state, quarantine.as_deref(), applicant, at)?;
            store::forget_claims(tx, tenant, device)?;
            say_claims(tx, applicant, device)?;
            if state == DeviceState::Active {
                take_claims(tx, applicant, device)?;
            } else {
                store::release(tx, tenant, device)?;
            }
            record_enrolled(tx, applicant, device, epoch, state, quarantine)?;
            Ok(Admitted {
                id: device,
                epoch,
                state,
            })
        }
        Admission::New { quarantine } => {
            let id = DeviceId::generate(at, crate::clock::random());
            let state = state_for(quarantine.as_ref());
            store::insert(tx, tenant, &fresh(id, applicant, state, quarantine.clone(), at))?;
            say_claims(tx, applicant, id)?;
            if state == DeviceState::Active {
                take_claims(tx, applicant, id)?;
            }
            record_enrolled(tx, applicant, id, 1, state, quarantine)?;
            Ok(Admitted { id, epoch: 1, state })
        }
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
    for claim in said_claims(tx, tenant, device)? {
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
    /// Both are one machine, which enrolled with a new key: the new device becomes active and takes the old one's name and
    /// owner; those that held its claims are retired and say which device they live on as.
    #[serde(alias = "accept")]
    Merge,
    /// They are two machines with the same hardware identifiers: both are active. The identifiers stay with the first.
    KeepBoth,
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
    let rivals = rivals(tx, tenant, device)?;
    let mut retired = Vec::new();
    match decision {
        QuarantineDecision::Reject => {
            end(tx, device.id, device.id)?;
            retired.push(device.id);
        }
        QuarantineDecision::Merge => {
            for rival in &rivals {
                end(tx, rival.id, device.id)?;
                store::merged_into(tx, tenant, rival.id, device.id)?;
                retired.push(rival.id);
            }
            if let Some(heritage) = rivals.first() {
                store::inherit(tx, tenant, device.id, heritage.owner.as_deref(), &heritage.name)?;
            }
            store::set_state(tx, tenant, device.id, DeviceState::Active, None)?;
            let claims = said_claims(tx, tenant, device)?;
            hold(tx, tenant, claims, device.id)?;
        }
        QuarantineDecision::KeepBoth => {
            store::set_state(tx, tenant, device.id, DeviceState::Active, None)?;
            share_or_hold(tx, device)?;
        }
    }
    tx.record(
        "device.quarantine_decided",
        ("device", device.id.to_string()),
        serde_json::json!({
            "decision": decision,
            "other_devices": rivals.iter().map(|rival| rival.id.to_string()).collect::<Vec<_>>(),
        }),
    )?;
    Ok(retired)
}

/// Retires `id` in favor of `because_of`.
fn end(tx: &mut LoggedTx<'_>, id: DeviceId, because_of: DeviceId) -> Result<(), Problem> {
    let tenant = tx.tenant();
    store::set_state(tx, tenant, id, DeviceState::Retired, None)?;
    store::release(tx, tenant, id)?;
    tx.record(
        "device.retired",
        ("device", id.to_string()),
        serde_json::json!({"because_of": because_of.to_string()}),
    )?;
    Ok(())
}

/// Lets two devices say the same of themselves: claims that another holds are marked as shared, the others are taken. A TPM
/// is in one machine only.
fn share_or_hold(tx: &mut LoggedTx<'_>, device: &Device) -> Result<(), Problem> {
    let tenant = tx.tenant();
    for claim in said_claims(tx, tenant, device)? {
        let holder = store::holder(tx, tenant, &claim)?;
        if holder.is_none_or(|holder| holder == device.id) {
            hold(tx, tenant, vec![claim], device.id)?;
        } else if claim.kind == TPM_CLAIM {
            return Err(IDENTITY_CONFLICT.detail(
                "Both devices proved the same TPM, so they are one machine: merge them or reject the new one.",
            ));
        } else {
            store::share_claim(tx, tenant, device.id, &claim)?;
        }
    }
    Ok(())
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

/// What a device says of itself and shares with nobody by an operator's word.
fn said_claims(tx: &mut Tx, tenant: TenantId, device: &Device) -> Result<Vec<Claim>, Problem> {
    let said = store::said_claims(tx, tenant, device.id)?;
    Ok(said
        .into_iter()
        .filter(|(_, _, shared)| !shared)
        .filter_map(|(kind, value, _)| {
            let kind = CLAIM_KINDS.into_iter().find(|known| *known == kind)?;
            Some(Claim { kind, value })
        })
        .collect())
}

const CLAIM_KINDS: [&str; 4] = ["uuid", "serial", "imei", TPM_CLAIM];

fn say_claims(tx: &mut LoggedTx<'_>, applicant: &Applicant, device: DeviceId) -> Result<(), Problem> {
    let tenant = tx.tenant();
    for claim in applicant.claims() {
        store::say_claim(tx, tenant, device, &claim)?;
    }
    Ok(())
}

fn state_for(quarantine: Option<&String>) -> DeviceState {
    match quarantine {
        Some(_) => DeviceState::Quarantined,
        None => DeviceState::Active,
    }
}

fn take_claims(tx: &mut LoggedTx<'_>, applicant: &Applicant, device: DeviceId) -> Result<(), Problem> {
    let tenant = tx.tenant();
    let shared = store::said_claims(tx, tenant, device)?;
    let claims = applicant.claims().into_iter().filter(|claim| {
        !shared
            .iter()
            .any(|(kind, value, shared)| *shared && kind == claim.kind && *value == claim.value)
    });
    hold(tx, tenant, claims.collect(), device)
}

/// Takes claims for a device that becomes active. Two transactions may both have found a claim free, so the row decides: the
/// later one is undone and finds the holder when it is repeated.
fn hold(tx: &mut Tx, tenant: TenantId, claims: Vec<Claim>, device: DeviceId) -> Result<(), Problem> {
    for claim in claims {
        let taken = match store::claim(tx, tenant, &claim, device) {
            // The index over all tenants: another tenant's device has this TPM.
            Err(StorageError::Unique { .. }) if claim.kind == TPM_CLAIM => return Err(tpm_elsewhere()),
            taken => taken?,
        };
        if !taken {
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
            "attestation": applicant.level,
            "ownership": applicant.ownership,
            "protocol": applicant.protocol,
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
        attestation_level: applicant.level,
        attestation: applicant.attestation.clone(),
        ownership: applicant.ownership,
        protocol: applicant.protocol,
        merged_into: None,
        spki: applicant.spki.clone(),
        compliance: ComplianceState::Pending,
        compliance_at: None,
        agent_version: applicant.agent_version.clone(),
        enrolled_at: at,
        last_seen_at: at,
    }
}
