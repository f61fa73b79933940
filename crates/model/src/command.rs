//! One-shot commands: what they are, and the states that each goes through.

use serde::{Deserialize, Serialize};

use crate::text::UserMessage;

/// The longest message on a lock screen.
pub const MESSAGE_CHARS_MAX: usize = 256;
/// The longest that a restart may be put off.
pub const RESTART_DELAY_SECONDS_MAX: u32 = 3600;

/// How much a wipe removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WipeMode {
    /// Everything on the device.
    Full,
    /// What belongs to the organization.
    Enterprise,
}

/// A command with its arguments; on the wire an object whose `type` names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CommandKind {
    /// Locks the screens of all sessions.
    Lock {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    Restart {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delay_seconds: Option<u32>,
    },
    CollectInventory {},
    /// Shows a text to whoever is signed in.
    Message {
        text: UserMessage,
    },
    Wipe {
        mode: WipeMode,
    },
}

/// The text is not a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCommand {
    #[error("not a command: {0}")]
    Malformed(String),
    #[error("message is longer than {MESSAGE_CHARS_MAX} characters or has control characters")]
    Message,
    #[error("delay_seconds is more than {RESTART_DELAY_SECONDS_MAX}")]
    Delay,
}

impl CommandKind {
    /// Reads a command from JSON and checks its bounds.
    pub fn parse(json: &[u8]) -> Result<CommandKind, InvalidCommand> {
        let kind: CommandKind =
            serde_json::from_slice(json).map_err(|error| InvalidCommand::Malformed(error.to_string()))?;
        kind.check()?;
        Ok(kind)
    }

    /// Checks the bounds that the types do not carry.
    pub fn check(&self) -> Result<(), InvalidCommand> {
        match self {
            CommandKind::Lock {
                message: Some(message),
            } if message.chars().count() > MESSAGE_CHARS_MAX || message.chars().any(char::is_control) => {
                Err(InvalidCommand::Message)
            }
            CommandKind::Restart {
                delay_seconds: Some(seconds),
            } if *seconds > RESTART_DELAY_SECONDS_MAX => Err(InvalidCommand::Delay),
            CommandKind::Lock { .. }
            | CommandKind::Restart { .. }
            | CommandKind::CollectInventory {}
            | CommandKind::Message { .. }
            | CommandKind::Wipe { .. } => Ok(()),
        }
    }

    /// The word that `type` holds.
    pub const fn type_name(&self) -> &'static str {
        match self {
            CommandKind::Lock { .. } => "lock",
            CommandKind::Restart { .. } => "restart",
            CommandKind::CollectInventory {} => "collect-inventory",
            CommandKind::Message { .. } => "message",
            CommandKind::Wipe { .. } => "wipe",
        }
    }

    /// Whether a device carries it out only with approvals.
    pub const fn is_destructive(&self) -> bool {
        match self {
            CommandKind::Wipe { .. } => true,
            CommandKind::Lock { .. }
            | CommandKind::Restart { .. }
            | CommandKind::CollectInventory {}
            | CommandKind::Message { .. } => false,
        }
    }
}

/// Where a command is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    AwaitingApproval,
    Queued,
    /// Handed to the device at least once.
    Delivered,
    Done,
    /// It was true already: nothing was done.
    Noop,
    Failed,
    Expired,
    Cancelled,
    Superseded,
    /// It was handed out and its time ended without a receipt: nobody knows.
    Unknown,
}

impl CommandState {
    pub const ALL: [CommandState; 10] = [
        CommandState::AwaitingApproval,
        CommandState::Queued,
        CommandState::Delivered,
        CommandState::Done,
        CommandState::Noop,
        CommandState::Failed,
        CommandState::Expired,
        CommandState::Cancelled,
        CommandState::Superseded,
        CommandState::Unknown,
    ];

    /// The word on the wire and in storage.
    pub const fn as_str(self) -> &'static str {
        match self {
            CommandState::AwaitingApproval => "awaiting_approval",
            CommandState::Queued => "queued",
            CommandState::Delivered => "delivered",
            CommandState::Done => "done",
            CommandState::Noop => "noop",
            CommandState::Failed => "failed",
            CommandState::Expired => "expired",
            CommandState::Cancelled => "cancelled",
            CommandState::Superseded => "superseded",
            CommandState::Unknown => "unknown",
        }
    }

    /// The state that a word names.
    pub fn parse(word: &str) -> Option<CommandState> {
        CommandState::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether nothing can happen to the command any more.
    pub const fn is_final(self) -> bool {
        match self {
            CommandState::AwaitingApproval | CommandState::Queued | CommandState::Delivered => false,
            CommandState::Done
            | CommandState::Noop
            | CommandState::Failed
            | CommandState::Expired
            | CommandState::Cancelled
            | CommandState::Superseded
            | CommandState::Unknown => true,
        }
    }
}

/// What a device answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReceiptOutcome {
    Done,
    Noop,
    Failed,
}

/// What can happen to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandEvent {
    Deliver,
    Receipt(ReceiptOutcome),
    Expire,
    Cancel,
    Supersede,
}

/// The event does not fit the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a command that is {} does not allow this", state.as_str())]
pub struct Refused {
    pub state: CommandState,
}

/// The state after an event. Delivery repeats; a receipt counts only after a delivery; what has ended stays.
pub fn next(state: CommandState, event: CommandEvent) -> Result<CommandState, Refused> {
    match (state, event) {
        (CommandState::Queued | CommandState::Delivered, CommandEvent::Deliver) => {
            Ok(CommandState::Delivered)
        }
        (CommandState::Delivered, CommandEvent::Receipt(outcome)) => Ok(match outcome {
            ReceiptOutcome::Done => CommandState::Done,
            ReceiptOutcome::Noop => CommandState::Noop,
            ReceiptOutcome::Failed => CommandState::Failed,
        }),
        (CommandState::Delivered, CommandEvent::Expire) => Ok(CommandState::Unknown),
        (CommandState::AwaitingApproval | CommandState::Queued, CommandEvent::Expire) => {
            Ok(CommandState::Expired)
        }
        (
            CommandState::AwaitingApproval | CommandState::Queued | CommandState::Delivered,
            CommandEvent::Cancel,
        ) => Ok(CommandState::Cancelled),
        (
            CommandState::AwaitingApproval | CommandState::Queued | CommandState::Delivered,
            CommandEvent::Supersede,
        ) => Ok(CommandState::Superseded),
        (
            state,
            CommandEvent::Deliver
            | CommandEvent::Receipt(_)
            | CommandEvent::Expire
            | CommandEvent::Cancel
            | CommandEvent::Supersede,
        ) => Err(Refused { state }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [CommandEvent; 7] = [
        CommandEvent::Deliver,
        CommandEvent::Receipt(ReceiptOutcome::Done),
        CommandEvent::Receipt(ReceiptOutcome::Noop),
        CommandEvent::Receipt(ReceiptOutcome::Failed),
        CommandEvent::Expire,
        CommandEvent::Cancel,
        CommandEvent::Supersede,
    ];

    #[test]
    fn what_has_ended_stays_ended() {
        for state in CommandState::ALL.into_iter().filter(|state| state.is_final()) {
            for event in EVENTS {
                assert_eq!(next(state, event), Err(Refused { state }));
            }
        }
    }

    #[test]
    fn m15_a_receipt_before_delivery_is_refused() {
        assert!(next(CommandState::Queued, CommandEvent::Receipt(ReceiptOutcome::Done)).is_err());
    }

    #[test]
    fn a_delivered_command_without_a_receipt_ends_unknown() {
        assert_eq!(
            next(CommandState::Delivered, CommandEvent::Expire),
            Ok(CommandState::Unknown)
        );
        assert_eq!(
            next(CommandState::Queued, CommandEvent::Expire),
            Ok(CommandState::Expired)
        );
    }

    #[test]
    fn commands_are_bounded_and_strict() {
        assert!(CommandKind::parse(br#"{"type":"lock","message":"hi"}"#).is_ok());
        assert!(CommandKind::parse(br#"{"type":"collect-inventory"}"#).is_ok());
        assert!(CommandKind::parse(br#"{"type":"wipe","mode":"full"}"#).is_ok());
        assert!(CommandKind::parse(br#"{"type":"message","text":"Update, please."}"#).is_ok());
        assert!(CommandKind::parse(br#"{"type":"message","text":" "}"#).is_err());
        assert!(CommandKind::parse(br#"{"type":"message","text":"a\u001b[2J"}"#).is_err());
        assert!(CommandKind::parse(br#"{"type":"lock","extra":1}"#).is_err());
        assert!(CommandKind::parse(br#"{"type":"restart","delay_seconds":3601}"#).is_err());
        let long = format!(r#"{{"type":"lock","message":"{}"}}"#, "x".repeat(257));
        assert_eq!(CommandKind::parse(long.as_bytes()), Err(InvalidCommand::Message));
    }

    proptest::proptest! {
        #[test]
        fn reading_a_command_never_panics_and_reads_back(
            json in r#"\{"type":"(lock|restart|wipe|collect-inventory|message|[a-z]{0,5})"(,"(message|text|mode|delay_seconds|x)":("[a-z ]{0,5}"|"full"|-?[0-9]{1,12}|null|\[\]))?\}"#,
        ) {
            if let Ok(kind) = CommandKind::parse(json.as_bytes()) {
                let text = serde_json::to_string(&kind).expect("a command has a text form");
                proptest::prop_assert_eq!(CommandKind::parse(text.as_bytes()), Ok(kind));
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            let _ = CommandKind::parse(&bytes);
        }
    }
}
