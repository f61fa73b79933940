//! SQL of the `alerts_` tables.

use muster_model::{AlertId, DeliveryId, SilenceId, TenantId, Timestamp};
use muster_storage::{Row, StorageError, Tx, statements};
use uuid::Uuid;

use super::{
    Delivery, DeliveryState, Expiry,
    destinations::Destination,
    rules::{Alert, AlertState, Severity},
    silences::Silence,
};
use crate::{
    outbound::Key,
    unreadable::{readable, readable_ones},
};

macro_rules! alert_columns {
    () => {
        "alert_id, rule, group_key, state, severity, title, instances, occurrences, started_at, fired_at, resolved_at, because, \
         acknowledged_at, acknowledged_by, told, told_at, told_occurrences, escalated"
    };
}
macro_rules! destination_columns {
    () => {
        "name, place, secret, is_default, is_enabled, heartbeat_seconds, heartbeat_at, updated_by, updated_at, succeeded_at, \
         failed_at, error, previous_secret, previous_until"
    };
}
macro_rules! silence_columns {
    () => {
        "silence_id, matcher, reason, starts_at, ends_at, weekly_until, created_by, created_at, ended_at"
    };
}
macro_rules! delivery_columns {
    () => {
        "delivery_id, alert_id, destination, event, notice, state, attempts, next_at, created_at, ended_at, status, error, place, \
         secret"
    };
}

statements! {
    RULES = "SELECT name, definition, updated_by, updated_at FROM alerts_rule WHERE tenant_id = $1 ORDER BY name";
    PUT_RULE = "INSERT INTO alerts_rule (tenant_id, name, definition, updated_by, updated_at) VALUES ($1, $2, $3, $4, $5) \
        ON CONFLICT (tenant_id, name) DO UPDATE SET definition = $3, updated_by = $4, updated_at = $5";
    DELETE_RULE = "DELETE FROM alerts_rule WHERE tenant_id = $1 AND name = $2";

    DESTINATIONS = concat!("SELECT ", destination_columns!(), " FROM alerts_destination WHERE tenant_id = $1 ORDER BY name");
    SEALED = "SELECT name, secret, previous_secret, previous_until FROM alerts_destination WHERE tenant_id = $1 \
        AND secret IS NOT NULL ORDER BY name";
    DESTINATION = concat!("SELECT ", destination_columns!(), " FROM alerts_destination WHERE tenant_id = $1 AND name = $2");
    PUT_DESTINATION = concat!("INSERT INTO alerts_destination (tenant_id, ", destination_columns!(), ") \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) ON CONFLICT (tenant_id, name) DO UPDATE SET place = $3, \
        secret = $4, is_default = $5, is_enabled = $6, heartbeat_seconds = $7, heartbeat_at = $8, updated_by = $9, \
        updated_at = $10, succeeded_at = $11, failed_at = $12, error = $13, previous_secret = $14, previous_until = $15");
    RESEAL_DESTINATION = "UPDATE alerts_destination SET secret = $4, previous_secret = $5 \
        WHERE tenant_id = $1 AND name = $2 AND secret = $3";
    DELETE_DESTINATION = "DELETE FROM alerts_destination WHERE tenant_id = $1 AND name = $2";
    DESTINATION_WORKED = "UPDATE alerts_destination SET succeeded_at = $3, error = NULL WHERE tenant_id = $1 AND name = $2";
    DESTINATION_FAILED = "UPDATE alerts_destination SET failed_at = $3, error = $4 WHERE tenant_id = $1 AND name = $2";
    HEARTBEAT_SENT = "UPDATE alerts_destination SET heartbeat_at = $3 WHERE tenant_id = $1 AND name = $2";

    OPEN_ALERTS = concat!("SELECT ", alert_columns!(), " FROM alerts_alert WHERE tenant_id = $1 AND resolved_at IS NULL \
        ORDER BY alert_id LIMIT $2");
    ALERT = concat!("SELECT ", alert_columns!(), " FROM alerts_alert WHERE tenant_id = $1 AND alert_id = $2");
    ALERTS_BEFORE = concat!("SELECT ", alert_columns!(), " FROM alerts_alert WHERE tenant_id = $1 AND alert_id < $2 \
        ORDER BY alert_id DESC LIMIT $3");
    OPEN_ALERTS_BEFORE = concat!("SELECT ", alert_columns!(), " FROM alerts_alert WHERE tenant_id = $1 AND alert_id < $2 \
        AND resolved_at IS NULL ORDER BY alert_id DESC LIMIT $3");
    PUT_ALERT = concat!("INSERT INTO alerts_alert (tenant_id, ", alert_columns!(), ") VALUES \
        ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19) \
        ON CONFLICT (tenant_id, alert_id) DO UPDATE SET state = $5, severity = $6, title = $7, instances = $8, \
        occurrences = $9, fired_at = $11, resolved_at = $12, because = $13, acknowledged_at = $14, acknowledged_by = $15, \
        told = $16, told_at = $17, told_occurrences = $18, escalated = $19");
    DELETE_ALERT = "DELETE FROM alerts_alert WHERE tenant_id = $1 AND alert_id = $2";
    OPEN_BY_SEVERITY = "SELECT severity, COUNT(*) FROM alerts_alert WHERE state = 'firing' AND resolved_at IS NULL \
        GROUP BY severity";
    RESOLVED_BEFORE = "SELECT alert_id FROM alerts_alert WHERE tenant_id = $1 AND resolved_at < $2 \
        ORDER BY resolved_at LIMIT $3";
    SURPLUS_ALERTS = "SELECT alert_id FROM alerts_alert WHERE tenant_id = $1 AND resolved_at IS NOT NULL \
        ORDER BY resolved_at DESC LIMIT $3 OFFSET $2";

    SILENCES = concat!("SELECT ", silence_columns!(), " FROM alerts_silence WHERE tenant_id = $1 AND over_at > $2 \
        ORDER BY over_at LIMIT $3");
    SILENCE = concat!("SELECT ", silence_columns!(), " FROM alerts_silence WHERE tenant_id = $1 AND silence_id = $2");
    INSERT_SILENCE = concat!("INSERT INTO alerts_silence (tenant_id, ", silence_columns!(), ", over_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)");
    END_SILENCE = "UPDATE alerts_silence SET ended_at = $3, over_at = $3 WHERE tenant_id = $1 AND silence_id = $2 \
        AND over_at > $3";
    FORGET_SILENCES = "DELETE FROM alerts_silence WHERE tenant_id = $1 AND over_at < $2";

    INSERT_DELIVERY = concat!("INSERT INTO alerts_delivery (tenant_id, ", delivery_columns!(), ") \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)");
    DELIVERY = concat!("SELECT ", delivery_columns!(), " FROM alerts_delivery WHERE tenant_id = $1 AND delivery_id = $2");
    DUE_DESTINATIONS = "SELECT a.tenant_id, a.destination, MAX(d.updated_at), MIN(a.next_at) AS since FROM alerts_delivery a \
        LEFT JOIN alerts_destination d ON d.tenant_id = a.tenant_id AND d.name = a.destination \
        WHERE a.ended_at IS NULL AND a.next_at <= $1 \
        AND EXISTS (SELECT 1 FROM access_tenant t WHERE t.tenant_id = a.tenant_id AND t.state = 'active') \
        GROUP BY a.tenant_id, a.destination ORDER BY since, a.tenant_id, a.destination LIMIT $2";
    WAITING_FOR = concat!("SELECT ", delivery_columns!(), " FROM alerts_delivery WHERE tenant_id = $1 AND destination = $2 \
        AND ended_at IS NULL ORDER BY delivery_id LIMIT $3");
    COUNT_WAITING = "SELECT COUNT(*) FROM alerts_delivery WHERE tenant_id = $1 AND destination = $2 AND ended_at IS NULL";
    ALL_WAITING = "SELECT COUNT(*), MIN(created_at) FROM alerts_delivery WHERE ended_at IS NULL";
    SETTLE = "UPDATE alerts_delivery SET state = $3, attempts = $4, next_at = $5, ended_at = $6, status = $7, error = $8, \
        secret = CASE WHEN $9 THEN NULL ELSE secret END WHERE tenant_id = $1 AND delivery_id = $2";
    SEALED_OTHERWISE = "SELECT delivery_id, destination, secret FROM alerts_delivery WHERE tenant_id = $1 AND ended_at IS NULL \
        AND secret IS NOT NULL AND substr(secret, 1, 9) <> $2 LIMIT $3";
    RESEAL_DELIVERY = "UPDATE alerts_delivery SET secret = $4 WHERE tenant_id = $1 AND delivery_id = $2 AND secret = $3";
    END_WAITING_FOR = "UPDATE alerts_delivery SET state = 'dead', ended_at = $3, error = $4 WHERE tenant_id = $1 \
        AND destination = $2 AND ended_at IS NULL AND place IS NULL";
    DEAD_SINCE = "SELECT destination, COUNT(*) FROM alerts_delivery WHERE tenant_id = $1 AND state = 'dead' AND ended_at >= $2 \
        AND place IS NULL GROUP BY destination";
    DELIVERIES_BEFORE = concat!("SELECT ", delivery_columns!(), " FROM alerts_delivery WHERE tenant_id = $1 \
        AND delivery_id < $2 ORDER BY delivery_id DESC LIMIT $3");
    DEAD_BEFORE = concat!("SELECT ", delivery_columns!(), " FROM alerts_delivery WHERE tenant_id = $1 AND delivery_id < $2 \
        AND state = 'dead' ORDER BY delivery_id DESC LIMIT $3");
    WAITING_BEFORE = concat!("SELECT ", delivery_columns!(), " FROM alerts_delivery WHERE tenant_id = $1 AND delivery_id < $2 \
        AND ended_at IS NULL ORDER BY delivery_id DESC LIMIT $3");
    DELIVERIES_OF = concat!("SELECT ", delivery_columns!(), " FROM alerts_delivery WHERE tenant_id = $1 AND alert_id = $2 \
        ORDER BY delivery_id DESC LIMIT $3");
    ENDED_BEFORE = "SELECT delivery_id FROM alerts_delivery WHERE tenant_id = $1 AND ended_at < $2 ORDER BY ended_at LIMIT $3";
    SURPLUS_DELIVERIES = "SELECT delivery_id FROM alerts_delivery WHERE tenant_id = $1 AND ended_at IS NOT NULL \
        ORDER BY ended_at DESC LIMIT $3 OFFSET $2";
    DELETE_DELIVERY = "DELETE FROM alerts_delivery WHERE tenant_id = $1 AND delivery_id = $2";

    EXPIRIES = "SELECT name, note, expires_at, source, updated_by, updated_at FROM alerts_expiry WHERE tenant_id = $1 \
        ORDER BY name LIMIT $2";
    PUT_EXPIRY = "INSERT INTO alerts_expiry (tenant_id, name, note, expires_at, source, updated_by, updated_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant_id, name) DO UPDATE SET note = $3, expires_at = $4, \
        source = $5, updated_by = $6, updated_at = $7";
    DELETE_EXPIRY = "DELETE FROM alerts_expiry WHERE tenant_id = $1 AND name = $2 AND source = 'person'";
    FORGET_EXPIRIES = "DELETE FROM alerts_expiry WHERE tenant_id = $1 AND source = 'node' AND updated_at < $2";

    FOLLOWED = "SELECT followed FROM alerts_tenant WHERE tenant_id = $1";
    FOLLOW = "INSERT INTO alerts_tenant (tenant_id, followed) VALUES ($1, $2) \
        ON CONFLICT (tenant_id) DO UPDATE SET followed = $2";
}

/// A rule as a tenant wrote it.
#[derive(Debug, Clone)]
pub struct RuleRow {
    pub name: String,
    pub definition: String,
    pub updated_by: String,
    pub updated_at: Timestamp,
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("what these tables hold is serializable")
}

/// A column that holds what this program does not understand.
fn unreadable(index: usize, expected: &'static str, found: &str) -> StorageError {
    StorageError::Type {
        index,
        expected,
        found: found.chars().take(40).collect(),
    }
}

fn read<T: serde::de::DeserializeOwned>(
    row: &Row<'_>,
    index: usize,
    expected: &'static str,
) -> Result<T, StorageError> {
    let text: String = row.get(index)?;
    serde_json::from_str(&text).map_err(|_| unreadable(index, expected, "something else"))
}

fn time(row: &Row<'_>, index: usize) -> Result<Timestamp, StorageError> {
    Ok(Timestamp::from_micros(row.get(index)?))
}

fn maybe_time(row: &Row<'_>, index: usize) -> Result<Option<Timestamp>, StorageError> {
    Ok(row.get::<Option<i64>>(index)?.map(Timestamp::from_micros))
}

pub fn rules(tx: &mut Tx, tenant: TenantId) -> Result<Vec<RuleRow>, StorageError> {
    tx.query(&RULES, &[&tenant.uuid()], |row| {
        Ok(RuleRow {
            name: row.get(0)?,
            definition: row.get(1)?,
            updated_by: row.get(2)?,
            updated_at: time(row, 3)?,
        })
    })
}

pub fn put_rule(tx: &mut Tx, tenant: TenantId, rule: &RuleRow) -> Result<(), StorageError> {
    tx.execute(
        &PUT_RULE,
        &[
            &tenant.uuid(),
            &rule.name.as_str(),
            &rule.definition.as_str(),
            &rule.updated_by.as_str(),
            &rule.updated_at.as_micros(),
        ],
    )
    .map(drop)
}

pub fn delete_rule(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<u64, StorageError> {
    tx.execute(&DELETE_RULE, &[&tenant.uuid(), &name])
}

/// The destinations of a tenant that this program can read.
pub fn destinations(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Destination>, StorageError> {
    let rows = tx.query(&DESTINATIONS, &[&tenant.uuid()], |row| {
        Ok((row.get(0)?, destination_of(row)))
    })?;
    readable_ones("a destination of alerts", tenant, rows)
}

/// The sealed secrets of a destination, whatever else its row holds.
#[derive(Debug)]
pub struct Sealed {
    pub name: String,
    pub secret: Vec<u8>,
    pub previous: Option<Vec<u8>>,
    pub previous_until: Option<Timestamp>,
}

/// Every sealed secret of a tenant's destinations.
pub fn sealed(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Sealed>, StorageError> {
    tx.query(&SEALED, &[&tenant.uuid()], |row| {
        Ok(Sealed {
            name: row.get(0)?,
            secret: row.get(1)?,
            previous: row.get(2)?,
            previous_until: maybe_time(row, 3)?,
        })
    })
}

/// A destination, as far as this program can read it.
#[derive(Debug)]
pub enum Found {
    Nothing,
    /// This program cannot read it.
    Unreadable,
    Destination(Box<Destination>),
}

/// As [`destination`], and says where this program cannot read it.
pub fn found(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Found, StorageError> {
    let row = tx.query_opt(&DESTINATION, &[&tenant.uuid(), &name], |row| {
        Ok(destination_of(row))
    })?;
    let Some(row) = row else { return Ok(Found::Nothing) };
    let read = readable("a destination of alerts", (tenant, name), row)?;
    Ok(read.map_or(Found::Unreadable, |read| Found::Destination(Box::new(read))))
}

pub fn destination(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<Option<Destination>, StorageError> {
    tx.query_opt(&DESTINATION, &[&tenant.uuid(), &name], destination_of)
}

pub fn put_destination(tx: &mut Tx, tenant: TenantId, destination: &Destination) -> Result<(), StorageError> {
    tx.execute(
        &PUT_DESTINATION,
        &[
            &tenant.uuid(),
            &destination.name.as_str(),
            &json(&destination.place),
            &destination.secret,
            &destination.is_default,
            &destination.is_enabled,
            &destination.heartbeat_seconds,
            &destination.heartbeat_at.map(Timestamp::as_micros),
            &destination.updated_by.as_str(),
            &destination.updated_at.as_micros(),
            &destination.succeeded_at.map(Timestamp::as_micros),
            &destination.failed_at.map(Timestamp::as_micros),
            &destination.error,
            &destination.previous_secret,
            &destination.previous_until.map(Timestamp::as_micros),
        ],
    )
    .map(drop)
}

/// Replaces sealed secrets by the same ones under another seal; answers 0 when the secret was changed meanwhile.
pub fn reseal_destination(
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
    before: Option<&[u8]>,
    (secret, previous): (&[u8], Option<&[u8]>),
) -> Result<u64, StorageError> {
    tx.execute(
        &RESEAL_DESTINATION,
        &[&tenant.uuid(), &name, &before, &secret, &previous],
    )
}

pub fn delete_destination(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<u64, StorageError> {
    tx.execute(&DELETE_DESTINATION, &[&tenant.uuid(), &name])
}

pub fn destination_worked(
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
    at: Timestamp,
) -> Result<(), StorageError> {
    tx.execute(&DESTINATION_WORKED, &[&tenant.uuid(), &name, &at.as_micros()])
        .map(drop)
}

pub fn destination_failed(
    tx: &mut Tx,
    tenant: TenantId,
    name: &str,
    at: Timestamp,
    error: &str,
) -> Result<(), StorageError> {
    tx.execute(
        &DESTINATION_FAILED,
        &[&tenant.uuid(), &name, &at.as_micros(), &error],
    )
    .map(drop)
}

pub fn heartbeat_sent(tx: &mut Tx, tenant: TenantId, name: &str, at: Timestamp) -> Result<(), StorageError> {
    tx.execute(&HEARTBEAT_SENT, &[&tenant.uuid(), &name, &at.as_micros()])
        .map(drop)
}

/// The open alerts of a tenant that this program can read.
pub fn open_alerts(tx: &mut Tx, tenant: TenantId, limit: i64) -> Result<Vec<Alert>, StorageError> {
    let rows = tx.query(&OPEN_ALERTS, &[&tenant.uuid(), &limit], |row| {
        Ok((row.get::<Uuid>(0)?.to_string(), alert_of(row)))
    })?;
    readable_ones("an alert", tenant, rows)
}

pub fn alert(tx: &mut Tx, tenant: TenantId, id: AlertId) -> Result<Option<Alert>, StorageError> {
    tx.query_opt(&ALERT, &[&tenant.uuid(), &id.uuid()], alert_of)
}

/// Alerts older than one, newest first.
pub fn alerts_before(
    tx: &mut Tx,
    tenant: TenantId,
    before: AlertId,
    only_open: bool,
    limit: i64,
) -> Result<Vec<Alert>, StorageError> {
    let statement = if only_open {
        &OPEN_ALERTS_BEFORE
    } else {
        &ALERTS_BEFORE
    };
    tx.query(statement, &[&tenant.uuid(), &before.uuid(), &limit], alert_of)
}

pub fn put_alert(tx: &mut Tx, tenant: TenantId, alert: &Alert) -> Result<(), StorageError> {
    tx.execute(
        &PUT_ALERT,
        &[
            &tenant.uuid(),
            &alert.id.uuid(),
            &alert.rule.as_str(),
            &alert.group.as_str(),
            &alert.state.as_str(),
            &alert.severity.as_str(),
            &alert.title.as_str(),
            &json(&alert.instances),
            &alert.occurrences,
            &alert.started_at.as_micros(),
            &alert.fired_at.map(Timestamp::as_micros),
            &alert.resolved_at.map(Timestamp::as_micros),
            &alert.because,
            &alert.acknowledged_at.map(Timestamp::as_micros),
            &alert.acknowledged_by,
            &json(&alert.told),
            &alert.told_at.map(Timestamp::as_micros),
            &alert.told_occurrences,
            &alert.escalated,
        ],
    )
    .map(drop)
}

pub fn delete_alert(tx: &mut Tx, tenant: TenantId, id: AlertId) -> Result<(), StorageError> {
    tx.execute(&DELETE_ALERT, &[&tenant.uuid(), &id.uuid()]).map(drop)
}

/// Alerts of every tenant that fire, by severity.
pub fn open_by_severity(tx: &mut Tx) -> Result<Vec<(String, i64)>, StorageError> {
    tx.query(&OPEN_BY_SEVERITY, &[], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// Forgets alerts that ended before a time, and the oldest above `kept`; at most `limit` of each.
pub fn forget_alerts(
    tx: &mut Tx,
    tenant: TenantId,
    before: Timestamp,
    kept: i64,
    limit: i64,
) -> Result<(), StorageError> {
    let id = |row: &Row<'_>| row.get::<Uuid>(0);
    let mut over = tx.query(
        &RESOLVED_BEFORE,
        &[&tenant.uuid(), &before.as_micros(), &limit],
        id,
    )?;
    over.extend(tx.query(&SURPLUS_ALERTS, &[&tenant.uuid(), &kept, &limit], id)?);
    for alert in over {
        tx.execute(&DELETE_ALERT, &[&tenant.uuid(), &alert])?;
    }
    Ok(())
}

/// Silences that are not over at a time, and that this program can read.
pub fn silences(
    tx: &mut Tx,
    tenant: TenantId,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Silence>, StorageError> {
    let rows = tx.query(&SILENCES, &[&tenant.uuid(), &now.as_micros(), &limit], |row| {
        Ok((row.get::<Uuid>(0)?.to_string(), silence_of(row)))
    })?;
    readable_ones("a silence", tenant, rows)
}

pub fn silence(tx: &mut Tx, tenant: TenantId, id: SilenceId) -> Result<Option<Silence>, StorageError> {
    tx.query_opt(&SILENCE, &[&tenant.uuid(), &id.uuid()], silence_of)
}

pub fn insert_silence(tx: &mut Tx, tenant: TenantId, silence: &Silence) -> Result<(), StorageError> {
    let over_at = silence
        .weekly_until
        .map_or(silence.ends_at, |until| until.max(silence.ends_at));
    tx.execute(
        &INSERT_SILENCE,
        &[
            &tenant.uuid(),
            &silence.id.uuid(),
            &json(&silence.matcher),
            &silence.reason.as_str(),
            &silence.starts_at.as_micros(),
            &silence.ends_at.as_micros(),
            &silence.weekly_until.map(Timestamp::as_micros),
            &silence.created_by.as_str(),
            &silence.created_at.as_micros(),
            &silence.ended_at.map(Timestamp::as_micros),
            &over_at.as_micros(),
        ],
    )
    .map(drop)
}

/// Ends a silence; answers 0 when it was over.
pub fn end_silence(tx: &mut Tx, tenant: TenantId, id: SilenceId, at: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&END_SILENCE, &[&tenant.uuid(), &id.uuid(), &at.as_micros()])
}

pub fn forget_silences(tx: &mut Tx, tenant: TenantId, before: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&FORGET_SILENCES, &[&tenant.uuid(), &before.as_micros()])
}

pub fn insert_delivery(tx: &mut Tx, tenant: TenantId, delivery: &Delivery) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_DELIVERY,
        &[
            &tenant.uuid(),
            &delivery.id.uuid(),
            &delivery.alert.map(AlertId::uuid),
            &delivery.destination.as_str(),
            &delivery.notice.event.as_str(),
            &json(&delivery.notice),
            &delivery.state.as_str(),
            &delivery.attempts,
            &delivery.next_at.as_micros(),
            &delivery.created_at.as_micros(),
            &delivery.ended_at.map(Timestamp::as_micros),
            &delivery.status,
            &delivery.error,
            &delivery.former.as_ref().map(|former| json(&former.place)),
            &delivery.former.as_ref().and_then(|former| former.secret.clone()),
        ],
    )
    .map(drop)
}

/// Waiting messages whose destination's secret of then is sealed otherwise than with this head: id, destination and secret.
pub fn sealed_otherwise(
    tx: &mut Tx,
    tenant: TenantId,
    head: &[u8],
    limit: i64,
) -> Result<Vec<(DeliveryId, String, Vec<u8>)>, StorageError> {
    tx.query(&SEALED_OTHERWISE, &[&tenant.uuid(), &head, &limit], |row| {
        Ok((DeliveryId::from_uuid(row.get(0)?), row.get(1)?, row.get(2)?))
    })
}

/// Replaces the seal of a waiting message's secret; answers 0 when the message ended meanwhile.
pub fn reseal_delivery(
    tx: &mut Tx,
    tenant: TenantId,
    id: DeliveryId,
    (before, secret): (&[u8], &[u8]),
) -> Result<u64, StorageError> {
    tx.execute(&RESEAL_DELIVERY, &[&tenant.uuid(), &id.uuid(), &before, &secret])
}

pub fn delivery(tx: &mut Tx, tenant: TenantId, id: DeliveryId) -> Result<Option<Delivery>, StorageError> {
    tx.query_opt(&DELIVERY, &[&tenant.uuid(), &id.uuid()], delivery_of)
}

/// A destination for which something is due.
#[derive(Debug)]
pub struct Due {
    pub key: Key,
    /// When somebody changed the destination last, where it is still there.
    pub updated_at: Option<Timestamp>,
}

/// Destinations of tenants in operation for which something is due, that for which it is longest first; what waits for those of
/// others goes out when they go on.
pub fn due_destinations(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<Due>, StorageError> {
    tx.query(&DUE_DESTINATIONS, &[&now.as_micros(), &limit], |row| {
        Ok(Due {
            key: (TenantId::from_uuid(row.get(0)?), row.get(1)?),
            updated_at: maybe_time(row, 2)?,
        })
    })
}

/// What waits for a destination and can be read by this program, oldest first.
pub fn waiting_for(
    tx: &mut Tx,
    tenant: TenantId,
    destination: &str,
    limit: i64,
) -> Result<Vec<Delivery>, StorageError> {
    let rows = tx.query(&WAITING_FOR, &[&tenant.uuid(), &destination, &limit], |row| {
        Ok((row.get::<Uuid>(0)?.to_string(), delivery_of(row)))
    })?;
    readable_ones("a message about an alert", tenant, rows)
}

pub fn count_waiting(tx: &mut Tx, tenant: TenantId, destination: &str) -> Result<i64, StorageError> {
    tx.query_one(&COUNT_WAITING, &[&tenant.uuid(), &destination], |row| row.get(0))
}

/// How many deliveries of every tenant wait, and since when the oldest.
pub fn all_waiting(tx: &mut Tx) -> Result<(i64, Option<Timestamp>), StorageError> {
    tx.query_one(&ALL_WAITING, &[], |row| Ok((row.get(0)?, maybe_time(row, 1)?)))
}

/// Stores what came of an attempt.
pub fn settle(tx: &mut Tx, tenant: TenantId, delivery: &Delivery) -> Result<u64, StorageError> {
    tx.execute(
        &SETTLE,
        &[
            &tenant.uuid(),
            &delivery.id.uuid(),
            &delivery.state.as_str(),
            &delivery.attempts,
            &delivery.next_at.as_micros(),
            &delivery.ended_at.map(Timestamp::as_micros),
            &delivery.status,
            &delivery.error,
            // Nobody needs it any more.
            &(delivery.state == DeliveryState::Delivered),
        ],
    )
}

/// Gives up what waits for a destination, but not what tells it so.
pub fn end_waiting_for(
    tx: &mut Tx,
    tenant: TenantId,
    destination: &str,
    at: Timestamp,
    error: &str,
) -> Result<u64, StorageError> {
    tx.execute(
        &END_WAITING_FOR,
        &[&tenant.uuid(), &destination, &at.as_micros(), &error],
    )
}

/// How many messages to each destination were given up since a time and not sent again.
pub fn dead_since(
    tx: &mut Tx,
    tenant: TenantId,
    since: Timestamp,
) -> Result<Vec<(String, i64)>, StorageError> {
    tx.query(&DEAD_SINCE, &[&tenant.uuid(), &since.as_micros()], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

/// Deliveries older than one, newest first; of one state where that is given.
pub fn deliveries_before(
    tx: &mut Tx,
    tenant: TenantId,
    before: DeliveryId,
    state: Option<DeliveryState>,
    limit: i64,
) -> Result<Vec<Delivery>, StorageError> {
    let statement = match state {
        Some(DeliveryState::Dead) => &DEAD_BEFORE,
        Some(DeliveryState::Waiting) => &WAITING_BEFORE,
        Some(DeliveryState::Delivered) | None => &DELIVERIES_BEFORE,
    };
    tx.query(statement, &[&tenant.uuid(), &before.uuid(), &limit], delivery_of)
}

/// The newest deliveries of an alert.
pub fn deliveries_of(
    tx: &mut Tx,
    tenant: TenantId,
    alert: AlertId,
    limit: i64,
) -> Result<Vec<Delivery>, StorageError> {
    tx.query(
        &DELIVERIES_OF,
        &[&tenant.uuid(), &alert.uuid(), &limit],
        delivery_of,
    )
}

/// Forgets deliveries that ended before a time, and the oldest above `kept`; at most `limit` of each.
pub fn forget_deliveries(
    tx: &mut Tx,
    tenant: TenantId,
    before: Timestamp,
    kept: i64,
    limit: i64,
) -> Result<(), StorageError> {
    let id = |row: &Row<'_>| row.get::<Uuid>(0);
    let mut over = tx.query(&ENDED_BEFORE, &[&tenant.uuid(), &before.as_micros(), &limit], id)?;
    over.extend(tx.query(&SURPLUS_DELIVERIES, &[&tenant.uuid(), &kept, &limit], id)?);
    for delivery in over {
        tx.execute(&DELETE_DELIVERY, &[&tenant.uuid(), &delivery])?;
    }
    Ok(())
}

pub fn expiries(tx: &mut Tx, tenant: TenantId, limit: i64) -> Result<Vec<Expiry>, StorageError> {
    tx.query(&EXPIRIES, &[&tenant.uuid(), &limit], |row| {
        Ok(Expiry {
            name: row.get(0)?,
            note: row.get(1)?,
            expires_at: time(row, 2)?,
            source: row.get(3)?,
            updated_by: row.get(4)?,
            updated_at: time(row, 5)?,
        })
    })
}

pub fn put_expiry(tx: &mut Tx, tenant: TenantId, expiry: &Expiry) -> Result<(), StorageError> {
    tx.execute(
        &PUT_EXPIRY,
        &[
            &tenant.uuid(),
            &expiry.name.as_str(),
            &expiry.note.as_str(),
            &expiry.expires_at.as_micros(),
            &expiry.source.as_str(),
            &expiry.updated_by.as_str(),
            &expiry.updated_at.as_micros(),
        ],
    )
    .map(drop)
}

/// Removes what a person entered; answers 0 when there is no such thing.
pub fn delete_expiry(tx: &mut Tx, tenant: TenantId, name: &str) -> Result<u64, StorageError> {
    tx.execute(&DELETE_EXPIRY, &[&tenant.uuid(), &name])
}

pub fn forget_expiries(tx: &mut Tx, tenant: TenantId, before: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&FORGET_EXPIRIES, &[&tenant.uuid(), &before.as_micros()])
}

/// The place of the log up to which alerts followed it.
pub fn followed(tx: &mut Tx, tenant: TenantId) -> Result<Option<u64>, StorageError> {
    tx.query_opt(&FOLLOWED, &[&tenant.uuid()], |row| row.get(0))
}

pub fn follow(tx: &mut Tx, tenant: TenantId, place: u64) -> Result<(), StorageError> {
    tx.execute(&FOLLOW, &[&tenant.uuid(), &place]).map(drop)
}

fn destination_of(row: &Row<'_>) -> Result<Destination, StorageError> {
    Ok(Destination {
        name: row.get(0)?,
        place: read(row, 1, "a place")?,
        secret: row.get(2)?,
        is_default: row.get(3)?,
        is_enabled: row.get(4)?,
        heartbeat_seconds: row.get(5)?,
        heartbeat_at: maybe_time(row, 6)?,
        updated_by: row.get(7)?,
        updated_at: time(row, 8)?,
        succeeded_at: maybe_time(row, 9)?,
        failed_at: maybe_time(row, 10)?,
        error: row.get(11)?,
        previous_secret: row.get(12)?,
        previous_until: maybe_time(row, 13)?,
    })
}

fn alert_of(row: &Row<'_>) -> Result<Alert, StorageError> {
    let (state, severity): (String, String) = (row.get(3)?, row.get(4)?);
    Ok(Alert {
        id: AlertId::from_uuid(row.get(0)?),
        rule: row.get(1)?,
        group: row.get(2)?,
        state: AlertState::parse(&state).ok_or_else(|| unreadable(3, "a state of alerts", &state))?,
        severity: Severity::parse(&severity).ok_or_else(|| unreadable(4, "a severity", &severity))?,
        title: row.get(5)?,
        instances: read(row, 6, "objects of an alert")?,
        occurrences: row.get(7)?,
        started_at: time(row, 8)?,
        fired_at: maybe_time(row, 9)?,
        resolved_at: maybe_time(row, 10)?,
        because: row.get(11)?,
        acknowledged_at: maybe_time(row, 12)?,
        acknowledged_by: row.get(13)?,
        told: read(row, 14, "a list of destinations")?,
        told_at: maybe_time(row, 15)?,
        told_occurrences: row.get(16)?,
        escalated: row.get(17)?,
    })
}

fn silence_of(row: &Row<'_>) -> Result<Silence, StorageError> {
    Ok(Silence {
        id: SilenceId::from_uuid(row.get(0)?),
        matcher: read(row, 1, "a matcher")?,
        reason: row.get(2)?,
        starts_at: time(row, 3)?,
        ends_at: time(row, 4)?,
        weekly_until: maybe_time(row, 5)?,
        created_by: row.get(6)?,
        created_at: time(row, 7)?,
        ended_at: maybe_time(row, 8)?,
    })
}

fn delivery_of(row: &Row<'_>) -> Result<Delivery, StorageError> {
    let state: String = row.get(5)?;
    let former = match row.get::<Option<String>>(12)? {
        Some(_) => Some(Box::new(Destination {
            name: row.get(2)?,
            place: read(row, 12, "a place")?,
            secret: row.get(13)?,
            is_default: false,
            is_enabled: true,
            heartbeat_seconds: None,
            heartbeat_at: None,
            updated_by: String::new(),
            updated_at: time(row, 8)?,
            succeeded_at: None,
            failed_at: None,
            error: None,
            previous_secret: None,
            previous_until: None,
        })),
        None => None,
    };
    Ok(Delivery {
        former,
        id: DeliveryId::from_uuid(row.get(0)?),
        alert: row.get::<Option<Uuid>>(1)?.map(AlertId::from_uuid),
        destination: row.get(2)?,
        notice: read(row, 4, "a notice")?,
        state: DeliveryState::parse(&state).ok_or_else(|| unreadable(5, "a state of deliveries", &state))?,
        attempts: row.get(6)?,
        next_at: time(row, 7)?,
        created_at: time(row, 8)?,
        ended_at: maybe_time(row, 9)?,
        status: row.get(10)?,
        error: row.get(11)?,
    })
}
