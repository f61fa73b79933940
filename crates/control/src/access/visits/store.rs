//! SQL of visits.

use muster_model::{SessionId, TenantId, Timestamp, VisitId};
use muster_storage::{Row, StorageError, Tx, statements};
use uuid::Uuid;

use super::{
    OperatorAccess, Visit,
    rules::{FIRST_CEILING, Mode, State},
};

statements! {
    TAKE_TURN = "UPDATE access_tenant SET state_at = state_at WHERE tenant_id = $1";
    ASKED_SINCE = "SELECT COUNT(*) FROM access_visit WHERE tenant_id = $1 AND home = $2 AND asked_at > $3";
    OPERATOR_ACCESS = "SELECT mode, ceiling, updated_by, updated_at FROM access_operator_access WHERE tenant_id = $1";
    PUT_OPERATOR_ACCESS = "INSERT INTO access_operator_access (tenant_id, mode, ceiling, updated_by, updated_at) \
        VALUES ($1, $2, $3, $4, $5) ON CONFLICT (tenant_id) DO UPDATE SET mode = excluded.mode, \
        ceiling = excluded.ceiling, updated_by = excluded.updated_by, updated_at = excluded.updated_at";
    INSERT_VISIT = "INSERT INTO access_visit (tenant_id, visit_id, home, person, display_name, account, actor, role, minutes, \
        reason, state, asked_at, answer_by, decided_by, decided_at, changes) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, 0)";
    VISIT = "SELECT tenant_id, visit_id, home, person, display_name, account, actor, role, minutes, reason, state, asked_at, \
        answer_by, decided_by, decided_at, begun_at, ends_at, home_session, session_id, changes, size_before, size_after, \
        checkpoint, ended_at, ended_by, ended_because FROM access_visit WHERE tenant_id = $1 AND visit_id = $2";
    VISIT_FROM = "SELECT tenant_id, visit_id, home, person, display_name, account, actor, role, minutes, reason, state, asked_at, \
        answer_by, decided_by, decided_at, begun_at, ends_at, home_session, session_id, changes, size_before, size_after, \
        checkpoint, ended_at, ended_by, ended_because FROM access_visit WHERE home = $1 AND visit_id = $2";
    VISITS = "SELECT tenant_id, visit_id, home, person, display_name, account, actor, role, minutes, reason, state, asked_at, \
        answer_by, decided_by, decided_at, begun_at, ends_at, home_session, session_id, changes, size_before, size_after, \
        checkpoint, ended_at, ended_by, ended_because FROM access_visit WHERE tenant_id = $1 AND visit_id < $2 \
        ORDER BY visit_id DESC LIMIT $3";
    VISITS_FROM = "SELECT tenant_id, visit_id, home, person, display_name, account, actor, role, minutes, reason, state, asked_at, \
        answer_by, decided_by, decided_at, begun_at, ends_at, home_session, session_id, changes, size_before, size_after, \
        checkpoint, ended_at, ended_by, ended_because FROM access_visit WHERE home = $1 AND visit_id < $2 \
        ORDER BY visit_id DESC LIMIT $3";
    OPEN_VISITS = "SELECT tenant_id, visit_id, home, person, display_name, account, actor, role, minutes, reason, state, asked_at, \
        answer_by, decided_by, decided_at, begun_at, ends_at, home_session, session_id, changes, size_before, size_after, \
        checkpoint, ended_at, ended_by, ended_because FROM access_visit WHERE tenant_id = $1 \
        AND state IN ('requested', 'granted', 'active') ORDER BY visit_id";
    ALL_OPEN_VISITS = "SELECT tenant_id, visit_id, home, person, display_name, account, actor, role, minutes, reason, state, asked_at, \
        answer_by, decided_by, decided_at, begun_at, ends_at, home_session, session_id, changes, size_before, size_after, \
        checkpoint, ended_at, ended_by, ended_because FROM access_visit \
        WHERE state IN ('requested', 'granted', 'active') ORDER BY tenant_id, visit_id";
    SINCE = "SELECT begun_at FROM access_visit WHERE tenant_id = $1 AND actor = $2";
    DECIDE_VISIT = "UPDATE access_visit SET state = $3, decided_by = $4, decided_at = $5, answer_by = $6, role = $7, minutes = $8 \
        WHERE tenant_id = $1 AND visit_id = $2 AND state = 'requested'";
    BEGIN_VISIT = "UPDATE access_visit SET state = 'active', begun_at = $3, ends_at = $4, home_session = $5, session_id = $6, \
        size_before = $7 WHERE tenant_id = $1 AND visit_id = $2 AND state = 'granted'";
    COUNT_CHANGES = "UPDATE access_visit SET changes = changes + $3 WHERE tenant_id = $1 AND visit_id = $2 AND state = 'active' \
        AND ends_at > $4";
    END_VISIT = "UPDATE access_visit SET state = $4, ended_at = $5, ended_by = $6, ended_because = $7 \
        WHERE tenant_id = $1 AND visit_id = $2 AND state = $3";
    NOTE_END = "UPDATE access_visit SET size_after = $3, checkpoint = $4 WHERE tenant_id = $1 AND visit_id = $2";
    END_VISIT_SESSION = "DELETE FROM access_session WHERE tenant_id = $1 AND session_id = $2";
    TOUCH_HOME = "UPDATE access_session SET seen_at = $3 WHERE tenant_id = $1 AND session_id = $2";
    TRIM_VISITS = "DELETE FROM access_visit WHERE tenant_id = $1 AND state IN ('denied', 'expired', 'ended') \
        AND visit_id <= (SELECT visit_id FROM access_visit WHERE tenant_id = $1 ORDER BY visit_id DESC LIMIT 1 OFFSET $2)";
}

/// Holds the row of a tenant, so that transactions over its visits wait for one another; answers the rows.
pub fn take_turn(tx: &mut Tx, tenant: TenantId) -> Result<u64, StorageError> {
    tx.execute(&TAKE_TURN, &[&tenant.uuid()])
}

/// How many visits people of `home` asked a tenant for after `since`.
pub fn asked_since(
    tx: &mut Tx,
    tenant: TenantId,
    home: TenantId,
    since: Timestamp,
) -> Result<i64, StorageError> {
    tx.query_one(
        &ASKED_SINCE,
        &[&tenant.uuid(), &home.uuid(), &since.as_micros()],
        |row| row.get(0),
    )
}

/// What a tenant said; `never` where it said nothing.
pub fn operator_access(tx: &mut Tx, tenant: TenantId) -> Result<OperatorAccess, StorageError> {
    let found = tx.query_opt(&OPERATOR_ACCESS, &[&tenant.uuid()], |row| {
        let mode: String = row.get(0)?;
        Ok(OperatorAccess {
            // A word that nobody here wrote lets nobody in.
            mode: Mode::parse(&mode).unwrap_or(Mode::Never),
            ceiling: row.get(1)?,
            updated_by: Some(row.get(2)?),
            updated_at: Some(Timestamp::from_micros(row.get(3)?)),
        })
    })?;
    Ok(found.unwrap_or_else(|| OperatorAccess {
        mode: Mode::Never,
        ceiling: FIRST_CEILING.to_owned(),
        updated_by: None,
        updated_at: None,
    }))
}

pub fn put_operator_access(
    tx: &mut Tx,
    tenant: TenantId,
    (mode, ceiling): (Mode, &str),
    (by, at): (&str, Timestamp),
) -> Result<(), StorageError> {
    tx.execute(
        &PUT_OPERATOR_ACCESS,
        &[&tenant.uuid(), &mode.word(), &ceiling, &by, &at.as_micros()],
    )
    .map(drop)
}

pub fn insert(tx: &mut Tx, visit: &Visit) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_VISIT,
        &[
            &visit.tenant.uuid(),
            &visit.id.uuid(),
            &visit.home.uuid(),
            &visit.person.as_str(),
            &visit.display_name.as_str(),
            &visit.account.as_str(),
            &visit.actor.as_str(),
            &visit.role.as_str(),
            &i64::from(visit.minutes),
            &visit.reason.as_str(),
            &visit.state.word(),
            &visit.asked_at.as_micros(),
            &visit.answer_by.as_micros(),
            &visit.decided_by.as_deref(),
            &visit.decided_at.map(Timestamp::as_micros),
        ],
    )
    .map(drop)
}

fn visit_of(row: &Row<'_>) -> Result<Visit, StorageError> {
    let state: String = row.get(10)?;
    let time =
        |index: usize| Ok::<_, StorageError>(row.get::<Option<i64>>(index)?.map(Timestamp::from_micros));
    let size = |index: usize| {
        let size = row.get::<Option<i64>>(index)?;
        Ok::<_, StorageError>(size.and_then(|size| u64::try_from(size).ok()))
    };
    Ok(Visit {
        tenant: TenantId::from_uuid(row.get(0)?),
        id: VisitId::from_uuid(row.get(1)?),
        home: TenantId::from_uuid(row.get(2)?),
        person: row.get(3)?,
        display_name: row.get(4)?,
        account: row.get(5)?,
        actor: row.get(6)?,
        role: row.get(7)?,
        minutes: u32::try_from(row.get::<i64>(8)?).unwrap_or(0),
        reason: row.get(9)?,
        state: State::read(&state),
        asked_at: Timestamp::from_micros(row.get(11)?),
        answer_by: Timestamp::from_micros(row.get(12)?),
        decided_by: row.get(13)?,
        decided_at: time(14)?,
        begun_at: time(15)?,
        ends_at: time(16)?,
        home_session: row.get::<Option<Uuid>>(17)?.map(SessionId::from_uuid),
        session: row.get::<Option<Uuid>>(18)?.map(SessionId::from_uuid),
        changes: u64::try_from(row.get::<i64>(19)?).unwrap_or(0),
        size_before: size(20)?,
        size_after: size(21)?,
        checkpoint: row.get(22)?,
        ended_at: time(23)?,
        ended_by: row.get(24)?,
        ended_because: row.get(25)?,
    })
}

/// A visit to a tenant.
pub fn visit(tx: &mut Tx, tenant: TenantId, id: VisitId) -> Result<Option<Visit>, StorageError> {
    tx.query_opt(&VISIT, &[&tenant.uuid(), &id.uuid()], visit_of)
}

/// A visit of somebody of `home`, to whatever tenant.
pub fn visit_from(tx: &mut Tx, home: TenantId, id: VisitId) -> Result<Option<Visit>, StorageError> {
    tx.query_opt(&VISIT_FROM, &[&home.uuid(), &id.uuid()], visit_of)
}

/// Visits to a tenant before `before`, the newest first.
pub fn visits(
    tx: &mut Tx,
    tenant: TenantId,
    before: VisitId,
    limit: i64,
) -> Result<Vec<Visit>, StorageError> {
    tx.query(&VISITS, &[&tenant.uuid(), &before.uuid(), &limit], visit_of)
}

/// As [`visits`], of people of `home`, to whatever tenants.
pub fn visits_from(
    tx: &mut Tx,
    home: TenantId,
    before: VisitId,
    limit: i64,
) -> Result<Vec<Visit>, StorageError> {
    tx.query(&VISITS_FROM, &[&home.uuid(), &before.uuid(), &limit], visit_of)
}

/// Visits to a tenant that are not over.
pub fn open(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Visit>, StorageError> {
    tx.query(&OPEN_VISITS, &[&tenant.uuid()], visit_of)
}

/// Across tenants: visits that are not over.
pub fn all_open(tx: &mut Tx) -> Result<Vec<Visit>, StorageError> {
    tx.query(&ALL_OPEN_VISITS, &[], visit_of)
}

/// When the visitor of this name in the log came.
pub fn since(tx: &mut Tx, tenant: TenantId, actor: &str) -> Result<Option<Option<i64>>, StorageError> {
    tx.query_opt(&SINCE, &[&tenant.uuid(), &actor], |row| row.get(0))
}

/// Grants or denies what is requested; answers 0 where it is not any more.
pub fn decide(
    tx: &mut Tx,
    visit: &Visit,
    state: State,
    (by, at, answer_by): (&str, Timestamp, Timestamp),
) -> Result<u64, StorageError> {
    tx.execute(
        &DECIDE_VISIT,
        &[
            &visit.tenant.uuid(),
            &visit.id.uuid(),
            &state.word(),
            &by,
            &at.as_micros(),
            &answer_by.as_micros(),
            &visit.role.as_str(),
            &i64::from(visit.minutes),
        ],
    )
}

/// Begins what is granted; answers 0 where it is not any more.
pub fn begin(tx: &mut Tx, visit: &Visit) -> Result<u64, StorageError> {
    let size = visit.size_before.and_then(|size| i64::try_from(size).ok());
    tx.execute(
        &BEGIN_VISIT,
        &[
            &visit.tenant.uuid(),
            &visit.id.uuid(),
            &visit.begun_at.map(Timestamp::as_micros),
            &visit.ends_at.map(Timestamp::as_micros),
            &visit.home_session.map(SessionId::uuid),
            &visit.session.map(SessionId::uuid),
            &size,
        ],
    )
}

/// Counts changes of a visit that is under way; answers 0 where it is over. An end waits for the transaction, and the other way around.
pub fn count_changes(
    tx: &mut Tx,
    tenant: TenantId,
    id: VisitId,
    more: i64,
    now: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(
        &COUNT_CHANGES,
        &[&tenant.uuid(), &id.uuid(), &more, &now.as_micros()],
    )
}

/// Moves a visit to a state in which it is over; answers 0 where it is not in `visit`'s state any more.
pub fn end(
    tx: &mut Tx,
    visit: &Visit,
    to: State,
    (at, by, because): (Timestamp, &str, &str),
) -> Result<u64, StorageError> {
    let from = visit.state.word();
    tx.execute(
        &END_VISIT,
        &[
            &visit.tenant.uuid(),
            &visit.id.uuid(),
            &from,
            &to.word(),
            &at.as_micros(),
            &by,
            &because,
        ],
    )
}

/// Writes how far the visited tenant's log was at the end.
pub fn note_end(tx: &mut Tx, visit: &Visit, size: u64, checkpoint: &str) -> Result<(), StorageError> {
    tx.execute(
        &NOTE_END,
        &[
            &visit.tenant.uuid(),
            &visit.id.uuid(),
            &i64::try_from(size).unwrap_or(i64::MAX),
            &checkpoint,
        ],
    )
    .map(drop)
}

pub fn end_session(tx: &mut Tx, tenant: TenantId, session: SessionId) -> Result<u64, StorageError> {
    tx.execute(&END_VISIT_SESSION, &[&tenant.uuid(), &session.uuid()])
}

pub fn touch(tx: &mut Tx, tenant: TenantId, session: SessionId, now: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&TOUCH_HOME, &[&tenant.uuid(), &session.uuid(), &now.as_micros()])
}

/// Removes visits that are over, but the newest `kept`.
pub fn trim(tx: &mut Tx, tenant: TenantId, kept: i64) -> Result<u64, StorageError> {
    tx.execute(&TRIM_VISITS, &[&tenant.uuid(), &kept])
}
