//! What goes wrong with which device: decided by the seed, never by timing.
//!
//! A device has one draw per kind of fault, and a rate is a threshold over it: raising a rate adds devices and takes none
//! away, so that the phases of a scenario are comparable.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use muster_model::settings::{SettingValue, Support, definition};
use muster_model::{Ownership, Platform, SettingReport, SettingState};
use serde::Deserialize;

use crate::draw::Draw;
use crate::models::{MODELS, Model};

/// Delays of a slow device: before it applies a policy or executes a command.
const SLOW_DELAY_MILLIS: std::ops::Range<u64> = 500..5000;

/// How much goes wrong. Rates are parts of the fleet, or of a device's exchanges, from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Conditions {
    /// Devices on which some setting does not take effect.
    pub fail_rate: f64,
    /// Devices that are enrolled and never heard of again.
    pub silent_rate: f64,
    /// Devices that are away and will come back.
    pub offline: f64,
    /// What fails on some models only.
    pub faults: Vec<ModelFault>,
}

/// A setting that does not take effect on a part of the devices of one model.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFault {
    /// The model's name, as its facts say it.
    pub model: String,
    /// The key of the setting.
    pub setting: String,
    pub fail_rate: f64,
}

impl ModelFault {
    /// Reads `MODEL:SETTING=RATE`, for command lines.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (what, rate) = text.rsplit_once('=').ok_or("write MODEL:SETTING=RATE")?;
        let (model, setting) = what.rsplit_once(':').ok_or("write MODEL:SETTING=RATE")?;
        let fail_rate: f64 = rate.parse().map_err(|_| "not a number".to_owned())?;
        let fault = Self {
            model: model.to_owned(),
            setting: setting.to_owned(),
            fail_rate,
        };
        fault.check().map(|()| fault)
    }

    /// Refuses what cannot happen: another rate, a model or a setting that does not exist.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.fail_rate) {
            return Err("a rate is from 0 to 1".to_owned());
        }
        if !MODELS.iter().any(|model| model.name == self.model) {
            let names: Vec<_> = MODELS.iter().map(|model| model.name).collect();
            return Err(format!(
                "there is no model {}; there are {}",
                self.model,
                names.join(", ")
            ));
        }
        match definition(&self.setting) {
            Some(_) => Ok(()),
            None => Err(format!("there is no setting {}", self.setting)),
        }
    }

    fn hits(&self, seed: u64, index: u32, model: &Model, key: &str) -> bool {
        let topic = format!("fault {key}");
        self.model == model.name && self.setting == key && happens(seed, index, &topic, self.fail_rate)
    }
}

impl Conditions {
    /// Nothing goes wrong.
    pub const CALM: Self = Self {
        fail_rate: 0.0,
        silent_rate: 0.0,
        offline: 0.0,
        faults: Vec::new(),
    };

    /// True where the device does not speak to the server.
    pub fn is_away(&self, seed: u64, index: u32) -> bool {
        self.is_silent(seed, index) || happens(seed, index, "offline", self.offline)
    }

    /// True where the device is one of the silent ones.
    pub fn is_silent(&self, seed: u64, index: u32) -> bool {
        happens(seed, index, "silent", self.silent_rate)
    }

    /// True where some setting fails on the device.
    pub fn is_failing(&self, seed: u64, index: u32) -> bool {
        happens(seed, index, "fail", self.fail_rate)
    }
}

/// How the wire and the devices misbehave, and whose they are: the same for the whole run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Disorder {
    /// Commands that meet a busy device, which answers not now.
    pub not_now_rate: f64,
    /// Devices that are their users' own.
    pub personal_rate: f64,
    /// Devices that take their time.
    pub slow_rate: f64,
    /// Check-ins that are sent twice.
    pub duplicate_rate: f64,
    /// Check-ins whose answer arrives after the answer to the next one.
    pub reorder_rate: f64,
}

impl Disorder {
    /// Everything in order.
    pub const NONE: Self = Self {
        not_now_rate: 0.0,
        personal_rate: 0.0,
        slow_rate: 0.0,
        duplicate_rate: 0.0,
        reorder_rate: 0.0,
    };
    /// What a network with phones in it does.
    pub const TYPICAL: Self = Self {
        not_now_rate: 0.0,
        personal_rate: 0.0,
        slow_rate: 0.05,
        duplicate_rate: 0.02,
        reorder_rate: 0.02,
    };

    /// How long the device takes for what others do at once.
    pub fn delay(&self, seed: u64, index: u32) -> Option<Duration> {
        let mut draw = Draw::new(seed, index, "slow");
        let span = SLOW_DELAY_MILLIS.end - SLOW_DELAY_MILLIS.start;
        (draw.fraction() < self.slow_rate)
            .then(|| Duration::from_millis(SLOW_DELAY_MILLIS.start + draw.number() % span))
    }

    /// Whose the device is.
    pub fn ownership(&self, seed: u64, index: u32) -> Ownership {
        if happens(seed, index, "ownership", self.personal_rate) {
            Ownership::Personal
        } else {
            Ownership::Company
        }
    }

    /// Whether the device is busy when it is to carry out its n-th command.
    pub fn is_not_now(&self, seed: u64, index: u32, number: u64) -> bool {
        let seed = seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        happens(seed, index, "not now", self.not_now_rate)
    }

    /// What happens to the device's n-th exchange.
    pub fn exchange(&self, seed: u64, index: u32, number: u64) -> Exchange {
        let fate = Draw::new(
            seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            index,
            "exchange",
        )
        .fraction();
        if fate < self.duplicate_rate {
            Exchange::Duplicated
        } else if fate < self.duplicate_rate + self.reorder_rate {
            Exchange::Reordered
        } else {
            Exchange::Plain
        }
    }
}

/// The fate of one check-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Question, answer.
    Plain,
    /// The same question twice, both answers taken.
    Duplicated,
    /// Two questions; the answer to the first is taken last.
    Reordered,
}

fn happens(seed: u64, index: u32, topic: &str, rate: f64) -> bool {
    Draw::new(seed, index, topic).fraction() < rate
}

/// What the device reports of each setting: what its platform can do, and what fails on this device.
pub fn apply(
    seed: u64,
    index: u32,
    model: &Model,
    settings: &BTreeMap<String, SettingValue>,
    conditions: &Conditions,
) -> BTreeMap<String, SettingReport> {
    let failing = if conditions.is_failing(seed, index) {
        failing_keys(seed, index, settings)
    } else {
        BTreeSet::new()
    };
    settings
        .iter()
        .map(|(key, value)| {
            let is_faulty = || {
                conditions
                    .faults
                    .iter()
                    .any(|fault| fault.hits(seed, index, model, key))
            };
            let report = if failing.contains(key.as_str()) || is_faulty() {
                report(
                    SettingState::Failed,
                    None,
                    Some("the simulated device was told to fail this setting"),
                )
            } else {
                supported(model.platform, key, value)
            };
            (key.clone(), report)
        })
        .collect()
}

fn supported(platform: Platform, key: &str, value: &SettingValue) -> SettingReport {
    match definition(key).map(|definition| definition.support_on(platform)) {
        Some(Support::Exact | Support::NeedsAgent(_)) => report(SettingState::Verified, Some(value), None),
        Some(Support::Weaker(why)) => report(SettingState::Weaker, Some(value), Some(why)),
        Some(Support::NotExpressible(why)) => report(SettingState::NotExpressible, None, Some(why)),
        None => report(
            SettingState::Failed,
            None,
            Some("the setting is not known to this agent"),
        ),
    }
}

fn report(state: SettingState, observed: Option<&SettingValue>, detail: Option<&str>) -> SettingReport {
    SettingReport {
        state,
        observed: observed.cloned(),
        detail: detail.map(str::to_owned),
    }
}

/// At least one of the settings that can fail, chosen for this device.
fn failing_keys(seed: u64, index: u32, settings: &BTreeMap<String, SettingValue>) -> BTreeSet<&str> {
    let drawn = |key: &str| Draw::new(seed, index, key).fraction();
    let mut keys: Vec<_> = settings.keys().map(|key| (drawn(key), key.as_str())).collect();
    keys.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    let certain = keys.first().map(|(_, key)| *key);
    keys.into_iter()
        .filter(|(draw, _)| *draw < 0.1)
        .map(|(_, key)| key)
        .chain(certain)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(platform: Platform) -> &'static Model {
        let found = MODELS.iter().find(|model| model.platform == platform);
        found.expect("every platform has a model")
    }

    fn settings() -> BTreeMap<String, SettingValue> {
        BTreeMap::from([
            ("camera.allowed".to_owned(), SettingValue::Bool(false)),
            ("passcode.min_length".to_owned(), SettingValue::Int(12)),
            ("screen_capture.allowed".to_owned(), SettingValue::Bool(false)),
        ])
    }

    #[test]
    fn rates_are_met_and_raising_one_only_adds_devices() {
        let silent = |rate: f64| -> BTreeSet<u32> {
            let conditions = Conditions {
                silent_rate: rate,
                ..Conditions::CALM
            };
            (0..10_000)
                .filter(|index| conditions.is_silent(5, *index))
                .collect()
        };
        let (few, many) = (silent(0.1), silent(0.3));
        assert!((900..1100).contains(&few.len()) && (2800..3200).contains(&many.len()));
        assert!(few.is_subset(&many));
        assert!(silent(0.0).is_empty());
        assert_eq!(silent(1.0).len(), 10_000);
    }

    #[test]
    fn the_same_seed_has_the_same_faults() {
        let conditions = Conditions {
            fail_rate: 0.3,
            ..Conditions::CALM
        };
        for index in 0..500 {
            let run = || {
                let reports = apply(9, index, model(Platform::Linux), &settings(), &conditions);
                let fates: Vec<_> = (0..20)
                    .map(|number| Disorder::TYPICAL.exchange(9, index, number))
                    .collect();
                (reports, fates, Disorder::TYPICAL.delay(9, index))
            };
            assert_eq!(run(), run());
        }
    }

    #[test]
    fn a_failing_device_fails_something_and_a_healthy_one_nothing() {
        let conditions = Conditions {
            fail_rate: 0.3,
            ..Conditions::CALM
        };
        let mut failing = 0;
        for index in 0..1000 {
            let reports = apply(1, index, model(Platform::Linux), &settings(), &conditions);
            assert_eq!(reports.len(), 3);
            let has_failed = reports
                .values()
                .any(|report| report.state == SettingState::Failed);
            assert_eq!(has_failed, conditions.is_failing(1, index));
            failing += usize::from(has_failed);
        }
        assert!((250..350).contains(&failing), "{failing}");
    }

    #[test]
    fn p6_a_fault_hits_a_part_of_one_model_and_one_setting() {
        let (hit, spared) = (model(Platform::Linux), model(Platform::Windows));
        let fault = ModelFault::parse(&format!("{}:camera.allowed=0.02", hit.name)).expect("it is a fault");
        let conditions = Conditions {
            faults: vec![fault],
            ..Conditions::CALM
        };
        let failed = |model: &Model, key: &str| {
            (0..10_000)
                .filter(|index| {
                    let reports = apply(3, *index, model, &settings(), &conditions);
                    reports[key].state == SettingState::Failed
                })
                .count()
        };
        assert!((150..250).contains(&failed(hit, "camera.allowed")));
        assert_eq!(
            (
                failed(hit, "passcode.min_length"),
                failed(spared, "camera.allowed")
            ),
            (0, 0)
        );
        for text in [
            "x",
            "x:camera.allowed=0.1",
            &format!("{}:no.setting=0.1", hit.name),
            &format!("{}:camera.allowed=2", hit.name),
        ] {
            assert!(ModelFault::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_platform_reports_what_it_can_do() {
        let on = |platform| apply(1, 0, model(platform), &settings(), &Conditions::CALM);
        let state = |platform, key: &str| on(platform)[key].state;
        assert_eq!(
            state(Platform::Linux, "passcode.min_length"),
            SettingState::Verified
        );
        assert_eq!(
            state(Platform::Macos, "passcode.min_length"),
            SettingState::Weaker
        );
        assert_eq!(
            state(Platform::Linux, "screen_capture.allowed"),
            SettingState::NotExpressible
        );
    }

    #[test]
    fn messages_are_disordered_as_often_as_asked() {
        let count = |wanted| {
            (0..10_000)
                .filter(|n| Disorder::TYPICAL.exchange(1, 1, *n) == wanted)
                .count()
        };
        assert!((150..250).contains(&count(Exchange::Duplicated)));
        assert!((150..250).contains(&count(Exchange::Reordered)));
        assert_eq!(Disorder::NONE.exchange(1, 1, 1), Exchange::Plain);
        assert_eq!(Disorder::NONE.delay(1, 1), None);
    }
}
