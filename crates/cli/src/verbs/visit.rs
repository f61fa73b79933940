//! `muster tenant visit …`, for people of the operator's tenant, and `muster visits …`, for the tenant that they visit.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Page, Paging, list};
use crate::api::{Answer, Api, Call};
use crate::context::{self, Contexts};
use crate::output::{Printer, Sheet, clean};
use crate::{CliError, Globals};

/// Verbs of whoever visits.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum VisitCommand {
    /// Ask a tenant for a visit; both logs keep the reason
    #[command(
        after_help = "Examples:\n  muster tenant visit ask acme --reason 'ticket 4711: laptop does not lock' --minutes 60\n  muster tenant \
        visit ask acme --reason 'ticket 4712' --role helpdesk --minutes 30\n\nSign in as yourself first: `muster login --device`. By default \
        no tenant lets anybody in; its own people change that with `muster visits allow`."
    )]
    Ask {
        tenant: String,
        /// What the visit is for
        #[arg(long)]
        reason: String,
        /// read_only, auditor, helpdesk or operator, as far as the tenant lets in
        #[arg(long, default_value = "read_only")]
        role: String,
        /// How long, 1 to 480
        #[arg(long, default_value_t = 60)]
        minutes: u32,
    },
    /// Begin a visit that was granted: stores a context that is good in the visited tenant until the visit ends
    #[command(
        after_help = "Examples:\n  muster tenant visit begin vis_0190…\n  muster --context visit-acme device list\n  muster tenant visit end vis_0190…"
    )]
    Begin {
        /// The visit's id
        visit: String,
        /// What the context is called; visit- and the tenant's name without it
        #[arg(long)]
        name: Option<String>,
    },
    /// End a visit, or take back what was asked for
    #[command(after_help = "Examples:\n  muster tenant visit end vis_0190…")]
    End {
        /// The visit's id
        visit: String,
    },
    /// List visits of people of this tenant, the newest first
    #[command(after_help = "Examples:\n  muster tenant visit list\n  muster tenant visit list --all -o json")]
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a visit: who decided, what was changed by it, and how far the visited tenant's log was
    #[command(after_help = "Examples:\n  muster tenant visit show vis_0190…")]
    Show {
        /// The visit's id
        visit: String,
    },
}

/// Verbs of whoever is visited.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum VisitsCommand {
    /// List visits of the operator's people to this tenant, the newest first
    #[command(after_help = "Examples:\n  muster visits list")]
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a visit
    #[command(after_help = "Examples:\n  muster visits show vis_0190…")]
    Show {
        /// The visit's id
        visit: String,
    },
    /// Grant a request, as it was asked for or with less
    #[command(
        after_help = "Examples:\n  muster visits grant vis_0190…\n  muster visits grant vis_0190… --role read_only --minutes 30"
    )]
    Grant {
        /// The visit's id
        visit: String,
        /// A role within the one that was asked for
        #[arg(long)]
        role: Option<String>,
        /// At most as many as were asked for
        #[arg(long)]
        minutes: Option<u32>,
    },
    /// Deny a request
    #[command(after_help = "Examples:\n  muster visits deny vis_0190…")]
    Deny {
        /// The visit's id
        visit: String,
    },
    /// End a visit at once: what the visitor sends next is refused
    #[command(after_help = "Examples:\n  muster visits end vis_0190…")]
    End {
        /// The visit's id
        visit: String,
    },
    /// Show how far the operator's people are let in, or say so
    #[command(
        after_help = "Examples:\n  muster visits allow\n  muster visits allow ask\n  muster visits allow ask --ceiling helpdesk\n  muster visits \
        allow always --ceiling read_only\n  muster visits allow never\n\nnever: nobody (the default). ask: each visit is granted by a person here. \
        always: without asking, within the ceiling. Letting in more is done in person: `muster login --device`."
    )]
    Allow {
        /// never, ask or always; shows what is said where nothing is given
        #[arg(value_parser = ["never", "ask", "always"])]
        mode: Option<String>,
        /// The role that no visit goes beyond: read_only, auditor, helpdesk or operator
        #[arg(long, default_value = "read_only", requires = "mode")]
        ceiling: String,
    },
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Visit {
    id: String,
    tenant_name: String,
    operator_name: String,
    person: String,
    actor: String,
    role: String,
    minutes: u32,
    reason: String,
    state: String,
    asked_at: Option<String>,
    answer_by: Option<String>,
    decided_by: Option<String>,
    begun_at: Option<String>,
    ends_at: Option<String>,
    ended_at: Option<String>,
    ended_by: Option<String>,
    ended_because: Option<String>,
    changes: u64,
    log: Option<Log>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Log {
    size_before: u64,
    size_after: Option<u64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Begun {
    visit: Visit,
    token: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Allowed {
    mode: String,
    ceiling: String,
    roles: Vec<String>,
    updated_by: Option<String>,
    updated_at: Option<String>,
}

/// Runs a verb of whoever visits.
pub async fn run(
    command: VisitCommand,
    api: &Api,
    globals: &Globals,
    printer: &Printer,
) -> Result<(), CliError> {
    match command {
        VisitCommand::Ask {
            tenant,
            reason,
            role,
            minutes,
        } => {
            let body = json!({"reason": reason, "role": role, "minutes": minutes});
            shown(
                api,
                printer,
                Call::post(&["tenants", &tenant, "visits"]).body(body),
            )
            .await
        }
        VisitCommand::Begin { visit, name } => begin(&visit, name, api, globals, printer).await,
        VisitCommand::End { visit } => {
            shown(
                api,
                printer,
                Call::post(&["visits", &visit, "end"]).body(json!({})),
            )
            .await
        }
        VisitCommand::List { paging } => listed(api, printer, Call::get(&["visits"]), &paging).await,
        VisitCommand::Show { visit } => shown(api, printer, Call::get(&["visits", &visit])).await,
    }
}

/// Runs a verb of whoever is visited.
pub async fn run_visits(command: VisitsCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        VisitsCommand::List { paging } => {
            listed(api, printer, Call::get(&["operator-visits"]), &paging).await
        }
        VisitsCommand::Show { visit } => shown(api, printer, Call::get(&["operator-visits", &visit])).await,
        VisitsCommand::Grant { visit, role, minutes } => {
            let mut body = Map::new();
            body.extend(role.map(|role| ("role".to_owned(), json!(role))));
            body.extend(minutes.map(|minutes| ("minutes".to_owned(), json!(minutes))));
            let call = Call::post(&["operator-visits", &visit, "grant"]).body(Value::Object(body));
            shown(api, printer, call).await
        }
        VisitsCommand::Deny { visit } => {
            let call = Call::post(&["operator-visits", &visit, "deny"]).body(json!({}));
            shown(api, printer, call).await
        }
        VisitsCommand::End { visit } => {
            let call = Call::post(&["operator-visits", &visit, "end"]).body(json!({}));
            shown(api, printer, call).await
        }
        VisitsCommand::Allow { mode, ceiling } => {
            let path = ["settings", "operator-access"];
            let call = match mode {
                None => Call::get(&path),
                Some(mode) => Call::put(&path, json!({"mode": mode, "ceiling": ceiling})),
            };
            let answer: Answer<Allowed> = api.send(call).await?;
            printer.answer(&answer.value, |printer| allowed(printer, &answer.known))
        }
    }
}

/// Begins a visit and stores its token as a context beside the person's own, which stays the current one.
async fn begin(
    visit: &str,
    name: Option<String>,
    api: &Api,
    globals: &Globals,
    printer: &Printer,
) -> Result<(), CliError> {
    let answer: Answer<Begun> = api
        .send(Call::post(&["visits", visit, "begin"]).body(json!({})))
        .await?;
    let begun = answer.known;
    let name = name.unwrap_or_else(|| format!("visit-{}", begun.visit.tenant_name));
    let mut context = context::resolve(globals)?;
    context.client_secret = String::new();
    (
        context.key_file,
        context.certificate_file,
        context.exchange_token_file,
    ) = (None, None, None);
    context.token = Some(begun.token);
    let mut stored = Contexts::load(globals)?;
    stored.contexts.insert(name.clone(), context);
    stored.save(globals)?;
    let shown = json!({"context": name, "visit": answer.value["visit"]});
    printer.answer(&shown, |printer| {
        fields(printer, &begun.visit).and(Sheet::new().text(format!(
            "You are in {}, as {}: `muster --context {name} device list`. It ends {}; end it sooner with `muster tenant visit end {}`.",
            clean(&begun.visit.tenant_name),
            clean(&begun.visit.role),
            printer.when(begun.visit.ends_at.as_deref()),
            clean(&begun.visit.id),
        )))
    })
}

async fn shown(api: &Api, printer: &Printer, call: Call<'_>) -> Result<(), CliError> {
    let answer: Answer<Visit> = api.send(call).await?;
    printer.answer(&answer.value, |printer| fields(printer, &answer.known))
}

async fn listed(api: &Api, printer: &Printer, call: Call<'_>, paging: &Paging) -> Result<(), CliError> {
    let answer: Answer<Page<Visit>> = list(api, call, paging).await?;
    printer.answer(&answer.value, |printer| rows(printer, &answer.known.items))?;
    printer.next_page(answer.known.next_cursor.as_deref());
    Ok(())
}

fn rows(printer: &Printer, visits: &[Visit]) -> Sheet {
    let row = |visit: &Visit| {
        vec![
            clean(&visit.id),
            clean(&visit.person),
            clean(&visit.tenant_name),
            clean(&visit.state),
            clean(&visit.role),
            printer.ago(visit.asked_at.as_deref()),
            visit.changes.to_string(),
            clean(&visit.reason),
        ]
    };
    Sheet::new().rows(
        "No visit. `muster visits allow` shows whether the operator's people may ask for one.",
        &[
            "id", "person", "tenant", "state", "role", "asked", "changes", "reason",
        ],
        visits.iter().map(row).collect(),
    )
}

fn fields(printer: &Printer, visit: &Visit) -> Sheet {
    let time = |at: &Option<String>| at.as_deref().map(|at| printer.when(Some(at)));
    let waits = matches!(visit.state.as_str(), "requested" | "granted");
    Sheet::new().fields(vec![
        ("visit", Some(clean(&visit.id))),
        ("state", Some(clean(&visit.state))),
        ("person", Some(clean(&visit.person))),
        ("of", Some(clean(&visit.operator_name))),
        ("visits", Some(clean(&visit.tenant_name))),
        ("role", Some(clean(&visit.role))),
        ("minutes", Some(visit.minutes.to_string())),
        ("reason", Some(clean(&visit.reason))),
        ("asked", time(&visit.asked_at)),
        (
            if visit.state == "granted" {
                "begin by"
            } else {
                "answer by"
            },
            time(&visit.answer_by).filter(|_| waits),
        ),
        ("decided by", visit.decided_by.as_deref().map(clean)),
        (
            "in the log as",
            visit.begun_at.is_some().then(|| clean(&visit.actor)),
        ),
        ("begun", time(&visit.begun_at)),
        ("ends", time(&visit.ends_at).filter(|_| visit.state == "active")),
        ("ended", time(&visit.ended_at)),
        ("ended by", visit.ended_by.as_deref().map(clean)),
        ("because", visit.ended_because.as_deref().map(clean)),
        (
            "changes",
            visit.begun_at.is_some().then(|| visit.changes.to_string()),
        ),
        (
            "log",
            visit.log.as_ref().map(|log| match log.size_after {
                Some(after) => format!("entries {} to {after}", log.size_before),
                None => format!("from entry {}", log.size_before),
            }),
        ),
    ])
}

fn allowed(printer: &Printer, allowed: &Allowed) -> Sheet {
    let lets_in = allowed.mode != "never";
    Sheet::new().fields(vec![
        ("the operator's people", Some(clean(&allowed.mode))),
        ("ceiling", lets_in.then(|| clean(&allowed.ceiling))),
        ("roles", lets_in.then(|| clean(&allowed.roles.join(", ")))),
        ("said by", allowed.updated_by.as_deref().map(clean)),
        (
            "said",
            allowed.updated_at.as_deref().map(|at| printer.when(Some(at))),
        ),
    ])
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: VisitsCommand,
    }

    #[test]
    fn a_ceiling_is_said_with_a_mode_alone() {
        let reads = |line: &[&str]| {
            Line::try_parse_from(std::iter::once("visits").chain(line.iter().copied())).is_ok()
        };
        assert!(reads(&["allow"]) && reads(&["allow", "ask"]));
        assert!(reads(&["allow", "always", "--ceiling", "helpdesk"]));
        assert!(!reads(&["allow", "--ceiling", "helpdesk"]) && !reads(&["allow", "sometimes"]));
    }
}
