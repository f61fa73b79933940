//! `muster key …`: keys that live with people and pipelines.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use muster_trust::key::SigningKey;
use serde_json::json;

use crate::CliError;
use crate::context::read_file;
use crate::output::{Printer, Sheet};

/// Verbs of keys.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum KeyCommand {
    /// Make a signing key (Ed25519) in a file that only its owner can read
    #[command(
        after_help = "Examples:\n  muster key generate --role policy --out policy.pem\n\nThe key signs nothing until the \
        tenant's root document names it. A file that is there is never overwritten."
    )]
    Generate {
        /// What the key is to sign
        #[arg(long, value_enum)]
        role: KeyRole,
        /// Where the private key is written (PKCS #8, PEM)
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Show the public half of a key file: what a root document names
    #[command(after_help = "Examples:\n  muster key show policy.pem")]
    Show { file: PathBuf },
}

/// Roles whose keys are made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyRole {
    /// Signs policy bundles.
    Policy,
}

/// Runs one verb.
pub fn run(command: KeyCommand, printer: &Printer) -> Result<(), CliError> {
    match command {
        KeyCommand::Generate { role, out } => {
            let key = generate(&out)?;
            let role = match role {
                KeyRole::Policy => "policy",
            };
            show(&key, Some(role), &out, printer)
        }
        KeyCommand::Show { file } => show(&read_key(&file)?, None, &file, printer),
    }
}

/// Reads a private key: PKCS #8 in PEM, as the server keeps it in `keys/tenants/TENANT/policy.pem`.
pub fn read_key(path: &Path) -> Result<SigningKey, CliError> {
    let content = |detail: String| CliError::Content {
        path: path.to_owned(),
        detail,
    };
    let text = String::from_utf8(read_file(path)?)
        .map_err(|_| content("not a private key: write PKCS #8 as PEM".to_owned()))?;
    SigningKey::from_pkcs8_pem(&text).map_err(|error| content(format!("not a private key: {error}")))
}

fn generate(path: &Path) -> Result<SigningKey, CliError> {
    let unusable = |error: muster_trust::key::KeyError| CliError::Failed(format!("no key was made: {error}"));
    let key = SigningKey::generate_ed25519().map_err(unusable)?;
    let pem = key.to_pkcs8_pem().map_err(unusable)?;
    let write = || -> std::io::Result<()> {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        file.write_all(pem.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|source| CliError::File {
        path: path.to_owned(),
        source,
    })?;
    Ok(key)
}

fn show(key: &SigningKey, role: Option<&str>, path: &Path, printer: &Printer) -> Result<(), CliError> {
    let (id, public) = (key.key_id().to_string(), key.public().to_pem());
    let value = json!({"role": role, "key_id": id, "public_key": public, "file": path});
    printer.answer(&value, |_| {
        Sheet::new()
            .fields(vec![
                ("role", role.map(str::to_owned)),
                ("key id", Some(id.clone())),
                ("private key in", Some(path.display().to_string())),
            ])
            .text(public.clone())
    })
}
