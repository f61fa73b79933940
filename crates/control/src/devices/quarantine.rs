//! Collisions of hardware claims, and what an operator decides about them.

use muster_model::{DeviceId, TenantId};
use muster_storage::Tx;

use super::{
    Device, DeviceState,
    admission::{TPM_CLAIM, hold, said_claims},
    store,
};
use crate::{
    access::problem::{IDENTITY_CONFLICT, ILLEGAL_STATE, Problem},
    audit::LoggedTx,
};

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
