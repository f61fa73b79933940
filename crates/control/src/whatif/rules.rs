//! The pure part: one device under the policies that it has, and under those that it would have.

use std::{collections::BTreeMap, sync::Arc};

use muster_model::{
    ComplianceState, Platform, PolicyId, SettingReport, SettingState, Subject, Timestamp,
    evaluate::{self, Conflict, EffectiveSetting, EvaluatedPolicy, Outcome},
    settings::{SettingValue, Support, definition},
};

use crate::compliance::{self, ActivePolicy, Reported};

/// What is asked about: another version of a policy in its place, or none.
#[derive(Debug, Clone)]
pub struct Hypothesis {
    pub policy: PolicyId,
    /// What its target would have; `None` where the policy would be withdrawn.
    pub replacement: Option<Arc<ActivePolicy>>,
}

/// A setting whose value would become another one. Secrets are redacted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingChange {
    pub key: &'static str,
    /// `None` where no policy asks for it now.
    pub from: Option<SettingValue>,
    /// `None` where no policy would ask for it.
    pub to: Option<SettingValue>,
}

/// What the hypothesis means for every device that has the same policies now and is in the target, or is not.
#[derive(Debug)]
pub struct Case {
    now: Vec<Arc<ActivePolicy>>,
    then: Vec<Arc<ActivePolicy>>,
    effective_now: BTreeMap<&'static str, EffectiveSetting>,
    effective_then: BTreeMap<&'static str, EffectiveSetting>,
    /// Whether the devices have some version of the policy now.
    pub holds: bool,
    /// Whether they would have one.
    pub gets: bool,
    pub changes: Vec<SettingChange>,
    /// Conflicts of the policy with others that would be.
    pub conflicts: Vec<Conflict>,
}

/// Why a device's standing would become another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// A setting's key or a rule's name.
    pub subject: String,
    pub why: String,
}

/// A device now, and as it would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    pub now: ComplianceState,
    pub then: ComplianceState,
    /// What would make the difference, in the order of the subjects.
    pub reasons: Vec<Reason>,
}

impl Case {
    /// The case of devices that have `now`. The policies of `now` are those that the devices should be at.
    pub fn of(now: &[Arc<ActivePolicy>], hypothesis: &Hypothesis, is_targeted: bool) -> Case {
        let holds = now.iter().any(|policy| policy.policy == hypothesis.policy);
        let gained = hypothesis.replacement.as_ref().filter(|_| is_targeted);
        let others = now.iter().filter(|policy| policy.policy != hypothesis.policy);
        let then: Vec<_> = others.chain(gained).map(Arc::clone).collect();
        let (before, after) = (evaluated(now), evaluated(&then));
        let (effective_now, effective_then) = (evaluate::effective(&before), evaluate::effective(&after));
        let mut conflicts = evaluate::conflicts(&after);
        conflicts.retain(|conflict| is_of(conflict, hypothesis.policy));
        Case {
            changes: differences(&effective_now, &effective_then),
            holds,
            gets: gained.is_some(),
            conflicts,
            now: now.to_vec(),
            effective_now,
            effective_then,
            then,
        }
    }

    /// Whether anything could become different for these devices.
    pub fn is_touched(&self) -> bool {
        self.holds || self.gets
    }

    /// How well a platform carries each setting that the policy asks for, with the value that would be in force.
    pub fn support(
        &self,
        policy: PolicyId,
        platform: Platform,
    ) -> impl Iterator<Item = (&'static str, Support)> {
        let asked = self.then.iter().find(|active| active.policy == policy);
        let keys = asked
            .into_iter()
            .flat_map(|active| active.settings.iter().map(|(key, _)| key));
        keys.filter_map(move |key| {
            let def = definition(key)?;
            let setting = self.effective_then.get(key)?;
            Some((def.key, def.support_for(platform, &setting.value)))
        })
    }

    /// Judges one device, now and as if it had applied everything that would be new to it as well as its platform can. What
    /// does not change for it is judged by what it said; rules are judged by what is known of it.
    pub fn judge(&self, subject: &Subject<'_>, reported: &Reported, at: Timestamp) -> Judged {
        let now = compliance::evaluate(&self.now, subject, reported, at);
        let applied = Reported {
            settings: self.applied(subject.platform, &now.in_force),
            is_current: true,
        };
        let then = compliance::evaluate(&self.then, subject, &applied, at);
        Judged {
            now: now.state,
            then: then.state,
            reasons: reasons(&now.evaluation.verdicts, &then.evaluation.verdicts),
        }
    }

    fn applied(
        &self,
        platform: Platform,
        in_force: &BTreeMap<String, SettingReport>,
    ) -> BTreeMap<String, SettingReport> {
        let report = |(key, setting): (&&'static str, &EffectiveSetting)| {
            let is_same = self
                .effective_now
                .get(key)
                .is_some_and(|now| now.value == setting.value);
            let known = in_force.get(*key).filter(|_| is_same);
            let report = known.map_or_else(|| perfect(key, &setting.value, platform), Clone::clone);
            ((*key).to_owned(), report)
        };
        self.effective_then.iter().map(report).collect()
    }
}

/// What a device reports that applied a setting as well as its platform can.
fn perfect(key: &str, value: &SettingValue, platform: Platform) -> SettingReport {
    let support = definition(key).map_or(Support::Exact, |def| def.support_for(platform, value));
    let (state, observed, detail) = match support {
        Support::Exact => (SettingState::Verified, Some(value.clone()), None),
        Support::Weaker(why) => (SettingState::Weaker, None, Some(why)),
        Support::NotExpressible(why) | Support::NeedsAgent(why) => {
            (SettingState::NotExpressible, None, Some(why))
        }
    };
    SettingReport {
        state,
        observed,
        detail: detail.map(str::to_owned),
    }
}

fn evaluated(policies: &[Arc<ActivePolicy>]) -> Vec<EvaluatedPolicy<'_>> {
    policies
        .iter()
        .map(|policy| EvaluatedPolicy {
            policy: policy.policy,
            version: &policy.version,
            generation: policy.generation,
            settings: &policy.settings,
            rules: &policy.rules,
        })
        .collect()
}

fn is_of(conflict: &Conflict, policy: PolicyId) -> bool {
    conflict.winner == policy || conflict.overruled.iter().any(|lost| lost.policy == policy)
}

fn differences(
    now: &BTreeMap<&'static str, EffectiveSetting>,
    then: &BTreeMap<&'static str, EffectiveSetting>,
) -> Vec<SettingChange> {
    let mut keys: Vec<&'static str> = now.keys().chain(then.keys()).copied().collect();
    keys.sort_unstable();
    keys.dedup();
    let value = |of: &BTreeMap<&'static str, EffectiveSetting>, key: &str| {
        of.get(key).map(|setting| setting.value.clone())
    };
    let change = |key: &'static str| {
        let (from, to) = (value(now, key), value(then, key));
        let shown = |value: SettingValue| definition(key).map_or(value.clone(), |def| def.redacted(&value));
        (from != to).then(|| SettingChange {
            key,
            from: from.map(shown),
            to: to.map(shown),
        })
    };
    keys.into_iter().filter_map(change).collect()
}

/// The verdicts that would be others, the bad news first.
fn reasons(now: &[evaluate::Verdict], then: &[evaluate::Verdict]) -> Vec<Reason> {
    let same = |one: &evaluate::Verdict, other: &evaluate::Verdict| {
        one.subject == other.subject && one.from == other.from
    };
    let (mut bad, mut good) = (Vec::new(), Vec::new());
    for verdict in then {
        let before = now
            .iter()
            .find(|before| same(before, verdict))
            .map(|before| &before.outcome);
        let is_new = before.is_none_or(|before| word(before) != word(&verdict.outcome));
        let Some(why) = why(&verdict.outcome) else {
            if is_new && before.is_some() {
                good.push(reason(verdict, "it would be met"));
            }
            continue;
        };
        if is_new {
            bad.push(reason(verdict, why));
        }
    }
    for verdict in now {
        if why(&verdict.outcome).is_some() && !then.iter().any(|after| same(after, verdict)) {
            good.push(reason(verdict, "no policy would ask for it any more"));
        }
    }
    bad.extend(good);
    bad
}

fn reason(verdict: &evaluate::Verdict, why: &str) -> Reason {
    Reason {
        subject: verdict.subject.clone(),
        why: why.to_owned(),
    }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Compliant => "compliant",
        Outcome::Noncompliant { .. } => "noncompliant",
        Outcome::Unknown { .. } => "unknown",
    }
}

fn why(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::Compliant => None,
        Outcome::Noncompliant { reason } | Outcome::Unknown { reason } => Some(reason),
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
