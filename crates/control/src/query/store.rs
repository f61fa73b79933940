//! SQL of the `query_` tables.

use muster_model::{DeviceId, QueryRunId, RefreshId, TenantId, Timestamp};
use muster_storage::{Row, StorageError, Tx, statements};

use super::{RUNS_KEPT, SAVED_MAX, refresh::Refresh, saved::Saved, view::AnswerView};

macro_rules! saved_columns {
    () => {
        "name, description, question, schedule, owner, created_at, updated_by, updated_at, version, next_run_at"
    };
}
macro_rules! run_columns {
    () => {
        "run_id, ran_at, took_ms, row_count, added, removed, error"
    };
}
macro_rules! refresh_columns {
    () => {
        "refresh_id, question, asked_by, created_at, deadline_at, ended_at, asked_to, is_listed, devices, asked, away, unanswered"
    };
}

statements! {
    LIST_SAVED = concat!("SELECT ", saved_columns!(), " FROM query_saved WHERE tenant_id = $1 ORDER BY name LIMIT $2");
    SAVED = concat!("SELECT ", saved_columns!(), " FROM query_saved WHERE tenant_id = $1 AND name = $2");
    COUNT_SAVED = "SELECT COUNT(*) FROM query_saved WHERE tenant_id = $1";
    PUT_SAVED = concat!("INSERT INTO query_saved (tenant_id, ", saved_columns!(), ") \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (tenant_id, name) DO UPDATE SET description = $3, \
        question = $4, schedule = $5, updated_by = $8, updated_at = $9, version = $10, next_run_at = $11");
    DELETE_SAVED = "DELETE FROM query_saved WHERE tenant_id = $1 AND name = $2";
    DELETE_RUNS_OF = "DELETE FROM query_run WHERE tenant_id = $1 AND name = $2";
    DUE_QUERIES = concat!("SELECT tenant_id, ", saved_columns!(), " FROM query_saved WHERE next_run_at IS NOT NULL \
        AND EXISTS (SELECT 1 FROM access_tenant t WHERE t.tenant_id = query_saved.tenant_id AND t.state = 'active') \
        AND next_run_at <= $1 ORDER BY next_run_at, tenant_id, name LIMIT $2");
    QUERY_RAN = "UPDATE query_saved SET next_run_at = $4 WHERE tenant_id = $1 AND name = $2 AND next_run_at = $3";

    INSERT_RUN = concat!("INSERT INTO query_run (tenant_id, name, answer, ", run_columns!(), ") \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)");
    RUNS = concat!("SELECT ", run_columns!(), " FROM query_run WHERE tenant_id = $1 AND name = $2 ORDER BY run_id DESC LIMIT $3");
    RUN = concat!("SELECT ", run_columns!(), ", answer FROM query_run WHERE tenant_id = $1 AND name = $2 AND run_id = $3");
    ANSWER_BEFORE = "SELECT answer FROM query_run WHERE tenant_id = $1 AND name = $2 AND run_id < $3 AND answer IS NOT NULL \
        ORDER BY run_id DESC LIMIT 1";
    SURPLUS_RUNS = "SELECT run_id FROM query_run WHERE tenant_id = $1 AND name = $2 ORDER BY run_id DESC LIMIT 100 OFFSET $3";
    DELETE_RUN = "DELETE FROM query_run WHERE tenant_id = $1 AND name = $2 AND run_id = $3";

    INSERT_REFRESH = concat!("INSERT INTO query_refresh (tenant_id, ", refresh_columns!(), ") \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)");
    REFRESH = concat!("SELECT ", refresh_columns!(), " FROM query_refresh WHERE tenant_id = $1 AND refresh_id = $2");
    OPEN_REFRESHES = concat!("SELECT tenant_id, ", refresh_columns!(), " FROM query_refresh WHERE ended_at IS NULL \
        ORDER BY tenant_id, refresh_id");
    COUNT_OPEN_REFRESHES = "SELECT COUNT(*) FROM query_refresh WHERE tenant_id = $1 AND ended_at IS NULL";
    HOLD_REFRESH = "UPDATE query_refresh SET asked = asked WHERE tenant_id = $1 AND refresh_id = $2 AND asked_to = $3 \
        AND ended_at IS NULL";
    ADVANCE_REFRESH = "UPDATE query_refresh SET asked_to = $3, is_listed = $4, devices = $5, asked = $6, away = $7 \
        WHERE tenant_id = $1 AND refresh_id = $2 AND ended_at IS NULL";
    END_REFRESH = "UPDATE query_refresh SET ended_at = $3, unanswered = $4 WHERE tenant_id = $1 AND refresh_id = $2 \
        AND ended_at IS NULL";
    REFRESHES_ENDED_BEFORE = "SELECT tenant_id, refresh_id FROM query_refresh WHERE ended_at IS NOT NULL AND ended_at < $1 \
        ORDER BY ended_at LIMIT $2";
    SURPLUS_REFRESHES = "SELECT refresh_id FROM query_refresh WHERE tenant_id = $1 AND ended_at IS NOT NULL \
        ORDER BY refresh_id DESC LIMIT 100 OFFSET $2";
    DELETE_REFRESH = "DELETE FROM query_refresh WHERE tenant_id = $1 AND refresh_id = $2";

    INSERT_ASKED = "INSERT INTO query_asked (tenant_id, refresh_id, device_id) VALUES ($1, $2, $3) \
        ON CONFLICT (tenant_id, refresh_id, device_id) DO NOTHING";
    COUNT_ASKED = "SELECT COUNT(*) FROM query_asked WHERE tenant_id = $1 AND refresh_id = $2";
    ASKED_AFTER = "SELECT device_id FROM query_asked WHERE tenant_id = $1 AND refresh_id = $2 AND device_id > $3 \
        ORDER BY device_id LIMIT $4";
    IS_ASKED = "SELECT 1 FROM query_asked WHERE tenant_id = $1 AND device_id = $2 LIMIT 1";
    ANSWERED = "DELETE FROM query_asked WHERE tenant_id = $1 AND device_id = $2";
    FORGET_ASKED = "DELETE FROM query_asked WHERE tenant_id = $1 AND refresh_id = $2";
}

pub fn list_saved(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Saved>, StorageError> {
    let most = i64::try_from(SAVED_MAX).unwrap_or(i64::MAX);
    tx.query(&LIST_SAVED, &[&tenant.uuid(), &most], |row| saved_of(row, 0))
}

pub fn saved(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<Saved>, StorageError> {
    tx.query_opt(&SAVED, &[&tenant.uuid(), &name], |row| saved_of(row, 0))
}

pub fn count_saved(tx: &mut Tx, tenant: TenantId) -> Result<i64, StorageError> {
    tx.query_one(&COUNT_SAVED, &[&tenant.uuid()], |row| row.get(0))
}

pub fn put_saved(tx: &mut Tx, tenant: TenantId, saved: &Saved) -> Result<(), StorageError> {
    let schedule = saved
        .schedule
        .as_ref()
        .and_then(|schedule| serde_json::to_string(schedule).ok());
    tx.execute(
        &PUT_SAVED,
        &[
            &tenant.uuid(),
            &saved.name.as_str(),
            &saved.description.as_str(),
            &saved.question.as_str(),
            &schedule,
            &saved.owner.as_str(),
            &saved.created_at.as_micros(),
            &saved.updated_by.as_str(),
            &saved.updated_at.as_micros(),
            &saved.version,
            &saved.next_run_at.map(|at| at.as_micros()),
        ],
    )
    .map(drop)
}

/// Deletes a question and its answers.
pub fn delete_saved(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<(), StorageError> {
    tx.execute(&DELETE_RUNS_OF, &[&tenant.uuid(), &name])?;
    tx.execute(&DELETE_SAVED, &[&tenant.uuid(), &name]).map(drop)
}

/// Across tenants: questions whose time has come, those that wait longest first.
pub fn due(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<(TenantId, Saved)>, StorageError> {
    tx.query(&DUE_QUERIES, &[&now.as_micros(), &limit], |row| {
        Ok((TenantId::from_uuid(row.get(0)?), saved_of(row, 1)?))
    })
}

/// Notes that the run of `due_at` is over; 0 when another node did, or somebody changed the schedule.
pub fn ran(
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
    due_at: Timestamp,
    next: Timestamp,
) -> Result<u64, StorageError> {
    let (due_at, next) = (due_at.as_micros(), next.as_micros());
    tx.execute(&QUERY_RAN, &[&tenant.uuid(), &name, &due_at, &next])
}

/// An answer to a saved question.
#[derive(Debug, Clone)]
pub struct StoredRun {
    pub id: QueryRunId,
    pub at: Timestamp,
    pub took_ms: i64,
    pub rows: i64,
    pub added: Option<i64>,
    pub removed: Option<i64>,
    /// With its text. Absent where it was not read.
    pub answer: Option<(AnswerView, String)>,
    pub error: Option<String>,
}

pub fn insert_run(tx: &mut Tx, tenant: TenantId, name: &str, run: &StoredRun) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_RUN,
        &[
            &tenant.uuid(),
            &name,
            &run.answer.as_ref().map(|(_, text)| text.as_str()),
            &run.id.uuid(),
            &run.at.as_micros(),
            &run.took_ms,
            &run.rows,
            &run.added,
            &run.removed,
            &run.error,
        ],
    )
    .map(drop)
}

/// The newest runs of a question first, without their answers.
pub fn runs(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Vec<StoredRun>, StorageError> {
    let most = i64::try_from(RUNS_KEPT).unwrap_or(i64::MAX);
    tx.query(&RUNS, &[&tenant.uuid(), &name, &most], run_of)
}

/// A run with the text of its answer.
pub fn run(
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
    id: QueryRunId,
) -> Result<Option<(StoredRun, Option<String>)>, StorageError> {
    tx.query_opt(&RUN, &[&tenant.uuid(), &name, &id.uuid()], |row| {
        Ok((run_of(row)?, row.get(7)?))
    })
}

/// The answer of the newest run before `id` that has one.
pub fn answer_before(
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
    id: QueryRunId,
) -> Result<Option<String>, StorageError> {
    tx.query_opt(&ANSWER_BEFORE, &[&tenant.uuid(), &name, &id.uuid()], |row| {
        row.get(0)
    })
}

/// The newest answer that there is.
pub fn newest_answer(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<String>, StorageError> {
    answer_before(tx, tenant, name, QueryRunId::from_uuid(uuid::Uuid::max()))
}

/// Deletes all runs but the newest.
pub fn forget_runs(tx: &mut Tx, tenant: TenantId, name: &str, kept: usize) -> Result<(), StorageError> {
    let kept = i64::try_from(kept).unwrap_or(i64::MAX);
    let surplus = tx.query(&SURPLUS_RUNS, &[&tenant.uuid(), &name, &kept], |row| {
        row.get::<uuid::Uuid>(0)
    })?;
    for run in surplus {
        tx.execute(&DELETE_RUN, &[&tenant.uuid(), &name, &run])?;
    }
    Ok(())
}

pub fn insert_refresh(tx: &mut Tx, tenant: TenantId, refresh: &Refresh) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_REFRESH,
        &[
            &tenant.uuid(),
            &refresh.id.uuid(),
            &refresh.question.as_str(),
            &refresh.asked_by.as_str(),
            &refresh.created_at.as_micros(),
            &refresh.deadline_at.as_micros(),
            &refresh.ended_at.map(|at| at.as_micros()),
            &refresh.asked_to.uuid(),
            &refresh.is_listed,
            &refresh.devices,
            &refresh.asked,
            &refresh.away,
            &refresh.unanswered,
        ],
    )
    .map(drop)
}

pub fn refresh(tx: &mut Tx, tenant: TenantId, id: RefreshId) -> Result<Option<Refresh>, StorageError> {
    tx.query_opt(&REFRESH, &[&tenant.uuid(), &id.uuid()], |row| refresh_of(row, 0))
}

/// Across tenants: refreshes that have not ended. There are few: see `REFRESHES_OPEN_MAX`.
pub fn open(tx: &mut Tx) -> Result<Vec<(TenantId, Refresh)>, StorageError> {
    tx.query(&OPEN_REFRESHES, &[], |row| {
        Ok((TenantId::from_uuid(row.get(0)?), refresh_of(row, 1)?))
    })
}

pub fn count_open(tx: &mut Tx, tenant: TenantId) -> Result<i64, StorageError> {
    tx.query_one(&COUNT_OPEN_REFRESHES, &[&tenant.uuid()], |row| row.get(0))
}

/// Holds a refresh until the transaction ends; 0 when it went on meanwhile.
pub fn hold_refresh(tx: &mut Tx, tenant: TenantId, refresh: &Refresh) -> Result<u64, StorageError> {
    let parameters: [&dyn muster_storage::ToValue; 3] =
        [&tenant.uuid(), &refresh.id.uuid(), &refresh.asked_to.uuid()];
    tx.execute(&HOLD_REFRESH, &parameters)
}

pub fn advance_refresh(tx: &mut Tx, tenant: TenantId, refresh: &Refresh) -> Result<(), StorageError> {
    tx.execute(
        &ADVANCE_REFRESH,
        &[
            &tenant.uuid(),
            &refresh.id.uuid(),
            &refresh.asked_to.uuid(),
            &refresh.is_listed,
            &refresh.devices,
            &refresh.asked,
            &refresh.away,
        ],
    )
    .map(drop)
}

pub fn end_refresh(
    tx: &mut Tx,
    tenant: TenantId,
    id: RefreshId,
    now: Timestamp,
    unanswered: i64,
) -> Result<(), StorageError> {
    let now = now.as_micros();
    tx.execute(&END_REFRESH, &[&tenant.uuid(), &id.uuid(), &now, &unanswered])
        .map(drop)
}

/// Deletes all refreshes of a tenant that ended but the newest.
pub fn forget_surplus_refreshes(tx: &mut Tx, tenant: TenantId, kept: i64) -> Result<(), StorageError> {
    let surplus = tx.query(&SURPLUS_REFRESHES, &[&tenant.uuid(), &kept], |row| {
        row.get::<uuid::Uuid>(0)
    })?;
    for id in surplus {
        tx.execute(&DELETE_REFRESH, &[&tenant.uuid(), &id])?;
    }
    Ok(())
}

pub fn forget_refreshes(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<(), StorageError> {
    let ended = tx.query(&REFRESHES_ENDED_BEFORE, &[&before.as_micros(), &limit], |row| {
        Ok((row.get::<uuid::Uuid>(0)?, row.get::<uuid::Uuid>(1)?))
    })?;
    for (tenant, id) in ended {
        tx.execute(&DELETE_REFRESH, &[&tenant, &id])?;
    }
    Ok(())
}

pub fn insert_asked(
    tx: &mut Tx,
    tenant: TenantId,
    id: RefreshId,
    device: DeviceId,
) -> Result<(), StorageError> {
    tx.execute(&INSERT_ASKED, &[&tenant.uuid(), &id.uuid(), &device.uuid()])
        .map(drop)
}

/// Devices that were asked and have not answered.
pub fn count_asked(tx: &mut Tx, tenant: TenantId, id: RefreshId) -> Result<i64, StorageError> {
    tx.query_one(&COUNT_ASKED, &[&tenant.uuid(), &id.uuid()], |row| row.get(0))
}

/// Devices behind `after` that were asked and have not answered, in the order of their ids.
pub fn asked_after(
    tx: &mut Tx,
    tenant: TenantId,
    id: RefreshId,
    after: DeviceId,
    limit: i64,
) -> Result<Vec<DeviceId>, StorageError> {
    let parameters: [&dyn muster_storage::ToValue; 4] = [&tenant.uuid(), &id.uuid(), &after.uuid(), &limit];
    tx.query(&ASKED_AFTER, &parameters, |row| {
        Ok(DeviceId::from_uuid(row.get(0)?))
    })
}

pub fn is_asked(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<bool, StorageError> {
    let found = tx.query_opt(&IS_ASKED, &[&tenant.uuid(), &device.uuid()], |row| {
        row.get::<i64>(0)
    })?;
    Ok(found.is_some())
}

/// A device has answered every refresh that asked it.
pub fn answered(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<(), StorageError> {
    tx.execute(&ANSWERED, &[&tenant.uuid(), &device.uuid()]).map(drop)
}

pub fn forget_asked(tx: &mut Tx, tenant: TenantId, id: RefreshId) -> Result<(), StorageError> {
    tx.execute(&FORGET_ASKED, &[&tenant.uuid(), &id.uuid()]).map(drop)
}

fn saved_of(row: &Row<'_>, at: usize) -> Result<Saved, StorageError> {
    let schedule: Option<String> = row.get(at + 3)?;
    Ok(Saved {
        name: row.get(at)?,
        description: row.get(at + 1)?,
        question: row.get(at + 2)?,
        schedule: schedule.and_then(|schedule| serde_json::from_str(&schedule).ok()),
        owner: row.get(at + 4)?,
        created_at: Timestamp::from_micros(row.get(at + 5)?),
        updated_by: row.get(at + 6)?,
        updated_at: Timestamp::from_micros(row.get(at + 7)?),
        version: row.get(at + 8)?,
        next_run_at: row.get::<Option<i64>>(at + 9)?.map(Timestamp::from_micros),
    })
}

fn run_of(row: &Row<'_>) -> Result<StoredRun, StorageError> {
    Ok(StoredRun {
        id: QueryRunId::from_uuid(row.get(0)?),
        at: Timestamp::from_micros(row.get(1)?),
        took_ms: row.get(2)?,
        rows: row.get(3)?,
        added: row.get(4)?,
        removed: row.get(5)?,
        answer: None,
        error: row.get(6)?,
    })
}

fn refresh_of(row: &Row<'_>, at: usize) -> Result<Refresh, StorageError> {
    Ok(Refresh {
        id: RefreshId::from_uuid(row.get(at)?),
        question: row.get(at + 1)?,
        asked_by: row.get(at + 2)?,
        created_at: Timestamp::from_micros(row.get(at + 3)?),
        deadline_at: Timestamp::from_micros(row.get(at + 4)?),
        ended_at: row.get::<Option<i64>>(at + 5)?.map(Timestamp::from_micros),
        asked_to: DeviceId::from_uuid(row.get(at + 6)?),
        is_listed: row.get(at + 7)?,
        devices: row.get(at + 8)?,
        asked: row.get(at + 9)?,
        away: row.get(at + 10)?,
        unanswered: row.get(at + 11)?,
    })
}
