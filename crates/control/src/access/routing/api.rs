//! Routes of routing: rules, what a tenant takes, who waits, and who enrolls devices of their own.

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use muster_model::{ConnectionId, Ownership, TenantId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use super::{Choice, Expected, HeldPerson, Offer, Reason, Routing, Rule, SelfEnrollment, Table, store};
use crate::{
    App,
    access::{
        Permit, connection,
        problem::{INVALID, NOT_FOUND, Problem},
        request::{Body, PathOf},
        scope::{AccessRead, SsoWrite, TokenWrite},
    },
    audit,
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_routing, put_routing, delete_routing))
        .routes(routes!(list_routed_connections))
        .routes(routes!(accept_routed_connection, withdraw_routed_connection))
        .routes(routes!(list_held_sign_ins))
        .routes(routes!(decide_held_sign_in))
        .routes(routes!(
            get_self_enrollment,
            put_self_enrollment,
            delete_self_enrollment
        ))
}

/// Everything of a short list.
#[derive(Debug, Serialize, ToSchema)]
struct Items<T> {
    items: Vec<T>,
}

/// A rule, and whether its tenant takes it.
#[derive(Debug, Serialize, ToSchema)]
struct RoutingRuleView {
    value: String,
    #[schema(value_type = String)]
    tenant: TenantId,
    tenant_name: String,
    /// `taken`, or `waiting`: nobody comes in by it before its tenant accepts the connection as it is.
    state: &'static str,
}

/// Where the people of a connection belong.
#[derive(Debug, Serialize, ToSchema)]
struct RoutingView {
    #[schema(value_type = String)]
    connection: ConnectionId,
    /// The claim or attribute that is read; nothing for the groups of the connection.
    claim: Option<String>,
    rules: Vec<RoutingRuleView>,
    /// Counts changes. `ETag` says it too, for `If-Match`.
    revision: i64,
    updated_by: String,
    updated_at: String,
}

async fn routing_answer(
    app: &App,
    connection: &connection::Connection,
    routing: Routing,
) -> Result<Response, Problem> {
    let states = super::rule_states(app, connection, &routing).await?;
    let rule = |state: super::RuleState| RoutingRuleView {
        value: state.rule.value,
        tenant: state.rule.tenant,
        tenant_name: state.tenant_name,
        state: if state.is_taken { "taken" } else { "waiting" },
    };
    let etag = format!("\"{}\"", routing.revision);
    let view = RoutingView {
        connection: routing.connection,
        claim: routing.table.claim,
        rules: states.into_iter().map(rule).collect(),
        revision: routing.revision,
        updated_by: routing.updated_by,
        updated_at: routing.updated_at.to_string(),
    };
    Ok(([(header::ETAG, etag)], Json(view)).into_response())
}

async fn named<S>(app: &App, permit: &Permit<S>, name: &str) -> Result<connection::Connection, Problem> {
    let (tenant, name) = (permit.tenant(), name.to_owned());
    app.db
        .read(permit.storage(), move |tx| connection::named(tx, tenant, &name))
        .await
}

/// The rules by which the people of a connection belong to tenants. Of the first tenant alone.
#[utoipa::path(
    get, path = "/access/connections/{name}/routing", tag = "access", operation_id = "get_routing",
    params(("name" = String, Path)), security(("oauth2" = ["access:read"])),
    responses((status = 200, body = RoutingView)),
)]
async fn get_routing(
    permit: Permit<AccessRead>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<Response, Problem> {
    let connection = named(&app, &permit, &name).await?;
    let routing = super::routing_of(&app, &connection).await?.ok_or_else(|| {
        NOT_FOUND.detail("The connection has no rules: its people belong to its own tenant.")
    })?;
    routing_answer(&app, &connection, routing).await
}

/// Rules as they are to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RoutingRequest {
    /// The claim of a token or the attribute of an assertion that is read; the groups of the connection where nothing is said. A JSON
    /// Pointer finds a nested claim.
    claim: Option<String>,
    /// At most 200. Values are compared to the letter; two that differ in case or space alone are refused.
    rules: Vec<Rule>,
}

/// What `If-Match` and `If-None-Match` ask for.
fn expected(headers: &HeaderMap) -> Result<Expected, Problem> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_NONE_MATCH).is_some_and(|value| value.trim() == "*") {
        return Ok(Expected::Absent);
    }
    match text(header::IF_MATCH) {
        None => Ok(Expected::Anything),
        Some(value) => {
            let revision = value.trim().trim_matches('"').parse();
            Ok(Expected::Revision(revision.map_err(|_| {
                INVALID.detail("If-Match: send the ETag of the rules.")
            })?))
        }
    }
}

/// Says where the people of a connection belong. From then on nobody comes in by it whom no rule leads to exactly one tenant. A rule
/// to another tenant counts when that tenant accepts the connection.
#[utoipa::path(
    put, path = "/access/connections/{name}/routing", tag = "access", operation_id = "put_routing",
    params(("name" = String, Path), ("If-Match" = Option<String>, Header), ("If-None-Match" = Option<String>, Header)),
    security(("oauth2" = ["sso:write"])), request_body = RoutingRequest, responses((status = 200, body = RoutingView)),
)]
async fn put_routing(
    permit: Permit<SsoWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    headers: HeaderMap,
    Body(request): Body<RoutingRequest>,
) -> Result<Response, Problem> {
    let expected = expected(&headers)?;
    let connection = named(&app, &permit, &name).await?;
    let table = Table {
        claim: request.claim,
        rules: request.rules,
    };
    let routing = super::set_routing(&app, permit, name, table, expected).await?;
    routing_answer(&app, &connection, routing).await
}

/// Routes the people of a connection no more. All of them are people of the first tenant again.
#[utoipa::path(
    delete, path = "/access/connections/{name}/routing", tag = "access", operation_id = "delete_routing",
    params(("name" = String, Path), ("If-Match" = Option<String>, Header)), security(("oauth2" = ["sso:write"])),
    responses((status = 204)),
)]
async fn delete_routing(
    permit: Permit<SsoWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let expected = expected(&headers)?;
    super::remove_routing(&app, permit, name, expected).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What the first tenant offers this one: whose people would come.
#[derive(Debug, Serialize, ToSchema)]
struct RoutedConnectionView {
    #[schema(value_type = String)]
    connection: ConnectionId,
    /// As grants here name it: `routed:` and its name there.
    name: String,
    kind: String,
    issuer: String,
    claim: Option<String>,
    /// The values whose people would come.
    values: Vec<String>,
    /// What is sent back to accept all of this, and nothing else.
    offer: String,
    /// `offered`, `accepted`, or `changed`: it is not what was accepted any more, and nobody comes in by what changed.
    state: &'static str,
    accepted_values: Vec<String>,
    assigned_people: bool,
    accepted_by: Option<String>,
    accepted_at: Option<String>,
}

impl From<Offer> for RoutedConnectionView {
    fn from(offer: Offer) -> RoutedConnectionView {
        let state = match &offer.accepted {
            None => "offered",
            Some(_) if offer.is_accepted_as_it_is() => "accepted",
            Some(_) => "changed",
        };
        let accepted = offer.accepted.as_ref();
        RoutedConnectionView {
            name: super::name_there(&offer.name),
            kind: offer.kind.clone(),
            issuer: offer.issuer.clone(),
            claim: offer.claim.clone(),
            values: offer.values.clone(),
            offer: offer.sha256.to_string(),
            state,
            accepted_values: accepted
                .map(|one| one.accepted.values.clone())
                .unwrap_or_default(),
            assigned_people: accepted.is_some_and(|one| one.accepted.assigned_people),
            accepted_by: accepted.map(|one| one.accepted_by.clone()),
            accepted_at: accepted.map(|one| one.accepted_at.to_string()),
            connection: offer.connection,
        }
    }
}

/// The connections of the first tenant whose people are offered to this one, and what it takes.
#[utoipa::path(
    get, path = "/access/routed-connections", tag = "access", operation_id = "list_routed_connections",
    security(("oauth2" = ["access:read"])), responses((status = 200, body = Items<RoutedConnectionView>)),
)]
async fn list_routed_connections(
    permit: Permit<AccessRead>,
    State(app): State<App>,
) -> Result<Json<Items<RoutedConnectionView>>, Problem> {
    let offers = super::offers(&app, permit.tenant()).await?;
    Ok(Json(Items {
        items: offers.into_iter().map(RoutedConnectionView::from).collect(),
    }))
}

/// What is accepted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AcceptRequest {
    /// The `offer` of `GET /access/routed-connections`. What changed since is refused.
    offer: String,
    /// Whether people come as well whom the first tenant assigns by hand, because no rule leads them anywhere.
    #[serde(default)]
    assigned_people: bool,
}

/// Takes people from a connection of the first tenant. What they may do is what this tenant gives them.
#[utoipa::path(
    put, path = "/access/routed-connections/{id}", tag = "access", operation_id = "accept_routed_connection",
    params(("id" = String, Path)), security(("oauth2" = ["sso:write"])), request_body = AcceptRequest,
    responses((status = 200, body = RoutedConnectionView)),
)]
async fn accept_routed_connection(
    permit: Permit<SsoWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<ConnectionId>,
    Body(request): Body<AcceptRequest>,
) -> Result<Json<RoutedConnectionView>, Problem> {
    let offer = super::accept(&app, permit, id, &request.offer, request.assigned_people).await?;
    Ok(Json(offer.into()))
}

/// Takes nobody from a connection any more, and signs out who came by it.
#[utoipa::path(
    delete, path = "/access/routed-connections/{id}", tag = "access", operation_id = "withdraw_routed_connection",
    params(("id" = String, Path)), security(("oauth2" = ["sso:write"])), responses((status = 204)),
)]
async fn withdraw_routed_connection(
    permit: Permit<SsoWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<ConnectionId>,
) -> Result<StatusCode, Problem> {
    super::withdraw(&app, permit, id).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A tenant that a claim leads to.
#[derive(Debug, Serialize, ToSchema)]
struct TenantName {
    #[schema(value_type = String)]
    id: TenantId,
    name: String,
}

/// Somebody whose sign-in is held.
#[derive(Debug, Serialize, ToSchema)]
struct HeldView {
    /// What the person was told to quote.
    #[schema(value_type = String)]
    reference: Uuid,
    connection: String,
    username: String,
    display_name: String,
    reason: Reason,
    explanation: &'static str,
    /// What of the claim has to do with routing.
    values: Vec<String>,
    /// Where those values lead.
    tenants: Vec<TenantName>,
    /// The tenant that the person belonged to.
    belonged_to: Option<String>,
    times: i64,
    held_at: Option<String>,
    seen_at: String,
    decided_by: Option<String>,
    decided_at: Option<String>,
}

impl From<HeldPerson> for HeldView {
    fn from(held: HeldPerson) -> HeldView {
        let person = held.person;
        HeldView {
            reference: person.reference,
            connection: held.connection,
            username: person.username,
            display_name: person.display_name,
            reason: held.reason,
            explanation: held.reason.sentence(),
            values: person.found.values,
            tenants: held
                .tenants
                .into_iter()
                .map(|(id, name)| TenantName { id, name })
                .collect(),
            belonged_to: held.belonged_to,
            times: person.held_times,
            held_at: person.held_at.map(|at| at.to_string()),
            seen_at: person.seen_at.to_string(),
            decided_by: person.decided_by,
            decided_at: person.decided_at.map(|at| at.to_string()),
        }
    }
}

/// Who came by a connection that routes and belongs to no tenant, the newest first, at most 1000.
#[utoipa::path(
    get, path = "/access/held-sign-ins", tag = "access", operation_id = "list_held_sign_ins",
    security(("oauth2" = ["access:read"])), responses((status = 200, body = Items<HeldView>)),
)]
async fn list_held_sign_ins(
    permit: Permit<AccessRead>,
    State(app): State<App>,
) -> Result<Json<Items<HeldView>>, Problem> {
    let held = super::held_people(&app, permit.tenant()).await?;
    Ok(Json(Items {
        items: held.into_iter().map(HeldView::from).collect(),
    }))
}

/// Decides where somebody belongs whose sign-in is held. Their next sign-in follows it.
#[utoipa::path(
    post, path = "/access/held-sign-ins/{reference}/decide", tag = "access", operation_id = "decide_held_sign_in",
    params(("reference" = String, Path)), security(("oauth2" = ["sso:write"])), request_body = Choice,
    responses((status = 204)),
)]
async fn decide_held_sign_in(
    permit: Permit<SsoWrite>,
    State(app): State<App>,
    PathOf(reference): PathOf<String>,
    Body(choice): Body<Choice>,
) -> Result<StatusCode, Problem> {
    // What is no reference is one of nobody: the answer is the same for every text.
    let reference = reference.parse().unwrap_or(Uuid::nil());
    super::decide_held(&app, permit, reference, choice).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether people of a connection enroll their own devices.
#[derive(Debug, Serialize, ToSchema)]
struct SelfEnrollmentView {
    enabled: bool,
    devices_max: Option<i64>,
    tokens_per_hour_max: Option<i64>,
    #[schema(value_type = Option<String>)]
    ownership: Option<Ownership>,
    updated_by: Option<String>,
    updated_at: Option<String>,
}

impl From<Option<SelfEnrollment>> for SelfEnrollmentView {
    fn from(settings: Option<SelfEnrollment>) -> SelfEnrollmentView {
        SelfEnrollmentView {
            enabled: settings.is_some(),
            devices_max: settings.as_ref().map(|one| one.devices_max),
            tokens_per_hour_max: settings.as_ref().map(|one| one.tokens_per_hour_max),
            ownership: settings.as_ref().map(|one| one.ownership),
            updated_by: settings.as_ref().map(|one| one.updated_by.clone()),
            updated_at: settings.map(|one| one.updated_at.to_string()),
        }
    }
}

/// Whether the people of a connection enroll their own devices here. The connection is one of the tenant's own, or one that it
/// takes people from.
#[utoipa::path(
    get, path = "/access/self-enrollment/{id}", tag = "access", operation_id = "get_self_enrollment",
    params(("id" = String, Path)), security(("oauth2" = ["access:read"])),
    responses((status = 200, body = SelfEnrollmentView)),
)]
async fn get_self_enrollment(
    permit: Permit<AccessRead>,
    State(app): State<App>,
    PathOf(id): PathOf<ConnectionId>,
) -> Result<Json<SelfEnrollmentView>, Problem> {
    let tenant = permit.tenant();
    let found = app.db.read(permit.storage(), move |tx| {
        Ok::<_, Problem>(store::self_enrollment(tx, tenant, id)?)
    });
    Ok(Json(found.await?.into()))
}

/// How many devices people enroll.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SelfEnrollmentRequest {
    /// Devices of one person that are not retired: 1 to 100.
    #[serde(default = "usual_devices")]
    devices_max: i64,
    /// Tokens that one person gets in an hour: 1 to 60.
    #[serde(default = "usual_tokens")]
    tokens_per_hour_max: i64,
    /// `personal` unless given, or `company`: a personal device can never be given a full wipe.
    #[schema(value_type = String)]
    #[serde(default = "usual_ownership")]
    ownership: Ownership,
}

const fn usual_ownership() -> Ownership {
    Ownership::Personal
}

const fn usual_devices() -> i64 {
    5
}

const fn usual_tokens() -> i64 {
    5
}

/// Lets the people of a connection enroll their own devices in this tenant. Whoever lets others make enrollment tokens may make them.
#[utoipa::path(
    put, path = "/access/self-enrollment/{id}", tag = "access", operation_id = "put_self_enrollment",
    params(("id" = String, Path)), security(("oauth2" = ["sso:write", "token:write"])), request_body = SelfEnrollmentRequest,
    responses((status = 200, body = SelfEnrollmentView)),
)]
async fn put_self_enrollment(
    permit: Permit<(SsoWrite, TokenWrite)>,
    State(app): State<App>,
    PathOf(id): PathOf<ConnectionId>,
    Body(request): Body<SelfEnrollmentRequest>,
) -> Result<Json<SelfEnrollmentView>, Problem> {
    let limits = Some((
        request.devices_max,
        request.tokens_per_hour_max,
        request.ownership,
    ));
    let made = audit::commit(&app, permit.author(), move |tx| {
        super::set_self_enrollment(tx, id, limits)
    });
    Ok(Json(made.await?.into()))
}

/// Lets the people of a connection enroll no devices any more.
#[utoipa::path(
    delete, path = "/access/self-enrollment/{id}", tag = "access", operation_id = "delete_self_enrollment",
    params(("id" = String, Path)), security(("oauth2" = ["sso:write"])), responses((status = 204)),
)]
async fn delete_self_enrollment(
    permit: Permit<SsoWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<ConnectionId>,
) -> Result<StatusCode, Problem> {
    audit::commit(&app, permit.author(), move |tx| {
        super::set_self_enrollment(tx, id, None)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
