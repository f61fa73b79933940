//! Rules over a fleet on one core, in this process: what the evaluator costs, without wire or database, beside a function
//! that is written by hand for the same ten questions.
//!
//! Devices are drawn batch by batch, so that a fleet of any size fits into memory; only answering is timed.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration, Instant};

use muster_model::evaluate::{EvaluatedPolicy, evaluate};
use muster_model::facts::Package;
use muster_model::rules::{Rule, check_rules, compare_versions};
use muster_model::settings::Settings;
use muster_model::subject::{DeviceAttributes, Labels, OwnerAttributes, Subject};
use muster_model::{AttestationLevel, ComplianceState, Ownership, PolicyId, Timestamp, facts::Facts};
use serde::Serialize;

use crate::FarmError;
use crate::draw::Draw;
use crate::plan::DevicePlan;

use super::SEED;

/// Devices that are drawn, then answered, at a time.
const BATCH: u32 = 1000;
/// Packages that every device has besides those of its model.
const MORE_PACKAGES: usize = 200;
/// When the questions are asked.
const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);
const DEPARTMENTS: &[&str] = &["sales", "it", "logistics", "finance"];

/// Five checks and five expressions.
const RULES: &str = r#"[
    {"name":"1","check":{"fact":"os.version","op":"ge","value":"12.5"}},
    {"name":"2","check":{"fact":"disks.all_encrypted","op":"eq","value":true}},
    {"name":"3","check":{"fact":"users.administrators","op":"le","value":1}},
    {"name":"4","check":{"fact":"packages","op":"contains","value":"openssl"}},
    {"name":"5","check":{"fact":"hardware.memory_bytes","op":"ge","value":8589934592}},
    {"name":"6","expression":"device.platform != \"linux\" || os.version >= version(\"12.5\")"},
    {"name":"7","expression":"device.ownership == \"company\" && has(labels.department)"},
    {"name":"8","expression":"!(\"telnet\" in packages) && users.all(user, user != \"guest\")"},
    {"name":"9","expression":"now - facts.collected_at < duration(\"24h\") && now - device.enrolled_at > duration(\"1h\")"},
    {"name":"10","expression":"labels.department in [\"sales\", \"it\"] ? packages[\"openssl\"] >= version(\"3.0.17\") : users.administrators <= 2"}
]"#;
const RULES_COUNT: usize = 10;

/// Seconds for the whole fleet.
#[derive(Debug, Serialize)]
pub struct ComplianceReport {
    pub devices: u32,
    pub rules: usize,
    /// The evaluator as the server calls it: ten verdicts with their reasons, and the device's one word.
    pub evaluated_seconds: f64,
    /// The ten answers alone.
    pub answered_seconds: f64,
    /// The same ten answers of the function that is written by hand.
    pub by_hand_seconds: f64,
    pub compliant: u32,
}

/// A simulated device with what the server would know of it.
struct Drawn {
    plan: DevicePlan,
    facts: Facts,
    labels: Labels,
    owner: String,
}

/// Answers every rule for every device in three ways, which must agree.
pub fn load_compliance(devices: u32) -> Result<ComplianceReport, FarmError> {
    let load = |error: &dyn std::fmt::Display| FarmError::Load(error.to_string());
    let rules: Vec<Rule> = serde_json::from_str(RULES).map_err(|error| load(&error))?;
    check_rules(&rules).map_err(|error| load(&error))?;
    let (mut report, mut filler) = (
        ComplianceReport {
            devices,
            rules: rules.len(),
            evaluated_seconds: 0.0,
            answered_seconds: 0.0,
            by_hand_seconds: 0.0,
            compliant: 0,
        },
        Filler::default(),
    );
    for first in (0..devices).step_by(BATCH as usize) {
        let last = devices.min(first.saturating_add(BATCH));
        let batch: Vec<Drawn> = (first..last).map(|index| draw(index, filler.take())).collect();
        let subjects: Vec<Subject<'_>> = batch.iter().map(Drawn::subject).collect();
        let (answered, answers) = timed(|| subjects.iter().map(|subject| answer(&rules, subject)).collect());
        let (by_hand, expected): (_, Vec<_>) = timed(|| subjects.iter().map(answer_by_hand).collect());
        let (evaluated, states) = timed(|| states(&rules, &subjects));
        let answers: Vec<[Option<bool>; RULES_COUNT]> = answers;
        if let Some(index) = (0..answers.len()).find(|index| answers[*index] != expected[*index]) {
            let detail = format!(
                "device {index} after {first}: {:?}, by hand {:?}",
                answers[index], expected[index]
            );
            return Err(FarmError::Load(detail));
        }
        report.answered_seconds += answered.as_secs_f64();
        report.by_hand_seconds += by_hand.as_secs_f64();
        report.evaluated_seconds += evaluated.as_secs_f64();
        report.compliant += states?;
        batch
            .into_iter()
            .for_each(|drawn| filler.put_back(drawn.facts.packages));
    }
    Ok(report)
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let started = Instant::now();
    let result = black_box(work());
    (started.elapsed(), result)
}

fn answer(rules: &[Rule], subject: &Subject<'_>) -> [Option<bool>; RULES_COUNT] {
    let mut answers = [None; RULES_COUNT];
    for (answer, rule) in answers.iter_mut().zip(rules) {
        *answer = rule.holds(subject, NOW);
    }
    answers
}

/// How many devices comply, by the evaluator that the server calls.
fn states(rules: &[Rule], subjects: &[Subject<'_>]) -> Result<u32, FarmError> {
    let label = "1"
        .parse()
        .map_err(|error: muster_model::text::InvalidText| FarmError::Load(error.to_string()))?;
    let (settings, in_force) = (Settings::default(), BTreeMap::new());
    let policies = [EvaluatedPolicy {
        policy: PolicyId::generate(NOW, [0; 10]),
        version: &label,
        generation: 1,
        settings: &settings,
        rules,
    }];
    let complies = |subject: &&Subject<'_>| {
        black_box(evaluate(&policies, subject, &in_force, NOW)).compliance == ComplianceState::Compliant
    };
    Ok(u32::try_from(subjects.iter().filter(complies).count()).unwrap_or(u32::MAX))
}

/// The ten questions in Rust, as somebody would write them who knows them beforehand.
fn answer_by_hand(subject: &Subject<'_>) -> [Option<bool>; RULES_COUNT] {
    let (facts, device, labels) = match (subject.facts, &subject.device, subject.labels) {
        (Some(facts), Some(device), Some(labels)) => (facts, device, labels),
        _ => return [None; RULES_COUNT],
    };
    let has = |name: &str| facts.packages.iter().any(|package| package.name == name);
    let is_recent = facts
        .os
        .version
        .as_deref()
        .map(|version| compare_versions(version, "12.5").is_ge());
    let mut fixed = facts.disks.iter().filter(|disk| !disk.removable);
    let administrators = facts.users.iter().filter(|user| user.administrator).count();
    let openssl = || {
        let mut installed = facts
            .packages
            .iter()
            .filter(|package| package.name == "openssl")
            .peekable();
        installed.peek()?;
        Some(installed.all(|package| compare_versions(&package.version, "3.0.17").is_ge()))
    };
    [
        is_recent,
        Some(fixed.all(|disk| disk.encrypted == Some(true))),
        Some(administrators <= 1),
        Some(has("openssl")),
        facts.hardware.memory_bytes.map(|bytes| bytes >= 8 << 30),
        if subject.platform.as_str() == "linux" {
            is_recent
        } else {
            Some(true)
        },
        Some(device.ownership == Ownership::Company && labels.get("department").is_some()),
        Some(!has("telnet") && facts.users.iter().all(|user| user.name != "guest")),
        Some(
            NOW.since(facts.collected_at) < Duration::from_secs(86_400)
                && NOW.since(device.enrolled_at) > Duration::from_secs(3600),
        ),
        match labels.get("department") {
            Some("sales" | "it") => openssl(),
            Some(_) => Some(administrators <= 2),
            None => None,
        },
    ]
}

fn draw(index: u32, more: Vec<Package>) -> Drawn {
    let plan = DevicePlan::new(SEED, index);
    let mut draw = Draw::new(SEED, index, "labels");
    let mut labels = Labels::default();
    if draw.fraction() < 0.9
        && let (Ok(key), Ok(value)) = ("department".parse(), draw.one_of(DEPARTMENTS).parse())
    {
        // The set is empty: it takes one.
        let _ = labels.set(key, value);
    }
    let age = Duration::from_secs(draw.below(90_000) as u64);
    let mut facts = plan.facts(NOW.minus(age));
    let of_the_model = std::mem::replace(&mut facts.packages, more);
    facts.packages.extend(of_the_model);
    Drawn {
        owner: plan.owner(),
        plan,
        facts,
        labels,
    }
}

impl Drawn {
    fn subject(&self) -> Subject<'_> {
        Subject {
            platform: self.plan.model.platform,
            facts: Some(&self.facts),
            device: Some(DeviceAttributes {
                name: &self.owner,
                model: Some(self.plan.model.name),
                vendor: Some(self.plan.model.vendor),
                serial: None,
                owner: Some(&self.owner),
                ownership: Ownership::Company,
                attestation: AttestationLevel::Unattested,
                enrolled_at: NOW.minus(Duration::from_secs(86_400)),
            }),
            labels: Some(&self.labels),
            owner: Some(OwnerAttributes::default()),
            owner_groups: Some(&[]),
            signals: None,
        }
    }
}

/// Package lists that go from one batch to the next: making them would take longer than answering.
#[derive(Default)]
struct Filler(Vec<Vec<Package>>);

impl Filler {
    fn take(&mut self) -> Vec<Package> {
        let package = |number: usize| Package {
            name: format!("package-{number:04}"),
            version: format!("1.{number}-2"),
        };
        self.0
            .pop()
            .unwrap_or_else(|| (0..MORE_PACKAGES).map(package).collect())
    }

    fn put_back(&mut self, mut packages: Vec<Package>) {
        packages.truncate(MORE_PACKAGES);
        self.0.push(packages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_ways_of_answering_agree_and_some_devices_comply() {
        let report = load_compliance(2 * BATCH + 1).expect("the answers agree");
        assert_eq!(report.rules, RULES_COUNT);
        assert!((1..report.devices).contains(&report.compliant), "{report:?}");
    }
}
