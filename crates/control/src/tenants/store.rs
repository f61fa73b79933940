//! SQL of the `tenants_` tables, and of every table: what is read for an export, and deleted with a tenant.

use std::sync::LazyLock;

use muster_model::{TenantId, Timestamp};
use muster_storage::{Row, Statement, StorageError, ToValue, Tx, Value, statements};
use uuid::Uuid;

use super::tables::{Column, ColumnKind, TABLES, Table};

statements! {
    INSERT_DRAFT = "INSERT INTO tenants_draft (tenant_id, draft_id, name, display_name, document, sealed, created_by, \
        created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";
    DRAFTS = "SELECT draft_id, name, display_name, document, sealed, created_by, created_at, expires_at FROM tenants_draft \
        WHERE tenant_id = $1 ORDER BY draft_id LIMIT 100";
    DRAFT = "SELECT draft_id, name, display_name, document, sealed, created_by, created_at, expires_at FROM tenants_draft \
        WHERE tenant_id = $1 AND draft_id = $2";
    REMOVE_DRAFT = "DELETE FROM tenants_draft WHERE tenant_id = $1 AND draft_id = $2";
    FORGET_DRAFTS = "DELETE FROM tenants_draft WHERE tenant_id = $1 AND expires_at <= $2";
    INSERT_CLOSING = "INSERT INTO tenants_closing (tenant_id, closing_id, name, state, statement, signers, reason, asked_by, \
        asked_at, erase_at, removed) VALUES ($1, $2, $3, 'waiting', $4, $5, $6, $7, $8, $9, '{}') ON CONFLICT DO NOTHING";
    CLOSINGS = "SELECT closing_id, name, state, statement, signers, reason, asked_by, asked_at, erase_at, erasing_at, note, \
        removed, deleted_at FROM tenants_closing WHERE tenant_id = $1 ORDER BY closing_id DESC LIMIT $2";
    CLOSING = "SELECT closing_id, name, state, statement, signers, reason, asked_by, asked_at, erase_at, erasing_at, note, \
        removed, deleted_at FROM tenants_closing WHERE tenant_id = $1 AND closing_id = $2";
    REMOVE_WAITING = "DELETE FROM tenants_closing WHERE tenant_id = $1 AND closing_id = $2 AND state = 'waiting'";
    BEGIN_ERASING = "UPDATE tenants_closing SET state = 'erasing', erasing_at = $3, note = $4 \
        WHERE tenant_id = $1 AND closing_id = $2 AND state = 'waiting'";
    NOTE_REMOVED = "UPDATE tenants_closing SET removed = $3 WHERE tenant_id = $1 AND closing_id = $2 AND state = 'erasing'";
    END_ERASING = "UPDATE tenants_closing SET state = 'deleted', deleted_at = $3 \
        WHERE tenant_id = $1 AND closing_id = $2 AND state = 'erasing'";
    TRIM_CLOSINGS = "DELETE FROM tenants_closing WHERE tenant_id = $1 AND state = 'deleted' AND deleted_at < \
        (SELECT deleted_at FROM tenants_closing WHERE tenant_id = $1 AND state = 'deleted' \
        ORDER BY deleted_at DESC LIMIT 1 OFFSET $2)";
}

/// A tenant whose first root document waits for its signatures.
#[derive(Debug, Clone)]
pub struct Draft {
    pub id: TenantId,
    pub name: String,
    pub display_name: String,
    /// The bytes that are to be signed.
    pub document: Vec<u8>,
    pub sealed: Vec<u8>,
    pub created_by: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// A tenant that ends or has ended.
#[derive(Debug, Clone)]
pub struct Closing {
    pub id: TenantId,
    pub name: String,
    pub state: ClosingState,
    /// The envelope that the root keys signed.
    pub statement: Vec<u8>,
    /// The keys that signed it, with spaces between.
    pub signers: String,
    pub reason: String,
    pub asked_by: String,
    pub asked_at: Timestamp,
    /// When the waiting time is over.
    pub erase_at: Timestamp,
    pub erasing_at: Option<Timestamp>,
    /// The newest checkpoint of its log.
    pub note: Option<String>,
    /// Rows that were deleted, by table, as JSON.
    pub removed: String,
    pub deleted_at: Option<Timestamp>,
}

/// How far the end of a tenant is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClosingState {
    Waiting,
    Erasing,
    Deleted,
}

fn draft_of(row: &Row<'_>) -> Result<Draft, StorageError> {
    Ok(Draft {
        id: TenantId::from_uuid(row.get(0)?),
        name: row.get(1)?,
        display_name: row.get(2)?,
        document: row.get(3)?,
        sealed: row.get(4)?,
        created_by: row.get(5)?,
        created_at: Timestamp::from_micros(row.get(6)?),
        expires_at: Timestamp::from_micros(row.get(7)?),
    })
}

/// Answers how many rows were written: none where the name is taken.
pub fn insert_draft(tx: &mut Tx, operator: TenantId, draft: &Draft) -> Result<u64, StorageError> {
    tx.execute(
        &INSERT_DRAFT,
        &[
            &operator.uuid(),
            &draft.id.uuid(),
            &draft.name,
            &draft.display_name,
            &draft.document,
            &draft.sealed,
            &draft.created_by,
            &draft.created_at.as_micros(),
            &draft.expires_at.as_micros(),
        ],
    )
}

pub fn drafts(tx: &mut Tx, operator: TenantId) -> Result<Vec<Draft>, StorageError> {
    tx.query(&DRAFTS, &[&operator.uuid()], draft_of)
}

pub fn draft(tx: &mut Tx, operator: TenantId, id: TenantId) -> Result<Option<Draft>, StorageError> {
    tx.query_opt(&DRAFT, &[&operator.uuid(), &id.uuid()], draft_of)
}

pub fn remove_draft(tx: &mut Tx, operator: TenantId, id: TenantId) -> Result<u64, StorageError> {
    tx.execute(&REMOVE_DRAFT, &[&operator.uuid(), &id.uuid()])
}

pub fn forget_drafts(tx: &mut Tx, operator: TenantId, now: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&FORGET_DRAFTS, &[&operator.uuid(), &now.as_micros()])
}

fn closing_of(row: &Row<'_>) -> Result<Closing, StorageError> {
    let at = |index| {
        row.get::<Option<i64>>(index)
            .map(|at| at.map(Timestamp::from_micros))
    };
    let state: String = row.get(2)?;
    Ok(Closing {
        id: TenantId::from_uuid(row.get(0)?),
        name: row.get(1)?,
        state: match state.as_str() {
            "erasing" => ClosingState::Erasing,
            "deleted" => ClosingState::Deleted,
            // A word that nobody here wrote deletes nothing.
            _ => ClosingState::Waiting,
        },
        statement: row.get(3)?,
        signers: row.get(4)?,
        reason: row.get(5)?,
        asked_by: row.get(6)?,
        asked_at: Timestamp::from_micros(row.get(7)?),
        erase_at: Timestamp::from_micros(row.get(8)?),
        erasing_at: at(9)?,
        note: row.get(10)?,
        removed: row.get(11)?,
        deleted_at: at(12)?,
    })
}

/// Answers how many rows were written: none where the tenant ends or has ended already.
pub fn insert_closing(tx: &mut Tx, operator: TenantId, closing: &Closing) -> Result<u64, StorageError> {
    tx.execute(
        &INSERT_CLOSING,
        &[
            &operator.uuid(),
            &closing.id.uuid(),
            &closing.name,
            &closing.statement,
            &closing.signers,
            &closing.reason,
            &closing.asked_by,
            &closing.asked_at.as_micros(),
            &closing.erase_at.as_micros(),
        ],
    )
}

/// The newest first.
pub fn closings(tx: &mut Tx, operator: TenantId, limit: i64) -> Result<Vec<Closing>, StorageError> {
    tx.query(&CLOSINGS, &[&operator.uuid(), &limit], closing_of)
}

pub fn closing(tx: &mut Tx, operator: TenantId, id: TenantId) -> Result<Option<Closing>, StorageError> {
    tx.query_opt(&CLOSING, &[&operator.uuid(), &id.uuid()], closing_of)
}

/// Takes back an end whose waiting time is not over.
pub fn remove_waiting(tx: &mut Tx, operator: TenantId, id: TenantId) -> Result<u64, StorageError> {
    tx.execute(&REMOVE_WAITING, &[&operator.uuid(), &id.uuid()])
}

pub fn begin_erasing(
    tx: &mut Tx,
    operator: TenantId,
    id: TenantId,
    (at, note): (Timestamp, Option<&str>),
) -> Result<u64, StorageError> {
    tx.execute(
        &BEGIN_ERASING,
        &[&operator.uuid(), &id.uuid(), &at.as_micros(), &note],
    )
}

pub fn note_removed(
    tx: &mut Tx,
    operator: TenantId,
    id: TenantId,
    removed: &str,
) -> Result<u64, StorageError> {
    tx.execute(&NOTE_REMOVED, &[&operator.uuid(), &id.uuid(), &removed])
}

pub fn end_erasing(
    tx: &mut Tx,
    operator: TenantId,
    id: TenantId,
    at: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(&END_ERASING, &[&operator.uuid(), &id.uuid(), &at.as_micros()])
}

/// Forgets the oldest ends beyond the newest `kept`.
pub fn trim_closings(tx: &mut Tx, operator: TenantId, kept: i64) -> Result<u64, StorageError> {
    tx.execute(&TRIM_CLOSINGS, &[&operator.uuid(), &(kept - 1)])
}

/// The statements of one table.
struct OfTable {
    /// A tenant's first rows, `$2` of them.
    first: Statement,
    /// A tenant's rows behind a key; the last parameter is how many.
    after: Option<Statement>,
    /// Deletes some rows of a tenant, `$2` of them; where a tenant has one row, that row.
    delete: Statement,
    count: Statement,
}

static OF_TABLES: LazyLock<Vec<OfTable>> = LazyLock::new(|| TABLES.iter().map(of_table).collect());

fn of_table(table: &Table) -> OfTable {
    let name = &table.name;
    let list = |columns: &[Column]| {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        names.join(", ")
    };
    let (columns, key) = (list(&table.columns), list(&table.key));
    let order = if key.is_empty() { "tenant_id" } else { &key };
    let places: Vec<String> = (2..2 + table.key.len())
        .map(|place| format!("${place}"))
        .collect();
    let (places, last) = (places.join(", "), table.key.len() + 2);
    let after = format!(
        "SELECT {columns} FROM {name} WHERE tenant_id = $1 AND ({key}) > ({places}) ORDER BY {order} LIMIT ${last}"
    );
    let delete = if key.is_empty() {
        format!("DELETE FROM {name} WHERE tenant_id = $1")
    } else {
        format!(
            "DELETE FROM {name} WHERE tenant_id = $1 AND ({key}) IN (SELECT {key} FROM {name} WHERE tenant_id = $1 LIMIT $2)"
        )
    };
    let statement = |what: &str, sql: String| Statement {
        // Once for each table, for as long as the program runs.
        name: Box::leak(format!("{what}_{name}").into_boxed_str()),
        sql: Box::leak(sql.into_boxed_str()),
    };
    OfTable {
        first: statement(
            "FIRST",
            format!("SELECT {columns} FROM {name} WHERE tenant_id = $1 ORDER BY {order} LIMIT $2"),
        ),
        after: (!key.is_empty()).then(|| statement("AFTER", after)),
        delete: statement("DELETE", delete),
        count: statement(
            "COUNT",
            format!("SELECT COUNT(*) FROM {name} WHERE tenant_id = $1"),
        ),
    }
}

/// The statements of every table, for the test that prepares them on both engines.
pub fn table_statements() -> Vec<Statement> {
    let of = |of: &OfTable| [Some(of.first), of.after, Some(of.delete), Some(of.count)];
    OF_TABLES.iter().flat_map(of).flatten().collect()
}

/// What a cell holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    Null,
    Uuid(Uuid),
    Text(String),
    Integer(i64),
    Bytes(Vec<u8>),
    Boolean(bool),
}

impl ToValue for Cell {
    fn to_value(&self) -> Value<'_> {
        match self {
            Cell::Null => Value::Null,
            Cell::Uuid(uuid) => Value::Uuid(*uuid),
            Cell::Text(text) => Value::Text(text),
            Cell::Integer(number) => Value::Int(*number),
            Cell::Bytes(bytes) => Value::Blob(bytes),
            Cell::Boolean(truth) => Value::Bool(*truth),
        }
    }
}

fn cell(row: &Row<'_>, index: usize, kind: ColumnKind) -> Result<Cell, StorageError> {
    let found = match kind {
        ColumnKind::Uuid => row.get::<Option<Uuid>>(index)?.map(Cell::Uuid),
        ColumnKind::Text => row.get::<Option<String>>(index)?.map(Cell::Text),
        ColumnKind::Integer => row.get::<Option<i64>>(index)?.map(Cell::Integer),
        ColumnKind::Bytes => row.get::<Option<Vec<u8>>>(index)?.map(Cell::Bytes),
        ColumnKind::Boolean => row.get::<Option<bool>>(index)?.map(Cell::Boolean),
    };
    Ok(found.unwrap_or(Cell::Null))
}

/// A row of any table, in the order of its columns.
pub type Cells = Vec<Cell>;

/// Some rows of a tenant in the order of the key, behind the row that is given.
pub fn rows(
    tx: &mut Tx,
    tenant: TenantId,
    (index, behind): (usize, Option<&Cells>),
    limit: i64,
) -> Result<Vec<Cells>, StorageError> {
    let (table, of) = (&TABLES[index], &OF_TABLES[index]);
    let read = |row: &Row<'_>| {
        let columns = table.columns.iter().enumerate();
        columns
            .map(|(at, column)| cell(row, at, column.kind))
            .collect::<Result<Cells, StorageError>>()
    };
    let tenant = tenant.uuid();
    let Some(behind) = behind else {
        return tx.query(&of.first, &[&tenant, &limit], read);
    };
    let Some(after) = &of.after else {
        return Ok(Vec::new());
    };
    let place = |column: &Column| table.columns.iter().position(|other| other.name == column.name);
    let key: Vec<&Cell> = table
        .key
        .iter()
        .filter_map(place)
        .filter_map(|at| behind.get(at))
        .collect();
    let mut params: Vec<&dyn ToValue> = vec![&tenant];
    params.extend(key.iter().map(|cell| *cell as &dyn ToValue));
    params.push(&limit);
    tx.query(after, &params, read)
}

/// Deletes some rows of a tenant; answers how many.
pub fn delete_rows(tx: &mut Tx, tenant: TenantId, index: usize, limit: i64) -> Result<u64, StorageError> {
    let tenant = tenant.uuid();
    if TABLES[index].key.is_empty() {
        return tx.execute(&OF_TABLES[index].delete, &[&tenant]);
    }
    tx.execute(&OF_TABLES[index].delete, &[&tenant, &limit])
}

/// How many rows of a table are a tenant's.
pub fn count(tx: &mut Tx, tenant: TenantId, index: usize) -> Result<u64, StorageError> {
    tx.query_one(&OF_TABLES[index].count, &[&tenant.uuid()], |row| row.get(0))
}

/// As `count`, by the table's name; none where there is no such table.
pub fn count_in(tx: &mut Tx, tenant: TenantId, table: &str) -> Result<u64, StorageError> {
    match TABLES.iter().position(|known| known.name == table) {
        Some(index) => count(tx, tenant, index),
        None => Ok(0),
    }
}
