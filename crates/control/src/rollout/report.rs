//! What devices say: signed reports in, compliance out.

use std::{collections::BTreeMap, sync::Arc};

use muster_model::{
    DeviceId, PolicyId, SettingReport, TenantId, Timestamp, compliance::ComplianceState, evaluate::Verdict,
    facts::Facts, rollout::Stratum, text::VersionLabel,
};
use muster_storage::Tx;
use muster_trust::{
    dsse::Envelope,
    key::{Digest, PublicKey},
    statement::{self, PolicyReportStatement, Statement, StatementError},
};

use super::{
    Activations, DesiredSet, Report, Rollout,
    rules::{ReportAge, ReportState, is_overtaken},
    store,
};
use crate::{
    App,
    access::{
        Author,
        problem::{DEVICE_BLOCKED, EPOCH_MISMATCH, MALFORMED, Problem, UNAVAILABLE},
    },
    audit::{self, LoggedTx},
    compliance::{self, DeviceSettingsView, Occasion, PolicyRow, Reported},
    devices::{self, Device, Held, Traits},
    directory,
    groups::{self, Known},
    policy, signals,
};

/// Who reports, as its certificate and the registry say.
#[derive(Debug, Clone)]
pub struct Reporter {
    pub tenant: TenantId,
    pub device: DeviceId,
    pub epoch: u32,
    /// Platform, model, department.
    pub stratum: Arc<Stratum>,
    /// The device's key.
    pub key: PublicKey,
}

/// What became of a report that is genuine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    Stored {
        state: ReportState,
        compliance: ComplianceState,
        /// Whether it is about what the device should be at now.
        is_current: bool,
    },
    /// A later report of the device is stored already.
    Overtaken,
}

/// A report with its settings by key.
pub type OpenReport = (Report, BTreeMap<String, SettingReport>);

/// A device's policy in short, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePolicy {
    pub policy: PolicyId,
    pub version: VersionLabel,
    /// Of the bundle, lower hex.
    pub sha256: String,
    /// `pending` until the device reported on what it should be at now, then its report in one word.
    pub state: ReportState,
}

/// Takes a device's signed report: checks it, stores it, and evaluates the device by it.
pub async fn accept_report(app: &App, reporter: &Reporter, envelope: &Envelope) -> Result<Accepted, Problem> {
    let statement = checked(reporter, envelope)?;
    require_known(app, reporter.tenant, statement.generation).await?;
    let (tenant, device) = (reporter.tenant, reporter.device);
    let envelope = String::from_utf8(envelope.to_json()).map_err(Problem::internal)?;
    let (now, work, reporter) = (app.clock.now(), app.clone(), reporter.clone());
    let accepted = audit::observe(app, &Author::system(tenant), move |tx| {
        store_report(tx, &work.activations, &reporter, &statement, &envelope, now)
    })
    .await?;
    let (accepted, held) = accepted;
    if let Some(held) = held {
        app.registry.hold(device, held);
    }
    app.nudges.rollouts.notify_one();
    Ok(accepted)
}

/// Stores a genuine report, unless a later one is there. Also answers what the device holds by it.
fn store_report(
    tx: &mut LoggedTx<'_>,
    activations: &Activations,
    reporter: &Reporter,
    statement: &PolicyReportStatement,
    envelope: &str,
    now: Timestamp,
) -> Result<(Accepted, Option<Arc<Held>>), Problem> {
    let (tenant, device) = (reporter.tenant, reporter.device);
    let turn = compliance::begin(tx, tenant, device, now)?;
    let stored = store::report(tx, tenant, device)?;
    if let Some(stored) = &stored
        && is_overtaken(age_of(stored)?, age(statement))
    {
        return Ok((Accepted::Overtaken, None));
    }
    let held_before = stored
        .filter(|stored| stored.epoch == statement.epoch)
        .map(|stored| Held::from_text(stored.bundles.as_deref(), stored.generation))
        .unwrap_or_default();
    let mut traits = Traits {
        device,
        stratum: Arc::clone(&reporter.stratum),
        held: Arc::new(held_before),
        groups: groups::groups_of(tx, tenant, device)?.into(),
    };
    let (digest, generation) = (&statement.state_digest, statement.generation);
    if let Some(held) = activations.held_under(tenant, &traits, digest, generation, now) {
        traits.held = held;
    }
    let set = desired(activations, tenant, &traits, now)?;
    let reported = Reported {
        settings: statement.settings.clone(),
        is_current: statement.state_digest == set.digest,
    };
    let known = devices::get(tx, tenant, device)?;
    let (policies, occasion) = (&set.policies, Occasion::Report);
    let standing = compliance::refresh(tx, turn, &known, &set.digest, policies, &reported, occasion)?;
    let state = ReportState::of(&statement.settings);
    let report = Report {
        device,
        epoch: statement.epoch,
        generation: statement.generation,
        state_digest: statement.state_digest.to_hex(),
        state,
        settings: serde_json::to_string(&statement.settings).map_err(Problem::internal)?,
        verdicts: serde_json::to_string::<[Verdict]>(&standing.evaluation.verdicts)
            .map_err(Problem::internal)?,
        envelope: envelope.to_owned(),
        reported_at: now,
        bundles: traits.held.to_text(),
    };
    store::put_report(tx, tenant, &report)?;
    let accepted = Accepted::Stored {
        state,
        compliance: standing.state,
        is_current: reported.is_current,
    };
    Ok((accepted, Some(traits.held)))
}

/// What a device holds by its last report of this enrollment.
pub fn held(tx: &mut Tx, tenant: TenantId, device: DeviceId, epoch: u32) -> Result<Held, Problem> {
    let stored = store::held(tx, tenant, device, epoch)?;
    Ok(stored
        .map(|(bundles, generation)| Held::from_text(bundles.as_deref(), generation))
        .unwrap_or_default())
}

/// A stored device as rollouts see it.
pub fn traits_of(tx: &mut Tx, tenant: TenantId, device: &Device) -> Result<Traits, Problem> {
    let held = held(tx, tenant, device.id, device.epoch)?;
    let labels = devices::labels(tx, tenant, device.id)?;
    let groups = groups::groups_of(tx, tenant, device.id)?;
    Ok(Traits::of(
        device,
        labels.get(devices::DEPARTMENT),
        groups,
        Arc::new(held),
    ))
}

/// Takes a device's facts, and evaluates it anew if its verdicts read something of what changed. Answers which groups the
/// device thereby entered or left.
pub async fn take_facts(
    app: &App,
    tenant: TenantId,
    device: DeviceId,
    facts: Facts,
) -> Result<groups::Moves, Problem> {
    super::ensure(app, tenant).await?;
    let (work, now) = (app.clone(), app.clock.now());
    audit::observe(app, &Author::system(tenant), move |tx| {
        let turn = compliance::begin(tx, tenant, device, now)?;
        let device = devices::get(tx, tenant, device)?;
        let facts_before = devices::facts(tx, tenant, device.id)?.map(|(facts, _)| facts);
        devices::put_facts(tx, &device, tenant, &facts, now)?;
        let learned = devices::get(tx, tenant, device.id)?;
        let moves = groups::settle(&work, tx, tenant, &[device.id], now)?;
        let traits = traits_of(tx, tenant, &learned)?;
        let set = desired(&work.activations, tenant, &traits, now)?;
        let labels = devices::labels(tx, tenant, learned.id)?;
        let owner = directory::owner_of(tx, tenant, &learned)?;
        // Both sides hear the same: whoever changes a signal has the device looked at.
        let said = signals::of_device(tx, tenant, learned.id)?;
        let before = Known::of(
            &device,
            facts_before.as_ref(),
            Some(&labels),
            owner.clone(),
            said.clone(),
        );
        let after = Known::of(&learned, Some(&facts), Some(&labels), owner, said);
        let is_affected = compliance::is_affected(&set.policies, &before.subject(), &after.subject());
        if turn.is_fresh(&set.digest, now) && !is_affected {
            return Ok(moves);
        }
        let (reported, _) = last_reported(tx, tenant, &learned, &set)?;
        let (policies, occasion) = (&set.policies, Occasion::Change);
        compliance::refresh(tx, turn, &learned, &set.digest, policies, &reported, occasion)?;
        Ok(moves)
    })
    .await
}

/// Evaluates a device anew in a transaction of the caller: what it should be at has changed, or time went by.
pub fn refresh_in(
    tx: &mut LoggedTx<'_>,
    activations: &Activations,
    device: DeviceId,
) -> Result<ComplianceState, Problem> {
    let (tenant, now) = (tx.tenant(), tx.at());
    let turn = compliance::begin(tx, tenant, device, now)?;
    let device = devices::get(tx, tenant, device)?;
    let traits = traits_of(tx, tenant, &device)?;
    let set = desired(activations, tenant, &traits, now)?;
    let (reported, _) = last_reported(tx, tenant, &device, &set)?;
    let (policies, occasion) = (&set.policies, Occasion::Change);
    let standing = compliance::refresh(tx, turn, &device, &set.digest, policies, &reported, occasion)?;
    Ok(standing.state)
}

/// A device's standing, evaluated now, and the digest of the policies that it was judged by.
pub fn standing_now(
    tx: &mut Tx,
    activations: &Activations,
    tenant: TenantId,
    device: &Device,
    now: Timestamp,
) -> Result<(ComplianceState, Digest, Option<Timestamp>), Problem> {
    let traits = traits_of(tx, tenant, device)?;
    let set = desired(activations, tenant, &traits, now)?;
    let (reported, reported_at) = last_reported(tx, tenant, device, &set)?;
    let standing = compliance::evaluate_device(tx, tenant, device, &set.policies, &reported, now)?;
    Ok((standing.state, set.digest, reported_at))
}

/// A device's settings and verdicts, evaluated now.
pub fn device_settings(
    tx: &mut Tx,
    activations: &Activations,
    tenant: TenantId,
    device: &Device,
    now: Timestamp,
) -> Result<DeviceSettingsView, Problem> {
    let traits = traits_of(tx, tenant, device)?;
    let set = desired(activations, tenant, &traits, now)?;
    let (reported, reported_at) = last_reported(tx, tenant, device, &set)?;
    let standing = compliance::evaluate_device(tx, tenant, device, &set.policies, &reported, now)?;
    let mut policies = Vec::with_capacity(set.policies.len());
    for active in &set.policies {
        policies.push(PolicyRow::of(active, policy::name(tx, tenant, active.policy)?));
    }
    Ok(compliance::device_settings(
        device.id,
        &standing,
        &policies,
        reported_at,
        reported.is_current,
    ))
}

/// The policies of devices in short, in their order: the one with the newest generation where a device has several, `None`
/// where it has none.
pub fn policies_of(
    tx: &mut Tx,
    activations: &Activations,
    tenant: TenantId,
    devices: &[Device],
    now: Timestamp,
) -> Result<Vec<Option<DevicePolicy>>, Problem> {
    let mut policies = Vec::with_capacity(devices.len());
    for device in devices {
        let traits = traits_of(tx, tenant, device)?;
        let set = activations.desired(tenant, &traits, now);
        let newest = set
            .as_ref()
            .and_then(|set| set.bundles.iter().max_by_key(|bundle| bundle.generation));
        let Some((set, newest)) = set.as_ref().zip(newest) else {
            policies.push(None);
            continue;
        };
        let report = store::report(tx, tenant, device.id)?.filter(|report| is_about(report, device, set));
        policies.push(Some(DevicePolicy {
            policy: newest.policy_id,
            version: newest.version.clone(),
            sha256: newest.sha256.to_hex(),
            state: report.map_or(ReportState::Pending, |report| report.state),
        }));
    }
    Ok(policies)
}

/// Settings of a device's last report of an enrollment by key, if it is about an activation of the rollout, or a later one.
pub fn settings_of(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    epoch: u32,
    rollout: &Rollout,
) -> Result<Option<OpenReport>, Problem> {
    let generation = rollout.activated_generation();
    let report = store::report(tx, tenant, device)?;
    let report = report.filter(|report| report.epoch == epoch && report.generation >= generation);
    report
        .map(|report| read_settings(&report).map(|settings| (report, settings)))
        .transpose()
}

/// A device's last report as stored, of whichever enrollment.
pub fn last_report(tx: &mut Tx, tenant: TenantId, device: DeviceId) -> Result<Option<Report>, Problem> {
    Ok(store::report(tx, tenant, device)?)
}

/// The statement, if this device's key signed it about this device in this enrollment.
fn checked(reporter: &Reporter, envelope: &Envelope) -> Result<PolicyReportStatement, Problem> {
    let verified = statement::verify::<PolicyReportStatement>(envelope, &[&reporter.key], 1);
    let statement = match verified {
        Ok(verified) => verified.statement,
        Err(error @ StatementError::Dsse(_)) => {
            return Err(DEVICE_BLOCKED.detail(format!("The report was not signed by this device: {error}.")));
        }
        Err(error @ (StatementError::Json(_) | StatementError::Invalid(_))) => {
            return Err(MALFORMED.detail(format!("The report cannot be read: {error}.")));
        }
    };
    if statement.tenant != reporter.tenant || statement.device_id != reporter.device {
        return Err(DEVICE_BLOCKED.detail("The report names another device or tenant."));
    }
    if statement.epoch != reporter.epoch {
        return Err(EPOCH_MISMATCH.detail("The report is from another enrollment of the device."));
    }
    Ok(statement)
}

/// Refuses a generation that was never given out: its device would count as having reported what is still to come. The
/// activation may have been made on another node a moment ago, so the database has the last word.
async fn require_known(app: &App, tenant: TenantId, generation: u64) -> Result<(), Problem> {
    if app
        .activations
        .generation(tenant)
        .is_none_or(|known| known < generation)
    {
        super::reload(app, tenant).await?;
    }
    if app
        .activations
        .generation(tenant)
        .is_some_and(|known| known < generation)
    {
        return Err(MALFORMED.detail("The report names a generation that does not exist."));
    }
    Ok(())
}

fn desired(
    activations: &Activations,
    tenant: TenantId,
    traits: &Traits,
    now: Timestamp,
) -> Result<Arc<DesiredSet>, Problem> {
    activations.desired(tenant, traits, now).ok_or_else(|| {
        UNAVAILABLE
            .detail("The policies are still being read. Try again shortly.")
            .retry_after(1)
    })
}

/// What a device said last of its settings, and when; whether that is about `set`, what it should be at.
pub fn last_reported(
    tx: &mut Tx,
    tenant: TenantId,
    device: &Device,
    set: &DesiredSet,
) -> Result<(Reported, Option<Timestamp>), Problem> {
    let Some(report) = store::report(tx, tenant, device.id)?.filter(|report| report.epoch == device.epoch)
    else {
        // Who should have nothing and has said nothing is where it should be.
        return Ok((
            Reported {
                settings: BTreeMap::new(),
                is_current: set.bundles.is_empty(),
            },
            None,
        ));
    };
    let reported = Reported {
        settings: read_settings(&report)?,
        is_current: is_about(&report, device, set),
    };
    Ok((reported, Some(report.reported_at)))
}

fn is_about(report: &Report, device: &Device, set: &DesiredSet) -> bool {
    report.epoch == device.epoch && report.state_digest == set.digest.to_hex()
}

fn read_settings(report: &Report) -> Result<BTreeMap<String, SettingReport>, Problem> {
    serde_json::from_str(&report.settings).map_err(Problem::internal)
}

fn age(statement: &PolicyReportStatement) -> ReportAge {
    ReportAge {
        epoch: statement.epoch,
        generation: statement.generation,
        at: statement.at,
    }
}

/// The stored report's own time is in its signed statement.
fn age_of(report: &Report) -> Result<ReportAge, Problem> {
    let envelope = Envelope::from_json(report.envelope.as_bytes()).map_err(Problem::internal)?;
    let statement: PolicyReportStatement =
        muster_trust::encoding::from_strict_json(&envelope.payload, PolicyReportStatement::MAX_BYTES)
            .map_err(Problem::internal)?;
    Ok(ReportAge {
        epoch: report.epoch,
        generation: report.generation,
        at: statement.at,
    })
}
