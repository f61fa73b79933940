//! The little DER (X.690) that is written by hand: what wraps a signature, and what rcgen does not write.

/// ecdsa-with-SHA256 as an AlgorithmIdentifier (RFC 5758 section 3.2).
const ECDSA_WITH_SHA256: &[u8] = &[
    0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
];
/// id-ecPublicKey on prime256v1, and the BIT STRING's head before an uncompressed point (RFC 5480 section 2).
const P256_SPKI_HEAD: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The bytes of an uncompressed point of P-256.
pub const P256_POINT_BYTES: usize = 65;
pub const SEQUENCE: u8 = 0x30;
pub const INTEGER: u8 = 0x02;
pub const BIT_STRING: u8 = 0x03;

/// A value with its tag and length, from its parts.
pub fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut bytes = vec![tag];
    if length < 0x80 {
        bytes.push(u8::try_from(length).expect("it is below 0x80"));
    } else {
        let digits = length.to_be_bytes();
        let from = digits.iter().position(|digit| *digit != 0).unwrap_or(0);
        let count = u8::try_from(digits.len() - from).expect("a length has eight bytes at most");
        bytes.push(0x80 | count);
        bytes.extend_from_slice(&digits[from..]);
    }
    parts.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// What certificates, revocation lists and requests have in common: the signed part, its algorithm, its signature.
pub fn signed(content: &[u8], signature: &[u8]) -> Vec<u8> {
    let signature = value(BIT_STRING, &[&[0], signature]);
    value(SEQUENCE, &[content, ECDSA_WITH_SHA256, &signature])
}

/// `ECDSA-Sig-Value` (RFC 3279 section 2.2.3) of the two numbers that PKCS#11 answers one after the other.
pub fn ecdsa_signature(fixed: &[u8]) -> Option<Vec<u8>> {
    if fixed.is_empty() || !fixed.len().is_multiple_of(2) {
        return None;
    }
    let (r, s) = fixed.split_at(fixed.len() / 2);
    Some(value(SEQUENCE, &[&unsigned_integer(r), &unsigned_integer(s)]))
}

/// SubjectPublicKeyInfo of a P-256 point.
pub fn p256_spki(point: &[u8]) -> Vec<u8> {
    [P256_SPKI_HEAD, point].concat()
}

/// The point of a SubjectPublicKeyInfo, if it is one of P-256.
pub fn p256_point(spki: &[u8]) -> Option<&[u8]> {
    let point = spki.strip_prefix(P256_SPKI_HEAD)?;
    is_point(point).then_some(point)
}

/// Whether bytes look like an uncompressed point of P-256.
pub fn is_point(bytes: &[u8]) -> bool {
    bytes.len() == P256_POINT_BYTES && bytes[0] == 4
}

fn unsigned_integer(digits: &[u8]) -> Vec<u8> {
    let from = digits
        .iter()
        .position(|digit| *digit != 0)
        .unwrap_or(digits.len().saturating_sub(1));
    let digits = &digits[from..];
    let pad: &[u8] = if digits.first().is_some_and(|first| first & 0x80 != 0) {
        &[0]
    } else {
        &[]
    };
    value(INTEGER, &[pad, digits])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_as_short_as_they_can_be() {
        assert_eq!(value(4, &[&[7; 3]]), [4, 3, 7, 7, 7]);
        assert_eq!(value(4, &[&[7; 0x80]])[..3], [4, 0x81, 0x80]);
        assert_eq!(value(4, &[&[7; 0x100], &[8]])[..4], [4, 0x82, 1, 1]);
    }

    #[test]
    fn numbers_of_a_signature_are_positive_and_without_leading_zeros() {
        let fixed = [&[0_u8, 0x80][..], &[0, 0]].concat();
        assert_eq!(
            ecdsa_signature(&fixed).expect("it has two halves"),
            [0x30, 7, 2, 2, 0, 0x80, 2, 1, 0]
        );
        assert!(ecdsa_signature(&[1]).is_none());
        assert!(ecdsa_signature(&[]).is_none());
    }
}
