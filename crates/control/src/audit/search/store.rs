//! SQL of the search: each statement walks one index backwards or forwards from a place.

use muster_model::{EntryId, TenantId};
use muster_storage::{Row, StorageError, Tx, statements};

use super::super::store::EntryRow;

statements! {
    FORWARD = "SELECT entry_id, seq, body FROM audit_entry WHERE tenant_id = $1 AND seq > $2 AND seq < $3 \
        ORDER BY seq LIMIT $4";
    BACKWARD = "SELECT entry_id, seq, body FROM audit_entry WHERE tenant_id = $1 AND seq > $2 AND seq < $3 \
        ORDER BY seq DESC LIMIT $4";
    FORWARD_OBJECT = "SELECT entry_id, seq, body FROM audit_entry WHERE tenant_id = $1 AND object_id = $5 \
        AND seq > $2 AND seq < $3 ORDER BY seq LIMIT $4";
    BACKWARD_OBJECT = "SELECT entry_id, seq, body FROM audit_entry WHERE tenant_id = $1 AND object_id = $5 \
        AND seq > $2 AND seq < $3 ORDER BY seq DESC LIMIT $4";
    FORWARD_ACTOR = "SELECT entry_id, seq, body FROM audit_entry WHERE tenant_id = $1 AND actor = $5 \
        AND seq > $2 AND seq < $3 ORDER BY seq LIMIT $4";
    BACKWARD_ACTOR = "SELECT entry_id, seq, body FROM audit_entry WHERE tenant_id = $1 AND actor = $5 \
        AND seq > $2 AND seq < $3 ORDER BY seq DESC LIMIT $4";
    FORWARD_ACTION = "SELECT entry_id, seq, body FROM audit_entry WHERE tenant_id = $1 AND action = $5 \
        AND seq > $2 AND seq < $3 ORDER BY seq LIMIT $4";
    BACKWARD_ACTION = "SELECT entry_id, seq, body FROM audit_entry WHERE tenant_id = $1 AND action = $5 \
        AND seq > $2 AND seq < $3 ORDER BY seq DESC LIMIT $4";
    PLACE_BEFORE = "SELECT seq FROM audit_entry WHERE tenant_id = $1 AND entry_id < $2 AND seq IS NOT NULL \
        ORDER BY entry_id DESC LIMIT 1";
    COUNT_ACTION = "SELECT COUNT(*) FROM (SELECT seq FROM audit_entry WHERE tenant_id = $1 AND action = $2 AND seq > $3 \
        LIMIT $4) counted";
}

/// Which index a search walks.
#[derive(Debug, Clone, Copy)]
pub enum Along<'a> {
    Places,
    Object(&'a str),
    Actor(&'a str),
    Action(&'a str),
}

/// A piece of an index: places above `above` and below `below`.
#[derive(Debug, Clone, Copy)]
pub struct Stretch {
    pub above: i64,
    pub below: i64,
    pub newest_first: bool,
}

pub fn walk(
    tx: &mut Tx,
    tenant: TenantId,
    along: Along<'_>,
    stretch: Stretch,
    limit: i64,
) -> Result<Vec<EntryRow>, StorageError> {
    let (statement, key) = match (along, stretch.newest_first) {
        (Along::Places, false) => (&FORWARD, None),
        (Along::Places, true) => (&BACKWARD, None),
        (Along::Object(key), false) => (&FORWARD_OBJECT, Some(key)),
        (Along::Object(key), true) => (&BACKWARD_OBJECT, Some(key)),
        (Along::Actor(key), false) => (&FORWARD_ACTOR, Some(key)),
        (Along::Actor(key), true) => (&BACKWARD_ACTOR, Some(key)),
        (Along::Action(key), false) => (&FORWARD_ACTION, Some(key)),
        (Along::Action(key), true) => (&BACKWARD_ACTION, Some(key)),
    };
    let Stretch { above, below, .. } = stretch;
    match key {
        None => tx.query(statement, &[&tenant.uuid(), &above, &below, &limit], row_of),
        Some(key) => tx.query(statement, &[&tenant.uuid(), &above, &below, &limit, &key], row_of),
    }
}

/// The place of the newest entry whose id is smaller: entry ids begin with their time.
pub fn place_before(tx: &mut Tx, tenant: TenantId, id: EntryId) -> Result<Option<i64>, StorageError> {
    tx.query_opt(&PLACE_BEFORE, &[&tenant.uuid(), &id.uuid()], |row| row.get(0))
}

/// How many entries of an action lie above a place, counted up to a limit.
pub fn count_action(
    tx: &mut Tx,
    tenant: TenantId,
    action: &str,
    above: i64,
    limit: i64,
) -> Result<u64, StorageError> {
    tx.query_one(&COUNT_ACTION, &[&tenant.uuid(), &action, &above, &limit], |row| {
        row.get(0)
    })
}

fn row_of(row: &Row<'_>) -> Result<EntryRow, StorageError> {
    Ok(EntryRow {
        id: EntryId::from_uuid(row.get(0)?),
        place: row.get(1)?,
        body: row.get(2)?,
    })
}
