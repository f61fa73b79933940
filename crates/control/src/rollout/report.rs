//! What devices say: signed reports in, compliance out.

use std::collections::BTreeMap;

use muster_model::{
    DeviceId, PolicyId, RolloutId, SettingReport, TenantId, Timestamp, compliance::ComplianceState,
    evaluate::Verdict, platform::Platform, text::VersionLabel,
};
use muster_storage::{Scope, Tx};
use muster_trust::{
    dsse::Envelope,
    key::PublicKey,
    statement::{self, PolicyReportStatement, Statement, StatementError},
};

use super::{
    Activations, DesiredSet, Report, get,
    rules::{ReportAge, ReportState, is_overtaken},
    store,
};
use crate::{
    App,
    access::problem::{DEVICE_BLOCKED, EPOCH_MISMATCH, MALFORMED, Problem, UNAVAILABLE},
    audit,
    compliance::{self, DeviceSettingsView, PolicyRow, Reported},
    devices::{self, Device},
    policy,
};

/// Who reports, as its certificate and the registry say.
#[derive(Debug, Clone)]
pub struct Reporter {
    pub tenant: TenantId,
    pub device: DeviceId,
    pub epoch: u32,
    pub platform: Platform,
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
    let (tenant, device, platform) = (reporter.tenant, reporter.device, reporter.platform);
    app.activations.reported(tenant, device, statement.generation);
    let set = desired(&app.activations, tenant, platform, device)?;
    let is_current = statement.state_digest == set.digest;
    let (now, envelope) = (
        app.clock.now(),
        String::from_utf8(envelope.to_json()).map_err(Problem::internal)?,
    );
    let accepted = audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        if let Some(stored) = store::report(tx, tenant, device)?
            && is_overtaken(age_of(&stored)?, age(&statement))
        {
            return Ok(Accepted::Overtaken);
        }
        let reported = Reported {
            settings: statement.settings.clone(),
            is_current,
        };
        let known = devices::get(tx, tenant, device)?;
        let standing = compliance::refresh(tx, tenant, &known, &set.policies, &reported, now)?;
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
            envelope: envelope.clone(),
            reported_at: now,
        };
        store::put_report(tx, tenant, &report)?;
        Ok(Accepted::Stored {
            state,
            compliance: standing.state,
            is_current,
        })
    })
    .await?;
    app.nudges.rollouts.notify_one();
    Ok(accepted)
}

/// Evaluates a device anew: its facts changed, or what it should be at.
pub async fn refresh(app: &App, tenant: TenantId, device: DeviceId) -> Result<ComplianceState, Problem> {
    super::ensure(app, tenant).await?;
    let (work, now) = (app.clone(), app.clock.now());
    audit::housekeeping(app, Scope::Tenant(tenant.uuid()), move |tx| {
        let device = devices::get(tx, tenant, device)?;
        let set = desired(&work.activations, tenant, device.platform, device.id)?;
        let (reported, _) = last_reported(tx, tenant, &device, &set)?;
        let policies = &set.policies;
        Ok(compliance::refresh(tx, tenant, &device, policies, &reported, now)?.state)
    })
    .await
}

/// A device's settings and verdicts, evaluated now.
pub fn device_settings(
    tx: &mut Tx,
    activations: &Activations,
    tenant: TenantId,
    device: &Device,
    now: Timestamp,
) -> Result<DeviceSettingsView, Problem> {
    let set = desired(activations, tenant, device.platform, device.id)?;
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
) -> Result<Vec<Option<DevicePolicy>>, Problem> {
    let mut policies = Vec::with_capacity(devices.len());
    for device in devices {
        let set = activations.desired(tenant, device.platform, device.id);
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

/// Settings of a device's last report by key, if it is about a rollout: of its generation or a later one.
pub fn settings_of(
    tx: &mut Tx,
    tenant: TenantId,
    device: DeviceId,
    epoch: u32,
    rollout: RolloutId,
) -> Result<Option<OpenReport>, Problem> {
    let generation = get(tx, tenant, rollout)?.generation;
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
    platform: Platform,
    device: DeviceId,
) -> Result<std::sync::Arc<DesiredSet>, Problem> {
    activations.desired(tenant, platform, device).ok_or_else(|| {
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
