//! `muster routing …`: which tenant people of identity providers belong to.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::CliError;
use crate::api::{Answer, Api, Call};
use crate::output::{Printer, Sheet, or_dash};

/// Verbs of routing.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum RoutingCommand {
    /// Show which value leads to which tenant, and whether that tenant takes it
    #[command(after_help = "Examples:\n  muster routing show corp")]
    Show { connection: String },
    /// Say which value leads to which tenant; whoever no rule leads to exactly one waits
    #[command(
        after_help = "Examples:\n  muster routing set corp --rule acme-staff=ten_0190… --rule beta-staff=ten_0191…\n  muster routing set corp \
        --claim organization --rule 'ACME Ltd=ten_0190…'\n\nThe rules replace those that are there. Values are compared to the letter. A \
        tenant other than the first has to accept: muster routing offers, in that tenant."
    )]
    Set(SetArgs),
    /// Route nobody any more: the connection's people belong to its own tenant again
    #[command(after_help = "Examples:\n  muster routing remove corp --yes")]
    Remove {
        connection: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Show whose people the first tenant offers to this one, and what was accepted
    #[command(after_help = "Examples:\n  muster routing offers")]
    Offers,
    /// Accept what is offered, as `offers` shows it
    #[command(
        after_help = "Examples:\n  muster routing accept con_0190… --offer 5f3c…\n  muster routing accept con_0190… --offer 5f3c… \
        --assigned-people\n\nThen give roles to its groups: muster access grant helpdesk --group acme-staff --source routed:corp"
    )]
    Accept {
        /// The connection's id
        connection: String,
        /// What `offers` shows; what changed since is refused
        #[arg(long, value_name = "SHA256")]
        offer: String,
        /// Also take people whom the operator assigns by hand
        #[arg(long)]
        assigned_people: bool,
    },
    /// Take nobody from a connection any more; who came by it is signed out
    #[command(after_help = "Examples:\n  muster routing withdraw con_0190… --yes")]
    Withdraw {
        /// The connection's id
        connection: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Show whose sign-ins are held, and why
    #[command(after_help = "Examples:\n  muster routing held")]
    Held,
    /// Decide where somebody belongs whose sign-in is held; the next sign-in follows it
    #[command(
        after_help = "Examples:\n  muster routing decide 7d1f… --assign ten_0190…\n  muster routing decide 7d1f… --refuse\n  muster routing \
        decide 7d1f… --forget"
    )]
    Decide(DecideArgs),
    /// Let people of a connection enroll their own devices at /enroll-my-device, or not
    #[command(
        after_help = "Examples:\n  muster routing own-devices con_0190…\n  muster routing own-devices con_0190… --devices 3 --company\n  \
        muster routing own-devices con_0190… --off"
    )]
    OwnDevices(OwnDevicesArgs),
}

/// Rules.
#[derive(Clone, Debug, clap::Args)]
pub struct SetArgs {
    /// The connection's name or id
    connection: String,
    /// The claim or attribute that is read; the groups of the connection without it
    #[arg(long, value_name = "CLAIM")]
    claim: Option<String>,
    /// A value, and the id of the tenant that it leads to; may be repeated
    #[arg(long = "rule", value_name = "VALUE=TENANT", value_parser = rule)]
    rules: Vec<(String, String)>,
    /// Change these rules only, as `show` counts them
    #[arg(long, value_name = "REVISION")]
    revision: Option<i64>,
}

fn rule(text: &str) -> Result<(String, String), String> {
    match text.rsplit_once('=') {
        Some((value, tenant)) if !value.is_empty() && !tenant.is_empty() => {
            Ok((value.to_owned(), tenant.to_owned()))
        }
        _ => Err("write VALUE=TENANT".to_owned()),
    }
}

/// A decision.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct DecideArgs {
    /// What the person quotes
    reference: String,
    /// They belong to this tenant, while the claim says what it says now
    #[arg(long, value_name = "TENANT", required_unless_present_any = ["refuse", "forget"], conflicts_with_all = ["refuse", "forget"])]
    assign: Option<String>,
    /// They belong nowhere
    #[arg(long, conflicts_with = "forget")]
    refuse: bool,
    /// Forget what was decided; the rules decide at the next sign-in
    #[arg(long)]
    forget: bool,
}

/// Devices of people.
#[derive(Clone, Debug, clap::Args)]
pub struct OwnDevicesArgs {
    /// The connection's id
    connection: String,
    /// Devices of one person
    #[arg(long, value_name = "NUMBER", default_value_t = 5)]
    devices: i64,
    /// Tokens that one person gets in an hour
    #[arg(long, value_name = "NUMBER", default_value_t = 5)]
    tokens_per_hour: i64,
    /// They are the company's, and can be wiped whole; personal without it
    #[arg(long)]
    company: bool,
    /// People enroll no devices any more
    #[arg(long)]
    off: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Items<T> {
    items: Vec<T>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Rule {
    value: String,
    tenant: String,
    tenant_name: String,
    state: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Routing {
    claim: Option<String>,
    rules: Vec<Rule>,
    revision: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Offer {
    connection: String,
    name: String,
    issuer: String,
    claim: Option<String>,
    values: Vec<String>,
    offer: String,
    state: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Tenant {
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Held {
    reference: String,
    connection: String,
    username: String,
    reason: String,
    values: Vec<String>,
    tenants: Vec<Tenant>,
    belonged_to: Option<String>,
    seen_at: String,
    decided_by: Option<String>,
}

/// Runs one verb.
pub async fn run(command: RoutingCommand, api: &Api, printer: &Printer) -> Result<(), CliError> {
    match command {
        RoutingCommand::Show { connection } => {
            let call = Call::get(&["access", "connections", &connection, "routing"]);
            let answer: Answer<Routing> = api.send(call).await?;
            printer.answer(&answer.value, |_| rules(&answer.known))
        }
        RoutingCommand::Set(arguments) => set(arguments, api, printer).await,
        RoutingCommand::Remove { connection, yes } => {
            printer.confirm(
                yes,
                "All people of the connection belong to its own tenant then.",
                &connection,
            )?;
            api.send_quiet(Call::delete(&["access", "connections", &connection, "routing"]))
                .await?;
            printer.note(&format!("{connection} routes nobody any more."));
            Ok(())
        }
        RoutingCommand::Offers => {
            let answer: Answer<Items<Offer>> = api.send(Call::get(&["access", "routed-connections"])).await?;
            printer.answer(&answer.value, |_| offers(&answer.known.items))
        }
        RoutingCommand::Accept {
            connection,
            offer,
            assigned_people,
        } => {
            let body = json!({"offer": offer, "assigned_people": assigned_people});
            let call = Call::put(&["access", "routed-connections", &connection], body);
            let answer: Answer<Offer> = api.send(call).await?;
            printer.answer(&answer.value, |_| offers(std::slice::from_ref(&answer.known)))
        }
        RoutingCommand::Withdraw { connection, yes } => {
            printer.confirm(
                yes,
                "Whoever came by it is signed out, and the roles of its groups are gone.",
                &connection,
            )?;
            api.send_quiet(Call::delete(&["access", "routed-connections", &connection]))
                .await?;
            printer.note("Nobody comes by it any more.");
            Ok(())
        }
        RoutingCommand::Held => {
            let answer: Answer<Items<Held>> = api.send(Call::get(&["access", "held-sign-ins"])).await?;
            printer.answer(&answer.value, |printer| held(printer, &answer.known.items))
        }
        RoutingCommand::Decide(arguments) => {
            let body = choice(&arguments);
            let call = Call::post(&["access", "held-sign-ins", &arguments.reference, "decide"]).body(body);
            api.send_quiet(call).await?;
            printer.note("It is decided. The next sign-in follows it.");
            Ok(())
        }
        RoutingCommand::OwnDevices(arguments) => own_devices(&arguments, api, printer).await,
    }
}

async fn set(arguments: SetArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let one = |(value, tenant): &(String, String)| json!({"value": value, "tenant": tenant});
    let body = json!({
        "claim": arguments.claim, "rules": arguments.rules.iter().map(one).collect::<Vec<_>>(),
    });
    let path = ["access", "connections", &arguments.connection, "routing"];
    let mut call = Call::put(&path, body);
    if let Some(revision) = arguments.revision {
        call = call.if_match(&format!("\"{revision}\""));
    }
    let answer: Answer<Routing> = api.send(call).await?;
    printer.answer(&answer.value, |_| rules(&answer.known))
}

fn choice(arguments: &DecideArgs) -> Value {
    match (&arguments.assign, arguments.refuse) {
        (Some(tenant), _) => json!({"decision": "assign", "tenant": tenant}),
        (None, true) => json!({"decision": "refuse"}),
        (None, false) => json!({"decision": "forget"}),
    }
}

async fn own_devices(arguments: &OwnDevicesArgs, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let path = ["access", "self-enrollment", &arguments.connection];
    if arguments.off {
        api.send_quiet(Call::delete(&path)).await?;
        printer.note("People of the connection enroll no devices any more.");
        return Ok(());
    }
    let body = json!({
        "devices_max": arguments.devices, "tokens_per_hour_max": arguments.tokens_per_hour,
        "ownership": if arguments.company { "company" } else { "personal" },
    });
    api.send_quiet(Call::put(&path, body)).await?;
    printer.note("People of the connection enroll their own devices at /enroll-my-device.");
    Ok(())
}

fn rules(routing: &Routing) -> Sheet {
    let row = |rule: &Rule| {
        vec![
            rule.value.clone(),
            rule.tenant_name.clone(),
            rule.tenant.clone(),
            rule.state.clone(),
        ]
    };
    Sheet::new()
        .fields(vec![
            (
                "decides by",
                Some(routing.claim.clone().unwrap_or_else(|| "groups".to_owned())),
            ),
            ("revision", Some(routing.revision.to_string())),
        ])
        .and(Sheet::new().rows(
            "rules: everybody who comes waits",
            &["value", "tenant", "id", "state"],
            routing.rules.iter().map(row).collect(),
        ))
}

fn offers(items: &[Offer]) -> Sheet {
    let row = |one: &Offer| {
        vec![
            one.name.clone(),
            one.state.clone(),
            one.claim.clone().unwrap_or_else(|| "groups".to_owned()),
            one.values.join(", "),
            one.issuer.clone(),
            one.connection.clone(),
            one.offer.clone(),
        ]
    };
    Sheet::new().rows(
        "offers: the first tenant routes nobody to this one",
        &[
            "name",
            "state",
            "decides by",
            "values",
            "issuer",
            "connection",
            "offer",
        ],
        items.iter().map(row).collect(),
    )
}

fn held(printer: &Printer, items: &[Held]) -> Sheet {
    let row = |one: &Held| {
        let tenants: Vec<&str> = one.tenants.iter().map(|tenant| tenant.name.as_str()).collect();
        vec![
            one.reference.clone(),
            one.username.clone(),
            one.connection.clone(),
            one.reason.clone(),
            one.values.join(", "),
            tenants.join(", "),
            or_dash(one.belonged_to.as_deref()),
            printer.ago(Some(&one.seen_at)),
            or_dash(one.decided_by.as_deref()),
        ]
    };
    Sheet::new().rows(
        "held sign-ins",
        &[
            "reference",
            "who",
            "by",
            "reason",
            "values",
            "lead to",
            "belonged to",
            "came",
            "decided by",
        ],
        items.iter().map(row).collect(),
    )
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: RoutingCommand,
    }

    fn read(line: &[&str]) -> Option<RoutingCommand> {
        Line::try_parse_from(std::iter::once("routing").chain(line.iter().copied()))
            .ok()
            .map(|line| line.command)
    }

    #[test]
    fn a_rule_ends_with_its_tenant() {
        let Some(RoutingCommand::Set(arguments)) = read(&["set", "corp", "--rule", "cn=acme,dc=x=ten_1"])
        else {
            panic!("it is read");
        };
        assert_eq!(arguments.rules, [("cn=acme,dc=x".to_owned(), "ten_1".to_owned())]);
        for wrong in ["acme", "=ten_1", "acme="] {
            assert!(read(&["set", "corp", "--rule", wrong]).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_decision_is_one() {
        let decide = |rest: &[&str]| {
            let line: Vec<&str> = ["decide", "r"].iter().chain(rest).copied().collect();
            match read(&line) {
                Some(RoutingCommand::Decide(arguments)) => Some(choice(&arguments)),
                _ => None,
            }
        };
        assert_eq!(
            decide(&["--assign", "ten_1"]),
            Some(json!({"decision": "assign", "tenant": "ten_1"}))
        );
        assert_eq!(decide(&["--refuse"]), Some(json!({"decision": "refuse"})));
        assert_eq!(decide(&["--forget"]), Some(json!({"decision": "forget"})));
        assert!(decide(&[]).is_none() && decide(&["--refuse", "--forget"]).is_none());
        assert!(decide(&["--assign", "ten_1", "--refuse"]).is_none());
    }
}
