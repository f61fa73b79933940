//! People of a connection who are those whom a connector keeps by SCIM, so that the directory's groups can give them roles.
//!
//! A name at a provider proves nothing of a person of the directory: names are given anew, and whoever keeps one of the two can choose
//! them. So a tenant says, for one connection, which connector's people these are, and both name a person by an id that never
//! changes: the connector's `externalId` is the provider's subject.

use muster_model::{ClientId, ConnectionId, TenantId};
use muster_storage::Tx;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Definition, store};
use crate::access::{
    Permit, people,
    problem::{INVALID, Problem},
    scope, store as clients,
};

/// Longest id of a person that is compared.
const ID_CHARS_MAX: usize = 256;

/// By what a provider names a person for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MatchedBy {
    /// `sub` of OpenID Connect, or the persistent NameID of SAML.
    #[default]
    Subject,
    /// `oid` of Microsoft Entra: the object id, the same for every application. Of OpenID Connect alone.
    Oid,
}

/// Whose people the people of a connection are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConnectionDirectory)]
pub struct DirectoryMatch {
    /// The SCIM connector that keeps these people, by its name: `muster scim token list` shows it.
    pub connector: String,
    /// What its `externalId` is at the provider.
    #[serde(default)]
    pub by: MatchedBy,
    /// The role that the connector's groups give at most: one that can do more gives nothing through them. Whoever has a token of the
    /// connector puts people into its groups.
    #[serde(default = "most_unless_said")]
    #[schema(default = "administrator")]
    pub at_most: String,
}

/// Everything but the root document and identity providers.
pub const DIRECTORY_AT_MOST: &str = "administrator";

fn most_unless_said() -> String {
    DIRECTORY_AT_MOST.to_owned()
}

/// Who somebody is to a connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InDirectory {
    /// The connector's name.
    pub connector: String,
    pub external_id: String,
}

impl InDirectory {
    /// The connector, and the id by which it knows them; nothing where there is no such connector any more.
    pub fn known<'a>(
        &'a self,
        tx: &mut Tx,
        tenant: TenantId,
    ) -> Result<Option<(ClientId, &'a str)>, Problem> {
        let found = connector(tx, tenant, &self.connector)?;
        Ok(found.map(|connector| (connector, self.external_id.as_str())))
    }
}

impl DirectoryMatch {
    /// By what people are known. The ceiling of what they get is no part of it.
    pub fn known_by(&self) -> (&str, MatchedBy) {
        (&self.connector, self.by)
    }

    /// The person of this id, if it is one that is compared.
    pub fn person(&self, id: Option<&str>) -> Option<InDirectory> {
        let id = id.filter(|id| !id.trim().is_empty() && id.chars().count() <= ID_CHARS_MAX)?;
        Some(InDirectory {
            connector: self.connector.clone(),
            external_id: id.to_owned(),
        })
    }
}

/// Whoever says whose people these are can be any of them, also those who get a role later: only who may do everything says so, or
/// changes how such a connection knows people.
pub(super) fn require_for<S>(
    tx: &mut Tx,
    permit: &Permit<S>,
    tenant: TenantId,
    before: Option<&Definition>,
    to: &Definition,
) -> Result<(), Problem> {
    let (was, is) = (before.and_then(Definition::directory), to.directory());
    if was.is_none() && is.is_none() {
        return Ok(());
    }
    require_everything(permit)?;
    let Some(wanted) = is.filter(|_| was != is) else {
        return Ok(());
    };
    if connector(tx, tenant, &wanted.connector)?.is_none() {
        return Err(INVALID.detail(format!(
            "There is no SCIM connector {:?}. Make a token for it first: `muster scim token create`.",
            wanted.connector
        )));
    }
    if people::find_role(tx, tenant, &wanted.at_most)?.is_none() {
        return Err(INVALID.detail(format!(
            "at_most names a role, and there is none that is called {:?}: `muster access roles` lists them.",
            wanted.at_most
        )));
    }
    Ok(())
}

fn require_everything<S>(permit: &Permit<S>) -> Result<(), Problem> {
    permit.require_held(scope::ALL.iter().map(|(name, _)| *name))
}

/// The service account of a connector.
fn connector(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<ClientId>, Problem> {
    let found = clients::client_by_name(tx, tenant, name)?;
    Ok(found
        .filter(|client| client.disabled_at.is_none())
        .map(|client| client.id))
}

/// What connections of a tenant say of whose people theirs are.
pub fn links(tx: &mut Tx, tenant: TenantId) -> Result<Vec<DirectoryMatch>, Problem> {
    let mut found = Vec::new();
    for connection in store::connections(tx, tenant)? {
        found.extend(connection.definition()?.directory().cloned());
    }
    Ok(found)
}

/// Whether people of a connection have the roles of this connector's groups.
fn is_linked(tx: &mut Tx, tenant: TenantId, connector: &str) -> Result<bool, Problem> {
    Ok(links(tx, tenant)?.iter().any(|link| link.connector == connector))
}

/// The scopes that groups of a directory give the people of a connection at most.
pub fn ceiling(tx: &mut Tx, tenant: TenantId, connection: ConnectionId) -> Result<String, Problem> {
    let found = store::connection(tx, connection)?.filter(|found| found.tenant == tenant);
    let definition = found.map(|found| found.definition()).transpose()?;
    let Some(link) = definition.as_ref().and_then(Definition::directory) else {
        return Ok(String::new());
    };
    let role = people::find_role(tx, tenant, &link.at_most)?;
    Ok(role.map(|role| role.scopes).unwrap_or_default())
}

/// Refuses to make a way to act as a connector whose groups give roles, but by who may do everything.
pub fn require_for_connector<S>(
    tx: &mut Tx,
    permit: &Permit<S>,
    tenant: TenantId,
    connector: &str,
) -> Result<(), Problem> {
    if is_linked(tx, tenant, connector)? {
        require_everything(permit)?;
    }
    Ok(())
}
