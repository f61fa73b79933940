//! `muster secret …`: which secrets there are, how old they are, and their rotation. No verb shows a value.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;

use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, or_dash};

/// How long `rotate --wait` waits.
const WAIT: Duration = Duration::from_secs(60);
const BETWEEN: Duration = Duration::from_millis(500);

/// Verbs of secrets.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum SecretCommand {
    /// List secrets, the most overdue first
    #[command(after_help = "Examples:\n  muster secret list\n  muster secret list -o json")]
    List,
    /// Show a secret: whose it is, where it is kept, what happens at the next rotation; never its value
    #[command(after_help = "Examples:\n  muster secret show access-token-key")]
    Show { name: String },
    /// Rotate a secret now; both values are good for a while
    #[command(
        after_help = "Examples:\n  muster secret rotate access-token-key --wait\n  muster secret rotate sealing-key"
    )]
    Rotate {
        name: String,
        /// Wait until it is done, a minute at most
        #[arg(long)]
        wait: bool,
    },
    /// End at once what earlier versions of a token key signed, when somebody else has the key
    #[command(
        after_help = "Examples:\n  muster secret rotate access-token-key --wait && sleep 15 && muster secret revoke access-token-key"
    )]
    Revoke {
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Set after how many days a secret is rotated, 1 to 90; keys that devices obey, 1 to 366
    #[command(
        after_help = "Examples:\n  muster secret period client:cli_0198… 14\n  muster secret period action-key 365"
    )]
    Period { name: String, days: u32 },
    /// List the stores of secrets, and whether they answer
    #[command(after_help = "Examples:\n  muster secret stores")]
    Stores,
    /// Write something to the store, read it back, compare
    #[command(after_help = "Examples:\n  muster secret test")]
    Test,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Secret {
    name: String,
    kind: String,
    owner: String,
    belongs_to: String,
    rotated_by: String,
    place: String,
    version: i64,
    rotated_at: Option<String>,
    due_at: Option<String>,
    period_days: u32,
    overdue_seconds: u64,
    age_percent: u64,
    overlap_until: Option<String>,
    asked_at: Option<String>,
    error: Option<String>,
    next: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Store {
    place: String,
    is_used: bool,
    confirmed_at: Option<String>,
    error: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Tested {
    place: String,
    version: String,
    versions_kept: Option<u32>,
    warning: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Items<T: Default> {
    items: Vec<T>,
}

/// Runs one verb.
pub async fn run(command: SecretCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        SecretCommand::List => {
            let answer: Answer<Items<Secret>> = api.send(Call::get(&["secrets"])).await?;
            printer.answer(&answer.value, |printer| table(printer, &answer.known.items))
        }
        SecretCommand::Show { name } => {
            let answer: Answer<Secret> = api.send(Call::get(&["secrets", &name])).await?;
            printer.answer(&answer.value, |printer| sheet(printer, &answer.known))
        }
        SecretCommand::Rotate { name, wait } => rotate(api, printer, &name, wait).await,
        SecretCommand::Revoke { name, yes } => {
            printer.confirm(yes, "Every token that an earlier key signed ends now.", &name)?;
            let call = Call::post(&["secrets", &name, "revoke"]).body(json!({}));
            let answer: Answer<Secret> = api.send(call).await?;
            printer.answer(&answer.value, |printer| sheet(printer, &answer.known))
        }
        SecretCommand::Period { name, days } => {
            let call = Call::put(&["secrets", &name], json!({"period_days": days}));
            let answer: Answer<Secret> = api.send(call).await?;
            printer.answer(&answer.value, |printer| sheet(printer, &answer.known))
        }
        SecretCommand::Stores => {
            let answer: Answer<Items<Store>> = api.send(Call::get(&["secret-stores"])).await?;
            printer.answer(&answer.value, |printer| stores(printer, &answer.known.items))
        }
        SecretCommand::Test => {
            let answer: Answer<Tested> = api
                .send(Call::post(&["secret-stores", "test"]).body(json!({})))
                .await?;
            printer.answer(&answer.value, |_| {
                let tested = answer.known.clone();
                Sheet::new().fields(vec![
                    ("store", Some(tested.place)),
                    ("version", Some(tested.version)),
                    ("versions kept", tested.versions_kept.map(|kept| kept.to_string())),
                    ("warning", tested.warning),
                ])
            })?;
            printer.note("The store took a value and gave it back.");
            Ok(())
        }
    }
}

async fn rotate(api: &Api, printer: &Printer, name: &str, wait: bool) -> Result<(), CliError> {
    let call = Call::post(&["secrets", name, "rotate"]).body(json!({}));
    let mut answer: Answer<Secret> = api.send(call).await?;
    let mut left = if wait { WAIT } else { Duration::ZERO };
    while answer.known.asked_at.is_some() && !left.is_zero() {
        tokio::time::sleep(BETWEEN).await;
        left = left.saturating_sub(BETWEEN);
        answer = api.send(Call::get(&["secrets", name])).await?;
    }
    printer.answer(&answer.value, |printer| sheet(printer, &answer.known))?;
    if answer.known.asked_at.is_some() {
        printer.note("The server rotates it within seconds; `muster secret show` tells.");
    }
    Ok(())
}

fn state(secret: &Secret) -> &'static str {
    match (secret.overdue_seconds, &secret.error, &secret.asked_at) {
        (1.., _, _) => "overdue",
        (_, Some(_), _) => "failing",
        (_, _, Some(_)) => "asked",
        _ => "on time",
    }
}

fn table(printer: &Printer, secrets: &[Secret]) -> Sheet {
    let row = |secret: &Secret| {
        vec![
            secret.name.clone(),
            state(secret).to_owned(),
            secret.rotated_by.clone(),
            format!("{} %", secret.age_percent),
            printer.ago(secret.rotated_at.as_deref()),
            secret.owner.clone(),
        ]
    };
    Sheet::new().rows(
        "secrets",
        &["name", "state", "rotated by", "age", "rotated", "owner"],
        secrets.iter().map(row).collect(),
    )
}

fn sheet(printer: &Printer, secret: &Secret) -> Sheet {
    Sheet::new().fields(vec![
        ("name", Some(secret.name.clone())),
        ("state", Some(state(secret).to_owned())),
        ("kind", Some(secret.kind.clone())),
        ("owner", Some(secret.owner.clone())),
        ("belongs to", Some(secret.belongs_to.clone())),
        ("kept at", Some(secret.place.clone())),
        ("version", Some(secret.version.to_string())),
        ("rotated", Some(printer.ago(secret.rotated_at.as_deref()))),
        ("rotated by", Some(secret.rotated_by.clone())),
        ("due", secret.due_at.clone()),
        ("period", Some(format!("{} days", secret.period_days))),
        ("before good until", secret.overlap_until.clone()),
        ("error", secret.error.clone()),
        ("next", Some(secret.next.clone())),
    ])
}

fn stores(printer: &Printer, stores: &[Store]) -> Sheet {
    let row = |store: &Store| {
        vec![
            store.place.clone(),
            if store.is_used { "yes" } else { "no" }.to_owned(),
            printer.ago(store.confirmed_at.as_deref()),
            or_dash(store.error.as_deref()),
        ]
    };
    Sheet::new().rows(
        "stores",
        &["store", "takes new values", "answered", "error"],
        stores.iter().map(row).collect(),
    )
}
