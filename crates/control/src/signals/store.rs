//! SQL of the `signals_` tables.

use std::time::Duration;

use muster_model::{DeviceId, SignalArrivalId, SignalSourceId, TenantId, Timestamp};
use muster_storage::{Row, StorageError, ToValue, Tx, statements};
use uuid::Uuid;

use super::{
    definition::SignalSource,
    rules::{Dated, SaidRow},
};

macro_rules! source_columns {
    () => {
        "source_id, name, definition, secret, secret_before, secret_before_until, revision, updated_by, updated_at"
    };
}
macro_rules! said_columns {
    () => {
        "verdict, verdict_at, risk, risk_at, user_risk, user_risk_at, assurance, assurance_at, detail, observed_at, \
         session_revoked_at, credential_changed_at"
    };
}

statements! {
    SOURCES = concat!("SELECT ", source_columns!(), " FROM signals_source WHERE tenant_id = $1 AND deleted_at IS NULL \
        ORDER BY name");
    SOURCE = concat!("SELECT ", source_columns!(), " FROM signals_source WHERE tenant_id = $1 AND name = $2 \
        AND deleted_at IS NULL");
    SOURCE_BY_ID = concat!("SELECT ", source_columns!(), ", tenant_id FROM signals_source WHERE source_id = $1 \
        AND deleted_at IS NULL");
    HOLD_SOURCE = "UPDATE signals_source SET revision = revision WHERE tenant_id = $1 AND source_id = $2 AND deleted_at IS NULL";
    PUT_SOURCE = concat!("INSERT INTO signals_source (tenant_id, max_age_seconds, ", source_columns!(), ") \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (tenant_id, source_id) DO UPDATE SET \
        max_age_seconds = $2, definition = $5, secret = $6, secret_before = $7, secret_before_until = $8, revision = $9, \
        updated_by = $10, updated_at = $11");
    DELETE_SOURCE = "UPDATE signals_source SET deleted_at = $3, secret = NULL, secret_before = NULL \
        WHERE tenant_id = $1 AND source_id = $2";
    DELETED = "SELECT tenant_id, source_id FROM signals_source WHERE deleted_at IS NOT NULL LIMIT $1";
    MAX_AGE = "SELECT max_age_seconds FROM signals_source WHERE tenant_id = $1 AND source_id = $2 AND deleted_at IS NULL";
    DROP_SOURCE = "DELETE FROM signals_source WHERE tenant_id = $1 AND source_id = $2";
    DROP_TALLY = "DELETE FROM signals_tally WHERE tenant_id = $1 AND source_id = $2";

    TALLY = "SELECT received, taken, repeated, unmatched, refused, received_at, taken_at, error, error_at FROM signals_tally \
        WHERE tenant_id = $1 AND source_id = $2";
    COUNT = "INSERT INTO signals_tally (tenant_id, source_id, received, taken, repeated, unmatched, refused, received_at, \
        taken_at, error, error_at) VALUES ($1, $2, 1, $3, $4, $5, $6, $7, $8, $9, $10) \
        ON CONFLICT (tenant_id, source_id) DO UPDATE SET received = signals_tally.received + 1, \
        taken = signals_tally.taken + $3, repeated = signals_tally.repeated + $4, \
        unmatched = signals_tally.unmatched + $5, refused = signals_tally.refused + $6, received_at = $7, \
        taken_at = COALESCE($8, signals_tally.taken_at), error = COALESCE($9, signals_tally.error), \
        error_at = COALESCE($10, signals_tally.error_at)";

    OF_DEVICE = concat!("SELECT d.name, d.max_age_seconds, ", said_columns!(), " FROM signals_said s \
        JOIN signals_source d ON d.tenant_id = s.tenant_id AND d.source_id = s.source_id \
        WHERE s.tenant_id = $1 AND s.device_id = $2 AND d.deleted_at IS NULL");
    SAID = concat!("SELECT ", said_columns!(), " FROM signals_said WHERE tenant_id = $1 AND device_id = $2 AND source_id = $3");
    PUT_SAID = concat!("INSERT INTO signals_said (tenant_id, device_id, source_id, due_at, ", said_columns!(), ") \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) \
        ON CONFLICT (tenant_id, device_id, source_id) DO UPDATE SET due_at = CASE WHEN signals_said.due_at < $4 \
        THEN signals_said.due_at ELSE $4 END, verdict = $5, verdict_at = $6, risk = $7, \
        risk_at = $8, user_risk = $9, user_risk_at = $10, assurance = $11, assurance_at = $12, detail = $13, \
        observed_at = $14, session_revoked_at = $15, credential_changed_at = $16");
    DUE = "SELECT tenant_id, device_id, source_id, due_at FROM signals_said WHERE due_at <= $1 AND EXISTS (SELECT 1 \
        FROM access_tenant t WHERE t.tenant_id = signals_said.tenant_id AND t.state = 'active') ORDER BY due_at LIMIT $2";
    FOLLOWED = "UPDATE signals_said SET due_at = $5 WHERE tenant_id = $1 AND device_id = $2 AND source_id = $3 AND due_at = $4";
    SAID_BY = "SELECT device_id FROM signals_said WHERE tenant_id = $1 AND source_id = $2 ORDER BY observed_at LIMIT $3";
    DROP_SAID = "DELETE FROM signals_said WHERE tenant_id = $1 AND device_id = $2 AND source_id = $3";
    FORGET_SAID = "DELETE FROM signals_said WHERE tenant_id = $1 AND source_id = $2 AND device_id IN (SELECT device_id \
        FROM signals_said WHERE tenant_id = $1 AND source_id = $2 AND observed_at < $3 ORDER BY observed_at LIMIT $4)";
    COUNT_SAID = "SELECT COUNT(*) FROM signals_said WHERE tenant_id = $1 AND source_id = $2";

    SEE = "INSERT INTO signals_seen (tenant_id, source_id, message_sha256, seen_at) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (tenant_id, source_id, message_sha256) DO NOTHING";
    FORGET_SEEN = "DELETE FROM signals_seen WHERE tenant_id = $1 AND source_id = $2 AND seen_at < $3";
    TRIM_SEEN = "DELETE FROM signals_seen WHERE tenant_id = $1 AND source_id = $2 AND seen_at < (SELECT seen_at \
        FROM signals_seen WHERE tenant_id = $1 AND source_id = $2 ORDER BY seen_at DESC LIMIT 1 OFFSET $3)";

    UNMATCH = "INSERT INTO signals_unmatched (tenant_id, source_id, subject, reason, times, first_at, last_at) \
        VALUES ($1, $2, $3, $4, 1, $5, $5) ON CONFLICT (tenant_id, source_id, subject) DO UPDATE SET \
        times = signals_unmatched.times + 1, reason = $4, last_at = $5";
    UNMATCHED = "SELECT subject, reason, times, first_at, last_at FROM signals_unmatched WHERE tenant_id = $1 \
        AND source_id = $2 ORDER BY last_at DESC LIMIT $3";
    TRIM_UNMATCHED = "DELETE FROM signals_unmatched WHERE tenant_id = $1 AND source_id = $2 AND last_at < (SELECT last_at \
        FROM signals_unmatched WHERE tenant_id = $1 AND source_id = $2 ORDER BY last_at DESC LIMIT 1 OFFSET $3)";
    MATCHED = "DELETE FROM signals_unmatched WHERE tenant_id = $1 AND source_id = $2 AND subject = $3";
    FORGET_UNMATCHED = "DELETE FROM signals_unmatched WHERE tenant_id = $1 AND source_id = $2 AND last_at < $3";

    ARRIVED = "INSERT INTO signals_arrival (tenant_id, arrival_id, source_id, arrived_at, event, subject, device_id, devices, \
        outcome, detail) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    ARRIVALS = "SELECT a.arrival_id, d.name, a.arrived_at, a.event, a.subject, a.device_id, a.devices, a.outcome, a.detail \
        FROM signals_arrival a JOIN signals_source d ON d.tenant_id = a.tenant_id AND d.source_id = a.source_id \
        WHERE a.tenant_id = $1 AND a.arrival_id < $2 ORDER BY a.arrival_id DESC LIMIT $3";
    TRIM_ARRIVALS = "DELETE FROM signals_arrival WHERE tenant_id = $1 AND arrival_id < (SELECT arrival_id \
        FROM signals_arrival WHERE tenant_id = $1 ORDER BY arrival_id DESC LIMIT 1 OFFSET $2)";
    FORGET_ARRIVALS = "DELETE FROM signals_arrival WHERE tenant_id = $1 AND arrival_id < $2";

    KEYS = "SELECT key_id, secret, point, active_from FROM signals_key WHERE tenant_id = $1 ORDER BY active_from DESC, key_id";
    INSERT_KEY = "INSERT INTO signals_key (tenant_id, key_id, secret, point, active_from) VALUES ($1, $2, $3, $4, $5)";
    RESEAL_KEY = "UPDATE signals_key SET secret = $3 WHERE tenant_id = $1 AND key_id = $2";
    RESEAL_SOURCE = "UPDATE signals_source SET secret = $4, secret_before = $5 WHERE tenant_id = $1 AND source_id = $2 \
        AND revision = $3";
    DROP_KEY = "DELETE FROM signals_key WHERE tenant_id = $1 AND key_id = $2";
}

fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::as_micros)
}

fn at(micros: Option<i64>) -> Option<Timestamp> {
    micros.map(Timestamp::from_micros)
}

fn source_of(row: &Row<'_>) -> Result<SignalSource, StorageError> {
    let definition: String = row.get(2)?;
    Ok(SignalSource {
        id: SignalSourceId::from_uuid(row.get(0)?),
        name: row.get(1)?,
        definition: serde_json::from_str(&definition).map_err(|error| StorageError::Type {
            index: 2,
            expected: "a source of signals",
            found: error.to_string(),
        })?,
        secret: row.get(3)?,
        secret_before: row.get(4)?,
        secret_before_until: at(row.get(5)?),
        revision: row.get(6)?,
        updated_by: row.get(7)?,
        updated_at: Timestamp::from_micros(row.get(8)?),
    })
}

pub fn sources(tx: &mut Tx, tenant: TenantId) -> Result<Vec<SignalSource>, StorageError> {
    tx.query(&SOURCES, &[&tenant.uuid()], source_of)
}

pub fn source(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<SignalSource>, StorageError> {
    tx.query_opt(&SOURCE, &[&tenant.uuid(), &name], source_of)
}

/// The source of an address, of whatever tenant.
pub fn source_by_id(
    tx: &mut Tx,
    id: SignalSourceId,
) -> Result<Option<(TenantId, SignalSource)>, StorageError> {
    tx.query_opt(&SOURCE_BY_ID, &[&id.uuid()], |row| {
        Ok((TenantId::from_uuid(row.get(9)?), source_of(row)?))
    })
}

/// Holds a source until the transaction ends: its messages are worked on one after the other. Answers whether there is one.
pub fn hold_source(tx: &mut Tx, tenant: TenantId, id: SignalSourceId) -> Result<bool, StorageError> {
    Ok(tx.execute(&HOLD_SOURCE, &[&tenant.uuid(), &id.uuid()])? == 1)
}

pub fn put_source(tx: &mut Tx, tenant: TenantId, source: &SignalSource) -> Result<(), StorageError> {
    let definition = serde_json::to_string(&source.definition).expect("a source is serializable");
    let seconds = i64::try_from(source.definition.max_age().as_secs()).unwrap_or(i64::MAX);
    tx.execute(
        &PUT_SOURCE,
        &[
            &tenant.uuid(),
            &seconds,
            &source.id.uuid(),
            &source.name,
            &definition,
            &source.secret,
            &source.secret_before,
            &micros(source.secret_before_until),
            &source.revision,
            &source.updated_by,
            &source.updated_at.as_micros(),
        ],
    )
    .map(drop)
}

/// Ends a source: nobody can send to it, and nobody reads what it said. Its rows go by and by.
pub fn delete_source(
    tx: &mut Tx,
    tenant: TenantId,
    id: SignalSourceId,
    now: Timestamp,
) -> Result<(), StorageError> {
    tx.execute(&DELETE_SOURCE, &[&tenant.uuid(), &id.uuid(), &now.as_micros()])
        .map(drop)
}

/// Sources that were deleted and have rows left, perhaps.
pub fn deleted(tx: &mut Tx, limit: i64) -> Result<Vec<(TenantId, SignalSourceId)>, StorageError> {
    tx.query(&DELETED, &[&limit], |row| {
        Ok((
            TenantId::from_uuid(row.get(0)?),
            SignalSourceId::from_uuid(row.get(1)?),
        ))
    })
}

/// How long what a source says counts, while there is the source.
pub fn max_age(tx: &mut Tx, tenant: TenantId, id: SignalSourceId) -> Result<Option<Duration>, StorageError> {
    let found: Option<i64> = tx.query_opt(&MAX_AGE, &[&tenant.uuid(), &id.uuid()], |row| row.get(0))?;
    Ok(found.map(|seconds| Duration::from_secs(u64::try_from(seconds).unwrap_or(0))))
}

pub fn drop_source(tx: &mut Tx, tenant: TenantId, id: SignalSourceId) -> Result<(), StorageError> {
    tx.execute(&DROP_TALLY, &[&tenant.uuid(), &id.uuid()])?;
    tx.execute(&DROP_SOURCE, &[&tenant.uuid(), &id.uuid()]).map(drop)
}

/// What was counted of a source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub received: i64,
    pub taken: i64,
    pub repeated: i64,
    pub unmatched: i64,
    pub refused: i64,
    pub received_at: Option<Timestamp>,
    pub taken_at: Option<Timestamp>,
    pub error: Option<String>,
    pub error_at: Option<Timestamp>,
}

pub fn tally(tx: &mut Tx, tenant: TenantId, id: SignalSourceId) -> Result<Tally, StorageError> {
    let found = tx.query_opt(&TALLY, &[&tenant.uuid(), &id.uuid()], |row| {
        Ok(Tally {
            received: row.get(0)?,
            taken: row.get(1)?,
            repeated: row.get(2)?,
            unmatched: row.get(3)?,
            refused: row.get(4)?,
            received_at: at(row.get(5)?),
            taken_at: at(row.get(6)?),
            error: row.get(7)?,
            error_at: at(row.get(8)?),
        })
    })?;
    Ok(found.unwrap_or_default())
}

/// What one message adds to what is counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted<'a> {
    pub taken: bool,
    pub repeated: bool,
    pub unmatched: bool,
    /// Why it was refused, where it was.
    pub refused: Option<&'a str>,
}

pub fn count(
    tx: &mut Tx,
    tenant: TenantId,
    id: SignalSourceId,
    counted: Counted<'_>,
    now: Timestamp,
) -> Result<(), StorageError> {
    let number = |truth: bool| i64::from(truth);
    let now = now.as_micros();
    tx.execute(
        &COUNT,
        &[
            &tenant.uuid(),
            &id.uuid(),
            &number(counted.taken),
            &number(counted.repeated),
            &number(counted.unmatched),
            &number(counted.refused.is_some()),
            &now,
            &counted.taken.then_some(now),
            &counted.refused,
            &counted.refused.map(|_| now),
        ],
    )
    .map(drop)
}

fn said_of(row: &Row<'_>, first: usize) -> Result<SaidRow, StorageError> {
    let dated = |word: Option<String>, micros: Option<i64>| -> Dated { word.zip(at(micros)) };
    Ok(SaidRow {
        verdict: dated(row.get(first)?, row.get(first + 1)?),
        risk: dated(row.get(first + 2)?, row.get(first + 3)?),
        user_risk: dated(row.get(first + 4)?, row.get(first + 5)?),
        assurance: dated(row.get(first + 6)?, row.get(first + 7)?),
        detail: row.get(first + 8)?,
        observed_at: at(row.get(first + 9)?),
        session_revoked_at: at(row.get(first + 10)?),
        credential_changed_at: at(row.get(first + 11)?),
    })
}

/// What is said of a device: the source's name, how long it counts, and what.
pub fn of_device(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
) -> Result<Vec<(String, Duration, SaidRow)>, StorageError> {
    tx.query(&OF_DEVICE, &[&tenant.uuid(), &device.uuid()], |row| {
        let seconds: i64 = row.get(1)?;
        Ok((
            row.get(0)?,
            Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
            said_of(row, 2)?,
        ))
    })
}

pub fn said(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    source: SignalSourceId,
) -> Result<Option<SaidRow>, StorageError> {
    tx.query_opt(&SAID, &[&tenant.uuid(), &device.uuid(), &source.uuid()], |row| {
        said_of(row, 0)
    })
}

/// Stores what is said, due for whoever follows at `due`, or when it was due before if that is sooner.
pub fn put_said(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    source: SignalSourceId,
    said: &SaidRow,
    due: Timestamp,
) -> Result<(), StorageError> {
    let word = |dated: &Dated| dated.as_ref().map(|(word, _)| word.clone());
    let time = |dated: &Dated| dated.as_ref().map(|(_, at)| at.as_micros());
    let observed = said.observed_at.unwrap_or(due).as_micros();
    let parameters: [&dyn ToValue; 16] = [
        &tenant.uuid(),
        &device.uuid(),
        &source.uuid(),
        &Some(due.as_micros()),
        &word(&said.verdict),
        &time(&said.verdict),
        &word(&said.risk),
        &time(&said.risk),
        &word(&said.user_risk),
        &time(&said.user_risk),
        &word(&said.assurance),
        &time(&said.assurance),
        &said.detail,
        &observed,
        &micros(said.session_revoked_at),
        &micros(said.credential_changed_at),
    ];
    tx.execute(&PUT_SAID, &parameters).map(drop)
}

/// A row of which whoever reads it is to be evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueRow {
    pub tenant: TenantId,
    pub device: DeviceId,
    pub source: SignalSourceId,
    pub at: Timestamp,
}

/// Of tenants that are in operation.
pub fn due(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<DueRow>, StorageError> {
    tx.query(&DUE, &[&now.as_micros(), &limit], |row| {
        Ok(DueRow {
            tenant: TenantId::from_uuid(row.get(0)?),
            device: DeviceId::from_uuid(row.get(1)?),
            source: SignalSourceId::from_uuid(row.get(2)?),
            at: Timestamp::from_micros(row.get(3)?),
        })
    })
}

/// The row was followed as it was then; it is due again at `next`.
pub fn followed(tx: &mut Tx, row: &DueRow, next: Option<Timestamp>) -> Result<(), StorageError> {
    tx.execute(
        &FOLLOWED,
        &[
            &row.tenant.uuid(),
            &row.device.uuid(),
            &row.source.uuid(),
            &row.at.as_micros(),
            &micros(next),
        ],
    )
    .map(drop)
}

/// Devices of which a source says something, the longest ago first.
pub fn said_by(
    tx: &mut Tx,
    tenant: TenantId,
    source: SignalSourceId,
    limit: i64,
) -> Result<Vec<DeviceId>, StorageError> {
    tx.query(&SAID_BY, &[&tenant.uuid(), &source.uuid(), &limit], |row| {
        Ok(DeviceId::from_uuid(row.get(0)?))
    })
}

pub fn drop_said(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    source: SignalSourceId,
) -> Result<(), StorageError> {
    tx.execute(&DROP_SAID, &[&tenant.uuid(), &device.uuid(), &source.uuid()])
        .map(drop)
}

pub fn forget_said(
    tx: &mut Tx,
    tenant: TenantId,
    source: SignalSourceId,
    before: Timestamp,
    limit: i64,
) -> Result<u64, StorageError> {
    tx.execute(
        &FORGET_SAID,
        &[&tenant.uuid(), &source.uuid(), &before.as_micros(), &limit],
    )
}

pub fn count_said(tx: &mut Tx, tenant: TenantId, source: SignalSourceId) -> Result<i64, StorageError> {
    tx.query_one(&COUNT_SAID, &[&tenant.uuid(), &source.uuid()], |row| row.get(0))
}

/// Notes the id of a message; answers whether it is new.
pub fn see(
    tx: &mut Tx,
    tenant: TenantId,
    source: SignalSourceId,
    message_sha256: &[u8],
    now: Timestamp,
) -> Result<bool, StorageError> {
    let rows = tx.execute(
        &SEE,
        &[&tenant.uuid(), &source.uuid(), &message_sha256, &now.as_micros()],
    )?;
    Ok(rows == 1)
}

pub fn forget_seen(
    tx: &mut Tx,
    tenant: TenantId,
    source: SignalSourceId,
    before: Timestamp,
    keep: i64,
) -> Result<(), StorageError> {
    tx.execute(
        &FORGET_SEEN,
        &[&tenant.uuid(), &source.uuid(), &before.as_micros()],
    )?;
    tx.execute(&TRIM_SEEN, &[&tenant.uuid(), &source.uuid(), &keep])
        .map(drop)
}

/// A subject that no device is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmatched {
    pub subject: String,
    pub reason: String,
    pub times: i64,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
}

pub fn unmatch(
    tx: &mut Tx,
    tenant: TenantId,
    source: SignalSourceId,
    subject: &str,
    reason: &str,
    now: Timestamp,
) -> Result<(), StorageError> {
    tx.execute(
        &UNMATCH,
        &[
            &tenant.uuid(),
            &source.uuid(),
            &subject,
            &reason,
            &now.as_micros(),
        ],
    )
    .map(drop)
}

pub fn matched(
    tx: &mut Tx,
    tenant: TenantId,
    source: SignalSourceId,
    subject: &str,
) -> Result<(), StorageError> {
    tx.execute(&MATCHED, &[&tenant.uuid(), &source.uuid(), &subject])
        .map(drop)
}

pub fn unmatched(
    tx: &mut Tx,
    tenant: TenantId,
    source: SignalSourceId,
    limit: i64,
) -> Result<Vec<Unmatched>, StorageError> {
    tx.query(&UNMATCHED, &[&tenant.uuid(), &source.uuid(), &limit], |row| {
        Ok(Unmatched {
            subject: row.get(0)?,
            reason: row.get(1)?,
            times: row.get(2)?,
            first_at: Timestamp::from_micros(row.get(3)?),
            last_at: Timestamp::from_micros(row.get(4)?),
        })
    })
}

pub fn forget_unmatched(
    tx: &mut Tx,
    tenant: TenantId,
    source: SignalSourceId,
    before: Timestamp,
    keep: i64,
) -> Result<(), StorageError> {
    tx.execute(
        &FORGET_UNMATCHED,
        &[&tenant.uuid(), &source.uuid(), &before.as_micros()],
    )?;
    tx.execute(&TRIM_UNMATCHED, &[&tenant.uuid(), &source.uuid(), &keep])
        .map(drop)
}

/// A message, or a statement of one, as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    pub id: SignalArrivalId,
    /// The source's name where it is read, and nothing where it is written.
    pub source: String,
    pub arrived_at: Timestamp,
    pub event: String,
    pub subject: String,
    pub device: Option<DeviceId>,
    pub devices: i64,
    pub outcome: String,
    pub detail: Option<String>,
}

pub fn arrived(
    tx: &mut Tx,
    tenant: TenantId,
    source: SignalSourceId,
    arrival: &Arrival,
) -> Result<(), StorageError> {
    tx.execute(
        &ARRIVED,
        &[
            &tenant.uuid(),
            &arrival.id.uuid(),
            &source.uuid(),
            &arrival.arrived_at.as_micros(),
            &arrival.event,
            &arrival.subject,
            &arrival.device.map(|device| device.uuid()),
            &arrival.devices,
            &arrival.outcome,
            &arrival.detail,
        ],
    )
    .map(drop)
}

/// What arrived before `before`, the newest first.
pub fn arrivals(
    tx: &mut Tx,
    tenant: TenantId,
    before: Uuid,
    limit: i64,
) -> Result<Vec<Arrival>, StorageError> {
    tx.query(&ARRIVALS, &[&tenant.uuid(), &before, &limit], |row| {
        let device: Option<Uuid> = row.get(5)?;
        Ok(Arrival {
            id: SignalArrivalId::from_uuid(row.get(0)?),
            source: row.get(1)?,
            arrived_at: Timestamp::from_micros(row.get(2)?),
            event: row.get(3)?,
            subject: row.get(4)?,
            device: device.map(DeviceId::from_uuid),
            devices: row.get(6)?,
            outcome: row.get(7)?,
            detail: row.get(8)?,
        })
    })
}

pub fn forget_arrivals(tx: &mut Tx, tenant: TenantId, before: Uuid, keep: i64) -> Result<(), StorageError> {
    tx.execute(&FORGET_ARRIVALS, &[&tenant.uuid(), &before])?;
    tx.execute(&TRIM_ARRIVALS, &[&tenant.uuid(), &keep]).map(drop)
}

/// A signing key as stored.
#[derive(Debug, Clone)]
pub struct KeyRow {
    pub id: String,
    /// Sealed.
    pub secret: Vec<u8>,
    pub point: Vec<u8>,
    pub active_from: Timestamp,
}

/// The keys of a tenant, the newest first.
pub fn keys(tx: &mut Tx, tenant: TenantId) -> Result<Vec<KeyRow>, StorageError> {
    tx.query(&KEYS, &[&tenant.uuid()], |row| {
        Ok(KeyRow {
            id: row.get(0)?,
            secret: row.get(1)?,
            point: row.get(2)?,
            active_from: Timestamp::from_micros(row.get(3)?),
        })
    })
}

pub fn insert_key(tx: &mut Tx, tenant: TenantId, key: &KeyRow) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_KEY,
        &[
            &tenant.uuid(),
            &key.id,
            &key.secret.as_slice(),
            &key.point.as_slice(),
            &key.active_from.as_micros(),
        ],
    )
    .map(drop)
}

/// Replaces the seal of a key.
pub fn reseal_key(tx: &mut Tx, tenant: TenantId, id: &str, secret: &[u8]) -> Result<u64, StorageError> {
    tx.execute(&RESEAL_KEY, &[&tenant.uuid(), &id, &secret])
}

/// Replaces the seals of a source's secrets; answers 0 when the source was changed meanwhile.
pub fn reseal_source(
    tx: &mut Tx,
    tenant: TenantId,
    id: SignalSourceId,
    revision: u64,
    (secret, before): (&Option<Vec<u8>>, &Option<Vec<u8>>),
) -> Result<u64, StorageError> {
    tx.execute(
        &RESEAL_SOURCE,
        &[&tenant.uuid(), &id.uuid(), &revision, secret, before],
    )
}

pub fn drop_key(tx: &mut Tx, tenant: TenantId, id: &str) -> Result<(), StorageError> {
    tx.execute(&DROP_KEY, &[&tenant.uuid(), &id]).map(drop)
}
