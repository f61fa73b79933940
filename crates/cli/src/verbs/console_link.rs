//! `muster console-link`

use serde::Deserialize;
use serde_json::json;

use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::Printer;

/// Examples of the verb.
pub const HELP: &str = "Examples:
  muster console-link
  muster console-link --admin-file ./data/admin.json --person ada
  muster console-link --person ben --role helpdesk";

/// Whom the link is for.
#[derive(Clone, Debug, clap::Args)]
pub struct ConsoleLinkArgs {
    /// The person, as the log will name them
    #[arg(long, value_name = "NAME", default_value = "operator")]
    person: String,
    /// What the person may do, never more than the account that makes the link; may be repeated. Without one: whatever it may do
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Link {
    url: String,
    expires_at: String,
}

/// Makes the link; standard output holds it alone.
pub async fn run(arguments: ConsoleLinkArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let call =
        Call::post(&["console-links"]).body(json!({"person": arguments.person, "roles": arguments.roles}));
    let answer: Answer<Link> = api.send(call).await?;
    if printer.is_json() {
        printer.json(&answer.value)?;
    } else {
        printer.line(&answer.known.url)?;
    }
    printer.note(&format!("It works once, until {}.", answer.known.expires_at));
    Ok(())
}
