//! The claims of a security event token about a device's compliance (CAEP 1.0, section 3.5): what the log says, for who decides
//! about access. Issuer, audience and time are added when it is signed.

use muster_model::{ComplianceState, DeviceId, TenantId, Timestamp};
use muster_ssf::{Status, uri};
use muster_storage::Tx;
use muster_trust::entry::LogEntry;
use serde_json::{Value, json};

use crate::{access::problem::Problem, devices};

/// The action of the log that it is made of.
pub const ACTION: &str = "compliance.changed";

/// What is told of an entry; nothing where it says neither that a device complies nor that it does not.
pub fn of_entry(tx: &mut Tx, tenant: TenantId, entry: &LogEntry) -> Result<Option<Value>, Problem> {
    let current = entry.detail_text("to").and_then(ComplianceState::parse);
    let Some((previous, current)) = current.and_then(statuses) else {
        return Ok(None);
    };
    let Ok(id) = entry.object.id.parse::<DeviceId>() else {
        return Ok(None);
    };
    let device = devices::get(tx, tenant, id).ok();
    let mut names = vec![json!({"format": "opaque", "id": id.to_string()})];
    if let Some(device) = &device {
        let uuid = device.device_uuid.as_hyphenated();
        names.push(json!({"format": "uri", "uri": format!("urn:uuid:{uuid}")}));
        names.extend(
            device
                .serial
                .iter()
                .map(|serial| json!({"format": "opaque", "id": serial})),
        );
    }
    let mut subject = json!({
        "format": "complex",
        "device": {"format": "aliases", "identifiers": names},
        "tenant": {"format": "opaque", "id": tenant.to_string()},
    });
    if let Some(owner) = device.as_ref().and_then(|device| device.owner.as_deref()) {
        subject["user"] = user(owner);
    }
    Ok(Some(json!({
        "jti": entry.id.to_string(),
        "toe": entry.at.as_unix_seconds(),
        "sub_id": subject,
        "events": {uri::DEVICE_COMPLIANCE_CHANGE: {
            "event_timestamp": entry.at.as_unix_seconds(),
            "initiating_entity": "policy",
            "previous_status": previous.as_str(),
            "current_status": current.as_str(),
        }},
    })))
}

/// A change to or from "not known yet" is no statement: the receiver keeps what it was told last.
const fn statuses(current: ComplianceState) -> Option<(Status, Status)> {
    match current {
        ComplianceState::Compliant => Some((Status::NotCompliant, Status::Compliant)),
        ComplianceState::Noncompliant => Some((Status::Compliant, Status::NotCompliant)),
        ComplianceState::Unknown | ComplianceState::Pending => None,
    }
}

fn user(owner: &str) -> Value {
    match owner.contains('@') {
        true => json!({"format": "email", "email": owner}),
        false => json!({"format": "opaque", "id": owner}),
    }
}

/// The claims of a verification event (SSF 1.0, section 8.1.4), which a test sends.
pub fn verification(id: &str, state: &str, now: Timestamp) -> Value {
    json!({
        "jti": id,
        "toe": now.as_unix_seconds(),
        "sub_id": {"format": "opaque", "id": "muster"},
        "events": {uri::VERIFICATION: {"state": state}},
    })
}
