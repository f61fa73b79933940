//! Devices follow what the directory says of their owners.

use muster_model::DeviceId;
use muster_storage::Scope;

use super::recheck;
use crate::{
    App,
    access::problem::Problem,
    audit,
    devices::{
        self, DeviceState,
        changes::{self, Changes},
    },
    directory::{self, Touched},
    groups,
};

/// People whose devices one call looks at.
const PEOPLE_PER_CALL: usize = 100;
/// Devices of one owner; who has more is a shared account, whose others follow when they report.
const DEVICES_MAX: usize = 1000;
/// Devices of one transaction.
const DEVICES_AT_ONCE: usize = 50;

/// Evaluates the groups of the devices whose owners changed, and has their compliance looked at. Answers whether there is more
/// to do at once.
pub async fn follow_owners(app: &App) -> Result<bool, Problem> {
    let has_walked = directory::walk(app).await?;
    let people = app
        .db
        .read(Scope::System, |tx| directory::touched(tx, PEOPLE_PER_CALL))
        .await?;
    let is_full = people.len() == PEOPLE_PER_CALL;
    for person in people {
        follow(app, person).await?;
    }
    Ok(has_walked || is_full)
}

async fn follow(app: &App, person: Touched) -> Result<(), Problem> {
    let tenant = person.tenant;
    let scope = Scope::Tenant(tenant.uuid());
    let key = person.name_key.clone();
    let owned = app
        .db
        .read(scope, move |tx| devices::of_owner(tx, tenant, &key, DEVICES_MAX))
        .await?;
    let active = owned.iter().filter(|device| device.state == DeviceState::Active);
    let ids: Vec<DeviceId> = active.map(|device| device.id).collect();
    for some in ids.chunks(DEVICES_AT_ONCE) {
        let (shared, some, now) = (app.clone(), some.to_vec(), app.clock.now());
        let moves = audit::housekeeping(app, scope, {
            let some = some.clone();
            move |tx| {
                for device in &some {
                    changes::mark(tx, tenant, *device, Changes::LABELS)?;
                }
                groups::settle(&shared, tx, tenant, &some, now)
            }
        })
        .await?;
        groups::note(app, &moves);
        for device in some {
            recheck(app, tenant, Some(device)).await?;
        }
    }
    audit::housekeeping(app, scope, move |tx| directory::untouch(tx, &person)).await
}
