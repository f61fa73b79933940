//! Room for people: who came from outside, was given nothing and does not come back is forgotten.
//!
//! Whoever was given a role, had one when they last came, is signed in, has an open link or a passkey, or is disabled stays: their
//! names mean something in the log, and a disabled person would otherwise come back as somebody new. Who is forgotten and comes again
//! is new, and waits as long as everybody new.

use std::time::Duration;

use muster_model::{TenantId, Timestamp};
use muster_storage::Scope;

use super::{PEOPLE_MAX, store};
use crate::{
    App,
    access::{Author, problem::Problem, tenants},
    audit::{self, LoggedTx},
};

/// After so long without a visit a person without a role is forgotten.
pub const UNSEEN_DAYS: u64 = 90;
/// From so many people on there is little room: those who were not seen for a day go as well, and those of links.
pub const CROWDED: i64 = PEOPLE_MAX / 10 * 9;
/// People that are forgotten in one transaction.
const AT_ONCE_MAX: i64 = 500;
const DAY: Duration = Duration::from_secs(86_400);

/// Who is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::access) enum Strangers {
    /// People of identity providers.
    FromOutside,
    /// Those of links too.
    All,
}

/// Forgets who was not seen for long, in every tenant; answers how many people. A reconciler's step.
pub async fn forget_unseen(app: &App) -> Result<u64, Problem> {
    let mut forgotten = 0;
    for (tenant, _) in app.db.read(Scope::System, tenants).await? {
        forgotten += forget_unseen_of(app, tenant).await?;
    }
    Ok(forgotten)
}

async fn forget_unseen_of(app: &App, tenant: TenantId) -> Result<u64, Problem> {
    let before = app.clock.now().minus(DAY * UNSEEN_DAYS as u32);
    let found = app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
        Ok::<_, Problem>(store::strangers(tx, tenant, Strangers::FromOutside, before, 1)?)
    });
    if found.await?.is_empty() {
        return Ok(0);
    }
    audit::commit(app, &Author::system(tenant), move |tx| {
        forget(tx, Strangers::FromOutside, before)
    })
    .await
}

/// Makes room for one more where there is little: the longest unseen go first. Refuses where there is none.
pub(in crate::access) fn make_room(tx: &mut LoggedTx<'_>, full: Problem) -> Result<(), Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let known = store::person_count(tx, tenant)?;
    if known < CROWDED {
        return Ok(());
    }
    let forgotten = forget(tx, Strangers::All, at.minus(DAY))?;
    if known - i64::try_from(forgotten).unwrap_or(0) >= PEOPLE_MAX {
        return Err(full);
    }
    Ok(())
}

fn forget(tx: &mut LoggedTx<'_>, who: Strangers, before: Timestamp) -> Result<u64, Problem> {
    let tenant = tx.tenant();
    let names = store::strangers(tx, tenant, who, before, AT_ONCE_MAX)?;
    for name in &names {
        store::delete_person(tx, tenant, name)?;
    }
    if !names.is_empty() {
        tx.record(
            "access.people_forgotten",
            ("tenant", tenant.to_string()),
            serde_json::json!({"people": names.len(), "unseen_since": before.to_string()}),
        )?;
    }
    Ok(names.len() as u64)
}
