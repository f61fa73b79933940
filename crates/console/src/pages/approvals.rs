//! What waits for people: requests for approvals, and what was held because it is unusual.

use std::cmp::Reverse;

use askama::Template;
use axum::{Router, extract::State, response::Response, routing::get};
use muster_control::{
    App,
    access::{problem::Problem, scope::CommandRead},
    commands::{self, OperationState},
};
use muster_trust::root::Role;
use serde::Deserialize;
use uuid::Uuid;

use super::operation_card::{ByPasskey, Card, Viewer};
use crate::{
    session::{Ask, Session, parse},
    shell::{Refusal, Section, Shell, page},
    ui::{Badge, Tone},
};

/// Requests of a page.
const CARDS: usize = 10;

pub fn router() -> Router<App> {
    Router::new().route("/approvals", get(inbox))
}

#[derive(Debug, Default, Deserialize)]
struct Before {
    before: Option<String>,
}

#[derive(Template)]
#[template(path = "approvals.html")]
struct ApprovalsPage {
    shell: Shell,
    cards: Vec<Card>,
    older: Option<String>,
    is_first: bool,
    /// How many people must approve; nobody is named where it is 0.
    threshold: u32,
    back: &'static str,
}

async fn inbox(
    State(app): State<App>,
    session: Session,
    Ask(query): Ask<Before>,
) -> Result<Response, Refusal> {
    let permit = session.permit::<CommandRead>()?;
    let (tenant, now) = (session.tenant(), app.clock.now());
    let before = query.before.as_deref().map(parse::<Uuid>).transpose()?;
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let (author, shared) = (permit.author().clone(), app.clone());
    let threshold = keys.root.role(Role::Approver).1;
    let (cards, last) = app
        .db
        .read(permit.storage(), move |tx| {
            let mut waiting = Vec::new();
            for state in [OperationState::AwaitingApproval, OperationState::Held] {
                waiting.extend(commands::operations(tx, tenant, Some(state), before, CARDS + 1)?);
            }
            waiting.sort_unstable_by_key(|operation| Reverse(operation.id));
            let more = waiting.len() > CARDS;
            waiting.truncate(CARDS);
            let last = waiting.last().filter(|_| more).map(|last| last.id);
            let viewer = Viewer {
                tenant,
                author: &author,
                keys: &keys,
                lists: &shared.lists,
                now,
            };
            let cards = waiting
                .into_iter()
                .map(|operation| Card::of(tx, &viewer, operation))
                .collect::<Result<Vec<_>, Problem>>()?;
            Ok::<_, Problem>((cards, last))
        })
        .await?;
    page(&ApprovalsPage {
        shell: session.shell("Approvals", Section::Approvals),
        cards,
        older: last.map(|last| format!("/approvals?before={last}")),
        is_first: query.before.is_none(),
        threshold,
        back: "approvals",
    })
}
