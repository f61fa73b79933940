//! Where people of identity providers belong: who waits for a decision, which value leads to which tenant, what a tenant takes from the
//! first one, and who enrolls devices of their own.

use askama::Template;
use axum::{
    Router,
    extract::State,
    response::Response,
    routing::{get, post},
};
use muster_control::{
    App,
    access::{
        self, connection,
        problem::{INVALID, Problem},
        routing::{self, Choice, Expected, HeldPerson, Offer, Rule, Table},
        scope::{AccessRead, SsoWrite, TokenWrite},
    },
    audit, secrets,
};
use muster_model::{ConnectionId, Ownership, TenantId, Timestamp};
use muster_storage::Scope;

use crate::{
    form::Sent,
    session::{Session, parse},
    shell::{Refusal, Section, Shell, page, see_other},
    ui::{Badge, Tone, When},
};

pub fn router() -> Router<App> {
    Router::new()
        .route("/access/routing", get(show))
        .route("/access/routing/put", post(put))
        .route("/access/routing/remove", post(remove))
        .route("/access/routing/accept", post(accept))
        .route("/access/routing/withdraw", post(withdraw))
        .route("/access/routing/decide", post(decide))
        .route("/access/routing/own-devices", post(own_devices))
}

/// Between the value of a rule and its tenant, in the form.
const LEADS_TO: &str = "->";

/// Somebody who waits, as a row.
#[derive(Debug)]
struct HeldRow {
    reference: String,
    who: String,
    username: String,
    connection: String,
    why: &'static str,
    values: String,
    leads_to: Vec<(String, String)>,
    belonged_to: String,
    since: Option<When>,
    seen: When,
    decided_by: Option<String>,
}

impl HeldRow {
    fn of(held: HeldPerson, now: Timestamp) -> HeldRow {
        let person = held.person;
        HeldRow {
            reference: person.reference.to_string(),
            who: person.display_name,
            username: person.username,
            connection: held.connection,
            why: held.reason.sentence(),
            values: person.found.values.join(", "),
            leads_to: held
                .tenants
                .into_iter()
                .map(|(id, name)| (id.to_string(), name))
                .collect(),
            belonged_to: held.belonged_to.unwrap_or_default(),
            since: person.held_at.map(|at| When::new(at, now)),
            seen: When::new(person.seen_at, now),
            decided_by: person.decided_by,
        }
    }
}

/// A rule as a row.
#[derive(Debug)]
struct RuleRow {
    value: String,
    tenant: String,
    state: Badge,
}

/// A connection of this tenant.
#[derive(Debug)]
struct ConnectionRow {
    id: String,
    name: String,
    routes: bool,
    claim: String,
    rules: Vec<RuleRow>,
    /// The rules as the form shows them.
    text: String,
    revision: i64,
    own_devices: OwnDevices,
}

/// What is set of devices of people.
#[derive(Debug, Default)]
struct OwnDevices {
    is_on: bool,
    devices_max: i64,
    tokens_per_hour_max: i64,
    is_company: bool,
}

impl OwnDevices {
    fn of(settings: Option<routing::SelfEnrollment>) -> OwnDevices {
        settings.map_or(
            OwnDevices {
                is_on: false,
                devices_max: 5,
                tokens_per_hour_max: 5,
                is_company: false,
            },
            |one| OwnDevices {
                is_on: true,
                devices_max: one.devices_max,
                tokens_per_hour_max: one.tokens_per_hour_max,
                is_company: one.ownership == Ownership::Company,
            },
        )
    }
}

/// A connection of the first tenant that is offered here.
#[derive(Debug)]
struct OfferRow {
    id: String,
    name: String,
    issuer: String,
    claim: String,
    values: String,
    accepted: String,
    state: Badge,
    is_accepted: bool,
    is_current: bool,
    assigned_people: bool,
    offer: String,
    own_devices: OwnDevices,
}

impl OfferRow {
    fn of(offer: Offer, own_devices: OwnDevices) -> OfferRow {
        let is_current = offer.is_accepted_as_it_is();
        let accepted = offer.accepted.as_ref().map(|one| &one.accepted);
        OfferRow {
            id: offer.connection.to_string(),
            state: match (accepted, is_current) {
                (None, _) => Badge::new("offered", Tone::Wait),
                (Some(_), true) => Badge::new("accepted", Tone::Good),
                (Some(_), false) => Badge::new("changed since", Tone::Bad),
            },
            is_accepted: accepted.is_some(),
            is_current,
            assigned_people: accepted.is_some_and(|one| one.assigned_people),
            accepted: accepted.map(|one| one.values.join(", ")).unwrap_or_default(),
            values: offer.values.join(", "),
            claim: offer.claim.clone().unwrap_or_default(),
            issuer: offer.issuer.clone(),
            name: routing::name_there(&offer.name),
            offer: offer.sha256.to_string(),
            own_devices,
        }
    }
}

#[derive(Template)]
#[template(path = "routing.html")]
struct RoutingPage {
    shell: Shell,
    /// Whether this is the first tenant, which alone routes.
    is_home: bool,
    held: Vec<HeldRow>,
    tenants: Vec<(String, String)>,
    connections: Vec<ConnectionRow>,
    offers: Vec<OfferRow>,
}

async fn show(State(app): State<App>, session: Session) -> Result<Response, Refusal> {
    let permit = session.permit::<AccessRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let is_home = secrets::operator(&app).await? == Some(tenant);
    let found = app
        .db
        .read(permit.storage(), move |tx| connection::connections(tx, tenant));
    let mut connections = Vec::new();
    for connection in found.await? {
        connections.push(connection_row(&app, tenant, &connection).await?);
    }
    let mut offers = Vec::new();
    for offer in routing::offers(&app, tenant).await? {
        let settings = own_devices_of(&app, tenant, offer.connection).await?;
        offers.push(OfferRow::of(offer, settings));
    }
    let (mut held, mut tenants) = (Vec::new(), Vec::new());
    if is_home {
        held = routing::held_people(&app, tenant).await?;
        tenants = app.db.read(Scope::System, access::tenants).await?;
    }
    page(&RoutingPage {
        shell: session.shell("Routing", Section::Access),
        is_home,
        held: held.into_iter().map(|one| HeldRow::of(one, now)).collect(),
        tenants: tenants
            .into_iter()
            .map(|(id, name)| (id.to_string(), name))
            .collect(),
        connections,
        offers,
    })
}

async fn own_devices_of(app: &App, tenant: TenantId, id: ConnectionId) -> Result<OwnDevices, Problem> {
    let found = app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
        routing::self_enrollment(tx, tenant, id)
    });
    Ok(OwnDevices::of(found.await?))
}

async fn connection_row(
    app: &App,
    tenant: TenantId,
    connection: &connection::Connection,
) -> Result<ConnectionRow, Problem> {
    let own_devices = own_devices_of(app, tenant, connection.id).await?;
    let routing = routing::routing_of(app, connection).await?;
    let states = match &routing {
        Some(routing) => routing::rule_states(app, connection, routing).await?,
        None => Vec::new(),
    };
    let text: Vec<String> = states
        .iter()
        .map(|one| format!("{} {LEADS_TO} {}", one.rule.value, one.rule.tenant))
        .collect();
    let rule = |one: routing::RuleState| RuleRow {
        value: one.rule.value,
        tenant: one.tenant_name,
        state: if one.is_taken {
            Badge::new("counts", Tone::Good)
        } else {
            Badge::new("waits for its tenant", Tone::Wait)
        },
    };
    Ok(ConnectionRow {
        id: connection.id.to_string(),
        name: connection.name.clone(),
        routes: routing.is_some(),
        claim: routing
            .as_ref()
            .and_then(|routing| routing.table.claim.clone())
            .unwrap_or_default(),
        revision: routing.as_ref().map_or(0, |routing| routing.revision),
        rules: states.into_iter().map(rule).collect(),
        text: text.join("\n"),
        own_devices,
    })
}

/// Rules as the form has them: one in a line, a tenant by its id or by a name that is nobody else's.
fn rules_of(text: &str, tenants: &[(TenantId, String)]) -> Result<Vec<Rule>, Problem> {
    let tenant = |named: &str| -> Result<TenantId, Problem> {
        if let Ok(id) = named.parse() {
            return Ok(id);
        }
        let mut found = tenants.iter().filter(|(_, name)| name == named);
        match (found.next(), found.next()) {
            (Some((id, _)), None) => Ok(*id),
            (Some(_), Some(_)) => Err(INVALID.detail(format!(
                "Several tenants are called {named:?}. Write the id of the one that you mean."
            ))),
            (None, _) => Err(INVALID.detail(format!("There is no tenant {named:?}."))),
        }
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (value, named) = line
                .rsplit_once(LEADS_TO)
                .ok_or_else(|| INVALID.detail("Write one rule in a line: the value, ->, and the tenant."))?;
            Ok(Rule {
                value: value.trim().to_owned(),
                tenant: tenant(named.trim())?,
            })
        })
        .collect()
}

async fn put(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<SsoWrite>()?;
    sent.session.require_fresh(&app)?;
    let tenants = app.db.read(Scope::System, access::tenants).await?;
    let table = Table {
        claim: sent.fields.optional("claim").map(str::to_owned),
        rules: rules_of(sent.fields.text("rules"), &tenants)?,
    };
    let expected = match sent.fields.parsed::<i64>("revision")? {
        None | Some(0) => Expected::Absent,
        Some(revision) => Expected::Revision(revision),
    };
    let name = sent.fields.text("connection").to_owned();
    routing::set_routing(&app, permit, name, table, expected).await?;
    Ok(see_other("/access/routing?notice=routing-saved"))
}

async fn remove(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<SsoWrite>()?;
    sent.session.require_fresh(&app)?;
    let expected = Expected::Revision(sent.fields.parsed::<i64>("revision")?.unwrap_or_default());
    let name = sent.fields.text("connection").to_owned();
    routing::remove_routing(&app, permit, name, expected).await?;
    Ok(see_other("/access/routing?notice=routing-removed"))
}

async fn accept(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<SsoWrite>()?;
    sent.session.require_fresh(&app)?;
    let id = parse(sent.fields.text("connection"))?;
    let assigned = sent.fields.has("assigned_people", "yes");
    routing::accept(&app, permit, id, sent.fields.text("offer"), assigned).await?;
    Ok(see_other("/access/routing?notice=routing-accepted"))
}

async fn withdraw(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<SsoWrite>()?;
    sent.session.require_fresh(&app)?;
    let id = parse(sent.fields.text("connection"))?;
    routing::withdraw(&app, permit, id).await?;
    Ok(see_other("/access/routing?notice=routing-withdrawn"))
}

async fn decide(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<SsoWrite>()?;
    sent.session.require_fresh(&app)?;
    let choice = match sent.fields.text("decision") {
        "assign" => Choice::Assign {
            tenant: parse(sent.fields.text("tenant"))?,
        },
        "refuse" => Choice::Refuse {},
        "forget" => Choice::Forget {},
        _ => return Err(Refusal(INVALID.detail("Decide where the person belongs."))),
    };
    let reference = parse(sent.fields.text("reference"))?;
    routing::decide_held(&app, permit, reference, choice).await?;
    Ok(see_other("/access/routing?notice=held-decided"))
}

async fn own_devices(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<SsoWrite>()?;
    sent.session.require_fresh(&app)?;
    let id: ConnectionId = parse(sent.fields.text("connection"))?;
    let limits = if sent.fields.has("is_on", "yes") {
        // Whoever lets others make enrollment tokens may make them.
        permit.require::<TokenWrite>()?;
        Some((
            sent.fields.parsed("devices_max")?.unwrap_or(5),
            sent.fields.parsed("tokens_per_hour_max")?.unwrap_or(5),
            if sent.fields.has("ownership", "company") {
                Ownership::Company
            } else {
                Ownership::Personal
            },
        ))
    } else {
        None
    };
    audit::commit(&app, permit.author(), move |tx| {
        routing::set_self_enrollment(tx, id, limits)
    })
    .await?;
    Ok(see_other("/access/routing?notice=own-devices-changed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_meant_by_its_id_or_by_a_name_that_is_nobody_elses() {
        let id = |number: u128| TenantId::from_uuid(uuid::Uuid::from_u128(number));
        let tenants = [
            (id(1), "acme".to_owned()),
            (id(2), "beta".to_owned()),
            (id(3), "beta".to_owned()),
        ];
        let read =
            rules_of(&format!("a -> b -> acme\r\n\n x -> {}\n", id(2)), &tenants).expect("it is sound");
        assert_eq!(read[0].value, "a -> b");
        assert_eq!((read[0].tenant, read[1].tenant), (id(1), id(2)));
        for wrong in ["acme", "x -> nobody", "x -> beta"] {
            assert!(rules_of(wrong, &tenants).is_err(), "{wrong}");
        }
    }
}
