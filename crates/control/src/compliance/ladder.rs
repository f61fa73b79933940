//! The pure part of violations: which open, go on and end by a verdict, and when the next step of a ladder is due.

use std::{collections::BTreeMap, sync::Arc};

use muster_model::{
    DeviceId, PolicyId, Timestamp, ViolationId,
    evaluate::{Evaluation, Outcome},
    rules::{Remediation, Rule, Severity},
};

use super::ActivePolicy;

/// What a setting that is not in force counts as, and a rule that says nothing of it.
pub const SEVERITY_OTHERWISE: Severity = Severity::Medium;
/// How much of a reason is kept.
const REASON_CHARS_MAX: usize = 512;

/// Something that a device does not comply with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub id: ViolationId,
    pub device: DeviceId,
    pub policy: PolicyId,
    /// A setting's key or a rule's name.
    pub subject: String,
    pub severity: Severity,
    pub reason: String,
    pub since: Timestamp,
    /// Nobody knows since then whether it goes on; its ladder stands still.
    pub unknown_since: Option<Timestamp>,
    pub remediation: Option<Remediation>,
    /// When the grace of its rule ends, where the rule gives one.
    pub grace_until: Option<Timestamp>,
    pub steps_done: u32,
    pub next_at: Option<Timestamp>,
    /// When administrators were told.
    pub escalated_at: Option<Timestamp>,
    pub resolved_at: Option<Timestamp>,
}

impl Violation {
    /// Whether the rule's grace has not ended: the device is noncompliant, and nothing is done about it yet.
    pub fn in_grace(&self, now: Timestamp) -> bool {
        self.resolved_at.is_none() && self.grace_until.is_some_and(|until| now < until)
    }

    /// When the step after those that were done is due, if there is one.
    pub fn due_at(&self) -> Option<Timestamp> {
        let remediation = self.remediation.as_ref()?;
        let step = remediation.steps.get(usize::try_from(self.steps_done).ok()?)?;
        self.unknown_since
            .is_none()
            .then(|| self.since.plus(remediation.due_after(step)))
    }

    fn follow(&mut self, found: &Found) {
        self.severity = found.severity;
        self.reason.clone_from(&found.reason);
        self.unknown_since = None;
        self.take_ladder(found.remediation.as_ref());
    }

    fn take_ladder(&mut self, remediation: Option<&Remediation>) {
        if self.remediation.as_ref() != remediation {
            self.remediation = remediation.cloned();
            self.next_at = self.due_at();
        } else if self.next_at.is_none() {
            self.next_at = self.due_at();
        }
        let grace = remediation.filter(|remediation| remediation.grace_seconds.is_some());
        self.grace_until = grace.map(|remediation| self.since.plus(remediation.grace()));
    }
}

/// A verdict of noncompliance with what its rule says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub severity: Severity,
    pub reason: String,
    pub remediation: Option<Remediation>,
}

/// One subject's verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judged {
    Compliant,
    Unknown,
    Violated(Found),
}

/// The verdicts by policy and subject. A setting and a rule of one policy with the same name are one subject: the worse
/// verdict counts.
pub type Verdicts = BTreeMap<(PolicyId, String), Judged>;

/// What becomes of a device's violations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Open(PolicyId, String, Found),
    Update(Violation),
    Resolve(Violation),
}

/// Gathers the verdicts of an evaluation.
pub fn verdicts(evaluation: &Evaluation, policies: &[Arc<ActivePolicy>]) -> Verdicts {
    let mut verdicts = Verdicts::new();
    for verdict in &evaluation.verdicts {
        let judged = match &verdict.outcome {
            Outcome::Compliant => Judged::Compliant,
            Outcome::Unknown { .. } => Judged::Unknown,
            Outcome::Noncompliant { reason } => {
                let rule = rule_of(policies, verdict.from, &verdict.subject);
                Judged::Violated(Found {
                    severity: rule.and_then(|rule| rule.severity).unwrap_or(SEVERITY_OTHERWISE),
                    reason: reason.chars().take(REASON_CHARS_MAX).collect(),
                    remediation: rule.and_then(|rule| rule.remediation.clone()),
                })
            }
        };
        let subject = (verdict.from, verdict.subject.clone());
        match verdicts.get(&subject) {
            Some(other) if rank(other) > rank(&judged) => {}
            _ => drop(verdicts.insert(subject, judged)),
        }
    }
    verdicts
}

/// Compares what is open with what was found. An open violation of which nobody knows now stays open, and its ladder stands
/// still: otherwise every new version of a policy would begin the ladder anew.
pub fn compare(open: Vec<Violation>, verdicts: &Verdicts, now: Timestamp) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut known = std::collections::BTreeSet::new();
    for violation in open {
        let subject = (violation.policy, violation.subject.clone());
        let judged = verdicts.get(&subject);
        known.insert(subject);
        let mut after = violation.clone();
        match judged {
            None | Some(Judged::Compliant) => {
                steps.push(Step::Resolve(violation));
                continue;
            }
            Some(Judged::Unknown) => {
                after.unknown_since = violation.unknown_since.or(Some(now));
                after.next_at = None;
            }
            Some(Judged::Violated(found)) => after.follow(found),
        }
        if after != violation {
            steps.push(Step::Update(after));
        }
    }
    for (subject, judged) in verdicts {
        if let Judged::Violated(found) = judged
            && !known.contains(subject)
        {
            steps.push(Step::Open(subject.0, subject.1.clone(), found.clone()));
        }
    }
    steps
}

/// A violation that begins now.
pub fn begin(
    id: ViolationId,
    device: DeviceId,
    policy: PolicyId,
    subject: String,
    found: &Found,
    now: Timestamp,
) -> Violation {
    let mut violation = Violation {
        id,
        device,
        policy,
        subject,
        severity: found.severity,
        reason: found.reason.clone(),
        since: now,
        unknown_since: None,
        remediation: None,
        grace_until: None,
        steps_done: 0,
        next_at: None,
        escalated_at: None,
        resolved_at: None,
    };
    violation.take_ladder(found.remediation.as_ref());
    violation
}

fn rule_of<'a>(policies: &'a [Arc<ActivePolicy>], policy: PolicyId, subject: &str) -> Option<&'a Rule> {
    let policy = policies.iter().find(|active| active.policy == policy)?;
    policy.rules.iter().find(|rule| rule.name.as_str() == subject)
}

fn rank(judged: &Judged) -> u8 {
    match judged {
        Judged::Compliant => 0,
        Judged::Unknown => 1,
        Judged::Violated(_) => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const LADDER: &str = r#"{"grace_seconds":100,"steps":[{"action":"notify"},
        {"after_seconds":50,"action":"reapply"},{"after_seconds":50,"action":"message","text":"hello"}]}"#;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds)
    }

    fn found(ladder: Option<&str>) -> Found {
        Found {
            severity: Severity::High,
            reason: "it is so".to_owned(),
            remediation: ladder.map(|text| serde_json::from_str(text).expect("it is a ladder")),
        }
    }

    fn policy() -> PolicyId {
        PolicyId::from_uuid(Uuid::from_u128(1))
    }

    fn begun(ladder: Option<&str>) -> Violation {
        begin(
            ViolationId::from_uuid(Uuid::from_u128(7)),
            DeviceId::from_uuid(Uuid::from_u128(2)),
            policy(),
            "rule".to_owned(),
            &found(ladder),
            at(1000),
        )
    }

    fn judged(judged: Judged) -> Verdicts {
        Verdicts::from([((policy(), "rule".to_owned()), judged)])
    }

    #[test]
    fn steps_are_due_after_the_grace_in_their_order() {
        let mut violation = begun(Some(LADDER));
        assert!(violation.in_grace(at(1099)) && !violation.in_grace(at(1100)));
        let mut due = Vec::new();
        while let Some(next) = violation.due_at() {
            due.push(next);
            violation.steps_done += 1;
        }
        assert_eq!(due, [at(1100), at(1150), at(1150)]);
        assert_eq!((begun(None).next_at, begun(None).grace_until), (None, None));
    }

    #[test]
    fn an_unknown_verdict_ends_nothing_and_stops_the_ladder() {
        let violation = begun(Some(LADDER));
        let steps = compare(vec![violation.clone()], &judged(Judged::Unknown), at(1010));
        let [Step::Update(waiting)] = &steps[..] else {
            panic!("it is updated: {steps:?}");
        };
        assert_eq!((waiting.unknown_since, waiting.next_at), (Some(at(1010)), None));
        assert_eq!(waiting.since, violation.since);
        let again = judged(Judged::Violated(found(Some(LADDER))));
        let steps = compare(vec![waiting.clone()], &again, at(1020));
        assert_eq!(steps, [Step::Update(violation)]);
    }

    #[test]
    fn a_postponed_step_stays_postponed_while_its_ladder_is_the_same() {
        let mut violation = begun(Some(LADDER));
        violation.next_at = Some(at(9000));
        let same = judged(Judged::Violated(found(Some(LADDER))));
        assert_eq!(compare(vec![violation.clone()], &same, at(1200)), []);
        let other = judged(Judged::Violated(found(Some(
            r#"{"steps":[{"action":"notify"}]}"#,
        ))));
        let steps = compare(vec![violation], &other, at(1200));
        let [Step::Update(changed)] = &steps[..] else {
            panic!("it is updated: {steps:?}");
        };
        assert_eq!((changed.next_at, changed.grace_until), (Some(at(1000)), None));
    }

    fn any_judged() -> impl Strategy<Value = Judged> {
        prop_oneof![
            Just(Judged::Compliant),
            Just(Judged::Unknown),
            (0..2_u8).prop_map(|ladder| Judged::Violated(found((ladder == 1).then_some(LADDER)))),
        ]
    }

    proptest! {
        /// Whatever verdicts follow each other: open is what is violated, and what was open and is unknown now.
        #[test]
        fn what_is_open_follows_the_verdicts(
            rounds in prop::collection::vec(prop::collection::btree_map(0..4_u8, any_judged(), 0..4), 1..12),
        ) {
            let mut open: Vec<Violation> = Vec::new();
            for (round, verdicts) in rounds.into_iter().enumerate() {
                let now = at(1000 + i64::try_from(round).expect("it is small"));
                let verdicts: Verdicts = verdicts
                    .into_iter()
                    .map(|(subject, judged)| ((policy(), subject.to_string()), judged))
                    .collect();
                let before: Vec<String> = open.iter().map(|violation| violation.subject.clone()).collect();
                for step in compare(open.clone(), &verdicts, now) {
                    match step {
                        Step::Open(policy, subject, found) => {
                            let id = ViolationId::generate(now, [u8::try_from(open.len()).expect("it is small"); 10]);
                            open.push(begin(id, DeviceId::from_uuid(Uuid::nil()), policy, subject, &found, now));
                        }
                        Step::Update(after) => {
                            let place = open.iter().position(|one| one.subject == after.subject).expect("it is open");
                            prop_assert_eq!(open[place].since, after.since);
                            open[place] = after;
                        }
                        Step::Resolve(violation) => open.retain(|one| one.subject != violation.subject),
                    }
                }
                for subject in (0..4_u8).map(|subject| subject.to_string()) {
                    let expected = match verdicts.get(&(policy(), subject.clone())) {
                        Some(Judged::Violated(_)) => true,
                        Some(Judged::Unknown) => before.contains(&subject),
                        Some(Judged::Compliant) | None => false,
                    };
                    let found: Vec<&Violation> = open.iter().filter(|one| one.subject == subject).collect();
                    prop_assert_eq!(found.len(), usize::from(expected));
                    for violation in found {
                        prop_assert_eq!(violation.next_at, violation.due_at());
                        prop_assert!(violation.next_at.is_none_or(|next| next >= violation.since.plus(Duration::ZERO)));
                    }
                }
            }
        }
    }
}
