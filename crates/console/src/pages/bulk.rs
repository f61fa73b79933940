//! A command for devices that were selected or that a filter matches: choose it, see whom it is for, ask.

use std::time::Duration;

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::{
        problem::{INVALID, Problem},
        scope::{CommandRead, CommandWrite},
    },
    audit,
    commands::{self, BulkTarget, Command, Wanted},
    devices::{self, DeviceFilter},
};
use muster_model::{CommandKind, DeviceId, TenantId};
use muster_storage::Tx;
use muster_trust::root::{Role, RootDocument};

use super::operation_card::Whose;
use crate::{
    form::{Fields, Sent},
    kinds::{self, CHOICES, Choice, Input},
    session::{Ask, Session, encode},
    shell::{Refusal, Section, Shell, page, page_with, see_other},
    ui,
};

/// Devices that a person selects by hand; more are reached by a filter.
const SELECTED_MAX: usize = 200;
/// Devices that a filter may match.
const MATCHED_MAX: usize = 1_000_000;

pub fn router() -> Router<App> {
    Router::new().route("/commands/new", get(show).post(ask))
}

/// A type of command to choose.
#[derive(Debug)]
struct Chip {
    label: &'static str,
    href: String,
    is_on: bool,
}

#[derive(Template)]
#[template(path = "command_new.html")]
struct NewPage {
    shell: Shell,
    chips: Vec<Chip>,
    choice: &'static Choice,
    /// What was typed, by the names of the fields.
    typed: Fields,
    filter: String,
    selected: Vec<String>,
    count: u64,
    /// `3 of 1,204 devices`.
    scale: String,
    whose: Whose,
    /// What will stand between the command and the devices, in words.
    stands_between: Option<String>,
    /// What must be typed before something destructive is asked.
    expects: String,
    refused: Option<String>,
}

/// Which devices a form or an address means.
#[derive(Debug, Clone)]
struct Meant {
    filter: String,
    selected: Vec<String>,
}

impl Meant {
    fn of(fields: &Fields) -> Result<Meant, Problem> {
        let selected: Vec<String> = fields
            .all("device")
            .filter(|id| !id.is_empty())
            .map(str::to_owned)
            .collect();
        if selected.len() > SELECTED_MAX || selected.iter().any(|id| id.parse::<DeviceId>().is_err()) {
            return Err(INVALID.detail("Select at most 200 devices, or use a filter."));
        }
        Ok(Meant {
            filter: fields.text("filter").to_owned(),
            selected,
        })
    }

    fn target(&self) -> Result<BulkTarget, Problem> {
        if self.selected.is_empty() {
            return Ok(BulkTarget::Filter(DeviceFilter::parse(&self.filter)?));
        }
        Ok(BulkTarget::Ids(self.selected.clone()))
    }

    /// The devices as the address of this page carries them.
    fn query(&self) -> String {
        if self.selected.is_empty() {
            return format!("filter={}", encode(&self.filter));
        }
        let ids: Vec<String> = self.selected.iter().map(|id| format!("device={id}")).collect();
        ids.join("&")
    }

    /// The active devices among them.
    fn active(&self, tx: &mut Tx, tenant: TenantId) -> Result<Vec<(DeviceId, u32)>, Problem> {
        if self.selected.is_empty() {
            let filter = DeviceFilter::parse(&self.filter)?;
            return devices::list_epochs(tx, tenant, &filter, MATCHED_MAX);
        }
        let mut found = Vec::new();
        for id in &self.selected {
            let id: DeviceId = id
                .parse()
                .map_err(|_| INVALID.detail("A device's id is wrong."))?;
            found.extend(devices::active(tx, tenant, id)?.map(|device| (device.id, device.epoch)));
        }
        Ok(found)
    }
}

async fn show(
    State(app): State<App>,
    session: Session,
    Ask(pairs): Ask<Vec<(String, String)>>,
) -> Result<Response, Refusal> {
    let content = new_page(&app, &session, Fields::of(pairs), None).await?;
    page(&content)
}

async fn new_page(
    app: &App,
    session: &Session,
    typed: Fields,
    refused: Option<String>,
) -> Result<NewPage, Refusal> {
    let permit = session.permit::<CommandRead>()?;
    let tenant = session.tenant();
    let meant = Meant::of(&typed)?;
    let choice = kinds::find(typed.text("type")).unwrap_or(&CHOICES[0]);
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let read = meant.clone();
    let (count, fleet, whose, only) = app
        .db
        .read(permit.storage(), move |tx| {
            let list = read.active(tx, tenant)?;
            let ids: Vec<DeviceId> = list.iter().map(|(device, _)| *device).collect();
            let whose = Whose::of(tx, tenant, &ids, ids.len() as u64)?;
            let only = match ids.as_slice() {
                [only] => Some(devices::get(tx, tenant, *only)?.name),
                _ => None,
            };
            let fleet = devices::active_count(tx, tenant)?;
            Ok::<_, Problem>((ids.len() as u64, fleet, whose, only))
        })
        .await?;
    let query = meant.query();
    let chips = CHOICES.iter().map(|known| Chip {
        label: known.label,
        href: format!("/commands/new?{query}&type={}", known.kind),
        is_on: known.kind == choice.kind,
    });
    let number = |count: u64| ui::count(i64::try_from(count).unwrap_or(i64::MAX));
    let noun = if fleet == 1 { "device" } else { "devices" };
    Ok(NewPage {
        shell: session.shell("New command", Section::Commands),
        chips: chips.collect(),
        stands_between: stands_between(&keys.root, choice, count, fleet),
        choice,
        expects: only.unwrap_or_else(|| count.to_string()),
        scale: format!("{} of {} active {noun}", number(count), number(fleet)),
        typed,
        filter: meant.filter,
        selected: meant.selected,
        count,
        whose,
        refused,
    })
}

/// What will stand between asking and the devices. The server decides when it is asked; this says what to expect.
fn stands_between(root: &RootDocument, choice: &Choice, count: u64, fleet: u64) -> Option<String> {
    let budget = root.budgets.destructive_per_hour(fleet);
    let form = Fields::of(vec![("type".to_owned(), choice.kind.to_owned())]);
    let at_scale = kinds::read(&form).is_ok_and(|kind| kind.is_destructive_at_scale())
        || matches!(choice.kind, "run-script" | "remove-app");
    let always = choice.is_danger || root.approval.also.contains(choice.kind);
    if !(always || at_scale && count > budget) {
        return None;
    }
    let people = match root.role(Role::Approver).1 {
        0 => "Nobody is named who could approve it, so it will wait and expire.".to_owned(),
        1 => "One person must approve it, not you.".to_owned(),
        several => format!("{several} people must approve it, not you."),
    };
    let delay = match root.approval.delay_seconds {
        0 => String::new(),
        seconds => format!(", the first {} after that", ui::span(seconds.into())),
    };
    Some(format!("{people} Then at most {budget} an hour begin{delay}."))
}

async fn ask(State(app): State<App>, sent: Sent) -> Result<Response, Refusal> {
    let permit = sent.session.permit::<CommandWrite>()?;
    match asked(&app, &sent).await {
        Ok(place) => Ok(see_other(&place)),
        Err(problem) if problem.kind == INVALID => {
            drop(permit);
            let status = axum::http::StatusCode::BAD_REQUEST;
            let content = new_page(&app, &sent.session, sent.fields, Some(problem.detail)).await?;
            page_with(status, &content)
        }
        Err(problem) => Err(Refusal(problem)),
    }
}

/// Asks; answers the page to go on to.
async fn asked(app: &App, sent: &Sent) -> Result<String, Problem> {
    let permit = sent.session.permit::<CommandWrite>()?;
    let (fields, tenant) = (&sent.fields, permit.tenant());
    let kind = kinds::read(fields).map_err(|refusal| refusal.0)?;
    commands::require_scopes(&permit, &kind)?;
    if kind.is_destructive() || kind.is_destructive_at_scale() {
        sent.session.require_fresh(app)?;
    }
    let wanted = wanted(app, fields, kind)?;
    let meant = Meant::of(fields)?;
    let target = meant.target()?;
    let expected: u64 = fields.text("count").parse().unwrap_or(0);
    let typed = fields.text("confirm").to_owned();
    let asked = audit::commit(app, permit.author(), move |tx| {
        let targets = target.targets(tx, tenant, &wanted.kind)?;
        if targets.len() as u64 != expected {
            return Err(INVALID.detail(format!(
                "Nothing was asked: it was for {expected} devices, and now it would be for {}. Look again.",
                targets.len()
            )));
        }
        let single = match targets.as_slice() {
            [] => return Err(INVALID.detail("Nothing was asked: no active device is meant.")),
            [(only, _)] => Some(devices::get(tx, tenant, *only)?),
            _ => None,
        };
        let expects = single
            .as_ref()
            .map_or_else(|| expected.to_string(), |device| device.name.trim().to_owned());
        if wanted.kind.is_destructive() && typed != expects {
            return Err(INVALID.detail(format!("Nothing was asked: type {expects} to confirm.")));
        }
        match single {
            Some(device) => commands::ask_device(tx, &device, &wanted).map(|command| place_of(&command)),
            None => commands::ask_devices(tx, targets, &wanted)
                .map(|operation| format!("/operations/{}?notice=operation-asked", operation.id)),
        }
    })
    .await;
    app.nudges.operations.notify_one();
    commands::alarmed(app, permit.author(), asked).await
}

/// The form's command with its reason, and as long a wait as the server's settings say.
pub fn wanted(app: &App, fields: &Fields, kind: CommandKind) -> Result<Wanted, Problem> {
    let reason = fields.optional("reason").map(str::parse).transpose();
    Ok(Wanted {
        kind,
        ttl: Duration::from_secs(app.settings.command_ttl_seconds),
        reason: reason.map_err(|why| INVALID.detail(format!("The reason {why}.")))?,
    })
}

/// Where a command that was asked is shown: what waits for people, as what people see.
pub fn place_of(command: &Command) -> String {
    use muster_model::CommandState::{AwaitingApproval, Held};
    match (command.state, command.operation) {
        (AwaitingApproval | Held, Some(operation)) => format!("/operations/{operation}?notice=command-asked"),
        _ => format!("/commands/{}?notice=command-sent", command.id),
    }
}
