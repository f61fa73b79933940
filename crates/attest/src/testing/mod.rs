//! Makers of attestation evidence, valid or bent on purpose, for tests, the farm and the benchmarks. Keys are made at
//! run time; there is no fixture with a private key.
//!
//! What is made here is as good as genuine to whoever trusts its makers' roots, so a server must trust them only in tests.

mod android;
mod apple;
mod authority;
mod bench;
pub mod der;
mod event_log;
mod object;
mod tpm;

pub use android::{AndroidChain, AndroidMaker, KeyDescription, RootOfTrust};
pub use apple::{AppleChain, AppleMaker, AppleProperties};
pub use authority::{Authority, CertificateSpec, KeyPair};
pub use bench::{BenchCase, bench_cases};
pub use event_log::{LogEvent, event_log, replayed, secure_boot_event};
pub use object::{android_object, apple_object, tpm_object};
pub use tpm::{
    EkKind, Maker, PublicArea, Quote, SoftwareTpm, ak_certificate_spec, certify_attest, quote_attest,
};

/// 32 random bytes, for challenges and secrets.
pub fn random() -> [u8; 32] {
    random_bytes()
}

/// Random bytes.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system gives randomness");
    bytes
}
