//! `muster root …`: whose keys devices obey. Documents are made and signed in files, on a machine without a network where that
//! is wanted; the server only publishes.

mod edit;
mod show;

use std::path::PathBuf;
use std::time::Duration;

use muster_model::Timestamp;
use muster_model::text::Name;
use muster_trust::approval::account_of;
use muster_trust::key::{Digest, SigningKey, sha256};
use muster_trust::root::{RelyingParty, Role, RootDocument};
use muster_trust::root_change::changes;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Answer, Api, Call};
use crate::key_file::{self, NewPassphrase, PassphraseSource};
use crate::output::Printer;
use crate::root_file::{Draft, RootFile};
use crate::{CliError, Globals, clock};
use edit::{Edit, Who};

/// How long a new document lives unless said otherwise.
const EXPIRES_DAYS: u32 = 365;
const EXPIRES_DAYS_MAX: i64 = 3650;
/// Root keys that one ceremony makes.
const KEYS_MAX: i64 = 16;

/// Verbs of the root document.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum RootCommand {
    /// Show the root document: keys, thresholds, approvers, budgets, when it expires
    #[command(after_help = "Examples:\n  muster root show\n  muster root show --in root.json")]
    Show {
        /// A file instead of the server's
        #[arg(long = "in", value_name = "FILE")]
        input: Option<PathBuf>,
    },
    /// Write every published root document into a file, to carry it to the machine with the root key
    #[command(after_help = "Examples:\n  muster root fetch --out root.json")]
    Fetch {
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Replace the root key of the first run by new ones, of which some must sign together
    #[command(
        after_help = "Examples:\n  muster root init --in root.json --keys 3 --threshold 2 --keys-out ./stick --sign-with \
        root-key-ten_….pem --out next.json\n\nEach key is written into a file of its own that only its owner can read: give \
        every one to another person."
    )]
    Init {
        /// How many keys
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=KEYS_MAX))]
        keys: u32,
        /// How many of them must sign
        #[arg(long, value_name = "M", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=KEYS_MAX))]
        threshold: u32,
        /// Folder for the new keys
        #[arg(long, value_name = "DIR")]
        keys_out: PathBuf,
        /// Write the keys without a passphrase: for a medium that is encrypted itself
        #[arg(long, conflicts_with = "passphrase_file")]
        no_passphrase: bool,
        #[command(flatten)]
        making: Making,
    },
    /// Name a person who approves destructive commands
    #[command(
        after_help = "Examples:\n  muster root add-approver --in root.json --person 'Ada Lovelace' --key ada.pub --account \
        ada --out next.json\n  muster root add-approver --person 'Ada Lovelace' --key ada.pub --account 'Ada Lovelace' --account \
        cli_01990a5bd1c27d3e8f00112233445566 --sign-with root-key.pem --publish\n\nThe account of a person is the name that the \
        sign-in link was made for (`muster console-link --person ada`: the name `ada`), that of a service account its id. All keys \
        of a person share the accounts.\n\nThe first two people make m = 2. One alone approves only with --threshold 1. A new key \
        counts after the cool-down."
    )]
    AddApprover {
        /// The person; two keys of one person count once
        #[arg(long, value_name = "NAME", value_parser = Name::parse)]
        person: Name,
        /// Public key file of `muster approver init`
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// An account of the person at the server, such as ada or cli_…: what it asks for, the person cannot approve, with
        /// whatever key; may be repeated
        #[arg(long = "account", value_name = "ACCOUNT")]
        accounts: Vec<String>,
        /// The key is a passkey (ECDSA P-256) of this domain
        #[arg(long, value_name = "DOMAIN", requires = "passkey_origin")]
        passkey_domain: Option<String>,
        /// What browsers state for the passkey, such as https://muster.example:8440
        #[arg(long, value_name = "ORIGIN", requires = "passkey_domain")]
        passkey_origin: Option<String>,
        /// How many people must approve from now on
        #[arg(long, value_name = "M")]
        threshold: Option<u32>,
        #[command(flatten)]
        making: Making,
    },
    /// Take a person's key away, or all of a person's keys
    #[command(
        after_help = "Examples:\n  muster root remove-approver --in root.json --person 'Ada Lovelace' --out next.json\n  \
        muster root remove-approver --in root.json --key 0a1b2c3d --out next.json"
    )]
    RemoveApprover {
        #[arg(long, value_name = "NAME", value_parser = Name::parse, required_unless_present = "key")]
        person: Option<Name>,
        /// Key id, or 8 characters or more of its beginning
        #[arg(long, value_name = "KEY", conflicts_with = "person")]
        key: Option<String>,
        #[arg(long, value_name = "M")]
        threshold: Option<u32>,
        #[command(flatten)]
        making: Making,
    },
    /// Let another key sign for a role
    #[command(
        after_help = "Examples:\n  muster root add-key --in root.json --role witness --key witness.pub --threshold 1 \
        --out next.json\n  muster root add-key --in root.json --role policy --key ci.pub --out next.json"
    )]
    AddKey {
        #[arg(long, value_enum)]
        role: RoleName,
        /// Public key file
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// How many keys of the role must sign from now on
        #[arg(long, value_name = "M")]
        threshold: Option<u32>,
        #[command(flatten)]
        making: Making,
    },
    /// Take a key out of its role
    #[command(after_help = "Examples:\n  muster root remove-key --in root.json 0a1b2c3d --out next.json")]
    RemoveKey {
        /// Key id, or 8 characters or more of its beginning
        key: String,
        #[arg(long, value_name = "M")]
        threshold: Option<u32>,
        #[command(flatten)]
        making: Making,
    },
    /// Put a new key in the place of another: lost, stolen or old
    #[command(
        after_help = "Examples:\n  muster root rotate --in root.json --old 0a1b2c3d --new root-key-4.pub --out \
        next.json\n\nFor a key with which the server signs, put the new one beside the old one first: see \
        docs/how-to/root-ceremony.md."
    )]
    Rotate {
        /// Key id, or 8 characters or more of its beginning
        #[arg(long, value_name = "KEY")]
        old: String,
        /// Public key file
        #[arg(long, value_name = "FILE")]
        new: PathBuf,
        #[command(flatten)]
        making: Making,
    },
    /// Set how many keys of a role must sign; for approvers, how many people
    #[command(
        after_help = "Examples:\n  muster root set-threshold --in root.json --role approver --threshold 2 --out next.json"
    )]
    SetThreshold {
        #[arg(long, value_enum)]
        role: RoleName,
        #[arg(long, value_name = "M")]
        threshold: u32,
        #[command(flatten)]
        making: Making,
    },
    /// Set how many devices may begin something destructive in an hour
    #[command(
        after_help = "Examples:\n  muster root set-budget --in root.json --per-hour 5 --fraction 0.005 --out next.json\n\nThe \
        larger of the two counts."
    )]
    SetBudget {
        /// Devices in any case
        #[arg(long, value_name = "N", required_unless_present = "fraction")]
        per_hour: Option<u32>,
        /// Part of the fleet, 0 to 1
        #[arg(long, value_name = "F")]
        fraction: Option<f64>,
        #[command(flatten)]
        making: Making,
    },
    /// Set what approvals are held to
    #[command(
        after_help = "Examples:\n  muster root set-approval --in root.json --cool-down 1d --delay 5m --also run-script --out \
        next.json"
    )]
    SetApproval {
        /// How long a new approver's key does not count, such as 1d
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        cool_down: Option<u32>,
        /// How long the first device waits after the request, such as 5m
        #[arg(long, value_name = "TIME", value_parser = seconds)]
        delay: Option<u32>,
        /// A type of command that needs approvals too; may be repeated
        #[arg(long, value_name = "TYPE")]
        also: Vec<String>,
        /// A type of command that needs none any more; may be repeated
        #[arg(long, value_name = "TYPE")]
        not_also: Vec<String>,
        #[command(flatten)]
        making: Making,
    },
    /// Give the document a longer life, and change nothing else
    #[command(
        after_help = "Examples:\n  muster root renew --in root.json --out next.json\n  muster root renew --sign-with \
        root-key.pem --publish"
    )]
    Renew {
        #[command(flatten)]
        making: Making,
    },
    /// After the database was restored from a backup: begin a new restore epoch
    #[command(
        after_help = "Examples:\n  muster root begin-restore --in root.json --sign-with root-key.pem --out next.json\n\nDevices \
        then take up the restored log, and nothing destructive that was asked before is carried out. See \
        docs/how-to/restore-a-backup.md."
    )]
    BeginRestore {
        #[command(flatten)]
        making: Making,
    },
    /// After looking into a split view of the log: let its heads no longer stop what cannot be undone
    #[command(
        after_help = "Examples:\n  muster root settle-split-view 9f86d081… --in root.json --out next.json\n\n`muster doctor` and \
        the log's entries `security.split_view` name the heads. A head that is not named here stops again. See \
        docs/how-to/run-a-witness.md."
    )]
    SettleSplitView {
        /// Root of a head that a device holds, 64 hexadecimal digits; may be repeated
        #[arg(required = true, value_name = "HEAD")]
        heads: Vec<Digest>,
        #[command(flatten)]
        making: Making,
    },
    /// Add a signature to the next document, after saying what it changes
    #[command(after_help = "Examples:\n  muster root sign --in next.json --key root-key-1.pem")]
    Sign {
        #[arg(long = "in", value_name = "FILE")]
        input: PathBuf,
        /// Private key file; may be repeated
        #[arg(long, value_name = "FILE", required = true)]
        key: Vec<PathBuf>,
        /// Where the result is written; the same file unless given
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        passphrase: PassphraseSource,
    },
    /// Publish the next document, and what else the server does not have of the file
    #[command(after_help = "Examples:\n  muster root publish --in next.json")]
    Publish {
        #[arg(long = "in", value_name = "FILE")]
        input: PathBuf,
    },
    /// Verify a file: the chain from the first document, and who signed the next one
    #[command(after_help = "Examples:\n  muster root verify --in next.json --first 9f86d081…")]
    Verify {
        #[arg(long = "in", value_name = "FILE")]
        input: PathBuf,
        /// SHA-256 that the first document must have, from elsewhere
        #[arg(long, value_name = "SHA256")]
        first: Option<Digest>,
    },
}

/// Where the next document comes from and where it goes.
#[derive(Clone, Debug, clap::Args)]
pub struct Making {
    /// File of `muster root fetch`, or with a next document that this is added to; the server's where it is absent
    #[arg(long = "in", value_name = "FILE")]
    input: Option<PathBuf>,
    /// Where the next document is written
    #[arg(long, value_name = "FILE", required_unless_present = "publish")]
    out: Option<PathBuf>,
    /// Sign at once with this private key; may be repeated
    #[arg(long, value_name = "FILE")]
    sign_with: Vec<PathBuf>,
    /// Publish at once
    #[arg(long, requires = "sign_with")]
    publish: bool,
    /// Days until the document expires; 365 for a new one
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=EXPIRES_DAYS_MAX))]
    expires_days: Option<u32>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    passphrase: PassphraseSource,
}

/// A role as flags name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum RoleName {
    Root,
    Policy,
    Action,
    Approver,
    Log,
    Witness,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Root => Role::Root,
            RoleName::Policy => Role::Policy,
            RoleName::Action => Role::Action,
            RoleName::Approver => Role::Approver,
            RoleName::Log => Role::Log,
            RoleName::Witness => Role::Witness,
        }
    }
}

/// The server's answer to a publication.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PublishedAnswer {
    version: u64,
    warnings: Vec<String>,
}

fn seconds(text: &str) -> Result<u32, String> {
    let duration = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    u32::try_from(duration.as_secs()).map_err(|_| "longer than a century".to_owned())
}

/// Runs one verb.
pub async fn run(command: RootCommand, globals: &Globals, printer: &Printer) -> Result<(), CliError> {
    match command {
        RootCommand::Show { input } => show(input, globals, printer).await,
        RootCommand::Fetch { out } => {
            let file = RootFile::fetch(&Api::connect(globals)?, globals).await?;
            file.write(&out)?;
            printer.note(&format!(
                "{} root documents of {} are in {}. The first one is {}: compare it with a copy from elsewhere.",
                file.published.len(),
                file.tenant(),
                out.display(),
                file.first_sha256()
            ));
            Ok(())
        }
        RootCommand::Sign {
            input,
            key,
            out,
            yes,
            passphrase,
        } => {
            let mut file = RootFile::read(&input)?;
            let keys = read_keys(&key, &passphrase)?;
            sign(&mut file, &keys, yes, printer)?;
            file.write(out.as_ref().unwrap_or(&input))?;
            told(&file, printer)
        }
        RootCommand::Publish { input } => {
            let file = RootFile::read(&input)?;
            publish(&file, &Api::connect(globals)?, printer).await
        }
        RootCommand::Verify { input, first } => verify(&RootFile::read(&input)?, first, printer),
        RootCommand::Init {
            keys,
            threshold,
            keys_out,
            no_passphrase,
            making,
        } => {
            if threshold > keys {
                return Err(CliError::Usage(format!(
                    "{threshold} of {keys} keys cannot sign: --threshold is at most --keys."
                )));
            }
            // Read before anything is made, so that no key lies about for nothing.
            let file = start(&making, globals).await?;
            let new = NewPassphrase {
                source: making.passphrase.clone(),
                no_passphrase,
            };
            let made = make_keys(&keys_out, keys, &new, printer)?;
            let edit = Edit::ReplaceRoot {
                keys: made.iter().map(|key| key.public().clone()).collect(),
                threshold,
            };
            make(file, edit, making, made, globals, printer).await
        }
        other => {
            let (edit, making) = edit_of(other)?;
            let file = start(&making, globals).await?;
            make(file, edit, making, Vec::new(), globals, printer).await
        }
    }
}

/// The change that a verb asks for.
fn edit_of(command: RootCommand) -> Result<(Edit, Making), CliError> {
    let nothing = || CliError::Usage("this verb changes no document".to_owned());
    Ok(match command {
        RootCommand::AddApprover {
            person,
            key,
            accounts,
            passkey_domain,
            passkey_origin,
            threshold,
            making,
        } => {
            let passkey = passkey_domain
                .zip(passkey_origin)
                .map(|(id, origin)| RelyingParty { id, origin });
            let edit = Edit::AddApprover {
                person,
                key: key_file::read_public(&key)?,
                accounts: accounts.iter().map(|account| written(account)).collect(),
                passkey,
                threshold,
            };
            (edit, making)
        }
        RootCommand::RemoveApprover {
            person,
            key,
            threshold,
            making,
        } => {
            let who = match (person, key) {
                (Some(person), _) => Who::Person(person),
                (None, Some(key)) => Who::Key(key),
                (None, None) => return Err(nothing()),
            };
            (Edit::RemoveApprover { who, threshold }, making)
        }
        RootCommand::AddKey {
            role,
            key,
            threshold,
            making,
        } => {
            let key = key_file::read_public(&key)?;
            let role = role.into();
            (Edit::AddKey { role, key, threshold }, making)
        }
        RootCommand::RemoveKey {
            key,
            threshold,
            making,
        } => (Edit::RemoveKey { key, threshold }, making),
        RootCommand::Rotate { old, new, making } => {
            let new = key_file::read_public(&new)?;
            (Edit::Rotate { old, new }, making)
        }
        RootCommand::SetThreshold {
            role,
            threshold,
            making,
        } => {
            let role = role.into();
            (Edit::SetThreshold { role, threshold }, making)
        }
        RootCommand::SetBudget {
            per_hour,
            fraction,
            making,
        } => (Edit::SetBudget { per_hour, fraction }, making),
        RootCommand::SetApproval {
            cool_down,
            delay,
            also,
            not_also,
            making,
        } => {
            let edit = Edit::SetApproval {
                cool_down_seconds: cool_down,
                delay_seconds: delay,
                also,
                not_also,
            };
            (edit, making)
        }
        RootCommand::Renew { making } => (Edit::Renew, making),
        RootCommand::SettleSplitView { heads, making } => {
            (Edit::SettleHeads(heads.into_iter().collect()), making)
        }
        RootCommand::BeginRestore { making } => (Edit::BeginRestore, making),
        RootCommand::Show { .. }
        | RootCommand::Fetch { .. }
        | RootCommand::Init { .. }
        | RootCommand::Sign { .. }
        | RootCommand::Publish { .. }
        | RootCommand::Verify { .. } => return Err(nothing()),
    })
}

async fn start(making: &Making, globals: &Globals) -> Result<RootFile, CliError> {
    match &making.input {
        Some(path) => RootFile::read(path),
        None => RootFile::fetch(&Api::connect(globals)?, globals).await,
    }
}

/// Makes root keys, none where one of the files is there.
fn make_keys(
    folder: &std::path::Path,
    count: u32,
    passphrase: &NewPassphrase,
    printer: &Printer,
) -> Result<Vec<SigningKey>, CliError> {
    let paths: Vec<PathBuf> = (1..=count)
        .map(|number| folder.join(format!("root-key-{number}-of-{count}.pem")))
        .collect();
    if let Some(path) = paths.iter().find(|path| path.exists()) {
        return Err(CliError::File {
            path: path.clone(),
            source: std::io::ErrorKind::AlreadyExists.into(),
        });
    }
    let mut made = Vec::new();
    for path in &paths {
        let key = key_file::generate(path, passphrase)?;
        printer.note(&format!("{} holds root key {}", path.display(), key.key_id()));
        made.push(key);
    }
    Ok(made)
}

/// Makes the next document, or adds to it; signs and publishes it where that was asked for.
async fn make(
    mut file: RootFile,
    edit: Edit,
    making: Making,
    own: Vec<SigningKey>,
    globals: &Globals,
    printer: &Printer,
) -> Result<(), CliError> {
    let before = file.next.as_ref().map_or(&file.current, |next| &next.document);
    for doubt in edit.doubts(before) {
        printer.note(&doubt);
    }
    let document = edited(&file, edit, making.expires_days, clock::now())?;
    if file
        .next
        .as_ref()
        .is_some_and(|next| !next.envelope.signatures.is_empty())
    {
        printer.note("The document changed: the signatures that it had are gone.");
    }
    file.next = Some(Draft::new(document));
    let mut keys = own;
    keys.extend(read_keys(&making.sign_with, &making.passphrase)?);
    if keys.is_empty() {
        printer.aside(&show::changes(&file)?);
    } else {
        sign(&mut file, &keys, making.yes, printer)?;
    }
    if let Some(out) = &making.out {
        file.write(out)?;
    }
    if making.publish {
        return publish(&file, &Api::connect(globals)?, printer).await;
    }
    told(&file, printer)
}

/// An account as the server writes it: a name that is percent-encoded already stays as it is.
fn written(account: &str) -> String {
    if account.contains('%') {
        account.to_owned()
    } else {
        account_of(account)
    }
}

/// The next document of a file with one more change.
fn edited(
    file: &RootFile,
    edit: Edit,
    expires_days: Option<u32>,
    now: Timestamp,
) -> Result<RootDocument, CliError> {
    if now < file.current.issued_at {
        return Err(CliError::Usage(format!(
            "This machine's clock says {now}, and the newest document was made at {}: set the clock.",
            file.current.issued_at
        )));
    }
    let end = |days: u32| now.plus(Duration::from_secs(u64::from(days) * 86_400));
    let mut document = match &file.next {
        Some(next) => RootDocument {
            issued_at: now,
            expires_at: expires_days.map_or(next.document.expires_at, end),
            ..next.document.clone()
        },
        None => edit::successor(&file.current, now, end(expires_days.unwrap_or(EXPIRES_DAYS))),
    };
    edit.apply(&mut document, now).map_err(CliError::Failed)?;
    Ok(document)
}

fn read_keys(paths: &[PathBuf], passphrase: &PassphraseSource) -> Result<Vec<SigningKey>, CliError> {
    paths
        .iter()
        .map(|path| key_file::read(path, passphrase))
        .collect()
}

/// Says what the next document changes, asks, and signs it.
fn sign(file: &mut RootFile, keys: &[SigningKey], yes: bool, printer: &Printer) -> Result<(), CliError> {
    printer.aside(&show::changes(file)?);
    let version = file.draft()?.document.version;
    let weaker = changes(&file.current, &file.draft()?.document)
        .iter()
        .filter(|change| change.weakens)
        .count();
    let what = match weaker {
        0 => format!("This signs root document {version}."),
        1 => format!(
            "This signs root document {version}. One of its changes gives power or takes a safeguard away."
        ),
        more => format!(
            "This signs root document {version}. {more} of its changes give power or take a safeguard away."
        ),
    };
    printer.confirm(yes, &what, &version.to_string())?;
    let current = file.current.clone();
    let draft = file
        .next
        .as_mut()
        .ok_or_else(|| CliError::Usage("The file holds no next document.".to_owned()))?;
    keys.iter().try_for_each(|key| draft.sign(&current, key))
}

/// Says where the next document stands.
fn told(file: &RootFile, printer: &Printer) -> Result<(), CliError> {
    let draft = file.draft()?;
    let signed = draft.signed(&file.current)?;
    let value = json!({
        "version": draft.document.version,
        "sha256": sha256(&draft.envelope.payload),
        "changes": changes(&file.current, &draft.document),
        "signatures": signed,
        "is_complete": signed.suffices(),
    });
    printer.answer(&value, |_| show::signatures(file, &signed))
}

async fn publish(file: &RootFile, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let answer: Answer<Value> = api.send(Call::get(&["root"])).await?;
    let held = crate::log::envelopes(json!({"items": answer.value["envelopes"]}))
        .ok_or_else(|| CliError::Answer("no list of root documents".to_owned()))?;
    if let Some(next) = &file.next {
        let signed = next.signed(&file.current)?;
        if !signed.suffices() {
            return Err(CliError::Failed(format!(
                "root document {} lacks signatures: {}",
                next.document.version,
                show::counts(file, &signed)
            )));
        }
    }
    let all: Vec<_> = file
        .published
        .iter()
        .chain(file.next.as_ref().map(|next| &next.envelope))
        .collect();
    let differs = all
        .iter()
        .zip(&held)
        .position(|(ours, theirs)| ours.payload != theirs.payload);
    if let Some(index) = differs {
        return Err(CliError::Failed(format!(
            "the server has another root document {}: start from the newest one with `muster root fetch`",
            index + 1
        )));
    }
    let missing = all.get(held.len()..).unwrap_or_default();
    let (mut last, mut warnings) = (answer.value, Vec::new());
    if missing.is_empty() {
        printer.note("The server has every document of the file.");
    }
    for envelope in missing {
        let body = serde_json::to_value(envelope).map_err(|error| CliError::Answer(error.to_string()))?;
        let answer: Answer<PublishedAnswer> = api.send(Call::post(&["root"]).body(body)).await?;
        printer.note(&format!("Root document {} is published.", answer.known.version));
        warnings = answer.known.warnings;
        last = answer.value;
    }
    for warning in &warnings {
        printer.note(&format!("warning: {warning}"));
    }
    if let Some(members) = last.as_object_mut() {
        members.remove("envelopes");
        members.remove("document");
    }
    if printer.is_json() {
        return printer.json(&last);
    }
    Ok(())
}

fn verify(file: &RootFile, first: Option<Digest>, printer: &Printer) -> Result<(), CliError> {
    if first.is_some_and(|first| first != file.first_sha256()) {
        return Err(CliError::Failed(format!(
            "the first root document is {}, and not the one that was given",
            file.first_sha256()
        )));
    }
    let signed = file
        .next
        .as_ref()
        .map(|next| next.signed(&file.current))
        .transpose()?;
    let next = file.next.as_ref().map(|next| {
        json!({
            "version": next.document.version,
            "sha256": sha256(&next.envelope.payload),
            "changes": changes(&file.current, &next.document),
            "signatures": signed,
            "is_complete": signed.as_ref().is_some_and(crate::root_file::Signed::suffices),
        })
    });
    let value = json!({
        "tenant": file.tenant(),
        "version": file.current.version,
        "first_sha256": file.first_sha256(),
        "expires_at": file.current.expires_at,
        "next": next,
    });
    if signed.is_some() {
        printer.aside(&show::changes(file)?);
    }
    printer.answer(&value, |printer| show::verified(file, signed.as_ref(), printer))
}

async fn show(input: Option<PathBuf>, globals: &Globals, printer: &Printer) -> Result<(), CliError> {
    let (file, value) = match input {
        Some(path) => {
            let file = RootFile::read(&path)?;
            let value = json!({
                "version": file.current.version, "first_sha256": file.first_sha256(),
                "document": file.current, "warnings": [],
            });
            (file, value)
        }
        None => {
            let api = Api::connect(globals)?;
            let file = RootFile::fetch(&api, globals).await?;
            let answer: Answer<Value> = api.send(Call::get(&["root"])).await?;
            (file, answer.value)
        }
    };
    printer.answer(&value, |printer| {
        show::document(&file, &value["warnings"], printer)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_for_people() {
        assert_eq!(seconds("1d"), Ok(86_400));
        assert_eq!(seconds("5m"), Ok(300));
        assert_eq!(seconds("0s"), Ok(0));
        assert!(seconds("soon").is_err());
        assert!(seconds("1000y").is_err());
    }
}
