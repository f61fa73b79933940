//! SQL of the `rollout_` tables. The column `target` holds a rollout's whole plan as JSON.

use muster_model::{
    DeviceId, EntryId, PolicyId, RolloutId, RolloutState, TenantId, Timestamp, text::VersionLabel,
};
use muster_storage::{Row, StorageError, Tx, statements};

use super::{
    Report, Rollout,
    change::Mark,
    decisions::{Decision, Made},
    plan::{Counts, Plan, StageOpening},
    rules::ReportState,
};

statements! {
    MAX_GENERATION = "SELECT COALESCE(MAX(generation), 0) FROM rollout_rollout WHERE tenant_id = $1";
    INSERT_ROLLOUT = "INSERT INTO rollout_rollout (tenant_id, rollout_id, policy_id, version, bundle_sha256, \
        generation, entry_id, state, current, target, created_by, created_at, updated_at) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12)";
    ROLLOUT = "SELECT rollout_id, policy_id, version, bundle_sha256, generation, entry_id, state, current, target, \
        created_by, created_at, updated_at FROM rollout_rollout WHERE tenant_id = $1 AND rollout_id = $2";
    ROLLOUTS = "SELECT rollout_id, policy_id, version, bundle_sha256, generation, entry_id, state, current, target, \
        created_by, created_at, updated_at FROM rollout_rollout WHERE tenant_id = $1 AND rollout_id < $2 \
        ORDER BY rollout_id DESC LIMIT $3";
    CURRENT = "SELECT rollout_id, policy_id, version, bundle_sha256, generation, entry_id, state, current, target, \
        created_by, created_at, updated_at FROM rollout_rollout WHERE tenant_id = $1 AND current ORDER BY generation";
    HOLD_CURRENT = "UPDATE rollout_rollout SET policy_id = policy_id WHERE tenant_id = $1 AND policy_id = $2 \
        AND current";
    CURRENT_OF = "SELECT rollout_id, policy_id, version, bundle_sha256, generation, entry_id, state, current, target, \
        created_by, created_at, updated_at FROM rollout_rollout \
        WHERE tenant_id = $1 AND policy_id = $2 AND current ORDER BY generation";
    NEWEST_NOT_CURRENT = "SELECT r.rollout_id, r.state FROM rollout_rollout r WHERE r.tenant_id = $1 AND NOT r.current \
        AND NOT EXISTS (SELECT 1 FROM rollout_rollout n WHERE n.tenant_id = r.tenant_id \
            AND n.policy_id = r.policy_id AND n.generation > r.generation) ORDER BY r.rollout_id LIMIT $2";
    COUNT_OTHERS_CURRENT = "SELECT COUNT(DISTINCT policy_id) FROM rollout_rollout \
        WHERE tenant_id = $1 AND policy_id <> $2 AND current";
    LAST_OTHER_COMPLETED = "SELECT rollout_id, policy_id, version, bundle_sha256, generation, entry_id, state, \
        current, target, created_by, created_at, updated_at FROM rollout_rollout \
        WHERE tenant_id = $1 AND policy_id = $2 AND state = 'completed' AND generation < $3 AND bundle_sha256 <> $4 \
        ORDER BY generation DESC LIMIT 1";
    RUNNING = "SELECT tenant_id, rollout_id FROM rollout_rollout WHERE state = 'running' AND current LIMIT $1";
    UPDATE_ROLLOUT = "UPDATE rollout_rollout SET state = $3, current = $4, generation = $5, target = $6, \
        updated_at = $7 WHERE tenant_id = $1 AND rollout_id = $2 AND state = $8 AND updated_at = $9";
    REPORT = "SELECT device_id, epoch, generation, state_digest, state, settings, verdicts, envelope, reported_at, bundles \
        FROM rollout_report WHERE tenant_id = $1 AND device_id = $2";
    PUT_REPORT = "INSERT INTO rollout_report (tenant_id, device_id, epoch, generation, state_digest, state, settings, \
        verdicts, envelope, reported_at, bundles) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
        ON CONFLICT (tenant_id, device_id) DO UPDATE SET epoch = $3, generation = $4, state_digest = $5, state = $6, \
        settings = $7, verdicts = $8, envelope = $9, reported_at = $10, bundles = $11";
    HELD = "SELECT bundles, generation FROM rollout_report WHERE tenant_id = $1 AND device_id = $2 AND epoch = $3";
    PROGRESS = "SELECT stages, counted_at FROM rollout_progress WHERE tenant_id = $1 AND rollout_id = $2";
    PUT_PROGRESS = "INSERT INTO rollout_progress (tenant_id, rollout_id, stages, counted_at) VALUES ($1, $2, $3, $4) \
        ON CONFLICT (tenant_id, rollout_id) DO UPDATE SET stages = $3, counted_at = $4";
    FORGET_PROGRESS = "DELETE FROM rollout_progress WHERE tenant_id = $1 AND rollout_id = $2";
    LAST_DECISION = "SELECT COALESCE(MAX(number), 0) FROM rollout_decision WHERE tenant_id = $1 AND rollout_id = $2";
    INSERT_DECISION = "INSERT INTO rollout_decision (tenant_id, rollout_id, number, stage, at, verdict, method, action, \
        actor, numbers) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    FORGET_DECISIONS = "DELETE FROM rollout_decision WHERE tenant_id = $1 AND rollout_id = $2 AND number <= $3";
    DECISIONS = "SELECT rollout_id, number, stage, at, verdict, method, action, actor, numbers FROM rollout_decision \
        WHERE tenant_id = $1 AND rollout_id = $2 AND number < $3 ORDER BY number DESC LIMIT $4";
}

/// The highest activation counter of the tenant.
pub fn max_generation(tx: &mut Tx, tenant: TenantId) -> Result<u64, StorageError> {
    tx.query_one(&MAX_GENERATION, &[&tenant.uuid()], |row| row.get(0))
}

pub fn insert(tx: &mut Tx, tenant: TenantId, rollout: &Rollout) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_ROLLOUT,
        &[
            &tenant.uuid(),
            &rollout.id.uuid(),
            &rollout.policy.uuid(),
            &rollout.version.as_str(),
            &rollout.bundle_sha256.as_str(),
            &rollout.generation,
            &rollout.entry.uuid(),
            &rollout.state.as_str(),
            &rollout.current,
            &document(&rollout.plan).as_str(),
            &rollout.created_by.as_str(),
            &rollout.created_at.as_micros(),
        ],
    )
    .map(drop)
}

pub fn rollout(tx: &mut Tx, tenant: TenantId, id: RolloutId) -> Result<Option<Rollout>, StorageError> {
    tx.query_opt(&ROLLOUT, &[&tenant.uuid(), &id.uuid()], rollout_of)
}

pub fn rollouts(
    tx: &mut Tx,
    tenant: TenantId,
    before: RolloutId,
    limit: i64,
) -> Result<Vec<Rollout>, StorageError> {
    tx.query(&ROLLOUTS, &[&tenant.uuid(), &before.uuid(), &limit], rollout_of)
}

/// The rollouts whose bundles devices should have, in the order of their generation.
pub fn current(tx: &mut Tx, tenant: TenantId) -> Result<Vec<Rollout>, StorageError> {
    tx.query(&CURRENT, &[&tenant.uuid()], rollout_of)
}

pub fn current_of(tx: &mut Tx, tenant: TenantId, policy: PolicyId) -> Result<Vec<Rollout>, StorageError> {
    tx.query(&CURRENT_OF, &[&tenant.uuid(), &policy.uuid()], rollout_of)
}

/// Holds the layers of a policy for the rest of the transaction.
pub fn hold_current(tx: &mut Tx, tenant: TenantId, policy: PolicyId) -> Result<u64, StorageError> {
    tx.execute(&HOLD_CURRENT, &[&tenant.uuid(), &policy.uuid()])
}

/// Per policy that is not active, its newest rollout.
pub fn newest_not_current(
    tx: &mut Tx,
    tenant: TenantId,
    limit: i64,
) -> Result<Vec<(RolloutId, String)>, StorageError> {
    tx.query(&NEWEST_NOT_CURRENT, &[&tenant.uuid(), &limit], |row| {
        Ok((RolloutId::from_uuid(row.get(0)?), row.get(1)?))
    })
}

/// How many other policies are active.
pub fn count_others_current(tx: &mut Tx, tenant: TenantId, policy: PolicyId) -> Result<u64, StorageError> {
    tx.query_one(&COUNT_OTHERS_CURRENT, &[&tenant.uuid(), &policy.uuid()], |row| {
        row.get(0)
    })
}

/// The newest completed rollout of the same policy before this one, with another bundle.
pub fn completed_before(
    tx: &mut Tx,
    tenant: TenantId,
    rollout: &Rollout,
) -> Result<Option<Rollout>, StorageError> {
    tx.query_opt(
        &LAST_OTHER_COMPLETED,
        &[
            &tenant.uuid(),
            &rollout.policy.uuid(),
            &rollout.generation,
            &rollout.bundle_sha256.as_str(),
        ],
        rollout_of,
    )
}

/// Running rollouts of every tenant.
pub fn running(tx: &mut Tx, limit: i64) -> Result<Vec<(TenantId, RolloutId)>, StorageError> {
    tx.query(&RUNNING, &[&limit], |row| {
        Ok((
            TenantId::from_uuid(row.get(0)?),
            RolloutId::from_uuid(row.get(1)?),
        ))
    })
}

/// Stores what an event made of a rollout; 0 when it is no longer what it was when it was read.
pub fn update(tx: &mut Tx, tenant: TenantId, rollout: &Rollout, from: Mark) -> Result<u64, StorageError> {
    tx.execute(
        &UPDATE_ROLLOUT,
        &[
            &tenant.uuid(),
            &rollout.id.uuid(),
            &rollout.state.as_str(),
            &rollout.current,
            &rollout.generation,
            &document(&rollout.plan).as_str(),
            &rollout.updated_at.as_micros(),
            &from.state.as_str(),
            &from.updated_at.as_micros(),
        ],
    )
}

/// A device's last report.
pub fn report(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Option<Report>, StorageError> {
    tx.query_opt(&REPORT, &[&tenant.uuid(), &device.uuid()], report_of)
}

pub fn put_report(tx: &mut Tx, tenant: TenantId, report: &Report) -> Result<(), StorageError> {
    tx.execute(
        &PUT_REPORT,
        &[
            &tenant.uuid(),
            &report.device.uuid(),
            &report.epoch,
            &report.generation,
            &report.state_digest.as_str(),
            &report.state.as_str(),
            &report.settings.as_str(),
            &report.verdicts.as_str(),
            &report.envelope.as_str(),
            &report.reported_at.as_micros(),
            &report.bundles,
        ],
    )
    .map(drop)
}

/// What a device's last report of an enrollment says that it holds: the stored text, and the report's generation.
pub fn held(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    epoch: u32,
) -> Result<Option<(Option<String>, u64)>, StorageError> {
    tx.query_opt(&HELD, &[&tenant.uuid(), &device.uuid(), &epoch], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })
}

/// The last count of a rollout's stages, and when it was made.
pub fn progress(
    tx: &mut Tx,
    tenant: TenantId,
    rollout: RolloutId,
) -> Result<Option<(Vec<Counts>, Timestamp)>, StorageError> {
    tx.query_opt(&PROGRESS, &[&tenant.uuid(), &rollout.uuid()], |row| {
        let stages: String = row.get(0)?;
        let stages = serde_json::from_str(&stages).map_err(|_| unreadable(0, "counts of stages", &stages))?;
        Ok((stages, Timestamp::from_micros(row.get(1)?)))
    })
}

pub fn put_progress(
    tx: &mut Tx,
    tenant: TenantId,
    rollout: RolloutId,
    stages: &[Counts],
    at: Timestamp,
) -> Result<(), StorageError> {
    let stages = serde_json::to_string(stages).expect("counts are numbers and cannot fail to serialize");
    tx.execute(
        &PUT_PROGRESS,
        &[&tenant.uuid(), &rollout.uuid(), &stages.as_str(), &at.as_micros()],
    )
    .map(drop)
}

pub fn forget_progress(tx: &mut Tx, tenant: TenantId, rollout: RolloutId) -> Result<(), StorageError> {
    tx.execute(&FORGET_PROGRESS, &[&tenant.uuid(), &rollout.uuid()])
        .map(drop)
}

/// The number of a rollout's newest decision; 0 when there is none.
pub fn last_decision(tx: &mut Tx, tenant: TenantId, rollout: RolloutId) -> Result<u64, StorageError> {
    tx.query_one(&LAST_DECISION, &[&tenant.uuid(), &rollout.uuid()], |row| {
        row.get(0)
    })
}

pub fn insert_decision(
    tx: &mut Tx,
    tenant: TenantId,
    number: u64,
    at: Timestamp,
    made: &Made,
) -> Result<(), StorageError> {
    tx.execute(
        &INSERT_DECISION,
        &[
            &tenant.uuid(),
            &made.rollout.uuid(),
            &number,
            &made.stage.as_str(),
            &at.as_micros(),
            &made.verdict.as_str(),
            &made.method.as_str(),
            &made.action.as_str(),
            &made.actor.as_str(),
            &made.numbers.as_str(),
        ],
    )
    .map(drop)
}

/// Forgets a rollout's decisions up to a number.
pub fn forget_decisions(
    tx: &mut Tx,
    tenant: TenantId,
    rollout: RolloutId,
    up_to: u64,
) -> Result<(), StorageError> {
    tx.execute(&FORGET_DECISIONS, &[&tenant.uuid(), &rollout.uuid(), &up_to])
        .map(drop)
}

pub fn decisions(
    tx: &mut Tx,
    tenant: TenantId,
    rollout: RolloutId,
    before: u64,
    limit: i64,
) -> Result<Vec<Decision>, StorageError> {
    tx.query(
        &DECISIONS,
        &[&tenant.uuid(), &rollout.uuid(), &before, &limit],
        |row| {
            Ok(Decision {
                number: row.get(1)?,
                at: Timestamp::from_micros(row.get(3)?),
                made: Made {
                    rollout: RolloutId::from_uuid(row.get(0)?),
                    stage: row.get(2)?,
                    verdict: row.get(4)?,
                    method: row.get(5)?,
                    action: row.get(6)?,
                    actor: row.get(7)?,
                    numbers: row.get(8)?,
                },
            })
        },
    )
}

fn document(plan: &Plan) -> String {
    serde_json::to_string(plan).expect("a plan has only string keys and cannot fail to serialize")
}

fn rollout_of(row: &Row<'_>) -> Result<Rollout, StorageError> {
    let (version, state, plan): (String, String, String) = (row.get(2)?, row.get(6)?, row.get(8)?);
    let mut rollout = Rollout {
        id: RolloutId::from_uuid(row.get(0)?),
        policy: PolicyId::from_uuid(row.get(1)?),
        version: version
            .parse::<VersionLabel>()
            .map_err(|_| unreadable(2, "a version label", &version))?,
        bundle_sha256: row.get(3)?,
        generation: row.get(4)?,
        entry: EntryId::from_uuid(row.get(5)?),
        state: RolloutState::parse(&state).ok_or_else(|| unreadable(6, "a rollout state", &state))?,
        current: row.get(7)?,
        plan: serde_json::from_str(&plan).map_err(|_| unreadable(8, "a rollout's plan", &plan))?,
        created_by: row.get(9)?,
        created_at: Timestamp::from_micros(row.get(10)?),
        updated_at: Timestamp::from_micros(row.get(11)?),
    };
    let opening = StageOpening {
        generation: rollout.plan.activated_generation.unwrap_or(rollout.generation),
        entry: rollout.entry,
        at: rollout.created_at,
    };
    let is_over = !matches!(rollout.state, RolloutState::Running | RolloutState::Paused);
    rollout.plan.adopt(opening, is_over);
    Ok(rollout)
}

fn report_of(row: &Row<'_>) -> Result<Report, StorageError> {
    let state: String = row.get(4)?;
    Ok(Report {
        device: DeviceId::from_uuid(row.get(0)?),
        epoch: row.get(1)?,
        generation: row.get(2)?,
        state_digest: row.get(3)?,
        state: ReportState::parse(&state).ok_or_else(|| unreadable(4, "a report state", &state))?,
        settings: row.get(5)?,
        verdicts: row.get(6)?,
        envelope: row.get(7)?,
        reported_at: Timestamp::from_micros(row.get(8)?),
        bundles: row.get(9)?,
    })
}

fn unreadable(index: usize, expected: &'static str, found: &str) -> StorageError {
    StorageError::Type {
        index,
        expected,
        found: found.chars().take(64).collect(),
    }
}
