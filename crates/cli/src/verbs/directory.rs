//! `muster user …`, `muster scim …`: people and groups of people, and the identity providers that keep them.

use serde::Deserialize;
use serde_json::json;

use super::{Page, Paging, list};
use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, clean, or_dash};

/// Verbs of people. Identity providers keep them by SCIM; nobody changes them here.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum UserCommand {
    /// List people
    #[command(
        after_help = "Examples:\n  muster user list\n  muster user list --search ada\n  muster user list --state inactive --all -o json"
    )]
    List {
        /// A part of the name
        #[arg(long, value_name = "TEXT")]
        search: Option<String>,
        /// active or inactive
        #[arg(long, value_name = "STATE")]
        state: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a person with groups and devices
    #[command(after_help = "Examples:\n  muster user show ada@example.com\n  muster user show usr_0198…")]
    Show { user: String },
    /// List groups of people
    #[command(after_help = "Examples:\n  muster user groups --all")]
    Groups {
        #[command(flatten)]
        paging: Paging,
    },
    /// List the members of a group of people
    #[command(after_help = "Examples:\n  muster user members ugr_0198… --all")]
    Members {
        group: String,
        #[command(flatten)]
        paging: Paging,
    },
}

/// Verbs of SCIM.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ScimCommand {
    /// Say how many people there are and which identity providers are connected
    #[command(after_help = "Examples:\n  muster scim status")]
    Status,
    /// List what identity providers changed, and what was refused and why
    #[command(after_help = "Examples:\n  muster scim log\n  muster scim log --refused --limit 20")]
    Log {
        /// Only what was refused
        #[arg(long)]
        refused: bool,
        #[command(flatten)]
        paging: Paging,
    },
    /// Tokens of identity providers: list, make, revoke
    #[command(subcommand)]
    Token(ScimTokenCommand),
}

/// Verbs of SCIM tokens.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ScimTokenCommand {
    /// List tokens
    #[command(after_help = "Examples:\n  muster scim token list")]
    List,
    /// Make a token for an identity provider; it is shown this once
    #[command(
        after_help = "Examples:\n  muster scim token create entra\n  muster scim token create okta --days 365\n\nCONNECTOR names the \
        identity provider. A second token of the same connector replaces the first without a gap: enter it there, then revoke \
        the old one."
    )]
    Create {
        connector: String,
        /// How long it lives, at most 365
        #[arg(long, value_name = "DAYS", default_value_t = 180)]
        days: u32,
    },
    /// Revoke a token; the identity provider is shut out at once
    #[command(after_help = "Examples:\n  muster scim token revoke sct_0198… --yes")]
    Revoke {
        token: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Person {
    id: String,
    user_name: String,
    display_name: Option<String>,
    department: Option<String>,
    active: bool,
    connector_name: Option<String>,
    external_id: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
    groups: Vec<PersonGroup>,
    devices: Vec<PersonDevice>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PersonGroup {
    display_name: String,
    direct: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PersonDevice {
    id: String,
    name: String,
    platform: String,
    state: String,
    compliance: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Team {
    id: String,
    display_name: String,
    members: i64,
    updated_at: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Member {
    id: String,
    display_name: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Directory {
    users: i64,
    inactive_users: i64,
    groups: i64,
    memberships: i64,
    users_max: i64,
    scim_url: String,
    connectors: Vec<Connector>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Connector {
    tokens: Vec<Token>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Token {
    id: String,
    connector: String,
    state: String,
    token: Option<String>,
    scim_url: Option<String>,
    expires_at: Option<String>,
    last_used_at: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Tokens {
    items: Vec<Token>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Request {
    connector: String,
    method: String,
    target: String,
    status: u16,
    scim_type: Option<String>,
    detail: Option<String>,
    at: Option<String>,
}

/// Runs one verb of people.
pub async fn run_user(command: UserCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        UserCommand::List {
            search,
            state,
            paging,
        } => {
            let call = Call::get(&["users"]).query("q", search).query("state", state);
            let answer: Answer<Page<Person>> = list(api, call, &paging).await?;
            printer.answer(&answer.value, |printer| people(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        UserCommand::Show { user } => {
            let answer: Answer<Person> = api.send(Call::get(&["users", &user])).await?;
            printer.answer(&answer.value, |printer| person(printer, &answer.known))
        }
        UserCommand::Groups { paging } => {
            let answer: Answer<Page<Team>> = list(api, Call::get(&["user-groups"]), &paging).await?;
            printer.answer(&answer.value, |printer| teams(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        UserCommand::Members { group, paging } => {
            let call = Call::get(&["user-groups", &group, "members"]);
            let answer: Answer<Page<Member>> = list(api, call, &paging).await?;
            printer.answer(&answer.value, |_| {
                let row = |member: &Member| vec![or_dash(member.display_name.as_deref()), member.id.clone()];
                let rows = answer.known.items.iter().map(row).collect();
                Sheet::new().rows("members", &["name", "id"], rows)
            })?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
    }
}

fn state_of(active: bool) -> String {
    if active { "active" } else { "inactive" }.to_owned()
}

fn people(printer: &Printer, people: &[Person]) -> Sheet {
    let row = |person: &Person| {
        vec![
            clean(&person.user_name),
            state_of(person.active),
            or_dash(person.display_name.as_deref()),
            or_dash(person.department.as_deref()),
            printer.ago(person.updated_at.as_deref()),
        ]
    };
    Sheet::new().rows(
        "users; `muster scim token create NAME` connects an identity provider",
        &["user", "state", "name", "department", "changed"],
        people.iter().map(row).collect(),
    )
}

fn person(printer: &Printer, person: &Person) -> Sheet {
    let groups: Vec<String> = person
        .groups
        .iter()
        .map(|group| {
            let through = if group.direct { "" } else { " (through another)" };
            format!("{}{through}", clean(&group.display_name))
        })
        .collect();
    let device = |device: &PersonDevice| {
        vec![
            clean(&device.name),
            device.platform.clone(),
            device.state.clone(),
            device.compliance.clone(),
            device.id.clone(),
        ]
    };
    Sheet::new()
        .fields(vec![
            ("user", Some(clean(&person.user_name))),
            ("id", Some(person.id.clone())),
            ("state", Some(state_of(person.active))),
            ("name", person.display_name.as_deref().map(clean)),
            ("department", person.department.as_deref().map(clean)),
            ("groups", (!groups.is_empty()).then(|| groups.join(", "))),
            ("kept by", person.connector_name.as_deref().map(clean)),
            ("external id", person.external_id.as_deref().map(clean)),
            ("created", Some(printer.when(person.created_at.as_deref()))),
            ("changed", Some(printer.when(person.updated_at.as_deref()))),
        ])
        .rows(
            "devices",
            &["device", "platform", "state", "compliance", "id"],
            person.devices.iter().map(device).collect(),
        )
}

fn teams(printer: &Printer, teams: &[Team]) -> Sheet {
    let row = |team: &Team| {
        vec![
            clean(&team.display_name),
            team.members.to_string(),
            printer.ago(team.updated_at.as_deref()),
            team.id.clone(),
        ]
    };
    Sheet::new().rows(
        "groups of people",
        &["group", "members", "changed", "id"],
        teams.iter().map(row).collect(),
    )
}

/// Runs one verb of SCIM.
pub async fn run_scim(command: ScimCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        ScimCommand::Status => {
            let answer: Answer<Directory> = api.send(Call::get(&["directory"])).await?;
            printer.answer(&answer.value, |printer| status(printer, &answer.known))
        }
        ScimCommand::Log { refused, paging } => {
            let call = Call::get(&["directory", "requests"]).query("refused", refused.then_some("true"));
            let answer: Answer<Page<Request>> = list(api, call, &paging).await?;
            printer.answer(&answer.value, |printer| requests(printer, &answer.known.items))?;
            printer.next_page(answer.known.next_cursor.as_deref());
            Ok(())
        }
        ScimCommand::Token(command) => run_token(command, api, printer).await,
    }
}

async fn run_token(command: ScimTokenCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        ScimTokenCommand::List => {
            let answer: Answer<Tokens> = api.send(Call::get(&["scim-tokens"])).await?;
            printer.answer(&answer.value, |printer| {
                Sheet::new().rows("SCIM tokens", TOKENS, tokens(printer, &answer.known.items))
            })
        }
        ScimTokenCommand::Create { connector, days } => {
            // Without an idempotency key: a kept answer would be a second copy of the secret.
            let call = Call::post(&["scim-tokens"]).body(json!({"connector": connector, "days": days}));
            let answer: Answer<Token> = api.send(call).await?;
            printer.answer(&answer.value, |printer| {
                let token = answer.known.clone();
                Sheet::new().fields(vec![
                    ("tenant URL", token.scim_url),
                    ("secret token", token.token),
                    ("expires", Some(printer.when(token.expires_at.as_deref()))),
                    ("id", Some(token.id)),
                ])
            })?;
            printer.note("The token is not shown again.");
            Ok(())
        }
        ScimTokenCommand::Revoke { token, yes } => {
            printer.confirm(
                yes,
                "The identity provider that uses this token is shut out.",
                &token,
            )?;
            api.send_quiet(Call::delete(&["scim-tokens", &token])).await?;
            printer.note(&format!("{token} is revoked."));
            Ok(())
        }
    }
}

const TOKENS: &[&str] = &["connector", "state", "expires", "last used", "id"];

fn tokens(printer: &Printer, tokens: &[Token]) -> Vec<Vec<String>> {
    let row = |token: &Token| {
        vec![
            clean(&token.connector),
            token.state.clone(),
            printer.when(token.expires_at.as_deref()),
            printer.ago(token.last_used_at.as_deref()),
            token.id.clone(),
        ]
    };
    tokens.iter().map(row).collect()
}

fn status(printer: &Printer, directory: &Directory) -> Sheet {
    let all: Vec<Token> = directory
        .connectors
        .iter()
        .flat_map(|known| known.tokens.clone())
        .collect();
    Sheet::new()
        .fields(vec![
            ("tenant URL", Some(directory.scim_url.clone())),
            (
                "users",
                Some(format!(
                    "{} of at most {}, {} inactive",
                    directory.users, directory.users_max, directory.inactive_users
                )),
            ),
            ("groups", Some(directory.groups.to_string())),
            ("memberships", Some(directory.memberships.to_string())),
        ])
        .rows(
            "connected identity providers; `muster scim token create NAME` makes a token for one",
            TOKENS,
            tokens(printer, &all),
        )
}

fn requests(printer: &Printer, requests: &[Request]) -> Sheet {
    let row = |request: &Request| {
        let why = match (&request.scim_type, &request.detail) {
            (Some(kind), Some(detail)) => format!("{kind}: {detail}"),
            (None, Some(detail)) => detail.clone(),
            (_, None) => String::new(),
        };
        vec![
            printer.ago(request.at.as_deref()),
            clean(&request.connector),
            request.status.to_string(),
            format!("{} {}", request.method, clean(&request.target)),
            clean(&why),
        ]
    };
    Sheet::new().rows(
        "requests",
        &["when", "connector", "status", "request", "why"],
        requests.iter().map(row).collect(),
    )
}
