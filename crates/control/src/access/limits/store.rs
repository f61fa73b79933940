//! SQL of the `access_limits` table.

use muster_model::{TenantId, Timestamp};
use muster_storage::{Row, StorageError, Tx, statements};

use super::{Limits, Set};

statements! {
    LIMITS_OF = "SELECT tenant_id, requests_per_second, requests_per_second_of_caller, device_messages_per_second, devices_max, \
        people_max, changed_by, changed_at FROM access_limits WHERE tenant_id = $1";
    ALL_LIMITS = "SELECT tenant_id, requests_per_second, requests_per_second_of_caller, device_messages_per_second, devices_max, \
        people_max, changed_by, changed_at FROM access_limits ORDER BY tenant_id LIMIT $1";
    TAKE_TURN = "UPDATE access_limits SET changed_at = changed_at WHERE tenant_id = $1";
    PUT_LIMITS = "INSERT INTO access_limits (tenant_id, requests_per_second, requests_per_second_of_caller, \
        device_messages_per_second, devices_max, people_max, changed_by, changed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
        ON CONFLICT (tenant_id) DO UPDATE SET requests_per_second = excluded.requests_per_second, \
        requests_per_second_of_caller = excluded.requests_per_second_of_caller, \
        device_messages_per_second = excluded.device_messages_per_second, devices_max = excluded.devices_max, \
        people_max = excluded.people_max, changed_by = excluded.changed_by, changed_at = excluded.changed_at";
}

fn set_of(row: &Row<'_>) -> Result<(TenantId, Set), StorageError> {
    let number = |index: usize| -> Result<Option<u32>, StorageError> {
        let stored = row.get::<Option<i64>>(index)?;
        // What nobody here wrote is read as the nearest number that could be.
        Ok(stored.map(|stored| u32::try_from(stored.max(0)).unwrap_or(u32::MAX)))
    };
    let set = Set {
        limits: Limits {
            requests_per_second: number(1)?,
            requests_per_second_of_caller: number(2)?,
            device_messages_per_second: number(3)?,
            devices_max: number(4)?,
            people_max: number(5)?,
        },
        changed_by: row.get(6)?,
        changed_at: Timestamp::from_micros(row.get(7)?),
    };
    Ok((TenantId::from_uuid(row.get(0)?), set))
}

pub fn limits_of(tx: &mut Tx, tenant: TenantId) -> Result<Option<Set>, StorageError> {
    let found = tx.query_opt(&LIMITS_OF, &[&tenant.uuid()], set_of)?;
    Ok(found.map(|(_, set)| set))
}

/// Holds the row until the transaction ends.
pub fn take_turn(tx: &mut Tx, tenant: TenantId) -> Result<(), StorageError> {
    tx.execute(&TAKE_TURN, &[&tenant.uuid()]).map(drop)
}

/// Those of every tenant that has some of its own, at most `most`.
pub fn all_limits(tx: &mut Tx, most: i64) -> Result<Vec<(TenantId, Set)>, StorageError> {
    tx.query(&ALL_LIMITS, &[&most], set_of)
}

pub fn put_limits(
    tx: &mut Tx,
    tenant: TenantId,
    limits: &Limits,
    (by, at): (&str, Timestamp),
) -> Result<(), StorageError> {
    let number = |limit: Option<u32>| limit.map(i64::from);
    tx.execute(
        &PUT_LIMITS,
        &[
            &tenant.uuid(),
            &number(limits.requests_per_second),
            &number(limits.requests_per_second_of_caller),
            &number(limits.device_messages_per_second),
            &number(limits.devices_max),
            &number(limits.people_max),
            &by,
            &at.as_micros(),
        ],
    )
    .map(drop)
}
