//! `muster client …`

use serde::Deserialize;
use serde_json::json;

use super::{Page, Paging, list};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet};

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
        policy:activate\n  muster client create dashboard --role read_only"
    )]
    Create {
        name: String,
        /// What it may do, such as device:read; may be repeated
        #[arg(long = "scope", value_name = "SCOPE", required_unless_present = "roles")]
        scopes: Vec<String>,
        /// A role that it has besides; may be repeated
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
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
    /// Remove a client; its tokens end at once
    #[command(after_help = "Examples:\n  muster client delete cli_…")]
    Delete {
        id: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
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
        ClientCommand::Create { name, scopes, roles } => {
            // Without an idempotency key: a kept answer would be a second copy of the secret.
            let call = Call::post(&["clients"]).body(json!({"name": name, "scopes": scopes, "roles": roles}));
            show_secret(api.send(call).await?, printer)
        }
        ClientCommand::Rotate { id, overlap_seconds } => {
            let body = json!({"overlap_seconds": overlap_seconds});
            show_secret(
                api.send(Call::post(&["clients", &id, "secret"]).body(body))
                    .await?,
                printer,
            )
        }
        ClientCommand::Delete { id, yes } => {
            printer.confirm(yes, "Whatever uses this client stops working.", &id)?;
            api.send_quiet(Call::delete(&["clients", &id])).await?;
            printer.note(&format!("{id} is removed."));
            Ok(())
        }
    }
}

fn show_secret(answer: Answer<Client>, printer: &Printer) -> Result<(), CliError> {
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
    printer.note("The secret is not shown again.");
    Ok(())
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
