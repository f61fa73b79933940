//! How a TPM is named on the command line and in the key file: the text form that the TPM tools share.

use std::fmt;
use std::path::{Path, PathBuf};

/// The kernel's resource manager for the first TPM.
pub const DEFAULT_DEVICE: &str = "/dev/tpmrm0";
/// Where a software TPM listens when no host is named.
const SWTPM_HOST: &str = "127.0.0.1";
/// Longest text that is parsed, in characters.
const TCTI_CHARS_MAX: usize = 4096;

/// The way to one TPM ("TPM command transmission interface").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tcti {
    /// A character device: `device:/dev/tpmrm0`.
    Device(PathBuf),
    /// A software TPM on a TCP port: `swtpm:host=127.0.0.1,port=2321`.
    SwtpmTcp { host: String, port: u16 },
    /// A software TPM on a Unix socket: `swtpm:path=/run/swtpm.sock`.
    SwtpmUnix(PathBuf),
}

/// Why a text names no TPM.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{reason}: a TPM is device:/dev/tpmrm0, swtpm:host=127.0.0.1,port=2321 or swtpm:path=/path/of/socket"
)]
pub struct TctiError {
    reason: String,
}

impl Tcti {
    /// Reads the text form.
    pub fn parse(text: &str) -> Result<Self, TctiError> {
        if text.len() > TCTI_CHARS_MAX {
            return Err(refused("the name is too long"));
        }
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match kind {
            "device" if rest.is_empty() => Err(refused("the device has no path")),
            "device" => Ok(Self::Device(PathBuf::from(rest))),
            "swtpm" => parse_swtpm(rest),
            _ => Err(refused(format!("{kind:?} is not a kind of TPM"))),
        }
    }

    /// The machine's own TPM.
    pub fn machine() -> Self {
        Self::Device(PathBuf::from(DEFAULT_DEVICE))
    }

    /// The same TPM under a path that does not depend on the current folder.
    pub fn absolute(self) -> Self {
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        match self {
            Self::Device(path) => Self::Device(absolute(path)),
            Self::SwtpmUnix(path) => Self::SwtpmUnix(absolute(path)),
            tcp @ Self::SwtpmTcp { .. } => tcp,
        }
    }

    /// The device file, which a sandbox has to leave writable.
    pub fn device_path(&self) -> Option<&Path> {
        match self {
            Self::Device(path) => Some(path),
            Self::SwtpmTcp { .. } | Self::SwtpmUnix(_) => None,
        }
    }
}

impl fmt::Display for Tcti {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => write!(formatter, "device:{}", path.display()),
            Self::SwtpmTcp { host, port } => write!(formatter, "swtpm:host={host},port={port}"),
            Self::SwtpmUnix(path) => write!(formatter, "swtpm:path={}", path.display()),
        }
    }
}

fn refused(reason: impl Into<String>) -> TctiError {
    TctiError {
        reason: reason.into(),
    }
}

fn parse_swtpm(text: &str) -> Result<Tcti, TctiError> {
    // A path may hold commas, so it stands alone.
    if let Some(path) = text.strip_prefix("path=") {
        if path.is_empty() {
            return Err(refused("the socket has no path"));
        }
        return Ok(Tcti::SwtpmUnix(PathBuf::from(path)));
    }
    let (mut host, mut port) = (None, None);
    for pair in text.split(',') {
        match pair.split_once('=') {
            Some(("host", value)) if host.is_none() && !value.is_empty() => host = Some(value.to_owned()),
            Some(("port", value)) if port.is_none() => {
                let number = value.parse().ok().filter(|number: &u16| *number != 0);
                port = Some(number.ok_or_else(|| refused(format!("{value:?} is not a port")))?);
            }
            _ => return Err(refused(format!("{pair:?} says nothing about a software TPM"))),
        }
    }
    Ok(Tcti::SwtpmTcp {
        host: host.unwrap_or_else(|| SWTPM_HOST.to_owned()),
        port: port.ok_or_else(|| refused("the software TPM has no port"))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_and_written_the_same() {
        for text in [
            "device:/dev/tpmrm0",
            "swtpm:host=127.0.0.1,port=2321",
            "swtpm:host=::1,port=65535",
            "swtpm:path=/run/a,b.sock",
        ] {
            assert_eq!(Tcti::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(
            Tcti::parse("swtpm:port=2321").expect("a port is enough"),
            Tcti::parse("swtpm:port=2321,host=127.0.0.1").expect("order does not matter")
        );
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "device",
            "device:",
            "swtpm",
            "swtpm:",
            "swtpm:path=",
            "swtpm:host=a",
            "swtpm:port=0",
            "swtpm:port=65536",
            "swtpm:port=1,port=2",
            "swtpm:host=,port=1",
            "swtpm:port=1,speed=9",
            "mssim:host=a,port=1",
            "/dev/tpmrm0",
        ] {
            let error = Tcti::parse(text).expect_err(text);
            assert!(error.to_string().contains("device:/dev/tpmrm0"), "{error}");
        }
    }

    #[test]
    fn a_relative_path_is_made_absolute() {
        let tcti = Tcti::parse("swtpm:path=tpm.sock").expect("it parses").absolute();
        assert!(matches!(tcti, Tcti::SwtpmUnix(path) if path.is_absolute()));
    }
}
