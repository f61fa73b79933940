//! `muster context …`

use serde_json::json;

use crate::context::Contexts;
use crate::output::{Printer, Sheet};
use crate::{CliError, Globals};

/// Verbs of stored installs.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ContextCommand {
    /// List what `muster login` stored
    #[command(after_help = "Examples:\n  muster context list")]
    List,
    /// Choose the install that verbs use
    #[command(after_help = "Examples:\n  muster context use prod")]
    Use { name: String },
    /// Forget an install and its credentials
    #[command(after_help = "Examples:\n  muster context remove lab")]
    Remove { name: String },
}

/// Runs one verb.
pub fn run(command: ContextCommand, globals: &Globals, printer: &Printer) -> Result<(), CliError> {
    let mut stored = Contexts::load(globals)?;
    match command {
        ContextCommand::List => {
            let is_current = |name: &str| stored.current.as_deref() == Some(name);
            let items: Vec<_> = stored
                .contexts
                .iter()
                .map(|(name, context)| json!({"name": name, "admin_url": context.admin_url, "way": context.way(), "current": is_current(name)}))
                .collect();
            printer.answer(&json!({"items": items}), |_| {
                let row = |(name, context): (&String, &crate::context::Context)| {
                    let mark = if is_current(name) { "*" } else { "" };
                    vec![
                        mark.to_owned(),
                        name.clone(),
                        context.admin_url.clone(),
                        context.client_id.clone(),
                        context.way().to_owned(),
                    ]
                };
                Sheet::new().rows(
                    "contexts",
                    &["", "name", "address", "client", "by"],
                    stored.contexts.iter().map(row).collect(),
                )
            })
        }
        ContextCommand::Use { name } => {
            known(&stored, &name)?;
            stored.current = Some(name.clone());
            stored.save(globals)?;
            printer.note(&format!("Verbs use {name} now."));
            Ok(())
        }
        ContextCommand::Remove { name } => {
            known(&stored, &name)?;
            stored.contexts.remove(&name);
            stored.current = stored.current.filter(|current| *current != name);
            stored.save(globals)?;
            printer.note(&format!("{name} is forgotten."));
            Ok(())
        }
    }
}

fn known(stored: &Contexts, name: &str) -> Result<(), CliError> {
    if stored.contexts.contains_key(name) {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "there is no context `{name}`; `muster context list` shows what is stored"
    )))
}
