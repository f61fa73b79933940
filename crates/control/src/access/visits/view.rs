//! Visits as people see them.

use std::collections::BTreeMap;

use muster_model::{TenantId, VisitId};
use muster_storage::{Scope, StorageError, Tx};

use super::{Visit, no_visit, store};
use crate::{App, access::problem::Problem};

/// A visit with what people call both tenants.
#[derive(Debug, Clone)]
pub struct Named {
    pub visit: Visit,
    pub tenant_name: String,
    pub home_name: String,
}

/// Why a visit is over, in words; empty for what nobody here wrote.
pub fn said(because: &str) -> &'static str {
    match because {
        "visitor" => "the visitor left",
        "home" => "the operator called the visitor back",
        "visited" => "the visited tenant ended it",
        "setting" => "the tenant lets less in now",
        "time" => "its time was over",
        "session" => "the session behind it ended, or its person may not visit any more",
        "suspended" => "one of the tenants is suspended",
        _ => "",
    }
}

impl Named {
    /// Why it is over, in words; nothing while it is not.
    pub fn because(&self) -> Option<&'static str> {
        self.visit.ended_because.as_deref().map(said)
    }
}

/// The greatest id: a list without a cursor begins before it.
fn newest() -> VisitId {
    VisitId::from_uuid(uuid::Uuid::max())
}

fn named(tx: &mut Tx, visits: Vec<Visit>) -> Result<Vec<Named>, Problem> {
    let rows = crate::access::tenant_rows(tx)?.into_iter();
    let names: BTreeMap<TenantId, String> = rows.map(|row| (row.id, row.name)).collect();
    let name = |id: TenantId| names.get(&id).cloned().unwrap_or_default();
    let all = visits.into_iter().map(|visit| Named {
        tenant_name: name(visit.tenant),
        home_name: name(visit.home),
        visit,
    });
    Ok(all.collect())
}

/// Visits of people of the operator's tenant, to whatever tenants, the newest first; one more than `limit`, where there are more.
pub async fn from_home(
    app: &App,
    home: TenantId,
    before: Option<VisitId>,
    limit: usize,
) -> Result<Vec<Named>, Problem> {
    page(app, before, limit, move |tx, before, rows| {
        store::visits_from(tx, home, before, rows)
    })
    .await
}

/// As [`from_home`], to one tenant.
pub async fn of_tenant(
    app: &App,
    tenant: TenantId,
    before: Option<VisitId>,
    limit: usize,
) -> Result<Vec<Named>, Problem> {
    page(app, before, limit, move |tx, before, rows| {
        store::visits(tx, tenant, before, rows)
    })
    .await
}

async fn page(
    app: &App,
    before: Option<VisitId>,
    limit: usize,
    read: impl Fn(&mut Tx, VisitId, i64) -> Result<Vec<Visit>, StorageError> + Send + 'static,
) -> Result<Vec<Named>, Problem> {
    let before = before.unwrap_or_else(newest);
    let rows = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    app.db
        .read(Scope::System, move |tx| {
            let visits = read(tx, before, rows)?;
            named(tx, visits)
        })
        .await
}

/// One of them.
pub async fn one_from_home(app: &App, home: TenantId, id: VisitId) -> Result<Named, Problem> {
    let found = app.db.read(Scope::System, move |tx| {
        let visit = store::visit_from(tx, home, id)?;
        named(tx, visit.into_iter().collect())
    });
    found.await?.pop().ok_or_else(no_visit)
}

/// One to a tenant.
pub async fn one_of_tenant(app: &App, tenant: TenantId, id: VisitId) -> Result<Named, Problem> {
    let found = app.db.read(Scope::System, move |tx| {
        let visit = store::visit(tx, tenant, id)?;
        named(tx, visit.into_iter().collect())
    });
    found.await?.pop().ok_or_else(no_visit)
}
