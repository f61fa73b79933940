//! `muster ca`: replacing an intermediate certificate authority with the help of the offline root.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use muster_control::{
    Clock,
    secrets::{self, AuthorityState, CaRole, KeyPlace, ceremony, write_private},
};

use crate::{config::Options, custody};

/// Certificates, requests and keys are far smaller.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// Verbs about the certificate authorities of an install. None of them needs the server to stop.
#[derive(Debug, Subcommand)]
#[command(after_help = "To replace the device CA:
  muster ca request --data-dir /var/lib/muster --out device-ca.csr            on the server
  muster ca sign --root-key root-ca-key.pem --root-certificate ca.pem --request device-ca.csr --out device-ca.pem
                                                                              where the root key is, offline
  muster ca install --data-dir /var/lib/muster --certificate device-ca.pem    on the server
  muster ca retire --data-dir /var/lib/muster ID                              when every device has renewed")]
pub enum CaCommand {
    /// List the authorities
    List(FolderArgs),
    /// Make a key for a new intermediate, and the request that the root is to sign
    Request(RequestArgs),
    /// Sign a request with the offline root key; needs no install
    Sign(SignArgs),
    /// Put a signed intermediate into service; the one before stays accepted
    Install(InstallArgs),
    /// End the acceptance of an intermediate and of every certificate that it signed
    Retire(RetireArgs),
}

#[derive(Debug, Args)]
pub struct FolderArgs {
    /// Data folder of the install
    #[arg(long, env = "MUSTER_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
}

/// What an intermediate is for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoleArg {
    Device,
    Listener,
}

impl From<RoleArg> for CaRole {
    fn from(role: RoleArg) -> CaRole {
        match role {
            RoleArg::Device => CaRole::Device,
            RoleArg::Listener => CaRole::Listener,
        }
    }
}

#[derive(Debug, Args)]
pub struct RequestArgs {
    #[command(flatten)]
    folder: FolderArgs,
    /// Settings file of the install
    #[arg(long, env = "MUSTER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// What the intermediate will sign
    #[arg(long, value_enum, default_value = "device")]
    role: RoleArg,
    /// Where the key is made, or is already: file, pkcs11:LABEL or vault:NAME [default: as --device-ca-key]
    #[arg(long, value_name = "PLACE")]
    key: Option<String>,
    /// Where the request is written (PEM)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Args)]
pub struct SignArgs {
    /// The root CA's key, from where it was carried to
    #[arg(long, value_name = "FILE")]
    root_key: PathBuf,
    /// The root CA's certificate: ca.pem of the install
    #[arg(long, value_name = "FILE")]
    root_certificate: PathBuf,
    /// The request to sign
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// What the intermediate may sign
    #[arg(long, value_enum, default_value = "device")]
    role: RoleArg,
    /// Where the certificate is written (PEM)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Debug, Args)]
pub struct InstallArgs {
    #[command(flatten)]
    folder: FolderArgs,
    /// The certificate that the root signed
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
}

#[derive(Debug, Args)]
pub struct RetireArgs {
    #[command(flatten)]
    folder: FolderArgs,
    /// The id of the authority, as `muster ca list` says it
    id: String,
}

/// Runs a verb about authorities.
pub async fn run(command: CaCommand) -> Result<()> {
    let now = Clock::System.now();
    match command {
        CaCommand::List(args) => list(&args),
        CaCommand::Request(args) => request(args).await,
        CaCommand::Sign(args) => sign(&args),
        CaCommand::Install(args) => {
            let folder = keys_folder(&args.folder)?;
            let id = ceremony::install(&folder, &read(&args.certificate)?, now)?;
            say!("The authority {id} is in service. Running nodes follow within seconds.");
            say!("Nodes with a copy of `keys/` need the new copy before devices reach them.");
            Ok(())
        }
        CaCommand::Retire(args) => {
            let before = ceremony::retire(&keys_folder(&args.folder)?, &args.id, now)?;
            match before {
                AuthorityState::Requested => say!("The request {} is forgotten.", args.id),
                AuthorityState::Active | AuthorityState::Superseded => {
                    say!(
                        "The authority {} is retired: nothing that it signed is accepted.",
                        args.id
                    );
                }
                AuthorityState::Retired => say!("The authority {} was retired before.", args.id),
            }
            Ok(())
        }
    }
}

fn list(args: &FolderArgs) -> Result<()> {
    for listed in ceremony::list(&keys_folder(args)?)? {
        let record = listed.record;
        let until = match listed.not_after {
            Some(until) => format!("until {until}"),
            None => "waits for its certificate".to_owned(),
        };
        say!(
            "{}  {:8}  {:10}  {}  key {}",
            record.id,
            record.role.as_str(),
            record.state.as_str(),
            until,
            record.key
        );
    }
    Ok(())
}

async fn request(args: RequestArgs) -> Result<()> {
    let folder = keys_folder(&args.folder)?;
    let options = args.options.with_file(args.config.as_deref())?;
    let custody = custody::of(&options)?;
    let role = CaRole::from(args.role);
    let place = match (&args.key, role) {
        (Some(text), _) => text.parse().context("--key cannot be used")?,
        (None, CaRole::Device) => custody.device_ca_key.clone(),
        (None, CaRole::Listener) => KeyPlace::File,
    };
    custody::check_place(&custody, &place)?;
    let (id, text) = ceremony::request(&folder, role, &place, &custody, Clock::System.now()).await?;
    write_private(&args.out, text.as_bytes())?;
    say!(
        "The request of the {} CA {id} is {}. Sign it where the root key is: muster ca sign",
        role.as_str(),
        args.out.display()
    );
    Ok(())
}

fn sign(args: &SignArgs) -> Result<()> {
    let key = read(&args.root_key)?;
    let key = std::str::from_utf8(&key).context("the root key is not PEM text")?;
    let role = CaRole::from(args.role);
    let (id, text) = ceremony::sign(
        key,
        &read(&args.root_certificate)?,
        role,
        &read(&args.request)?,
        Clock::System.now(),
    )?;
    write_private(&args.out, text.as_bytes())?;
    say!(
        "The certificate of the {} CA {id} is {}. Compare the id with the one that `muster ca request` said.",
        role.as_str(),
        args.out.display()
    );
    Ok(())
}

fn keys_folder(args: &FolderArgs) -> Result<PathBuf> {
    let folder = secrets::keys_folder(&args.data_dir);
    if !folder.is_dir() {
        bail!(
            "{} is not the data folder of an install: it has no folder `keys`",
            args.data_dir.display()
        );
    }
    Ok(folder)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}
