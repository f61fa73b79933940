//! The database's side of the device CAs: what each tenant's log says of them, and what their retirement revokes.

use std::collections::BTreeMap;

use muster_model::{TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::store;
use crate::{
    App,
    access::{self, Author, problem::Problem},
    audit::{self, LoggedTx},
    secrets::{AuthoritySet, AuthorityState},
};

const RETIRED: &str = "the certificate authority was retired";
/// Certificates that the doctor reads at a time.
const PAGE: i64 = 500;
/// Findings that the doctor lists at most.
const BROKEN_MAX: usize = 100;

/// Names the authority of certificates that are older than this knowledge. Once, at the start.
pub async fn adopt_unnamed(app: &App) -> Result<u64, Problem> {
    let set = app.keys.authority.set();
    let Some(first) = set.first_device_ca().map(str::to_owned) else {
        return Ok(0);
    };
    audit::housekeeping(app, Scope::System, move |tx| Ok(store::adopt(tx, &first)?)).await
}

/// Notes the authorities that a tenant begins with, which are no change. Once, at the start.
pub async fn note_beginnings(app: &App) -> Result<(), Problem> {
    for (tenant, news) in news(app).await? {
        let News::Beginning(states) = news else { continue };
        let now = app.clock.now();
        audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
            for (id, state) in &states {
                store::put_authority(tx, tenant, id, state.as_str(), now)?;
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Records in every tenant's log what the register says of the device CAs and the log does not yet, and revokes what a
/// retired one signed. A reconciler's step, under a lease.
pub async fn follow_register(app: &App) -> Result<(), Problem> {
    note_beginnings(app).await?;
    for (tenant, news) in news(app).await? {
        let News::Changes(states) = news else { continue };
        audit::commit(app, &Author::system(tenant), move |tx| {
            for (id, state) in &states {
                record(tx, id, *state)?;
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// What the register says and a tenant's rows do not.
enum News {
    Beginning(Vec<(String, AuthorityState)>),
    Changes(Vec<(String, AuthorityState)>),
}

async fn news(app: &App) -> Result<Vec<(TenantId, News)>, Problem> {
    let set = app.keys.authority.set();
    let states: Vec<(String, AuthorityState)> = set
        .device_cas()
        .map(|member| (member.id.clone(), member.state))
        .collect();
    let tenants = app.db.read(Scope::System, access::tenants).await?;
    let mut all = Vec::new();
    for (tenant, _) in tenants {
        let known: BTreeMap<String, String> = app
            .db
            .read(Scope::Tenant(tenant.uuid()), move |tx| {
                Ok::<_, Problem>(store::authorities(tx, tenant)?.into_iter().collect())
            })
            .await?;
        if known.is_empty() {
            all.push((tenant, News::Beginning(states.clone())));
            continue;
        }
        let changed: Vec<(String, AuthorityState)> = states
            .iter()
            .filter(|(id, state)| known.get(id).map(String::as_str) != Some(state.as_str()))
            .cloned()
            .collect();
        if !changed.is_empty() {
            all.push((tenant, News::Changes(changed)));
        }
    }
    Ok(all)
}

fn record(tx: &mut LoggedTx<'_>, id: &str, state: AuthorityState) -> Result<(), Problem> {
    let (tenant, at) = (tx.tenant(), tx.at());
    store::put_authority(tx, tenant, id, state.as_str(), at)?;
    let (action, revoked) = match state {
        // It has no certificate, so it is in no set of authorities.
        AuthorityState::Requested => return Ok(()),
        AuthorityState::Active => ("certificate.authority_activated", None),
        AuthorityState::Superseded => ("certificate.authority_superseded", None),
        AuthorityState::Retired => {
            let revoked = store::revoke_of_authority(tx, tenant, id, at, RETIRED)?;
            ("certificate.authority_retired", Some(revoked))
        }
    };
    let detail = match revoked {
        Some(revoked) => serde_json::json!({"certificates": revoked}),
        None => serde_json::json!({}),
    };
    tx.record(action, ("authority", id.to_owned()), detail)?;
    Ok(())
}

/// What breaks "an unexpired certificate chains to a device CA, and a revoked one is in its list", for the doctor.
pub fn broken_chains(
    tx: &mut Tx,
    set: &AuthoritySet,
    tenant: TenantId,
    now: Timestamp,
) -> Result<Vec<String>, Problem> {
    let mut broken = Vec::new();
    let mut after = String::new();
    loop {
        let page = store::unexpired(tx, tenant, now, &after, PAGE)?;
        let Some(last) = page.last() else {
            return Ok(broken);
        };
        after.clone_from(&last.serial);
        for row in page {
            let id = row.authority.as_deref().or(set.first_device_ca());
            let accepted = set.accepted(now).any(|member| Some(member.id.as_str()) == id);
            match id.and_then(|id| set.find(id)) {
                None if row.is_revoked => broken.push(format!(
                    "certificate {} is revoked and in no list: its authority is unknown",
                    row.serial
                )),
                None => broken.push(format!("certificate {} is of an unknown authority", row.serial)),
                Some(_) if !row.is_revoked && !accepted => broken.push(format!(
                    "certificate {} is valid and its authority is not accepted",
                    row.serial
                )),
                Some(member) if !row.der.is_empty() && !is_signed_by(&row.der, member.key.point()) => {
                    broken.push(format!(
                        "certificate {} is not signed by its authority",
                        row.serial
                    ));
                }
                Some(_) => {}
            }
            if broken.len() >= BROKEN_MAX {
                return Ok(broken);
            }
        }
    }
}

fn is_signed_by(der: &[u8], point: &[u8]) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return false;
    };
    aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ECDSA_P256_SHA256_ASN1, point)
        .verify(
            certificate.tbs_certificate.as_ref(),
            &certificate.signature_value.data,
        )
        .is_ok()
}
