//! `muster tenant …`: tenants of the installation, as the operator's tenant sees them.
//!
//! Whoever makes a tenant signs its root document on this machine, and whoever ends one signs that here: no root key goes to a server.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_model::Timestamp;
use muster_trust::closure::{self, TenantClosureStatement};
use muster_trust::dsse::{self, Envelope};
use muster_trust::encoding::from_base64;
use muster_trust::key::{SigningKey, sha256};
use muster_trust::root::{PAYLOAD_TYPE, Role};
use serde::Deserialize;
use serde_json::{Value, json};

use super::tenant_check::{Asked, check_closure, check_document, what_is_signed};
use super::{Page, Paging, list, tenant_limits};
use crate::api::{Answer, Api, Call};
use crate::context::{self, AdminFile};
use crate::key_file::{self, NewPassphrase, PassphraseSource};
use crate::output::{Printer, Sheet, clean, or_dash};
use crate::root_file::RootFile;
use crate::{CliError, Globals, clock, progress};

/// How long a closure that is signed here can be handed in.
const CLOSURE_LIVES: Duration = Duration::from_secs(7 * 86_400);
/// How often a signed document is handed in whose answer is lost, and how long it waits between.
const HANDED_IN_MAX: u32 = 3;
const HANDED_IN_PAUSE: Duration = Duration::from_secs(2);

/// Verbs about tenants that are there.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum TenantCommand {
    /// List the tenants, the oldest first
    #[command(after_help = "Examples:\n  muster tenant list\n  muster tenant list --all -o json")]
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a tenant: its state, its devices and people, and how it ends
    #[command(after_help = "Examples:\n  muster tenant show acme")]
    Show { tenant: String },
    /// Change what people call a tenant
    #[command(after_help = "Examples:\n  muster tenant rename acme 'Acme Ltd'")]
    Rename {
        tenant: String,
        /// Empty for nothing besides its name
        display_name: String,
    },
    /// Shut a tenant: nobody of it gets in, its devices are told to come later, nothing is lost
    #[command(
        after_help = "Examples:\n  muster tenant suspend acme --reason 'unpaid since May'\n  muster tenant resume acme"
    )]
    Suspend {
        tenant: String,
        /// For the logs of both tenants
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let a tenant go on; it also takes back that it ends, until its waiting time is over
    #[command(after_help = "Examples:\n  muster tenant resume acme")]
    Resume { tenant: String },
    /// What a tenant may: requests, messages of devices, devices, people
    #[command(after_help = tenant_limits::HELP)]
    Limits(tenant_limits::LimitsArgs),
    /// Forget a tenant whose root document nobody signed
    #[command(after_help = "Examples:\n  muster tenant discard acme")]
    Discard { tenant: String },
    /// End a suspended tenant: its root keys sign that, and when the waiting time is over everything of it is deleted
    #[command(
        after_help = "Examples:\n  muster tenant export acme --out acme.tar --admin-file acme-admin.json\n  muster tenant suspend acme\n  \
        muster tenant sign-closure --root-file root.json --reason 'contract ended' --root-key root-key.pem --out closure.json\n  \
        muster tenant close acme --closure closure.json --yes\n\nThe closure is signed wherever the root keys are, with \
        the tenant's root documents (`muster root fetch`, or log/root.json of an export). Until the waiting time is over \
        `muster tenant resume` takes it back; afterwards nothing does."
    )]
    Close {
        tenant: String,
        /// The signed closure
        #[arg(long, value_name = "FILE")]
        closure: PathBuf,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Sign that a tenant ends, with its root keys; no server is asked
    #[command(
        after_help = "Examples:\n  muster tenant sign-closure --root-file root.json --reason 'contract ended' --root-key ada.pem --out closure.json\n  \
        muster tenant sign-closure --add closure.json --root-file root.json --root-key bob.pem --out closure.json"
    )]
    SignClosure(SignClosure),
    /// Visit another tenant, as far as it lets people of the operator's tenant in
    #[command(subcommand)]
    Visit(super::visit::VisitCommand),
    /// Take everything of a tenant away: rows of every table without secrets, and its log as it verifies offline
    #[command(
        after_help = "Examples:\n  muster tenant export acme --out acme.tar\n  tar -xf acme.tar && muster log verify --folder muster-export/log \
        --key \"$(muster log key --root-file muster-export/log/root.json)\""
    )]
    Export {
        tenant: String,
        /// The archive; a file that is there is never overwritten
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
}

/// A tenant that is to be made.
#[derive(Clone, Debug, clap::Args)]
pub struct CreateTenant {
    /// The tenant's name: small letters, digits and hyphens
    pub name: String,
    /// What people call it
    #[arg(long, value_name = "TEXT", default_value = "")]
    display_name: String,
    /// Private root keys that sign here, PKCS #8 in PEM; may be repeated. One is made beside --out where none is named
    #[arg(long, value_name = "FILE")]
    root_key: Vec<PathBuf>,
    /// How many of the root keys must sign root documents, and the tenant's end
    #[arg(long, value_name = "N", default_value_t = 1)]
    root_threshold: u32,
    #[command(flatten)]
    passphrase: PassphraseSource,
    /// Where the new tenant's admin.json is written; it is never overwritten
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

impl CreateTenant {
    /// Whether root keys are named.
    pub fn names_root_keys(&self) -> bool {
        !self.root_key.is_empty() || self.root_threshold != 1
    }
}

/// What is signed to end a tenant.
#[derive(Clone, Debug, clap::Args)]
pub struct SignClosure {
    /// The tenant's root documents
    #[arg(long, value_name = "FILE")]
    root_file: PathBuf,
    /// Why it ends, for the operator's log
    #[arg(long, required_unless_present = "add", default_value = "")]
    reason: String,
    /// Sign this closure as well, instead of a new one
    #[arg(long, value_name = "FILE")]
    add: Option<PathBuf>,
    /// A private root key, PKCS #8 in PEM; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    root_key: Vec<PathBuf>,
    #[command(flatten)]
    passphrase: PassphraseSource,
    /// The signed closure
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Do not ask before somebody else's closure is signed as well
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Tenant {
    id: String,
    name: String,
    display_name: String,
    state: String,
    is_operator: bool,
    created_at: Option<String>,
    state_since: Option<String>,
    expires_at: Option<String>,
    devices: u64,
    people: u64,
    root_version: Option<u64>,
    log_entries: u64,
    closing: Option<Closing>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Closing {
    reason: String,
    signers: Vec<String>,
    asked_by: String,
    erase_at: Option<String>,
    deleted_at: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Draft {
    id: String,
    payload: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Made {
    id: String,
    client_id: String,
    client_secret: String,
    signin_url: String,
}

/// Runs one verb.
pub async fn run(
    command: TenantCommand,
    api: &Api,
    globals: &Globals,
    printer: &Printer,
) -> Result<(), CliError> {
    match command {
        TenantCommand::Visit(command) => super::visit::run(command, api, globals, printer).await,
        TenantCommand::List { paging } => {
            let answer: Answer<Page<Tenant>> = list(api, Call::get(&["tenants"]), &paging).await?;
            printer.answer(&answer.value, |printer| rows(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        TenantCommand::Show { tenant } => shown(api, printer, Call::get(&["tenants", &tenant])).await,
        TenantCommand::Rename { tenant, display_name } => {
            let body = json!({"display_name": display_name});
            shown(api, printer, Call::patch(&["tenants", &tenant], body)).await
        }
        TenantCommand::Suspend { tenant, reason } => {
            let call = Call::post(&["tenants", &tenant, "suspend"]).body(json!({"reason": reason}));
            shown(api, printer, call).await
        }
        TenantCommand::Resume { tenant } => {
            shown(
                api,
                printer,
                Call::post(&["tenants", &tenant, "resume"]).body(json!({})),
            )
            .await
        }
        TenantCommand::Limits(arguments) => tenant_limits::run(&arguments, api, printer).await,
        TenantCommand::Discard { tenant } => {
            api.send_quiet(Call::delete(&["tenants", &tenant])).await?;
            printer.answer(&json!({"discarded": tenant}), |_| {
                Sheet::new().fields(vec![("discarded", Some(clean(&tenant)))])
            })
        }
        TenantCommand::Close { tenant, closure, yes } => {
            let envelope = read_closure(&closure)?;
            printer.confirm(
                yes,
                "This ends the tenant: when the waiting time is over, everything of it is deleted.",
                &tenant,
            )?;
            let call = Call::post(&["tenants", &tenant, "close"]).body(json!(envelope));
            shown(api, printer, call).await
        }
        TenantCommand::SignClosure(sign) => sign_closure(&sign, printer),
        TenantCommand::Export { tenant, out } => export(api, printer, &tenant, &out).await,
    }
}

async fn shown(api: &Api, printer: &Printer, call: Call<'_>) -> Result<(), CliError> {
    let answer: Answer<Tenant> = api.send(call).await?;
    printer.answer(&answer.value, |printer| fields(printer, &answer.known))
}

fn rows(printer: &Printer, tenants: &[Tenant]) -> Sheet {
    let row = |tenant: &Tenant| {
        let note = match &tenant.closing {
            Some(closing) if closing.deleted_at.is_none() => {
                format!("deleted {}", printer.when(closing.erase_at.as_deref()))
            }
            _ if tenant.is_operator => "the operator's".to_owned(),
            _ => clean(&tenant.display_name),
        };
        vec![
            clean(&tenant.name),
            clean(&tenant.state),
            tenant.devices.to_string(),
            tenant.people.to_string(),
            printer.ago(tenant.created_at.as_deref()),
            note,
        ]
    };
    Sheet::new().rows(
        "No tenant. `muster tenant create NAME --out FILE` makes one.",
        &["name", "state", "devices", "people", "created", "note"],
        tenants.iter().map(row).collect(),
    )
}

fn fields(printer: &Printer, tenant: &Tenant) -> Sheet {
    let mut fields = vec![
        ("name", Some(clean(&tenant.name))),
        (
            "display name",
            (!tenant.display_name.is_empty()).then(|| clean(&tenant.display_name)),
        ),
        ("id", Some(clean(&tenant.id))),
        ("state", Some(clean(&tenant.state))),
        ("since", Some(printer.when(tenant.state_since.as_deref()))),
        (
            "created",
            tenant.created_at.as_deref().map(|at| printer.when(Some(at))),
        ),
        (
            "forgotten",
            tenant.expires_at.as_deref().map(|at| printer.when(Some(at))),
        ),
        ("devices", Some(tenant.devices.to_string())),
        ("people", Some(tenant.people.to_string())),
        (
            "root document",
            tenant.root_version.map(|version| format!("version {version}")),
        ),
        ("log entries", Some(tenant.log_entries.to_string())),
    ];
    if let Some(closing) = &tenant.closing {
        fields.extend([
            ("ends because", Some(clean(&closing.reason))),
            ("signed by", Some(clean(&closing.signers.join(", ")))),
            ("asked by", Some(clean(&closing.asked_by))),
            (
                "can be taken back until",
                Some(printer.when(closing.erase_at.as_deref())),
            ),
            ("deleted", Some(or_dash(closing.deleted_at.as_deref()))),
        ]);
    }
    Sheet::new().fields(fields)
}

/// Makes a tenant: asks the server for the document, looks whether it is what was asked for, signs it, hands it in.
pub async fn create(create: &CreateTenant, globals: &Globals, printer: &Printer) -> Result<(), CliError> {
    let out = create.out.as_deref().ok_or_else(|| {
        CliError::Usage("--out names the file for the new tenant's address and credentials".to_owned())
    })?;
    if out.exists() {
        return Err(CliError::File {
            path: out.to_owned(),
            source: std::io::ErrorKind::AlreadyExists.into(),
        });
    }
    let api = Api::connect(globals)?;
    let (keys, made_key) = root_keys(create, out)?;
    let pems: Vec<String> = keys.iter().map(|key| key.public().to_pem()).collect();
    let body = json!({
        "name": create.name, "display_name": create.display_name, "root_keys": pems, "root_threshold": create.root_threshold,
    });
    let draft: Answer<Draft> = api.send(Call::post(&["tenants"]).body(body)).await?;
    let payload = from_base64(&draft.known.payload)
        .ok_or_else(|| CliError::Answer("the root document cannot be read".to_owned()))?;
    let asked = Asked {
        id: &draft.known.id,
        root_keys: keys.iter().map(SigningKey::key_id).collect(),
        threshold: create.root_threshold,
    };
    let document = check_document(&payload, &asked, clock::now())
        .map_err(|why| CliError::Failed(format!("the server's root document is not signed: {why}")))?;
    printer.aside(&what_is_signed(&document, &payload));
    let signers: Vec<&SigningKey> = keys.iter().collect();
    let envelope = dsse::sign(PAYLOAD_TYPE, &payload, &signers)
        .map_err(|error| CliError::Failed(format!("the root document is not signed: {error}")))?;
    let id = document.tenant.to_string();
    // The place for the only copy of the credentials is there before the tenant is.
    key_file::write_new(out, b"", 0o600)?;
    let answer = match activate(&api, &id, &envelope).await {
        Ok(answer) => answer,
        Err(error) => {
            let _ = std::fs::remove_file(out);
            return Err(error);
        }
    };
    let made = &answer.known;
    let file = admin_file(&api, globals, made)?;
    let text = serde_json::to_string_pretty(&file).map_err(|error| CliError::Failed(error.to_string()))?;
    context::write_private(out, text.as_bytes())?;
    let shown = json!({
        "id": made.id, "name": create.name, "admin_file": out, "root_key": made_key, "signin_url": made.signin_url,
    });
    printer.answer(&shown, |_| {
        Sheet::new()
            .text(format!("Tenant {} is there.", clean(&create.name)))
            .fields(vec![
                ("id", Some(clean(&made.id))),
                ("credentials", Some(out.display().to_string())),
                ("first sign-in", Some(clean(&made.signin_url))),
                (
                    "root key",
                    made_key
                        .as_ref()
                        .map(|path| format!("{}: carry it away", path.display())),
                ),
            ])
    })
}

/// Hands the signed document in. Where the answer is lost, the same envelope gets it again, as long as nobody used what was in it.
async fn activate(api: &Api, id: &str, envelope: &Envelope) -> Result<Answer<Made>, CliError> {
    let mut tries = 0;
    loop {
        tries += 1;
        let sent: Result<Answer<Made>, CliError> = api
            .send(Call::post(&["tenants", id, "root"]).body(json!(envelope)))
            .await;
        match sent {
            Err(CliError::Unreachable { .. } | CliError::Answer(_)) if tries < HANDED_IN_MAX => {
                tokio::time::sleep(HANDED_IN_PAUSE).await;
            }
            done => return done,
        }
    }
}

/// The root keys that are named, or one that is made beside the file of the tenant.
fn root_keys(create: &CreateTenant, out: &Path) -> Result<(Vec<SigningKey>, Option<PathBuf>), CliError> {
    if create.root_key.is_empty() {
        let path = out.with_file_name(format!("root-key-{}.pem", create.name));
        let key = key_file::generate(&path, &NewPassphrase::none())?;
        return Ok((vec![key], Some(path)));
    }
    let read = |path: &PathBuf| key_file::read(path, &create.passphrase);
    let keys = create.root_key.iter().map(read).collect::<Result<_, _>>()?;
    Ok((keys, None))
}

/// The new tenant's file: the address of the install that was asked, and its own credentials.
fn admin_file(api: &Api, globals: &Globals, made: &Made) -> Result<Value, CliError> {
    let mut file = match &globals.admin_file {
        Some(path) if globals.context.is_none() => {
            let file = AdminFile::read(path)?;
            let mut known = json!({
                "admin_url": file.admin_url, "device_url": file.device_url, "ops_url": file.ops_url, "ca_file": file.ca_file,
            });
            if let Some(anchors) = &file.admin_ca_file {
                known["admin_ca_file"] = json!(anchors);
            }
            known
        }
        _ => json!({"admin_url": api.address().trim_end_matches('/'), "ca_file": "ca.pem"}),
    };
    file["tenant"] = json!(made.id);
    file["client_id"] = json!(made.client_id);
    file["client_secret"] = json!(made.client_secret);
    Ok(file)
}

fn read_closure(path: &Path) -> Result<Envelope, CliError> {
    Envelope::from_json(&context::read_file(path)?).map_err(|error| CliError::Content {
        path: path.to_owned(),
        detail: error.to_string(),
    })
}

/// Signs that a tenant ends; no server is asked.
pub fn sign_closure(sign: &SignClosure, printer: &Printer) -> Result<(), CliError> {
    let file = RootFile::read(&sign.root_file)?;
    let newest = file
        .published
        .last()
        .ok_or_else(|| CliError::Failed("there is no root document".to_owned()))?;
    let read = |path: &PathBuf| key_file::read(path, &sign.passphrase);
    let keys = sign.root_key.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let (named, threshold) = file.current.role(Role::Root);
    if let Some(stranger) = keys.iter().find(|key| !named.contains(&key.public())) {
        return Err(CliError::Failed(format!(
            "the key {} is no root key of document {}",
            stranger.key_id(),
            file.current.version
        )));
    }
    let failed = |error: String| CliError::Failed(format!("nothing is signed: {error}"));
    let envelope = match &sign.add {
        Some(path) => {
            let mut envelope = read_closure(path)?;
            // Somebody else wrote it: what it says is looked at before a key touches it.
            let statement =
                check_closure(&envelope, &file.current, &newest.payload, clock::now()).map_err(failed)?;
            printer.aside(&Sheet::new().fields(vec![
                ("ends", Some(statement.tenant.to_string())),
                ("because", Some(clean(&statement.reason))),
                (
                    "by root document",
                    Some(format!("{}, {}", statement.root_version, statement.root_sha256)),
                ),
                ("signed since", Some(statement.issued_at.to_string())),
                ("to be handed in until", Some(statement.expires_at.to_string())),
            ]));
            printer.confirm(
                sign.yes,
                "You sign that this tenant ends and that everything of it is deleted.",
                &statement.tenant.to_string(),
            )?;
            for key in &keys {
                envelope
                    .add_signature(key)
                    .map_err(|error| failed(error.to_string()))?;
            }
            envelope
        }
        None => {
            let now: Timestamp = clock::now();
            let statement = TenantClosureStatement {
                tenant: file.tenant(),
                root_version: file.current.version,
                root_sha256: sha256(&newest.payload),
                reason: sign.reason.clone(),
                issued_at: now,
                expires_at: now.plus(CLOSURE_LIVES),
            };
            let signers: Vec<&SigningKey> = keys.iter().collect();
            closure::sign(&statement, &signers).map_err(|error| failed(error.to_string()))?
        }
    };
    let statement: TenantClosureStatement =
        serde_json::from_slice(&envelope.payload).map_err(|error| failed(error.to_string()))?;
    context::write_private(&sign.out, &envelope.to_json())?;
    let signed = closure::signers(&file.current, &envelope).len();
    let is_whole = closure::verify(&file.current, &newest.payload, &envelope).is_ok();
    let shown = json!({
        "tenant": statement.tenant, "reason": statement.reason, "expires_at": statement.expires_at, "signatures": signed,
        "threshold": threshold, "is_complete": is_whole, "closure": sign.out,
    });
    printer.answer(&shown, |_| {
        Sheet::new().fields(vec![
            ("ends", Some(statement.tenant.to_string())),
            ("because", Some(clean(&statement.reason))),
            ("signatures", Some(format!("{signed} of {threshold}"))),
            ("to be handed in until", Some(statement.expires_at.to_string())),
            ("closure", Some(sign.out.display().to_string())),
        ])
    })
}

async fn export(api: &Api, printer: &Printer, tenant: &str, out: &Path) -> Result<(), CliError> {
    let failed = |source: std::io::Error| CliError::File {
        path: out.to_owned(),
        source,
    };
    // Nobody but the owner reads it, and what is there stays.
    key_file::write_new(out, b"", 0o600)?;
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .open(out)
        .map_err(failed)?;
    let bar = progress::spinner(format!("exporting {tenant}"));
    let mut bytes: u64 = 0;
    let outcome = api
        .download(
            Call::get(&["tenants", tenant, "export"]).accept("application/x-tar"),
            |part| {
                bytes += part.len() as u64;
                bar.set_message(format!("exporting {tenant}: {} MiB", bytes / (1024 * 1024)));
                file.write_all(part).map_err(failed)
            },
        )
        .await;
    bar.finish_and_clear();
    let outcome = outcome.and_then(|()| file.sync_all().map_err(failed));
    if let Err(error) = outcome {
        // Half of an archive is none.
        let _ = std::fs::remove_file(out);
        return Err(error);
    }
    printer.answer(&json!({"tenant": tenant, "archive": out, "bytes": bytes}), |_| {
        Sheet::new().fields(vec![
            ("archive", Some(out.display().to_string())),
            ("bytes", Some(bytes.to_string())),
        ])
    })
}
