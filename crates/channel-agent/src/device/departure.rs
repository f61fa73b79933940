//! The end of an enrollment: what a wipe or an unenrollment leaves of the device core.
//!
//! The device has nothing in force any more and takes nothing new. It stays until the server has its receipt, or until
//! [`DEPARTURE_TIME_MAX`] has passed, and then forgets who it was.

use std::time::Duration;

use muster_model::command::{CommandKind, WipeMode};
use muster_model::id::CommandId;
use muster_model::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Action, DeviceCore, Signer};

/// How long a device that has left keeps its identity to tell the server so.
pub const DEPARTURE_TIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// Code of what comes for a device that has left.
pub const DEPARTED_CODE: &str = "departed";

/// How a device left the management.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Departed {
    /// Everything on it was wiped.
    Wiped,
    /// What belonged to the organization was wiped.
    EnterpriseWiped,
    /// It was told to leave.
    Unenrolled,
}

impl Departed {
    /// The word in state files and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wiped => "wiped",
            Self::EnterpriseWiped => "enterprise_wiped",
            Self::Unenrolled => "unenrolled",
        }
    }
}

/// A departure on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Departure {
    how: Departed,
    command_id: CommandId,
    since: Timestamp,
    /// The server has the receipt.
    is_told: bool,
}

impl DeviceCore {
    /// How the device left the management, once it has.
    pub fn departed(&self) -> Option<Departed> {
        self.departure.as_ref().map(|departure| departure.how)
    }

    /// Records that a command has ended the management of this device.
    pub(super) fn depart(&mut self, command_id: CommandId, kind: &CommandKind, now: Timestamp) {
        let how = match kind {
            CommandKind::Wipe { mode: WipeMode::Full } => Departed::Wiped,
            CommandKind::Wipe {
                mode: WipeMode::Enterprise,
            } => Departed::EnterpriseWiped,
            _ => Departed::Unenrolled,
        };
        if self.departure.is_none() {
            self.departure = Some(Departure {
                how,
                command_id,
                since: now,
                is_told: false,
            });
            self.policy.forget_unfinished();
        }
    }

    /// Notes what the server has; a receipt that could not be signed yet is tried again.
    pub(super) fn on_told(&mut self, accepted: &[CommandId], sign: &mut Signer<'_>) {
        let Some(departure) = &mut self.departure else {
            return;
        };
        departure.is_told |= accepted.contains(&departure.command_id);
        if !departure.is_told {
            let id = departure.command_id;
            self.commands.repeat(&self.identity, id, sign);
        }
    }

    /// The last action, once its time has come.
    pub(super) fn departs(&self, now: Timestamp) -> Option<Action> {
        let departure = self.departure.as_ref()?;
        let is_over = departure.is_told || now.since(departure.since) >= DEPARTURE_TIME_MAX;
        is_over.then_some(Action::Depart { how: departure.how })
    }
}
