//! What an operator should know about a tenant's root document. Pure.

use std::time::Duration;

use muster_model::Timestamp;
use muster_trust::root::Role;

use super::{TenantKeys, roots::RefusedRow};

const DAY: Duration = Duration::from_secs(86_400);
/// From when on the end of a root document is spoken of, and from when on it is urgent.
const SOON_DAYS: u32 = 60;
const SOONER_DAYS: u32 = 30;
const NOW_DAYS: u32 = 7;

/// How soon a person has to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// It may be as it should be.
    Note,
    /// Within weeks.
    Soon,
    /// Today.
    Now,
}

/// One thing to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concern {
    pub urgency: Urgency,
    /// A sentence.
    pub text: String,
}

/// Everything to know, the most urgent first.
pub fn concerns(keys: &TenantKeys, refused: Option<&RefusedRow>, now: Timestamp) -> Vec<Concern> {
    let mut found: Vec<Concern> = [expiry(keys.root.expires_at, now), refused.map(ignored)]
        .into_iter()
        .flatten()
        .chain(signing(keys))
        .collect();
    found.sort_by_key(|concern| std::cmp::Reverse(concern.urgency));
    found
}

/// Whole days until a root document expires; 0 on the last day and afterward.
pub fn days_left(expires_at: Timestamp, now: Timestamp) -> u64 {
    expires_at.since(now).as_secs() / DAY.as_secs()
}

fn expiry(expires_at: Timestamp, now: Timestamp) -> Option<Concern> {
    let concern = |urgency, text: String| Some(Concern { urgency, text });
    if expires_at <= now {
        let text = format!(
            "The root document expired at {expires_at}: devices obey nothing until a newer one is published."
        );
        return concern(Urgency::Now, text);
    }
    let is_within = |days: u32| expires_at <= now.plus(DAY * days);
    let days = days_left(expires_at, now);
    let left = match days {
        0 => "within a day".to_owned(),
        1 => "in 1 day".to_owned(),
        days => format!("in {days} days"),
    };
    let text = format!("The root document expires {left}: renew it with `muster root renew`.");
    if is_within(NOW_DAYS) {
        concern(Urgency::Now, text)
    } else if is_within(SOONER_DAYS) || is_within(SOON_DAYS) {
        concern(Urgency::Soon, text)
    } else {
        None
    }
}

fn ignored(row: &RefusedRow) -> Concern {
    Concern {
        urgency: Urgency::Now,
        text: format!(
            "The database holds a root document (version {}, row {}) that does not verify and is ignored: somebody wrote it \
             past the server.",
            row.version, row.sha256
        ),
    }
}

/// The roles for which this server signs, if what it signs does not count.
fn signing(keys: &TenantKeys) -> Vec<Concern> {
    let own = [
        (Role::Policy, &keys.policy, Urgency::Note),
        (Role::Action, &keys.action, Urgency::Now),
        (Role::Log, &keys.log, Urgency::Now),
    ];
    let concern = |(role, key, urgency): (Role, &std::sync::Arc<muster_trust::key::SigningKey>, Urgency)| {
        let (named, threshold) = keys.root.role(role);
        let text = if !named.contains(&key.public()) {
            format!("The root document does not name this server's {role} key: devices refuse what it signs.")
        } else if threshold > 1 {
            format!(
                "The root document asks for {threshold} signatures of the role {role}, and this server has one key: devices \
                 refuse what it signs alone."
            )
        } else {
            return None;
        };
        let text = match role {
            Role::Policy => format!("{text} Bundles have to be signed elsewhere."),
            _ => text,
        };
        Some(Concern { urgency, text })
    };
    own.into_iter().filter_map(concern).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(days: u64) -> Option<(Urgency, String)> {
        let now = Timestamp::from_unix_seconds(1_800_000_000);
        expiry(now.plus(DAY * u32::try_from(days).expect("few days")), now)
            .map(|concern| (concern.urgency, concern.text))
    }

    #[test]
    fn the_end_of_a_root_document_is_spoken_of_at_60_30_and_7_days() {
        for (days, urgency) in [
            (365, None),
            (61, None),
            (60, Some(Urgency::Soon)),
            (30, Some(Urgency::Soon)),
            (7, Some(Urgency::Now)),
            (0, Some(Urgency::Now)),
        ] {
            assert_eq!(said(days).map(|(urgency, _)| urgency), urgency, "{days} days");
        }
        assert!(said(45).is_some_and(|(_, text)| text.contains("in 45 days")));
        assert!(said(0).is_some_and(|(_, text)| text.contains("expired")));
    }
}
