//! Collisions of hardware claims, and what an operator decides about them.

use muster_model::{DeviceId, TenantId};
use muster_storage::Tx;

use super::{
    Device, DeviceState,
    admission::{TPM_CLAIM, hold, release, said_claims},
    labels, store,
};
use crate::{
    access::problem::{IDENTITY_CONFLICT, ILLEGAL_STATE, INVALID, Problem},
    audit::LoggedTx,
};

/// Devices that make a claim which this device makes too, and were let in with it: the other side of a quarantine. Those that
/// hold it come before those that an operator let share it.
pub fn rivals(tx: &mut Tx, tenant: TenantId, device: &Device) -> Result<Vec<Device>, Problem> {
    let claims = said_claims(tx, tenant, device)?;
    let mut ids: Vec<DeviceId> = Vec::new();
    for claim in &claims {
        ids.extend(store::holder(tx, tenant, claim)?);
    }
    for claim in &claims {
        ids.extend(store::sharers(tx, tenant, claim)?);
    }
    let mut rivals: Vec<Device> = Vec::new();
    for id in ids {
        if id != device.id && rivals.iter().all(|rival| rival.id != id) {
            rivals.extend(store::by_id(tx, tenant, id)?);
        }
    }
    Ok(rivals)
}

/// What an operator decides about a quarantined device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuarantineDecision {
    /// Both are one machine, which enrolled with a new key: the new device becomes active and takes the old one's name, and its
    /// owner unless its token named one. The old one is retired and says which device it lives on as.
    #[serde(alias = "accept")]
    Merge,
    /// They are two machines with the same hardware identifiers: both are active. The identifiers stay with the first.
    KeepBoth,
    /// The new device is retired.
    Reject,
}

/// Carries out a quarantine decision; answers the devices that were retired by it. `continues` says which device a merged one
/// is; where only one comes into question it may be left out.
pub fn decide(
    tx: &mut LoggedTx<'_>,
    device: &Device,
    decision: QuarantineDecision,
    continues: Option<DeviceId>,
) -> Result<Vec<DeviceId>, Problem> {
    let tenant = tx.tenant();
    if !store::awaits_decision(tx, tenant, device.id)? {
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
            if let Some(old) = continued(&rivals, continues)? {
                end(tx, old.id, device.id)?;
                store::merged_into(tx, tenant, old.id, device.id)?;
                store::inherit(tx, tenant, device.id, old.owner.as_deref(), &old.name)?;
                labels::inherit(tx, tenant, device.id, old.id)?;
                retired.push(old.id);
            }
            store::set_state(tx, tenant, device.id, DeviceState::Active, None)?;
            share_or_hold(tx, device)?;
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

/// The device that a merged one continues. Retiring the wrong one of several would take a working machine away.
fn continued(rivals: &[Device], continues: Option<DeviceId>) -> Result<Option<&Device>, Problem> {
    match (continues, rivals) {
        (Some(id), _) => rivals
            .iter()
            .find(|rival| rival.id == id)
            .map(Some)
            .ok_or_else(|| {
                INVALID.detail("The device that it is said to continue makes none of its hardware claims.")
            }),
        (None, []) => Ok(None),
        (None, [only]) => Ok(Some(only)),
        (None, several) => {
            let ids: Vec<String> = several.iter().map(|rival| rival.id.to_string()).collect();
            Err(INVALID.detail(format!(
                "Several devices make these hardware claims. Say which one it continues: {}.",
                ids.join(", ")
            )))
        }
    }
}

/// Retires `id` in favor of `because_of`.
fn end(tx: &mut LoggedTx<'_>, id: DeviceId, because_of: DeviceId) -> Result<(), Problem> {
    let tenant = tx.tenant();
    store::set_state(tx, tenant, id, DeviceState::Retired, None)?;
    release(tx, tenant, id)?;
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
