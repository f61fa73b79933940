//! SQL of the `audit_` tables.

use muster_model::{EntryId, TenantId, Timestamp};
use muster_storage::{Row, StorageError, Tx, statements};
use muster_trust::entry::LogEntry;

statements! {
    INSERT_ENTRY = "INSERT INTO audit_entry (tenant_id, entry_id, action, actor, object_id, body, seal) \
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    UNLABELED = "SELECT tenant_id, entry_id, body FROM audit_entry WHERE actor = '' \
        ORDER BY tenant_id, entry_id LIMIT $1";
    LABEL = "UPDATE audit_entry SET actor = $3 WHERE tenant_id = $1 AND entry_id = $2 AND actor = ''";
    PENDING_TENANTS = "SELECT t.tenant_id FROM access_tenant t WHERE EXISTS \
        (SELECT 1 FROM audit_entry e WHERE e.tenant_id = t.tenant_id AND e.seq IS NULL)";
    PENDING = "SELECT entry_id, body, seal FROM audit_entry WHERE tenant_id = $1 AND seq IS NULL \
        ORDER BY entry_id LIMIT $2";
    WAITING = "SELECT entry_id, action, object_id FROM audit_entry WHERE seq IS NULL \
        ORDER BY tenant_id, entry_id LIMIT $1";
    PLACE = "UPDATE audit_entry SET seq = $3 WHERE tenant_id = $1 AND entry_id = $2 AND seq IS NULL";
    TREE = "SELECT size, note FROM audit_tree WHERE tenant_id = $1";
    TREES = "SELECT tenant_id, size, note FROM audit_tree";
    PUT_TREE = "INSERT INTO audit_tree (tenant_id, size, note, updated_at) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (tenant_id) DO UPDATE SET size = $2, note = $3, updated_at = $4 \
        WHERE audit_tree.size <= $2";
    TILE = "SELECT hashes FROM audit_tile WHERE tenant_id = $1 AND level = $2 AND tile_index = $3";
    PUT_TILE = "INSERT INTO audit_tile (tenant_id, level, tile_index, hashes) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (tenant_id, level, tile_index) DO UPDATE SET hashes = $4";
    ENTRY_BY_ID = "SELECT entry_id, seq, body FROM audit_entry WHERE tenant_id = $1 AND entry_id = $2";
    PLACE_OF = "SELECT seq FROM audit_entry WHERE tenant_id = $1 AND entry_id = $2";
    ENTRY_BY_PLACE = "SELECT entry_id, seq, body FROM audit_entry WHERE tenant_id = $1 AND seq = $2";
    ENTRIES_FROM = "SELECT entry_id, seq, body FROM audit_entry WHERE tenant_id = $1 AND seq >= $2 \
        ORDER BY seq LIMIT $3";
    ENTRIES_BEFORE = "SELECT entry_id, seq, body FROM audit_entry WHERE tenant_id = $1 AND seq < $2 \
        ORDER BY seq DESC LIMIT $3";
    ENTRIES_OF = "SELECT entry_id, seq, body FROM audit_entry WHERE tenant_id = $1 AND object_id = $2 AND seq < $3 \
        ORDER BY seq DESC LIMIT $4";
    ACTED = "SELECT entry_id FROM audit_entry WHERE tenant_id = $1 AND actor = $2 LIMIT 1";
    REFUSED_SINCE = "SELECT object_id, action FROM audit_entry WHERE tenant_id = $1 AND entry_id >= $2 \
        AND action IN ('policy.change_refused', 'policy.bundle_refused') ORDER BY entry_id DESC LIMIT $3";
    ANY_ENTRY = "SELECT body FROM audit_entry WHERE tenant_id = $1 AND entry_id = $2";
    ROWS_FROM = "SELECT seq, body, entry_id, action, object_id, actor FROM audit_entry WHERE tenant_id = $1 AND seq >= $2 ORDER BY seq LIMIT $3";
    SEALED_OF = "SELECT entry_id, body, seal FROM audit_entry WHERE tenant_id = $1 AND object_id = $2 \
        AND action = $3 ORDER BY entry_id DESC LIMIT $4";
    SEALED = "SELECT entry_id, body, seal FROM audit_entry WHERE tenant_id = $1 AND entry_id = $2";
    UNPLACED = "SELECT entry_id, body, seal FROM audit_entry WHERE tenant_id = $1 AND seq IS NULL \
        ORDER BY entry_id LIMIT $2";
}

/// An entry with its place in the tree. The body is the exact bytes whose hash is the leaf.
#[derive(Debug, Clone)]
pub struct EntryRow {
    pub id: EntryId,
    pub place: u64,
    pub body: Vec<u8>,
}

impl EntryRow {
    /// The entry as written, or why it cannot be read.
    pub fn entry(&self) -> Result<LogEntry, String> {
        LogEntry::from_bytes(&self.body).map_err(|error| error.to_string())
    }
}

/// A refused attempt to change what is signed.
#[derive(Debug, Clone)]
pub struct RefusedChange {
    /// The policy that it was about.
    pub object: String,
    pub action: String,
}

/// An entry that waits for its place.
pub struct PendingRow {
    pub id: EntryId,
    pub body: Vec<u8>,
    pub seal: Vec<u8>,
}

/// The columns of an entry without a place, for who only wants to know what it touches.
pub struct WaitingRow {
    pub id: EntryId,
    pub action: String,
    pub object: String,
}

/// The head of a tenant's tree as stored.
pub struct TreeRow {
    pub tenant: TenantId,
    pub size: u64,
    pub note: String,
}

/// Writes an entry without a place; answers how many rows the database took.
pub fn insert_entry(tx: &mut Tx, entry: &LogEntry, body: &[u8], seal: &[u8]) -> Result<u64, StorageError> {
    tx.execute(
        &INSERT_ENTRY,
        &[
            &entry.tenant.uuid(),
            &entry.id.uuid(),
            &entry.action.as_str(),
            &entry.actor.id.as_str(),
            &entry.object.id.as_str(),
            &body,
            &seal,
        ],
    )
}

/// Entries of before their actor was kept in a column, of all tenants.
pub fn unlabeled(tx: &mut Tx, limit: i64) -> Result<Vec<(TenantId, EntryId, Vec<u8>)>, StorageError> {
    tx.query(&UNLABELED, &[&limit], |row| {
        Ok((
            TenantId::from_uuid(row.get(0)?),
            EntryId::from_uuid(row.get(1)?),
            row.get(2)?,
        ))
    })
}

pub fn label(tx: &mut Tx, tenant: TenantId, id: EntryId, actor: &str) -> Result<u64, StorageError> {
    tx.execute(&LABEL, &[&tenant.uuid(), &id.uuid(), &actor])
}

pub fn pending_tenants(tx: &mut Tx) -> Result<Vec<TenantId>, StorageError> {
    tx.query(&PENDING_TENANTS, &[], |row| Ok(TenantId::from_uuid(row.get(0)?)))
}

pub fn pending(tx: &mut Tx, tenant: TenantId, limit: i64) -> Result<Vec<PendingRow>, StorageError> {
    tx.query(&PENDING, &[&tenant.uuid(), &limit], pending_of)
}

/// Entries without a place, of all tenants.
pub fn waiting(tx: &mut Tx, limit: usize) -> Result<Vec<WaitingRow>, StorageError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    tx.query(&WAITING, &[&limit], |row| {
        Ok(WaitingRow {
            id: EntryId::from_uuid(row.get(0)?),
            action: row.get(1)?,
            object: row.get(2)?,
        })
    })
}

/// Entries without a place, as the verifier lists them.
pub fn unplaced(tx: &mut Tx, tenant: TenantId, limit: i64) -> Result<Vec<PendingRow>, StorageError> {
    tx.query(&UNPLACED, &[&tenant.uuid(), &limit], pending_of)
}

/// The rows of what was done to an object, the newest first, whether they have their places or not.
pub fn sealed_of(
    tx: &mut Tx,
    tenant: TenantId,
    (object, action): (&str, &str),
    limit: i64,
) -> Result<Vec<PendingRow>, StorageError> {
    tx.query(
        &SEALED_OF,
        &[&tenant.uuid(), &object, &action, &limit],
        pending_of,
    )
}

pub fn sealed(tx: &mut Tx, tenant: TenantId, id: EntryId) -> Result<Option<PendingRow>, StorageError> {
    tx.query_opt(&SEALED, &[&tenant.uuid(), &id.uuid()], pending_of)
}

pub fn place(tx: &mut Tx, tenant: TenantId, id: EntryId, place: u64) -> Result<u64, StorageError> {
    tx.execute(&PLACE, &[&tenant.uuid(), &id.uuid(), &signed(place)])
}

pub fn tree(tx: &mut Tx, tenant: TenantId) -> Result<Option<TreeRow>, StorageError> {
    tx.query_opt(&TREE, &[&tenant.uuid()], |row| {
        Ok(TreeRow {
            tenant,
            size: row.get(0)?,
            note: row.get(1)?,
        })
    })
}

pub fn trees(tx: &mut Tx) -> Result<Vec<TreeRow>, StorageError> {
    tx.query(&TREES, &[], |row| {
        Ok(TreeRow {
            tenant: TenantId::from_uuid(row.get(0)?),
            size: row.get(1)?,
            note: row.get(2)?,
        })
    })
}

/// Stores the new head; answers 0 when a larger tree is already there.
pub fn put_tree(tx: &mut Tx, tree: &TreeRow, at: Timestamp) -> Result<u64, StorageError> {
    tx.execute(
        &PUT_TREE,
        &[
            &tree.tenant.uuid(),
            &signed(tree.size),
            &tree.note.as_str(),
            &at.as_micros(),
        ],
    )
}

pub fn tile(tx: &mut Tx, tenant: TenantId, level: u8, index: u64) -> Result<Option<Vec<u8>>, StorageError> {
    tx.query_opt(
        &TILE,
        &[&tenant.uuid(), &i64::from(level), &signed(index)],
        |row| row.get(0),
    )
}

pub fn put_tile(
    tx: &mut Tx,
    tenant: TenantId,
    level: u8,
    index: u64,
    hashes: &[u8],
) -> Result<(), StorageError> {
    tx.execute(
        &PUT_TILE,
        &[&tenant.uuid(), &i64::from(level), &signed(index), &hashes],
    )
    .map(drop)
}

pub fn entry_by_id(tx: &mut Tx, tenant: TenantId, id: EntryId) -> Result<Option<EntryRow>, StorageError> {
    let found = tx.query_opt(&ENTRY_BY_ID, &[&tenant.uuid(), &id.uuid()], |row| {
        let place: Option<u64> = row.get(1)?;
        place.is_some().then(|| entry_of(row)).transpose()
    })?;
    Ok(found.flatten())
}

/// The place of an entry, if it has one; none at all where there is no such entry.
pub fn place_of(tx: &mut Tx, tenant: TenantId, id: EntryId) -> Result<Option<Option<i64>>, StorageError> {
    tx.query_opt(&PLACE_OF, &[&tenant.uuid(), &id.uuid()], |row| row.get(0))
}

pub fn entry_by_place(tx: &mut Tx, tenant: TenantId, place: u64) -> Result<Option<EntryRow>, StorageError> {
    tx.query_opt(&ENTRY_BY_PLACE, &[&tenant.uuid(), &signed(place)], entry_of)
}

pub fn entries_from(
    tx: &mut Tx,
    tenant: TenantId,
    from: u64,
    limit: i64,
) -> Result<Vec<EntryRow>, StorageError> {
    tx.query(&ENTRIES_FROM, &[&tenant.uuid(), &signed(from), &limit], entry_of)
}

pub fn entries_before(
    tx: &mut Tx,
    tenant: TenantId,
    before: i64,
    limit: i64,
) -> Result<Vec<EntryRow>, StorageError> {
    tx.query(&ENTRIES_BEFORE, &[&tenant.uuid(), &before, &limit], entry_of)
}

/// The refused attempts since an entry's id, newest first, at most `limit`.
pub fn refused_since(
    tx: &mut Tx,
    tenant: TenantId,
    since: EntryId,
    limit: i64,
) -> Result<Vec<RefusedChange>, StorageError> {
    tx.query(&REFUSED_SINCE, &[&tenant.uuid(), &since.uuid(), &limit], |row| {
        Ok(RefusedChange {
            object: row.get(0)?,
            action: row.get(1)?,
        })
    })
}

/// Whether there is an entry of this actor.
pub fn has_acted(tx: &mut Tx, tenant: TenantId, actor: &str) -> Result<bool, StorageError> {
    let found = tx.query_opt(&ACTED, &[&tenant.uuid(), &actor], |row| row.get::<uuid::Uuid>(0))?;
    Ok(found.is_some())
}

pub fn entries_of(
    tx: &mut Tx,
    tenant: TenantId,
    object: &str,
    before: i64,
    limit: i64,
) -> Result<Vec<EntryRow>, StorageError> {
    tx.query(&ENTRIES_OF, &[&tenant.uuid(), &object, &before, &limit], entry_of)
}

/// The bytes of an entry, whether it has its place or not.
pub fn body(tx: &mut Tx, tenant: TenantId, id: EntryId) -> Result<Option<Vec<u8>>, StorageError> {
    tx.query_opt(&ANY_ENTRY, &[&tenant.uuid(), &id.uuid()], |row| row.get(0))
}

/// A row with a place, whole: its bytes and the columns that repeat parts of them.
pub struct PlacedRow {
    pub place: i64,
    pub body: Vec<u8>,
    pub id: EntryId,
    pub action: String,
    pub object: String,
    /// Empty in entries of before it was kept.
    pub actor: String,
}

/// Rows in the order of their places, from `from` on. A place that no tree can have is answered too.
pub fn rows_from(
    tx: &mut Tx,
    tenant: TenantId,
    from: i64,
    limit: i64,
) -> Result<Vec<PlacedRow>, StorageError> {
    tx.query(&ROWS_FROM, &[&tenant.uuid(), &from, &limit], |row| {
        Ok(PlacedRow {
            place: row.get(0)?,
            body: row.get(1)?,
            id: EntryId::from_uuid(row.get(2)?),
            action: row.get(3)?,
            object: row.get(4)?,
            actor: row.get(5)?,
        })
    })
}

fn entry_of(row: &Row<'_>) -> Result<EntryRow, StorageError> {
    Ok(EntryRow {
        id: EntryId::from_uuid(row.get(0)?),
        place: row.get(1)?,
        body: row.get(2)?,
    })
}

fn pending_of(row: &Row<'_>) -> Result<PendingRow, StorageError> {
    Ok(PendingRow {
        id: EntryId::from_uuid(row.get(0)?),
        body: row.get(1)?,
        seal: row.get(2)?,
    })
}

/// Places and sizes fit a signed column: a tree never reaches 2^63 leaves.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
