//! What keys are made from: public areas as `TPM2_CreatePrimary` and `TPM2_Create` take them.
//!
//! The endorsement keys follow the TCG "EK Credential Profile for TPM Family 2.0", annex B: the maker's certificate is over
//! the key that exactly this template gives.

use super::codec::Writer;
use super::ids::{alg, curve, object};

const FIXED: u32 = object::FIXED_TPM | object::FIXED_PARENT | object::SENSITIVE_DATA_ORIGIN;

/// What the TPM derives the attestation key from, so that it is no other program's.
const ATTESTATION_KEY_LABEL: &[u8; 32] = b"muster-agent attestation key 001";

/// "PolicyA": `TPM2_PolicySecret` of the endorsement hierarchy.
const POLICY_A_SHA256: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xB3, 0xF8, 0x1A, 0x90, 0xCC, 0x8D, 0x46, 0xA5, 0xD7, 0x24, 0xFD,
    0x52, 0xD7, 0x6E, 0x06, 0x52, 0x0B, 0x64, 0xF2, 0xA1, 0xDA, 0x1B, 0x33, 0x14, 0x69, 0xAA,
];
/// "PolicyB": PolicyA, or a policy that the platform stores in NV memory.
const POLICY_B_SHA256: [u8; 32] = [
    0xCA, 0x3D, 0x0A, 0x99, 0xA2, 0xB9, 0x39, 0x06, 0xF7, 0xA3, 0x34, 0x24, 0x14, 0xEF, 0xCF, 0xB3, 0xA3,
    0x85, 0xD4, 0x4C, 0xD1, 0xFD, 0x45, 0x90, 0x89, 0xD1, 0x9B, 0x50, 0x71, 0xC0, 0xB7, 0xA0,
];
/// The same with SHA-384.
const POLICY_B_SHA384: [u8; 48] = [
    0xB2, 0x6E, 0x7D, 0x28, 0xD1, 0x1A, 0x50, 0xBC, 0x53, 0xD8, 0x82, 0xBC, 0xF5, 0xFD, 0x3A, 0x1A, 0x07,
    0x41, 0x48, 0xBB, 0x35, 0xD3, 0xB4, 0xE4, 0xCB, 0x1C, 0x0A, 0xD9, 0xBD, 0xE4, 0x19, 0xCA, 0xCB, 0x47,
    0xBA, 0x09, 0x69, 0x96, 0x46, 0x15, 0x0F, 0x9F, 0xC0, 0x00, 0xF3, 0xF8, 0x0E, 0x12,
];

/// The templates of endorsement keys, by their names in the profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndorsementTemplate {
    /// L-1: RSA 2048.
    Rsa2048Low,
    /// L-2: P-256.
    P256Low,
    /// H-1: RSA 2048.
    Rsa2048High,
    /// H-2: P-256.
    P256High,
    /// H-3: P-384.
    P384High,
    /// H-6: RSA 3072.
    Rsa3072High,
}

impl EndorsementTemplate {
    /// The public area that gives the key.
    pub fn public(self) -> Vec<u8> {
        match self {
            Self::Rsa2048Low => rsa_endorsement(&LOW, 2048, &[0; 256]),
            Self::P256Low => ecc_endorsement(&LOW, curve::NIST_P256, &[0; 32]),
            Self::Rsa2048High => rsa_endorsement(&HIGH_SHA256, 2048, &[]),
            Self::P256High => ecc_endorsement(&HIGH_SHA256, curve::NIST_P256, &[]),
            Self::P384High => ecc_endorsement(&HIGH_SHA384, curve::NIST_P384, &[]),
            Self::Rsa3072High => rsa_endorsement(&HIGH_SHA384, 3072, &[]),
        }
    }
}

/// What the templates of one strength have in common.
struct Endorsement {
    name_algorithm: u16,
    attributes: u32,
    policy: &'static [u8],
    aes_bits: u16,
}

const ENDORSEMENT_ATTRIBUTES: u32 = FIXED | object::ADMIN_WITH_POLICY | object::RESTRICTED | object::DECRYPT;
const LOW: Endorsement = Endorsement {
    name_algorithm: alg::SHA256,
    attributes: ENDORSEMENT_ATTRIBUTES,
    policy: &POLICY_A_SHA256,
    aes_bits: 128,
};
const HIGH_SHA256: Endorsement = Endorsement {
    name_algorithm: alg::SHA256,
    attributes: ENDORSEMENT_ATTRIBUTES | object::USER_WITH_AUTH,
    policy: &POLICY_B_SHA256,
    aes_bits: 128,
};
const HIGH_SHA384: Endorsement = Endorsement {
    name_algorithm: alg::SHA384,
    attributes: ENDORSEMENT_ATTRIBUTES | object::USER_WITH_AUTH,
    policy: &POLICY_B_SHA384,
    aes_bits: 256,
};

fn head(kind: u16, name_algorithm: u16, attributes: u32, policy: &[u8]) -> Writer {
    let writer = Writer::default().short(kind).short(name_algorithm);
    writer.long(attributes).sized(policy)
}

/// AES in CFB mode for the keys below a storage key.
fn aes(writer: Writer, bits: u16) -> Writer {
    writer.short(alg::AES).short(bits).short(alg::CFB)
}

fn rsa_endorsement(common: &Endorsement, bits: u16, unique: &[u8]) -> Vec<u8> {
    let writer = head(alg::RSA, common.name_algorithm, common.attributes, common.policy);
    // An exponent of zero means 65537.
    let writer = aes(writer, common.aes_bits).short(alg::NULL).short(bits).long(0);
    writer.sized(unique).finish()
}

fn ecc_endorsement(common: &Endorsement, curve: u16, unique: &[u8]) -> Vec<u8> {
    let writer = head(alg::ECC, common.name_algorithm, common.attributes, common.policy);
    let writer = aes(writer, common.aes_bits).short(alg::NULL);
    let writer = writer.short(curve).short(alg::NULL);
    writer.sized(unique).sized(unique).finish()
}

/// The storage root key: a P-256 storage key without authorization, outside the dictionary attack protection (TCG
/// "TPM v2.0 Provisioning Guidance", 7.5.1). Nothing is put into `unique`, as other programs make it, OpenSSL's provider
/// among them: a key that is exported to them has the same parent there.
pub fn storage_root() -> Vec<u8> {
    let attributes = FIXED | object::USER_WITH_AUTH | object::NO_DA | object::RESTRICTED | object::DECRYPT;
    let writer = aes(head(alg::ECC, alg::SHA256, attributes, &[]), 128).short(alg::NULL);
    let writer = writer.short(curve::NIST_P256).short(alg::NULL);
    writer.sized(&[]).sized(&[]).finish()
}

/// The attestation key: restricted, so that it signs only what the TPM itself states.
pub fn attestation_key() -> Vec<u8> {
    let attributes = FIXED | object::USER_WITH_AUTH | object::NO_DA | object::RESTRICTED | object::SIGN;
    signing_key(attributes)
        .sized(ATTESTATION_KEY_LABEL)
        .sized(&[0; 32])
        .finish()
}

/// The device key: signs anything, leaves never.
pub fn device_key() -> Vec<u8> {
    let attributes = FIXED | object::USER_WITH_AUTH | object::NO_DA | object::SIGN;
    signing_key(attributes).sized(&[]).sized(&[]).finish()
}

/// P-256 with ECDSA and SHA-256 and nothing else.
fn signing_key(attributes: u32) -> Writer {
    let writer = head(alg::ECC, alg::SHA256, attributes, &[]).short(alg::NULL);
    let writer = writer.short(alg::ECDSA).short(alg::SHA256);
    writer.short(curve::NIST_P256).short(alg::NULL)
}

/// Every template, as material for tests of the codec.
#[cfg(test)]
pub(super) fn all() -> Vec<Vec<u8>> {
    vec![
        storage_root(),
        attestation_key(),
        device_key(),
        EndorsementTemplate::Rsa2048Low.public(),
        EndorsementTemplate::P256Low.public(),
        EndorsementTemplate::P384High.public(),
        EndorsementTemplate::Rsa3072High.public(),
        EndorsementTemplate::P256High.public(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::digest::{Algorithm, SHA256, SHA384, digest};

    /// `TPM2_PolicySecret(TPM_RH_ENDORSEMENT)` without a policy reference (part 3, 23.4).
    fn policy_secret(algorithm: &'static Algorithm) -> Vec<u8> {
        let zeros = vec![0; algorithm.output_len()];
        let extended = [&zeros[..], &[0, 0, 1, 0x51], &[0x40, 0, 0, 0x0B]].concat();
        let first = digest(algorithm, &extended);
        digest(algorithm, first.as_ref()).as_ref().to_vec()
    }

    /// `TPM2_PolicyOR` (part 3, 23.6).
    fn policy_or(algorithm: &'static Algorithm, branches: [&[u8]; 2]) -> Vec<u8> {
        let zeros = vec![0; algorithm.output_len()];
        let extended = [&zeros[..], &[0, 0, 1, 0x71], branches[0], branches[1]].concat();
        digest(algorithm, &extended).as_ref().to_vec()
    }

    #[test]
    fn the_policies_are_what_the_profile_computes() {
        assert_eq!(policy_secret(&SHA256), POLICY_A_SHA256);
        // "PolicyC" of the profile: TPM2_PolicyAuthorizeNV of 0x01C07F01 and 0x01C07F02.
        let policy_c = hex::decode("3767e2edd43ff45a3a7e1eaefcef78643dca964632e7aad82c673a30d8633fde");
        let policy_c = policy_c.expect("hex");
        assert_eq!(policy_or(&SHA256, [&POLICY_A_SHA256, &policy_c]), POLICY_B_SHA256);
        let policy_c = hex::decode(
            "d6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5b4947c2d73e63005eed2dc2b3593d165",
        );
        let branches = (policy_secret(&SHA384), policy_c.expect("hex"));
        assert_eq!(policy_or(&SHA384, [&branches.0, &branches.1]), POLICY_B_SHA384);
    }

    #[test]
    fn the_device_key_is_not_restricted_and_the_attestation_key_is() {
        use crate::tpm::codec::Reader;
        let attributes = |template: &[u8]| {
            let mut reader = Reader::new(template);
            reader.take(4).expect("type and name algorithm");
            reader.long().expect("attributes")
        };
        assert_eq!(attributes(&device_key()), 0x0004_0472);
        assert_eq!(attributes(&attestation_key()), 0x0005_0472);
        assert_eq!(attributes(&storage_root()), 0x0003_0472);
    }
}
