//! `muster group …`

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Page, Paging, list};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::context::read_input;
use crate::output::{Printer, Sheet, or_dash};

/// Verbs of dynamic groups. GROUP is a group's id or name.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum GroupCommand {
    /// List groups
    #[command(after_help = "Examples:\n  muster group list\n  muster group list --all -o json")]
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a group
    #[command(after_help = "Examples:\n  muster group show sales-laptops")]
    Show { group: String },
    /// Make a group
    #[command(
        after_help = "Examples:\n  muster group create sales-laptops --include 'labels.department == \"sales\"'\n  muster \
        group create old-debian --include 'os.id == \"debian\" && os.version < version(\"12\")' --exclude 'has(labels.keep)'\
        \n\nMembers are the active devices for which the first expression is true and the second one is not."
    )]
    Create {
        name: String,
        #[command(flatten)]
        expressions: Expressions,
        /// A sentence for people
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Change a group; what is not named stays
    #[command(
        after_help = "Examples:\n  muster group edit sales-laptops --exclude 'device.ownership == \"personal\"'\n  muster \
        group edit sales-laptops --no-exclude --name sales"
    )]
    Edit(EditArgs),
    /// Delete a group that nothing uses
    #[command(after_help = "Examples:\n  muster group delete sales-laptops --yes")]
    Delete {
        group: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Say who would be in a group; nothing is stored
    #[command(after_help = "Examples:\n  muster group preview --include 'labels.department == \"sales\"'")]
    Preview {
        #[command(flatten)]
        expressions: Expressions,
        /// Members to show, at most 500
        #[arg(long, value_name = "N")]
        limit: Option<u32>,
    },
    /// List the members of a group
    #[command(after_help = "Examples:\n  muster group members sales-laptops --all")]
    Members {
        group: String,
        #[command(flatten)]
        paging: Paging,
    },
    /// Say why a device is in a group or not
    #[command(after_help = "Examples:\n  muster group explain sales-laptops laptop-7")]
    Explain { group: String, device: String },
}

/// The two expressions of a group.
#[derive(Clone, Debug, clap::Args)]
pub struct Expressions {
    /// True of members; `@FILE` reads a file, `@-` standard input
    #[arg(long, value_name = "EXPRESSION")]
    include: String,
    /// True of nobody among them
    #[arg(long, value_name = "EXPRESSION")]
    exclude: Option<String>,
}

/// What of a group changes.
#[derive(Clone, Debug, clap::Args)]
pub struct EditArgs {
    group: String,
    /// Another name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// True of members
    #[arg(long, value_name = "EXPRESSION")]
    include: Option<String>,
    /// True of nobody among them
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "no_exclude")]
    exclude: Option<String>,
    /// Exclude nobody
    #[arg(long)]
    no_exclude: bool,
    /// A sentence for people
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Group {
    id: String,
    name: String,
    description: Option<String>,
    include: String,
    exclude: Option<String>,
    state: String,
    members: u64,
    evaluated_at: Option<String>,
    created_by: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
    used_by: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Member {
    id: String,
    name: String,
    platform: String,
    model: Option<String>,
    owner: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Preview {
    looked_at: u64,
    is_complete: bool,
    members: u64,
    unknown: u64,
    unknown_reasons: Vec<Reason>,
    items: Vec<Member>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Reason {
    reason: String,
    devices: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Explanation {
    device_name: String,
    answer: String,
    is_member: bool,
    is_active: bool,
    include: Side,
    exclude: Option<Side>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Side {
    expression: String,
    answer: String,
    because: Option<String>,
    values: Vec<Read>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Read {
    name: String,
    value: Option<String>,
}

/// Runs one verb.
pub async fn run(command: GroupCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        GroupCommand::List { paging } => {
            let answer: Answer<Page<Group>> = list(api, Call::get(&["groups"]), &paging).await?;
            printer.answer(&answer.value, |_| groups(&answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        GroupCommand::Show { group } => show(api.send(Call::get(&["groups", &group])).await?, printer),
        GroupCommand::Create {
            name,
            expressions,
            description,
        } => {
            let body = json!({
                "name": name,
                "description": description,
                "include": expression(&expressions.include)?,
                "exclude": expressions.exclude.as_deref().map(expression).transpose()?,
            });
            show(api.send(Call::create(&["groups"], body, None)).await?, printer)
        }
        GroupCommand::Edit(arguments) => {
            let call = Call::patch(&["groups", &arguments.group], patch(&arguments)?);
            show(api.send(call).await?, printer)
        }
        GroupCommand::Delete { group, yes } => {
            printer.confirm(
                yes,
                "The group and its membership end. Devices stay as they are.",
                &group,
            )?;
            api.send_quiet(Call::delete(&["groups", &group])).await?;
            printer.note(&format!("{group} is deleted."));
            Ok(())
        }
        GroupCommand::Preview { expressions, limit } => {
            let body = json!({
                "include": expression(&expressions.include)?,
                "exclude": expressions.exclude.as_deref().map(expression).transpose()?,
                "limit": limit,
            });
            let answer: Answer<Preview> = api.send(Call::post(&["groups", "preview"]).body(body)).await?;
            printer.answer(&answer.value, |_| preview(&answer.known))
        }
        GroupCommand::Members { group, paging } => {
            let call = Call::get(&["groups", &group, "members"]);
            let answer: Answer<Page<Member>> = list(api, call, &paging).await?;
            printer.answer(&answer.value, |_| members(Sheet::new(), &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        GroupCommand::Explain { group, device } => {
            let call = Call::get(&["groups", &group, "explain"]).query("device", Some(device));
            let answer: Answer<Explanation> = api.send(call).await?;
            printer.answer(&answer.value, |_| explanation(&answer.known))
        }
    }
}

/// An expression as it is written, or the file that `@FILE` names.
fn expression(text: &str) -> Result<String, CliError> {
    let Some(path) = text.strip_prefix('@') else {
        return Ok(text.to_owned());
    };
    String::from_utf8(read_input(&PathBuf::from(path))?)
        .map_err(|_| CliError::Usage(format!("{path} is not UTF-8 text")))
}

fn patch(arguments: &EditArgs) -> Result<Value, CliError> {
    let mut patch = serde_json::Map::new();
    let texts = [("name", &arguments.name), ("description", &arguments.description)];
    for (name, text) in texts {
        if let Some(text) = text {
            patch.insert(name.to_owned(), text.as_str().into());
        }
    }
    for (name, text) in [("include", &arguments.include), ("exclude", &arguments.exclude)] {
        if let Some(text) = text {
            patch.insert(name.to_owned(), expression(text)?.into());
        }
    }
    if arguments.no_exclude {
        patch.insert("exclude".to_owned(), Value::Null);
    }
    if patch.is_empty() {
        return Err(CliError::Usage(
            "Say what to change, such as --include.".to_owned(),
        ));
    }
    Ok(Value::Object(patch))
}

fn show(answer: Answer<Group>, printer: &Printer) -> Result<(), CliError> {
    printer.answer(&answer.value, |printer| {
        let group = answer.known.clone();
        Sheet::new().fields(vec![
            ("name", Some(group.name)),
            ("id", Some(group.id)),
            ("description", group.description),
            ("include", Some(group.include)),
            ("exclude", group.exclude),
            ("state", Some(group.state)),
            ("members", Some(group.members.to_string())),
            (
                "evaluated",
                group.evaluated_at.as_deref().map(|at| printer.when(Some(at))),
            ),
            (
                "used by",
                (!group.used_by.is_empty()).then(|| group.used_by.join(", ")),
            ),
            ("created by", group.created_by),
            (
                "created",
                group.created_at.as_deref().map(|at| printer.when(Some(at))),
            ),
            (
                "changed",
                group.updated_at.as_deref().map(|at| printer.when(Some(at))),
            ),
        ])
    })
}

fn groups(groups: &[Group]) -> Sheet {
    let row = |group: &Group| {
        vec![
            group.name.clone(),
            group.members.to_string(),
            group.state.clone(),
            group.include.clone(),
            or_dash(group.exclude.as_deref()),
            group.id.clone(),
        ]
    };
    let header = ["name", "members", "state", "include", "exclude", "id"];
    Sheet::new().rows("groups", &header, groups.iter().map(row).collect())
}

fn members(sheet: Sheet, members: &[Member]) -> Sheet {
    let row = |member: &Member| {
        vec![
            member.name.clone(),
            member.platform.clone(),
            or_dash(member.model.as_deref()),
            or_dash(member.owner.as_deref()),
            member.id.clone(),
        ]
    };
    let header = ["name", "platform", "model", "owner", "id"];
    sheet.rows("members", &header, members.iter().map(row).collect())
}

fn preview(preview: &Preview) -> Sheet {
    let of = if preview.is_complete {
        format!("{} devices", preview.looked_at)
    } else {
        format!("the first {} devices", preview.looked_at)
    };
    let mut sheet = Sheet::new().fields(vec![
        ("members", Some(format!("{} of {of}", preview.members))),
        ("unknown", Some(preview.unknown.to_string())),
    ]);
    if !preview.unknown_reasons.is_empty() {
        let rows = preview.unknown_reasons.iter();
        let rows = rows.map(|reason| vec![reason.devices.to_string(), reason.reason.clone()]);
        sheet = sheet.rows("unknown", &["devices", "what is not known"], rows.collect());
    }
    members(sheet, &preview.items)
}

fn explanation(explained: &Explanation) -> Sheet {
    let stored = if explained.is_member { "yes" } else { "no" };
    let mut sheet = Sheet::new().fields(vec![
        ("device", Some(explained.device_name.clone())),
        ("answer", Some(explained.answer.clone())),
        ("is a member", Some(stored.to_owned())),
        (
            "note",
            (!explained.is_active).then(|| "The device is not active, so it is in no group.".to_owned()),
        ),
    ]);
    for (name, side) in [
        ("include", Some(&explained.include)),
        ("exclude", explained.exclude.as_ref()),
    ] {
        let Some(side) = side else { continue };
        sheet = sheet.fields(vec![
            (name, Some(side.expression.clone())),
            ("says", Some(side.answer.clone())),
            ("because", side.because.clone()),
        ]);
        let values = side.values.iter();
        let values = values.map(|read| vec![read.name.clone(), or_dash(read.value.as_deref())]);
        sheet = sheet.rows("values", &["it reads", "value"], values.collect());
    }
    sheet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_names_what_changes_and_nothing_else() {
        let arguments = EditArgs {
            group: "g".to_owned(),
            name: None,
            include: Some("true".to_owned()),
            exclude: None,
            no_exclude: true,
            description: None,
        };
        assert_eq!(
            patch(&arguments).expect("a patch"),
            json!({"include": "true", "exclude": null})
        );
        let nothing = EditArgs {
            include: None,
            no_exclude: false,
            ..arguments
        };
        assert_eq!(patch(&nothing).expect_err("nothing to change").exit_code(), 2);
    }
}
