//! Why a certificate was revoked, in the words of RFC 5280 section 5.3.1.

use rcgen::RevocationReason as CrlReason;
use serde::{Deserialize, Serialize};

/// Why a certificate is revoked before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RevocationReason {
    Unspecified,
    /// The device's key is or may be in other hands.
    KeyCompromise,
    /// The authority's key is or may be in other hands.
    CaCompromise,
    /// What the certificate says of the device is no longer so.
    AffiliationChanged,
    /// Another certificate takes its place.
    Superseded,
    /// The device is no longer managed.
    CessationOfOperation,
    /// The device may no longer do what the certificate allows.
    PrivilegeWithdrawn,
    /// The device is in quarantine: its certificate counts for nobody until a person has decided. Nobody revokes with it.
    #[serde(skip_deserializing)]
    CertificateHold,
}

/// Reasons that other slices give in their own words, with what they mean to relying parties.
const IN_OTHER_WORDS: &[(&str, RevocationReason)] = &[
    ("enrolled again", RevocationReason::Superseded),
    ("the device was retired", RevocationReason::CessationOfOperation),
    (
        "the certificate authority was retired",
        RevocationReason::Superseded,
    ),
    (
        "revoked by an administrator",
        RevocationReason::PrivilegeWithdrawn,
    ),
];

impl RevocationReason {
    pub const ALL: [RevocationReason; 8] = [
        RevocationReason::Unspecified,
        RevocationReason::KeyCompromise,
        RevocationReason::CaCompromise,
        RevocationReason::AffiliationChanged,
        RevocationReason::Superseded,
        RevocationReason::CessationOfOperation,
        RevocationReason::PrivilegeWithdrawn,
        RevocationReason::CertificateHold,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            RevocationReason::Unspecified => "unspecified",
            RevocationReason::KeyCompromise => "key_compromise",
            RevocationReason::CaCompromise => "ca_compromise",
            RevocationReason::AffiliationChanged => "affiliation_changed",
            RevocationReason::Superseded => "superseded",
            RevocationReason::CessationOfOperation => "cessation_of_operation",
            RevocationReason::PrivilegeWithdrawn => "privilege_withdrawn",
            RevocationReason::CertificateHold => "certificate_hold",
        }
    }

    /// The reason behind a stored text. A text that is none of ours is no reason that a relying party would know.
    pub fn of(text: &str) -> RevocationReason {
        let own = RevocationReason::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text);
        let other = IN_OTHER_WORDS.iter().find(|(words, _)| *words == text);
        own.or(other.map(|(_, reason)| *reason))
            .unwrap_or(RevocationReason::Unspecified)
    }

    /// As a revocation list says it, which leaves the unspecified reason out.
    pub fn in_list(self) -> Option<CrlReason> {
        match self {
            RevocationReason::Unspecified => None,
            RevocationReason::KeyCompromise => Some(CrlReason::KeyCompromise),
            RevocationReason::CaCompromise => Some(CrlReason::CaCompromise),
            RevocationReason::AffiliationChanged => Some(CrlReason::AffiliationChanged),
            RevocationReason::Superseded => Some(CrlReason::Superseded),
            RevocationReason::CessationOfOperation => Some(CrlReason::CessationOfOperation),
            RevocationReason::PrivilegeWithdrawn => Some(CrlReason::PrivilegeWithdrawn),
            RevocationReason::CertificateHold => Some(CrlReason::CertificateHold),
        }
    }

    /// As an OCSP response says it.
    pub fn in_response(self) -> Option<x509_cert::ext::pkix::CrlReason> {
        use x509_cert::ext::pkix::CrlReason;
        match self {
            RevocationReason::Unspecified => None,
            RevocationReason::KeyCompromise => Some(CrlReason::KeyCompromise),
            RevocationReason::CaCompromise => Some(CrlReason::CaCompromise),
            RevocationReason::AffiliationChanged => Some(CrlReason::AffiliationChanged),
            RevocationReason::Superseded => Some(CrlReason::Superseded),
            RevocationReason::CessationOfOperation => Some(CrlReason::CessationOfOperation),
            RevocationReason::PrivilegeWithdrawn => Some(CrlReason::PrivilegeWithdrawn),
            RevocationReason::CertificateHold => Some(CrlReason::CertificateHold),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_read_as_they_are_written_and_strange_ones_are_unspecified() {
        for reason in RevocationReason::ALL {
            assert_eq!(RevocationReason::of(reason.as_str()), reason);
        }
        assert_eq!(
            RevocationReason::of("enrolled again"),
            RevocationReason::Superseded
        );
        assert_eq!(RevocationReason::of("?"), RevocationReason::Unspecified);
    }
}
