//! What is to be done about a device that does not meet a rule: a ladder of steps, each later than the one before.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    command::{CommandKind, InvalidCommand},
    text::UserMessage,
};

/// The most steps of one ladder.
pub const STEPS_MAX: usize = 8;
/// The longest grace, and the latest that a step may come: 90 days.
pub const STEP_SECONDS_MAX: u64 = 90 * 86_400;

/// A grace period and the steps after it. Neither alone is anything else than the other left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Remediation {
    /// How long a device may go without meeting the rule before it counts, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_seconds: Option<u64>,
    /// Ordered by time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
}

/// One rung of the ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// How long after the end of the grace it comes, in seconds.
    pub after_seconds: u64,
    pub action: Action,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Tells the administrators.
    Notify,
    /// Tells the user.
    Message(UserMessage),
    /// Has the device put its settings in force again.
    Reapply,
    Command(RemedyCommand),
}

/// A command that a rule may give by itself: never a destructive one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct RemedyCommand(CommandKind);

/// A remediation that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRemediation {
    #[error("remediation has at most {STEPS_MAX} steps; leave some out")]
    TooMany,
    #[error("remediation is empty; write grace_seconds or steps, or leave it out")]
    Empty,
    #[error("remediation: {0} is at most {STEP_SECONDS_MAX} (90 days)")]
    TooLate(&'static str),
    #[error("remediation: step {0} comes before the one above it; order the steps by after_seconds")]
    Order(usize),
    #[error("{0} is destructive: no rule can order it; write restart, collect-inventory or lock")]
    Destructive(&'static str),
    #[error("command: {0}")]
    Command(InvalidCommand),
}

impl Remediation {
    /// Checks the bounds that the types do not carry.
    pub fn valid(&self) -> Result<(), InvalidRemediation> {
        if self.steps.is_empty() && self.grace_seconds.is_none() {
            return Err(InvalidRemediation::Empty);
        }
        if self.steps.len() > STEPS_MAX {
            return Err(InvalidRemediation::TooMany);
        }
        if self.grace_seconds.is_some_and(|grace| grace > STEP_SECONDS_MAX) {
            return Err(InvalidRemediation::TooLate("grace_seconds"));
        }
        if self
            .steps
            .iter()
            .any(|step| step.after_seconds > STEP_SECONDS_MAX)
        {
            return Err(InvalidRemediation::TooLate("after_seconds"));
        }
        match self
            .steps
            .windows(2)
            .position(|pair| pair[0].after_seconds > pair[1].after_seconds)
        {
            Some(index) => Err(InvalidRemediation::Order(index + 2)),
            None => Ok(()),
        }
    }

    /// The grace period; zero where there is none.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(self.grace_seconds.unwrap_or(0))
    }

    /// How long after a violation began a step is due.
    pub fn due_after(&self, step: &Step) -> Duration {
        self.grace() + Duration::from_secs(step.after_seconds)
    }

    /// The steps that are due when a violation has lasted so long: always the first ones of the ladder.
    pub fn due(&self, lasted: Duration) -> &[Step] {
        let due = self
            .steps
            .iter()
            .take_while(|step| self.due_after(step) <= lasted)
            .count();
        &self.steps[..due]
    }
}

impl RemedyCommand {
    /// A command within its bounds that destroys nothing.
    pub fn new(kind: CommandKind) -> Result<RemedyCommand, InvalidRemediation> {
        if kind.is_destructive() {
            return Err(InvalidRemediation::Destructive(kind.type_name()));
        }
        kind.check().map_err(InvalidRemediation::Command)?;
        Ok(RemedyCommand(kind))
    }

    pub const fn kind(&self) -> &CommandKind {
        &self.0
    }
}

impl<'de> Deserialize<'de> for RemedyCommand {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        RemedyCommand::new(CommandKind::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl Action {
    /// The word on the wire and in storage.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Action::Notify => "notify",
            Action::Message(_) => "message",
            Action::Reapply => "reapply",
            Action::Command(_) => "command",
        }
    }
}

/// A step as it stands on the wire.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepForm<'a> {
    #[serde(default)]
    after_seconds: u64,
    action: std::borrow::Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<RemedyCommand>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<UserMessage>,
}

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (command, text) = match &self.action {
            Action::Notify | Action::Reapply => (None, None),
            Action::Message(text) => (None, Some(text.clone())),
            Action::Command(command) => (Some(command.clone()), None),
        };
        StepForm {
            after_seconds: self.after_seconds,
            action: self.action.as_str().into(),
            command,
            text,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = StepForm::deserialize(deserializer)?;
        let action = match (&*form.action, form.command, form.text) {
            ("notify", None, None) => Action::Notify,
            ("reapply", None, None) => Action::Reapply,
            ("message", None, Some(text)) => Action::Message(text),
            ("command", Some(command), None) => Action::Command(command),
            ("message", None, None) => return Err(D::Error::custom("message needs \"text\"")),
            ("command", None, None) => {
                return Err(D::Error::custom(
                    "command needs \"command\", such as {\"type\":\"restart\"}",
                ));
            }
            ("notify" | "reapply" | "message", Some(_), _) => {
                return Err(D::Error::custom(
                    "\"command\" belongs to the action command alone",
                ));
            }
            ("notify" | "reapply" | "command", _, Some(_)) => {
                return Err(D::Error::custom("\"text\" belongs to the action message alone"));
            }
            (other, ..) => {
                let shown: String = other.chars().take(32).collect();
                let detail = format!("there is no action {shown}; write notify, message, reapply or command");
                return Err(D::Error::custom(detail));
            }
        };
        Ok(Step {
            after_seconds: form.after_seconds,
            action,
        })
    }
}
