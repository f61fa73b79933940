//! The claims of a security event token about a device's compliance (CAEP 1.0, section 3.5): what the log says, for who decides
//! about access. Issuer, audience and time are added when it is signed.

use muster_model::{ComplianceState, DeviceId, TenantId, Timestamp};
use muster_ssf::{Status, uri};
use muster_storage::Tx;
use muster_trust::entry::LogEntry;
use serde_json::{Value, json};

use crate::{
    access::problem::Problem,
    devices::{self, Device, DeviceState},
};

/// The actions of the log that it is made of.
pub const ACTIONS: &[&str] = &[
    "compliance.changed",
    "device.retired",
    "device.quarantined",
    "device.quarantine_decided",
];

/// What is said of a device.
struct Said {
    current: Status,
    /// Who or what decided: a word of CAEP 1.0, section 2.
    by: &'static str,
    why: Option<&'static str>,
    /// Whether it is known that the hardware's names are this device's. Whoever only says that it is somebody else's machine must not
    /// have that one shut out.
    has_names: bool,
}

fn said(entry: &LogEntry, device: Option<&Device>) -> Option<Said> {
    let is = |current, by, why, has_names| {
        Some(Said {
            current,
            by,
            why,
            has_names,
        })
    };
    match entry.action.as_str() {
        "device.retired" => {
            // Of two that say the same of themselves, one goes on.
            let has_names = entry.detail.get("has_names").and_then(Value::as_bool) == Some(true);
            is(
                Status::NotCompliant,
                "admin",
                Some("The device was retired."),
                has_names,
            )
        }
        "device.quarantined" => {
            let why = "The device is in quarantine: its identity contradicts another's.";
            is(Status::NotCompliant, "system", Some(why), false)
        }
        "device.quarantine_decided" => {
            let complies = device.is_some_and(|device| {
                device.state == DeviceState::Active && device.compliance == ComplianceState::Compliant
            });
            complies
                .then(|| is(Status::Compliant, "admin", None, true))
                .flatten()
        }
        _ => match entry.detail_text("to").and_then(ComplianceState::parse)? {
            ComplianceState::Compliant => is(Status::Compliant, "policy", None, true),
            ComplianceState::Noncompliant => is(Status::NotCompliant, "policy", None, true),
            // A change to or from "not known yet" is no statement: the receiver keeps what it was told last.
            ComplianceState::Unknown | ComplianceState::Pending => None,
        },
    }
}

/// What is told of an entry; nothing where it says neither that a device complies nor that it does not.
pub fn of_entry(tx: &mut Tx, tenant: TenantId, entry: &LogEntry) -> Result<Option<Value>, Problem> {
    let Ok(id) = entry.object.id.parse::<DeviceId>() else {
        return Ok(None);
    };
    let device = devices::get(tx, tenant, id).ok();
    let Some(said) = said(entry, device.as_ref()) else {
        return Ok(None);
    };
    let mut names = vec![json!({"format": "opaque", "id": id.to_string()})];
    if let Some(device) = device.as_ref().filter(|_| said.has_names) {
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
    let owner = device.as_ref().and_then(|device| device.owner.as_deref());
    if let Some(owner) = owner.filter(|_| said.has_names) {
        subject["user"] = user(owner);
    }
    let previous = match said.current {
        Status::Compliant => Status::NotCompliant,
        Status::NotCompliant => Status::Compliant,
    };
    let mut event = json!({
        "event_timestamp": entry.at.as_unix_seconds(),
        "initiating_entity": said.by,
        "previous_status": previous.as_str(),
        "current_status": said.current.as_str(),
    });
    if let Some(why) = said.why {
        event["reason_admin"] = json!({"en": why});
    }
    Ok(Some(json!({
        "jti": entry.id.to_string(),
        "toe": entry.at.as_unix_seconds(),
        "sub_id": subject,
        "events": {uri::DEVICE_COMPLIANCE_CHANGE: event},
    })))
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
