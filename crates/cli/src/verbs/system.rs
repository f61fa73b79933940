//! `muster settings`, `overview`, `version`, `completion`.

use clap::CommandFactory as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Page, list};
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, plain};
use crate::{CliError, Globals, context};

pub const SETTINGS_HELP: &str =
    "Examples:\n  muster settings\n  muster settings passcode.min_length\n  muster settings usb";
pub const OVERVIEW_HELP: &str = "Examples:\n  muster overview\n  muster overview -o json";
pub const VERSION_HELP: &str = "Examples:\n  muster version";
pub const COMPLETION_HELP: &str = "Examples:\n  muster completion bash > \
    ~/.local/share/bash-completion/completions/muster\n  muster completion zsh > \"${fpath[1]}/_muster\"";

/// Which settings.
#[derive(Clone, Debug, clap::Args)]
pub struct SettingsArgs {
    /// Only those whose key contains this; with support by platform if it is one key
    key: Option<String>,
}

/// For which shell.
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionArgs {
    shell: clap_complete::Shell,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Setting {
    key: String,
    values: String,
    meaning: String,
    merge: String,
    support: Vec<Support>,
    reversal: Reversal,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Reversal {
    reversal: String,
    why: Option<String>,
}

impl Reversal {
    fn in_words(&self) -> String {
        let word = self.reversal.replace('_', " ");
        match &self.why {
            Some(why) => format!("{word}: {why}"),
            None => word,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Support {
    platform: String,
    support: String,
    why: Option<String>,
}

/// The catalogue of the server.
pub async fn settings(arguments: &SettingsArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let answer: Answer<Page<Setting>> =
        list(api, Call::get(&["settings"]), &super::Paging::default()).await?;
    let wanted = arguments.key.as_deref().unwrap_or_default();
    let is_exact = answer.known.items.iter().any(|setting| setting.key == wanted);
    let is_wanted = |key: &str| {
        if is_exact {
            key == wanted
        } else {
            key.contains(wanted)
        }
    };
    let mut value = answer.value;
    if let Some(items) = value["items"].as_array_mut() {
        items.retain(|item| item["key"].as_str().is_some_and(is_wanted));
    }
    let found: Vec<_> = answer
        .known
        .items
        .iter()
        .filter(|setting| is_wanted(&setting.key))
        .collect();
    if found.is_empty() {
        return Err(CliError::Failed(format!("no setting's key contains `{wanted}`")));
    }
    printer.answer(&value, |_| match found.as_slice() {
        [one] => one_setting(one),
        many => {
            let row = |setting: &&Setting| {
                vec![
                    setting.key.clone(),
                    setting.values.clone(),
                    setting.reversal.reversal.replace('_', " "),
                    setting.meaning.clone(),
                ]
            };
            Sheet::new().rows(
                "settings",
                &["setting", "values", "taken back", "meaning"],
                many.iter().map(row).collect(),
            )
        }
    })
}

fn one_setting(setting: &Setting) -> Sheet {
    let support = setting.support.iter().map(|support| {
        vec![
            support.platform.clone(),
            support.support.clone(),
            support.why.clone().unwrap_or_default(),
        ]
    });
    Sheet::new()
        .fields(vec![
            ("setting", Some(setting.key.clone())),
            ("meaning", Some(setting.meaning.clone())),
            ("values", Some(setting.values.clone())),
            ("several policies", Some(setting.merge.clone())),
            ("taken back", Some(setting.reversal.in_words())),
        ])
        .rows("platforms", &["platform", "support", "why"], support.collect())
}

/// The fleet in numbers. Whatever the server counts is shown: objects as lists of counts, the rest as it is.
pub async fn overview(api: &Api, printer: &Printer) -> Result<(), CliError> {
    let answer: Answer<Value> = api.send(Call::get(&["overview"])).await?;
    printer.answer(&answer.value, |_| {
        let mut rows = Vec::new();
        flatten("", &answer.known, &mut rows);
        Sheet::new().rows("counts", &["what", "value"], rows)
    })
}

/// One row per value that is not an object, with its path in words.
fn flatten(path: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
    let below = |name: &str| {
        let name = name.replace('_', " ");
        if path.is_empty() {
            name
        } else {
            format!("{path}, {name}")
        }
    };
    match value {
        Value::Object(members) => members
            .iter()
            .for_each(|(name, value)| flatten(&below(name), value, rows)),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for item in items {
                let text = item.as_object().map(|members| {
                    let parts = members.iter().filter(|(_, value)| !value.is_null());
                    parts
                        .map(|(name, value)| format!("{name}: {}", plain(value)))
                        .collect::<Vec<_>>()
                        .join(", ")
                });
                rows.push(vec![path.to_owned(), text.unwrap_or_else(|| plain(item))]);
            }
        }
        Value::Array(items) => rows.push(vec![
            path.to_owned(),
            items.iter().map(plain).collect::<Vec<_>>().join(" "),
        ]),
        other => rows.push(vec![path.to_owned(), plain(other)]),
    }
}

/// Versions of both ends; of this one alone where no install is chosen.
pub async fn version(globals: &Globals, printer: &Printer) -> Result<(), CliError> {
    let client = env!("CARGO_PKG_VERSION");
    let server = match context::resolve(globals) {
        Err(CliError::NoContext) => None,
        Err(error) => return Err(error),
        Ok(context) => {
            let answer: Answer<Value> = Api::new(context)?.send(Call::get(&["version"])).await?;
            Some(answer.value)
        }
    };
    printer.answer(&json!({"client": client, "server": server}), |_| {
        let server = server
            .as_ref()
            .map(|server| plain(server.get("version").unwrap_or(server)));
        Sheet::new().fields(vec![("muster", Some(client.to_owned())), ("server", server)])
    })
}

/// A completion script for the whole program where the binary has told its parser, for these verbs otherwise.
pub fn completion(arguments: &CompletionArgs, globals: &Globals, printer: &Printer) -> Result<(), CliError> {
    #[derive(clap::Parser)]
    #[command(name = "muster")]
    struct Verbs {
        #[command(flatten)]
        _globals: Globals,
        #[command(subcommand)]
        _command: crate::Command,
    }
    let mut program = globals.program.clone().unwrap_or_else(Verbs::command);
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut program, name, &mut script);
    printer.line(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overview_of_any_shape_is_flat() {
        let value = json!({"devices": {"total": 3, "by_state": {"active": 2}}, "needs_you": [{"what": "x", "id": null}], "empty": []});
        let mut rows = Vec::new();
        flatten("", &value, &mut rows);
        let rows: Vec<_> = rows.iter().map(|row| row.join("=")).collect();
        assert!(
            rows.contains(&"devices, by state, active=2".to_owned()),
            "{rows:?}"
        );
        assert!(rows.contains(&"needs you=what: x".to_owned()), "{rows:?}");
        assert_eq!(rows.len(), 4);
    }
}
