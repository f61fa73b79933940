//! NetworkManager's key files (nm-settings-keyfile(5)), as far as settings share them.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use uuid::Uuid;

use super::super::enforce::Machine;
use super::super::files::{FileError, Root};
use super::super::formats::ini;

pub(super) const FOLDER: &str = "/etc/NetworkManager/system-connections";
/// Connections here take the place of those with the same UUID in `/etc` (NetworkManager.conf(5)).
const SHADOWING_FOLDER: &str = "/run/NetworkManager/system-connections";

/// Why there is nothing to write key files for.
pub(super) fn no_network_manager(machine: Machine<'_>) -> Option<String> {
    (machine.root.is_real() && !machine.root.exists("/etc/NetworkManager"))
        .then(|| "NetworkManager is not installed".to_owned())
}

/// The same connection always has the same UUID (RFC 9562 section 5.8).
pub(super) fn uuid(kind: &str, name: &str) -> Uuid {
    let hash = digest(&SHA256, format!("muster {kind} {name}").as_bytes());
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Why NetworkManager would not use a connection as asked for.
pub(super) fn obstacle(
    root: &Root,
    file: &str,
    wanted: &str,
    uuid: Uuid,
) -> Result<Option<String>, FileError> {
    let Some(text) = root.read(file)? else {
        return Ok(Some(format!("{file} is missing")));
    };
    if root.stat(file).is_some_and(|stat| stat.mode & 0o077 != 0) {
        return Ok(Some(format!(
            "{file} is readable by others, so NetworkManager ignores it"
        )));
    }
    let settings = |text: &str| {
        let assignments = ini::parse(text)
            .into_iter()
            .filter(|assignment| !is_bookkeeping(&assignment.key));
        let keys = assignments.map(|assignment| ((assignment.section, assignment.key), assignment.value));
        keys.collect::<BTreeMap<_, _>>()
    };
    let (found, wanted) = (settings(&text), settings(wanted));
    if let Some(((section, key), _)) = wanted.iter().find(|(key, value)| found.get(key) != Some(value)) {
        return Ok(Some(format!("{file} has another {section}.{key}")));
    }
    for name in root.list(SHADOWING_FOLDER) {
        let shadow = format!("{SHADOWING_FOLDER}/{name}");
        let text = root.read(&shadow)?.unwrap_or_default();
        if ini::get(&text, "connection", "uuid") == Some(uuid.to_string()) {
            return Ok(Some(format!("{shadow} takes its place")));
        }
    }
    Ok(None)
}

/// NetworkManager writes this itself whenever a connection was used.
fn is_bookkeeping(key: &str) -> bool {
    key == "timestamp"
}

/// GLib's key files: a backslash escapes, and spaces at either end are dropped unless escaped.
pub(super) fn escaped(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\");
    let start = escaped.len() - escaped.trim_start_matches(' ').len();
    format!("{}{}", "\\s".repeat(start), &escaped[start..])
}
