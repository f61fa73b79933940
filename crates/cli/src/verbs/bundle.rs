//! `muster bundle …`: policy bundles that are built, signed and checked without the server.
//!
//! The same inputs are the same bytes: nothing of the machine, the time or the order of a file goes into a bundle.

use std::path::{Path, PathBuf};

use muster_model::rules::{Rule, check_rules};
use muster_model::settings::{Settings, definition};
use muster_model::text::{Name, VersionLabel};
use muster_model::{PolicyId, TenantId, Timestamp};
use muster_trust::bundle::{self, BundleSource, Draft, Manifest, OpenBundle, PAYLOAD_TYPE};
use muster_trust::dsse::{self, Envelope};
use muster_trust::key::{KeyId, SigningKey, sha256};
use muster_trust::root::{Role, RootDocument};
use serde::Deserialize;
use serde_json::{Value, json};

use super::key::read_key;
use crate::api::{Answer, Api, Call};
use crate::folder::{read_settings, read_value, secrets};
use crate::log::{read_root, root_of_server};
use crate::output::{Printer, Sheet};
use crate::{CliError, Globals};

/// The largest bundle that is read.
const BUNDLE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Verbs of bundles.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum BundleCommand {
    /// Build a bundle of settings and rules; sign it where a key is given
    #[command(
        after_help = "Examples:\n  muster bundle build --policy baseline --version 2026.05 --settings settings.yml --created-at \
        2026-05-04T08:00:00Z --key policy.pem --out policy.zip\n  muster bundle build --tenant \
        ten_01890000000000000000000000000000 --policy-id pol_01890000000000000000000000000000 --policy baseline --version \
        2026.05 --sequence 3 --settings settings.yml --created-at 2026-05-04T08:00:00Z --out draft.zip\n\nWhat is left out of \
        --tenant, --policy-id and --sequence is asked from the server. Without --key the result is a draft to be signed \
        elsewhere."
    )]
    Build(BuildArgs),
    /// Sign a draft, or add a signature to a bundle
    #[command(after_help = "Examples:\n  muster bundle sign --key policy.pem draft.zip --out policy.zip")]
    Sign {
        /// The draft or bundle
        file: PathBuf,
        /// A policy key (PKCS #8, PEM); may be repeated
        #[arg(long, value_name = "FILE", required = true)]
        key: Vec<PathBuf>,
        /// Where the bundle is written; in place unless given
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Check a bundle as devices do; exit code 0 or 1
    #[command(
        after_help = "Examples:\n  muster bundle verify --root root.json policy.zip\n  muster bundle verify policy.zip\n\nWithout \
        --root the server's root documents are used, which proves less: they come from where the bundle goes."
    )]
    Verify {
        file: PathBuf,
        /// Root documents (JSON: an envelope or a list of them)
        #[arg(long, value_name = "FILE")]
        root: Option<PathBuf>,
    },
    /// Show what a bundle or draft says, without believing it
    #[command(
        after_help = "Examples:\n  muster bundle show policy.zip\n  muster bundle show policy.zip -o json"
    )]
    Show { file: PathBuf },
    /// Hand a signed bundle to the server as a version; no device gets it before it is activated
    #[command(after_help = "Examples:\n  muster bundle push policy.zip")]
    Push {
        file: PathBuf,
        /// The policy, where it is not the one that the bundle names
        #[arg(long)]
        policy: Option<String>,
    },
}

/// What a bundle is built of.
#[derive(Clone, Debug, clap::Args)]
pub struct BuildArgs {
    /// Settings: a mapping, YAML or JSON
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Rules: a list, YAML or JSON
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Secrets that the settings refer to by {secret: NAME}
    #[arg(long, value_name = "FILE")]
    secrets_file: Option<PathBuf>,
    /// The policy's name
    #[arg(long, value_name = "NAME")]
    policy: Name,
    /// Its id; asked from the server unless given
    #[arg(long, value_name = "ID")]
    policy_id: Option<PolicyId>,
    /// Whose policy; asked from the server unless given
    #[arg(long, value_name = "ID")]
    tenant: Option<TenantId>,
    /// The version, such as 2026.05
    #[arg(long)]
    version: VersionLabel,
    /// The number of the version within the policy, from 1; asked from the server unless given
    #[arg(long, value_name = "N")]
    sequence: Option<u64>,
    /// When the version is made (RFC 3339); or SOURCE_DATE_EPOCH in seconds
    #[arg(long, value_name = "TIME")]
    created_at: Option<Timestamp>,
    /// The convention of reproducible builds
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH", hide = true)]
    source_date_epoch: Option<i64>,
    /// Sign it with this policy key (PKCS #8, PEM); may be repeated
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Where it is written
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// A file of either kind.
enum Content {
    Draft(Draft),
    Signed(Box<OpenBundle>),
}

/// Whose and which version is built.
struct Identity {
    tenant: TenantId,
    policy: PolicyId,
    sequence: u64,
}

/// Runs one verb.
pub async fn run(command: BundleCommand, globals: &Globals, printer: &Printer) -> Result<(), CliError> {
    match command {
        BundleCommand::Build(arguments) => build(arguments, globals, printer).await,
        BundleCommand::Sign { file, key, out } => sign(&file, &key, out.as_deref(), printer),
        BundleCommand::Verify { file, root } => verify(&file, root.as_deref(), globals, printer).await,
        BundleCommand::Show { file } => show(&file, printer),
        BundleCommand::Push { file, policy } => push(&file, policy, &Api::connect(globals)?, printer).await,
    }
}

async fn build(arguments: BuildArgs, globals: &Globals, printer: &Printer) -> Result<(), CliError> {
    let created_at = match (arguments.created_at, arguments.source_date_epoch) {
        (Some(at), _) => at,
        (None, Some(seconds)) => Timestamp::from_unix_seconds(seconds),
        (None, None) => {
            return Err(CliError::Usage(
                "say --created-at TIME, or set SOURCE_DATE_EPOCH: the time is a part of the bundle"
                    .to_owned(),
            ));
        }
    };
    let known = match &arguments.secrets_file {
        Some(path) => secrets::read_file(path)?,
        None => secrets::Secrets::new(),
    };
    let settings = match &arguments.settings {
        Some(path) => read_settings(path, &known)?,
        None => Settings::default(),
    };
    let rules = match &arguments.rules {
        Some(path) => read_rules(path)?,
        None => Vec::new(),
    };
    if settings.is_empty() && rules.is_empty() {
        return Err(CliError::Usage(
            "a version needs at least one setting or rule: --settings FILE, --rules FILE, or both".to_owned(),
        ));
    }
    let keys = arguments
        .key
        .iter()
        .map(|path| read_key(path))
        .collect::<Result<Vec<_>, _>>()?;
    let identity = identify(&arguments, globals).await?;
    let rules_json = serde_json::to_string(&rules).map_err(|error| CliError::Failed(error.to_string()))?;
    let draft = Draft::new(&BundleSource {
        tenant: identity.tenant,
        policy_id: identity.policy,
        policy_name: arguments.policy.as_str(),
        version: &arguments.version,
        sequence: identity.sequence,
        created_at,
        settings_json: settings.canonical_json().as_bytes(),
        rules_json: rules_json.as_bytes(),
    })
    .map_err(unusable)?;
    let manifest = draft.manifest().map_err(unusable)?;
    let bytes = if keys.is_empty() {
        draft.to_archive().map_err(unusable)?
    } else {
        let envelope = dsse::sign(
            PAYLOAD_TYPE,
            draft.manifest_bytes(),
            &keys.iter().collect::<Vec<_>>(),
        )
        .map_err(|error| CliError::Failed(error.to_string()))?;
        draft.seal(&envelope).map_err(unusable)?.bytes
    };
    write(&arguments.out, &bytes)?;
    let signers: Vec<KeyId> = keys.iter().map(SigningKey::key_id).collect();
    describe(&manifest, &signers, &bytes, Some(&arguments.out), printer)
}

/// Reads a file of rules, and checks them.
pub fn read_rules(path: &Path) -> Result<Vec<Rule>, CliError> {
    let content = |detail: String| CliError::Content {
        path: path.to_owned(),
        detail,
    };
    let value = read_value(path)?
        .to_json()
        .map_err(|wrong| content(format!("line {}: {}", wrong.line, wrong.detail)))?;
    let rules: Vec<Rule> = serde_json::from_value(value).map_err(|error| content(error.to_string()))?;
    check_rules(&rules).map_err(|error| content(error.to_string()))?;
    Ok(rules)
}

/// Asks the server for what the line does not say.
async fn identify(arguments: &BuildArgs, globals: &Globals) -> Result<Identity, CliError> {
    if let (Some(tenant), Some(policy), Some(sequence)) =
        (arguments.tenant, arguments.policy_id, arguments.sequence)
    {
        return Ok(Identity {
            tenant,
            policy,
            sequence,
        });
    }
    #[derive(Deserialize)]
    struct Policy {
        id: PolicyId,
        versions: u64,
    }
    #[derive(Deserialize)]
    struct Version {
        sequence: u64,
    }
    let api = Api::connect(globals)?;
    let name = arguments.policy.as_str();
    let policy: Answer<Policy> = api.send(Call::get(&["policies", name])).await?;
    let policy = policy.known;
    if arguments.policy_id.is_some_and(|id| id != policy.id) {
        return Err(CliError::Failed(format!(
            "the policy {name} has another id: {}",
            policy.id
        )));
    }
    let sequence = match arguments.sequence {
        Some(sequence) => sequence,
        None => {
            // A build that is repeated after its push is the same bundle again.
            let call = Call::get(&["policies", name, "versions", arguments.version.as_str()]);
            match api.send::<Version>(call).await {
                Ok(version) => version.known.sequence,
                Err(CliError::Refused(problem)) if problem.code == "not_found" => policy.versions + 1,
                Err(error) => return Err(error),
            }
        }
    };
    let tenant = match arguments.tenant {
        Some(tenant) => tenant,
        None => root_of_server(&api).await?.tenant,
    };
    Ok(Identity {
        tenant,
        policy: policy.id,
        sequence,
    })
}

fn sign(file: &Path, keys: &[PathBuf], out: Option<&Path>, printer: &Printer) -> Result<(), CliError> {
    let failed = |error: dsse::DsseError| CliError::Failed(error.to_string());
    let keys = keys
        .iter()
        .map(|path| read_key(path))
        .collect::<Result<Vec<_>, _>>()?;
    let (draft, envelope) = match read(file)? {
        Content::Draft(draft) => {
            let keys: Vec<&SigningKey> = keys.iter().collect();
            let envelope = dsse::sign(PAYLOAD_TYPE, draft.manifest_bytes(), &keys).map_err(failed)?;
            (draft, envelope)
        }
        Content::Signed(open) => {
            let (draft, mut envelope) = open.into_draft();
            for key in &keys {
                envelope.add_signature(key).map_err(failed)?;
            }
            (draft, envelope)
        }
    };
    let manifest = draft.manifest().map_err(unusable)?;
    let built = draft.seal(&envelope).map_err(unusable)?;
    let out = out.unwrap_or(file);
    write(out, &built.bytes)?;
    describe(&manifest, &signers(&envelope), &built.bytes, Some(out), printer)
}

async fn verify(
    file: &Path,
    root: Option<&Path>,
    globals: &Globals,
    printer: &Printer,
) -> Result<(), CliError> {
    let Content::Signed(open) = read(file)? else {
        return Err(CliError::Failed(
            "the bundle is a draft: nobody signed it".to_owned(),
        ));
    };
    let root = match root {
        Some(path) => read_root(path)?,
        None => root_of_server(&Api::connect(globals)?).await?,
    };
    open.verify(&root).map_err(unusable)?;
    Settings::parse(open.settings_json())
        .map_err(|_| CliError::Failed("the bundle's settings are not of this catalogue".to_owned()))?;
    let rules: Vec<Rule> = serde_json::from_slice(open.rules_json())
        .map_err(|error| CliError::Failed(format!("the bundle's rules are not understood: {error}")))?;
    check_rules(&rules).map_err(|error| CliError::Failed(error.to_string()))?;
    let trusted: Vec<KeyId> = trusted_signers(&root, &open.envelope);
    let value = json!({
        "sha256": open.sha256, "manifest": open.manifest, "signed_by": trusted, "root_version": root.version,
    });
    printer.answer(&value, |_| {
        manifest_sheet(&open.manifest)
            .fields(vec![
                ("signed by", Some(joined(&trusted))),
                ("root document", Some(format!("version {}", root.version))),
                ("sha256", Some(open.sha256.to_hex())),
            ])
            .text("The bundle is one that devices of this tenant take.")
    })
}

/// The signers that the root document names for policies.
fn trusted_signers(root: &RootDocument, envelope: &Envelope) -> Vec<KeyId> {
    let named: Vec<KeyId> = root.role(Role::Policy).0.iter().map(|key| key.key_id()).collect();
    signers(envelope)
        .into_iter()
        .filter(|id| named.contains(id))
        .collect()
}

/// What a bundle or draft says, without anyone having signed it.
pub struct Unchecked {
    pub manifest: Manifest,
    pub settings: Settings,
    pub rules: Vec<Rule>,
    signed_by: Vec<KeyId>,
    bytes: Vec<u8>,
}

/// Reads a bundle or draft. Its content is valid; who signed it is not checked.
pub fn unchecked(file: &Path) -> Result<Unchecked, CliError> {
    let bytes = read_bytes(file)?;
    let (manifest, signed_by, settings, rules) = match content(&bytes)? {
        Content::Signed(open) => {
            let signed_by = signers(&open.envelope);
            let (settings, rules) = (open.settings_json().to_vec(), open.rules_json().to_vec());
            (open.manifest.clone(), signed_by, settings, rules)
        }
        Content::Draft(draft) => {
            let manifest = draft.manifest().map_err(unusable)?;
            let file = |name: &str| draft.file(name).unwrap_or_default().to_vec();
            (manifest, Vec::new(), file(bundle::SETTINGS), file(bundle::RULES))
        }
    };
    let settings = Settings::parse(&settings)
        .map_err(|_| CliError::Failed("the bundle's settings are not of this catalogue".to_owned()))?;
    let rules = serde_json::from_slice(&rules)
        .map_err(|error| CliError::Failed(format!("the bundle's rules are not understood: {error}")))?;
    Ok(Unchecked {
        manifest,
        settings,
        rules,
        signed_by,
        bytes,
    })
}

/// Whether a file is a bundle or a draft, by its first bytes: the others that verbs take are texts.
pub fn is_archive(file: &Path) -> Result<bool, CliError> {
    Ok(read_bytes(file)?.starts_with(b"PK"))
}

fn show(file: &Path, printer: &Printer) -> Result<(), CliError> {
    let Unchecked {
        manifest,
        settings,
        rules,
        signed_by,
        bytes,
    } = unchecked(file)?;
    let shown: Vec<(String, Value)> = settings
        .iter()
        .map(|(key, value)| {
            let shown = definition(key).map_or_else(|| value.clone(), |def| def.redacted(value));
            (key.to_owned(), serde_json::to_value(shown).unwrap_or_default())
        })
        .collect();
    let digest = sha256(&bytes).to_hex();
    let value = json!({
        "sha256": digest, "manifest": manifest, "signed_by": signed_by, "rules": rules,
        "settings": shown.iter().cloned().collect::<serde_json::Map<_, _>>(),
    });
    printer.answer(&value, |_| {
        let signed = if signed_by.is_empty() {
            "nobody: a draft".to_owned()
        } else {
            joined(&signed_by)
        };
        let rows = shown
            .iter()
            .map(|(key, value)| vec![key.clone(), crate::output::plain(value)])
            .collect();
        manifest_sheet(&manifest)
            .fields(vec![
                ("signatures by", Some(signed)),
                ("sha256", Some(digest.clone())),
                ("rules", Some(rules.len().to_string())),
            ])
            .rows("settings", &["setting", "value"], rows)
    })
}

async fn push(file: &Path, policy: Option<String>, api: &Api, printer: &Printer) -> Result<(), CliError> {
    #[derive(Deserialize)]
    struct Pushed {
        version: String,
        sequence: u64,
        sha256: String,
    }
    let bytes = read_bytes(file)?;
    let Content::Signed(open) = content(&bytes)? else {
        return Err(CliError::Failed(
            "the bundle is a draft: sign it with `muster bundle sign`, or make the version with `muster policy version add`"
                .to_owned(),
        ));
    };
    let policy = policy.unwrap_or_else(|| open.manifest.policy_id.to_string());
    let call = Call::post(&["policies", &policy, "bundles"]).bytes("application/zip", bytes);
    let answer: Answer<Pushed> = api.send(call).await?;
    let pushed = answer.known;
    if pushed.sha256 != open.sha256.to_hex() {
        return Err(CliError::Answer(format!(
            "the server has the version as {}, and the file is {}",
            pushed.sha256,
            open.sha256.to_hex()
        )));
    }
    printer.answer(&answer.value, |_| {
        Sheet::new().fields(vec![
            ("policy", Some(open.manifest.policy_name.clone())),
            ("version", Some(pushed.version.clone())),
            ("sequence", Some(pushed.sequence.to_string())),
            ("sha256", Some(pushed.sha256.clone())),
        ])
    })
}

fn describe(
    manifest: &Manifest,
    signed_by: &[KeyId],
    bytes: &[u8],
    out: Option<&Path>,
    printer: &Printer,
) -> Result<(), CliError> {
    let digest = sha256(bytes).to_hex();
    let value = json!({
        "sha256": digest, "bytes": bytes.len(), "manifest": manifest, "signed_by": signed_by, "file": out,
    });
    printer.answer(&value, |_| {
        let signed = if signed_by.is_empty() {
            "nobody: a draft".to_owned()
        } else {
            joined(signed_by)
        };
        manifest_sheet(manifest).fields(vec![
            ("signed by", Some(signed)),
            ("sha256", Some(digest.clone())),
            ("written to", out.map(|path| path.display().to_string())),
        ])
    })
}

fn manifest_sheet(manifest: &Manifest) -> Sheet {
    Sheet::new().fields(vec![
        (
            "policy",
            Some(format!("{} ({})", manifest.policy_name, manifest.policy_id)),
        ),
        ("version", Some(manifest.version.to_string())),
        ("sequence", Some(manifest.sequence.to_string())),
        ("tenant", Some(manifest.tenant.to_string())),
        ("created", Some(manifest.created_at.to_string())),
    ])
}

fn signers(envelope: &Envelope) -> Vec<KeyId> {
    envelope
        .signatures
        .iter()
        .map(|signature| signature.keyid)
        .collect()
}

fn joined(keys: &[KeyId]) -> String {
    keys.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn read(path: &Path) -> Result<Content, CliError> {
    content(&read_bytes(path)?)
}

fn content(bytes: &[u8]) -> Result<Content, CliError> {
    match bundle::open(bytes) {
        Ok(open) => Ok(Content::Signed(Box::new(open))),
        Err(bundle::BundleError::MissingFile(bundle::SIGNATURE)) => {
            bundle::open_draft(bytes).map(Content::Draft).map_err(unusable)
        }
        Err(error) => Err(unusable(error)),
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, CliError> {
    use std::io::Read as _;
    let failed = |source| CliError::File {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(BUNDLE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() as u64 > BUNDLE_BYTES_MAX {
        return Err(CliError::Content {
            path: path.to_owned(),
            detail: format!("larger than {BUNDLE_BYTES_MAX} bytes, which no bundle is"),
        });
    }
    Ok(bytes)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    std::fs::write(path, bytes).map_err(|source| CliError::File {
        path: path.to_owned(),
        source,
    })
}

fn unusable(error: bundle::BundleError) -> CliError {
    CliError::Failed(format!(
        "the bundle is not one that a device would accept: {error}"
    ))
}
