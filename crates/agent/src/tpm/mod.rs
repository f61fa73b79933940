//! TPM 2.0 without a library: the machine's key lives in the chip and never leaves it.
//!
//! Commands are the bytes of the TCG "TPM 2.0 Library" specification, part 3, sent over the kernel's `/dev/tpmrm0` or to a
//! software TPM. Part 2 has the structures.
//!
//! * [`tcti`]: how a TPM is named. `transport`: bytes to it and back, within limits. [`codec`]: the structures.
//! * [`client`]: one command and its answer, tried again where the TPM asks for it. `commands`: each command.
//! * [`keys`]: the device key. [`evidence`]: what enrollment proves with it.
//!
//! A TPM is open only while it is used. `/dev/tpmrm0` is shared with the rest of the machine, a suspend or a restart of the
//! TPM forgets what is loaded, and a software TPM serves one program at a time: an agent that holds it open would have to
//! notice all three. The price is to load the key for each signature, and the agent makes few: one for each connection,
//! report, receipt and renewal.

pub mod client;
pub mod codec;
mod commands;
mod error;
pub mod evidence;
mod ids;
pub mod keys;
pub mod tcti;
mod templates;
mod transport;

#[cfg(test)]
mod broken_tests;
#[cfg(test)]
pub(crate) mod swtpm;
#[cfg(test)]
mod swtpm_tests;

pub use client::Tpm;
pub use error::TpmError;
pub use tcti::Tcti;
