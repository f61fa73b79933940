//! Who vouches for a person of sign-in links.
//!
//! The name on a link is free to choose, and sessions, passkeys and limits are the name's. So a name belongs to the account that made the
//! first link for it. Another account makes one only while it holds everything that this account holds, and the name is its own from then
//! on if it holds more.

use muster_model::{TenantId, Timestamp};
use muster_storage::Tx;

use super::{
    people::store,
    problem::{FORBIDDEN, Problem},
    scope::{self, AccessWrite, Scope as _},
    session,
};
use crate::audit::LoggedTx;

/// That a name came to another account.
#[derive(Debug)]
pub struct PassedOn {
    pub before: Option<String>,
    pub sessions_ended: u64,
    pub links_ended: u64,
}

/// What the account holds now that vouches for a person; nothing where it is gone, or not known.
pub fn holdings(
    tx: &mut Tx,
    tenant: TenantId,
    person: &str,
    now: Timestamp,
) -> Result<Option<String>, Problem> {
    let Some(by) = store::voucher(tx, tenant, person)?.0 else {
        return Ok(None);
    };
    Ok(session::of_link(tx, (tenant, &by, ""), now)?.map(|held| held.scopes))
}

/// Has the account that acts vouch for a person who is known. `held` is what it may do in this request.
pub fn vouch(tx: &mut LoggedTx<'_>, person: &str, held: &str) -> Result<Option<PassedOn>, Problem> {
    let (tenant, at, account) = (tx.tenant(), tx.at(), tx.account());
    let (before, _) = store::voucher(tx, tenant, person)?;
    if before.as_deref() == Some(account.as_str()) {
        return Ok(None);
    }
    match holdings(tx, tenant, person, at)? {
        Some(most) => {
            if let Some(missing) = scope::missing(&most, held).first() {
                return Err(FORBIDDEN.detail(format!(
                    "Another account vouches for the person of this name, and holds {missing}, which the caller does not. \
                     Choose another name."
                )));
            }
            if scope::missing(held, &most).is_empty() {
                return Ok(None);
            }
        }
        None if scope::holds(held, AccessWrite::NAME) => {}
        None => {
            return Err(FORBIDDEN.detail(
                "The account that vouched for the person of this name is gone, or was not noted: who holds access:write \
                 makes the next link. Or choose another name.",
            ));
        }
    }
    // Who vouched before it was kept is not known to have been another one.
    let since = before.is_some().then_some(at);
    store::set_voucher(tx, tenant, person, (&account, since))?;
    Ok(Some(PassedOn {
        before,
        sessions_ended: store::end_sessions_by_others(tx, tenant, person, &account)?,
        links_ended: store::delete_links_by_others(tx, tenant, person, &account)?,
    }))
}
