//! People: who the identity providers say there are, their groups and devices, and what the providers did lately.

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::{problem::Problem, scope::DirectoryRead},
    directory::{self, DirectoryView, PersonFilter, RequestView},
};
use muster_model::{ScimRequestId, Timestamp, UserGroupId, UserId};
use serde::Deserialize;

use super::ROWS;
use crate::{
    session::{Ask, At, Session, encode, parse},
    shell::{Refusal, Section, Shell, page},
    ui::{self, Badge, Tone, When},
};

pub fn router() -> Router<App> {
    Router::new()
        .route("/users", get(list))
        .route("/users/groups", get(groups))
        .route("/users/groups/{id}", get(group))
        .route("/users/sync", get(sync))
        .route("/users/{id}", get(show))
}

fn state(is_active: bool) -> Badge {
    if is_active {
        Badge::new("active", Tone::Good)
    } else {
        Badge::new("inactive", Tone::Off)
    }
}

/// A person as a row.
struct Row {
    href: String,
    user_name: String,
    display_name: String,
    department: String,
    state: Badge,
    changed: Option<When>,
}

/// A connected identity provider.
struct Provider {
    name: String,
    state: Badge,
    used: Option<When>,
    expires: Option<When>,
}

impl Provider {
    /// By the token that ends last.
    fn of(view: &directory::ConnectorView, now: Timestamp) -> Option<Provider> {
        let live = view.tokens.iter().filter(|token| token.state != "revoked");
        let newest = live.max_by(|one, other| one.expires_at.cmp(&other.expires_at))?;
        let used = view
            .tokens
            .iter()
            .filter_map(|token| token.last_used_at.as_deref())
            .max();
        Some(Provider {
            name: view.name.clone(),
            state: match (newest.state, used) {
                ("expired", _) => Badge::new("token expired", Tone::Bad),
                (_, None) => Badge::new("not heard of yet", Tone::Wait),
                (_, Some(_)) => Badge::new("connected", Tone::Good),
            },
            used: used.and_then(|at| When::read(at, now)),
            expires: When::read(&newest.expires_at, now),
        })
    }
}

#[derive(Debug, Default, Deserialize)]
struct Search {
    #[serde(default)]
    q: String,
    #[serde(default)]
    state: String,
    after: Option<String>,
}

#[derive(Template)]
#[template(path = "users.html")]
struct UsersPage {
    shell: Shell,
    directory: DirectoryView,
    providers: Vec<Provider>,
    asked: Vec<Asked>,
    rows: Vec<Row>,
    search: Search,
    next: Option<String>,
}

impl UsersPage {
    fn is_unconnected(&self) -> bool {
        self.directory.users == 0 && self.providers.is_empty()
    }

    fn is_searched(&self) -> bool {
        !self.search.q.is_empty() || !self.search.state.is_empty()
    }
}

/// Refused requests that the first page shows.
const REFUSED_SHOWN: usize = 5;

async fn list(
    State(app): State<App>,
    session: Session,
    Ask(search): Ask<Search>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<DirectoryRead>()?;
    let (tenant, now, url) = (session.tenant(), app.clock.now(), app.settings.admin_url.clone());
    let after = search.after.as_deref().map(parse::<UserId>).transpose()?;
    let filter = PersonFilter {
        text: search.q.clone(),
        state: search.state.clone(),
    };
    let (overview, people, refused) = app
        .db
        .read(permit.storage(), move |tx| {
            Ok::<_, Problem>((
                directory::overview(tx, tenant, &url, now)?,
                directory::people(tx, tenant, &filter, after, ROWS)?,
                directory::requests(tx, tenant, true, None, REFUSED_SHOWN)?,
            ))
        })
        .await?;
    let next = people.next_cursor.map(|cursor| {
        format!(
            "/users?q={}&state={}&after={cursor}",
            encode(&search.q),
            encode(&search.state)
        )
    });
    let rows = people.items.into_iter().map(|person| Row {
        href: format!("/users/{}", person.id),
        state: state(person.active),
        changed: When::read(&person.updated_at, now),
        user_name: person.user_name,
        display_name: person.display_name.unwrap_or_default(),
        department: person.department.unwrap_or_default(),
    });
    page(&UsersPage {
        shell: session.shell("Users", Section::Users),
        providers: overview
            .connectors
            .iter()
            .filter_map(|view| Provider::of(view, now))
            .collect(),
        directory: overview,
        asked: refused
            .items
            .into_iter()
            .map(|view| Asked::of(view, now))
            .collect(),
        rows: rows.collect(),
        search,
        next,
    })
}

/// A device of a person.
struct Device {
    href: String,
    name: String,
    platform: String,
    state: String,
    compliance: String,
}

/// A group of a person.
struct Group {
    href: String,
    name: String,
    is_direct: bool,
}

#[derive(Template)]
#[template(path = "user.html")]
struct UserPage {
    shell: Shell,
    user_name: String,
    display_name: String,
    department: String,
    state: Badge,
    is_active: bool,
    connector: String,
    external_id: String,
    created: Option<When>,
    changed: Option<When>,
    groups: Vec<Group>,
    devices: Vec<Device>,
    log_href: String,
    resource: String,
}

async fn show(State(app): State<App>, session: Session, At(id): At<String>) -> Result<Response, Refusal> {
    let permit = session.permit::<DirectoryRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let found = app
        .db
        .read(permit.storage(), move |tx| directory::person(tx, tenant, &id))
        .await?;
    let person = found.person;
    let groups = found.groups.into_iter().map(|group| Group {
        href: format!("/users/groups/{}", group.id),
        name: group.display_name,
        is_direct: group.direct,
    });
    let devices = found.devices.into_iter().map(|device| Device {
        href: format!("/devices/{}", device.id),
        name: device.name,
        platform: ui::platform(device.platform).to_owned(),
        state: device.state.to_owned(),
        compliance: device.compliance.to_owned(),
    });
    page(&UserPage {
        shell: session.shell(person.user_name.clone(), Section::Users),
        state: state(person.active),
        is_active: person.active,
        display_name: person.display_name.unwrap_or_default(),
        department: person.department.unwrap_or_default(),
        connector: found.connector_name,
        external_id: found.external_id.unwrap_or_default(),
        created: When::read(&person.created_at, now),
        changed: When::read(&person.updated_at, now),
        groups: groups.collect(),
        devices: devices.collect(),
        log_href: format!("/log?object={}", person.id),
        resource: serde_json::to_string_pretty(&found.resource).unwrap_or_default(),
        user_name: person.user_name,
    })
}

/// A group of people as a row.
struct Team {
    href: String,
    name: String,
    members: String,
    changed: Option<When>,
}

#[derive(Debug, Default, Deserialize)]
struct Place {
    after: Option<String>,
}

#[derive(Template)]
#[template(path = "user_groups.html")]
struct TeamsPage {
    shell: Shell,
    rows: Vec<Team>,
    next: Option<String>,
}

async fn groups(
    State(app): State<App>,
    session: Session,
    Ask(place): Ask<Place>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<DirectoryRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let after = place.after.as_deref().map(parse::<UserGroupId>).transpose()?;
    let found = app
        .db
        .read(permit.storage(), move |tx| {
            directory::teams_page(tx, tenant, after, ROWS)
        })
        .await?;
    let rows = found.items.into_iter().map(|team| Team {
        href: format!("/users/groups/{}", team.id),
        members: ui::count(team.members),
        changed: When::read(&team.updated_at, now),
        name: team.display_name,
    });
    page(&TeamsPage {
        shell: session.shell("Groups of people", Section::Users),
        rows: rows.collect(),
        next: found
            .next_cursor
            .map(|cursor| format!("/users/groups?after={cursor}")),
    })
}

/// A member as a row.
struct Member {
    href: String,
    name: String,
}

#[derive(Template)]
#[template(path = "user_group.html")]
struct TeamPage {
    shell: Shell,
    name: String,
    members: String,
    rows: Vec<Member>,
    next: Option<String>,
    log_href: String,
}

async fn group(
    State(app): State<App>,
    session: Session,
    At(id): At<UserGroupId>,
    Ask(place): Ask<Place>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<DirectoryRead>()?;
    let tenant = session.tenant();
    let (team, members) = app
        .db
        .read(permit.storage(), move |tx| {
            Ok::<_, Problem>((
                directory::team(tx, tenant, id)?,
                directory::team_members(tx, tenant, id, place.after.as_deref(), ROWS)?,
            ))
        })
        .await?;
    let rows = members.items.into_iter().map(|member| Member {
        href: match member.id.starts_with(UserGroupId::PREFIX) {
            true => format!("/users/groups/{}", member.id),
            false => format!("/users/{}", member.id),
        },
        name: member.display_name.unwrap_or(member.id),
    });
    page(&TeamPage {
        shell: session.shell(team.display_name.clone(), Section::Users),
        name: team.display_name,
        members: ui::count(team.members),
        rows: rows.collect(),
        next: members
            .next_cursor
            .map(|cursor| format!("/users/groups/{id}?after={cursor}")),
        log_href: format!("/log?object={id}"),
    })
}

/// A request of an identity provider as a row.
struct Asked {
    at: Option<When>,
    connector: String,
    request: String,
    href: Option<String>,
    state: Badge,
    status: u16,
    why: String,
}

impl Asked {
    fn of(view: RequestView, now: Timestamp) -> Asked {
        let is_refused = view.status >= 400;
        let id = view.target.rsplit('/').next().unwrap_or_default();
        let href = match (id.parse::<UserId>(), id.parse::<UserGroupId>()) {
            (Ok(id), _) => Some(format!("/users/{id}")),
            (_, Ok(id)) => Some(format!("/users/groups/{id}")),
            (Err(_), Err(_)) => None,
        };
        Asked {
            at: When::read(&view.at, now),
            state: if is_refused {
                Badge::new("refused", Tone::Bad)
            } else {
                Badge::new("done", Tone::Good)
            },
            status: view.status,
            href: href.filter(|_| view.method != "DELETE"),
            request: format!("{} {}", view.method, view.target),
            connector: view.connector,
            why: view.detail.unwrap_or_default(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct Which {
    #[serde(default)]
    refused: String,
    before: Option<String>,
}

#[derive(Template)]
#[template(path = "user_sync.html")]
struct SyncPage {
    shell: Shell,
    asked: Vec<Asked>,
    is_refused_only: bool,
    older: Option<String>,
}

async fn sync(State(app): State<App>, session: Session, Ask(which): Ask<Which>) -> Result<Response, Refusal> {
    let permit = session.permit::<DirectoryRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let is_refused_only = which.refused == "1";
    let before = which.before.as_deref().map(parse::<ScimRequestId>).transpose()?;
    let found = app
        .db
        .read(permit.storage(), move |tx| {
            directory::requests(tx, tenant, is_refused_only, before, ROWS)
        })
        .await?;
    let refused = if is_refused_only { "1" } else { "" };
    page(&SyncPage {
        shell: session.shell("Sync log", Section::Users),
        older: found
            .next_cursor
            .map(|cursor| format!("/users/sync?refused={refused}&before={cursor}")),
        asked: found.items.into_iter().map(|view| Asked::of(view, now)).collect(),
        is_refused_only,
    })
}
