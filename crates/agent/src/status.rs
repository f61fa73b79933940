//! `muster-agent status`: reads the spool beside a running agent and prints what it finds.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use muster_channel_agent::device::DeviceCore;
use muster_model::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::cli::{OutputFormat, StatusArgs};
use crate::departure::{self, Departure};
use crate::device_key::DeviceKey;
use crate::error::AgentError;
use crate::identity::Identity;
use crate::machine_clock;
use crate::spool::{self, Slot};

/// When the server was last reached. Kept beside the database, without its costs: losing it loses nothing.
const LAST_CHECKIN_FILE: &str = "last-checkin.json";

/// The last successful check-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCheckin {
    /// By this machine's wall clock.
    pub at: Timestamp,
}

/// Writes down a check-in. Failing to is no failure of the check-in.
pub fn record_checkin(state_dir: &Path, last: LastCheckin) {
    let write = || -> std::io::Result<()> {
        let text = serde_json::to_vec(&last)?;
        let fresh = state_dir.join("last-checkin.json.new");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(&text)?;
        std::fs::rename(fresh, state_dir.join(LAST_CHECKIN_FILE))
    };
    if let Err(error) = write() {
        tracing::debug!(%error, "the time of the check-in could not be written down");
    }
}

/// Removes what [`record_checkin`] wrote.
pub fn forget_checkin(state_dir: &Path) {
    // It holds a time, and nothing else.
    let _ = std::fs::remove_file(state_dir.join(LAST_CHECKIN_FILE));
}

/// Where the device key is.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum KeyStatus {
    Software,
    Tpm {
        tcti: String,
        manufacturer: String,
        firmware: String,
    },
}

impl KeyStatus {
    fn of(key: &DeviceKey) -> Self {
        match key {
            DeviceKey::Software(_) => Self::Software,
            DeviceKey::Tpm(key) => Self::Tpm {
                tcti: key.tpm().tcti().to_string(),
                manufacturer: key.description().manufacturer.clone(),
                firmware: key.description().firmware.clone(),
            },
        }
    }

    fn as_text(&self) -> String {
        match self {
            Self::Software => "software, in the state folder".to_owned(),
            Self::Tpm {
                tcti,
                manufacturer,
                firmware,
            } => format!("TPM of {manufacturer}, firmware {firmware}, at {tcti}"),
        }
    }
}

#[derive(Serialize)]
struct Status {
    device_id: String,
    tenant: String,
    epoch: u32,
    device_uuid: String,
    server: String,
    root: String,
    enrolled_at: Timestamp,
    key: KeyStatus,
    attestation: &'static str,
    certificate_not_after: Timestamp,
    root_version: u64,
    log_size: u64,
    state_sha256: String,
    settings: usize,
    news: bool,
    trusted_time: Timestamp,
    last_checkin_at: Option<Timestamp>,
}

/// Prints the status.
pub fn print(arguments: &StatusArgs) -> Result<(), AgentError> {
    if let Some(departure) = departure::read(&arguments.state_dir) {
        return print_departure(&departure, arguments.output);
    }
    let status = read(&arguments.state_dir)?;
    let text = match arguments.output {
        OutputFormat::Json => {
            serde_json::to_string_pretty(&status).map_err(|error| AgentError::Start(error.into()))?
        }
        OutputFormat::Text => as_text(&status),
    };
    writeln!(std::io::stdout(), "{text}").map_err(AgentError::Start)
}

/// A machine that left says so, and nothing else.
fn print_departure(departure: &Departure, output: OutputFormat) -> Result<(), AgentError> {
    let text = match output {
        OutputFormat::Json => {
            let state = serde_json::json!({"state": departure.how.as_str(), "departure": departure});
            serde_json::to_string_pretty(&state).map_err(|error| AgentError::Start(error.into()))?
        }
        OutputFormat::Text => format!(
            "{:<17} {}\n{:<17} {}\n{:<17} {}",
            "state",
            departure.how.as_str(),
            "since",
            departure.at,
            "was device",
            departure.device_id
        ),
    };
    writeln!(std::io::stdout(), "{text}").map_err(AgentError::Start)
}

fn read(state_dir: &Path) -> Result<Status, AgentError> {
    let missing = || AgentError::NotEnrolled {
        state_dir: state_dir.to_owned(),
    };
    let identity: Identity = spool::peek(state_dir, Slot::Identity)?.ok_or_else(missing)?;
    let core: DeviceCore = spool::peek(state_dir, Slot::Device)?.ok_or_else(missing)?;
    let last: Option<LastCheckin> = std::fs::read(state_dir.join(LAST_CHECKIN_FILE))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ok(Status {
        device_id: identity.device_id.to_string(),
        tenant: identity.tenant.to_string(),
        epoch: identity.epoch,
        device_uuid: identity.device_uuid.to_string(),
        server: identity.server.to_string(),
        root: identity.root.display().to_string(),
        enrolled_at: identity.enrolled_at,
        key: KeyStatus::of(&DeviceKey::load(state_dir)?),
        attestation: identity.attestation.as_str(),
        certificate_not_after: identity.validity()?.not_after,
        root_version: core.trust().root.version,
        log_size: core
            .trust()
            .checkpoint
            .as_ref()
            .map_or(0, |checkpoint| checkpoint.size()),
        state_sha256: core.state_digest().to_hex(),
        settings: core.effective_settings().len(),
        news: core.has_news(),
        trusted_time: core.now(&machine_clock::read()),
        last_checkin_at: last.map(|last| last.at),
    })
}

fn as_text(status: &Status) -> String {
    let last = status
        .last_checkin_at
        .map_or_else(|| "never".to_owned(), |at| at.to_string());
    let news = if status.news { "yes" } else { "no" };
    [
        ("device", status.device_id.clone()),
        ("tenant", status.tenant.clone()),
        ("epoch", status.epoch.to_string()),
        ("hardware uuid", status.device_uuid.clone()),
        ("server", status.server.clone()),
        ("root", status.root.clone()),
        ("enrolled", status.enrolled_at.to_string()),
        ("key", status.key.as_text()),
        ("attestation", status.attestation.to_owned()),
        ("certificate ends", status.certificate_not_after.to_string()),
        ("root document", format!("version {}", status.root_version)),
        ("log", format!("{} entries seen", status.log_size)),
        ("state", status.state_sha256.clone()),
        ("settings", status.settings.to_string()),
        ("waits to be sent", news.to_owned()),
        ("trusted time", status.trusted_time.to_string()),
        ("last check-in", last),
    ]
    .map(|(name, value)| format!("{name:<17} {value}"))
    .join("\n")
}
