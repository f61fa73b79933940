//! Receipts: what a device says it did, signed with the key that is its identity.

use muster_model::{
    CommandState, DeviceId, TenantId,
    command::{self, CommandEvent},
};
use muster_storage::Tx;
use muster_trust::{
    dsse::Envelope,
    encoding::from_strict_json,
    key::PublicKey,
    statement::{self, ReceiptStatement, Statement as _},
};

use super::{Command, rules, store};
use crate::{
    access::problem::{DEVICE_BLOCKED, MALFORMED, Problem},
    audit::LoggedTx,
};

/// Stores a receipt of the device. One that fits no command of this device is recorded and changes nothing; a repeated
/// one changes nothing and is not recorded again. `refused` counts those that fit no command.
pub fn accept_receipt(
    tx: &mut LoggedTx<'_>,
    device: DeviceId,
    epoch: u32,
    key: &PublicKey,
    envelope: &Envelope,
    refused: &mut usize,
) -> Result<muster_model::CommandId, Problem> {
    let tenant = tx.tenant();
    let receipt: ReceiptStatement = statement::verify(envelope, &[key], 1)
        .map_err(|error| DEVICE_BLOCKED.detail(format!("A receipt was not signed by this device: {error}.")))?
        .statement;
    if receipt.tenant != tenant || receipt.device_id != device || receipt.epoch != epoch {
        return Err(DEVICE_BLOCKED.detail("A receipt names another device, tenant or enrollment."));
    }
    let command = store::by_id(tx, tenant, receipt.command_id)?
        .filter(|command| command.device == device && command.epoch == epoch);
    let Some(command) = command else {
        *refused += 1;
        refuse(tx, device, &receipt, "there is no such command of this device")?;
        return Ok(receipt.command_id);
    };
    if command.receipt.is_some() {
        return Ok(receipt.command_id);
    }
    let event = CommandEvent::Receipt(receipt.outcome);
    match command::next(command.state, event) {
        Ok(CommandState::Queued) => {
            let retry_at = tx.at().plus(rules::not_now_after(super::unit_random()));
            store::put_off(tx, tenant, command.id, retry_at)?;
            // It goes on: what it ends with is recorded.
            tx.excuse(1);
        }
        Ok(state) => complete(tx, tenant, &command, state, &receipt, envelope)?,
        Err(why) => {
            *refused += 1;
            refuse(tx, device, &receipt, &why.to_string())?;
        }
    }
    Ok(receipt.command_id)
}

/// What the device said of a command's end; nothing before it did. Its signature was checked when it came.
pub fn receipt(
    tx: &mut Tx,
    tenant: TenantId,
    id: muster_model::CommandId,
) -> Result<Option<ReceiptStatement>, Problem> {
    let envelope = store::receipt_envelope(tx, tenant, id)?;
    let envelope = envelope.and_then(|text| serde_json::from_str::<Envelope>(&text).ok());
    Ok(envelope.and_then(|envelope| from_strict_json(&envelope.payload, ReceiptStatement::MAX_BYTES).ok()))
}

fn complete(
    tx: &mut LoggedTx<'_>,
    tenant: TenantId,
    command: &Command,
    state: CommandState,
    receipt: &ReceiptStatement,
    envelope: &Envelope,
) -> Result<(), Problem> {
    let at = tx.at();
    let view = serde_json::json!({
        "outcome": receipt.outcome,
        "code": receipt.code,
        "detail": receipt.detail,
        "at": receipt.at,
        "output_bytes": receipt.output.as_ref().map(String::len),
        "output_sha256": receipt.output_sha256,
    });
    let envelope =
        serde_json::to_string(envelope).map_err(|_| MALFORMED.detail("The receipt is not readable."))?;
    if store::complete(tx, tenant, command, state, at, &view.to_string(), &envelope)? == 1 {
        tx.record(
            "command.completed",
            ("device", command.device.to_string()),
            serde_json::json!({
                "command_id": command.id,
                "type": command.kind,
                "state": state,
                "outcome": receipt.outcome,
                "code": receipt.code,
            }),
        )?;
        super::traces::completed(tx, command, receipt);
    }
    Ok(())
}

fn refuse(
    tx: &mut LoggedTx<'_>,
    device: DeviceId,
    receipt: &ReceiptStatement,
    why: &str,
) -> Result<(), Problem> {
    tx.record(
        "receipt.refused",
        ("device", device.to_string()),
        serde_json::json!({"command_id": receipt.command_id, "outcome": receipt.outcome, "reason": why}),
    )?;
    Ok(())
}
