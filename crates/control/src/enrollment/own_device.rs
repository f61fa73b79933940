//! A person enrolls a device of their own: they prove who they are at their identity provider, and get one token for one device of the
//! tenant that they belong to.

use std::time::Duration;

use muster_model::text::DeviceUuid;

use super::{MadeToken, NewTokenRequest, create_token, store};
use crate::{
    App,
    access::{
        outside::Proven,
        problem::{ENROLLMENT_LIMIT, ENROLLMENT_NOT_ALLOWED, Problem},
        routing,
    },
    audit, devices,
};

/// Devices of one owner that are looked at: more than anybody may have.
const DEVICES_LOOKED_AT: usize = 200;

/// Makes the token of somebody who has just proven who they are, for this device. Their connection must let people enroll, and they
/// must be within its limits.
pub async fn own_device(app: &App, proven: Proven, device: DeviceUuid) -> Result<MadeToken, Problem> {
    let (shared, author) = (app.clone(), proven.author());
    audit::commit(app, &author, move |tx| {
        let (tenant, at) = (tx.tenant(), tx.at());
        let owner = proven.owner();
        let settings = routing::hold_self_enrollment(tx, owner.connection)?.ok_or_else(|| {
            ENROLLMENT_NOT_ALLOWED.detail(
                "People do not enroll devices by this way to sign in. Ask whoever looks after devices.",
            )
        })?;
        let hour_ago = at.minus(Duration::from_secs(3600));
        if store::asked_by(tx, tenant, &owner.person, hour_ago)? >= settings.tokens_per_hour_max {
            return Err(ENROLLMENT_LIMIT.detail(format!(
                "You asked for {} tokens within an hour, which is the most. Try again later.",
                settings.tokens_per_hour_max
            )));
        }
        let key = muster_scim::name_key(proven.name());
        let theirs = devices::of_owner(tx, tenant, &key, DEVICES_LOOKED_AT)?;
        let live = theirs
            .iter()
            .filter(|one| one.state != devices::DeviceState::Retired);
        if i64::try_from(live.count()).unwrap_or(i64::MAX) >= settings.devices_max {
            return Err(ENROLLMENT_LIMIT.detail(format!(
                "You have {} devices, which is the most. Ask whoever looks after devices to retire one.",
                settings.devices_max
            )));
        }
        let new = NewTokenRequest {
            owner: Some(proven.name().to_owned()),
            ownership: settings.ownership,
            person: Some(owner.clone()),
            ..NewTokenRequest::for_device(device.uuid())
        };
        create_token(tx, &shared, &new)
    })
    .await
}
