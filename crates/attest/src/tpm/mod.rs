//! TPM 2.0: from an endorsement certificate to a device key whose place is proved, and to the state the machine booted.
//!
//! 1. [`verify_endorsement`] reads which TPM it is; the key comes from the certificate, never from the client.
//! 2. [`read_attestation_key`] and [`read_device_key`] check what the keys may do.
//! 3. [`make_credential`] encrypts a secret that only a TPM which holds both endorsement and attestation key can read;
//!    [`verify_activation`] checks that it did.
//! 4. [`verify_certify`] and [`verify_quote`] check what the attestation key then says about the device key and the boot.
//!
//! Sources: TCG TPM 2.0 Library, part 1 (credential protection, 24; names, 16), part 2 (structures), part 3 (commands);
//! TCG EK Credential Profile 2.5; TCG PC Client Platform Firmware Profile 1.06 (event log).

mod attest;
mod credential;
mod endorsement;
mod event_log;
mod pcr;
mod public;
mod statement;
pub(crate) mod wire;

pub use attest::{QuoteFacts, verify_certify, verify_quote};
pub use credential::{Credential, ENTROPY_BYTES, activation_proof, make_credential, verify_activation};
pub use endorsement::{Endorsement, endorsement_of_known_key, verify_endorsement};
pub use event_log::{EVENT_LOG_BYTES_MAX, EVENTS_MAX, Event, SecureBoot, replay_event_log, secure_boot};
pub use pcr::{DEFAULT_SELECTION, InvalidPcrPolicy, PcrDigest, PcrPolicy};
pub use public::{AttestationKey, DeviceKey, read_attestation_key, read_device_key};
pub use statement::{StatementFacts, verify_statement};

#[cfg(any(test, feature = "testing"))]
pub(crate) use credential::{EkParameters, IDENTITY, integrity, kdf_a, kdf_e};
