//! `muster trust …`: whose tokens are taken instead of a secret.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::context::read_input;
use crate::output::{Printer, Sheet, or_dash};

/// Verbs of trusts.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum TrustCommand {
    /// List trusts, and how the last tokens fared
    #[command(after_help = "Examples:\n  muster trust list")]
    List,
    /// Take the tokens of a pipeline or pod in exchange for a client's, or change which
    #[command(
        after_help = "Examples:\n  muster trust put gh --issuer https://token.actions.githubusercontent.com --audience \
        https://mdm.example:8440 \\\n      --require repository=my-org/config --require ref=refs/heads/main --client-id cli_… \
        --scope config:read --scope config:write\n  muster trust put k8s --issuer https://kubernetes.default.svc --jwks-uri \
        https://10.0.0.1/openid/v1/jwks \\\n      --audience muster --require sub=system:serviceaccount:ci:deploy --client-id cli_… \
        --scope device:read\n\nAt least one claim must say whose workload it is: sub, repository, repository_id, project_path, …"
    )]
    Put(Box<PutArgs>),
    /// Take the access tokens of people's identity provider, or change which
    #[command(
        after_help = "Examples:\n  muster trust people corp-api --connection corp --audience api://muster --required-scope \
        muster.use\n  muster trust people corp-api --connection corp --audience muster-api \\\n      --introspection-endpoint \
        https://idp.example/introspect --introspection-client-id muster --introspection-secret-file secret.txt"
    )]
    People(Box<PeopleArgs>),
    /// Remove a trust; tokens that it brought end at once
    #[command(after_help = "Examples:\n  muster trust delete gh --yes")]
    Delete {
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// A trust in workloads.
#[derive(Clone, Debug, clap::Args)]
pub struct PutArgs {
    name: String,
    /// As the tokens say it, to the letter
    #[arg(long, value_name = "URL")]
    issuer: String,
    /// Where its keys are, if its metadata cannot be reached
    #[arg(long, value_name = "URL")]
    jwks_uri: Option<String>,
    /// The one audience of the tokens: this server's address is a good one
    #[arg(long, value_name = "TEXT")]
    audience: String,
    /// What a claim must be, to the letter; may be repeated
    #[arg(long = "require", value_name = "CLAIM=VALUE")]
    equals: Vec<String>,
    /// What a claim must be like: `*` stands for a piece without / and :; may be repeated
    #[arg(long = "require-like", value_name = "CLAIM=PATTERN")]
    matches: Vec<String>,
    /// The client as which the workload acts
    #[arg(long, value_name = "ID")]
    client_id: String,
    /// What it may do, of what the client holds; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    scopes: Vec<String>,
    /// How long its tokens live, 60 to 3600
    #[arg(long, value_name = "SECONDS", default_value_t = 900)]
    token_seconds: u32,
    /// Take each token once and no more
    #[arg(long)]
    once: bool,
}

/// A trust in the tokens of people.
#[derive(Clone, Debug, clap::Args)]
pub struct PeopleArgs {
    name: String,
    /// The connection by which these people sign in
    #[arg(long, value_name = "NAME")]
    connection: String,
    /// What the provider calls this API
    #[arg(long, value_name = "TEXT")]
    audience: String,
    /// A scope that the tokens must hold
    #[arg(long, value_name = "SCOPE")]
    required_scope: Option<String>,
    /// Where the provider answers for tokens that are no JSON Web Tokens
    #[arg(long, value_name = "URL", requires = "introspection_client_id")]
    introspection_endpoint: Option<String>,
    /// As whom this server asks there
    #[arg(long, value_name = "ID", requires = "introspection_endpoint")]
    introspection_client_id: Option<String>,
    /// The file with the secret for that, `-` for standard input; without it the one that is known stays
    #[arg(long, value_name = "FILE")]
    introspection_secret_file: Option<PathBuf>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Items {
    items: Vec<Trust>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Trust {
    name: String,
    kind: String,
    issuer: String,
    used_at: Option<String>,
    error: Option<String>,
}

/// Runs one verb.
pub async fn run(command: TrustCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        TrustCommand::List => {
            let answer: Answer<Items> = api.send(Call::get(&["trusts"])).await?;
            printer.answer(&answer.value, |printer| trusts(printer, &answer.known.items))
        }
        TrustCommand::Put(arguments) => {
            let body = json!({"definition": {"workload": workload(&arguments)?}});
            put(&arguments.name, body, api, printer).await
        }
        TrustCommand::People(arguments) => {
            let mut people = json!({"connection": arguments.connection, "audience": arguments.audience});
            let optional = [
                ("required_scope", &arguments.required_scope),
                ("introspection_endpoint", &arguments.introspection_endpoint),
                ("introspection_client_id", &arguments.introspection_client_id),
            ];
            for (name, value) in optional {
                if let Some(value) = value {
                    people[name] = json!(value);
                }
            }
            let mut body = json!({"definition": {"people": people}});
            if let Some(file) = &arguments.introspection_secret_file {
                let secret = read_input(file)?;
                body["introspection_secret"] = json!(String::from_utf8_lossy(&secret).trim_end());
            }
            put(&arguments.name, body, api, printer).await
        }
        TrustCommand::Delete { name, yes } => {
            printer.confirm(yes, "Whoever comes by it gets no more tokens.", &name)?;
            api.send_quiet(Call::delete(&["trusts", &name])).await?;
            printer.note(&format!("{name} is removed."));
            Ok(())
        }
    }
}

async fn put(name: &str, body: Value, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let answer: Answer<Trust> = api.send(Call::put(&["trusts", name], body)).await?;
    printer.answer(&answer.value, |printer| {
        trusts(printer, std::slice::from_ref(&answer.known))
    })
}

fn workload(arguments: &PutArgs) -> Result<Value, CliError> {
    let mut conditions = Vec::new();
    for (kind, texts) in [("equals", &arguments.equals), ("matches", &arguments.matches)] {
        for text in texts {
            let (claim, value) = text.split_once('=').ok_or_else(|| {
                CliError::Usage(format!(
                    "`{text}`: write CLAIM=VALUE, such as ref=refs/heads/main"
                ))
            })?;
            conditions.push(json!({"claim": claim, kind: value}));
        }
    }
    let mut workload = json!({
        "issuer": arguments.issuer, "audience": arguments.audience, "conditions": conditions,
        "client_id": arguments.client_id, "scopes": arguments.scopes, "token_seconds": arguments.token_seconds,
        "once": arguments.once,
    });
    if let Some(uri) = &arguments.jwks_uri {
        workload["jwks_uri"] = json!(uri);
    }
    Ok(workload)
}

fn trusts(printer: &Printer, items: &[Trust]) -> Sheet {
    let row = |trust: &Trust| {
        vec![
            trust.name.clone(),
            trust.kind.clone(),
            trust.issuer.clone(),
            printer.ago(trust.used_at.as_deref()),
            or_dash(trust.error.as_deref()),
        ]
    };
    Sheet::new().rows(
        "trusts; muster trust put --help says how to make one",
        &["name", "of", "issuer", "last used", "last refusal"],
        items.iter().map(row).collect(),
    )
}
