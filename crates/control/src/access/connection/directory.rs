//! People of a connection who are those whom a connector keeps by SCIM, so that the directory's groups can give them roles.
//!
//! A name at a provider proves nothing of a person of the directory: names are given anew, and whoever keeps one of the two can choose
//! them. So a tenant says, for one connection, which connector's people these are, and both name a person by an id that never
//! changes: the connector's `externalId` is the provider's subject.

use muster_model::{ClientId, TenantId};
use muster_storage::Tx;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Definition, store};
use crate::access::{
    Permit,
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
}

/// Who somebody is to a connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InDirectory {
    /// The connector's name.
    pub connector: String,
    pub external_id: String,
}

impl DirectoryMatch {
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
    match is {
        Some(wanted) if was != is => connector(tx, tenant, &wanted.connector)?
            .map(drop)
            .ok_or_else(|| {
                INVALID.detail(format!(
                    "There is no SCIM connector {:?}. Make a token for it first: `muster scim token create`.",
                    wanted.connector
                ))
            }),
        _ => Ok(()),
    }
}

fn require_everything<S>(permit: &Permit<S>) -> Result<(), Problem> {
    permit.require_held(scope::ALL.iter().map(|(name, _)| *name))
}

/// The service account of a connector.
pub fn connector(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<ClientId>, Problem> {
    let found = clients::client_by_name(tx, tenant, name)?;
    Ok(found
        .filter(|client| client.disabled_at.is_none())
        .map(|client| client.id))
}

/// Whether people of a connection have the roles of this connector's groups.
pub fn is_linked(tx: &mut Tx, tenant: TenantId, connector: &str) -> Result<bool, Problem> {
    for connection in store::connections(tx, tenant)? {
        let definition = connection.definition()?;
        if definition
            .directory()
            .is_some_and(|wanted| wanted.connector == connector)
        {
            return Ok(true);
        }
    }
    Ok(false)
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
