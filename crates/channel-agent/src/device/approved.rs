//! What the device remembers of approvals: which lists have led to a command, and how long a check may be relied on.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_model::id::CommandId;
use muster_model::time::Timestamp;
use muster_trust::key::Digest;
use serde::{Deserialize, Serialize};

use crate::command::DueCommand;

/// Most approved lists that a device remembers. While there are more that have not expired, no further one is taken.
const LISTS_MAX: usize = 512;
/// For how long what people approved may begin after its approvals were checked.
const APPROVED_FOR: Duration = Duration::from_secs(60);
/// Code of what needs approvals and waited longer: they are checked again when it comes again.
pub const APPROVAL_STALE_CODE: &str = "approval_stale";
/// Code of a command whose approvals have led to another command of this device.
pub const APPROVAL_USED_CODE: &str = "approval_used";
/// Code of what needs approvals while no checkpoint of this boot carries the clock.
pub const TIME_UNPROVEN_CODE: &str = "time_unproven";

/// The list that people signed for a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct ApprovedList {
    /// SHA-256 of the batch statement.
    sha256: Digest,
    /// When nobody takes it any more.
    expires_at: Timestamp,
}

impl ApprovedList {
    /// The list that a command is of, if it shows one. Whether it was approved is not asked here.
    pub(super) fn of(command: &DueCommand) -> Option<Self> {
        let batch = &command.approval.as_ref()?.batch;
        Some(Self {
            sha256: batch.sha256(),
            expires_at: batch.read().ok()?.expires_at,
        })
    }
}

/// Approvals that were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Approval {
    /// By the root document with this version.
    root_version: u64,
    /// Until then what they are for may begin.
    until: Timestamp,
}

impl Approval {
    pub(super) fn checked(root_version: u64, list: &ApprovedList, now: Timestamp) -> Self {
        Self {
            root_version,
            until: now.plus(APPROVED_FOR).min(list.expires_at),
        }
    }

    /// Whether they were checked a moment ago, by the newest root document.
    pub(super) fn holds(&self, root_version: u64, now: Timestamp) -> bool {
        self.root_version == root_version && now < self.until
    }
}

/// The lists that have led to a command of this device, until they expire.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct SpentLists(BTreeMap<Digest, Spent>);

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Spent {
    command_id: CommandId,
    expires_at: Timestamp,
}

impl SpentLists {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes room for one more list; false where every one that is remembered may still be taken. `proven` is a time that
    /// is over for certain: what had expired by a clock that was ahead must not be forgotten.
    pub(super) fn make_room_for(&mut self, list: &ApprovedList, proven: Timestamp) -> bool {
        self.0.retain(|_, spent| spent.expires_at > proven);
        self.0.len() < LISTS_MAX || self.0.contains_key(&list.sha256)
    }

    /// The command that a list has led to, unless it is this one.
    pub(super) fn on_other_than(&self, own: Option<CommandId>, list: &ApprovedList) -> Option<CommandId> {
        let spent = self.0.get(&list.sha256)?;
        (Some(spent.command_id) != own).then_some(spent.command_id)
    }

    pub(super) fn spend(&mut self, list: &ApprovedList, command_id: CommandId) {
        let expires_at = list.expires_at;
        self.0.insert(
            list.sha256,
            Spent {
                command_id,
                expires_at,
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use muster_trust::key::sha256;

    use super::*;

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn list(number: usize, expires: i64) -> ApprovedList {
        ApprovedList {
            sha256: sha256(&number.to_be_bytes()),
            expires_at: at(expires),
        }
    }

    #[test]
    fn m9_lists_are_remembered_until_they_expire_and_no_longer() {
        let mut spent = SpentLists::default();
        let command = CommandId::generate(at(0), [1; 10]);
        for number in 0..LISTS_MAX {
            let list = list(number, 100 + i64::from(number > 0));
            assert!(spent.make_room_for(&list, at(0)), "{number}");
            spent.spend(&list, command);
        }
        let (known, another) = (list(1, 101), list(LISTS_MAX, 200));
        assert!(spent.make_room_for(&known, at(99)));
        assert!(
            !spent.make_room_for(&another, at(99)),
            "none of them is forgotten"
        );
        assert_eq!(spent.on_other_than(None, &known), Some(command));
        assert_eq!(spent.on_other_than(Some(command), &known), None);
        assert!(spent.make_room_for(&another, at(100)));
        assert_eq!(spent.0.len(), LISTS_MAX - 1);
        assert!(spent.make_room_for(&another, at(101)) && spent.is_empty());
    }

    #[test]
    fn a_check_holds_for_a_minute_and_no_longer_than_the_list() {
        let checked = |expires| Approval::checked(3, &list(1, expires), at(1000));
        assert!(checked(5000).holds(3, at(1059)) && !checked(5000).holds(3, at(1060)));
        assert!(checked(1010).holds(3, at(1009)) && !checked(1010).holds(3, at(1010)));
        assert!(!checked(5000).holds(4, at(1001)), "another root document");
    }
}
