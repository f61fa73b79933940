//! Anti-replay nonces (RFC 8555 §6.5): stamped, so that handing one out stores nothing, and kept once used, so that no node
//! takes it twice.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use muster_model::Timestamp;
use subtle::ConstantTimeEq;

use super::keys::AcmeKeys;

/// How long a nonce may wait for its request.
pub const NONCE_SECONDS: u64 = 600;
const RANDOM_BYTES: usize = 16;
const TIME_BYTES: usize = 8;
const STAMP_BYTES: usize = 16;
const BYTES: usize = RANDOM_BYTES + TIME_BYTES + STAMP_BYTES;
const TEXT_BYTES_MAX: usize = 2 * BYTES;

/// A nonce of ours that has not expired. Whether it was used is for the database to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamped {
    pub random: [u8; RANDOM_BYTES],
    pub expires_at: Timestamp,
}

/// Makes a nonce from randomness.
pub fn issue(keys: &AcmeKeys, random: [u8; RANDOM_BYTES], now: Timestamp) -> String {
    let expires_at = now.plus(Duration::from_secs(NONCE_SECONDS)).as_unix_seconds();
    let content = [random.as_slice(), &expires_at.to_be_bytes()].concat();
    let stamp = keys.stamp(&content);
    URL_SAFE_NO_PAD.encode([content.as_slice(), &stamp.as_ref()[..STAMP_BYTES]].concat())
}

/// Reads a nonce; none when it is not ours, or too old.
pub fn read(keys: &AcmeKeys, text: &str, now: Timestamp) -> Option<Stamped> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let bytes: [u8; BYTES] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let (content, stamp) = bytes.split_at(RANDOM_BYTES + TIME_BYTES);
    let expected = keys.stamp(content);
    let genuine: bool = stamp.ct_eq(&expected.as_ref()[..STAMP_BYTES]).into();
    if !genuine {
        return None;
    }
    let (random, time) = content.split_first_chunk::<RANDOM_BYTES>()?;
    let expires_at = Timestamp::from_unix_seconds(i64::from_be_bytes(time.try_into().ok()?));
    (now < expires_at).then_some(Stamped {
        random: *random,
        expires_at,
    })
}

#[cfg(test)]
mod tests {
    use muster_model::TenantId;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn keys(tenant: u128) -> AcmeKeys {
        AcmeKeys::derive(b"secret", TenantId::from_uuid(Uuid::from_u128(tenant))).expect("keys")
    }

    #[test]
    fn a_nonce_is_read_by_its_tenant_until_it_expires() {
        let now = Timestamp::from_unix_seconds(1_800_000_000);
        let nonce = issue(&keys(1), [5; RANDOM_BYTES], now);
        let later = |seconds| now.plus(Duration::from_secs(seconds));
        let read_at = |tenant, at| read(&keys(tenant), &nonce, at).map(|nonce| nonce.random);
        assert_eq!(read_at(1, later(NONCE_SECONDS - 1)), Some([5; RANDOM_BYTES]));
        assert_eq!(read_at(1, later(NONCE_SECONDS)), None);
        assert_eq!(read_at(2, now), None);
    }

    proptest! {
        #[test]
        fn no_other_text_is_a_nonce(text in ".{0,80}", at in 0_usize..54, to in proptest::char::range('a', 'z')) {
            let now = Timestamp::from_unix_seconds(1_800_000_000);
            prop_assert_eq!(read(&keys(1), &text, now), None);
            let good = issue(&keys(1), [5; RANDOM_BYTES], now);
            let mut bent: Vec<char> = good.chars().collect();
            bent[at] = to;
            let bent: String = bent.into_iter().collect();
            prop_assume!(bent != good);
            prop_assert_eq!(read(&keys(1), &bent, now), None);
        }
    }
}
