//! Which tenants there are, and whether they are in operation.

use std::{path::Path, time::Duration};

use muster_model::{TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use muster_trust::key::sha256;

use super::{
    Author, FIRST_CLIENT, NewClient, insert_client, people,
    problem::{CONFLICT, NAME_TAKEN, Problem, TENANT_SUSPENDED, UNAUTHENTICATED, UNAVAILABLE},
    rotate_client, scope, store,
};
use crate::{
    App,
    audit::{self, LoggedTx},
    clock, secrets,
};

/// When a device of a suspended tenant may come again.
const DEVICES_RETRY_SECONDS: u64 = 300;
/// How long the link of a tenant's first person is good.
const FIRST_LINK: Duration = Duration::from_secs(24 * 3600);

/// Tenants of one installation.
pub const TENANTS_MAX: usize = 1000;

/// What a tenant is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TenantState {
    Active,
    /// Nobody of it gets in, and its devices are told to come later. Nothing is lost.
    Suspended,
    /// As suspended, and its root keys have signed that it ends: it is deleted when the waiting time is over.
    Closing,
    /// Its rows are being deleted.
    Erasing,
}

impl TenantState {
    pub const fn as_str(self) -> &'static str {
        match self {
            TenantState::Active => "active",
            TenantState::Suspended => "suspended",
            TenantState::Closing => "closing",
            TenantState::Erasing => "erasing",
        }
    }

    pub fn parse(word: &str) -> Option<TenantState> {
        [
            TenantState::Active,
            TenantState::Suspended,
            TenantState::Closing,
            TenantState::Erasing,
        ]
        .into_iter()
        .find(|state| state.as_str() == word)
    }
}

/// A tenant as stored.
#[derive(Debug, Clone)]
pub struct TenantRow {
    pub id: TenantId,
    pub name: String,
    /// Empty where nobody gave one.
    pub display_name: String,
    pub state: TenantState,
    pub created_at: Timestamp,
    /// Since when it is in this state; nothing for tenants of before there were states.
    pub state_at: Option<Timestamp>,
}

/// A tenant that is made now.
#[derive(Debug, Clone)]
pub struct NewTenant {
    pub id: TenantId,
    pub name: String,
    pub display_name: String,
}

/// The tenants, oldest first, in whatever state.
pub fn tenant_rows(tx: &mut Tx) -> Result<Vec<TenantRow>, Problem> {
    Ok(store::tenant_rows(tx)?)
}

/// The tenants of the installation with their names, oldest first, without those that are being deleted.
pub fn tenants(tx: &mut Tx) -> Result<Vec<(TenantId, String)>, Problem> {
    let rows = store::tenant_rows(tx)?.into_iter();
    let kept = rows.filter(|row| row.state != TenantState::Erasing);
    Ok(kept.map(|row| (row.id, row.name)).collect())
}

/// The tenants for which work is done by itself, oldest first.
pub fn working_tenants(tx: &mut Tx) -> Result<Vec<TenantId>, Problem> {
    let rows = store::tenant_rows(tx)?.into_iter();
    let working = rows.filter(|row| row.state == TenantState::Active);
    Ok(working.map(|row| row.id).collect())
}

pub fn tenant(tx: &mut Tx, tenant: TenantId) -> Result<Option<TenantRow>, Problem> {
    Ok(store::tenant(tx, tenant)?)
}

pub fn tenant_named(tx: &mut Tx, name: &str) -> Result<Option<TenantRow>, Problem> {
    Ok(store::tenant_named(tx, name)?)
}

/// Writes the row of a new tenant.
pub fn insert_tenant(tx: &mut LoggedTx<'_>, new: &NewTenant) -> Result<(), Problem> {
    if store::tenant_rows(tx)?.len() >= TENANTS_MAX {
        return Err(CONFLICT.detail(format!("An installation has at most {TENANTS_MAX} tenants.")));
    }
    let at = tx.at();
    if store::insert_tenant(tx, new, at)? == 0 {
        return Err(NAME_TAKEN.detail(format!("There is a tenant {:?} already.", new.name)));
    }
    Ok(())
}

/// Moves a tenant from one state to another; answers whether it was in the first one.
pub fn set_tenant_state(
    tx: &mut LoggedTx<'_>,
    tenant: TenantId,
    from: TenantState,
    to: TenantState,
) -> Result<bool, Problem> {
    let at = tx.at();
    Ok(store::set_tenant_state(tx, tenant, (from, to), at)? == 1)
}

pub fn rename_tenant(tx: &mut LoggedTx<'_>, tenant: TenantId, display_name: &str) -> Result<bool, Problem> {
    Ok(store::rename_tenant(tx, tenant, display_name)? == 1)
}

/// Removes the row of a tenant whose other rows are gone.
pub fn remove_tenant(tx: &mut Tx, tenant: TenantId) -> Result<bool, Problem> {
    Ok(store::remove_tenant(tx, tenant)? == 1)
}

/// Makes a tenant: its keys on disk, its row, its first log entry and its first service account.
pub async fn create_tenant(
    app: &App,
    name: &str,
    take_away: &Path,
) -> Result<(TenantId, NewClient, std::path::PathBuf), Problem> {
    let now = app.clock.now();
    let tenant = TenantId::generate(now, clock::random());
    let (root_key, row) = app.keys.create_tenant(tenant, take_away, now)?;
    let new = NewTenant {
        id: tenant,
        name: name.to_owned(),
        display_name: String::new(),
    };
    let keys = app.keys.tenant(tenant).map_err(Problem::internal)?;
    let client = audit::commit(app, &Author::system(tenant), move |tx| {
        begin_tenant(tx, &new, &keys, &row)
    })
    .await?;
    Ok((tenant, client, root_key))
}

/// Writes what a new tenant begins with: its row, its keys, the first entry of its log, its first service account.
pub fn begin_tenant(
    tx: &mut audit::LoggedTx<'_>,
    new: &NewTenant,
    keys: &secrets::TenantKeys,
    row: &secrets::KeysRow,
) -> Result<NewClient, Problem> {
    let (tenant, at) = (new.id, tx.at());
    insert_tenant(tx, new)?;
    if !secrets::store_keys(tx, tenant, row, at)? {
        return Err(CONFLICT.detail("The tenant has keys already."));
    }
    let documents = serde_json::to_vec(&keys.root_documents).map_err(Problem::internal)?;
    tx.record(
        "tenant.created",
        ("tenant", tenant.to_string()),
        serde_json::json!({
            "name": new.name, "root_version": 1, "root_documents_sha256": sha256(&documents).to_string(),
        }),
    )?;
    insert_client(tx, tenant, FIRST_CLIENT, &scope::every())
}

/// A link that signs the first person of a tenant in, for whatever its first service account may do. Part of the transaction that makes
/// the tenant.
pub fn first_link(
    tx: &mut LoggedTx<'_>,
    client: &NewClient,
    person: &str,
) -> Result<(String, Timestamp), Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    let secret = clock::random_secret();
    let expires_at = at.plus(FIRST_LINK);
    let made_by = format!("client:{}", client.id);
    store::note_person(tx, tenant, (person, &made_by), at)?;
    let link = store::SigninRow {
        person: person.to_owned(),
        made_by,
        roles: String::new(),
    };
    store::insert_signin(
        tx,
        tenant,
        sha256(secret.as_bytes()).as_bytes(),
        &link,
        expires_at,
    )?;
    let detail = serde_json::json!({"roles": "", "made_by": client.id.to_string()});
    tx.record("signin.link_created", ("user", person.to_owned()), detail)?;
    Ok((secret, expires_at))
}

/// A tenant's first service account, and the secret of its first person's link with the time until which it is good.
pub type FirstWayIn = (NewClient, (String, Timestamp));

/// A new secret of a tenant's first service account and a new link of its first person, for whoever made the tenant and never got the
/// answer. Nothing where either was used, or the link is forgotten: then somebody has entered, or could have long ago.
pub fn reissue_first(tx: &mut LoggedTx<'_>, person: &str) -> Result<Option<FirstWayIn>, Problem> {
    let tenant = tx.tenant();
    let Some(client) = store::client_by_name(tx, tenant, FIRST_CLIENT)? else {
        return Ok(None);
    };
    let used = people::store::clients_used(tx, tenant)?;
    let is_used = used.iter().any(|(id, _)| *id == client.id);
    let mut links = store::open_links(tx, tenant)?;
    links.retain(|(_, actor)| actor == person);
    if client.disabled_at.is_some() || is_used || links.is_empty() {
        return Ok(None);
    }
    for (digest, _) in &links {
        store::delete_link(tx, tenant, digest)?;
    }
    let before = client.secret_sha256.clone();
    let fresh = rotate_client(tx, &client, &before, Duration::ZERO)?;
    let link = first_link(tx, &fresh, person)?;
    Ok(Some((fresh, link)))
}

/// Refuses whoever belongs to a tenant that is not in operation. It is read anew at each request: no node remembers it.
pub async fn require_open(app: &App, tenant: TenantId) -> Result<(), Problem> {
    app.db
        .read(Scope::Tenant(tenant.uuid()), move |tx| {
            require_open_in(tx, tenant)
        })
        .await
}

/// As [`require_open`], within a transaction.
pub fn require_open_in(tx: &mut Tx, tenant: TenantId) -> Result<(), Problem> {
    match store::tenant(tx, tenant)?.map(|row| row.state) {
        Some(TenantState::Active) => Ok(()),
        Some(TenantState::Suspended | TenantState::Closing | TenantState::Erasing) => Err(TENANT_SUSPENDED
            .detail("The tenant is suspended. Nothing of it is lost; its operator can let it go on.")),
        None => Err(UNAUTHENTICATED.detail("The tenant was deleted.")),
    }
}

/// As [`require_open_in`], for devices: they come later, and keep what they have to say.
pub fn require_serving(tx: &mut Tx, tenant: TenantId) -> Result<(), Problem> {
    require_open_in(tx, tenant).map_err(|_| {
        UNAVAILABLE
            .detail("The tenant is suspended. Come again later.")
            .retry_after(DEVICES_RETRY_SECONDS)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_as_it_is_written_and_no_other_word_is_one() {
        for state in [
            TenantState::Active,
            TenantState::Suspended,
            TenantState::Closing,
            TenantState::Erasing,
        ] {
            assert_eq!(TenantState::parse(state.as_str()), Some(state));
        }
        assert_eq!(TenantState::parse("deleted"), None);
    }
}
