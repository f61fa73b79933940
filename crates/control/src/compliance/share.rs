//! How large the share of violating devices is, rule by rule and hour by hour.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use muster_model::{PolicyId, TenantId, Timestamp};
use muster_storage::{Scope, Tx};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Share, store, work::tenants_in_turn};
use crate::{App, access::problem::Problem, audit, policy};

/// Subjects of one tenant that are sampled and listed: those with the most violating devices.
pub const SUBJECTS_MAX: usize = 1000;
/// How long samples, changes and resolved violations are kept.
pub const KEPT_DAYS: i64 = 90;
/// How far before the hour that was asked for a sample may be: nodes may have been away.
const SLACK_HOURS: i64 = 3;
/// Rows that one pass deletes of each table.
const FORGOTTEN_PER_PASS: i64 = 10_000;
/// Devices of one tenant that one pass forgets because they are active no more.
const INACTIVE_PER_PASS: i64 = 500;
/// A set of subjects that no device has is kept so long, for those who are about to take it.
const UNUSED_SETS_KEPT: Duration = Duration::from_secs(3600);
const DAY_HOURS: i64 = 24;
const WEEK_HOURS: i64 = 7 * 24;

/// A rule or setting with how many of the judged devices violate it.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct RuleShare {
    #[schema(value_type = String)]
    pub policy_id: PolicyId,
    pub policy_name: String,
    /// A setting's key or a rule's name.
    pub subject: String,
    pub violating: i64,
    /// Devices with a verdict on it, other than "unknown".
    pub judged: i64,
    /// `violating` of `judged`, from 0 to 1.
    pub share: f64,
    /// The share of a day ago, where it was sampled.
    pub share_24h_ago: Option<f64>,
    /// The share of seven days ago, where it was sampled.
    pub share_7d_ago: Option<f64>,
}

/// The share in one hour.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct SharePoint {
    /// When the hour began.
    pub hour: String,
    pub violating: i64,
    pub judged: i64,
    pub share: f64,
}

/// Names of policies, each read once.
#[derive(Debug, Default)]
pub struct PolicyNames(BTreeMap<PolicyId, String>);

impl PolicyNames {
    pub fn of(&mut self, tx: &mut Tx, tenant: TenantId, policy: PolicyId) -> Result<String, Problem> {
        if let Some(name) = self.0.get(&policy) {
            return Ok(name.clone());
        }
        let name = policy::name(tx, tenant, policy)?;
        self.0.insert(policy, name.clone());
        Ok(name)
    }
}

/// The number of an hour since 1970.
pub fn hour_of(at: Timestamp) -> i64 {
    at.as_micros().div_euclid(3_600_000_000)
}

/// Samples the shares of every tenant that was not sampled in this hour. A reconciler's step; it may run twice.
pub async fn sample(app: &App) -> Result<usize, Problem> {
    let mut sampled = 0;
    for tenant in tenants_in_turn(app).await? {
        let now = app.clock.now();
        let hour = hour_of(now);
        let scope = Scope::Tenant(tenant.uuid());
        let is_due = app
            .db
            .read(scope, move |tx| {
                let row = store::tenant(tx, tenant)?;
                Ok::<_, Problem>(row.is_none_or(|row| row.sampled_hour < hour))
            })
            .await?;
        if !is_due {
            continue;
        }
        // Counting reads the whole fleet: it does not hold the writer up.
        let shares = app.db.read(scope, move |tx| now_shares(tx, tenant, hour)).await?;
        sampled += shares.len();
        audit::housekeeping(app, scope, move |tx| {
            for share in &shares {
                store::put_share(tx, tenant, share)?;
            }
            let mut row = store::begin_tenant(tx, tenant, now)?;
            row.sampled_hour = hour;
            store::save_tenant(tx, tenant, &row)?;
            Ok(())
        })
        .await?;
    }
    Ok(sampled)
}

/// The shares as they are now, the largest number of violating devices first.
pub fn rule_shares(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<Vec<RuleShare>, Problem> {
    let hour = hour_of(now);
    let shares = now_shares(tx, tenant, hour)?;
    let mut earlier = |hours: i64| -> Result<BTreeMap<(PolicyId, String), f64>, Problem> {
        let found = store::shares_at(tx, tenant, hour - hours - SLACK_HOURS, hour - hours)?;
        let by_subject = found.into_iter().map(|share| {
            let part = part(&share);
            ((share.policy, share.subject), part)
        });
        Ok(by_subject.collect())
    };
    let (day, week) = (earlier(DAY_HOURS)?, earlier(WEEK_HOURS)?);
    let mut names = PolicyNames::default();
    let mut rules = Vec::with_capacity(shares.len());
    for share in shares {
        let key = (share.policy, share.subject.clone());
        rules.push(RuleShare {
            policy_id: share.policy,
            policy_name: names.of(tx, tenant, share.policy)?,
            violating: share.violating,
            judged: share.judged,
            share: part(&share),
            share_24h_ago: day.get(&key).copied(),
            share_7d_ago: week.get(&key).copied(),
            subject: share.subject,
        });
    }
    Ok(rules)
}

/// Violations of all rules and settings at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// Verdicts that are violations.
    pub violating: i64,
    /// Verdicts other than "unknown".
    pub judged: i64,
}

impl Level {
    fn of(shares: &[Share]) -> Level {
        Level {
            violating: shares.iter().map(|share| share.violating).sum(),
            judged: shares.iter().map(|share| share.judged).sum(),
        }
    }

    /// `violating` of `judged`, from 0 to 1.
    #[expect(
        clippy::cast_precision_loss,
        reason = "numbers of verdicts are far below 2^52"
    )]
    pub fn share(self) -> f64 {
        if self.judged <= 0 {
            return 0.0;
        }
        (self.violating as f64 / self.judged as f64).min(1.0)
    }
}

/// Violations now and a day ago, where they were sampled then.
pub fn levels(tx: &mut Tx, tenant: TenantId, now: Timestamp) -> Result<(Level, Option<Level>), Problem> {
    let hour = hour_of(now);
    let now = Level::of(&now_shares(tx, tenant, hour)?);
    let then = store::shares_at(tx, tenant, hour - DAY_HOURS - SLACK_HOURS, hour - DAY_HOURS)?;
    Ok((now, (!then.is_empty()).then(|| Level::of(&then))))
}

/// The sampled shares of a subject over the last hours, oldest first.
pub fn share_history(
    tx: &mut Tx,
    tenant: TenantId,
    policy: PolicyId,
    subject: &str,
    hours: i64,
    now: Timestamp,
) -> Result<Vec<SharePoint>, Problem> {
    let hours = hours.clamp(1, KEPT_DAYS * DAY_HOURS);
    let found = store::shares_of(tx, tenant, policy, subject, hour_of(now) - hours, hours + 1)?;
    let points = found.into_iter().map(|share| SharePoint {
        hour: Timestamp::from_unix_seconds(share.hour * 3600).to_string(),
        violating: share.violating,
        judged: share.judged,
        share: part(&share),
    });
    Ok(points.collect())
}

/// Deletes what is past its time. A reconciler's step.
pub async fn forget_expired(app: &App) -> Result<(), Problem> {
    let now = app.clock.now();
    let before = now.minus(Duration::from_secs(
        u64::try_from(KEPT_DAYS * 86_400).unwrap_or(0),
    ));
    audit::housekeeping(app, Scope::System, move |tx| {
        store::forget_violations(tx, before, FORGOTTEN_PER_PASS)?;
        store::forget_changes(tx, before, FORGOTTEN_PER_PASS)?;
        store::forget_shares(tx, hour_of(before), FORGOTTEN_PER_PASS)?;
        Ok(())
    })
    .await?;
    for tenant in tenants_in_turn(app).await? {
        let scope = Scope::Tenant(tenant.uuid());
        let inactive = app
            .db
            .read(scope, move |tx| {
                Ok::<_, Problem>(store::inactive(tx, tenant, INACTIVE_PER_PASS)?)
            })
            .await?;
        for device in inactive {
            super::forget(app, tenant, device).await?;
        }
        audit::housekeeping(app, scope, move |tx| {
            store::forget_judged(tx, tenant, now.minus(UNUSED_SETS_KEPT))?;
            Ok(())
        })
        .await?;
    }
    Ok(())
}

fn now_shares(tx: &mut Tx, tenant: TenantId, hour: i64) -> Result<Vec<Share>, Problem> {
    let mut counts: BTreeMap<(PolicyId, String), (i64, i64)> = BTreeMap::new();
    for (subjects, devices) in store::judged(tx, tenant)? {
        let subjects: BTreeSet<(PolicyId, String)> =
            serde_json::from_str(&subjects).map_err(Problem::internal)?;
        for subject in subjects {
            counts.entry(subject).or_default().1 += devices;
        }
    }
    for (policy, subject, devices) in store::by_subject(tx, tenant)? {
        counts.entry((policy, subject)).or_default().0 += devices;
    }
    let mut shares: Vec<Share> = counts
        .into_iter()
        .map(|((policy, subject), (violating, judged))| Share {
            policy,
            subject,
            hour,
            violating,
            judged,
        })
        .collect();
    shares.sort_by_key(|share| std::cmp::Reverse(share.violating));
    shares.truncate(SUBJECTS_MAX);
    Ok(shares)
}

#[expect(clippy::cast_precision_loss, reason = "numbers of devices are far below 2^52")]
fn part(share: &Share) -> f64 {
    if share.judged <= 0 {
        return 0.0;
    }
    (share.violating as f64 / share.judged as f64).min(1.0)
}
