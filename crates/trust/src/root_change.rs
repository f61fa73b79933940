//! What a root document changes against the one before it, in words that a person can decide by.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::key::{Algorithm, KeyId, PublicKey};
use crate::root::{Approver, Role, RoleKeys, RootDocument};

/// How long before its document an approver may be named without this being called backdated.
const BACKDATED_AFTER: Duration = Duration::from_secs(3600);
/// Hexadecimal digits by which a key is named in a sentence.
const KEY_CHARS: usize = 16;

/// One change of a root document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// A sentence without a full stop.
    pub text: String,
    /// It takes a safeguard away, or gives somebody power: to be read twice before it is signed.
    pub weakens: bool,
}

/// The beginning of a key's name, for sentences.
pub fn short(id: &KeyId) -> String {
    let mut text = id.to_string();
    text.truncate(KEY_CHARS);
    text
}

/// Everything that `new` changes against `old`, the weightiest first within each part. Empty where both say the same but for
/// version and time of issue.
pub fn changes(old: &RootDocument, new: &RootDocument) -> Vec<Change> {
    let mut list = List(Vec::new());
    for role in Role::ALL {
        list.role(role, old, new);
    }
    list.approvers(old, new);
    list.rules(old, new);
    list.budgets(old, new);
    list.times(old, new);
    list.authorities(old, new);
    list.settled_heads(old, new);
    list.0
}

struct List(Vec<Change>);

impl List {
    fn add(&mut self, weakens: bool, text: String) {
        self.0.push(Change { text, weakens });
    }

    fn role(&mut self, role: Role, old: &RootDocument, new: &RootDocument) {
        let absent = RoleKeys::default();
        let of = |document: &'_ RootDocument| document.roles.get(&role).cloned().unwrap_or_default();
        let (was, is) = (of(old), of(new));
        if was == is && was != absent {
            return;
        }
        if role == Role::Approver {
            self.people(was.threshold, is.threshold);
            return;
        }
        if is.threshold != was.threshold {
            let text = format!(
                "{role}: {} of {} keys must sign (it was {} of {})",
                is.threshold,
                is.keys.len(),
                was.threshold,
                was.keys.len()
            );
            self.add(is.threshold < was.threshold, text);
        }
        for id in is.keys.difference(&was.keys) {
            let key = new.keys.get(id).map_or("unknown", algorithm);
            // One more witness takes nothing away; one more of anybody else can sign.
            let weakens = role != Role::Witness;
            self.add(weakens, format!("{role}: key {} ({key}) is added", short(id)));
        }
        for id in was.keys.difference(&is.keys) {
            let weakens = role == Role::Witness;
            self.add(weakens, format!("{role}: key {} is removed", short(id)));
        }
    }

    fn people(&mut self, was: u32, is: u32) {
        if was == is {
            return;
        }
        let text = match is {
            0 => "nobody approves destructive commands any more: devices refuse all of them".to_owned(),
            1 => format!(
                "one person alone approves destructive commands (m = 1; it was {was}): a choice for tiny installs"
            ),
            people => format!("{people} people must approve destructive commands (it was {was})"),
        };
        self.add(is == 1 || (is < was && is > 0) || was == 0, text);
    }

    fn approvers(&mut self, old: &RootDocument, new: &RootDocument) {
        let ids: BTreeSet<&KeyId> = old.approvers.keys().chain(new.approvers.keys()).collect();
        for id in ids {
            match (old.approvers.get(id), new.approvers.get(id)) {
                (None, Some(approver)) => self.approver_added(id, approver, new),
                (Some(approver), None) => self.add(
                    false,
                    format!("approver {} is removed (key {})", approver.person, short(id)),
                ),
                (Some(was), Some(is)) => self.approver_changed(id, was, is),
                (None, None) => {}
            }
        }
    }

    fn approver_added(&mut self, id: &KeyId, approver: &Approver, new: &RootDocument) {
        let cool_down = Duration::from_secs(new.approval.cool_down_seconds.into());
        let kind = match &approver.passkey {
            Some(party) => format!("passkey of {}", party.id),
            None => "key".to_owned(),
        };
        let others = new
            .approvers
            .values()
            .filter(|other| other.person == approver.person);
        let accounts = if !approver.accounts.is_empty() {
            format!("accounts {}", joined(&approver.accounts))
        } else if others.flat_map(|other| &other.accounts).next().is_some() {
            "accounts of the person's other keys".to_owned()
        } else {
            "no account: nothing that this person asks for is told apart".to_owned()
        };
        let text = format!(
            "approver {} is added ({kind} {}; {accounts}); counts from {}",
            approver.person,
            short(id),
            approver.added_at.plus(cool_down)
        );
        self.add(true, text);
        if approver.added_at.plus(BACKDATED_AFTER) < new.issued_at {
            let text = format!(
                "approver {} is backdated to {}: the cool-down is cut short",
                approver.person, approver.added_at
            );
            self.add(true, text);
        }
    }

    fn approver_changed(&mut self, id: &KeyId, was: &Approver, is: &Approver) {
        if was.person != is.person {
            let text = format!(
                "key {} of approver {} is now of {}",
                short(id),
                was.person,
                is.person
            );
            self.add(true, text);
        }
        if was.accounts != is.accounts {
            let fewer = was.accounts.difference(&is.accounts).next().is_some();
            let text = format!(
                "approver {}: accounts {} (they were {})",
                is.person,
                joined(&is.accounts),
                joined(&was.accounts)
            );
            self.add(fewer, text);
        }
        if was.added_at != is.added_at {
            let text = format!(
                "approver {}: named at {} (it was {})",
                is.person, is.added_at, was.added_at
            );
            self.add(is.added_at < was.added_at, text);
        }
        if was.passkey != is.passkey {
            self.add(
                true,
                format!("approver {}: the site of the passkey changes", is.person),
            );
        }
    }

    fn rules(&mut self, old: &RootDocument, new: &RootDocument) {
        let (was, is) = (&old.approval, &new.approval);
        let times = [
            (
                "cool-down of new approvers",
                was.cool_down_seconds,
                is.cool_down_seconds,
            ),
            (
                "delay before the first device",
                was.delay_seconds,
                is.delay_seconds,
            ),
        ];
        for (what, was, is) in times {
            if was != is {
                self.add(is < was, format!("{what}: {is} s (it was {was} s)"));
            }
        }
        for kind in is.also.difference(&was.also) {
            self.add(false, format!("commands of type {kind} need approvals"));
        }
        for kind in was.also.difference(&is.also) {
            self.add(
                true,
                format!("commands of type {kind} need no approvals any more"),
            );
        }
    }

    fn budgets(&mut self, old: &RootDocument, new: &RootDocument) {
        let (was, is) = (&old.budgets, &new.budgets);
        if was.destructive_per_hour_min != is.destructive_per_hour_min {
            let text = format!(
                "budget: {} devices an hour in any case (it was {})",
                is.destructive_per_hour_min, was.destructive_per_hour_min
            );
            self.add(is.destructive_per_hour_min > was.destructive_per_hour_min, text);
        }
        if was.destructive_fraction.to_bits() != is.destructive_fraction.to_bits() {
            let text = format!(
                "budget: {} % of the fleet an hour (it was {} %)",
                percent(is.destructive_fraction),
                percent(was.destructive_fraction)
            );
            self.add(is.destructive_fraction > was.destructive_fraction, text);
        }
    }

    fn times(&mut self, old: &RootDocument, new: &RootDocument) {
        if old.expires_at != new.expires_at {
            let text = format!("expires at {} (it was {})", new.expires_at, old.expires_at);
            self.add(new.expires_at < old.expires_at, text);
        }
        if old.restore_epoch != new.restore_epoch {
            let text = format!(
                "restore epoch {} begins: devices take up the log as it is now, and nothing destructive that was asked \
                 before is carried out",
                new.restore_epoch
            );
            self.add(true, text);
        }
    }

    fn authorities(&mut self, old: &RootDocument, new: &RootDocument) {
        for digest in new
            .device_ca_sha256
            .iter()
            .filter(|digest| !old.device_ca_sha256.contains(digest))
        {
            self.add(true, format!("device CA {digest} is added"));
        }
        for digest in old
            .device_ca_sha256
            .iter()
            .filter(|digest| !new.device_ca_sha256.contains(digest))
        {
            self.add(false, format!("device CA {digest} is removed"));
        }
    }

    fn settled_heads(&mut self, old: &RootDocument, new: &RootDocument) {
        for root in new.settled_heads.difference(&old.settled_heads) {
            let text = format!(
                "the other history of the log with the head {root} is settled: what cannot be undone no longer waits for it"
            );
            self.add(true, text);
        }
        for root in old.settled_heads.difference(&new.settled_heads) {
            self.add(
                false,
                format!("the other history with the head {root} is settled no more"),
            );
        }
    }
}

fn algorithm(key: &PublicKey) -> &'static str {
    match key.algorithm() {
        Algorithm::Ed25519 => "ed25519",
        Algorithm::EcdsaP256 => "ecdsa-p256",
    }
}

fn joined(accounts: &BTreeSet<String>) -> String {
    if accounts.is_empty() {
        return "none".to_owned();
    }
    accounts.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// A fraction in percent, without zeros at the end.
fn percent(fraction: f64) -> String {
    let text = format!("{:.4}", fraction * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
