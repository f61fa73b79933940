//! What every node does when a tenant ends: it looks whether the tenant's root keys said so, and forgets its keys.
//!
//! A row of the database is not enough: whoever writes the database must not make nodes forget a log that they hold it to.

use std::time::Duration;

use muster_model::TenantId;
use muster_storage::Scope;
use muster_trust::{closure, dsse::Envelope};

use super::{
    CLOSINGS_MAX,
    store::{self, Closing, ClosingState},
};
use crate::{App, access::problem::Problem, audit, secrets};

/// How long every node has to forget a tenant before its rows are deleted: several times as long as between two looks.
pub const SETTLES: Duration = Duration::from_secs(5);

/// Takes up the keys of tenants that were made on other nodes, and forgets tenants that their root keys ended. Runs at the start and every
/// second.
pub async fn follow(app: &App) -> Result<(), Problem> {
    secrets::take_up_tenants(app).await?;
    let Some(operator) = secrets::operator(app).await? else {
        return Ok(());
    };
    let closings = app
        .db
        .read(Scope::Tenant(operator.uuid()), move |tx| {
            Ok::<_, Problem>(store::closings(tx, operator, CLOSINGS_MAX)?)
        })
        .await?;
    for closing in closings {
        let has_begun = closing.state != ClosingState::Waiting;
        if has_begun && !app.keys.is_gone(closing.id) {
            forget(app, operator, &closing).await?;
        }
        let is_over = closing.state == ClosingState::Deleted;
        if is_over && app.keys.is_gone(closing.id) && app.keys.has_folder(closing.id) {
            app.keys.remove_folder(closing.id).map_err(Problem::internal)?;
        }
    }
    Ok(())
}

/// Whether the root keys that this node believes of a tenant signed that it ends; nothing where it never knew the tenant.
pub fn is_signed(app: &App, closing: &Closing) -> Option<Result<(), String>> {
    let (root, newest) = app.keys.believed_root(closing.id)?;
    Some(verify(&root, &newest.payload, closing))
}

fn verify(root: &muster_trust::root::RootDocument, payload: &[u8], closing: &Closing) -> Result<(), String> {
    let envelope = Envelope::from_json(&closing.statement).map_err(|error| error.to_string())?;
    closure::verify(root, payload, &envelope)
        .map(drop)
        .map_err(|error| error.to_string())
}

async fn forget(app: &App, operator: TenantId, closing: &Closing) -> Result<(), Problem> {
    let tenant = closing.id;
    match is_signed(app, closing) {
        // This node never had its keys.
        None => return Ok(()),
        Some(Ok(())) => {}
        Some(Err(why)) => return alarm(app, operator, closing, &why).await,
    }
    let shared = app.clone();
    tokio::task::spawn_blocking(move || shared.keys.forget_tenant(tenant))
        .await
        .map_err(Problem::internal)?
        .map_err(Problem::internal)?;
    app.heads.forget_tenant(tenant);
    app.own_entries.forget_tenant(tenant);
    app.memberships.forget_tenant(tenant);
    app.registry.forget_identities();
    app.registry.call_all(tenant);
    tracing::info!(%tenant, name = closing.name, "the tenant ended by the word of its root keys: its keys are forgotten");
    Ok(())
}

/// Somebody wrote past the server that a tenant ends: it is not forgotten, and the operator's log says so, once an hour.
pub async fn alarm(app: &App, operator: TenantId, closing: &Closing, why: &str) -> Result<(), Problem> {
    let why = format!("it says that the tenant ends, and its root keys did not sign that: {why}");
    audit::row_edited(app, operator, ("tenant_closing", closing.id.to_string()), &why).await
}
