//! `muster access …`: who may do what.

use serde::Deserialize;
use serde_json::json;

use super::{Page, Paging, list};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, or_dash};

/// Verbs of roles, grants, people and sessions.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum AccessCommand {
    /// Everybody who may do anything: through what, and when they last did
    #[command(
        after_help = "Examples:\n  muster access review\n  muster access review -o json | jq '.items[] | select(.powers | index(\"wipe\"))'"
    )]
    Review,
    /// Say why somebody may or may not do something, and who could change that
    #[command(
        after_help = "Examples:\n  muster access explain --needs command:wipe --person corp/ada@example.com\n  muster access \
        explain --needs policy:activate --client cli_…"
    )]
    Explain {
        /// The scopes that it needs, separated by commas
        #[arg(long, value_name = "SCOPES")]
        needs: String,
        /// The person, as `muster access people` names them
        #[arg(long, value_name = "PERSON", conflicts_with = "client")]
        person: Option<String>,
        /// The id of a service account
        #[arg(long, value_name = "ID")]
        client: Option<String>,
        /// A trust in workloads: what their tokens may do
        #[arg(long, value_name = "NAME", conflicts_with_all = ["client", "person"])]
        trust: Option<String>,
    },
    /// List roles with what they give
    #[command(after_help = "Examples:\n  muster access roles\n  muster access roles -o json")]
    Roles,
    /// Define a role, or define it anew
    #[command(
        after_help = "Examples:\n  muster access define wifi-team --scope device:read --scope policy:read --scope policy:write \
        --description 'Looks after the Wi-Fi policy'"
    )]
    Define {
        name: String,
        /// What it gives, of what you hold yourself; may be repeated
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<String>,
        /// A sentence for people
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
    },
    /// Remove a role that nobody has
    #[command(after_help = "Examples:\n  muster access undefine wifi-team")]
    Undefine { name: String },
    /// List who has which role
    #[command(after_help = "Examples:\n  muster access grants")]
    Grants,
    /// Give a role to a person, a group of an identity provider, or a service account
    #[command(
        after_help = "Examples:\n  muster access grant helpdesk --group it-support --source corp\n  muster access grant \
        security --person corp/ada@example.com\n  muster access grant read_only --client cli_… --until 2027-01-01T00:00:00Z"
    )]
    Grant(GrantArgs),
    /// Take a role away; it is gone with the next request
    #[command(after_help = "Examples:\n  muster access revoke helpdesk --group it-support --source corp")]
    Revoke(GrantArgs),
    /// List people, also those who signed in and have no role
    #[command(after_help = "Examples:\n  muster access people")]
    People {
        #[command(flatten)]
        paging: Paging,
    },
    /// Let a person in no more, and end their sessions
    #[command(after_help = "Examples:\n  muster access disable corp/ada@example.com")]
    Disable { person: String },
    /// Let a person in again
    #[command(after_help = "Examples:\n  muster access enable corp/ada@example.com")]
    Enable { person: String },
    /// List who is signed in to the console
    #[command(after_help = "Examples:\n  muster access sessions\n  muster access sessions --person ada")]
    Sessions {
        /// Those of one person
        #[arg(long, value_name = "PERSON")]
        person: Option<String>,
    },
    /// End a session, or every session of a person
    #[command(after_help = "Examples:\n  muster access end ses_…\n  muster access end --person ada")]
    End {
        #[arg(required_unless_present = "person")]
        session: Option<String>,
        /// Every session of this person
        #[arg(long, value_name = "PERSON", conflicts_with = "session")]
        person: Option<String>,
    },
    /// Show or set the limits of sessions
    #[command(
        after_help = "Examples:\n  muster access settings\n  muster access settings --idle-minutes 15 --step-up-minutes 5"
    )]
    Settings(SettingsArgs),
}

/// Who has, or is to have, a role.
#[derive(Clone, Debug, clap::Args)]
pub struct GrantArgs {
    role: String,
    /// A person who came from an identity provider
    #[arg(long, value_name = "PERSON")]
    person: Option<String>,
    /// The id of a service account
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// A group, as the identity provider names it; of the directory, its name or id
    #[arg(long, value_name = "GROUP", requires = "source")]
    group: Option<String>,
    /// The connection that names the group, or `directory` for groups that SCIM brought
    #[arg(long, value_name = "CONNECTION")]
    source: Option<String>,
    /// From when it counts no more
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

/// Limits of sessions; what is not named stays.
#[derive(Clone, Debug, clap::Args)]
pub struct SettingsArgs {
    /// A session without a click for this long ends
    #[arg(long, value_name = "N")]
    idle_minutes: Option<u64>,
    /// A session ends after this long whatever happens
    #[arg(long, value_name = "N")]
    session_hours: Option<u64>,
    /// For how long after proving who one is what is destructive is allowed
    #[arg(long, value_name = "N")]
    step_up_minutes: Option<u64>,
    /// Sessions of one person at once
    #[arg(long, value_name = "N")]
    sessions_per_person: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Items<T> {
    items: Vec<T>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Through {
    role: String,
    by: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Reviewed {
    kind: String,
    name: String,
    subject: String,
    through: Vec<Through>,
    powers: Vec<String>,
    last_used_at: Option<String>,
    disabled: bool,
    notes: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Explanation {
    needs: Vec<String>,
    missing: Vec<String>,
    roles: Vec<String>,
    given_by: Vec<String>,
    ask: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Explained {
    allowed: bool,
    explanation: Explanation,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Role {
    name: String,
    description: String,
    scopes: Vec<String>,
    built_in: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Grant {
    kind: String,
    subject: String,
    name: Option<String>,
    source: Option<String>,
    role: String,
    granted_by: String,
    granted_at: Option<String>,
    expires_at: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Person {
    person: String,
    display_name: String,
    roles: Vec<Through>,
    groups: Vec<String>,
    seen_at: Option<String>,
    disabled_at: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Session {
    id: String,
    person: String,
    method: String,
    seen_at: Option<String>,
    expires_at: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Settings {
    idle_seconds: u64,
    session_seconds: u64,
    step_up_seconds: u64,
    sessions_per_person: u64,
}

/// Runs one verb.
pub async fn run(command: AccessCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        AccessCommand::Review => {
            let answer: Answer<Items<Reviewed>> = api.send(Call::get(&["access", "review"])).await?;
            printer.answer(&answer.value, |printer| reviewed(printer, &answer.known.items))
        }
        AccessCommand::Explain {
            needs,
            person,
            client,
            trust,
        } => {
            let call = Call::get(&["access", "explain"])
                .query("needs", Some(needs))
                .query("person", person)
                .query("client", client)
                .query("trust", trust);
            let answer: Answer<Explained> = api.send(call).await?;
            printer.answer(&answer.value, |_| explained(&answer.known))
        }
        AccessCommand::Roles => {
            let answer: Answer<Items<Role>> = api.send(Call::get(&["access", "roles"])).await?;
            printer.answer(&answer.value, |_| roles(&answer.known.items))
        }
        AccessCommand::Define {
            name,
            scopes,
            description,
        } => {
            let body = json!({"scopes": scopes, "description": description});
            let answer: Answer<Role> = api.send(Call::put(&["access", "roles", &name], body)).await?;
            printer.answer(&answer.value, |_| roles(std::slice::from_ref(&answer.known)))
        }
        AccessCommand::Undefine { name } => {
            api.send_quiet(Call::delete(&["access", "roles", &name])).await?;
            printer.note(&format!("The role {name} is removed."));
            Ok(())
        }
        AccessCommand::Grants => {
            let answer: Answer<Items<Grant>> = api.send(Call::get(&["access", "grants"])).await?;
            printer.answer(&answer.value, |printer| grants(printer, &answer.known.items))
        }
        AccessCommand::Grant(arguments) => {
            let call = Call::post(&["access", "grants"]).body(body_of(&arguments));
            let answer: Answer<Grant> = api.send(call).await?;
            printer.answer(&answer.value, |printer| {
                grants(printer, std::slice::from_ref(&answer.known))
            })
        }
        AccessCommand::Revoke(arguments) => {
            let call = Call::post(&["access", "grants", "revoke"]).body(body_of(&arguments));
            api.send_quiet(call).await?;
            printer.note(&format!("The role {} is taken away.", arguments.role));
            Ok(())
        }
        AccessCommand::People { paging } => {
            let answer: Answer<Page<Person>> = list(api, Call::get(&["access", "people"]), &paging).await?;
            printer.answer(&answer.value, |printer| people(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        AccessCommand::Disable { person } => {
            let call = Call::post(&["access", "people", "disable"]).body(json!({"person": person}));
            api.send_quiet(call).await?;
            printer.note(&format!("{person} is disabled, and their sessions are ended."));
            Ok(())
        }
        AccessCommand::Enable { person } => {
            let call = Call::post(&["access", "people", "enable"]).body(json!({"person": person}));
            api.send_quiet(call).await?;
            printer.note(&format!("{person} may sign in again."));
            Ok(())
        }
        AccessCommand::Sessions { person } => {
            let call = Call::get(&["access", "sessions"]).query("person", person);
            let answer: Answer<Items<Session>> = api.send(call).await?;
            printer.answer(&answer.value, |printer| sessions(printer, &answer.known.items))
        }
        AccessCommand::End { session, person } => end(session, person, api, printer).await,
        AccessCommand::Settings(arguments) => settings(&arguments, api, printer).await,
    }
}

async fn end(
    session: Option<String>,
    person: Option<String>,
    api: &Api,
    printer: &Printer,
) -> Result<(), CliError> {
    match (session, person) {
        (Some(id), _) => {
            api.send_quiet(Call::post(&["access", "sessions", &id, "end"]))
                .await?;
            printer.note(&format!("{id} is ended."));
        }
        (None, person) => {
            let person = person.unwrap_or_default();
            let call = Call::post(&["access", "sessions", "end"]).body(json!({"person": person}));
            api.send_quiet(call).await?;
            printer.note(&format!("The sessions of {person} are ended."));
        }
    }
    Ok(())
}

async fn settings(arguments: &SettingsArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let path = ["access", "session-settings"];
    let mut answer: Answer<Settings> = api.send(Call::get(&path)).await?;
    let changes = [
        arguments.idle_minutes,
        arguments.session_hours,
        arguments.step_up_minutes,
        arguments.sessions_per_person,
    ];
    if changes.iter().any(Option::is_some) {
        let before = answer.known;
        let body = json!({
            "idle_seconds": arguments.idle_minutes.map_or(before.idle_seconds, |minutes| minutes.saturating_mul(60)),
            "session_seconds": arguments.session_hours.map_or(before.session_seconds, |hours| hours.saturating_mul(3600)),
            "step_up_seconds": arguments.step_up_minutes.map_or(before.step_up_seconds, |minutes| minutes.saturating_mul(60)),
            "sessions_per_person": arguments.sessions_per_person.unwrap_or(before.sessions_per_person),
        });
        answer = api.send(Call::put(&path, body)).await?;
    }
    let Settings {
        idle_seconds,
        session_seconds,
        step_up_seconds,
        sessions_per_person,
    } = answer.known;
    printer.answer(&answer.value, |_| {
        Sheet::new().fields(vec![
            ("idle", Some(format!("{} min", idle_seconds / 60))),
            ("length", Some(format!("{} h", session_seconds / 3600))),
            ("proof counts", Some(format!("{} min", step_up_seconds / 60))),
            ("per person", Some(sessions_per_person.to_string())),
        ])
    })
}

fn body_of(arguments: &GrantArgs) -> serde_json::Value {
    json!({
        "role": arguments.role, "person": arguments.person, "client": arguments.client, "group": arguments.group,
        "source": arguments.source, "expires_at": arguments.until,
    })
}

fn reviewed(printer: &Printer, items: &[Reviewed]) -> Sheet {
    let row = |one: &Reviewed| {
        let through: Vec<String> = one
            .through
            .iter()
            .map(|through| match through.by.as_str() {
                "directly" => through.role.clone(),
                by => format!("{} ({by})", through.role),
            })
            .collect();
        let mut notes = one.notes.clone();
        if one.disabled {
            notes.insert(0, "disabled".to_owned());
        }
        let name = match one.kind.as_str() {
            "person" => one.subject.clone(),
            _ => one.name.clone(),
        };
        vec![
            one.kind.clone(),
            name,
            through.join(", "),
            one.powers.join(", "),
            printer.ago(one.last_used_at.as_deref()),
            notes.join(", "),
        ]
    };
    Sheet::new().rows(
        "nobody may do anything",
        &["kind", "who", "through", "stands out", "used", "notes"],
        items.iter().map(row).collect(),
    )
}

fn explained(explained: &Explained) -> Sheet {
    let Explanation {
        needs,
        missing,
        roles,
        given_by,
        ask,
    } = &explained.explanation;
    let join = |words: &[String]| Some(words.join(", ")).filter(|text| !text.is_empty());
    Sheet::new().fields(vec![
        (
            "allowed",
            Some(if explained.allowed { "yes" } else { "no" }.to_owned()),
        ),
        ("needs", join(needs)),
        ("missing", join(missing)),
        ("roles", join(roles)),
        ("comes with", join(given_by).filter(|_| !explained.allowed)),
        ("ask", join(ask)),
    ])
}

fn roles(items: &[Role]) -> Sheet {
    let row = |role: &Role| {
        vec![
            role.name.clone(),
            if role.built_in { "program" } else { "own" }.to_owned(),
            role.scopes.len().to_string(),
            role.description.clone(),
        ]
    };
    Sheet::new().rows(
        "roles",
        &["name", "of", "scopes", "for"],
        items.iter().map(row).collect(),
    )
}

fn grants(printer: &Printer, items: &[Grant]) -> Sheet {
    let row = |grant: &Grant| {
        vec![
            grant.role.clone(),
            grant.kind.clone(),
            grant.name.clone().unwrap_or_else(|| grant.subject.clone()),
            or_dash(grant.source.as_deref()),
            grant.granted_by.clone(),
            printer.ago(grant.granted_at.as_deref()),
            or_dash(grant.expires_at.as_deref()),
        ]
    };
    Sheet::new().rows(
        "grants",
        &["role", "to", "who", "source", "by", "given", "until"],
        items.iter().map(row).collect(),
    )
}

fn people(printer: &Printer, items: &[Person]) -> Sheet {
    let row = |person: &Person| {
        let roles: Vec<&str> = person.roles.iter().map(|through| through.role.as_str()).collect();
        let state = match (&person.disabled_at, roles.is_empty(), person.groups.is_empty()) {
            (Some(_), _, _) => "disabled",
            (None, true, false) => "no role",
            _ => "",
        };
        vec![
            person.person.clone(),
            person.display_name.clone(),
            roles.join(", "),
            person.groups.join(", "),
            printer.ago(person.seen_at.as_deref()),
            state.to_owned(),
        ]
    };
    Sheet::new().rows(
        "people",
        &["who", "name", "roles", "groups", "seen", "state"],
        items.iter().map(row).collect(),
    )
}

fn sessions(printer: &Printer, items: &[Session]) -> Sheet {
    let row = |session: &Session| {
        vec![
            session.person.clone(),
            session.method.clone(),
            printer.ago(session.seen_at.as_deref()),
            or_dash(session.expires_at.as_deref()),
            session.id.clone(),
        ]
    };
    Sheet::new().rows(
        "sessions",
        &["who", "how", "used", "ends", "id"],
        items.iter().map(row).collect(),
    )
}
