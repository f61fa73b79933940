//! Ladders at work: each due step is carried out once, in the transaction that counts it.

use std::time::Duration;

use muster_model::{
    CommandKind, DeviceId, TenantId, Timestamp,
    rules::{Action, Step},
};
use muster_storage::Scope;

use super::{Violation, share::hour_of, store, work::tenants_in_turn};
use crate::{
    App,
    access::{
        Author,
        problem::{Problem, RATE_LIMITED},
    },
    audit::{self, LoggedTx},
    commands,
    devices::{self, DeviceState},
};

/// Steps that one pass takes for one tenant.
const STEPS_PER_PASS: i64 = 100;
/// Commands that ladders of one tenant give in an hour; the rest waits for the next. A rule that a whole fleet breaks must
/// not restart the whole fleet at once.
pub const COMMANDS_PER_HOUR_MAX: i64 = 1000;
/// A step that cannot be taken because the device's queue is full waits so long.
const QUEUE_FULL_WAIT: Duration = Duration::from_secs(3600);

/// What became of a due step.
enum Taken {
    Done,
    /// It waits: the budget of the hour is used up, or the device's queue is full.
    Postponed(Timestamp),
}

/// One pass over the due steps of every tenant, the one that was served longest ago first. Answers how many steps were taken. A
/// step that fails holds up no other; the first such problem is the answer.
pub async fn remedy(app: &App) -> Result<usize, Problem> {
    let (mut taken, mut failed) = (0, None);
    for tenant in tenants_in_turn(app).await? {
        let now = app.clock.now();
        let due = app
            .db
            .read(Scope::Tenant(tenant.uuid()), move |tx| {
                Ok::<_, Problem>(store::due(tx, tenant, now, STEPS_PER_PASS)?)
            })
            .await?;
        for violation in due {
            match take(app, tenant, violation).await {
                Ok(is_taken) => taken += usize::from(is_taken),
                Err(problem) => failed = failed.or(Some(problem)),
            }
        }
    }
    failed.map_or(Ok(taken), Err)
}

/// Takes the next step of a violation, unless it was resolved or somebody else took it.
async fn take(app: &App, tenant: TenantId, violation: Violation) -> Result<bool, Problem> {
    let ttl = Duration::from_secs(app.settings.command_ttl_seconds);
    audit::observe(app, &Author::system(tenant), move |tx| {
        let now = tx.at();
        // The order of every evaluation: the device first, then its violations.
        super::begin(tx, tenant, violation.device, now)?;
        let place = usize::try_from(violation.steps_done).unwrap_or(usize::MAX);
        let steps = violation
            .remediation
            .as_ref()
            .map(|remediation| &remediation.steps);
        let Some(step) = steps.and_then(|steps| steps.get(place)).cloned() else {
            return Ok(false);
        };
        let mut after = violation.clone();
        after.steps_done += 1;
        let escalated_at = (step.action == Action::Notify).then_some(now);
        // The step is counted first: of two nodes one changes this row, and the other finds that nothing is left to do.
        if store::advance(tx, tenant, &violation, after.due_at(), escalated_at, now)? == 0 {
            return Ok(false);
        }
        match carry_out(tx, &violation, &step, ttl)? {
            Taken::Done => {
                record_step(tx, &violation, &step, place)?;
                Ok(true)
            }
            Taken::Postponed(until) => {
                store::postpone(tx, tenant, &violation, until)?;
                Ok(false)
            }
        }
    })
    .await
}

fn carry_out(
    tx: &mut LoggedTx<'_>,
    violation: &Violation,
    step: &Step,
    ttl: Duration,
) -> Result<Taken, Problem> {
    match &step.action {
        Action::Notify => Ok(Taken::Done),
        Action::Reapply => {
            let (tenant, at) = (tx.tenant(), tx.at());
            store::want_report(tx, tenant, violation.device, at)?;
            Ok(Taken::Done)
        }
        Action::Message(text) => command(tx, violation, &CommandKind::Message { text: text.clone() }, ttl),
        Action::Command(command_) => command(tx, violation, command_.kind(), ttl),
    }
}

/// Gives a command, unless one of its kind for this violation still waits: then that one is the step.
fn command(
    tx: &mut LoggedTx<'_>,
    violation: &Violation,
    kind: &CommandKind,
    ttl: Duration,
) -> Result<Taken, Problem> {
    let (tenant, now) = (tx.tenant(), tx.at());
    let device = devices::get(tx, tenant, violation.device)?;
    let operation = violation.id.uuid();
    if device.state != DeviceState::Active || commands::waits(tx, tenant, device.id, operation, kind)? {
        return Ok(Taken::Done);
    }
    if let Some(until) = spend(tx, tenant, violation.device, now)? {
        return Ok(Taken::Postponed(until));
    }
    match commands::create(tx, &device, kind, ttl, Some(operation)) {
        Ok(_) => Ok(Taken::Done),
        Err(problem) if problem.kind == RATE_LIMITED => Ok(Taken::Postponed(now.plus(QUEUE_FULL_WAIT))),
        Err(problem) => Err(problem),
    }
}

/// Takes one command from the tenant's budget of this hour; answers when to try again where nothing is left.
fn spend(
    tx: &mut LoggedTx<'_>,
    tenant: TenantId,
    device: DeviceId,
    now: Timestamp,
) -> Result<Option<Timestamp>, Problem> {
    let mut row = store::begin_tenant(tx, tenant, now)?;
    let hour = hour_of(now);
    if row.budget_hour != hour {
        (row.budget_hour, row.budget_used, row.budget_refused) = (hour, 0, 0);
    }
    let is_left = row.budget_used < COMMANDS_PER_HOUR_MAX;
    if is_left {
        row.budget_used += 1;
    } else {
        row.budget_refused += 1;
        if row.budget_refused == 1 {
            tx.record(
                "compliance.postponed",
                ("device", device.to_string()),
                serde_json::json!({"commands_per_hour_max": COMMANDS_PER_HOUR_MAX, "first_device": device}),
            )?;
        }
    }
    store::save_tenant(tx, tenant, &row)?;
    Ok((!is_left).then(|| Timestamp::from_unix_seconds((hour + 1) * 3600)))
}

fn record_step(
    tx: &mut LoggedTx<'_>,
    violation: &Violation,
    step: &Step,
    place: usize,
) -> Result<(), Problem> {
    let action = match step.action {
        Action::Notify => "compliance.escalated",
        Action::Reapply => "compliance.reapply_asked",
        Action::Message(_) | Action::Command(_) => "compliance.remedied",
    };
    tx.record(
        action,
        ("device", violation.device.to_string()),
        serde_json::json!({
            "violation_id": violation.id,
            "policy_id": violation.policy,
            "subject": violation.subject,
            "severity": violation.severity,
            "step": place + 1,
            "action": step.action.as_str(),
        }),
    )?;
    Ok(())
}
