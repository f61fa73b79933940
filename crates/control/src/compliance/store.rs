//! SQL of the `compliance_` tables.

use muster_model::{
    ComplianceState, DeviceId, PolicyId, TenantId, Timestamp, ViolationId,
    rules::{Remediation, Severity},
};
use muster_storage::{Row, StorageError, Tx, statements};
use uuid::Uuid;

use super::{Change, HeldRow, ListedViolation, Share, TenantRow, Violation, ViolationFilter};

macro_rules! violation_columns {
    ($prefix:literal) => {
        concat!(
            $prefix,
            "violation_id, ",
            $prefix,
            "device_id, ",
            $prefix,
            "policy_id, ",
            $prefix,
            "subject, ",
            $prefix,
            "severity, ",
            $prefix,
            "reason, ",
            $prefix,
            "since, ",
            $prefix,
            "unknown_since, ",
            $prefix,
            "remediation, ",
            $prefix,
            "grace_until, ",
            $prefix,
            "steps_done, ",
            $prefix,
            "next_at, ",
            $prefix,
            "escalated_at, ",
            $prefix,
            "resolved_at"
        )
    };
}

statements! {
    BEGIN_DEVICE = "INSERT INTO compliance_device \
        (tenant_id, device_id, state, policies_sha256, evaluated_at, logged_hour, logged) \
        VALUES ($1, $2, '', '', $3, 0, 0) ON CONFLICT (tenant_id, device_id) DO UPDATE SET evaluated_at = $3 \
        RETURNING state, policies_sha256, judged_sha256, recheck_at, report_wanted_at, report_asked_at, logged_hour, \
        logged";
    SAVE_DEVICE = "UPDATE compliance_device SET state = $3, policies_sha256 = $4, judged_sha256 = $5, recheck_at = $6, \
        report_wanted_at = $7, report_asked_at = $8, logged_hour = $9, logged = $10 \
        WHERE tenant_id = $1 AND device_id = $2";
    EVALUATED_BY = "SELECT policies_sha256 FROM compliance_device WHERE tenant_id = $1 AND device_id = $2";
    WANT_REPORT = "UPDATE compliance_device SET report_wanted_at = $3, report_asked_at = NULL \
        WHERE tenant_id = $1 AND device_id = $2";
    IS_REPORT_WANTED = "SELECT COUNT(*) FROM compliance_device WHERE tenant_id = $1 AND device_id = $2 \
        AND report_wanted_at IS NOT NULL";
    REPORT_ASKED = "UPDATE compliance_device SET report_asked_at = $3 \
        WHERE tenant_id = $1 AND device_id = $2 AND report_wanted_at IS NOT NULL AND report_asked_at IS NULL";
    FORGET_DEVICE = "DELETE FROM compliance_device WHERE tenant_id = $1 AND device_id = $2";
    INACTIVE = "SELECT c.device_id FROM compliance_device c \
        LEFT JOIN devices_device d ON d.tenant_id = c.tenant_id AND d.device_id = c.device_id \
        WHERE c.tenant_id = $1 AND (d.state IS NULL OR d.state <> 'active') LIMIT $2";
    RECHECK_DEVICE = "UPDATE compliance_device SET recheck_at = $3 WHERE tenant_id = $1 AND device_id = $2";
    RECHECK_ALL = "UPDATE compliance_device SET recheck_at = $2 WHERE tenant_id = $1";
    RECHECKS = "SELECT device_id FROM compliance_device WHERE tenant_id = $1 AND recheck_at <= $2 \
        ORDER BY recheck_at LIMIT $3";

    USE_JUDGED = "INSERT INTO compliance_judged (tenant_id, judged_sha256, subjects, used_at) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (tenant_id, judged_sha256) DO UPDATE SET used_at = $4";
    JUDGED = "SELECT j.subjects, COUNT(*) FROM compliance_device d \
        JOIN compliance_judged j ON j.tenant_id = d.tenant_id AND j.judged_sha256 = d.judged_sha256 \
        WHERE d.tenant_id = $1 GROUP BY j.judged_sha256, j.subjects";
    FORGET_JUDGED = "DELETE FROM compliance_judged WHERE tenant_id = $1 AND used_at < $2 AND NOT EXISTS \
        (SELECT 1 FROM compliance_device d WHERE d.tenant_id = $1 AND d.judged_sha256 = compliance_judged.judged_sha256)";

    OPEN_OF = concat!("SELECT ", violation_columns!(""), " FROM compliance_violation \
        WHERE tenant_id = $1 AND device_id = $2 AND resolved_at IS NULL ORDER BY policy_id, subject");
    RESOLVED_OF = concat!("SELECT ", violation_columns!(""), " FROM compliance_violation \
        WHERE tenant_id = $1 AND device_id = $2 AND resolved_at IS NOT NULL ORDER BY resolved_at DESC LIMIT $3");
    OPEN_VIOLATION = concat!("INSERT INTO compliance_violation (tenant_id, ", violation_columns!(""), ") \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, NULL, NULL)");
    UPDATE_VIOLATION = "UPDATE compliance_violation SET severity = $3, reason = $4, unknown_since = $5, \
        remediation = $6, grace_until = $7, next_at = $8 \
        WHERE tenant_id = $1 AND violation_id = $2 AND resolved_at IS NULL";
    RESOLVE = "UPDATE compliance_violation SET resolved_at = $3, next_at = NULL \
        WHERE tenant_id = $1 AND violation_id = $2 AND resolved_at IS NULL";
    RESOLVE_ALL = "UPDATE compliance_violation SET resolved_at = $3, next_at = NULL \
        WHERE tenant_id = $1 AND device_id = $2 AND resolved_at IS NULL";
    TRIM_RESOLVED = "DELETE FROM compliance_violation WHERE tenant_id = $1 AND violation_id IN \
        (SELECT violation_id FROM compliance_violation WHERE tenant_id = $1 AND device_id = $2 \
        AND resolved_at IS NOT NULL ORDER BY resolved_at DESC, violation_id DESC LIMIT 1000 OFFSET $3)";
    DUE = concat!("SELECT ", violation_columns!(""), " FROM compliance_violation \
        WHERE tenant_id = $1 AND resolved_at IS NULL AND next_at <= $2 ORDER BY next_at LIMIT $3");
    ADVANCE = "UPDATE compliance_violation SET steps_done = steps_done + 1, next_at = $4, \
        escalated_at = COALESCE($5, escalated_at) \
        WHERE tenant_id = $1 AND violation_id = $2 AND steps_done = $3 AND resolved_at IS NULL AND next_at <= $6";
    POSTPONE = "UPDATE compliance_violation SET steps_done = $3, next_at = $4 \
        WHERE tenant_id = $1 AND violation_id = $2 AND resolved_at IS NULL";
    LIST_OPEN = concat!("SELECT d.name, ", violation_columns!("v."), " FROM compliance_violation v \
        JOIN devices_device d ON d.tenant_id = v.tenant_id AND d.device_id = v.device_id \
        WHERE v.tenant_id = $1 AND v.violation_id < $2 AND v.resolved_at IS NULL AND ($3 = '' OR v.severity = $3) \
        AND ($4 = '' OR v.subject = $4) AND v.policy_id >= $5 AND v.policy_id <= $6 \
        AND COALESCE(v.escalated_at, 0) >= $7 ORDER BY v.violation_id DESC LIMIT $8");
    COUNT_ESCALATED = "SELECT COUNT(*) FROM compliance_violation WHERE tenant_id = $1 AND resolved_at IS NULL \
        AND escalated_at IS NOT NULL";
    VIOLATING = "SELECT device_id FROM compliance_violation WHERE tenant_id = $1 AND policy_id = $2 AND subject = $3 \
        AND resolved_at IS NULL AND unknown_since IS NULL";
    BY_SUBJECT = "SELECT policy_id, subject, COUNT(*) FROM compliance_violation \
        WHERE tenant_id = $1 AND resolved_at IS NULL AND unknown_since IS NULL GROUP BY policy_id, subject";
    BY_SEVERITY = "SELECT severity, COUNT(*) FROM compliance_violation WHERE tenant_id = $1 AND resolved_at IS NULL \
        GROUP BY severity";
    ORPHANS = "SELECT v.violation_id, v.device_id, COALESCE(d.state, 'gone'), COALESCE(p.name, '') \
        FROM compliance_violation v \
        LEFT JOIN devices_device d ON d.tenant_id = v.tenant_id AND d.device_id = v.device_id \
        LEFT JOIN policy_policy p ON p.tenant_id = v.tenant_id AND p.policy_id = v.policy_id \
        WHERE v.tenant_id = $1 AND v.resolved_at IS NULL \
        AND (d.state IS NULL OR d.state <> 'active' OR p.policy_id IS NULL) LIMIT $2";
    FORGET_VIOLATIONS = "DELETE FROM compliance_violation WHERE (tenant_id, violation_id) IN \
        (SELECT tenant_id, violation_id FROM compliance_violation WHERE resolved_at IS NOT NULL AND resolved_at < $1 \
        LIMIT $2)";

    PUT_CHANGE = "INSERT INTO compliance_change (tenant_id, change_id, device_id, at, from_state, to_state) \
        VALUES ($1, $2, $3, $4, $5, $6)";
    CHANGES_OF = "SELECT at, from_state, to_state FROM compliance_change WHERE tenant_id = $1 AND device_id = $2 \
        ORDER BY change_id DESC LIMIT $3";
    TRIM_CHANGES = "DELETE FROM compliance_change WHERE tenant_id = $1 AND change_id IN \
        (SELECT change_id FROM compliance_change WHERE tenant_id = $1 AND device_id = $2 \
        ORDER BY change_id DESC LIMIT 1000 OFFSET $3)";
    FORGET_CHANGES = "DELETE FROM compliance_change WHERE (tenant_id, change_id) IN \
        (SELECT tenant_id, change_id FROM compliance_change WHERE at < $1 LIMIT $2)";

    PUT_SHARE = "INSERT INTO compliance_share (tenant_id, policy_id, subject, hour, violating, judged) \
        VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (tenant_id, policy_id, subject, hour) DO NOTHING";
    SHARES_AT = "SELECT policy_id, subject, hour, violating, judged FROM compliance_share \
        WHERE tenant_id = $1 AND hour = (SELECT MAX(hour) FROM compliance_share \
        WHERE tenant_id = $1 AND hour <= $2 AND hour >= $3)";
    SHARES_OF = "SELECT policy_id, subject, hour, violating, judged FROM compliance_share \
        WHERE tenant_id = $1 AND policy_id = $2 AND subject = $3 AND hour >= $4 ORDER BY hour LIMIT $5";
    FORGET_SHARES = "DELETE FROM compliance_share WHERE (tenant_id, policy_id, subject, hour) IN \
        (SELECT tenant_id, policy_id, subject, hour FROM compliance_share WHERE hour < $1 LIMIT $2)";

    BEGIN_TENANT = "INSERT INTO compliance_tenant (tenant_id, served_at, sampled_hour, pass_generation, \
        pass_started_at, pass_looked_at, pass_evaluated, budget_hour, budget_used, budget_refused) \
        VALUES ($1, $2, 0, 0, 0, 0, 0, 0, 0, 0) ON CONFLICT (tenant_id) DO UPDATE SET served_at = $2 \
        RETURNING sampled_hour, pass_generation, pass_started_at, pass_after, pass_looked_at, pass_evaluated, \
        budget_hour, budget_used, budget_refused";
    SAVE_TENANT = "UPDATE compliance_tenant SET sampled_hour = $2, pass_generation = $3, pass_started_at = $4, \
        pass_after = $5, pass_looked_at = $6, pass_evaluated = $7, budget_hour = $8, budget_used = $9, \
        budget_refused = $10 WHERE tenant_id = $1";
    TENANT = "SELECT sampled_hour, pass_generation, pass_started_at, pass_after, pass_looked_at, pass_evaluated, \
        budget_hour, budget_used, budget_refused FROM compliance_tenant WHERE tenant_id = $1";
    SERVED = "SELECT tenant_id, served_at FROM compliance_tenant";
}

/// Locks a device's row and answers it; makes it where there is none.
pub fn begin_device(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    at: Timestamp,
) -> Result<HeldRow, StorageError> {
    tx.query_one(
        &BEGIN_DEVICE,
        &[&tenant.uuid(), &device.uuid(), &at.as_micros()],
        |row| {
            Ok(HeldRow {
                state: ComplianceState::parse(&row.get::<String>(0)?),
                policies_sha256: row.get(1)?,
                judged_sha256: row.get(2)?,
                recheck_at: time(row.get(3)?),
                report_wanted_at: time(row.get(4)?),
                report_asked_at: time(row.get(5)?),
                logged_hour: row.get(6)?,
                logged: row.get(7)?,
            })
        },
    )
}

pub fn save_device(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    row: &HeldRow,
) -> Result<u64, StorageError> {
    tx.execute(
        &SAVE_DEVICE,
        &[
            &tenant.uuid(),
            &device.uuid(),
            &row.state.map_or("", ComplianceState::as_str),
            &row.policies_sha256.as_str(),
            &row.judged_sha256,
            &micros(row.recheck_at),
            &micros(row.report_wanted_at),
            &micros(row.report_asked_at),
            &row.logged_hour,
            &row.logged,
        ],
    )
}

/// The digest of the policies that a device was evaluated by last.
pub fn evaluated_by(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Option<String>, StorageError> {
    tx.query_opt(&EVALUATED_BY, &[&tenant.uuid(), &device.uuid()], |row| row.get(0))
}

pub fn want_report(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    at: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(&WANT_REPORT, &[&tenant.uuid(), &device.uuid(), &at.as_micros()])
}

pub fn is_report_wanted(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<bool, StorageError> {
    tx.query_one(&IS_REPORT_WANTED, &[&tenant.uuid(), &device.uuid()], |row| {
        row.get::<i64>(0)
    })
    .map(|rows| rows > 0)
}

pub fn report_asked(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    at: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(&REPORT_ASKED, &[&tenant.uuid(), &device.uuid(), &at.as_micros()])
}

pub fn forget_device(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<u64, StorageError> {
    tx.execute(&FORGET_DEVICE, &[&tenant.uuid(), &device.uuid()])
}

/// Devices with a row here that are active no more.
pub fn inactive(tx: &mut Tx, tenant: TenantId, limit: i64) -> Result<Vec<DeviceId>, StorageError> {
    tx.query(&INACTIVE, &[&tenant.uuid(), &limit], |row| {
        Ok(DeviceId::from_uuid(row.get(0)?))
    })
}

/// Has a device evaluated soon; 0 where it never was.
pub fn recheck_device(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    at: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(
        &RECHECK_DEVICE,
        &[&tenant.uuid(), &device.uuid(), &at.as_micros()],
    )
}

/// Has every device of a tenant evaluated soon.
pub fn recheck_all(tx: &mut Tx, tenant: TenantId, at: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&RECHECK_ALL, &[&tenant.uuid(), &at.as_micros()])
}

/// Devices whose verdict may have changed by time alone.
pub fn rechecks(
    tx: &mut Tx,
    tenant: TenantId,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<DeviceId>, StorageError> {
    tx.query(&RECHECKS, &[&tenant.uuid(), &now.as_micros(), &limit], |row| {
        Ok(DeviceId::from_uuid(row.get(0)?))
    })
}

pub fn use_judged(
    tx: &mut Tx,
    tenant: TenantId,
    sha256: &[u8],
    subjects: &str,
    at: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(
        &USE_JUDGED,
        &[&tenant.uuid(), &sha256, &subjects, &at.as_micros()],
    )
}

/// Sets of judged subjects, as JSON, with how many devices have each.
pub fn judged(tx: &mut Tx, tenant: TenantId) -> Result<Vec<(String, i64)>, StorageError> {
    tx.query(&JUDGED, &[&tenant.uuid()], |row| Ok((row.get(0)?, row.get(1)?)))
}

pub fn forget_judged(tx: &mut Tx, tenant: TenantId, before: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&FORGET_JUDGED, &[&tenant.uuid(), &before.as_micros()])
}

pub fn open_of(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Vec<Violation>, StorageError> {
    tx.query(&OPEN_OF, &[&tenant.uuid(), &device.uuid()], |row| {
        violation_of(row, 0)
    })
}

pub fn resolved_of(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    limit: i64,
) -> Result<Vec<Violation>, StorageError> {
    tx.query(&RESOLVED_OF, &[&tenant.uuid(), &device.uuid(), &limit], |row| {
        violation_of(row, 0)
    })
}

pub fn open_violation(tx: &mut Tx, tenant: TenantId, violation: &Violation) -> Result<u64, StorageError> {
    tx.execute(
        &OPEN_VIOLATION,
        &[
            &tenant.uuid(),
            &violation.id.uuid(),
            &violation.device.uuid(),
            &violation.policy.uuid(),
            &violation.subject.as_str(),
            &violation.severity.as_str(),
            &violation.reason.as_str(),
            &violation.since.as_micros(),
            &micros(violation.unknown_since),
            &remediation_text(violation),
            &micros(violation.grace_until),
            &violation.steps_done,
            &micros(violation.next_at),
        ],
    )
}

pub fn update_violation(tx: &mut Tx, tenant: TenantId, violation: &Violation) -> Result<u64, StorageError> {
    tx.execute(
        &UPDATE_VIOLATION,
        &[
            &tenant.uuid(),
            &violation.id.uuid(),
            &violation.severity.as_str(),
            &violation.reason.as_str(),
            &micros(violation.unknown_since),
            &remediation_text(violation),
            &micros(violation.grace_until),
            &micros(violation.next_at),
        ],
    )
}

pub fn resolve(tx: &mut Tx, tenant: TenantId, id: ViolationId, at: Timestamp) -> Result<u64, StorageError> {
    tx.execute(&RESOLVE, &[&tenant.uuid(), &id.uuid(), &at.as_micros()])
}

pub fn resolve_all(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    at: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(&RESOLVE_ALL, &[&tenant.uuid(), &device.uuid(), &at.as_micros()])
}

/// Drops the oldest resolved violations of a device past `kept`.
pub fn trim_resolved(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    kept: i64,
) -> Result<u64, StorageError> {
    tx.execute(&TRIM_RESOLVED, &[&tenant.uuid(), &device.uuid(), &kept])
}

pub fn due(
    tx: &mut Tx,
    tenant: TenantId,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Violation>, StorageError> {
    tx.query(&DUE, &[&tenant.uuid(), &now.as_micros(), &limit], |row| {
        violation_of(row, 0)
    })
}

/// Takes the next step of a violation; answers 0 when somebody else has, or when it was resolved.
pub fn advance(
    tx: &mut Tx,
    tenant: TenantId,
    violation: &Violation,
    next_at: Option<Timestamp>,
    escalated_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(
        &ADVANCE,
        &[
            &tenant.uuid(),
            &violation.id.uuid(),
            &violation.steps_done,
            &micros(next_at),
            &micros(escalated_at),
            &now.as_micros(),
        ],
    )
}

/// Takes an advance back: the step waits.
pub fn postpone(
    tx: &mut Tx,
    tenant: TenantId,
    violation: &Violation,
    next_at: Timestamp,
) -> Result<u64, StorageError> {
    tx.execute(
        &POSTPONE,
        &[
            &tenant.uuid(),
            &violation.id.uuid(),
            &violation.steps_done,
            &next_at.as_micros(),
        ],
    )
}

/// Open violations, newest first, before `before`.
pub fn list_open(
    tx: &mut Tx,
    tenant: TenantId,
    filter: &ViolationFilter,
    before: ViolationId,
    limit: i64,
) -> Result<Vec<ListedViolation>, StorageError> {
    let (from, to) = match filter.policy {
        Some(policy) => (policy.uuid(), policy.uuid()),
        None => (Uuid::nil(), Uuid::max()),
    };
    tx.query(
        &LIST_OPEN,
        &[
            &tenant.uuid(),
            &before.uuid(),
            &filter.severity.map_or("", Severity::as_str),
            &filter.subject.as_str(),
            &from,
            &to,
            &i64::from(filter.only_escalated),
            &limit,
        ],
        |row| {
            Ok(ListedViolation {
                device_name: row.get(0)?,
                violation: violation_of(row, 1)?,
            })
        },
    )
}

pub fn count_escalated(tx: &mut Tx, tenant: TenantId) -> Result<i64, StorageError> {
    tx.query_one(&COUNT_ESCALATED, &[&tenant.uuid()], |row| row.get(0))
}

/// The devices that violate a subject of a policy.
pub fn violating(
    tx: &mut Tx,
    tenant: TenantId,
    policy: PolicyId,
    subject: &str,
) -> Result<Vec<DeviceId>, StorageError> {
    tx.query(&VIOLATING, &[&tenant.uuid(), &policy.uuid(), &subject], |row| {
        Ok(DeviceId::from_uuid(row.get(0)?))
    })
}

/// Violating devices by policy and subject.
pub fn by_subject(tx: &mut Tx, tenant: TenantId) -> Result<Vec<(PolicyId, String, i64)>, StorageError> {
    tx.query(&BY_SUBJECT, &[&tenant.uuid()], |row| {
        Ok((PolicyId::from_uuid(row.get(0)?), row.get(1)?, row.get(2)?))
    })
}

pub fn by_severity(tx: &mut Tx, tenant: TenantId) -> Result<Vec<(String, i64)>, StorageError> {
    tx.query(&BY_SEVERITY, &[&tenant.uuid()], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

/// Open violations of devices that are not active, or of policies that nobody knows: with the device's state, and the
/// policy's name, empty where there is none.
pub fn orphans(
    tx: &mut Tx,
    tenant: TenantId,
    limit: i64,
) -> Result<Vec<(ViolationId, DeviceId, String, String)>, StorageError> {
    tx.query(&ORPHANS, &[&tenant.uuid(), &limit], |row| {
        Ok((
            ViolationId::from_uuid(row.get(0)?),
            DeviceId::from_uuid(row.get(1)?),
            row.get(2)?,
            row.get(3)?,
        ))
    })
}

pub fn forget_violations(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<u64, StorageError> {
    tx.execute(&FORGET_VIOLATIONS, &[&before.as_micros(), &limit])
}

pub fn put_change(
    tx: &mut Tx,
    tenant: TenantId,
    id: Uuid,
    device: DeviceId,
    change: &Change,
) -> Result<u64, StorageError> {
    tx.execute(
        &PUT_CHANGE,
        &[
            &tenant.uuid(),
            &id,
            &device.uuid(),
            &change.at.as_micros(),
            &change.from.as_str(),
            &change.to.as_str(),
        ],
    )
}

/// A device's changes, newest first.
pub fn changes_of(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    limit: i64,
) -> Result<Vec<Change>, StorageError> {
    let state = |text: String| ComplianceState::parse(&text).unwrap_or(ComplianceState::Unknown);
    tx.query(&CHANGES_OF, &[&tenant.uuid(), &device.uuid(), &limit], |row| {
        Ok(Change {
            at: Timestamp::from_micros(row.get(0)?),
            from: state(row.get(1)?),
            to: state(row.get(2)?),
        })
    })
}

pub fn trim_changes(tx: &mut Tx, tenant: TenantId, device: DeviceId, kept: i64) -> Result<u64, StorageError> {
    tx.execute(&TRIM_CHANGES, &[&tenant.uuid(), &device.uuid(), &kept])
}

pub fn forget_changes(tx: &mut Tx, before: Timestamp, limit: i64) -> Result<u64, StorageError> {
    tx.execute(&FORGET_CHANGES, &[&before.as_micros(), &limit])
}

pub fn put_share(tx: &mut Tx, tenant: TenantId, share: &Share) -> Result<u64, StorageError> {
    tx.execute(
        &PUT_SHARE,
        &[
            &tenant.uuid(),
            &share.policy.uuid(),
            &share.subject.as_str(),
            &share.hour,
            &share.violating,
            &share.judged,
        ],
    )
}

/// The shares of the newest sampled hour from `from` to `to`.
pub fn shares_at(tx: &mut Tx, tenant: TenantId, from: i64, to: i64) -> Result<Vec<Share>, StorageError> {
    tx.query(&SHARES_AT, &[&tenant.uuid(), &to, &from], share_of)
}

/// The shares of a subject from an hour on, oldest first.
pub fn shares_of(
    tx: &mut Tx,
    tenant: TenantId,
    policy: PolicyId,
    subject: &str,
    from: i64,
    limit: i64,
) -> Result<Vec<Share>, StorageError> {
    tx.query(
        &SHARES_OF,
        &[&tenant.uuid(), &policy.uuid(), &subject, &from, &limit],
        share_of,
    )
}

pub fn forget_shares(tx: &mut Tx, before_hour: i64, limit: i64) -> Result<u64, StorageError> {
    tx.execute(&FORGET_SHARES, &[&before_hour, &limit])
}

/// Locks the tenant's row and answers it; makes it where there is none.
pub fn begin_tenant(tx: &mut Tx, tenant: TenantId, at: Timestamp) -> Result<TenantRow, StorageError> {
    tx.query_one(&BEGIN_TENANT, &[&tenant.uuid(), &at.as_micros()], tenant_of)
}

pub fn tenant(tx: &mut Tx, tenant: TenantId) -> Result<Option<TenantRow>, StorageError> {
    tx.query_opt(&TENANT, &[&tenant.uuid()], tenant_of)
}

pub fn save_tenant(tx: &mut Tx, tenant: TenantId, row: &TenantRow) -> Result<u64, StorageError> {
    tx.execute(
        &SAVE_TENANT,
        &[
            &tenant.uuid(),
            &row.sampled_hour,
            &i64::try_from(row.pass_generation).unwrap_or(i64::MAX),
            &row.pass_started_at.as_micros(),
            &row.pass_after.map(DeviceId::uuid),
            &row.pass_looked_at,
            &row.pass_evaluated,
            &row.budget_hour,
            &row.budget_used,
            &row.budget_refused,
        ],
    )
}

/// When each tenant was served last.
pub fn served(tx: &mut Tx) -> Result<Vec<(TenantId, Timestamp)>, StorageError> {
    tx.query(&SERVED, &[], |row| {
        Ok((
            TenantId::from_uuid(row.get(0)?),
            Timestamp::from_micros(row.get(1)?),
        ))
    })
}

fn violation_of(row: &Row<'_>, first: usize) -> Result<Violation, StorageError> {
    let remediation: Option<String> = row.get(first + 8)?;
    Ok(Violation {
        id: ViolationId::from_uuid(row.get(first)?),
        device: DeviceId::from_uuid(row.get(first + 1)?),
        policy: PolicyId::from_uuid(row.get(first + 2)?),
        subject: row.get(first + 3)?,
        severity: Severity::parse(&row.get::<String>(first + 4)?).unwrap_or(Severity::Critical),
        reason: row.get(first + 5)?,
        since: Timestamp::from_micros(row.get(first + 6)?),
        unknown_since: time(row.get(first + 7)?),
        // What was edited to be no ladder has no steps: nothing is done by a row that nobody can read.
        remediation: remediation.and_then(|text| serde_json::from_str::<Remediation>(&text).ok()),
        grace_until: time(row.get(first + 9)?),
        steps_done: row.get(first + 10)?,
        next_at: time(row.get(first + 11)?),
        escalated_at: time(row.get(first + 12)?),
        resolved_at: time(row.get(first + 13)?),
    })
}

fn share_of(row: &Row<'_>) -> Result<Share, StorageError> {
    Ok(Share {
        policy: PolicyId::from_uuid(row.get(0)?),
        subject: row.get(1)?,
        hour: row.get(2)?,
        violating: row.get(3)?,
        judged: row.get(4)?,
    })
}

fn tenant_of(row: &Row<'_>) -> Result<TenantRow, StorageError> {
    Ok(TenantRow {
        sampled_hour: row.get(0)?,
        pass_generation: row.get(1)?,
        pass_started_at: Timestamp::from_micros(row.get(2)?),
        pass_after: row.get::<Option<Uuid>>(3)?.map(DeviceId::from_uuid),
        pass_looked_at: row.get(4)?,
        pass_evaluated: row.get(5)?,
        budget_hour: row.get(6)?,
        budget_used: row.get(7)?,
        budget_refused: row.get(8)?,
    })
}

fn remediation_text(violation: &Violation) -> Option<String> {
    let remediation = violation.remediation.as_ref()?;
    // A ladder is made of texts and numbers: it always has a text form.
    serde_json::to_string(remediation).ok()
}

fn micros(at: Option<Timestamp>) -> Option<i64> {
    at.map(|at| at.as_micros())
}

fn time(at: Option<i64>) -> Option<Timestamp> {
    at.map(Timestamp::from_micros)
}
