//! Desired state on the device: checked, fetched, put in force, kept as last-known-good or reverted.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_model::id::PolicyId;
use muster_model::report::SettingReport;
use muster_model::settings::SettingValue;
use muster_model::time::Timestamp;
use muster_trust::dsse::Envelope;
use muster_trust::key::Digest;
use muster_trust::proof::LoggedProof;
use muster_trust::statement::{DesiredBundle, DesiredStateStatement, PolicyReportStatement, state_digest};
use serde::{Deserialize, Serialize};

use super::policy_set::{HeldBundle, PolicySet, failed, read_contents};
use super::{Action, DeviceCore, Signer, refused, sign_as_device};
use crate::clock::ClockReading;
use crate::policy::Desired;

/// Failed check-ins under a new policy before it is reverted…
pub const PROBATION_FAILURES: u32 = 5;
/// …and the time that must have passed since it was applied: a server that restarts is no reason.
pub const PROBATION_TIME: Duration = Duration::from_secs(120);
/// Failed check-ins after a revert that clear the policy: then it was the server that was gone.
const INNOCENT_FAILURES: u32 = 2;
/// How often a policy that was cleared this way is tried again.
pub const RETRIES_MAX: u32 = 3;
/// Code of everything that has to do with a reverted policy.
pub const REVERTED_CODE: &str = "policy_reverted";
/// Code of a bundle whose settings or rules this agent does not know.
pub const SETTINGS_INVALID_CODE: &str = "settings_invalid";

/// A desired state on its way: some of its bundles are still to come. Not persisted: the server offers it again.
#[derive(Clone, Debug)]
struct Target {
    statement: DesiredStateStatement,
    missing: Vec<(DesiredBundle, LoggedProof)>,
    held: BTreeMap<PolicyId, HeldBundle>,
}

/// A new policy set that has not yet proved that the server can be reached under it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Probation {
    since: Timestamp,
    failures: u32,
}

/// A policy set that was taken back.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Reverted {
    set: PolicySet,
    /// Failed check-ins since; while the answer is open.
    failures: u32,
    verdict: Verdict,
    /// How often the set was cleared and tried again.
    retries: u32,
}

/// Whether a reverted policy was the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    /// The next check-ins will tell.
    Open,
    /// The server was reachable at once without it: it stays out until something newer comes.
    Guilty,
    /// The server stayed unreachable without it: it may be tried again.
    Innocent,
}

/// A report for the server.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct PendingReport {
    number: u64,
    envelope: Envelope,
}

/// The policy side of the device.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct PolicyState {
    current: PolicySet,
    /// The newest set under which the server was reached.
    good: PolicySet,
    probation: Option<Probation>,
    reverted: Option<Reverted>,
    report: Option<PendingReport>,
    reports_made: u64,
    /// When the last report was made. The server orders reports by their times, so these never go back, even where a
    /// clock that was fast is put right.
    reported_at: Option<Timestamp>,
    /// The state that the server was last told to be refused, so that it is told once.
    told_refused: Option<Digest>,
    /// The report that the last check-in carried.
    #[serde(skip)]
    report_sent: Option<u64>,
    #[serde(skip)]
    target: Option<Target>,
}

impl PolicyState {
    pub(super) fn is_empty(&self) -> bool {
        self.current.bundles.is_empty()
    }

    pub(super) fn state_digest(&self) -> Digest {
        self.current.digest()
    }

    pub(super) fn effective_settings(&self) -> BTreeMap<String, SettingValue> {
        self.current.effective_settings()
    }

    pub(super) fn has_report(&self) -> bool {
        self.report.is_some()
    }

    pub(super) fn take_report_for_sending(&mut self) -> Option<Envelope> {
        self.report_sent = self.report.as_ref().map(|report| report.number);
        self.report.as_ref().map(|report| report.envelope.clone())
    }

    /// A late or duplicate answer does not confirm a report that was made after its question.
    pub(super) fn on_report_delivered(&mut self) {
        if self
            .report
            .as_ref()
            .is_some_and(|report| Some(report.number) == self.report_sent)
        {
            self.report = None;
        }
    }

    pub(super) fn forget_unfinished(&mut self) {
        self.target = None;
    }

    /// The server answered: whatever is in force lets the device reach it.
    pub(super) fn on_server_reached(&mut self) {
        if self.probation.take().is_some() {
            self.good = self.current.clone();
            self.reverted = None;
        }
        if let Some(reverted) = &mut self.reverted
            && reverted.verdict == Verdict::Open
        {
            reverted.verdict = Verdict::Guilty;
        }
    }

    /// True if the policy in force was reverted just now.
    pub(super) fn on_server_unreachable(&mut self, now: Timestamp) -> bool {
        if let Some(reverted) = &mut self.reverted
            && reverted.verdict == Verdict::Open
        {
            reverted.failures += 1;
            if reverted.failures >= INNOCENT_FAILURES && reverted.retries < RETRIES_MAX {
                reverted.verdict = Verdict::Innocent;
            }
        }
        let Some(probation) = &mut self.probation else {
            return false;
        };
        probation.failures += 1;
        if probation.failures < PROBATION_FAILURES || now.since(probation.since) < PROBATION_TIME {
            return false;
        }
        let retries = match &self.reverted {
            Some(earlier) if earlier.set == self.current => earlier.retries + 1,
            _ => 0,
        };
        let set = std::mem::replace(&mut self.current, self.good.clone());
        self.reverted = Some(Reverted {
            set,
            failures: 0,
            verdict: Verdict::Open,
            retries,
        });
        self.probation = None;
        self.report = None;
        true
    }

    fn put_in_force(&mut self, set: PolicySet, now: Timestamp) {
        if self
            .reverted
            .as_ref()
            .is_some_and(|reverted| reverted.set.digest() != set.digest())
        {
            self.reverted = None;
        }
        self.current = set;
        self.probation = Some(Probation {
            since: now,
            failures: 0,
        });
        self.report = None;
    }
}

impl DeviceCore {
    /// Checks a desired state and asks for the bundles that are not held.
    pub(super) fn take_desired(
        &mut self,
        desired: &Desired,
        reading: &ClockReading,
        sign: &mut Signer<'_>,
        actions: &mut Vec<Action>,
    ) {
        let now = self.now(reading);
        let checked = self.trust.check_desired_state(
            &desired.statement,
            self.identity.device_id,
            self.identity.epoch,
            now,
        );
        let statement = match checked {
            Ok(statement) => statement,
            Err(refusal) => {
                actions.push(refused("desired state", refusal.code(), refusal.to_string()));
                return;
            }
        };
        let digest = state_digest(&statement.bundles);
        if digest == self.policy.state_digest() {
            self.policy.target = None;
            return;
        }
        if let Some(reverted) = &self.policy.reverted
            && reverted.verdict == Verdict::Guilty
            && reverted.set.digest() == digest
        {
            self.refuse_reverted(now, sign, actions);
            return;
        }
        let mut target = Target {
            statement: statement.clone(),
            missing: Vec::new(),
            held: BTreeMap::new(),
        };
        for bundle in statement.bundles {
            if let Some(held) = self.policy.current.bundles.get(&bundle.policy_id)
                && held.desired == bundle
            {
                target.held.insert(bundle.policy_id, held.clone());
                continue;
            }
            let Some(proof) = desired.bundles.iter().find(|proof| proof.sha256 == bundle.sha256) else {
                let detail = format!("no proof came with the bundle of {}", bundle.policy_id);
                actions.push(refused("desired state", "proof_missing", detail));
                return;
            };
            target.missing.push((bundle, proof.proof.clone()));
        }
        actions.extend(target.missing.iter().map(|(bundle, _)| Action::FetchBundle {
            sha256: bundle.sha256,
        }));
        self.policy.target = Some(target);
        self.finish_target(now, actions);
    }

    /// Takes a downloaded bundle. The last one that was missing puts the whole desired state in force.
    pub fn on_bundle(
        &mut self,
        sha256: Digest,
        bytes: &[u8],
        reading: &ClockReading,
        sign: &mut Signer<'_>,
    ) -> Vec<Action> {
        let now = self.now(reading);
        let mut actions = Vec::new();
        let Some(target) = &mut self.policy.target else {
            return actions;
        };
        let Some(position) = target
            .missing
            .iter()
            .position(|(bundle, _)| bundle.sha256 == sha256)
        else {
            return actions;
        };
        let (bundle, proof) = target.missing.remove(position);
        let subject = format!("bundle of {}", bundle.policy_id);
        let open = match self.trust.check_bundle(bytes, &bundle, &proof) {
            Ok(open) => open,
            Err(refusal) => {
                self.policy.target = None;
                actions.push(refused(subject, refusal.code(), refusal.to_string()));
                return actions;
            }
        };
        match read_contents(&open) {
            Ok((settings, rules)) => {
                target.held.insert(
                    bundle.policy_id,
                    HeldBundle {
                        desired: bundle,
                        settings,
                        rules,
                    },
                );
                self.finish_target(now, &mut actions);
            }
            Err(failed) => {
                let (digest, generation) = (
                    state_digest(&target.statement.bundles),
                    target.statement.generation,
                );
                self.policy.target = None;
                let detail =
                    "the bundle holds settings or rules that this agent does not know; a newer agent may";
                actions.push(refused(subject, SETTINGS_INVALID_CODE, detail));
                self.tell_refused(digest, generation, failed, now, sign);
            }
        }
        actions
    }

    /// Reports a state that this device refuses, once: every setting that is the reason is `failed`.
    fn tell_refused(
        &mut self,
        digest: Digest,
        generation: u64,
        failed: BTreeMap<String, SettingReport>,
        now: Timestamp,
        sign: &mut Signer<'_>,
    ) {
        if self.policy.told_refused != Some(digest) {
            self.policy.told_refused = Some(digest);
            self.make_report(digest, generation, failed, now, sign);
        }
    }

    fn finish_target(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let Some(target) = self.policy.target.take_if(|target| target.missing.is_empty()) else {
            return;
        };
        let set = PolicySet {
            generation: target.statement.generation,
            bundles: target.held,
        };
        self.trust.took_up(&target.statement);
        self.policy.put_in_force(set, now);
        actions.push(Action::Apply {
            settings: self.effective_settings(),
        });
    }

    /// Reports what is in force, setting by setting. A setting that the machine said nothing about is reported failed:
    /// nothing is ever skipped.
    pub fn on_applied(
        &mut self,
        reports: &BTreeMap<String, SettingReport>,
        reading: &ClockReading,
        sign: &mut Signer<'_>,
    ) {
        if self.departure.is_some() {
            return;
        }
        let silent = || failed("this machine said nothing about the setting");
        let settings = self
            .effective_settings()
            .into_keys()
            .map(|key| {
                let report = reports.get(&key).cloned().unwrap_or_else(silent);
                (key, report)
            })
            .collect();
        let (digest, generation) = (self.policy.state_digest(), self.policy.current.generation);
        self.make_report(digest, generation, settings, self.now(reading), sign);
    }

    /// Answers an offer of a policy that was reverted: every one of its settings failed, and why.
    fn refuse_reverted(&mut self, now: Timestamp, sign: &mut Signer<'_>, actions: &mut Vec<Action>) {
        let Some(reverted) = &self.policy.reverted else {
            return;
        };
        let failed = failed(format!(
            "{REVERTED_CODE}: the server could not be reached under this policy"
        ));
        let settings = reverted
            .set
            .effective_settings()
            .into_keys()
            .map(|key| (key, failed.clone()))
            .collect();
        let (digest, generation) = (reverted.set.digest(), reverted.set.generation);
        let detail = "this policy cut the device off before; a newer one is needed";
        actions.push(refused("desired state", REVERTED_CODE, detail));
        self.tell_refused(digest, generation, settings, now, sign);
    }

    fn make_report(
        &mut self,
        state_digest: Digest,
        generation: u64,
        settings: BTreeMap<String, SettingReport>,
        at: Timestamp,
        sign: &mut Signer<'_>,
    ) {
        let after_last = self
            .policy
            .reported_at
            .map(|last| last.plus(Duration::from_micros(1)));
        let at = after_last.map_or(at, |after_last| at.max(after_last));
        let mut statement = PolicyReportStatement {
            tenant: self.identity.tenant,
            device_id: self.identity.device_id,
            epoch: self.identity.epoch,
            state_digest,
            generation,
            settings,
            at,
            facts_digest: self.facts_digest,
        };
        let signed = sign_as_device(&statement, sign).or_else(|_| {
            // Larger than a signed payload may be: the states matter, what was observed is for people.
            statement
                .settings
                .values_mut()
                .for_each(|report| (report.observed, report.detail) = (None, None));
            sign_as_device(&statement, sign)
        });
        if let Ok(envelope) = signed {
            self.policy.reports_made += 1;
            self.policy.reported_at = Some(at);
            self.policy.report = Some(PendingReport {
                number: self.policy.reports_made,
                envelope,
            });
        }
    }
}
