//! What the tests share: a moment, and slices of vectors.

use std::time::Duration;

use muster_attest::Anchors;
use muster_attest::testing::Authority;
use muster_model::time::Timestamp;

/// The moment of every test that needs no other.
pub const NOW: Timestamp = Timestamp::from_unix_seconds(1_795_000_000);
/// A day.
pub const DAY: Duration = Duration::from_secs(24 * 3600);

/// Borrows each.
pub fn refs(certificates: &[Vec<u8>]) -> Vec<&[u8]> {
    certificates.iter().map(Vec::as_slice).collect()
}

/// Trusts one authority.
pub fn trust(authority: &Authority) -> Anchors {
    Anchors::from_der(authority.certificate()).expect("an authority")
}
