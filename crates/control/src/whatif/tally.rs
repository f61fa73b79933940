//! What a page of devices adds up to, within bounds.

use std::collections::BTreeMap;

use muster_model::{
    ComplianceState, DeviceId, Platform,
    evaluate::Conflict,
    settings::{SettingValue, Support},
};

use super::rules::{Case, Judged, Reason, SettingChange};

/// Pairs of values that are counted apart for one setting; further ones are counted together.
pub const PAIRS_PER_SETTING_MAX: usize = 20;
/// Conflicts that are told apart.
pub const CONFLICTS_MAX: usize = 200;
/// Reasons that are shown of one device.
pub const REASONS_MAX: usize = 8;

/// Which list a device is shown in. A device can be in two: its settings change, and it becomes another word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Changes,
    BecomesNoncompliant,
    BecomesCompliant,
    BecomesUnknown,
}

/// A device that is shown by name.
#[derive(Debug, Clone)]
pub struct Example {
    pub id: DeviceId,
    pub name: String,
    pub platform: Platform,
    pub now: ComplianceState,
    pub then: ComplianceState,
    pub changes: Vec<SettingChange>,
    pub reasons: Vec<Reason>,
}

/// From one value to another; `None` where nobody asks for any.
pub type Pair = (Option<SettingValue>, Option<SettingValue>);

/// The devices that one setting changes for.
#[derive(Debug, Default)]
pub struct SettingTally {
    pub devices: u64,
    pub pairs: BTreeMap<Pair, u64>,
    /// Devices whose pair of values is past the bound.
    pub other: u64,
}

/// How well a platform carries a setting, as a word that orders and its reason.
pub type SupportKey = (&'static str, Platform, &'static str, &'static str);

/// Counts over devices.
#[derive(Debug)]
pub struct Tally {
    examples_max: usize,
    pub devices: u64,
    pub targeted: u64,
    pub gain: u64,
    pub lose: u64,
    pub change: u64,
    pub transitions: BTreeMap<(ComplianceState, ComplianceState), u64>,
    pub settings: BTreeMap<&'static str, SettingTally>,
    pub support: BTreeMap<SupportKey, u64>,
    /// By its text form, which tells two apart.
    pub conflicts: BTreeMap<String, (Conflict, u64)>,
    /// Devices in conflicts past the bound.
    pub other_conflicts: u64,
    pub examples: BTreeMap<Class, Vec<Example>>,
}

/// A device as the tally needs it.
#[derive(Debug, Clone, Copy)]
pub struct Counted<'a> {
    pub id: DeviceId,
    pub name: &'a str,
    pub platform: Platform,
    pub is_targeted: bool,
}

impl Tally {
    pub fn new(examples_max: usize) -> Tally {
        Tally {
            examples_max,
            devices: 0,
            targeted: 0,
            gain: 0,
            lose: 0,
            change: 0,
            transitions: BTreeMap::new(),
            settings: BTreeMap::new(),
            support: BTreeMap::new(),
            conflicts: BTreeMap::new(),
            other_conflicts: 0,
            examples: BTreeMap::new(),
        }
    }

    /// Counts a device that nothing becomes different for.
    pub fn add_untouched(&mut self, is_targeted: bool) {
        self.devices += 1;
        self.targeted += u64::from(is_targeted);
    }

    /// Counts a device that has the policy, or would have it.
    pub fn add(
        &mut self,
        device: Counted<'_>,
        case: &Case,
        judged: &Judged,
        support: impl Iterator<Item = (&'static str, Support)>,
    ) {
        self.devices += 1;
        self.targeted += u64::from(device.is_targeted);
        self.gain += u64::from(case.gets && !case.holds);
        self.lose += u64::from(case.holds && !case.gets);
        self.change += u64::from(!case.changes.is_empty());
        *self.transitions.entry((judged.now, judged.then)).or_default() += 1;
        for change in &case.changes {
            self.settings.entry(change.key).or_default().add(change);
        }
        for (key, support) in support {
            let (word, why) = support_words(support);
            *self.support.entry((key, device.platform, word, why)).or_default() += 1;
        }
        for conflict in &case.conflicts {
            self.add_conflict(conflict);
        }
        self.show(device, case, judged);
    }

    fn add_conflict(&mut self, conflict: &Conflict) {
        let text = serde_json::to_string(conflict).expect("a conflict has text keys only");
        if let Some((_, devices)) = self.conflicts.get_mut(&text) {
            *devices += 1;
        } else if self.conflicts.len() < CONFLICTS_MAX {
            self.conflicts.insert(text, (conflict.clone(), 1));
        } else {
            self.other_conflicts += 1;
        }
    }

    fn show(&mut self, device: Counted<'_>, case: &Case, judged: &Judged) {
        let changes = (!case.changes.is_empty()).then_some(Class::Changes);
        for class in changes.into_iter().chain(class_of(judged)) {
            let shown = self.examples.entry(class).or_default();
            if shown.len() < self.examples_max {
                shown.push(Example {
                    id: device.id,
                    name: device.name.to_owned(),
                    platform: device.platform,
                    now: judged.now,
                    then: judged.then,
                    changes: case.changes.clone(),
                    reasons: judged.reasons.iter().take(REASONS_MAX).cloned().collect(),
                });
            }
        }
    }

    /// Devices that would become this and are something else now.
    pub fn becoming(&self, state: ComplianceState) -> u64 {
        let becoming = |((now, then), devices): (&(ComplianceState, ComplianceState), &u64)| {
            (*then == state && now != then).then_some(*devices)
        };
        self.transitions.iter().filter_map(becoming).sum()
    }
}

impl SettingTally {
    fn add(&mut self, change: &SettingChange) {
        self.devices += 1;
        let pair = (change.from.clone(), change.to.clone());
        if let Some(devices) = self.pairs.get_mut(&pair) {
            *devices += 1;
        } else if self.pairs.len() < PAIRS_PER_SETTING_MAX {
            self.pairs.insert(pair, 1);
        } else {
            self.other += 1;
        }
    }
}

fn class_of(judged: &Judged) -> Option<Class> {
    if judged.now == judged.then {
        return None;
    }
    match judged.then {
        ComplianceState::Noncompliant => Some(Class::BecomesNoncompliant),
        ComplianceState::Compliant => Some(Class::BecomesCompliant),
        ComplianceState::Unknown => Some(Class::BecomesUnknown),
        ComplianceState::Pending => None,
    }
}

fn support_words(support: Support) -> (&'static str, &'static str) {
    match support {
        Support::Exact => ("exact", ""),
        Support::Weaker(why) => ("weaker", why),
        Support::NotExpressible(why) => ("not_expressible", why),
        Support::NeedsAgent(why) => ("needs_agent", why),
    }
}
