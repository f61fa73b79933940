//! The well-known roots that are shipped as data, in `roots/`, with their fingerprints and sources in its README.
//!
//! They are a beginning, not a boundary: manufacturers change their roots, so a tenant can add and leave out what it
//! likes. No intermediate is shipped: a device sends its own.

use crate::anchors::Anchors;

/// Google's two roots of Android Key Attestation, both of which devices of today lead to.
pub const ANDROID_PEM: &str = concat!(
    include_str!("../roots/android/hardware-attestation-root-2022.pem"),
    include_str!("../roots/android/key-attestation-ca1.pem"),
);

/// Apple's root of Managed Device Attestation.
pub const APPLE_PEM: &str = include_str!("../roots/apple/apple-enterprise-attestation-root-ca.pem");

/// Roots of TPM manufacturers: Infineon, STMicroelectronics (with GlobalSign above it), Nuvoton, Intel.
pub const TPM_PEM: &str = concat!(
    include_str!("../roots/tpm/infineon-optiga-ecc-root-ca.pem"),
    include_str!("../roots/tpm/infineon-optiga-rsa-root-ca.pem"),
    include_str!("../roots/tpm/globalsign-tpm-root-ca.pem"),
    include_str!("../roots/tpm/stm-rsa-root-ca.pem"),
    include_str!("../roots/tpm/stm-ecc-root-ca-01.pem"),
    include_str!("../roots/tpm/nuvoton-root-ca-1110.pem"),
    include_str!("../roots/tpm/nuvoton-root-ca-2110.pem"),
    include_str!("../roots/tpm/intel-ek-root.pem"),
);

/// The shipped roots of Android Key Attestation.
pub fn android() -> Anchors {
    shipped(ANDROID_PEM)
}

/// The shipped root of Apple's Managed Device Attestation.
pub fn apple() -> Anchors {
    shipped(APPLE_PEM)
}

/// The shipped roots of TPM manufacturers.
pub fn tpm() -> Anchors {
    shipped(TPM_PEM)
}

fn shipped(pem: &str) -> Anchors {
    Anchors::from_pem(pem).expect("the shipped roots are read by the tests of this crate")
}

#[cfg(test)]
mod tests {
    use super::{android, apple, tpm};

    fn fingerprints(anchors: &crate::Anchors) -> Vec<String> {
        anchors
            .names()
            .iter()
            .map(|name| hex::encode(name.sha256))
            .collect()
    }

    #[test]
    fn the_shipped_roots_are_those_whose_fingerprints_their_makers_publish() {
        assert_eq!(
            fingerprints(&android()),
            [
                "cedb1cb6dc896ae5ec797348bce9286753c2b38ee71ce0fbe34a9a1248800dfc",
                "6d9db4ce6c5c0b293166d08986e05774a8776ceb525d9e4329520de12ba4bcc0",
            ]
        );
        assert_eq!(
            fingerprints(&apple()),
            ["ccf59ef8fcb3017d97f8b5fa6fa90e7a3f9283f76b55ac6cf6eda8b8b949f05b"]
        );
    }

    #[test]
    fn the_readme_of_the_roots_names_every_fingerprint() {
        let readme = include_str!("../roots/README.md");
        let all = [android(), apple(), tpm()];
        assert_eq!(all.iter().map(crate::Anchors::len).sum::<usize>(), 11);
        for anchors in &all {
            for (fingerprint, name) in fingerprints(anchors).iter().zip(anchors.names()) {
                assert!(readme.contains(fingerprint), "{fingerprint} {}", name.subject);
                assert!(!name.subject.is_empty());
            }
        }
    }
}
