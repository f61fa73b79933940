//! Devices follow their people: who may enroll a device of their own, and whether they still may when it comes.

use muster_model::{ConnectionId, Ownership, TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{belongs, store};
use crate::{
    App,
    access::{
        Permit, connection, is_barred, people,
        problem::{INVALID, NOT_FOUND, Problem},
        scope::{Scope as _, TokenWrite},
    },
    audit::LoggedTx,
};

const DEVICES_MAX: i64 = 100;
const TOKENS_PER_HOUR_MAX: i64 = 60;

/// That people of a connection enroll their own devices in a tenant, and how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelfEnrollment {
    /// Devices of one person: 1 to 100.
    pub devices_max: i64,
    /// Tokens that one person gets in an hour: 1 to 60.
    pub tokens_per_hour_max: i64,
    /// What their devices are: the tenant says so, not the person.
    pub ownership: Ownership,
    pub updated_by: String,
    pub updated_at: Timestamp,
}

/// Who asked for a token for their own device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Owner {
    /// The person as the log names them.
    pub person: String,
    #[schema(value_type = String)]
    pub connection: ConnectionId,
    /// What routing was told of them.
    pub(in crate::access) routed: Option<String>,
}

/// Whether, and how many, devices people of a connection enroll. Two who ask at once take turns, so that each counts the other.
pub fn hold_self_enrollment(
    tx: &mut LoggedTx<'_>,
    id: ConnectionId,
) -> Result<Option<SelfEnrollment>, Problem> {
    let tenant = tx.tenant();
    let held = store::hold_self_enrollment(tx, tenant, id)?;
    tx.excuse(held);
    Ok(store::self_enrollment(tx, tenant, id)?)
}

/// Whether, and how many, devices people of a connection enroll.
pub fn self_enrollment(
    tx: &mut Tx,
    tenant: TenantId,
    id: ConnectionId,
) -> Result<Option<SelfEnrollment>, Problem> {
    Ok(store::self_enrollment(tx, tenant, id)?)
}

/// Lets the people of a connection enroll their own devices, or not any more. The connection is the tenant's own, or one that it
/// takes people from.
pub fn set_self_enrollment(
    tx: &mut LoggedTx<'_>,
    id: ConnectionId,
    limits: Option<(i64, i64, Ownership)>,
) -> Result<Option<SelfEnrollment>, Problem> {
    let (tenant, by, at) = (tx.tenant(), tx.actor(), tx.at());
    let is_own = connection::open_of(tx, tenant, id)?.is_some();
    if limits.is_some() && !is_own && store::acceptance(tx, tenant, id)?.is_none() {
        return Err(NOT_FOUND.detail("The tenant has no such connection, or it signs nobody in."));
    }
    let object = ("connection", id.to_string());
    let Some((devices_max, tokens_per_hour_max, ownership)) = limits else {
        if store::delete_self_enrollment(tx, tenant, id)? == 0 {
            return Err(NOT_FOUND.detail("People of this connection enroll no devices."));
        }
        tx.record("access.self_enrollment_off", object, serde_json::json!({}))?;
        return Ok(None);
    };
    if !(1..=DEVICES_MAX).contains(&devices_max) || !(1..=TOKENS_PER_HOUR_MAX).contains(&tokens_per_hour_max)
    {
        return Err(INVALID.detail("devices_max is 1 to 100, tokens_per_hour_max 1 to 60."));
    }
    let settings = SelfEnrollment {
        devices_max,
        tokens_per_hour_max,
        ownership,
        updated_by: by,
        updated_at: at,
    };
    store::put_self_enrollment(tx, (tenant, id), &settings)?;
    tx.record(
        "access.self_enrollment_on",
        object,
        serde_json::json!({"devices_max": devices_max, "tokens_per_hour_max": tokens_per_hour_max, "ownership": ownership}),
    )?;
    Ok(Some(settings))
}

/// Refuses to decide who comes by a connection whose people enroll devices to whoever may not make enrollment tokens: they could come
/// as anybody, and get one.
pub(in crate::access) fn require_tokens<S>(
    tx: &mut Tx,
    permit: &Permit<S>,
    (tenant, id): (TenantId, ConnectionId),
) -> Result<(), Problem> {
    match store::self_enrollment(tx, tenant, id)? {
        Some(_) => permit.require_held([TokenWrite::NAME].into_iter()),
        None => Ok(()),
    }
}

/// Why the person of a token is not who they were when they asked for it; nothing where they are. Asked across tenants, because the
/// rules of a connection are another tenant's.
pub async fn stands_in(app: &App, tenant: TenantId, owner: Owner) -> Result<Option<&'static str>, Problem> {
    app.db
        .read(Scope::System, move |tx| {
            let Some(person) = people::person(tx, tenant, &owner.person)? else {
                return Ok(Some("the person who asked for the token is not known any more"));
            };
            if person.disabled_at.is_some() {
                return Ok(Some("the person who asked for the token was disabled"));
            }
            if is_barred(tx, tenant, &person.name)? || is_barred(tx, tenant, &person.username)? {
                return Ok(Some(
                    "the directory says that the person who asked for the token is not active",
                ));
            }
            let found = connection::store::connection(tx, owner.connection)?;
            let Some(connection) = found.filter(|one| one.disabled_at.is_none()) else {
                return Ok(Some(
                    "the connection by which the person came signs nobody in any more",
                ));
            };
            if store::self_enrollment(tx, tenant, owner.connection)?.is_none() {
                return Ok(Some("people of this connection enroll no devices any more"));
            }
            let said = (owner.routed.as_deref(), person.member_of.as_slice());
            let belongs = belongs(tx, tenant, &connection, said, person.outside.as_ref())?;
            Ok::<_, Problem>(
                (!belongs).then_some("the person who asked for the token was moved or held meanwhile"),
            )
        })
        .await
}

impl Owner {
    /// The owner as a token keeps them.
    pub fn stored(person: String, connection: ConnectionId, routed: Option<String>) -> Owner {
        Owner {
            person,
            connection,
            routed,
        }
    }

    /// What routing was told, as a token keeps it.
    pub fn told(&self) -> Option<&str> {
        self.routed.as_deref()
    }
}
