//! The secrets of sinks among the secrets of the installation: their records, and sealing them anew under a new key.

use muster_model::{TenantId, Timestamp};
use muster_storage::{Scope, Tx};

use super::{
    definition::{Sink, context},
    store,
};
use crate::{
    App,
    access::{self, problem::Problem},
    audit,
    secrets::{self, Kind, Record, RotatedBy},
};

/// The record of a sink's secret.
pub fn record_name(sink: &str) -> String {
    format!("sink:{sink}")
}

/// Remembers that a sink was given a new secret.
pub fn note(tx: &mut Tx, tenant: TenantId, sink: &Sink, at: Timestamp) -> Result<(), Problem> {
    let before = secrets::record(tx, tenant, &record_name(&sink.name))?;
    let mut record = record(sink, at);
    record.version = before.map_or(0, |before| before.version) + 1;
    secrets::note(tx, tenant, &record)
}

fn record(sink: &Sink, at: Timestamp) -> Record {
    let kind = sink.definition.place.kind();
    let owner = format!("events to {} ({kind})", sink.name);
    let made = (Kind::DestinationSecret, RotatedBy::Holder);
    Record::new(record_name(&sink.name), made, owner, "database", at)
}

/// Writes records for secrets that were given before there were any.
pub async fn note_old_secrets(app: &App) -> Result<(), Problem> {
    for (tenant, _) in app.db.read(Scope::System, access::tenants).await? {
        audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
            for sink in store::sinks(tx, tenant)? {
                if sink.secret.is_some() {
                    secrets::note_old(tx, tenant, &record(&sink, sink.updated_at))?;
                }
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Seals what an earlier key sealed with the newest one; answers whether everything is. It may stop anywhere and begin again.
pub async fn reseal(app: &App) -> Result<bool, Problem> {
    let (mut is_done, ring) = (true, &app.keys.sealing);
    for (tenant, _) in app.db.read(Scope::System, access::tenants).await? {
        let scope = Scope::Tenant(tenant.uuid());
        let found = app
            .db
            .read(scope, move |tx| Ok::<_, Problem>(store::sealed(tx, tenant)?))
            .await?;
        for (name, before) in found {
            let now = app.clock.now();
            if !ring.is_old(&before, now) {
                continue;
            }
            let open = ring.unseal(tenant, &context(&name), &before).ok();
            let anew = open.and_then(|open| ring.seal(tenant, &context(&name), &open, now).ok());
            let Some(anew) = anew else {
                // What does not open holds the old key back, which might still open it.
                is_done = false;
                continue;
            };
            let changed = audit::housekeeping(app, scope, move |tx| {
                Ok(store::reseal(tx, tenant, &name, &before, &anew)?)
            });
            is_done &= changed.await? == 1;
        }
    }
    Ok(is_done)
}
