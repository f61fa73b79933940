//! How a device proved what it is, and whose it is.

use serde::{Deserialize, Serialize};

/// What stands behind a device's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttestationLevel {
    /// A software key: the device says what it is, and nothing proves it.
    Unattested,
    /// A key that a TPM 2.0 holds, proven by the TPM's endorsement certificate.
    Tpm2,
    /// A key of Android's trusted execution environment.
    AndroidTee,
    /// A key of Android's StrongBox.
    AndroidStrongbox,
    /// A key of Apple's Secure Enclave (Managed Device Attestation).
    Apple,
}

impl AttestationLevel {
    pub const ALL: [AttestationLevel; 5] = [
        AttestationLevel::Unattested,
        AttestationLevel::Tpm2,
        AttestationLevel::AndroidTee,
        AttestationLevel::AndroidStrongbox,
        AttestationLevel::Apple,
    ];

    /// The word on the wire and in storage.
    pub const fn as_str(self) -> &'static str {
        match self {
            AttestationLevel::Unattested => "unattested",
            AttestationLevel::Tpm2 => "tpm2",
            AttestationLevel::AndroidTee => "android_tee",
            AttestationLevel::AndroidStrongbox => "android_strongbox",
            AttestationLevel::Apple => "apple",
        }
    }

    /// The level that a word names.
    pub fn parse(word: &str) -> Option<AttestationLevel> {
        AttestationLevel::ALL
            .into_iter()
            .find(|level| level.as_str() == word)
    }

    /// Whether hardware vouched for the key.
    pub const fn is_attested(self) -> bool {
        !matches!(self, AttestationLevel::Unattested)
    }
}

/// Whose device it is. A personal device (BYOD) can never be given a full wipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ownership {
    Company,
    Personal,
}

impl Ownership {
    pub const ALL: [Ownership; 2] = [Ownership::Company, Ownership::Personal];

    /// The word on the wire and in storage.
    pub const fn as_str(self) -> &'static str {
        match self {
            Ownership::Company => "company",
            Ownership::Personal => "personal",
        }
    }

    /// The ownership that a word names.
    pub fn parse(word: &str) -> Option<Ownership> {
        Ownership::ALL
            .into_iter()
            .find(|ownership| ownership.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lead_back_to_their_values() {
        for level in AttestationLevel::ALL {
            assert_eq!(AttestationLevel::parse(level.as_str()), Some(level));
            assert_eq!(level.is_attested(), level != AttestationLevel::Unattested);
        }
        for ownership in Ownership::ALL {
            assert_eq!(Ownership::parse(ownership.as_str()), Some(ownership));
        }
        assert_eq!(AttestationLevel::parse("tpm"), None);
    }
}
