//! `muster key …`: keys that live with people and pipelines.

use std::path::{Path, PathBuf};

use muster_trust::key::SigningKey;
use serde_json::json;

use crate::CliError;
use crate::key_file::{self, NewPassphrase, PassphraseSource};
use crate::output::{Printer, Sheet};

/// Verbs of keys.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum KeyCommand {
    /// Make a signing key (Ed25519) in a file that only its owner can read
    #[command(
        after_help = "Examples:\n  muster key generate --role policy --out policy.pem\n  muster key generate --role root \
        --out root-key-4.pem\n\nThe key signs nothing until the tenant's root document names it. A file that is there is \
        never overwritten. A root key has a passphrase unless --no-passphrase says otherwise; other keys have one with \
        --passphrase-file."
    )]
    Generate {
        /// What the key is to sign
        #[arg(long, value_enum)]
        role: KeyRole,
        /// Where the private key is written (PKCS #8, PEM)
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        #[command(flatten)]
        passphrase: NewPassphrase,
    },
    /// Show the public half of a key file: what a root document names
    #[command(
        after_help = "Examples:\n  muster key show policy.pem\n  muster key show root-key-4.pem --public-out \
        root-key-4.pub"
    )]
    Show {
        file: PathBuf,
        /// Also write the public half into this file
        #[arg(long, value_name = "FILE")]
        public_out: Option<PathBuf>,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
}

/// Roles whose keys are made here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum KeyRole {
    /// Signs policy bundles and scripts.
    Policy,
    /// Signs root documents, offline.
    Root,
    /// Signs commands and desired states.
    Action,
    /// Signs checkpoints of the log.
    Log,
    /// Cosigns checkpoints of the log.
    Witness,
}

/// Runs one verb.
pub fn run(command: KeyCommand, printer: &Printer) -> Result<(), CliError> {
    match command {
        KeyCommand::Generate {
            role,
            out,
            passphrase,
        } => {
            let (word, is_with_people) = match role {
                KeyRole::Policy => ("policy", false),
                KeyRole::Root => ("root", true),
                KeyRole::Action => ("action", false),
                KeyRole::Log => ("log", false),
                KeyRole::Witness => ("witness", false),
            };
            // Programs start without anybody who could be asked.
            let passphrase = if is_with_people || passphrase.source.passphrase_file.is_some() {
                passphrase
            } else {
                NewPassphrase::none()
            };
            let key = key_file::generate(&out, &passphrase)?;
            show(&key, Some(word), &out, printer)
        }
        KeyCommand::Show {
            file,
            public_out,
            passphrase,
        } => {
            let key = key_file::read(&file, &passphrase)?;
            if let Some(path) = public_out {
                key_file::write_new(&path, key.public().to_pem().as_bytes(), 0o644)?;
            }
            show(&key, None, &file, printer)
        }
    }
}

/// Reads a private key: PKCS #8 in PEM, as the server keeps it in `keys/tenants/TENANT/policy.pem`.
pub fn read_key(path: &Path) -> Result<SigningKey, CliError> {
    key_file::read(path, &PassphraseSource::default())
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
