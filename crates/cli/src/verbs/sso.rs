//! `muster sso …`: connections to identity providers.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::json;

use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::context::read_input;
use crate::output::{Printer, Sheet, or_dash};

/// Verbs of connections.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum SsoCommand {
    /// List connections, and how their last sign-ins went
    #[command(after_help = "Examples:\n  muster sso list")]
    List,
    /// Connect an identity provider, or change how it is connected
    #[command(
        after_help = "Examples:\n  muster sso put corp --issuer https://login.microsoftonline.com/DIRECTORY/v2.0 --client-id \
        6f3c… --secret-file secret.txt\n  muster sso put corp --issuer https://corp.okta.com --client-id 0oa… --auth \
        private_key_jwt --require-amr mfa\n\nThe answer has the addresses to enter at the provider. Then: muster sso test corp; \
        muster access grant administrator --group mdm-admins --source corp"
    )]
    Put(Box<PutArgs>),
    /// Try a connection step by step, and say at which one it fails
    #[command(after_help = "Examples:\n  muster sso test corp")]
    Test { name: String },
    /// Remove a connection; whoever came by it is signed out
    #[command(after_help = "Examples:\n  muster sso delete corp --yes")]
    Delete {
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// A connection.
#[derive(Clone, Debug, clap::Args)]
pub struct PutArgs {
    /// As people see it at sign-in
    name: String,
    /// As the provider's tokens say it, to the letter
    #[arg(long, value_name = "URL")]
    issuer: String,
    /// What the provider calls this server
    #[arg(long, value_name = "ID")]
    client_id: String,
    /// How this server proves who it is: secret_basic, secret_post or private_key_jwt
    #[arg(long, value_name = "WAY", default_value = "secret_basic")]
    auth: String,
    /// The file with the client's secret, `-` for standard input; without it the one that is known stays
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// A scope that is asked for besides openid; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", default_values = ["profile", "email"])]
    scopes: Vec<String>,
    /// The claim that lists groups; a JSON Pointer finds a nested one
    #[arg(long, value_name = "CLAIM", default_value = "groups")]
    groups_claim: String,
    /// The claim by which people are called
    #[arg(long, value_name = "CLAIM")]
    name_claim: Option<String>,
    /// One of these must be said of how people are known (acr); may be repeated
    #[arg(long, value_name = "ACR")]
    require_acr: Vec<String>,
    /// All of these must be among what people were asked for (amr); may be repeated
    #[arg(long, value_name = "AMR")]
    require_amr: Vec<String>,
    /// The only directory of Microsoft Entra whose people may come
    #[arg(long, value_name = "TID")]
    tid: Option<String>,
    /// Keep the connection and let nobody sign in by it
    #[arg(long)]
    disabled: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Items<T> {
    items: Vec<T>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Addresses {
    redirect_uri: String,
    backchannel_logout_uri: String,
    post_logout_redirect_uri: String,
    jwks_uri: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Definition {
    issuer: String,
    client_auth: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Connection {
    name: String,
    enabled: bool,
    definition: Definition,
    addresses: Addresses,
    succeeded_at: Option<String>,
    error: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Step {
    step: String,
    outcome: String,
    detail: String,
}

/// Runs one verb.
pub async fn run(command: SsoCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        SsoCommand::List => {
            let answer: Answer<Items<Connection>> = api.send(Call::get(&["access", "connections"])).await?;
            printer.answer(&answer.value, |printer| connections(printer, &answer.known.items))
        }
        SsoCommand::Put(arguments) => put(*arguments, api, printer).await,
        SsoCommand::Test { name } => {
            let call = Call::post(&["access", "connections", &name, "test"]);
            let answer: Answer<Items<Step>> = api.send(call).await?;
            printer.answer(&answer.value, |_| steps(&answer.known.items))?;
            match answer.known.items.iter().find(|step| step.outcome == "failed") {
                None => Ok(()),
                Some(step) => Err(CliError::Failed(format!("the step {} failed", step.step))),
            }
        }
        SsoCommand::Delete { name, yes } => {
            printer.confirm(
                yes,
                "Whoever came by it is signed out, and the roles of its groups are gone.",
                &name,
            )?;
            api.send_quiet(Call::delete(&["access", "connections", &name]))
                .await?;
            printer.note(&format!("{name} is removed."));
            Ok(())
        }
    }
}

async fn put(arguments: PutArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let secret = arguments.secret_file.as_deref().map(read_input).transpose()?;
    let mut body = json!({
        "definition": {
            "issuer": arguments.issuer, "client_id": arguments.client_id, "client_auth": arguments.auth,
            "scopes": arguments.scopes, "groups_claim": arguments.groups_claim, "required_acr": arguments.require_acr,
            "required_amr": arguments.require_amr,
        },
        "enabled": !arguments.disabled,
    });
    if let Some(claim) = arguments.name_claim {
        body["definition"]["name_claim"] = json!(claim);
    }
    if let Some(tid) = arguments.tid {
        body["definition"]["tid"] = json!(tid);
    }
    if let Some(secret) = secret {
        body["client_secret"] = json!(String::from_utf8_lossy(&secret).trim_end());
    }
    let call = Call::put(&["access", "connections", &arguments.name], body);
    let answer: Answer<Connection> = api.send(call).await?;
    printer.answer(&answer.value, |_| {
        let Connection {
            addresses,
            definition,
            ..
        } = answer.known.clone();
        let own_key = definition.client_auth == "private_key_jwt";
        Sheet::new().fields(vec![
            ("redirect URI", Some(addresses.redirect_uri)),
            ("back-channel logout URI", Some(addresses.backchannel_logout_uri)),
            ("after signing out", Some(addresses.post_logout_redirect_uri)),
            (
                "keys of this server",
                Some(addresses.jwks_uri).filter(|_| own_key),
            ),
        ])
    })?;
    printer.note("Enter these at the provider, then: muster sso test");
    Ok(())
}

fn connections(printer: &Printer, items: &[Connection]) -> Sheet {
    let row = |one: &Connection| {
        let state = match (one.enabled, &one.error, &one.succeeded_at) {
            (false, _, _) => "switched off",
            (true, Some(_), _) => "failing",
            (true, None, Some(_)) => "works",
            (true, None, None) => "never used",
        };
        vec![
            one.name.clone(),
            state.to_owned(),
            one.definition.issuer.clone(),
            printer.ago(one.succeeded_at.as_deref()),
            or_dash(one.error.as_deref()),
        ]
    };
    Sheet::new().rows(
        "connections; muster sso put --help says how to make one",
        &["name", "state", "issuer", "last sign-in", "error"],
        items.iter().map(row).collect(),
    )
}

fn steps(items: &[Step]) -> Sheet {
    let row = |step: &Step| vec![step.step.clone(), step.outcome.clone(), step.detail.clone()];
    Sheet::new().rows(
        "steps",
        &["step", "outcome", "what was found"],
        items.iter().map(row).collect(),
    )
}
