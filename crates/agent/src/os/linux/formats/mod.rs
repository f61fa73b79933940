//! The configuration formats that settings are written in and read back from: text in, values or text out.
//!
//! Editors change one line and keep every other byte; parsers answer what the owning program would see.

pub(crate) mod apt;
pub(crate) mod ini;
pub(crate) mod key_value;
pub(crate) mod modprobe;
pub(crate) mod pam;
pub(crate) mod sshd;
pub(crate) mod sysctl;
