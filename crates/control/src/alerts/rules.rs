//! Rules: what they say, when an alert begins and ends, and what is told of it. Pure.

use std::time::Duration;

use muster_model::{AlertId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::expression::{Expression, Truth};
use crate::access::problem::{FieldError, INVALID, Problem};

/// Objects that one alert names; more are counted.
pub const INSTANCES_MAX: usize = 100;
/// Events of one rule that each have an alert of their own; more share one.
pub const EVENT_ALERTS_PER_RULE_MAX: usize = 20;
/// How long who was told of an alert is left alone when more objects join it.
pub const GROUP_INTERVAL: Duration = Duration::from_secs(300);
/// How often who was told is told again while an alert goes on.
pub const REPEAT_INTERVAL: Duration = Duration::from_secs(4 * 3600);
/// How long an alert of an event stays when nothing ends it and the rule says nothing else.
const EVENT_SECONDS: u32 = 86_400;
const NAME_BYTES_MAX: usize = 64;
const TITLE_CHARS_MAX: usize = 120;
const TEXT_CHARS_MAX: usize = 1000;
const SECONDS_MAX: u32 = 30 * 86_400;
const DESTINATIONS_MAX: usize = 8;
const ESCALATIONS_MAX: usize = 5;
const ACTIONS_MAX: usize = 32;
const ACTION_BYTES_MAX: usize = 64;

/// How bad it is, in the words of PagerDuty's Events API v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Warning,
    Error,
    Critical,
}

impl Severity {
    pub const ALL: [Severity; 4] = [
        Severity::Info,
        Severity::Warning,
        Severity::Error,
        Severity::Critical,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
            Severity::Critical => "critical",
        }
    }

    pub fn parse(word: &str) -> Option<Severity> {
        Severity::ALL
            .into_iter()
            .find(|severity| severity.as_str() == word)
    }
}

/// What becomes of an alert while its signals are absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoData {
    /// One that fires goes on; nothing begins.
    #[default]
    Keep,
    /// As if the condition did not hold.
    Resolve,
    /// As if the condition held.
    Fire,
}

/// What a rule looks at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum When {
    /// A condition over signals, such as `command_queue_latency_p99 > 30s`.
    Expression(String),
    /// Entries of the log.
    Events(Events),
}

/// Entries of the log that begin an alert, one for each object, and those that end it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// Actions such as `security.mass_command`; one that ends with `*` means all that begin so, one that begins with `*` all that
    /// end so.
    pub actions: Vec<String>,
    /// Actions about the same object that end the alert.
    #[serde(default)]
    pub resolved_by: Vec<String>,
    /// How long the alert stays when nothing ends it; a day where it is left out.
    #[serde(default)]
    pub resolve_after_seconds: Option<u32>,
}

/// Who is told when nobody has acknowledged an alert.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Escalation {
    /// After the first who were told, from 1 on.
    pub after_minutes: u32,
    pub destinations: Vec<String>,
}

const fn yes() -> bool {
    true
}

/// A rule as it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// What people read first.
    pub title: String,
    /// What it means that this alert is there.
    #[serde(default)]
    pub meaning: String,
    /// What to do about it.
    #[serde(default)]
    pub remedy: String,
    pub severity: Severity,
    pub when: When,
    /// How long the condition holds before somebody is told.
    #[serde(default)]
    pub for_seconds: u32,
    /// How long the condition must not hold before the alert ends.
    #[serde(default)]
    pub keep_seconds: u32,
    #[serde(default)]
    pub no_data: NoData,
    /// Names of destinations; where none of them exists, the default ones are told.
    #[serde(default)]
    pub destinations: Vec<String>,
    #[serde(default)]
    pub escalation: Vec<Escalation>,
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// A rule that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    pub name: String,
    pub definition: Definition,
    pub trigger: Trigger,
}

/// What a rule looks at, read.
#[derive(Debug, Clone, PartialEq)]
pub enum Trigger {
    Expression(Expression),
    Events(Events),
}

impl Rule {
    /// Checks a rule; every wrong field is named.
    pub fn new(name: &str, definition: Definition) -> Result<Rule, Problem> {
        let mut errors = Vec::new();
        let mut refuse = |field: &str, detail: String| {
            errors.push(FieldError {
                field: field.to_owned(),
                code: "invalid".to_owned(),
                detail,
            });
        };
        if !is_name(name) {
            refuse(
                "name",
                "A name has 1 to 64 of the characters a-z, 0-9, - and _.".to_owned(),
            );
        }
        check_texts(&definition, &mut refuse);
        check_people(&definition, &mut refuse);
        let trigger = match &definition.when {
            When::Expression(text) => match Expression::parse(text) {
                Ok(expression) => Some(Trigger::Expression(expression)),
                Err(error) => {
                    refuse("when.expression", error.to_string());
                    None
                }
            },
            When::Events(events) => {
                check_events(events, &mut refuse);
                Some(Trigger::Events(events.clone()))
            }
        };
        match trigger {
            Some(trigger) if errors.is_empty() => Ok(Rule {
                name: name.to_owned(),
                definition,
                trigger,
            }),
            _ => Err(INVALID.detail("The rule is not valid.").with_errors(errors)),
        }
    }

    /// Whether an entry with this action begins an alert.
    pub fn begins_with(&self, action: &str) -> bool {
        matches!(&self.trigger, Trigger::Events(events) if events.actions.iter().any(|pattern| matches(pattern, action)))
    }

    /// Whether an entry with this action ends the alert of its object.
    pub fn ends_with(&self, action: &str) -> bool {
        matches!(&self.trigger, Trigger::Events(events) if events.resolved_by.iter().any(|pattern| matches(pattern, action)))
    }

    fn event_lifetime(&self) -> Duration {
        let seconds = match &self.trigger {
            Trigger::Events(events) => events.resolve_after_seconds.unwrap_or(EVENT_SECONDS),
            Trigger::Expression(_) => 0,
        };
        Duration::from_secs(seconds.into())
    }
}

/// Whether a text can name a rule or a destination.
pub fn is_name(name: &str) -> bool {
    let is_plain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_plain)
}

fn check_texts(definition: &Definition, refuse: &mut impl FnMut(&str, String)) {
    let chars = definition.title.chars().count();
    if chars == 0 || chars > TITLE_CHARS_MAX || definition.title.chars().any(char::is_control) {
        refuse(
            "title",
            format!("A title is one line of 1 to {TITLE_CHARS_MAX} characters."),
        );
    }
    for (field, text) in [("meaning", &definition.meaning), ("remedy", &definition.remedy)] {
        if text.chars().count() > TEXT_CHARS_MAX {
            refuse(field, format!("It has at most {TEXT_CHARS_MAX} characters."));
        }
    }
    for (field, seconds) in [
        ("for_seconds", definition.for_seconds),
        ("keep_seconds", definition.keep_seconds),
    ] {
        if seconds > SECONDS_MAX {
            refuse(field, format!("It is at most {SECONDS_MAX} seconds."));
        }
    }
}

fn check_people(definition: &Definition, refuse: &mut impl FnMut(&str, String)) {
    let mut check_names = |field: &str, names: &[String]| {
        if names.len() > DESTINATIONS_MAX || !names.iter().all(|name| is_name(name)) {
            refuse(
                field,
                format!("It names at most {DESTINATIONS_MAX} destinations."),
            );
        }
    };
    check_names("destinations", &definition.destinations);
    for step in &definition.escalation {
        check_names("escalation.destinations", &step.destinations);
    }
    let after: Vec<u32> = definition
        .escalation
        .iter()
        .map(|step| step.after_minutes)
        .collect();
    let is_ordered =
        after.windows(2).all(|pair| pair[0] < pair[1]) && after.first().is_none_or(|first| *first > 0);
    if after.len() > ESCALATIONS_MAX || !is_ordered || after.iter().any(|minutes| *minutes > SECONDS_MAX / 60)
    {
        refuse(
            "escalation",
            format!("There are at most {ESCALATIONS_MAX} steps, each later than the one before."),
        );
    }
}

fn check_events(events: &Events, refuse: &mut impl FnMut(&str, String)) {
    let is_action = |action: &String| {
        action.len() <= ACTION_BYTES_MAX
            && action.trim_matches('*').len() >= 3
            && action.matches('*').count() <= 1
    };
    if events.actions.is_empty()
        || events.actions.len() > ACTIONS_MAX
        || !events.actions.iter().all(is_action)
    {
        refuse(
            "when.events.actions",
            format!("Name 1 to {ACTIONS_MAX} actions such as `security.*`."),
        );
    }
    if events.resolved_by.len() > ACTIONS_MAX || !events.resolved_by.iter().all(is_action) {
        refuse(
            "when.events.resolved_by",
            format!("Name at most {ACTIONS_MAX} actions."),
        );
    }
    // What alerts do themselves must not raise alerts.
    if events
        .actions
        .iter()
        .any(|action| matches(action, "alert.acknowledged"))
    {
        refuse(
            "when.events.actions",
            "Entries about alerts raise no alerts.".to_owned(),
        );
    }
    if events
        .resolve_after_seconds
        .is_some_and(|seconds| seconds == 0 || seconds > SECONDS_MAX)
    {
        refuse(
            "when.events.resolve_after_seconds",
            format!("It is 1 to {SECONDS_MAX}."),
        );
    }
}

/// Whether a text fits a pattern with at most one `*`, which stands for anything.
pub fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => {
            text.len() >= head.len() + tail.len() && text.starts_with(head) && text.ends_with(tail)
        }
    }
}

/// Where an alert stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertState {
    /// The condition holds, not yet long enough.
    Pending,
    Firing,
    Resolved,
}

impl AlertState {
    pub const fn as_str(self) -> &'static str {
        match self {
            AlertState::Pending => "pending",
            AlertState::Firing => "firing",
            AlertState::Resolved => "resolved",
        }
    }

    pub fn parse(word: &str) -> Option<AlertState> {
        [AlertState::Pending, AlertState::Firing, AlertState::Resolved]
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}

/// One object that an alert is about; the empty object is the tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Instance {
    pub object: String,
    /// Since when the condition holds.
    pub since: Timestamp,
    pub is_firing: bool,
    /// Since when it holds no more, or nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear_since: Option<Timestamp>,
    /// What was measured last, as people read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The entry of the log that began it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
}

/// An alert as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Alert {
    pub id: AlertId,
    pub rule: String,
    /// What tells open alerts apart: the rule, or the rule and an object.
    pub group: String,
    pub state: AlertState,
    pub severity: Severity,
    pub title: String,
    pub instances: Vec<Instance>,
    /// How many times something happened that belongs to it.
    pub occurrences: u64,
    pub started_at: Timestamp,
    pub fired_at: Option<Timestamp>,
    pub resolved_at: Option<Timestamp>,
    pub because: Option<String>,
    pub acknowledged_at: Option<Timestamp>,
    pub acknowledged_by: Option<String>,
    /// The destinations that were told, which hear of its end.
    pub told: Vec<String>,
    pub told_at: Option<Timestamp>,
    /// Occurrences when they were told last.
    pub told_occurrences: u64,
    /// Steps of the escalation that were taken.
    pub escalated: u32,
}

/// One object's next state: `None` when nothing is left of it. `value` is what was measured.
pub fn step(
    rule: &Rule,
    before: Option<&Instance>,
    object: &str,
    truth: Truth,
    value: Option<String>,
    now: Timestamp,
) -> Option<Instance> {
    let holds = match (truth, rule.definition.no_data) {
        (Truth::Yes, _) | (Truth::Unknown, NoData::Fire) => true,
        (Truth::No, _) | (Truth::Unknown, NoData::Resolve) => false,
        (Truth::Unknown, NoData::Keep) => return before.filter(|before| before.is_firing).cloned(),
    };
    let wait = Duration::from_secs(rule.definition.for_seconds.into());
    let keep = Duration::from_secs(rule.definition.keep_seconds.into());
    match (before, holds) {
        (None, false) => None,
        (None, true) => Some(Instance {
            object: object.to_owned(),
            since: now,
            is_firing: wait.is_zero(),
            clear_since: None,
            value,
            entry: None,
        }),
        (Some(before), true) => Some(Instance {
            is_firing: before.is_firing || now >= before.since.plus(wait),
            clear_since: None,
            value: value.or_else(|| before.value.clone()),
            ..before.clone()
        }),
        (Some(before), false) if !before.is_firing => None,
        (Some(before), false) => {
            let clear_since = before.clear_since.unwrap_or(now);
            (now < clear_since.plus(keep)).then(|| Instance {
                clear_since: Some(clear_since),
                value: value.or_else(|| before.value.clone()),
                ..before.clone()
            })
        }
    }
}

impl Alert {
    /// A new one, of these objects.
    pub fn begin(id: AlertId, rule: &Rule, group: String, instances: Vec<Instance>, now: Timestamp) -> Alert {
        let mut alert = Alert {
            id,
            rule: rule.name.clone(),
            group,
            state: AlertState::Pending,
            severity: rule.definition.severity,
            title: rule.definition.title.clone(),
            occurrences: 0,
            instances: Vec::new(),
            started_at: now,
            fired_at: None,
            resolved_at: None,
            because: None,
            acknowledged_at: None,
            acknowledged_by: None,
            told: Vec::new(),
            told_at: None,
            told_occurrences: 0,
            escalated: 0,
        };
        alert.become_of(instances, now);
        alert
    }

    /// Takes over the objects as they are now, and follows from them where it stands. What was never told and is over leaves
    /// no trace: the answer is whether anything is left to be stored.
    pub fn become_of(&mut self, mut instances: Vec<Instance>, now: Timestamp) -> bool {
        let is_new = |instance: &&Instance| {
            instance.is_firing
                && !self
                    .instances
                    .iter()
                    .any(|before| before.object == instance.object && before.is_firing)
        };
        let begun = instances.iter().filter(is_new).count() as u64;
        self.occurrences += begun;
        instances.sort_by(|one, other| {
            (!one.is_firing, one.since, &one.object).cmp(&(!other.is_firing, other.since, &other.object))
        });
        let is_firing = instances.iter().any(|instance| instance.is_firing);
        if instances.is_empty() {
            if self.state == AlertState::Pending {
                return false;
            }
            self.state = AlertState::Resolved;
            self.resolved_at.get_or_insert(now);
            return true;
        }
        instances.truncate(INSTANCES_MAX);
        self.instances = instances;
        if is_firing {
            self.state = AlertState::Firing;
            self.fired_at.get_or_insert(now);
        }
        true
    }

    /// One more event of an object.
    pub fn happened(&mut self, instance: Instance) {
        self.occurrences += 1;
        let has_room = self.instances.len() < INSTANCES_MAX;
        match self
            .instances
            .iter_mut()
            .find(|known| known.object == instance.object)
        {
            Some(known) => {
                known.since = known.since.max(instance.since);
                known.entry = instance.entry;
                known.value = instance.value;
            }
            None if has_room => self.instances.push(instance),
            None => {}
        }
    }

    /// What is left of an alert of events after some time: objects whose time is over go.
    pub fn age(&mut self, rule: &Rule, now: Timestamp) {
        let lifetime = rule.event_lifetime();
        let left: Vec<Instance> = self
            .instances
            .iter()
            .filter(|instance| now < instance.since.plus(lifetime))
            .cloned()
            .collect();
        if left.len() < self.instances.len() {
            if left.is_empty() {
                self.because
                    .get_or_insert_with(|| "nothing happened again".to_owned());
            }
            self.become_of(left, now);
        }
    }
}

/// What somebody is to be told of an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell {
    Nothing,
    /// The destinations of the rule: it began, grew, or goes on.
    Rule(Why),
    /// The destinations of the step of the escalation with this number, from 0.
    Step(u32),
    /// Everyone who was told: it is over.
    Resolved,
}

/// Why the destinations of the rule are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    Began,
    Grew,
    GoesOn,
}

/// What is to be told now.
pub fn tell(rule: &Rule, alert: &Alert, is_silenced: bool, now: Timestamp) -> Tell {
    match alert.state {
        AlertState::Pending => Tell::Nothing,
        // Who was told that it began is told that it ended, whatever was silenced since.
        AlertState::Resolved if alert.told.is_empty() => Tell::Nothing,
        AlertState::Resolved => Tell::Resolved,
        AlertState::Firing if is_silenced => Tell::Nothing,
        AlertState::Firing => {
            let Some(told_at) = alert.told_at else {
                return Tell::Rule(Why::Began);
            };
            let step = rule.definition.escalation.get(alert.escalated as usize);
            let is_due = |step: &Escalation| {
                let begun = alert.fired_at.unwrap_or(told_at);
                now >= begun.plus(Duration::from_secs(u64::from(step.after_minutes) * 60))
            };
            if alert.acknowledged_at.is_none() && step.is_some_and(is_due) {
                return Tell::Step(alert.escalated);
            }
            let has_grown = alert.occurrences > alert.told_occurrences;
            if has_grown && now >= told_at.plus(GROUP_INTERVAL) {
                Tell::Rule(Why::Grew)
            } else if alert.acknowledged_at.is_none() && now >= told_at.plus(REPEAT_INTERVAL) {
                Tell::Rule(Why::GoesOn)
            } else {
                Tell::Nothing
            }
        }
    }
}
