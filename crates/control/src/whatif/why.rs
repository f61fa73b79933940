//! Why a device is what it is: from a value and its verdict back to who decided, what was signed, and what the device said.

use std::collections::BTreeMap;

use muster_model::{
    ComplianceState, DeviceId, EntryId, Platform, PolicyId, RolloutId, SettingReport, SettingState, TenantId,
    Timestamp,
    evaluate::{EffectiveSetting, Outcome, Verdict},
    rules::Rule,
    settings::{MergeRule, SettingValue, Support, definition},
    text::VersionLabel,
};
use muster_storage::Tx;
use muster_trust::{
    dsse::Envelope,
    encoding::from_strict_json,
    key::sha256,
    statement::{DesiredBundle, PolicyReportStatement, Statement},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::scan;
use crate::{
    App,
    access::{
        Permit,
        problem::{NOT_FOUND, Problem},
        scope::{DeviceRead, PolicyRead, RolloutRead},
    },
    audit,
    compliance::{self, ActivePolicy, Standing},
    devices::{self, Device},
    policy,
    rollout::{self, DesiredSet, Report, RolloutView},
};

/// Chains of one answer: rules of several policies can have the same name.
const CHAINS_MAX: usize = 64;

/// Why a device is what it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct WhyView {
    #[schema(value_type = String)]
    pub device_id: DeviceId,
    pub device_name: String,
    #[schema(value_type = String)]
    pub platform: Platform,
    /// `compliant`, `noncompliant`, `unknown` or `pending`.
    #[schema(value_type = String)]
    pub compliance: ComplianceState,
    /// Why it is that word, in a sentence.
    pub because: String,
    /// When the device's last signed report came.
    pub reported_at: Option<String>,
    /// Whether that report is about what the device should be at now.
    pub is_current: bool,
    /// Every setting and rule that is asked of the device, those that make it so first; of one subject, where one is asked
    /// about.
    pub subjects: Vec<SubjectView>,
    /// The whole story of the subject that is asked about: one chain, or one for each policy with a rule of that name.
    pub chains: Vec<ChainView>,
}

/// A setting or a rule with its verdict.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SubjectView {
    /// A setting's key or a rule's name.
    pub subject: String,
    /// `setting` or `rule`.
    pub kind: &'static str,
    #[schema(value_type = String)]
    pub policy_id: PolicyId,
    pub policy_name: String,
    /// `compliant`, `noncompliant` or `unknown`.
    pub verdict: &'static str,
    pub reason: Option<String>,
    /// Whether the device's word follows from it.
    pub is_decisive: bool,
}

/// From a verdict back to its causes. Each step names the log entry that proves it, where there is one.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChainView {
    pub subject: SubjectView,
    /// Since when the verdict is known to be this: the time of the report that gave it. Absent where it has become this
    /// since, by new facts or by time.
    pub known_since: Option<String>,
    /// Of a setting: what should be in force.
    pub effective: Option<EffectiveView>,
    /// Of a rule: what it asks.
    pub condition: Option<String>,
    /// What every policy asks of the setting; of a rule, nothing.
    pub asked: Vec<AskedView>,
    pub version: VersionStep,
    /// The rollout that brought the version. Its stages say what each was judged by.
    pub rollout: Option<RolloutView>,
    pub activation: EntryRef,
    pub approval: ApprovalStep,
    pub statement: StatementStep,
    /// What the device reported; absent while it has not reported in this enrollment.
    pub receipt: Option<ReceiptView>,
}

/// The value that should be in force.
#[derive(Debug, Serialize, ToSchema)]
pub struct EffectiveView {
    #[schema(value_type = Object)]
    pub value: SettingValue,
    /// How values of several policies become one, for example `highest`.
    #[schema(value_type = String)]
    pub rule: MergeRule,
    /// `exact`, `weaker`, `not_expressible` or `needs_agent` on the device's platform, and `why`.
    #[schema(value_type = Object)]
    pub support: Support,
}

/// What one policy asks for.
#[derive(Debug, Serialize, ToSchema)]
pub struct AskedView {
    #[schema(value_type = String)]
    pub policy_id: PolicyId,
    pub policy_name: String,
    #[schema(value_type = String)]
    pub version: VersionLabel,
    #[schema(value_type = Object)]
    pub value: SettingValue,
    /// `decides`, `agrees` or `overruled`.
    pub outcome: &'static str,
}

/// An entry of the log, with the address of its proof.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct EntryRef {
    #[schema(value_type = String)]
    pub entry_id: EntryId,
    /// Its place in the tree, from 0; absent for the moment until it has one.
    pub index: Option<u64>,
    /// `/api/v1/log/proof?entry=…`.
    pub proof: String,
}

/// The version that asks for it.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionStep {
    #[schema(value_type = String)]
    pub policy_id: PolicyId,
    pub policy_name: String,
    #[schema(value_type = String)]
    pub version: VersionLabel,
    pub bundle_sha256: String,
    pub created_by: String,
    pub created_at: String,
    pub entry: EntryRef,
}

/// Whether somebody had to approve the activation.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApprovalStep {
    /// `not_required`: no policy asks for an approval.
    pub state: &'static str,
}

/// What the device is told to be at: a statement that the tenant's action key signs for this device alone.
#[derive(Debug, Serialize, ToSchema)]
pub struct StatementStep {
    /// The digest of everything that the device should be at.
    pub state_digest: String,
    pub generation: u64,
    /// The bundles in it, each proved to the device with the entry of its activation.
    pub bundles: usize,
    /// Whether the device's last report is about this digest.
    pub is_reported: bool,
}

/// The device's signed word.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReceiptView {
    /// What the device says of the setting; absent for rules, and where the report is about something else.
    #[schema(value_type = Option<String>)]
    pub state: Option<SettingState>,
    #[schema(value_type = Option<Object>)]
    pub observed: Option<SettingValue>,
    pub detail: Option<String>,
    /// When it came, by the server's clock.
    pub reported_at: String,
    /// When it was made, by the device's clock.
    pub made_at: Option<String>,
    pub state_digest: String,
    pub generation: u64,
    /// Of the signed envelope as stored, lower hex.
    pub envelope_sha256: String,
}

/// What is read once for all chains of an answer.
struct Ground<'a> {
    app: &'a App,
    tenant: TenantId,
    device: &'a Device,
    set: &'a DesiredSet,
    standing: &'a Standing,
    is_current: bool,
    report: Option<Report>,
    names: BTreeMap<PolicyId, String>,
    now: Timestamp,
}

/// Explains a device, or one subject of it.
pub async fn why(
    app: &App,
    permit: &Permit<(DeviceRead, PolicyRead, RolloutRead)>,
    device: String,
    subject: Option<String>,
) -> Result<WhyView, Problem> {
    let (tenant, work, now) = (permit.tenant(), app.clone(), app.clock.now());
    rollout::ensure(app, tenant).await?;
    app.db
        .read(permit.storage(), move |tx| {
            let device = devices::resolve(tx, tenant, &device)?;
            explain(tx, &work, tenant, &device, subject.as_deref(), now)
        })
        .await
}

fn explain(
    tx: &mut Tx,
    app: &App,
    tenant: TenantId,
    device: &Device,
    subject: Option<&str>,
    now: Timestamp,
) -> Result<WhyView, Problem> {
    let set = scan::desired(app, tx, tenant, device, now)?;
    let (reported, reported_at) = rollout::last_reported(tx, tenant, device, &set)?;
    let standing = compliance::evaluate_device(tx, tenant, device, &set.policies, &reported, now)?;
    let report = rollout::last_report(tx, tenant, device.id)?.filter(|report| report.epoch == device.epoch);
    let mut names = BTreeMap::new();
    for active in &set.policies {
        names.insert(active.policy, policy::name(tx, tenant, active.policy)?);
    }
    let ground = Ground {
        app,
        tenant,
        device,
        set: &set,
        standing: &standing,
        is_current: reported.is_current,
        report,
        names,
        now,
    };
    let verdicts = standing.evaluation.verdicts.iter();
    let wanted: Vec<&Verdict> = verdicts
        .filter(|verdict| subject.is_none_or(|subject| verdict.subject == subject))
        .collect();
    let mut chains = Vec::new();
    if subject.is_some() {
        if wanted.is_empty() {
            return Err(NOT_FOUND.detail(
                "No policy asks this device for that. Leave `subject` out to see what is asked of it.",
            ));
        }
        for verdict in wanted.iter().take(CHAINS_MAX) {
            chains.push(ground.chain(tx, verdict)?);
        }
    }
    let mut subjects: Vec<SubjectView> = wanted.iter().map(|verdict| ground.subject(verdict)).collect();
    subjects.sort_by_key(|subject| !subject.is_decisive);
    Ok(WhyView {
        device_id: device.id,
        device_name: device.name.clone(),
        platform: device.platform,
        compliance: standing.state,
        because: because(
            &standing,
            &set.policies,
            reported.is_current,
            reported_at.is_some(),
        ),
        reported_at: reported_at.map(|at| at.to_string()),
        is_current: reported.is_current,
        subjects,
        chains,
    })
}

/// The device's word as a sentence.
fn because(
    standing: &Standing,
    policies: &[std::sync::Arc<ActivePolicy>],
    is_current: bool,
    has_reported: bool,
) -> String {
    let count = |wanted: fn(&Outcome) -> bool| {
        let verdicts = standing.evaluation.verdicts.iter();
        verdicts.filter(|verdict| wanted(&verdict.outcome)).count()
    };
    let is_unmet = |outcome: &Outcome| matches!(outcome, Outcome::Noncompliant { .. });
    let is_unknown = |outcome: &Outcome| matches!(outcome, Outcome::Unknown { .. });
    match standing.state {
        ComplianceState::Noncompliant => format!("{} of what is asked is not met.", count(is_unmet)),
        ComplianceState::Compliant if policies.is_empty() => "No policy asks anything of it.".to_owned(),
        ComplianceState::Compliant => "Everything that is asked of it is met.".to_owned(),
        ComplianceState::Pending if has_reported && !is_current => {
            "Its last report is about earlier policies; the device has yet to report on these.".to_owned()
        }
        ComplianceState::Pending => "The device has not reported yet.".to_owned(),
        ComplianceState::Unknown if policies.iter().any(|policy| !policy.is_intact) => {
            "The stored bundle of a policy is not the one that was signed, so nobody can say what it wants."
                .to_owned()
        }
        ComplianceState::Unknown => format!("{} of what is asked cannot be judged yet.", count(is_unknown)),
    }
}

impl Ground<'_> {
    fn name(&self, policy: PolicyId) -> String {
        self.names
            .get(&policy)
            .map_or_else(|| policy.to_string(), Clone::clone)
    }

    fn setting(&self, subject: &str) -> Option<&EffectiveSetting> {
        self.standing.evaluation.state.get(subject)
    }

    fn subject(&self, verdict: &Verdict) -> SubjectView {
        let (word, reason) = match &verdict.outcome {
            Outcome::Compliant => ("compliant", None),
            Outcome::Noncompliant { reason } => ("noncompliant", Some(reason.clone())),
            Outcome::Unknown { reason } => ("unknown", Some(reason.clone())),
        };
        let is_setting = self.setting(&verdict.subject).is_some();
        SubjectView {
            subject: verdict.subject.clone(),
            kind: if is_setting { "setting" } else { "rule" },
            policy_id: verdict.from,
            policy_name: self.name(verdict.from),
            verdict: word,
            reason,
            is_decisive: match self.standing.state {
                ComplianceState::Noncompliant => word == "noncompliant",
                ComplianceState::Unknown | ComplianceState::Pending => word == "unknown",
                ComplianceState::Compliant => false,
            },
        }
    }

    fn chain(&self, tx: &mut Tx, verdict: &Verdict) -> Result<ChainView, Problem> {
        let missing = || Problem::internal("a verdict is of a policy that the device does not have");
        let mut active = self.set.policies.iter();
        let active = active
            .find(|active| active.policy == verdict.from)
            .ok_or_else(missing)?;
        let mut bundles = self.set.bundles.iter();
        let bundle = bundles
            .find(|bundle| bundle.policy_id == verdict.from)
            .ok_or_else(missing)?;
        let setting = self.setting(&verdict.subject);
        let rule = rule_of(active, verdict).filter(|_| setting.is_none());
        Ok(ChainView {
            subject: self.subject(verdict),
            known_since: self.known_since(verdict),
            effective: setting.and_then(|setting| self.effective(&verdict.subject, setting)),
            condition: rule.map(|rule| rule.condition.to_string()),
            asked: setting.map_or_else(Vec::new, |setting| self.asked(&verdict.subject, setting)),
            version: self.version(tx, bundle)?,
            rollout: self.rollout(tx, bundle)?,
            activation: entry_ref(tx, self.tenant, bundle.activation_entry)?,
            approval: ApprovalStep {
                state: "not_required",
            },
            statement: StatementStep {
                state_digest: self.set.digest.to_hex(),
                generation: self.set.generation,
                bundles: self.set.bundles.len(),
                is_reported: self.report.is_some() && self.is_current,
            },
            receipt: self.receipt(&verdict.subject)?,
        })
    }

    /// The time of the stored report, where it gave this verdict already.
    fn known_since(&self, verdict: &Verdict) -> Option<String> {
        let report = self.report.as_ref()?;
        let given: Vec<Verdict> = serde_json::from_str(&report.verdicts).ok()?;
        let is_same = given.iter().any(|given| given == verdict);
        is_same.then(|| report.reported_at.to_string())
    }

    fn effective(&self, key: &str, setting: &EffectiveSetting) -> Option<EffectiveView> {
        let def = definition(key)?;
        Some(EffectiveView {
            value: def.redacted(&setting.value),
            rule: def.merge,
            support: def.support_for(self.device.platform, &setting.value),
        })
    }

    fn asked(&self, key: &str, setting: &EffectiveSetting) -> Vec<AskedView> {
        let asked = |active: &std::sync::Arc<ActivePolicy>| {
            let value = active.settings.get(key)?;
            let outcome = if active.policy == setting.from {
                "decides"
            } else if setting.overruled.contains(&active.policy) {
                "overruled"
            } else {
                "agrees"
            };
            Some(AskedView {
                policy_id: active.policy,
                policy_name: self.name(active.policy),
                version: active.version.clone(),
                value: definition(key).map_or_else(|| value.clone(), |def| def.redacted(value)),
                outcome,
            })
        };
        self.set.policies.iter().filter_map(asked).collect()
    }

    fn version(&self, tx: &mut Tx, bundle: &DesiredBundle) -> Result<VersionStep, Problem> {
        let version = policy::version(tx, self.tenant, bundle.policy_id, &bundle.version)?;
        Ok(VersionStep {
            policy_id: bundle.policy_id,
            policy_name: self.name(bundle.policy_id),
            entry: entry_ref(tx, self.tenant, version.entry)?,
            version: version.version,
            bundle_sha256: bundle.sha256.to_hex(),
            created_by: version.created_by,
            created_at: version.created_at.to_string(),
        })
    }

    /// The rollout that the entry of the activation is about.
    fn rollout(&self, tx: &mut Tx, bundle: &DesiredBundle) -> Result<Option<RolloutView>, Problem> {
        let entry = audit::entry(tx, self.tenant, bundle.activation_entry)?;
        let id = entry.and_then(|entry| entry.object.id.parse::<RolloutId>().ok());
        let Some(id) = id else { return Ok(None) };
        let found = rollout::get(tx, self.tenant, id)?;
        rollout::view(tx, self.tenant, found, &self.app.settings, self.now).map(Some)
    }

    fn receipt(&self, subject: &str) -> Result<Option<ReceiptView>, Problem> {
        let Some(report) = &self.report else {
            return Ok(None);
        };
        let setting: Option<&SettingReport> = self.standing.in_force.get(subject);
        let shown = |value: &SettingValue| {
            definition(subject).map_or_else(|| value.clone(), |def| def.redacted(value))
        };
        let envelope = Envelope::from_json(report.envelope.as_bytes()).map_err(Problem::internal)?;
        let statement =
            from_strict_json::<PolicyReportStatement>(&envelope.payload, PolicyReportStatement::MAX_BYTES);
        Ok(Some(ReceiptView {
            state: setting.map(|setting| setting.state),
            observed: setting.and_then(|setting| setting.observed.as_ref()).map(shown),
            detail: setting.and_then(|setting| setting.detail.clone()),
            reported_at: report.reported_at.to_string(),
            made_at: statement.ok().map(|statement| statement.at.to_string()),
            state_digest: report.state_digest.clone(),
            generation: report.generation,
            envelope_sha256: sha256(report.envelope.as_bytes()).to_hex(),
        }))
    }
}

fn rule_of<'a>(active: &'a ActivePolicy, verdict: &Verdict) -> Option<&'a Rule> {
    active
        .rules
        .iter()
        .find(|rule| rule.name.as_str() == verdict.subject)
}

fn entry_ref(tx: &mut Tx, tenant: TenantId, id: EntryId) -> Result<EntryRef, Problem> {
    Ok(EntryRef {
        entry_id: id,
        index: audit::place(tx, tenant, id)?,
        proof: format!("/api/v1/log/proof?entry={id}"),
    })
}
