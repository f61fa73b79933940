//! The keys with which this server proves who it is to a provider (`private_key_jwt`), as they are sealed: the newest one whose turn
//! has come signs, and all are published, so that a provider that keeps our key set meets no key that is not in it. Pure.

use std::time::Duration;

use muster_model::Timestamp;
use muster_trust::key::SigningKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::{access::problem::Problem, secrets::SecretText};

/// How long a key is published before it signs, and after the next one does: providers read key sets again within hours.
const SHOWN_BEFORE: Duration = Duration::from_secs(86_400);
const SHOWN_AFTER: Duration = Duration::from_secs(86_400);
/// Keys of one connection: the one that signs, and one that waits or is about to go.
const KEYS_MAX: usize = 3;

#[derive(Serialize, Deserialize)]
struct OwnKey {
    /// PKCS#8, PEM.
    pem: String,
    /// From when on it signs, in microseconds.
    from: i64,
}

impl Drop for OwnKey {
    fn drop(&mut self) {
        self.pem.zeroize();
    }
}

/// The keys of a connection, the oldest first; at least one.
#[derive(Serialize, Deserialize)]
pub(in crate::access) struct OwnKeys {
    keys: Vec<OwnKey>,
}

impl OwnKeys {
    /// One key, which signs at once.
    pub fn first() -> Result<OwnKeys, Problem> {
        Ok(OwnKeys {
            keys: vec![fresh(Timestamp::from_micros(0))?],
        })
    }

    /// What is sealed: keys, or the one key of before there were several.
    pub fn read(text: &SecretText) -> Result<OwnKeys, Problem> {
        if text.reveal().starts_with("-----BEGIN") {
            return Ok(OwnKeys {
                keys: vec![OwnKey {
                    pem: text.reveal().to_owned(),
                    from: 0,
                }],
            });
        }
        let read: OwnKeys = serde_json::from_str(text.reveal())
            .map_err(|_| Problem::internal("the keys of a connection cannot be read"))?;
        if read.keys.is_empty() || read.keys.len() > KEYS_MAX {
            return Err(Problem::internal("a connection has one to three keys"));
        }
        Ok(read)
    }

    pub fn text(&self) -> Result<SecretText, Problem> {
        serde_json::to_string(self)
            .map(SecretText::new)
            .map_err(Problem::internal)
    }

    /// With another key, which signs in a day. One that still waits for its turn makes room for it; one that is over goes.
    pub fn with_next(mut self, now: Timestamp) -> Result<OwnKeys, Problem> {
        let signs = self.signs(now);
        self.keys.truncate(signs + 1);
        let over = self.shown_from(now);
        self.keys.drain(..over);
        self.keys.push(fresh(now.plus(SHOWN_BEFORE))?);
        Ok(self)
    }

    /// The key that signs.
    pub fn signer(&self, now: Timestamp) -> Result<SigningKey, Problem> {
        opened(&self.keys[self.signs(now)])
    }

    /// The keys that are published.
    pub fn published(&self, now: Timestamp) -> Result<Vec<SigningKey>, Problem> {
        self.keys[self.shown_from(now)..].iter().map(opened).collect()
    }

    /// The place of the key that signs; by a clock that stands before all of them, the first one does.
    fn signs(&self, now: Timestamp) -> usize {
        let signs = |key: &OwnKey| key.from <= now.as_micros();
        self.keys.iter().rposition(signs).unwrap_or(0)
    }

    /// The place of the oldest key that is published.
    fn shown_from(&self, now: Timestamp) -> usize {
        let is_over = |next: &OwnKey| Timestamp::from_micros(next.from).plus(SHOWN_AFTER) <= now;
        self.keys.iter().skip(1).take_while(|next| is_over(next)).count()
    }
}

fn fresh(from: Timestamp) -> Result<OwnKey, Problem> {
    let key = SigningKey::generate_p256().map_err(Problem::internal)?;
    Ok(OwnKey {
        pem: key.to_pkcs8_pem().map_err(Problem::internal)?.to_string(),
        from: from.as_micros(),
    })
}

fn opened(key: &OwnKey) -> Result<SigningKey, Problem> {
    SigningKey::from_pkcs8_pem(&key.pem).map_err(Problem::internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn ids(keys: &[SigningKey]) -> Vec<String> {
        keys.iter().map(|key| key.key_id().to_string()).collect()
    }

    #[test]
    fn the_next_key_is_published_before_it_signs_and_the_old_one_goes_a_day_after() {
        let now = Timestamp::from_unix_seconds(1_800_000_000);
        let first = OwnKeys::first().expect("a key");
        let old = first.signer(now).expect("it signs").key_id();
        let both = first.with_next(now).expect("another key");
        let both = OwnKeys::read(&both.text().expect("it is written")).expect("it is read");
        assert_eq!(both.published(now).expect("keys").len(), 2);
        assert_eq!(
            both.signer(now.plus(DAY - Duration::from_secs(1)))
                .expect("it signs")
                .key_id(),
            old
        );
        let new = both.signer(now.plus(DAY)).expect("it signs").key_id();
        assert_ne!(new, old);
        assert_eq!(
            both.published(now.plus(DAY * 2 - Duration::from_secs(1)))
                .expect("keys")
                .len(),
            2
        );
        let late = both.published(now.plus(DAY * 2)).expect("keys");
        assert_eq!(ids(&late), [new.to_string()]);
        // Asked for again and again: one signs, one waits.
        let mut keys = both;
        for hour in 0..50 {
            keys = keys
                .with_next(now.plus(Duration::from_secs(3600 * hour)))
                .expect("another key");
            assert!(keys.keys.len() <= KEYS_MAX);
        }
    }

    #[test]
    fn a_key_of_before_there_were_several_goes_on() {
        let key = SigningKey::generate_p256().expect("a key");
        let pem = SecretText::new(key.to_pkcs8_pem().expect("it is written").to_string());
        let now = Timestamp::from_unix_seconds(1_800_000_000);
        let read = OwnKeys::read(&pem).expect("it is read");
        assert_eq!(read.signer(now).expect("it signs").key_id(), key.key_id());
        for wrong in ["", "{}", r#"{"keys":[]}"#, "x"] {
            assert!(
                OwnKeys::read(&SecretText::new(wrong.to_owned())).is_err(),
                "{wrong}"
            );
        }
    }

    proptest::proptest! {
        #[test]
        fn random_text_is_no_key_and_never_panics(text in ".{0,200}") {
            proptest::prop_assert!(OwnKeys::read(&SecretText::new(text)).and_then(|keys| keys.signer(Timestamp::from_micros(0))).is_err());
        }
    }
}
