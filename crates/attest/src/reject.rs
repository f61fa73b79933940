//! Why evidence was refused: a closed set, each with a code that never changes and a sentence for the operator's log.
//!
//! A client is told no more than that it was refused: which check failed is for the log, so that nobody can search for
//! evidence that passes.

use std::fmt;

macro_rules! rejects {
    ($($name:ident = $code:literal, $meaning:literal;)*) => {
        /// Why evidence was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reject {
            $(#[doc = $meaning] $name,)*
        }

        /// Every code with its meaning, in the order of the pages of documentation.
        pub const ALL_CODES: &[(&str, &str)] = &[$(($code, $meaning),)*];

        impl Reject {
            /// Every refusal there is, in the order of [`ALL_CODES`].
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable code, such as `chain.unknown_root`.
            pub fn code(&self) -> &'static str {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// What it means, in one sentence.
            pub fn meaning(&self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)*
                }
            }
        }
    };
}

rejects! {
    // Trust anchors.
    AnchorsTooLarge = "anchors.too_large", "The set of trust anchors is longer than is read, or holds too many certificates.";
    AnchorsMalformed = "anchors.malformed", "The trust anchors are not PEM text.";
    AnchorsEmpty = "anchors.empty", "The text holds no certificate.";
    AnchorsNotAuthority = "anchors.not_authority", "A trust anchor is not a certificate authority.";

    // Certificates.
    CertificateTooLarge = "certificate.too_large", "A certificate is longer than is read.";
    CertificateMalformed = "certificate.malformed", "A certificate is not the DER encoding of an X.509 version 3 certificate.";
    CertificateTrailing = "certificate.trailing_bytes", "Bytes follow a certificate.";
    CertificateDuplicateExtension = "certificate.duplicate_extension", "A certificate holds one extension twice.";
    CertificateUnknownCritical = "certificate.unknown_critical_extension", "A certificate holds a critical extension that is not understood.";
    CertificateNameConstraints = "certificate.name_constraints", "A certificate holds name constraints, which are not understood.";
    CertificateSha1 = "certificate.sha1_signature", "A certificate is signed with SHA-1.";
    CertificateSignatureAlgorithm = "certificate.signature_algorithm", "A certificate is signed with an algorithm that is not accepted.";

    // Public keys.
    KeyMalformed = "key.malformed", "A public key is malformed.";
    KeyAlgorithm = "key.algorithm", "A public key is of a kind or on a curve that is not accepted.";
    KeyTooSmall = "key.too_small", "An RSA key has fewer than 2048 bits.";
    KeyTooLarge = "key.too_large", "An RSA key has more than 8192 bits.";
    KeyExponent = "key.exponent", "An RSA key has a public exponent below 65537.";

    // Chains.
    ChainEmpty = "chain.empty", "There is no certificate.";
    ChainTooLong = "chain.too_long", "There are more certificates than are read.";
    ChainUnknownRoot = "chain.unknown_root", "The certificates lead to no trust anchor.";
    ChainSignature = "chain.signature_invalid", "A certificate is not signed by the key of the issuer it names.";
    ChainOrder = "chain.out_of_order", "A certificate is not issued by the one after it.";
    ChainNotYetValid = "chain.not_yet_valid", "A certificate is not valid yet.";
    ChainExpired = "chain.expired", "A certificate has expired.";
    ChainAnchorExpired = "chain.anchor_expired", "The trust anchor is outside its validity.";
    ChainIssuerNotAuthority = "chain.issuer_not_authority", "An issuer is not a certificate authority.";
    ChainIssuerKeyUsage = "chain.issuer_key_usage", "An issuer's key is not meant for signing certificates.";
    ChainPathLength = "chain.path_length", "An issuer may not have that many certificates below it.";
    ChainLeafIsAuthority = "chain.leaf_is_authority", "The certificate of a device is a certificate authority.";

    // TPM: endorsement.
    EndorsementUsage = "tpm.endorsement.extended_key_usage", "The certificate is not that of an endorsement key.";
    EndorsementKeyUsage = "tpm.endorsement.key_usage", "The key of the endorsement certificate is not meant for encryption.";
    EndorsementAttributes = "tpm.endorsement.attributes", "The TPM attributes in the endorsement certificate are malformed.";

    // TPM: public areas.
    PublicMalformed = "tpm.public.malformed", "A public area is malformed.";
    PublicTrailing = "tpm.public.trailing_bytes", "Bytes follow a public area.";
    PublicAlgorithm = "tpm.public.algorithm", "A public area names an algorithm that is not accepted.";
    AttestationKeyNotFixed = "tpm.attestation_key.not_fixed", "The attestation key can leave its TPM.";
    AttestationKeyImported = "tpm.attestation_key.imported", "The attestation key was not made inside its TPM.";
    AttestationKeyUnrestricted = "tpm.attestation_key.unrestricted", "The attestation key signs data from outside its TPM.";
    AttestationKeyUsage = "tpm.attestation_key.usage", "The attestation key is not a signing key alone.";
    AttestationKeyScheme = "tpm.attestation_key.scheme", "The attestation key has no fixed signature scheme, or one with SHA-1.";
    DeviceKeyNotFixed = "tpm.device_key.not_fixed", "The device key can leave its TPM.";
    DeviceKeyImported = "tpm.device_key.imported", "The device key was not made inside its TPM.";
    DeviceKeyRestricted = "tpm.device_key.restricted", "The device key signs only what its TPM made.";
    DeviceKeyUsage = "tpm.device_key.usage", "The device key is not a signing key.";
    DeviceKeyScheme = "tpm.device_key.scheme", "The device key has a signature scheme that is not accepted.";

    // TPM: activation.
    CredentialEntropy = "tpm.credential.entropy", "The entropy for a credential gives no key; try again with other entropy.";
    CredentialKey = "tpm.credential.key", "The endorsement key encrypts nothing.";
    ActivationProof = "tpm.activation.proof_invalid", "The device has not shown that the attestation key lives beside the endorsement key.";

    // TPM: attested structures.
    AttestMalformed = "tpm.attest.malformed", "An attested structure is malformed.";
    AttestMagic = "tpm.attest.magic", "An attested structure was not made by a TPM.";
    AttestType = "tpm.attest.type", "An attested structure is of another type than was asked for.";
    AttestNonce = "tpm.attest.nonce_mismatch", "An attested structure was made for another challenge.";
    AttestSignature = "tpm.attest.signature_invalid", "An attested structure is not signed by the attestation key.";
    SignatureMalformed = "tpm.signature.malformed", "A TPM signature is malformed.";
    SignatureScheme = "tpm.signature.scheme", "A TPM signature is of another scheme than the attestation key's.";
    CertifyName = "tpm.certify.name_mismatch", "The TPM certified another key than the device's.";
    QuoteSelection = "tpm.quote.selection", "The quote covers other registers than were asked for.";
    QuoteValues = "tpm.quote.values", "The register values are not those that the TPM quoted.";
    QuotePolicy = "tpm.quote.policy", "A register holds a value that the policy does not allow.";
    EventLogTooLarge = "tpm.event_log.too_large", "The boot event log is longer than is read.";
    EventLogMalformed = "tpm.event_log.malformed", "The boot event log is malformed.";
    EventLogMismatch = "tpm.event_log.mismatch", "The boot event log does not give the quoted register values.";

    // TPM: the statement of ACME `device-attest-01`.
    StatementVersion = "tpm.statement.version", "The TPM statement is not of version 2.0.";
    StatementAlgorithm = "tpm.statement.algorithm", "The TPM statement names an algorithm that is not accepted or not the signature's.";
    StatementUsage = "tpm.statement.extended_key_usage", "The certificate is not that of an attestation key.";

    // Android.
    AndroidTooFew = "android.too_few_certificates", "An Android chain has at least three certificates.";
    AndroidRevoked = "android.revoked", "A certificate is on the list of revoked attestation keys.";
    AndroidSuspended = "android.suspended", "A certificate is on the list of suspended attestation keys.";
    AndroidListMalformed = "android.revocation_list_malformed", "The list of revoked attestation keys is malformed.";
    AndroidListStale = "android.revocation_list_stale", "The list of revoked attestation keys is too old to rely on.";
    AndroidNoDescription = "android.no_key_description", "The certificate of the key does not describe it.";
    AndroidExtended = "android.chain_extended", "An issuer's certificate describes an attested key: a device key signed a certificate.";
    AndroidMalformed = "android.key_description_malformed", "The description of the key is malformed.";
    AndroidChallenge = "android.challenge_mismatch", "The key was attested for another challenge.";
    AndroidSoftware = "android.software_level", "The key or its attestation lives in software.";
    AndroidLevelsDiffer = "android.levels_differ", "The key and its attestation live at different levels.";
    AndroidLevelTooLow = "android.level_too_low", "The key does not live in a StrongBox.";
    AndroidOrigin = "android.origin", "The hardware does not vouch that the key was generated inside it.";
    AndroidNoRootOfTrust = "android.no_root_of_trust", "The hardware does not vouch for the boot state.";
    AndroidUnlocked = "android.bootloader_unlocked", "The bootloader is unlocked.";
    AndroidBootState = "android.boot_unverified", "The system that booted is not verified.";
    AndroidPatchLevel = "android.patch_level", "The system's security patch is older than the rules allow, or not attested.";
    AndroidApplication = "android.application", "Another application than the agent made the key.";

    // Apple.
    AppleNoFreshness = "apple.no_freshness", "The attestation is bound to no challenge.";
    AppleFreshness = "apple.freshness_mismatch", "The attestation was made for another challenge.";
    AppleMalformed = "apple.property_malformed", "A property in the attestation is malformed.";

    // The attestation object.
    ObjectTooLarge = "object.too_large", "The attestation object is longer than is read.";
    ObjectTooComplex = "object.too_complex", "The attestation object is nested too deep or has too many parts.";
    ObjectMalformed = "object.malformed", "The attestation object is not deterministic CBOR.";
    ObjectFormat = "object.format", "The attestation object is of a format that is not accepted.";
    ObjectStatement = "object.statement", "The attestation statement lacks a field or holds one of the wrong type.";
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.meaning())
    }
}

impl std::error::Error for Reject {}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{ALL_CODES, Reject};

    #[test]
    fn every_refusal_has_a_code_of_its_own() {
        assert_eq!(Reject::ALL.len(), ALL_CODES.len());
        let codes: HashSet<&str> = ALL_CODES.iter().map(|(code, _)| *code).collect();
        let meanings: HashSet<&str> = ALL_CODES.iter().map(|(_, meaning)| *meaning).collect();
        assert_eq!(codes.len(), ALL_CODES.len());
        assert_eq!(meanings.len(), ALL_CODES.len());
        for (reject, (code, meaning)) in Reject::ALL.iter().zip(ALL_CODES) {
            assert_eq!(reject.code(), *code);
            assert_eq!(reject.to_string(), *meaning);
            assert!(meaning.ends_with('.'), "{meaning}");
            let shaped = code.split('.').all(|word| {
                !word.is_empty()
                    && word
                        .bytes()
                        .all(|byte| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit())
            });
            assert!(shaped && code.contains('.'), "{code}");
        }
    }
    #[test]
    fn the_book_lists_every_code_with_its_meaning_and_no_other() {
        let page = include_str!("../../../docs/reference/attestation-codes.md");
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(rows.len(), ALL_CODES.len());
        for (code, meaning) in ALL_CODES {
            assert!(
                rows.contains(&format!("| `{code}` | {meaning} |").as_str()),
                "{code}"
            );
        }
    }
}
