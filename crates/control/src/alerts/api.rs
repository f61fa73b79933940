//! Routes of alerts.

use axum::{Json, extract::State, http::StatusCode, response::Response};
use muster_model::{AlertId, DeliveryId, SilenceId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    DeliveryState,
    people::{self, DestinationChange, SilenceRequest},
    rules::Definition,
    view::{self, AlertView, DeliveryView, DestinationView, ExpiryView, RuleView, SignalView, SilenceView},
};
use crate::{
    App,
    access::{
        Permit,
        idempotency::{IdempotencyKey, commit_once},
        problem::Problem,
        request::{Body, Params, PathOf},
        scope::{AlertRead, AlertWrite},
    },
    audit,
    page::{Page, cursor, page_limit},
};

/// Routes under `/api/v1`.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_alerts))
        .routes(routes!(get_alert))
        .routes(routes!(acknowledge_alert))
        .routes(routes!(resolve_alert))
        .routes(routes!(list_alert_rules))
        .routes(routes!(get_rule, put_rule, delete_rule))
        .routes(routes!(list_signals))
        .routes(routes!(list_destinations))
        .routes(routes!(put_destination, delete_destination))
        .routes(routes!(test_destination))
        .routes(routes!(list_silences, create_silence))
        .routes(routes!(end_silence))
        .routes(routes!(list_deliveries))
        .routes(routes!(replay_delivery))
        .routes(routes!(list_expiries))
        .routes(routes!(put_expiry, delete_expiry))
}

/// Everything of a short list.
#[derive(Debug, Serialize, ToSchema)]
struct Items<T> {
    items: Vec<T>,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct AlertsQuery {
    /// `open` (the default) or `all`.
    #[param(inline)]
    state: Option<Which>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items on a page, at most 500.
    limit: Option<usize>,
}

/// Which alerts are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Which {
    Open,
    All,
}

#[utoipa::path(
    get, path = "/alerts", tag = "alerts", params(AlertsQuery), security(("oauth2" = ["alert:read"])),
    responses((status = 200, body = Page<AlertView>)),
)]
async fn list_alerts(
    permit: Permit<AlertRead>,
    State(app): State<App>,
    Params(query): Params<AlertsQuery>,
) -> Result<Json<Page<AlertView>>, Problem> {
    let (tenant, limit) = (permit.tenant(), page_limit(query.limit));
    let before = cursor::<AlertId>(query.cursor.as_deref())?;
    let only_open = query.state != Some(Which::All);
    let shared = app.clone();
    let page = app.db.read(permit.storage(), move |tx| {
        view::alerts_page(&shared, tx, tenant, before, only_open, limit)
    });
    Ok(Json(page.await?))
}

/// An alert with what was sent of it.
#[derive(Debug, Serialize, ToSchema)]
struct WholeAlertView {
    #[serde(flatten)]
    alert: AlertView,
    /// The newest first.
    deliveries: Vec<DeliveryView>,
}

#[utoipa::path(
    get, path = "/alerts/{id}", tag = "alerts", params(("id" = String, Path)), security(("oauth2" = ["alert:read"])),
    responses((status = 200, body = WholeAlertView)),
)]
async fn get_alert(
    permit: Permit<AlertRead>,
    State(app): State<App>,
    PathOf(id): PathOf<AlertId>,
) -> Result<Json<WholeAlertView>, Problem> {
    whole(&app, &permit, id).await.map(Json)
}

async fn whole<S>(app: &App, permit: &Permit<S>, id: AlertId) -> Result<WholeAlertView, Problem> {
    let (tenant, shared) = (permit.tenant(), app.clone());
    let found = app.db.read(permit.storage(), move |tx| {
        view::alert_view(&shared, tx, tenant, id)
    });
    let (alert, deliveries) = found.await?;
    Ok(WholeAlertView { alert, deliveries })
}

/// A note to a decision.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Noted {
    /// At most 500 characters.
    #[serde(default)]
    note: String,
}

#[utoipa::path(
    post, path = "/alerts/{id}/acknowledge", tag = "alerts", params(("id" = String, Path)),
    security(("oauth2" = ["alert:write"])), request_body = Noted, responses((status = 200, body = WholeAlertView)),
)]
async fn acknowledge_alert(
    permit: Permit<AlertWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<AlertId>,
    Body(noted): Body<Noted>,
) -> Result<Json<WholeAlertView>, Problem> {
    let shared = app.clone();
    audit::commit(&app, permit.author(), move |tx| {
        people::acknowledge(&shared, tx, id, &noted.note)
    })
    .await?;
    app.nudges.alerts.notify_one();
    whole(&app, &permit, id).await.map(Json)
}

/// Ends the alert of an event. The alert of a condition ends by itself.
#[utoipa::path(
    post, path = "/alerts/{id}/resolve", tag = "alerts", params(("id" = String, Path)),
    security(("oauth2" = ["alert:write"])), request_body = Noted, responses((status = 200, body = WholeAlertView)),
)]
async fn resolve_alert(
    permit: Permit<AlertWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<AlertId>,
    Body(noted): Body<Noted>,
) -> Result<Json<WholeAlertView>, Problem> {
    let shared = app.clone();
    audit::commit(&app, permit.author(), move |tx| {
        people::resolve(&shared, tx, id, &noted.note)
    })
    .await?;
    app.nudges.alerts.notify_one();
    whole(&app, &permit, id).await.map(Json)
}

#[utoipa::path(
    get, path = "/alert-rules", tag = "alerts", security(("oauth2" = ["alert:read"])),
    responses((status = 200, body = Items<RuleView>)),
)]
async fn list_alert_rules(
    permit: Permit<AlertRead>,
    State(app): State<App>,
) -> Result<Json<Items<RuleView>>, Problem> {
    let tenant = permit.tenant();
    let items = app
        .db
        .read(permit.storage(), move |tx| view::rule_views(tx, tenant))
        .await?;
    Ok(Json(Items { items }))
}

#[utoipa::path(
    get, path = "/alert-rules/{name}", tag = "alerts", params(("name" = String, Path)),
    security(("oauth2" = ["alert:read"])), responses((status = 200, body = RuleView)),
)]
async fn get_rule(
    permit: Permit<AlertRead>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<Json<RuleView>, Problem> {
    let tenant = permit.tenant();
    let rule = app
        .db
        .read(permit.storage(), move |tx| view::rule_view(tx, tenant, &name));
    Ok(Json(rule.await?))
}

#[utoipa::path(
    put, path = "/alert-rules/{name}", tag = "alerts", params(("name" = String, Path)),
    security(("oauth2" = ["alert:write"])), request_body = Definition, responses((status = 200, body = RuleView)),
)]
async fn put_rule(
    permit: Permit<AlertWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    Body(definition): Body<Definition>,
) -> Result<Json<RuleView>, Problem> {
    let shared = app.clone();
    let rule = audit::commit(&app, permit.author(), move |tx| {
        people::put_rule(&shared, tx, &name, &definition)?;
        let tenant = tx.tenant();
        view::rule_view(tx, tenant, &name)
    })
    .await?;
    app.nudges.alerts.notify_one();
    Ok(Json(rule))
}

/// Removes a rule; one that comes along says again what it said at first.
#[utoipa::path(
    delete, path = "/alert-rules/{name}", tag = "alerts", params(("name" = String, Path)),
    security(("oauth2" = ["alert:write"])), responses((status = 204)),
)]
async fn delete_rule(
    permit: Permit<AlertWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<StatusCode, Problem> {
    let shared = app.clone();
    audit::commit(&app, permit.author(), move |tx| {
        people::remove_rule(&shared, tx, &name)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

#[utoipa::path(
    get, path = "/alert-signals", tag = "alerts", security(("oauth2" = ["alert:read"])),
    responses((status = 200, body = Items<SignalView>)),
)]
async fn list_signals(
    permit: Permit<AlertRead>,
    State(app): State<App>,
) -> Result<Json<Items<SignalView>>, Problem> {
    let (tenant, shared) = (permit.tenant(), app.clone());
    let items = app.db.read(permit.storage(), move |tx| {
        view::signal_views(&shared, tx, tenant)
    });
    Ok(Json(Items { items: items.await? }))
}

#[utoipa::path(
    get, path = "/alert-destinations", tag = "alerts", security(("oauth2" = ["alert:read"])),
    responses((status = 200, body = Items<DestinationView>)),
)]
async fn list_destinations(
    permit: Permit<AlertRead>,
    State(app): State<App>,
) -> Result<Json<Items<DestinationView>>, Problem> {
    let tenant = permit.tenant();
    let items = app
        .db
        .read(permit.storage(), move |tx| view::destination_views(tx, tenant));
    Ok(Json(Items { items: items.await? }))
}

/// Makes or changes a destination. Its secret is never shown again.
#[utoipa::path(
    put, path = "/alert-destinations/{name}", tag = "alerts", params(("name" = String, Path)),
    security(("oauth2" = ["alert:write"])), request_body = DestinationChange,
    responses((status = 200, body = DestinationView)),
)]
async fn put_destination(
    permit: Permit<AlertWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    Body(change): Body<DestinationChange>,
) -> Result<Json<DestinationView>, Problem> {
    let shared = app.clone();
    let destination = audit::commit(&app, permit.author(), move |tx| {
        people::put_destination(&shared, tx, &name, &change)
    })
    .await?;
    Ok(Json(destination.into()))
}

#[utoipa::path(
    delete, path = "/alert-destinations/{name}", tag = "alerts", params(("name" = String, Path)),
    security(("oauth2" = ["alert:write"])), responses((status = 204)),
)]
async fn delete_destination(
    permit: Permit<AlertWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<StatusCode, Problem> {
    let shared = app.clone();
    audit::commit(&app, permit.author(), move |tx| {
        people::remove_destination(&shared, tx, &name)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Sends two messages that mean nothing: one that begins, one that ends.
#[utoipa::path(
    post, path = "/alert-destinations/{name}/test", tag = "alerts", params(("name" = String, Path)),
    security(("oauth2" = ["alert:write"])), responses((status = 202, body = Items<DeliveryView>)),
)]
async fn test_destination(
    permit: Permit<AlertWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<(StatusCode, Json<Items<DeliveryView>>), Problem> {
    let shared = app.clone();
    let sent = audit::commit(&app, permit.author(), move |tx| {
        people::test_destination(&shared, tx, &name)
    })
    .await?;
    app.nudges.alerts.notify_one();
    let items = sent.into_iter().map(DeliveryView::from).collect();
    Ok((StatusCode::ACCEPTED, Json(Items { items })))
}

#[utoipa::path(
    get, path = "/alert-silences", tag = "alerts", security(("oauth2" = ["alert:read"])),
    responses((status = 200, body = Items<SilenceView>)),
)]
async fn list_silences(
    permit: Permit<AlertRead>,
    State(app): State<App>,
) -> Result<Json<Items<SilenceView>>, Problem> {
    let (tenant, now) = (permit.tenant(), app.clock.now());
    let items = app
        .db
        .read(permit.storage(), move |tx| view::silence_views(tx, tenant, now));
    Ok(Json(Items { items: items.await? }))
}

#[utoipa::path(
    post, path = "/alert-silences", tag = "alerts", params(("Idempotency-Key" = Option<String>, Header)),
    security(("oauth2" = ["alert:write"])), request_body = SilenceRequest,
    responses((status = 201, body = SilenceView)),
)]
async fn create_silence(
    permit: Permit<AlertWrite>,
    State(app): State<App>,
    key: IdempotencyKey,
    Body(request): Body<SilenceRequest>,
) -> Result<Response, Problem> {
    let (wanted, shared) = (request.clone(), app.clone());
    commit_once(&app, &permit, key, "POST /alert-silences", &request, move |tx| {
        let silence = people::silence(&shared, tx, &wanted)?;
        Ok((StatusCode::CREATED, SilenceView::of(silence, tx.at())))
    })
    .await
}

#[utoipa::path(
    post, path = "/alert-silences/{id}/end", tag = "alerts", params(("id" = String, Path)),
    security(("oauth2" = ["alert:write"])), responses((status = 200, body = SilenceView)),
)]
async fn end_silence(
    permit: Permit<AlertWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<SilenceId>,
) -> Result<Json<SilenceView>, Problem> {
    let now = app.clock.now();
    let silence = audit::commit(&app, permit.author(), move |tx| people::end_silence(tx, id)).await?;
    app.nudges.alerts.notify_one();
    Ok(Json(SilenceView::of(silence, now)))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct DeliveriesQuery {
    /// `waiting`, `delivered` or `dead`; all of them where it is left out.
    state: Option<DeliveryState>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Items on a page, at most 500.
    limit: Option<usize>,
}

#[utoipa::path(
    get, path = "/alert-deliveries", tag = "alerts", params(DeliveriesQuery), security(("oauth2" = ["alert:read"])),
    responses((status = 200, body = Page<DeliveryView>)),
)]
async fn list_deliveries(
    permit: Permit<AlertRead>,
    State(app): State<App>,
    Params(query): Params<DeliveriesQuery>,
) -> Result<Json<Page<DeliveryView>>, Problem> {
    let (tenant, limit) = (permit.tenant(), page_limit(query.limit));
    let before = cursor::<DeliveryId>(query.cursor.as_deref())?;
    let page = app.db.read(permit.storage(), move |tx| {
        view::deliveries_page(tx, tenant, before, query.state, limit)
    });
    Ok(Json(page.await?))
}

/// Sends a message again that was given up.
#[utoipa::path(
    post, path = "/alert-deliveries/{id}/replay", tag = "alerts", params(("id" = String, Path)),
    security(("oauth2" = ["alert:write"])), responses((status = 200, body = DeliveryView)),
)]
async fn replay_delivery(
    permit: Permit<AlertWrite>,
    State(app): State<App>,
    PathOf(id): PathOf<DeliveryId>,
) -> Result<Json<DeliveryView>, Problem> {
    let delivery = audit::commit(&app, permit.author(), move |tx| people::replay(tx, id)).await?;
    app.nudges.alerts.notify_one();
    Ok(Json(delivery.into()))
}

#[utoipa::path(
    get, path = "/expiries", tag = "alerts", security(("oauth2" = ["alert:read"])),
    responses((status = 200, body = Items<ExpiryView>)),
)]
async fn list_expiries(
    permit: Permit<AlertRead>,
    State(app): State<App>,
) -> Result<Json<Items<ExpiryView>>, Problem> {
    let (tenant, shared) = (permit.tenant(), app.clone());
    let items = app.db.read(permit.storage(), move |tx| {
        view::expiry_views(&shared, tx, tenant)
    });
    Ok(Json(Items { items: items.await? }))
}

/// When a token or certificate of another service ends.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ExpiryRequest {
    /// RFC 3339.
    #[schema(value_type = String)]
    expires_at: Timestamp,
    /// Where it is renewed, and by whom; at most 500 characters.
    #[serde(default)]
    note: String,
}

#[utoipa::path(
    put, path = "/expiries/{name}", tag = "alerts", params(("name" = String, Path)),
    security(("oauth2" = ["alert:write"])), request_body = ExpiryRequest,
    responses((status = 200, body = Items<ExpiryView>)),
)]
async fn put_expiry(
    permit: Permit<AlertWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
    Body(request): Body<ExpiryRequest>,
) -> Result<Json<Items<ExpiryView>>, Problem> {
    let (tenant, shared) = (permit.tenant(), app.clone());
    let items = audit::commit(&app, permit.author(), move |tx| {
        people::enter_expiry(tx, &name, request.expires_at, &request.note)?;
        let all = view::expiry_views(&shared, tx, tenant)?;
        Ok(all.into_iter().filter(|expiry| expiry.name == name).collect())
    })
    .await?;
    app.nudges.alerts.notify_one();
    Ok(Json(Items { items }))
}

#[utoipa::path(
    delete, path = "/expiries/{name}", tag = "alerts", params(("name" = String, Path)),
    security(("oauth2" = ["alert:write"])), responses((status = 204)),
)]
async fn delete_expiry(
    permit: Permit<AlertWrite>,
    State(app): State<App>,
    PathOf(name): PathOf<String>,
) -> Result<StatusCode, Problem> {
    audit::commit(&app, permit.author(), move |tx| people::remove_expiry(tx, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}
