//! The SCIM endpoints, under `/scim/v2` (RFC 7644, section 3.2).
//!
//! Every call but discovery takes a [`Client`], which holds the permit. What changes something, and what is refused, is kept
//! for a while as a request, so that people see what their identity provider did.

use std::{future::Future, str::FromStr};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        DefaultBodyLimit, FromRequestParts, Path, Query as UrlQuery, State,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use muster_model::{ClientId, ScimRequestId, TenantId, UserGroupId, UserId};
use muster_scim::{
    BODY_BYTES_MAX, Documents, Features, GROUPS, MEDIA_TYPE, Projection, Query, ResourceType, ScimError,
    USERS, accept, group_steps, list_response, members_of, operations, parse, resource_type, resource_types,
    schema_document, schemas, service_provider_config,
};
use muster_storage::Scope as TenantScope;
use serde_json::Value;

use super::{
    Team, USERS_MAX, User,
    answer::{Asker, tag},
    bulk,
    list::{self, Item, Listed},
    refusal::{Refused, scim_error},
    store::{self, Request},
    teams, users,
};
use crate::{
    App,
    access::{
        Author, Permit,
        limits::{self, Reached},
        problem::{FORBIDDEN, Problem, RATE_LIMITED},
        scope::ScimWrite,
    },
    audit::{self, LoggedTx},
    clock,
};

/// Where SCIM is mounted.
const PREFIX: &str = "/scim/v2";

/// Every route, under its prefix.
pub fn router() -> Router<App> {
    let scim = Router::new()
        .route("/ServiceProviderConfig", get(config))
        .route("/ResourceTypes", get(every_resource_type))
        .route("/ResourceTypes/{id}", get(one_resource_type))
        .route("/Schemas", get(every_schema))
        .route("/Schemas/{id}", get(one_schema))
        .route("/Users", get(list_users).post(create_user))
        .route("/Users/.search", post(search_users))
        .route(
            "/Users/{id}",
            get(get_user).put(put_user).patch(patch_user).delete(delete_user),
        )
        .route("/Groups", get(list_groups).post(create_group))
        .route("/Groups/.search", post(search_groups))
        .route(
            "/Groups/{id}",
            get(get_group)
                .put(put_group)
                .patch(patch_group)
                .delete(delete_group),
        )
        .route("/.search", post(search_all))
        .route("/Bulk", post(bulk))
        .route("/Me", any(me))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX));
    Router::new().nest(PREFIX, scim)
}

/// An identity provider that was let in: the permit of its service account.
#[derive(Debug)]
pub struct Client {
    permit: Permit<ScimWrite>,
    pub asker: Asker,
}

impl Client {
    pub fn tenant(&self) -> TenantId {
        self.permit.tenant()
    }

    fn author(&self) -> &Author {
        self.permit.author()
    }
}

impl FromRequestParts<App> for Client {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refused> {
        let permit = Permit::<ScimWrite>::from_request_parts(parts, app).await?;
        // A person's token is none of an identity provider, whatever the person may do.
        let connector = ClientId::from_str(&permit.author().actor.id)
            .map_err(|_| FORBIDDEN.detail("SCIM is for service accounts of identity providers."))?;
        if let Err(seconds) = app.directory.limit.take(connector, clock::uptime()) {
            let refused = RATE_LIMITED.detail("The identity provider sends more requests than it may.");
            return Err(refused.retry_after(seconds).into());
        }
        let base = base(app);
        Ok(Client {
            permit,
            asker: Asker { connector, base },
        })
    }
}

fn base(app: &App) -> String {
    format!("{}{PREFIX}", app.settings.admin_url)
}

/// An answer in SCIM's media type.
fn said(status: StatusCode, body: Value) -> Response {
    let mut response = (status, Json(body)).into_response();
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    response
}

fn put_header(response: &mut Response, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        response.headers_mut().insert(name, value);
    }
}

async fn not_found() -> Refused {
    ScimError::new(404, "There is nothing at this address.").into()
}

async fn method_not_allowed() -> Refused {
    ScimError::new(405, "The address takes another method.").into()
}

/// A service account is no user (RFC 7644, section 3.11).
async fn me(_: Client) -> Refused {
    ScimError::new(501, "A service account is no user, so there is no /Me.").into()
}

async fn config(State(app): State<App>) -> Response {
    let results_max = usize::try_from(USERS_MAX).unwrap_or(usize::MAX);
    // The page that says how a provider is connected.
    let documentation = format!("{}/users", app.settings.admin_url);
    let base = base(&app);
    let at = Documents {
        base: &base,
        documentation: &documentation,
    };
    said(
        StatusCode::OK,
        service_provider_config(at, Features { results_max }),
    )
}

fn documents(base: &str) -> Documents<'_> {
    Documents {
        base,
        documentation: base,
    }
}

async fn every_resource_type(State(app): State<App>) -> Response {
    said(StatusCode::OK, resource_types(documents(&base(&app))))
}

async fn one_resource_type(State(app): State<App>, Path(name): Path<String>) -> Result<Response, Refused> {
    let found = resource_type(documents(&base(&app)), &name);
    found
        .map(|found| said(StatusCode::OK, found))
        .ok_or_else(unknown_document)
}

async fn every_schema(State(app): State<App>) -> Response {
    said(StatusCode::OK, schemas(documents(&base(&app))))
}

async fn one_schema(State(app): State<App>, Path(urn): Path<String>) -> Result<Response, Refused> {
    let found = schema_document(documents(&base(&app)), &urn);
    found
        .map(|found| said(StatusCode::OK, found))
        .ok_or_else(unknown_document)
}

fn unknown_document() -> Refused {
    ScimError::new(404, "There is no such document.").into()
}

/// Serves a request, and keeps it where it was refused.
async fn serve(
    app: &App,
    client: &Client,
    (method, target): (Method, String),
    work: impl Future<Output = Result<Response, Problem>>,
) -> Response {
    let turn = app.directory.requests.acquire().await;
    let outcome = match turn {
        Ok(_turn) => work.await,
        Err(closed) => Err(Problem::internal(closed)),
    };
    let problem = match outcome {
        Ok(response) => return response,
        Err(problem) => problem,
    };
    let error = scim_error(&problem);
    // A question for what is not there is how providers look before they make it.
    if !(method == Method::GET && error.status == 404) {
        keep_refused(app, client, method.as_str(), &target, &error).await;
    }
    Refused(problem).into_response()
}

/// Keeps a refused request for people to see.
pub(super) async fn keep_refused(app: &App, client: &Client, method: &str, target: &str, error: &ScimError) {
    let (tenant, now) = (client.tenant(), app.clock.now());
    let request = Request {
        id: ScimRequestId::generate(now, clock::random()),
        connector: client.asker.connector,
        method: method.to_owned(),
        target: target.to_owned(),
        status: error.status,
        scim_type: error.kind.map(|kind| kind.as_str().to_owned()),
        detail: Some(error.detail.clone()),
        at: now,
    };
    let kept = audit::housekeeping(app, TenantScope::Tenant(tenant.uuid()), move |tx| {
        store::insert_request(tx, tenant, &request)?;
        Ok(())
    });
    if let Err(problem) = kept.await {
        tracing::warn!(%problem, "a refused SCIM request was not kept");
    }
}

/// What a change made.
pub struct Done {
    pub item: Item,
    pub location: String,
    pub version: i64,
}

impl Done {
    fn user(asker: &Asker, user: User) -> Done {
        Done {
            location: asker.user_location(&user),
            version: user.version,
            item: Item::User(Box::new(user)),
        }
    }

    fn team(asker: &Asker, team: Team) -> Done {
        Done {
            location: asker.team_location(&team),
            version: team.version,
            item: Item::Team(team),
        }
    }
}

/// Commits a change with its log entry, and keeps the request.
async fn change<T: Send + 'static>(
    app: &App,
    client: &Client,
    (method, status): (&'static str, u16),
    mut work: impl FnMut(&mut LoggedTx<'_>) -> Result<(T, String), Problem> + Send + 'static,
) -> Result<T, Problem> {
    let connector = client.asker.connector;
    let made = audit::commit(app, client.author(), move |tx| {
        let (made, target) = work(tx)?;
        let (tenant, at) = (tx.tenant(), tx.at());
        let request = Request {
            id: ScimRequestId::generate(at, clock::random()),
            connector,
            method: method.to_owned(),
            target,
            status,
            scim_type: None,
            detail: None,
            at,
        };
        store::insert_request(tx, tenant, &request)?;
        // It only remembers the request.
        tx.excuse(1);
        Ok(made)
    })
    .await?;
    app.nudges.owners.notify_one();
    Ok(made)
}

/// Makes a resource of what was sent.
pub async fn create(
    app: &App,
    client: &Client,
    kind: &'static ResourceType,
    mut sent: Value,
) -> Result<Done, Problem> {
    let asker = client.asker.clone();
    if kind.name == USERS.name {
        let resource = accept(kind, sent)?;
        let user = change(app, client, ("POST", 201), move |tx| {
            let user = users::create(tx, resource.clone())?;
            let target = format!("Users/{}", user.id);
            Ok((user, target))
        })
        .await;
        if let Err(problem) = &user
            && problem.detail == users::ALL_ALLOWED
        {
            limits::note_reached(app, client.tenant(), Reached::People).await;
        }
        return Ok(Done::user(&asker, user?));
    }
    let members = members_of(&mut sent)?;
    let resource = accept(kind, sent)?;
    let team = change(app, client, ("POST", 201), move |tx| {
        let team = teams::create(tx, &resource, members.clone())?;
        let target = format!("Groups/{}", team.id);
        Ok((team, target))
    });
    Ok(Done::team(&asker, team.await?))
}

/// Replaces a resource by what was sent.
pub async fn replace(
    app: &App,
    client: &Client,
    kind: &'static ResourceType,
    (id, expected): (&str, Option<String>),
    mut sent: Value,
) -> Result<Done, Problem> {
    let asker = client.asker.clone();
    if kind.name == USERS.name {
        let id = UserId::from_str(id).map_err(|_| users::unknown())?;
        let resource = accept(kind, sent)?;
        let user = change(app, client, ("PUT", 200), move |tx| {
            let user = users::replace(tx, id, expected.as_deref(), resource.clone())?;
            Ok((user, format!("Users/{id}")))
        });
        return Ok(Done::user(&asker, user.await?));
    }
    let id = UserGroupId::from_str(id).map_err(|_| teams::unknown())?;
    let members = members_of(&mut sent)?;
    let steps = muster_scim::GroupStep::of_whole(&accept(kind, sent)?, members);
    let team = change(app, client, ("PUT", 200), move |tx| {
        let team = teams::change(tx, id, expected.as_deref(), steps.clone())?;
        Ok((team, format!("Groups/{id}")))
    });
    Ok(Done::team(&asker, team.await?))
}

/// Changes a resource in part.
pub async fn patch(
    app: &App,
    client: &Client,
    kind: &'static ResourceType,
    (id, expected): (&str, Option<String>),
    sent: Value,
) -> Result<Done, Problem> {
    let asker = client.asker.clone();
    if kind.name == USERS.name {
        let id = UserId::from_str(id).map_err(|_| users::unknown())?;
        let ops = operations(sent)?;
        let user = change(app, client, ("PATCH", 200), move |tx| {
            let user = users::patch(tx, id, expected.as_deref(), ops.clone())?;
            Ok((user, format!("Users/{id}")))
        });
        return Ok(Done::user(&asker, user.await?));
    }
    let id = UserGroupId::from_str(id).map_err(|_| teams::unknown())?;
    let steps = group_steps(operations(sent)?)?;
    let team = change(app, client, ("PATCH", 204), move |tx| {
        let team = teams::change(tx, id, expected.as_deref(), steps.clone())?;
        Ok((team, format!("Groups/{id}")))
    });
    Ok(Done::team(&asker, team.await?))
}

/// Deletes a resource.
pub async fn delete(
    app: &App,
    client: &Client,
    kind: &'static ResourceType,
    (id, expected): (&str, Option<String>),
) -> Result<(), Problem> {
    if kind.name == USERS.name {
        let id = UserId::from_str(id).map_err(|_| users::unknown())?;
        return change(app, client, ("DELETE", 204), move |tx| {
            users::delete(tx, id, expected.as_deref())?;
            Ok(((), format!("Users/{id}")))
        })
        .await;
    }
    let id = UserGroupId::from_str(id).map_err(|_| teams::unknown())?;
    change(app, client, ("DELETE", 204), move |tx| {
        teams::delete(tx, id, expected.as_deref())?;
        Ok(((), format!("Groups/{id}")))
    })
    .await
}

/// A changed or found resource as an answer, with its version and address.
async fn shown(
    app: &App,
    client: &Client,
    status: StatusCode,
    done: Done,
    projection: Projection,
) -> Result<Response, Problem> {
    let (tenant, asker, item) = (client.tenant(), client.asker.clone(), done.item);
    let resource = app
        .db
        .read(TenantScope::Tenant(tenant.uuid()), move |tx| {
            list::show(tx, tenant, &asker, &item, &projection)
        })
        .await?;
    let mut response = said(status, Value::Object(resource));
    put_header(&mut response, header::ETAG, &tag(done.version));
    put_header(&mut response, header::LOCATION, &done.location);
    Ok(response)
}

type Pairs = Result<UrlQuery<Vec<(String, String)>>, QueryRejection>;
type Body = Result<Bytes, BytesRejection>;

fn query_of(pairs: Pairs) -> Result<Query, ScimError> {
    let UrlQuery(pairs) =
        pairs.map_err(|_| ScimError::new(400, "The query of the address cannot be read."))?;
    Query::of_url(&pairs)
}

fn read_body(headers: &HeaderMap, body: Body) -> Result<Value, ScimError> {
    let media_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = media_type
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    if !essence.eq_ignore_ascii_case(MEDIA_TYPE) && !essence.eq_ignore_ascii_case("application/json") {
        return Err(ScimError::new(
            415,
            "Send JSON with the header Content-Type: application/scim+json.",
        ));
    }
    let body = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            ScimError::new(413, "The body is larger than 4 MiB. Send less at a time.")
        }
        _ => ScimError::new(400, "The body ended early."),
    })?;
    parse(&body)
}

/// The version that the client saw, where it says so.
fn if_match(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::IF_MATCH)?;
    Some(value.to_str().unwrap_or_default().to_owned())
}

fn listed(query: &Query, listed: Listed) -> Response {
    let start_index = query.cursor.is_none().then_some(query.start_index);
    let body = list_response(listed.resources, listed.total, start_index, listed.next_cursor);
    said(StatusCode::OK, body)
}

macro_rules! endpoints {
    ($kind:expr, $path:literal: $list:ident $search:ident $create:ident $get:ident $put:ident $patch:ident $delete:ident) => {
        async fn $list(client: Client, State(app): State<App>, pairs: Pairs) -> Response {
            serve(&app, &client, (Method::GET, $path.to_owned()), async {
                let query = query_of(pairs)?;
                let found = list::list(&app, client.tenant(), &client.asker, $kind, query.clone()).await?;
                Ok(listed(&query, found))
            })
            .await
        }

        async fn $search(client: Client, State(app): State<App>, headers: HeaderMap, body: Body) -> Response {
            serve(
                &app,
                &client,
                (Method::POST, concat!($path, "/.search").to_owned()),
                async {
                    let query = Query::of_search(read_body(&headers, body)?)?;
                    let found =
                        list::list(&app, client.tenant(), &client.asker, $kind, query.clone()).await?;
                    Ok(listed(&query, found))
                },
            )
            .await
        }

        async fn $create(
            client: Client,
            State(app): State<App>,
            headers: HeaderMap,
            pairs: Pairs,
            body: Body,
        ) -> Response {
            serve(&app, &client, (Method::POST, $path.to_owned()), async {
                let query = query_of(pairs)?;
                let done = create(&app, &client, $kind, read_body(&headers, body)?).await?;
                shown(&app, &client, StatusCode::CREATED, done, query.projection).await
            })
            .await
        }

        async fn $get(
            client: Client,
            State(app): State<App>,
            Path(id): Path<String>,
            headers: HeaderMap,
            pairs: Pairs,
        ) -> Response {
            serve(&app, &client, (Method::GET, target_of($path, &id)), async {
                let query = query_of(pairs)?;
                get_one(&app, &client, $kind, &id, &headers, query.projection).await
            })
            .await
        }

        async fn $put(
            client: Client,
            State(app): State<App>,
            Path(id): Path<String>,
            headers: HeaderMap,
            pairs: Pairs,
            body: Body,
        ) -> Response {
            serve(&app, &client, (Method::PUT, target_of($path, &id)), async {
                let query = query_of(pairs)?;
                let sent = read_body(&headers, body)?;
                let done = replace(&app, &client, $kind, (&id, if_match(&headers)), sent).await?;
                shown(&app, &client, StatusCode::OK, done, query.projection).await
            })
            .await
        }

        async fn $patch(
            client: Client,
            State(app): State<App>,
            Path(id): Path<String>,
            headers: HeaderMap,
            pairs: Pairs,
            body: Body,
        ) -> Response {
            serve(
                &app,
                &client,
                (Method::PATCH, target_of($path, &id)),
                async {
                    let (is_asked, query) = (
                        pairs.as_ref().is_ok_and(|pairs| names_attributes(pairs)),
                        query_of(pairs)?,
                    );
                    let sent = read_body(&headers, body)?;
                    let done = patch(&app, &client, $kind, (&id, if_match(&headers)), sent).await?;
                    // A group may be as large as the tenant: it is answered to who asks for it.
                    if $kind.name == GROUPS.name && !is_asked {
                        let mut response = StatusCode::NO_CONTENT.into_response();
                        put_header(&mut response, header::ETAG, &tag(done.version));
                        return Ok(response);
                    }
                    shown(&app, &client, StatusCode::OK, done, query.projection).await
                },
            )
            .await
        }

        async fn $delete(
            client: Client,
            State(app): State<App>,
            Path(id): Path<String>,
            headers: HeaderMap,
        ) -> Response {
            serve(
                &app,
                &client,
                (Method::DELETE, target_of($path, &id)),
                async {
                    delete(&app, &client, $kind, (&id, if_match(&headers))).await?;
                    Ok(StatusCode::NO_CONTENT.into_response())
                },
            )
            .await
        }
    };
}

endpoints!(&USERS, "Users": list_users search_users create_user get_user put_user patch_user delete_user);
endpoints!(&GROUPS, "Groups": list_groups search_groups create_group get_group put_group patch_group delete_group);

fn names_attributes(pairs: &[(String, String)]) -> bool {
    pairs.iter().any(|(name, _)| {
        name.eq_ignore_ascii_case("attributes") || name.eq_ignore_ascii_case("excludedAttributes")
    })
}

/// The target as it is kept: an id that is none is not.
fn target_of(path: &str, id: &str) -> String {
    let is_id = UserId::from_str(id).is_ok() || UserGroupId::from_str(id).is_ok();
    format!("{path}/{}", if is_id { id } else { "?" })
}

async fn get_one(
    app: &App,
    client: &Client,
    kind: &'static ResourceType,
    id: &str,
    headers: &HeaderMap,
    projection: Projection,
) -> Result<Response, Problem> {
    let tenant = client.tenant();
    let scope = TenantScope::Tenant(tenant.uuid());
    let done = if kind.name == USERS.name {
        let id = UserId::from_str(id).map_err(|_| users::unknown())?;
        let found = app
            .db
            .read(scope, move |tx| Ok::<_, Problem>(store::user(tx, tenant, id)?))
            .await?;
        Done::user(&client.asker, found.ok_or_else(users::unknown)?)
    } else {
        let id = UserGroupId::from_str(id).map_err(|_| teams::unknown())?;
        let found = app
            .db
            .read(scope, move |tx| Ok::<_, Problem>(teams::team(tx, tenant, id)?))
            .await?;
        Done::team(&client.asker, found.ok_or_else(teams::unknown)?)
    };
    let version = tag(done.version);
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|one| one.trim() == version)) {
        let mut response = StatusCode::NOT_MODIFIED.into_response();
        put_header(&mut response, header::ETAG, &version);
        return Ok(response);
    }
    shown(app, client, StatusCode::OK, done, projection).await
}

async fn search_all(client: Client, State(app): State<App>, headers: HeaderMap, body: Body) -> Response {
    serve(&app, &client, (Method::POST, ".search".to_owned()), async {
        let query = Query::of_search(read_body(&headers, body)?)?;
        let found = list::list_both(&app, client.tenant(), &client.asker, query.clone()).await?;
        Ok(listed(&query, found))
    })
    .await
}

async fn bulk(client: Client, State(app): State<App>, headers: HeaderMap, body: Body) -> Response {
    serve(&app, &client, (Method::POST, "Bulk".to_owned()), async {
        let length = body.as_ref().map_or(0, Bytes::len);
        if length > muster_scim::BULK_BYTES_MAX {
            return Err(ScimError::new(413, "A bulk request has at most 1 MiB.").into());
        }
        let sent = read_body(&headers, body)?;
        let answer = bulk::run(&app, &client, sent).await?;
        Ok(said(StatusCode::OK, answer))
    })
    .await
}
