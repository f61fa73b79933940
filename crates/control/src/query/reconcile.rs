//! What nodes do for questions by themselves: ask devices, end refreshes, run what is scheduled. One node at a time does it under
//! a lease; calling devices is done by every node for those that it holds a stream of.

use std::{collections::HashMap, sync::atomic::Ordering, time::Duration};

use muster_model::{QueryRunId, TenantId, Timestamp};
use muster_storage::Scope;
use serde_json::Value;

use super::{
    ANSWER_BYTES_MAX, ASKED_PER_SECOND, RUN_ROWS_MAX, RUNS_KEPT,
    ask::{ask, check},
    refresh::{self, Refresh},
    saved::Saved,
    store::{self, StoredRun},
    view::AnswerView,
};
use crate::{
    App,
    access::problem::{INTERNAL, Problem, UNAVAILABLE},
    audit, clock,
};

/// Scheduled questions that one step runs.
const RUNS_PER_STEP: i64 = 4;
/// Devices that a node calls in one step for each refresh.
const CALLED_PER_STEP: i64 = 2000;
/// How long refreshes are kept after their end.
const REFRESHES_KEPT: Duration = Duration::from_secs(86_400);
const FORGOTTEN_PER_PASS: i64 = 5000;

/// Asks the next devices, ends what is over, and runs what is due. Answers whether a refresh goes on. For one node at a time.
pub async fn reconcile(app: &App) -> Result<bool, Problem> {
    let open = app
        .db
        .read(Scope::System, |tx| Ok::<_, Problem>(store::open(tx)?))
        .await?;
    for (tenant, refresh) in &open {
        if let Err(problem) = step(app, *tenant, refresh.clone()).await {
            tracing::warn!(%tenant, %problem, "devices were not asked for fresh facts; trying again");
        }
    }
    let now = app.clock.now();
    let due = app
        .db
        .read(Scope::System, move |tx| {
            Ok::<_, Problem>(store::due(tx, now, RUNS_PER_STEP)?)
        })
        .await?;
    for (tenant, saved) in due {
        run(app, tenant, saved).await?;
    }
    Ok(!open.is_empty())
}

/// Calls the devices that were asked since the last time, if this node holds their streams. Every node does this.
pub async fn follow(app: &App) -> Result<(), Problem> {
    let open = app
        .db
        .read(Scope::System, |tx| Ok::<_, Problem>(store::open(tx)?))
        .await?;
    app.queries.refreshing.store(!open.is_empty(), Ordering::Release);
    let called = {
        let mut called = app.queries.called.lock();
        called.retain(|id, _| open.iter().any(|(_, refresh)| refresh.id == *id));
        called.clone()
    };
    for (tenant, refresh) in open {
        let id = refresh.id;
        let after = called
            .get(&id)
            .copied()
            .unwrap_or(muster_model::DeviceId::from_uuid(uuid::Uuid::nil()));
        let devices = app
            .db
            .read(Scope::Tenant(tenant.uuid()), move |tx| {
                Ok::<_, Problem>(store::asked_after(tx, tenant, id, after, CALLED_PER_STEP)?)
            })
            .await?;
        let Some(last) = devices.last().copied() else {
            continue;
        };
        for device in devices {
            app.registry.call(device);
        }
        app.queries.called.lock().insert(id, last);
    }
    Ok(())
}

/// Asks the next devices of a refresh, and ends it when its time has come.
async fn step(app: &App, tenant: TenantId, refresh: Refresh) -> Result<(), Problem> {
    let now = app.clock.now();
    let away_before = refresh::away_before(app, now);
    // A step comes twice in a second.
    let limit = usize::try_from(ASKED_PER_SECOND).unwrap_or(usize::MAX) / 2;
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        let mut refresh = refresh.clone();
        if store::hold_refresh(tx, tenant, &refresh)? != 1 {
            // Another node was here.
            return Ok(());
        }
        if now >= refresh.deadline_at {
            return end(tx, tenant, &refresh, now);
        }
        if !refresh.is_listed {
            // What was a question stays one: the grammar only grows.
            let plan = check(&refresh.question, now)?;
            let page = refresh::page(tx, tenant, &plan, Some(refresh.asked_to), limit, now)?;
            for (device, seen_at) in &page.devices {
                store::insert_asked(tx, tenant, refresh.id, *device)?;
                refresh.asked += 1;
                refresh.away += i64::from(*seen_at < away_before);
            }
            match page.last {
                Some(last) => refresh.asked_to = last,
                None => {
                    refresh.is_listed = true;
                    refresh.devices = refresh.asked;
                }
            }
            store::advance_refresh(tx, tenant, &refresh)?;
        }
        if refresh.is_listed && store::count_asked(tx, tenant, refresh.id)? == 0 {
            return end(tx, tenant, &refresh, now);
        }
        Ok(())
    })
    .await
}

fn end(
    tx: &mut muster_storage::Tx,
    tenant: TenantId,
    refresh: &Refresh,
    now: Timestamp,
) -> Result<(), Problem> {
    let unanswered = store::count_asked(tx, tenant, refresh.id)?;
    store::end_refresh(tx, tenant, refresh.id, now, unanswered)?;
    store::forget_asked(tx, tenant, refresh.id)?;
    Ok(())
}

/// Runs a scheduled question and keeps its answer. Two nodes that do this at once keep one answer.
async fn run(app: &App, tenant: TenantId, saved: Saved) -> Result<(), Problem> {
    let (Some(schedule), Some(due_at)) = (&saved.schedule, saved.next_run_at) else {
        return Ok(());
    };
    let now = app.clock.now();
    let next = schedule.next(now);
    let outcome = ask(app, tenant, &saved.question, RUN_ROWS_MAX).await;
    let outcome = match outcome {
        // It is tried again in the next step.
        Err(problem) if problem.kind == INTERNAL || problem.kind == UNAVAILABLE => return Err(problem),
        Err(problem) if problem.retry_after_seconds.is_some() => return Ok(()),
        other => other,
    };
    let mut new = StoredRun {
        id: QueryRunId::generate(now, clock::random()),
        at: now,
        took_ms: 0,
        rows: 0,
        added: None,
        removed: None,
        answer: None,
        error: None,
    };
    match outcome {
        Ok(answered) => {
            let mut view = AnswerView::of(&answered);
            new.took_ms = i64::try_from(answered.took.as_millis()).unwrap_or(i64::MAX);
            let mut text = serde_json::to_string(&view).map_err(Problem::internal)?;
            while text.len() > ANSWER_BYTES_MAX {
                let half = view.rows.len() / 2;
                view.rows.truncate(half);
                view.truncated = true;
                text = serde_json::to_string(&view).map_err(Problem::internal)?;
                if half == 0 {
                    break;
                }
            }
            new.rows = i64::try_from(view.rows.len()).unwrap_or(i64::MAX);
            new.answer = Some((view, text));
        }
        Err(problem) => new.error = Some(problem.detail),
    }
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        if store::ran(tx, tenant, &saved.name, due_at, next)? != 1 {
            return Ok(());
        }
        let mut new = new.clone();
        if let Some((view, _)) = &new.answer
            && let Some(before) = store::newest_answer(tx, tenant, &saved.name)?
            && let Ok(before) = serde_json::from_str::<AnswerView>(&before)
        {
            let difference = Difference::between(&before.rows, &view.rows);
            new.added = i64::try_from(difference.added.len()).ok();
            new.removed = i64::try_from(difference.removed.len()).ok();
        }
        store::insert_run(tx, tenant, &saved.name, &new)?;
        store::forget_runs(tx, tenant, &saved.name, RUNS_KEPT)?;
        Ok(())
    })
    .await
}

/// What came and what went between two answers.
#[derive(Debug, Default)]
pub(super) struct Difference {
    pub added: Vec<Vec<Value>>,
    pub removed: Vec<Vec<Value>>,
}

impl Difference {
    /// Rows are told apart by everything that they say, and counted.
    pub fn between(before: &[Vec<Value>], after: &[Vec<Value>]) -> Difference {
        let key = |row: &Vec<Value>| serde_json::to_string(row).unwrap_or_default();
        let surplus = |of: &[Vec<Value>], without: &[Vec<Value>]| {
            let mut counts: HashMap<String, usize> = HashMap::new();
            for row in without {
                *counts.entry(key(row)).or_default() += 1;
            }
            let is_new = |row: &&Vec<Value>| match counts.get_mut(&key(row)) {
                Some(count) if *count > 0 => {
                    *count -= 1;
                    false
                }
                _ => true,
            };
            of.iter().filter(is_new).cloned().collect()
        };
        Difference {
            added: surplus(after, before),
            removed: surplus(before, after),
        }
    }
}

/// Deletes refreshes that ended long ago. A reconciler's step.
pub async fn forget_expired(app: &App) -> Result<(), Problem> {
    let before = app.clock.now().minus(REFRESHES_KEPT);
    audit::housekeeping(app, Scope::System, move |tx| {
        store::forget_refreshes(tx, before, FORGOTTEN_PER_PASS)?;
        Ok(())
    })
    .await
}
