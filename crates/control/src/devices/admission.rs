//! Who an enrolling device is: what it says and proves, what that makes of it, and the claims that it takes.

use muster_model::{AttestationLevel, ComplianceState, DeviceId, Ownership, Platform, TenantId, Timestamp};
use muster_storage::{Scope, StorageError, Tx};
use muster_trust::key::sha256;
use uuid::Uuid;

use super::{
    Device, DeviceState,
    rules::{self, Admission},
    said,
    store::{self, Claim},
};
use crate::{
    App,
    access::problem::{CSR_INVALID, IDENTITY_CONFLICT, KEY_REUSED, Problem, UNAVAILABLE},
    audit::LoggedTx,
};

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
pub(super) const TPM_CLAIM: &str = "tpm_ek";

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

/// Two enrollments with one key at the same moment: the later one finds the device when it is repeated.
fn taken_at_once(error: StorageError) -> Problem {
    match error {
        StorageError::Unique { .. } => UNAVAILABLE
            .detail("The same key enrolled just now. Nothing was changed; repeat the call.")
            .retry_after(1),
        other => other.into(),
    }
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

/// Devices of a tenant that are not retired.
pub fn live(tx: &mut Tx, tenant: TenantId) -> Result<i64, Problem> {
    Ok(store::live(tx, tenant)?)
}

/// Decides about an applicant from what is stored, without changing anything.
pub fn consider(tx: &mut Tx, tenant: TenantId, applicant: &Applicant) -> Result<Admission, Problem> {
    let same_key = store::by_key(tx, tenant, sha256(&applicant.spki).as_bytes())?;
    let by_tpm = by_tpm(tx, tenant, applicant)?;
    let own = same_key.as_ref().map(|own| own.id).or(by_tpm);
    let shared = match own {
        None => Vec::new(),
        Some(own) => shared_claims(tx, tenant, own)?,
    };
    let mut held = Vec::new();
    for claim in applicant.claims() {
        if shared.contains(&claim) {
            continue;
        }
        let holder = match store::holder(tx, tenant, &claim)? {
            None if claim.kind == TPM_CLAIM => by_tpm,
            holder => holder,
        };
        if let Some(holder) = holder
            && let Some(device) = store::by_id(tx, tenant, holder)?
        {
            let claims = said(tx, tenant, holder)?;
            held.push(rules::Holding {
                claim,
                device,
                claims,
            });
        }
    }
    Ok(rules::admit(applicant, same_key, held))
}

/// The device whose TPM the applicant proved, in quarantine or not.
fn by_tpm(tx: &mut Tx, tenant: TenantId, applicant: &Applicant) -> Result<Option<DeviceId>, Problem> {
    let Some(ek) = applicant.tpm_ek_sha256 else {
        return Ok(None);
    };
    let claim = Claim {
        kind: TPM_CLAIM,
        value: hex::encode(ek),
    };
    Ok(match store::holder(tx, tenant, &claim)? {
        None => store::waiting_with_tpm(tx, tenant, &claim.value)?,
        holder => holder,
    })
}

/// The claims that an operator lets a device make beside another.
fn shared_claims(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Vec<Claim>, Problem> {
    let said = store::said_claims(tx, tenant, device)?;
    Ok(said
        .into_iter()
        .filter(|(_, _, shared)| *shared)
        .filter_map(|(kind, value, _)| claim_of(&kind, value))
        .collect())
}

fn claim_of(kind: &str, value: String) -> Option<Claim> {
    let kind = CLAIM_KINDS.into_iter().find(|known| *known == kind)?;
    Some(Claim { kind, value })
}

/// Lets a device go of its hardware identifiers. Whom an operator let make the same claim holds it from now on, so that
/// nobody else can take it.
pub(super) fn release(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<(), Problem> {
    let held = store::claims(tx, tenant, device)?;
    store::release(tx, tenant, device)?;
    for claim in held
        .into_iter()
        .filter_map(|(kind, value)| claim_of(&kind, value))
    {
        if let Some(heir) = store::sharers(tx, tenant, &claim)?.first() {
            store::unshare_claim(tx, tenant, *heir, &claim)?;
            hold(tx, tenant, vec![claim], *heir)?;
        }
    }
    Ok(())
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
            // What the machine does not say any more it does not hold any more.
            release(tx, tenant, device)?;
            if state == DeviceState::Active {
                take_claims(tx, applicant, device)?;
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
            store::insert(tx, tenant, &fresh(id, applicant, state, quarantine.clone(), at))
                .map_err(taken_at_once)?;
            say_claims(tx, applicant, id)?;
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
    if !matches!(device.protocol, Protocol::Scep | Protocol::Est) {
        return Err(CSR_INVALID.detail("Only a device of SCEP or EST renews for another key."));
    }
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

/// What a device says of itself and shares with nobody by an operator's word.
pub(super) fn said_claims(tx: &mut Tx, tenant: TenantId, device: &Device) -> Result<Vec<Claim>, Problem> {
    let said = store::said_claims(tx, tenant, device.id)?;
    if said.is_empty() {
        // It went into quarantine before claims were kept.
        let uuid = ("uuid", Some(device.device_uuid.as_hyphenated().to_string()));
        let known = [uuid, ("serial", device.serial.clone())];
        return Ok(known
            .into_iter()
            .filter_map(|(kind, value)| claim_of(kind, value?))
            .collect());
    }
    Ok(said
        .into_iter()
        .filter(|(_, _, shared)| !shared)
        .filter_map(|(kind, value, _)| claim_of(&kind, value))
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
pub(super) fn hold(
    tx: &mut Tx,
    tenant: TenantId,
    claims: Vec<Claim>,
    device: DeviceId,
) -> Result<(), Problem> {
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

pub(super) fn fresh(
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
