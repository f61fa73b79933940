//! Keys that are rotated while they are in use: a ring of versions, of which the newest active one signs or seals, and all that are
//! not retired are accepted.
//!
//! Every node reads the same rows and decides by its clock alone, so that no step has to be taken on all nodes at once. A version is
//! accepted from the moment its row is there, and signs only from `activates_at` on: by then every node has read it.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use muster_model::{TenantId, Timestamp};
use muster_trust::key::{KeyId, PublicKey, SigningKey};

use super::{SealingKey, SecretText, UnsealError, keeper};
use crate::access::problem::{Problem, UNAVAILABLE};

/// How long after its row a version begins to sign: several times as long as a node takes to read it.
pub const SETTLE: Duration = Duration::from_secs(15);
const HOUR: Duration = Duration::from_secs(3600);
/// What clocks may differ by, and a request may take.
const SLACK: Duration = Duration::from_secs(300);

/// A ring of the installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RingName {
    AccessTokens,
    EnrollmentTokens,
    Sealing,
}

impl RingName {
    pub const ALL: [RingName; 3] = [
        RingName::AccessTokens,
        RingName::EnrollmentTokens,
        RingName::Sealing,
    ];

    /// What records, stores and rows call it.
    pub const fn as_str(self) -> &'static str {
        match self {
            RingName::AccessTokens => "access-token-key",
            RingName::EnrollmentTokens => "enrollment-token-key",
            RingName::Sealing => "sealing-key",
        }
    }

    pub fn parse(name: &str) -> Option<RingName> {
        RingName::ALL.into_iter().find(|ring| ring.as_str() == name)
    }

    /// How long the version before is accepted after the next one signs: the longest life of what it signed. What is sealed stays,
    /// so that its key is retired by whoever has sealed everything anew.
    pub const fn overlap(self) -> Option<Duration> {
        match self {
            RingName::AccessTokens => Some(HOUR.saturating_add(SLACK)),
            RingName::EnrollmentTokens => Some(HOUR.saturating_mul(24).saturating_add(SLACK)),
            RingName::Sealing => None,
        }
    }
}

/// A version as its row says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub number: i64,
    /// Which store holds it.
    pub place: String,
    /// What that store calls it.
    pub store_version: String,
    /// Of keys that sign: SPKI, DER. Only of use where `key_id` vouches for it.
    pub public_key: Option<Vec<u8>>,
    /// The id of the key as the log names it; nothing in a row, of the first version, and of what was rotated before ids were
    /// written down.
    pub key_id: Option<String>,
    pub created_at: Timestamp,
    pub activates_at: Timestamp,
    pub retires_at: Option<Timestamp>,
}

impl Version {
    pub fn is_accepted(&self, now: Timestamp) -> bool {
        self.retires_at.is_none_or(|at| now < at)
    }

    fn is_active(&self, now: Timestamp) -> bool {
        self.activates_at <= now && self.is_accepted(now)
    }
}

/// A version with its key, where this process has it.
#[derive(Debug, Clone)]
pub struct Link<K> {
    pub version: Version,
    pub key: Option<Arc<K>>,
}

/// No key of a ring is at hand: its store is away for too long.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no version of {0} is at hand: its store is away, or this node may not read it")]
pub struct NoKey(pub &'static str);

impl From<NoKey> for Problem {
    fn from(error: NoKey) -> Problem {
        UNAVAILABLE.detail(format!("{error}. Try again later."))
    }
}

/// The versions of one ring, oldest first.
pub struct Ring<K> {
    name: RingName,
    links: ArcSwap<Vec<Link<K>>>,
}

impl<K> Ring<K> {
    pub(super) fn new(name: RingName, links: Vec<Link<K>>) -> Ring<K> {
        Ring {
            name,
            links: ArcSwap::from_pointee(links),
        }
    }

    pub(super) fn links(&self) -> Arc<Vec<Link<K>>> {
        self.links.load_full()
    }

    pub(super) fn set(&self, links: Vec<Link<K>>) {
        self.links.store(Arc::new(links));
    }

    /// Takes the value of a version, where the ring has that version and no value of it.
    pub(super) fn take(&self, version: &Version, key: &Arc<K>) {
        self.links.rcu(|links| {
            let with = |link: &Link<K>| {
                let is_it = link.key.is_none() && keeper::is_same_value(&link.version, version);
                Link {
                    version: link.version.clone(),
                    key: if is_it {
                        Some(Arc::clone(key))
                    } else {
                        link.key.clone()
                    },
                }
            };
            links.iter().map(with).collect::<Vec<Link<K>>>()
        });
    }

    /// The key that is used now: the newest active one. Where its value is not at hand, an older one that is still accepted does.
    pub fn current(&self, now: Timestamp) -> Result<Arc<K>, NoKey> {
        let links = self.links.load();
        in_use(&links, now)
            .into_iter()
            .find_map(|link| link.key.clone())
            .ok_or(NoKey(self.name.as_str()))
    }
}

/// The versions that are used now, the newest first. By a clock that stands before all of them, the first one is.
fn in_use<K>(links: &[Link<K>], now: Timestamp) -> Vec<&Link<K>> {
    let active: Vec<&Link<K>> = links
        .iter()
        .rev()
        .filter(|link| link.version.is_active(now))
        .collect();
    if active.is_empty() {
        links
            .iter()
            .filter(|link| link.version.is_accepted(now))
            .take(1)
            .collect()
    } else {
        active
    }
}

/// A ring of keys that sign tokens.
pub type TokenRing = Ring<SigningKey>;

impl Ring<SigningKey> {
    /// The public key with this id, if what it signed is accepted. It needs no store where the log vouches for the public key of
    /// the row: see [`super::vouched`].
    pub fn public(&self, id: &KeyId, now: Timestamp) -> Option<PublicKey> {
        let links = self.links.load();
        let mut accepted = links.iter().filter(|link| link.version.is_accepted(now));
        accepted.find_map(|link| {
            let public = match (&link.key, &link.version.public_key) {
                (Some(key), _) => key.public().clone(),
                (None, Some(spki)) => PublicKey::from_spki_der(spki).ok()?,
                (None, None) => return None,
            };
            (public.key_id() == *id).then_some(public)
        })
    }
}

/// A ring of keys that seal.
pub type SealingRing = Ring<SealingKey>;

impl Ring<SealingKey> {
    /// Seals a secret with the newest key; see [`SealingKey::seal`].
    pub fn seal(
        &self,
        tenant: TenantId,
        context: &str,
        secret: &SecretText,
        now: Timestamp,
    ) -> Result<Vec<u8>, NoKey> {
        let links = self.links.load();
        // What is sealed stays: a key whose end is known seals nothing any more.
        let lasting = in_use(&links, now).into_iter();
        let mut lasting = lasting.filter(|link| link.version.retires_at.is_none());
        let key = lasting.find_map(|link| link.key.as_ref());
        Ok(key
            .ok_or(NoKey(self.name.as_str()))?
            .seal(tenant, context, secret))
    }

    /// Whether the value of the newest active version is at hand: only then it can be said what an earlier one sealed.
    pub fn has_newest(&self, now: Timestamp) -> bool {
        let links = self.links.load();
        in_use(&links, now)
            .first()
            .is_some_and(|newest| newest.key.is_some())
    }

    /// Whether the value of every version that is not retired is at hand: only then is what does not open lost.
    pub fn is_whole(&self) -> bool {
        let links = self.links.load();
        !links.is_empty() && links.iter().all(|link| link.key.is_some())
    }

    /// Opens what any key of the ring sealed.
    pub fn unseal(&self, tenant: TenantId, context: &str, sealed: &[u8]) -> Result<SecretText, UnsealError> {
        let links = self.links.load();
        let mut keys = links.iter().filter_map(|link| link.key.as_ref());
        match keys.find(|key| key.sealed(sealed)) {
            Some(key) => key.unseal(tenant, context, sealed),
            // What no key sealed is damaged; what another key sealed is said so.
            None => match links.last().and_then(|link| link.key.as_ref()) {
                Some(key) => key.unseal(tenant, context, sealed),
                None => Err(UnsealError::Away),
            },
        }
    }

    /// What everything begins with that is sealed with the key that is used now; nothing where none is at hand.
    pub fn head(&self, now: Timestamp) -> Option<Vec<u8>> {
        self.current(now).ok().map(|key| key.head())
    }

    /// Whether something is sealed with another key than the one that is used now.
    pub fn is_old(&self, sealed: &[u8], now: Timestamp) -> bool {
        self.current(now).is_ok_and(|key| !key.sealed(sealed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000 + seconds)
    }

    fn version(number: i64, activates: i64, retires: Option<i64>) -> Version {
        Version {
            number,
            place: "file".to_owned(),
            store_version: String::new(),
            public_key: None,
            key_id: None,
            created_at: at(0),
            activates_at: at(activates),
            retires_at: retires.map(at),
        }
    }

    fn key() -> Arc<SigningKey> {
        Arc::new(SigningKey::generate_p256().expect("a key"))
    }

    fn ring(links: Vec<(Version, Option<Arc<SigningKey>>)>) -> TokenRing {
        let links = links.into_iter().map(|(version, key)| Link { version, key });
        Ring::new(RingName::AccessTokens, links.collect())
    }

    #[test]
    fn a_version_is_accepted_before_it_signs_and_after_the_next_one_does() {
        let (old, new) = (key(), key());
        let ring = ring(vec![
            (version(1, -100, Some(70)), Some(Arc::clone(&old))),
            (version(2, 10, None), Some(Arc::clone(&new))),
        ]);
        let signer = |seconds| ring.current(at(seconds)).map(|key| key.key_id());
        assert_eq!(signer(9), Ok(old.key_id()));
        assert_eq!(signer(10), Ok(new.key_id()));
        for (key, until) in [(&old, 69), (&new, 1_000_000)] {
            assert!(ring.public(&key.key_id(), at(0)).is_some());
            assert!(ring.public(&key.key_id(), at(until)).is_some());
        }
        assert!(ring.public(&old.key_id(), at(70)).is_none());
    }

    #[test]
    fn l10_a_clock_that_stands_before_the_first_version_uses_it() {
        let (old, new) = (key(), key());
        let ring = ring(vec![
            (version(1, 100, Some(900)), Some(Arc::clone(&old))),
            (version(2, 200, None), Some(Arc::clone(&new))),
        ]);
        assert_eq!(ring.current(at(0)).map(|key| key.key_id()), Ok(old.key_id()));
        assert_eq!(ring.current(at(200)).map(|key| key.key_id()), Ok(new.key_id()));
    }

    #[test]
    fn l9_a_version_whose_value_is_away_leaves_the_one_before_at_work_and_is_still_verified() {
        let (old, new) = (key(), key());
        let mut second = version(2, 10, None);
        second.public_key = Some(new.public().spki_der());
        let both = ring(vec![
            (version(1, -100, Some(70)), Some(Arc::clone(&old))),
            (second.clone(), None),
        ]);
        assert_eq!(
            both.current(at(20)).map(|key| key.key_id()),
            Ok(old.key_id()),
            "the old one signs as long as it is accepted"
        );
        assert!(both.public(&new.key_id(), at(20)).is_some());
        assert!(both.current(at(71)).is_err());
        let none = ring(vec![(second, None)]);
        assert!(none.current(at(20)).is_err());
        assert!(none.public(&new.key_id(), at(20)).is_some());
    }

    proptest::proptest! {
        #[test]
        fn what_signs_now_is_accepted_until_its_tokens_are_over(steps in proptest::collection::vec(0_i64..5000, 1..8)) {
            // Rotations one after the other, each with its settling and overlap.
            let overlap = 3900;
            let mut versions = vec![version(1, -1, None)];
            let mut now = 0;
            for step in steps {
                now += step;
                let activates = now + 15;
                for before in versions.iter_mut().filter(|version| version.retires_at.is_none()) {
                    before.retires_at = Some(at(activates + overlap));
                }
                let number = i64::try_from(versions.len()).expect("few") + 1;
                versions.push(version(number, activates, None));
            }
            for second in (0..now + 6000).step_by(97) {
                let signer = versions.iter().rev().find(|version| version.is_active(at(second)));
                let signer = signer.expect("something signs at every moment");
                proptest::prop_assert!(signer.is_accepted(at(second + 3600)), "at {second}");
            }
        }
    }
}
