//! Secrets of sources and keys of tenants are sealed anew when the sealing key was rotated.

use muster_model::{TenantId, Timestamp};
use muster_storage::Scope;

use super::{definition, keys, store};
use crate::{App, access, access::problem::Problem, audit, secrets::SealingRing};

/// The same secret under the newest key; `None` where it does not open.
fn anew(
    ring: &SealingRing,
    tenant: TenantId,
    context: &str,
    sealed: &[u8],
    now: Timestamp,
) -> Option<Vec<u8>> {
    if !ring.is_old(sealed, now) {
        return Some(sealed.to_vec());
    }
    let open = ring.unseal(tenant, context, sealed).ok()?;
    ring.seal(tenant, context, &open, now).ok()
}

/// Seals what an earlier key sealed with the newest one; answers whether everything is. It may stop anywhere and begin again.
pub async fn reseal(app: &App) -> Result<bool, Problem> {
    let (mut is_done, ring) = (true, &app.keys.sealing);
    for (tenant, _) in app.db.read(Scope::System, access::tenants).await? {
        let (scope, now) = (Scope::Tenant(tenant.uuid()), app.clock.now());
        let (sources, signers) = app
            .db
            .read(scope, move |tx| {
                Ok::<_, Problem>((store::sources(tx, tenant)?, store::keys(tx, tenant)?))
            })
            .await?;
        for source in sources {
            let context = definition::context(source.id);
            let (secret, before) = (source.secret.clone(), source.secret_before.clone());
            if !secret
                .iter()
                .chain(&before)
                .any(|sealed| ring.is_old(sealed, now))
            {
                continue;
            }
            // One before that does not open any more opens no door either.
            let fresh_before = before
                .as_deref()
                .and_then(|sealed| anew(ring, tenant, &context, sealed, now));
            let fresh = match &secret {
                None => None,
                Some(sealed) => match anew(ring, tenant, &context, sealed, now) {
                    Some(fresh) => Some(fresh),
                    None => {
                        is_done = false;
                        continue;
                    }
                },
            };
            let (id, revision) = (source.id, source.revision);
            let changed = audit::housekeeping(app, scope, move |tx| {
                Ok(store::reseal_source(
                    tx,
                    tenant,
                    id,
                    revision,
                    (&fresh, &fresh_before),
                )?)
            });
            is_done &= changed.await? == 1;
        }
        for key in signers.into_iter().filter(|key| ring.is_old(&key.secret, now)) {
            let Some(fresh) = anew(ring, tenant, &keys::context(&key.id), &key.secret, now) else {
                is_done = false;
                continue;
            };
            audit::housekeeping(app, scope, move |tx| {
                Ok(store::reseal_key(tx, tenant, &key.id, &fresh)?)
            })
            .await?;
        }
    }
    Ok(is_done)
}
