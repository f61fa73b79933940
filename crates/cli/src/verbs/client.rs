//! `muster client …`

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;

use super::{Page, Paging, list};
use crate::api::{Answer, Api, Call};
use crate::context::read_file;
use crate::key_file::{self, NewPassphrase};
use crate::output::{Printer, Sheet};
use crate::{CliError, assertion};

/// Verbs of API clients.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ClientCommand {
    /// List clients
    #[command(after_help = "Examples:\n  muster client list")]
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Make a client; its secret is shown this once
    #[command(
        after_help = "Examples:\n  muster client create ci --scope policy:read --scope policy:write --scope \
        policy:activate\n  muster client create dashboard --role read_only\n  muster client create deploy --scope config:write \
        --no-secret"
    )]
    Create {
        name: String,
        /// What it may do, such as device:read; may be repeated
        #[arg(long = "scope", value_name = "SCOPE", required_unless_present = "roles")]
        scopes: Vec<String>,
        /// A role that it has besides; may be repeated
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// Make no secret: it signs with its own key, or a trust brings its tokens
        #[arg(long)]
        no_secret: bool,
    },
    /// Make a new secret for a client, shown this once; the old one is good meanwhile
    #[command(
        after_help = "Examples:\n  muster client rotate cli_…\n  muster client rotate cli_… --overlap-seconds 604800"
    )]
    Rotate {
        id: String,
        /// How long the old secret is good as well
        #[arg(long, value_name = "SECONDS", default_value_t = 86_400)]
        overlap_seconds: u64,
    },
    /// Keys with which a client signs who it is, so that it needs no secret
    #[command(subcommand)]
    Key(KeyCommand),
    /// Remove a client; its tokens end at once
    #[command(after_help = "Examples:\n  muster client delete cli_…")]
    Delete {
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// Verbs of a client's keys.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum KeyCommand {
    /// List a client's keys
    #[command(after_help = "Examples:\n  muster client key list cli_…")]
    List { id: String },
    /// Add a key, or make one and add its public half
    #[command(
        after_help = "Examples:\n  muster client key add cli_… --generate ci.pem\n  muster client key add cli_… ci.pub\n  muster \
        client key add cli_… jwk.json\n  muster client key add cli_… --certificate ci-cert.pem\n\n\
        Then: muster login --client-id cli_… --key ci.pem. A private key is never sent."
    )]
    Add {
        id: String,
        /// The public half: PEM (Ed25519, P-256), or a JSON Web Key
        #[arg(
            value_name = "FILE",
            required_unless_present_any = ["generate", "certificate"],
            conflicts_with_all = ["generate", "certificate"]
        )]
        file: Option<PathBuf>,
        /// A certificate (PEM) that the client shows in the handshake, instead of a key
        #[arg(long, value_name = "FILE", conflicts_with = "generate")]
        certificate: Option<PathBuf>,
        /// Make an Ed25519 key in this new file, which only its owner can read
        #[arg(long, value_name = "FILE")]
        generate: Option<PathBuf>,
    },
    /// Remove a key; tokens that it brought end at once
    #[command(after_help = "Examples:\n  muster client key remove cli_… THUMBPRINT")]
    Remove {
        id: String,
        /// As `muster client key list` shows it
        thumbprint: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Say where the client publishes its keys (a JWK set); without an address, nowhere
    #[command(
        after_help = "Examples:\n  muster client key address cli_… https://ci.example/jwks.json\n  muster client key address cli_…"
    )]
    Address { id: String, url: Option<String> },
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Keys {
    items: Vec<Key>,
    jwks_uri: Option<String>,
    has_secret: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Key {
    thumbprint: String,
    kid: String,
    added_by: String,
    added_at: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Client {
    client_id: String,
    client_secret: Option<String>,
    name: String,
    scopes: Vec<String>,
    created_at: Option<String>,
    disabled_at: Option<String>,
}

/// Runs one verb.
pub async fn run(command: ClientCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        ClientCommand::List { paging } => {
            let answer: Answer<Page<Client>> = list(api, Call::get(&["clients"]), &paging).await?;
            printer.answer(&answer.value, |printer| clients(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        ClientCommand::Key(command) => run_key(command, api, printer).await,
        ClientCommand::Create {
            name,
            scopes,
            roles,
            no_secret,
        } => {
            // Without an idempotency key: a kept answer would be a second copy of the secret.
            let mut body = json!({"name": name, "scopes": scopes, "roles": roles});
            if no_secret {
                body["without_secret"] = json!(true);
            }
            let call = Call::post(&["clients"]).body(body);
            let note = if no_secret {
                "Give it a key (muster client key add), or let a trust bring its tokens (muster trust put)."
            } else {
                SHOWN_ONCE
            };
            show_secret(api.send(call).await?, note, printer)
        }
        ClientCommand::Rotate { id, overlap_seconds } => {
            let body = json!({"overlap_seconds": overlap_seconds});
            let call = Call::post(&["clients", &id, "secret"]).body(body);
            show_secret(api.send(call).await?, SHOWN_ONCE, printer)
        }
        ClientCommand::Delete { id, yes } => {
            printer.confirm(yes, "Whatever uses this client stops working.", &id)?;
            api.send_quiet(Call::delete(&["clients", &id])).await?;
            printer.note(&format!("{id} is removed."));
            Ok(())
        }
    }
}

const SHOWN_ONCE: &str = "The secret is not shown again.";

fn show_secret(answer: Answer<Client>, note: &str, printer: &Printer) -> Result<(), CliError> {
    printer.answer(&answer.value, |_| {
        let Client {
            client_id,
            client_secret,
            ..
        } = answer.known.clone();
        Sheet::new().fields(vec![
            ("client_id", Some(client_id)),
            ("client_secret", client_secret),
        ])
    })?;
    printer.note(note);
    Ok(())
}

async fn run_key(command: KeyCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        KeyCommand::List { id } => {
            let answer: Answer<Keys> = api.send(Call::get(&["clients", &id, "keys"])).await?;
            printer.answer(&answer.value, |printer| keys(printer, &answer.known))
        }
        KeyCommand::Add {
            id,
            file,
            certificate,
            generate,
        } => {
            let body = match (&file, &generate, &certificate) {
                (Some(file), None, None) => json!({"jwk": public_jwk(file)?}),
                (_, Some(path), _) => {
                    let key = key_file::generate(path, &NewPassphrase::none())?;
                    json!({"jwk": assertion::jwk(key.public())})
                }
                (_, None, Some(file)) => json!({"certificate": certificate_text(file)?}),
                (None, None, None) => {
                    return Err(CliError::Usage(
                        "give the file of the key, or --generate FILE".to_owned(),
                    ));
                }
            };
            let call = Call::post(&["clients", &id, "keys"]).body(body);
            let answer: Answer<Key> = api.send(call).await?;
            printer.answer(&answer.value, |_| {
                let private = generate.as_ref().map(|path| path.display().to_string());
                Sheet::new().fields(vec![
                    ("thumbprint", Some(answer.known.thumbprint.clone())),
                    ("private key in", private),
                ])
            })?;
            printer.note("It counts from now on. The client counts as new for what the root document says of new accounts.");
            Ok(())
        }
        KeyCommand::Remove { id, thumbprint, yes } => {
            printer.confirm(yes, "Whatever signs with this key stops working.", &thumbprint)?;
            api.send_quiet(Call::delete(&["clients", &id, "keys", &thumbprint]))
                .await?;
            printer.note("The key is removed, and tokens that it brought have ended.");
            Ok(())
        }
        KeyCommand::Address { id, url } => {
            let call = Call::put(&["clients", &id, "jwks-uri"], json!({"jwks_uri": url}));
            api.send_quiet(call).await?;
            printer.note("It is noted.");
            Ok(())
        }
    }
}

/// A public key from a file: PEM, or a JSON Web Key as it is. What is private never leaves this machine.
fn public_jwk(file: &Path) -> Result<serde_json::Value, CliError> {
    let bytes = read_file(file)?;
    let Ok(jwk) = serde_json::from_slice::<serde_json::Value>(&bytes) else {
        return Ok(assertion::jwk(&key_file::read_public(file)?));
    };
    if ["d", "p", "q", "dp", "dq", "qi", "oth", "k"]
        .iter()
        .any(|name| jwk.get(name).is_some())
    {
        return Err(CliError::Content {
            path: file.to_owned(),
            detail: "this is a private key: keep it where it is, and hand over its public half".to_owned(),
        });
    }
    Ok(jwk)
}

fn certificate_text(file: &Path) -> Result<String, CliError> {
    let wrong = |detail: &str| CliError::Content {
        path: file.to_owned(),
        detail: detail.to_owned(),
    };
    let text = String::from_utf8(read_file(file)?).map_err(|_| wrong("not a PEM file"))?;
    if text.contains("PRIVATE KEY") {
        return Err(wrong(
            "this has a private key in it: hand over the certificate alone",
        ));
    }
    Ok(text)
}

fn keys(printer: &Printer, keys: &Keys) -> Sheet {
    let row = |key: &Key| {
        vec![
            key.thumbprint.clone(),
            key.kid.clone(),
            key.added_by.clone(),
            printer.ago(key.added_at.as_deref()),
        ]
    };
    let secret = if keys.has_secret { "yes" } else { "no" };
    Sheet::new()
        .rows(
            "keys; muster client key add --generate makes one",
            &["thumbprint", "kid", "added by", "added"],
            keys.items.iter().map(row).collect(),
        )
        .fields(vec![
            ("published at", keys.jwks_uri.clone()),
            ("has a secret", Some(secret.to_owned())),
        ])
}

fn clients(printer: &Printer, clients: &[Client]) -> Sheet {
    let row = |client: &Client| {
        let state = if client.disabled_at.is_some() {
            "removed"
        } else {
            "active"
        };
        vec![
            client.name.clone(),
            state.to_owned(),
            client.scopes.join(" "),
            printer.ago(client.created_at.as_deref()),
            client.client_id.clone(),
        ]
    };
    Sheet::new().rows(
        "clients",
        &["name", "state", "scopes", "created", "id"],
        clients.iter().map(row).collect(),
    )
}
