//! Dynamic groups: who is in them and why, and the form that makes and changes them with a preview.

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
        problem::{EXPRESSION_INVALID, GROUP_LIMIT, INVALID, NAME_TAKEN, Problem},
        scope::{GroupRead, GroupWrite},
    },
    audit, devices,
    groups::{self, Explanation, Group, GroupState, GroupView, Member, NewGroup, Preview, PreviewRequest},
    rollout,
};
use muster_model::{
    DeviceId, GroupId,
    text::{Description, Name},
};
use serde::Deserialize;

use super::ROWS;
use crate::{
    form::{Fields, Sent},
    session::{Ask, At, Session, parse},
    shell::{Refusal, Section, Shell, page, see_other},
    ui::{self, Badge, Tone, When},
};

/// Members that a preview shows.
const SHOWN: usize = 10;

pub fn router() -> Router<App> {
    Router::new()
        .route("/groups", get(list).post(create))
        .route("/groups/new", get(new))
        .route("/groups/{id}", get(show))
        .route("/groups/{id}/edit", get(edit).post(change))
        .route("/groups/{id}/delete", post(delete))
}

/// A group as a row.
#[derive(Debug)]
pub struct Row {
    pub href: String,
    pub name: String,
    pub description: String,
    pub include: String,
    pub exclude: Option<String>,
    pub members: String,
    pub state: Badge,
}

fn badge(state: GroupState) -> Badge {
    match state {
        GroupState::Ready => Badge::new("ready", Tone::Good),
        GroupState::Evaluating => Badge::new("evaluating", Tone::Wait),
        GroupState::Deleting => Badge::new("deleted", Tone::Off),
    }
}

fn count(number: u64) -> String {
    ui::count(i64::try_from(number).unwrap_or(i64::MAX))
}

impl Row {
    fn of(group: Group) -> Row {
        Row {
            href: format!("/groups/{}", group.id),
            name: group.name,
            description: group.description.unwrap_or_default(),
            include: group.include,
            exclude: group.exclude,
            members: count(group.members),
            state: badge(group.state),
        }
    }
}

#[derive(Template)]
#[template(path = "groups.html")]
pub struct GroupsPage {
    pub shell: Shell,
    pub rows: Vec<Row>,
}

async fn list(State(app): State<App>, session: Session) -> Result<Response, Refusal> {
    let permit = session.permit::<GroupRead>()?;
    let tenant = session.tenant();
    let found = app
        .db
        .read(permit.storage(), move |tx| {
            groups::list(tx, tenant, None, groups::GROUPS_MAX)
        })
        .await?;
    page(&GroupsPage {
        shell: session.shell("Groups", Section::Groups),
        rows: found.into_iter().map(Row::of).collect(),
    })
}

/// What the form holds.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    pub name: String,
    pub description: String,
    pub include: String,
    pub exclude: String,
}

impl Draft {
    fn of_fields(fields: &Fields) -> Draft {
        let text = |name: &str| fields.text(name).to_owned();
        Draft {
            name: text("name"),
            description: text("description"),
            include: text("include"),
            exclude: text("exclude"),
        }
    }

    fn of_group(group: &Group) -> Draft {
        Draft {
            name: group.name.clone(),
            description: group.description.clone().unwrap_or_default(),
            include: group.include.clone(),
            exclude: group.exclude.clone().unwrap_or_default(),
        }
    }

    fn exclude(&self) -> Option<String> {
        (!self.exclude.is_empty()).then(|| self.exclude.clone())
    }

    fn new_group(&self) -> Result<NewGroup, Problem> {
        let description = (!self.description.is_empty()).then(|| Description::parse(&self.description));
        Ok(NewGroup {
            name: Name::parse(&self.name).map_err(|error| INVALID.detail(format!("The name {error}.")))?,
            description: description
                .transpose()
                .map_err(|error| INVALID.detail(format!("The description {error}.")))?,
            include: self.include.clone(),
            exclude: self.exclude(),
        })
    }
}

/// A preview, ready to be shown.
#[derive(Debug)]
pub struct Tried {
    pub found: Preview,
    pub members: String,
    pub looked_at: String,
    pub unknown: String,
}

#[derive(Template)]
#[template(path = "group_form.html")]
pub struct FormPage {
    pub shell: Shell,
    pub title: String,
    pub action: String,
    pub save: &'static str,
    pub back: String,
    pub draft: Draft,
    pub refused: Option<String>,
    pub tried: Option<Tried>,
}

/// Which group a form is for: none is a new one.
fn form(session: &Session, group: Option<&Group>, draft: Draft) -> FormPage {
    let title = group.map_or_else(
        || "New group".to_owned(),
        |group| format!("Change {}", group.name),
    );
    FormPage {
        shell: session.shell(title.clone(), Section::Groups),
        title,
        action: group.map_or_else(
            || "/groups".to_owned(),
            |group| format!("/groups/{}/edit", group.id),
        ),
        save: if group.is_some() {
            "Save changes"
        } else {
            "Create group"
        },
        back: group.map_or_else(|| "/groups".to_owned(), |group| format!("/groups/{}", group.id)),
        draft,
        refused: None,
        tried: None,
    }
}

async fn new(session: Session) -> Result<Response, Refusal> {
    let _permit = session.permit::<GroupWrite>()?;
    page(&form(&session, None, Draft::default()))
}

async fn edit(State(app): State<App>, session: Session, At(id): At<String>) -> Result<Response, Refusal> {
    let group = read(&app, &session, id).await?;
    page(&form(&session, Some(&group), Draft::of_group(&group)))
}

async fn read(app: &App, session: &Session, id: String) -> Result<Group, Refusal> {
    let (permit, tenant) = (session.permit::<GroupRead>()?, session.tenant());
    let group = app
        .db
        .read(permit.storage(), move |tx| groups::resolve(tx, tenant, &id))
        .await?;
    Ok(group)
}

/// Shows a form again with who would be in the group.
async fn preview(app: &App, session: &Session, mut form: FormPage) -> Result<Response, Refusal> {
    let (permit, tenant, now) = (session.permit::<GroupRead>()?, session.tenant(), app.clock.now());
    let request = PreviewRequest {
        include: form.draft.include.clone(),
        exclude: form.draft.exclude(),
        shown: SHOWN,
    };
    let tried = app
        .db
        .read(permit.storage(), move |tx| {
            groups::preview(tx, tenant, &request, now)
        })
        .await;
    match tried {
        Ok(found) => {
            form.tried = Some(Tried {
                members: count(found.members),
                looked_at: count(found.looked_at),
                unknown: count(found.unknown),
                found,
            });
        }
        Err(problem) => form.refused = Some(refused(problem)?),
    }
    page(&form)
}

/// What a person can correct in the form; everything else is a page of its own.
fn refused(problem: Problem) -> Result<String, Refusal> {
    if [EXPRESSION_INVALID, GROUP_LIMIT, INVALID, NAME_TAKEN].contains(&problem.kind) {
        Ok(problem.detail)
    } else {
        Err(Refusal(problem))
    }
}

/// `POST /groups`: creates the group, or previews it.
async fn create(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<GroupWrite>()?;
    let draft = Draft::of_fields(&sent.fields);
    let mut form = form(&sent.session, None, draft.clone());
    if sent.fields.text("do") == "preview" {
        return preview(&app, &sent.session, form).await;
    }
    let made = match draft.new_group() {
        Ok(new) => audit::commit(&app, permit.author(), move |tx| groups::create(tx, &new)).await,
        Err(problem) => Err(problem),
    };
    match made {
        Ok(group) => {
            app.nudges.groups.notify_one();
            Ok(see_other(&format!("/groups/{}?notice=group-created", group.id)))
        }
        Err(problem) => {
            form.refused = Some(refused(problem)?);
            page(&form)
        }
    }
}

/// `POST /groups/{id}/edit`: changes the group, or previews the change.
async fn change(State(app): State<App>, At(id): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<GroupWrite>()?;
    let group = read(&app, &sent.session, id).await?;
    let draft = Draft::of_fields(&sent.fields);
    let mut form = form(&sent.session, Some(&group), draft.clone());
    if sent.fields.text("do") == "preview" {
        return preview(&app, &sent.session, form).await;
    }
    let id = group.id;
    let keys = app
        .keys
        .tenant(sent.session.tenant())
        .map_err(Problem::internal)?;
    let changed = match draft.new_group() {
        Ok(wanted) => {
            let to = wanted.clone();
            let changed = audit::commit(&app, permit.author(), move |tx| {
                let tenant = tx.tenant();
                let group = groups::resolve(tx, tenant, &id.to_string())?;
                rollout::change_group(tx, &keys, &group, &to)
            })
            .await;
            match changed {
                Ok(group) => Ok(group),
                Err(problem) => {
                    let wanted = rollout::WantedChange::Regroup(id.to_string(), wanted.into());
                    if let Some(operation) =
                        rollout::ask_people(&app, permit.author(), &problem, wanted).await?
                    {
                        return Ok(see_other(&format!(
                            "/operations/{}?notice=people-asked",
                            operation.id
                        )));
                    }
                    Err(problem)
                }
            }
        }
        Err(problem) => Err(problem),
    };
    match changed {
        Ok(group) => {
            app.nudges.groups.notify_one();
            Ok(see_other(&format!("/groups/{}?notice=group-changed", group.id)))
        }
        Err(problem) => {
            form.refused = Some(refused(problem)?);
            page(&form)
        }
    }
}

async fn delete(State(app): State<App>, At(id): At<String>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<GroupWrite>()?;
    let id: GroupId = parse(&id)?;
    audit::commit(&app, permit.author(), move |tx| {
        let tenant = tx.tenant();
        let group = groups::resolve(tx, tenant, &id.to_string())?;
        groups::delete(tx, &group)
    })
    .await?;
    app.memberships.forget_tenant(sent.session.tenant());
    app.nudges.groups.notify_one();
    Ok(see_other("/groups?notice=group-deleted"))
}

#[derive(Debug, Default, Deserialize)]
struct Asked {
    after: Option<String>,
    device: Option<String>,
}

#[derive(Template)]
#[template(path = "group.html")]
pub struct GroupPage {
    pub shell: Shell,
    pub group: GroupView,
    pub state: Badge,
    pub members: String,
    pub evaluated: Option<When>,
    pub by: String,
    pub created: When,
    pub rows: Vec<Member>,
    pub next: Option<String>,
    pub is_first: bool,
    /// The device that was asked about.
    pub asked: String,
    pub explained: Option<Explanation>,
    pub refused: Option<String>,
}

async fn show(
    State(app): State<App>,
    session: Session,
    At(id): At<String>,
    Ask(query): Ask<Asked>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<GroupRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let after = query.after.as_deref().map(parse::<DeviceId>).transpose()?;
    let asked = query.device.unwrap_or_default().trim().to_owned();
    let question = asked.clone();
    let (group, view, mut rows, explained) = app
        .db
        .read(permit.storage(), move |tx| {
            let group = groups::resolve(tx, tenant, &id)?;
            let rows = groups::members(tx, tenant, group.id, after, ROWS + 1)?;
            let explained = (!question.is_empty()).then(|| {
                let device = devices::resolve(tx, tenant, &question)?;
                groups::explain(tx, tenant, &group, &device, now)
            });
            let view = GroupView::read(tx, tenant, group.clone())?;
            Ok::<_, Problem>((group, view, rows, explained))
        })
        .await?;
    let more = rows.len() > ROWS;
    rows.truncate(ROWS);
    let next = rows
        .last()
        .filter(|_| more)
        .map(|last| format!("/groups/{}?after={}", group.id, last.id));
    let (explained, refused) = match explained {
        None => (None, None),
        Some(Ok(explained)) => (Some(explained), None),
        Some(Err(problem)) => (None, Some(problem.detail)),
    };
    page(&GroupPage {
        shell: session.shell(group.name.clone(), Section::Groups),
        state: badge(group.state),
        members: count(group.members),
        evaluated: group.evaluated_at.map(|at| When::new(at, now)),
        by: ui::author(&group.created_by),
        created: When::new(group.created_at, now),
        group: view,
        rows,
        next,
        is_first: after.is_none(),
        asked,
        explained,
        refused,
    })
}
