//! Lists of people and groups: filtered, sorted, page by page (RFC 7644, section 3.4.2; RFC 9865).
//!
//! What an index answers is asked of it; everything else looks through everybody in short read transactions, a few such
//! questions at a time.

use muster_model::{TenantId, UserGroupId, UserId};
use muster_scim::{
    Filter, GROUPS, Mentions, Order, Projection, Query, Resource, ResourceType, ScimError, ScimType, Target,
    USERS, compare_by, matches, name_key, target,
};
use muster_storage::{Scope, Tx};
use serde_json::Value;
use uuid::Uuid;

use super::{OWNER_GROUPS_MAX, Team, User, answer, answer::Asker, store, teams};
use crate::{App, access::problem::Problem};

/// Resources that one read transaction looks at.
const PAGE: usize = 500;
/// Members of groups that one answer lists: a page of large groups is a shorter page.
const MEMBERS_SHOWN_MAX: i64 = 100_000;
/// Resources with the same external id or name that are looked at.
const ALIKE_MAX: usize = 1000;

/// A person or a group.
#[derive(Debug, Clone)]
pub enum Item {
    User(Box<User>),
    Team(Team),
}

impl Item {
    fn id(&self) -> Uuid {
        match self {
            Item::User(user) => user.id.uuid(),
            Item::Team(team) => team.id.uuid(),
        }
    }

    fn text(&self) -> String {
        match self {
            Item::User(user) => user.id.to_string(),
            Item::Team(team) => team.id.to_string(),
        }
    }
}

/// A page of a list.
#[derive(Debug, Default)]
pub struct Listed {
    pub resources: Vec<Value>,
    /// Unknown where a cursor goes on in a filtered list.
    pub total: Option<usize>,
    pub next_cursor: Option<String>,
}

/// A question as one resource type reads it.
struct Question {
    kind: &'static ResourceType,
    filter: Option<Filter>,
    sort: Option<Target>,
    mentions: Mentions,
}

impl Question {
    fn read(kind: &'static ResourceType, query: &Query) -> Result<Question, ScimError> {
        let filter = query
            .filter
            .as_deref()
            .map(|text| Filter::parse(kind, text))
            .transpose()?;
        let listed = if kind.name == USERS.name {
            "groups"
        } else {
            "members"
        };
        let mentions = filter
            .as_ref()
            .map(|filter| filter.mentions(listed))
            .unwrap_or_default();
        if mentions.asks_more {
            let detail = format!("The filter cannot be answered: {listed} is compared by value and eq only.");
            return Err(ScimError::of(ScimType::InvalidFilter, detail));
        }
        Ok(Question {
            kind,
            // What does not exist orders nothing.
            sort: query.sort_by.as_deref().and_then(|name| target(kind, name)),
            filter,
            mentions,
        })
    }

    fn is_of_users(&self) -> bool {
        self.kind.name == USERS.name
    }
}

/// What was found so far.
#[derive(Default)]
struct Found {
    total: usize,
    kept: Vec<Item>,
    keys: Vec<(Option<String>, Uuid)>,
}

/// A list of one resource type.
pub async fn list(
    app: &App,
    tenant: TenantId,
    asker: &Asker,
    kind: &'static ResourceType,
    query: Query,
) -> Result<Listed, Problem> {
    let question = Question::read(kind, &query)?;
    let after = match query.cursor.as_deref().filter(|cursor| !cursor.is_empty()) {
        Some(cursor) => read_cursor(kind, cursor)?,
        None => Uuid::nil(),
    };
    let is_plain = question.filter.is_none() && question.sort.is_none();
    let found = match is_plain && question.is_of_users() && query.cursor.is_none() {
        true => straight(app, tenant, &query).await?,
        false => look(app, tenant, asker, question, &query, after).await?,
    };
    finish(app, tenant, asker, query, found).await
}

/// Lists of both types as one: first people, then groups (a search at the root).
pub async fn list_both(app: &App, tenant: TenantId, asker: &Asker, query: Query) -> Result<Listed, Problem> {
    if query.cursor.is_some() {
        return Err(ScimError::of(
            ScimType::InvalidCursor,
            "A search of everything goes by startIndex.",
        )
        .into());
    }
    let mut both = Found::default();
    let (mut refused, mut last) = (0, None);
    for kind in [&USERS, &GROUPS] {
        // A filter may name what only one of them has.
        let question = match Question::read(kind, &query) {
            Ok(question) => question,
            Err(error) => {
                (refused, last) = (refused + 1, Some(error));
                continue;
            }
        };
        let mut part = query.clone();
        part.start_index = query.start_index.saturating_sub(both.total).max(1);
        part.count = query.count - both.kept.len();
        let mut found = look(app, tenant, asker, question, &part, Uuid::nil()).await?;
        if found.keys.is_empty() {
            both.kept.append(&mut found.kept);
        } else {
            both.kept.extend(in_order(app, tenant, &part, found.keys).await?);
        }
        both.total += found.total;
    }
    if let (2, Some(error)) = (refused, last) {
        return Err(error.into());
    }
    finish(app, tenant, asker, query, both).await
}

fn read_cursor(kind: &'static ResourceType, text: &str) -> Result<Uuid, ScimError> {
    let wrong = || ScimError::of(ScimType::InvalidCursor, "Send nextCursor of the page before.");
    match kind.name == USERS.name {
        true => text.parse::<UserId>().map(UserId::uuid).map_err(|_| wrong()),
        false => text
            .parse::<UserGroupId>()
            .map(UserGroupId::uuid)
            .map_err(|_| wrong()),
    }
}

/// A page of everybody, by its place.
async fn straight(app: &App, tenant: TenantId, query: &Query) -> Result<Found, Problem> {
    let (offset, count) = (query.start_index - 1, query.count);
    app.db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let total = usize::try_from(store::counted(tx, tenant)?.users).unwrap_or_default();
            let kept = match count > 0 && offset < total {
                true => store::users_at(tx, tenant, offset, count)?,
                false => Vec::new(),
            };
            let kept = kept.into_iter().map(|user| Item::User(Box::new(user))).collect();
            Ok::<_, Problem>(Found {
                total,
                kept,
                keys: Vec::new(),
            })
        })
        .await
}

/// Looks through what an index narrows down to, or through everybody.
async fn look(
    app: &App,
    tenant: TenantId,
    asker: &Asker,
    question: Question,
    query: &Query,
    after: Uuid,
) -> Result<Found, Problem> {
    let scope = Scope::Tenant(tenant.uuid());
    let question = std::sync::Arc::new(question);
    let (mut found, mut after, is_by_cursor) = (Found::default(), after, query.cursor.is_some());
    let narrowed = app
        .db
        .read(scope, {
            let (question, asker) = (question.clone(), asker.clone());
            move |tx| {
                let Some(items) = narrow(tx, tenant, &asker, &question)? else {
                    return Ok(None);
                };
                let mut items: Vec<Item> = items.into_iter().filter(|item| item.id() > after).collect();
                items.sort_by_key(Item::id);
                judge(tx, tenant, &asker, &question, items).map(Some)
            }
        })
        .await?;
    if let Some(judged) = narrowed {
        keep(&mut found, &question, query, judged);
        return Ok(found);
    }
    let _turn = app.directory.scans.acquire().await.map_err(Problem::internal)?;
    loop {
        let (question_here, asker) = (question.clone(), asker.clone());
        let (judged, last) = app
            .db
            .read(scope, move |tx| {
                let items = page(tx, tenant, &question_here, after)?;
                let last = items.last().filter(|_| items.len() == PAGE).map(Item::id);
                Ok::<_, Problem>((judge(tx, tenant, &asker, &question_here, items)?, last))
            })
            .await?;
        keep(&mut found, &question, query, judged);
        let has_enough = is_by_cursor && found.kept.len() > query.count;
        match last {
            Some(last) if !has_enough => after = last,
            _ => return Ok(found),
        }
    }
}

fn page(tx: &mut Tx, tenant: TenantId, question: &Question, after: Uuid) -> Result<Vec<Item>, Problem> {
    if question.is_of_users() {
        let users = store::users_after(tx, tenant, UserId::from_uuid(after), PAGE)?;
        return Ok(users.into_iter().map(|user| Item::User(Box::new(user))).collect());
    }
    let teams = teams::after(tx, tenant, UserGroupId::from_uuid(after), PAGE)?;
    Ok(teams.into_iter().map(Item::Team).collect())
}

/// The resources that an index finds for a condition which the filter requires; nothing where there is no such condition.
fn narrow(
    tx: &mut Tx,
    tenant: TenantId,
    asker: &Asker,
    question: &Question,
) -> Result<Option<Vec<Item>>, Problem> {
    let Some(filter) = &question.filter else {
        return Ok(None);
    };
    let user = |user: User| Item::User(Box::new(user));
    if question.is_of_users() {
        if let Some(id) = filter.equals("id") {
            let found = id
                .parse()
                .ok()
                .map(|id| store::user(tx, tenant, id))
                .transpose()?;
            return Ok(Some(found.flatten().map(user).into_iter().collect()));
        }
        if let Some(name) = filter.equals("userName") {
            let found = store::user_by_key(tx, tenant, &name_key(name))?;
            return Ok(Some(found.map(user).into_iter().collect()));
        }
        if let Some(id) = filter.equals("externalId") {
            let found = store::users_by_external(tx, tenant, asker.connector, id, ALIKE_MAX)?;
            return Ok(Some(found.into_iter().map(user).collect()));
        }
        if let Some(team) = filter.requires("groups") {
            let Ok(team) = team.parse::<UserGroupId>() else {
                return Ok(Some(Vec::new()));
            };
            let mut found = Vec::new();
            let mut after = Uuid::nil();
            loop {
                let page = teams::people_in(tx, tenant, team, after, PAGE)?;
                for id in &page {
                    found.extend(store::user(tx, tenant, *id)?.map(user));
                }
                match page.last().filter(|_| page.len() == PAGE) {
                    Some(last) => after = last.uuid(),
                    None => return Ok(Some(found)),
                }
            }
        }
        return Ok(None);
    }
    if let Some(id) = filter.equals("id") {
        let found = id
            .parse()
            .ok()
            .map(|id| teams::team(tx, tenant, id))
            .transpose()?;
        return Ok(Some(found.flatten().map(Item::Team).into_iter().collect()));
    }
    if let Some(name) = filter.equals("displayName") {
        let found = teams::by_name(tx, tenant, &name_key(name), ALIKE_MAX)?;
        return Ok(Some(found.into_iter().map(Item::Team).collect()));
    }
    if let Some(id) = filter.equals("externalId") {
        let found = teams::by_external(tx, tenant, asker.connector, id, ALIKE_MAX)?;
        return Ok(Some(found.into_iter().map(Item::Team).collect()));
    }
    if let Some(member) = filter.requires("members") {
        let Some((member, _)) = teams::parse_member(member) else {
            return Ok(Some(Vec::new()));
        };
        let found = teams::every_team_of(tx, tenant, member)?;
        return Ok(Some(found.into_iter().map(Item::Team).collect()));
    }
    Ok(None)
}

/// Those for which the filter is true, with what they are sorted by.
fn judge(
    tx: &mut Tx,
    tenant: TenantId,
    asker: &Asker,
    question: &Question,
    items: Vec<Item>,
) -> Result<Vec<(Item, Option<String>)>, Problem> {
    let mut judged = Vec::new();
    for item in items {
        let shown = with_mentioned(tx, tenant, asker, question, &item)?;
        if question
            .filter
            .as_ref()
            .is_none_or(|filter| matches(filter, &shown))
        {
            let key = question.sort.as_ref().and_then(|sort| compare_by(sort, &shown));
            judged.push((item, key));
        }
    }
    Ok(judged)
}

/// A resource with those of its references that the filter asks about.
fn with_mentioned(
    tx: &mut Tx,
    tenant: TenantId,
    asker: &Asker,
    question: &Question,
    item: &Item,
) -> Result<Resource, Problem> {
    let mut shown = match item {
        Item::User(user) => asker.user(user),
        Item::Team(team) => asker.team(team),
    };
    let mut listed = Vec::new();
    for id in &question.mentions.ids {
        let is_listed = match item {
            Item::User(user) => match id.parse::<UserGroupId>() {
                Ok(team) => teams::is_member(tx, tenant, team, user.id.uuid())?,
                Err(_) => false,
            },
            Item::Team(team) => match teams::parse_member(id) {
                Some((member, _)) => teams::is_member(tx, tenant, team.id, member)?,
                None => false,
            },
        };
        if is_listed {
            listed.push(serde_json::json!({"value": id}));
        }
    }
    if !listed.is_empty() {
        let name = if question.is_of_users() {
            "groups"
        } else {
            "members"
        };
        shown.insert(name.to_owned(), Value::Array(listed));
    }
    Ok(shown)
}

/// Counts what was found, and keeps what is on the page.
fn keep(found: &mut Found, question: &Question, query: &Query, judged: Vec<(Item, Option<String>)>) {
    for (item, key) in judged {
        found.total += 1;
        if question.sort.is_some() {
            found.keys.push((key, item.id()));
        } else if query.cursor.is_some() {
            // One more than the page holds says that there is another page.
            if found.kept.len() <= query.count {
                found.kept.push(item);
            }
        } else if found.total >= query.start_index && found.kept.len() < query.count {
            found.kept.push(item);
        }
    }
}

/// The page of a sorted list. What has no value comes last in ascending order (RFC 7644, section 3.4.2.3).
async fn in_order(
    app: &App,
    tenant: TenantId,
    query: &Query,
    mut keys: Vec<(Option<String>, Uuid)>,
) -> Result<Vec<Item>, Problem> {
    let rank = |(key, id): &(Option<String>, Uuid)| (key.is_none(), key.clone(), *id);
    keys.sort_by_cached_key(rank);
    if query.order == Order::Descending {
        keys.reverse();
    }
    let ids: Vec<Uuid> = keys
        .into_iter()
        .skip(query.start_index - 1)
        .take(query.count)
        .map(|(_, id)| id)
        .collect();
    app.db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let mut items = Vec::with_capacity(ids.len());
            for id in &ids {
                match store::user(tx, tenant, UserId::from_uuid(*id))? {
                    Some(user) => items.push(Item::User(Box::new(user))),
                    None => {
                        items.extend(teams::team(tx, tenant, UserGroupId::from_uuid(*id))?.map(Item::Team))
                    }
                }
            }
            Ok::<_, Problem>(items)
        })
        .await
}

async fn finish(
    app: &App,
    tenant: TenantId,
    asker: &Asker,
    query: Query,
    found: Found,
) -> Result<Listed, Problem> {
    let items = match found.keys.is_empty() {
        true => found.kept,
        false => in_order(app, tenant, &query, found.keys).await?,
    };
    let has_more = query.cursor.is_some() && items.len() > query.count;
    let items: Vec<Item> = items.into_iter().take(query.count).collect();
    let total = (query.cursor.is_none() || query.filter.is_none()).then_some(found.total);
    let (asker, projection) = (asker.clone(), query.projection.clone());
    let (resources, last, is_cut) = app
        .db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            let (mut resources, mut members, mut last) = (Vec::with_capacity(items.len()), 0, None);
            for item in &items {
                if let Item::Team(team) = item
                    && projection.wants(&GROUPS, "members")
                {
                    members += team.members;
                    if members > MEMBERS_SHOWN_MAX && !resources.is_empty() {
                        break;
                    }
                }
                resources.push(Value::Object(show(tx, tenant, &asker, item, &projection)?));
                last = Some(item.text());
            }
            let is_cut = resources.len() < items.len();
            Ok::<_, Problem>((resources, last, is_cut))
        })
        .await?;
    let is_by_cursor = query.cursor.is_some();
    Ok(Listed {
        resources,
        // Of a list that a cursor goes through, only the whole is counted, and only where it is known.
        total: if is_by_cursor { None } else { total },
        next_cursor: last.filter(|_| is_by_cursor && (has_more || is_cut)),
    })
}

/// A resource as it is answered.
pub fn show(
    tx: &mut Tx,
    tenant: TenantId,
    asker: &Asker,
    item: &Item,
    projection: &Projection,
) -> Result<Resource, Problem> {
    match item {
        Item::User(user) => {
            let mut shown = asker.user(user);
            if projection.wants(&USERS, "groups") {
                let direct = teams::direct_teams_of(tx, tenant, user.id.uuid())?.len();
                if direct > 0 {
                    let mut all = teams::teams_of(tx, tenant, user.id)?;
                    all.truncate(OWNER_GROUPS_MAX);
                    shown.insert("groups".to_owned(), asker.groups(&all, direct));
                }
            }
            Ok(projection.of(&USERS, shown))
        }
        Item::Team(team) => {
            let mut shown = asker.team(team);
            if projection.wants(&GROUPS, "members") {
                let is_named = projection.names(&GROUPS, "members", "display");
                let members = members(tx, tenant, asker, team.id, is_named)?;
                if !members.is_empty() {
                    shown.insert("members".to_owned(), Value::Array(members));
                }
            }
            Ok(projection.of(&GROUPS, shown))
        }
    }
}

fn members(
    tx: &mut Tx,
    tenant: TenantId,
    asker: &Asker,
    team: UserGroupId,
    is_named: bool,
) -> Result<Vec<Value>, Problem> {
    let (mut found, mut after) = (Vec::new(), Uuid::nil());
    loop {
        let page = teams::members(tx, tenant, team, after, PAGE)?;
        found.extend(page.iter().map(|row| answer::member(&asker.base, row, is_named)));
        match page.last().filter(|_| page.len() == PAGE) {
            Some(last) => after = last.id,
            None => return Ok(found),
        }
    }
}
