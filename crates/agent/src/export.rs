//! `muster-agent export`: certificate, key and authorities as files for the programs that get this machine onto a network.
//!
//! A key in a TPM stays there: its file is the form in which OpenSSL's TPM provider takes it (`TSS2 PRIVATE KEY`, "TPM 2.0
//! Key Format", draft-bottomley-tpm2-keys), and it is worth nothing without that TPM.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_channel_agent::Base64Bytes;

use crate::cli::ExportArgs;
use crate::device_key::DeviceKey;
use crate::error::AgentError;
use crate::identity::Identity;
use crate::spool::{self, Slot};

const PEM_LINE_CHARS: usize = 64;

/// Writes `device.pem`, `device.key` and `ca.pem` into the folder that the arguments name; answers their paths.
pub fn export(arguments: &ExportArgs) -> Result<Vec<PathBuf>, AgentError> {
    // Beside a running agent, which holds the lock of the folder.
    let identity: Identity =
        spool::peek(&arguments.state_dir, Slot::Identity)?.ok_or_else(|| AgentError::NotEnrolled {
            state_dir: arguments.state_dir.clone(),
        })?;
    let key = DeviceKey::load(&arguments.state_dir)?;
    let files = [
        ("device.pem", certificates(&identity.certificate_chain)),
        ("device.key", key.to_pem()?),
        ("ca.pem", certificates(&identity.ca_certificates)),
    ];
    let mut written = Vec::new();
    for (name, text) in files {
        let path = arguments.out.join(name);
        write(&arguments.out, &path, &text).map_err(|source| AgentError::Export {
            path: path.clone(),
            source,
        })?;
        written.push(path);
    }
    Ok(written)
}

/// A PEM block (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut block = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(PEM_LINE_CHARS) {
        block.push_str(&String::from_utf8_lossy(line));
        block.push('\n');
    }
    block.push_str(&format!("-----END {label}-----\n"));
    block
}

fn certificates(ders: &[Base64Bytes]) -> String {
    ders.iter().map(|der| pem("CERTIFICATE", &der.0)).collect()
}

/// Replaces a file as a whole, readable by its owner alone.
fn write(folder: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let fresh = path.with_extension("new");
    // Made anew: a file or link that somebody prepared is not written to.
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    File::open(folder)?.sync_all()
}
