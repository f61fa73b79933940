//! UUIDs and tokens that follow from what they name, so that the same policy is the same bytes.

use aws_lc_rs::digest::{SHA256, digest};
use uuid::{Builder, Uuid};

/// A UUID of version 8 (RFC 9562 section 5.8): SHA-256 over the seed and the parts, each with its length.
pub(crate) fn derive(seed: Uuid, parts: &[&str]) -> Uuid {
    let mut text = seed.as_bytes().to_vec();
    for part in parts {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part.as_bytes());
    }
    let digest = digest(&SHA256, &text);
    let bytes = digest.as_ref()[..16].try_into().expect("a digest has 32 bytes");
    Builder::from_custom_bytes(bytes).into_uuid()
}

/// SHA-256, lower hex.
pub(crate) fn hex_sha256(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cannot_run_into_each_other() {
        let seed = Uuid::nil();
        assert_eq!(derive(seed, &["a", "b"]), derive(seed, &["a", "b"]));
        assert_ne!(derive(seed, &["a", "b"]), derive(seed, &["ab"]));
        assert_ne!(derive(seed, &["a", ""]), derive(seed, &["a"]));
        assert_ne!(derive(seed, &["a"]), derive(Uuid::max(), &["a"]));
    }
}
