//! The states of a command, and what moves it from one to the next.

use serde::{Deserialize, Serialize};

/// Where a command is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandState {
    /// It is destructive, and too few people have approved it.
    AwaitingApproval,
    /// Approved, and not to be delivered yet: its hour has not come, or somebody or something stopped it.
    Held,
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
    pub const ALL: [CommandState; 11] = [
        CommandState::AwaitingApproval,
        CommandState::Held,
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
            CommandState::Held => "held",
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
            CommandState::AwaitingApproval
            | CommandState::Held
            | CommandState::Queued
            | CommandState::Delivered => false,
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
    /// It cannot be done at this moment, such as while its user is on a call: deliver it again later.
    NotNow,
}

/// What can happen to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandEvent {
    /// Enough people approved it, and its hour has come.
    Release,
    /// Enough people approved it, and it waits.
    Hold,
    Deliver,
    Receipt(ReceiptOutcome),
    /// The device took it and cannot be made to answer: it was delivered as often as is reasonable.
    GiveUp,
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
    use CommandState::{AwaitingApproval, Cancelled, Delivered, Expired, Failed, Held, Queued};
    match (state, event) {
        (AwaitingApproval | Held, CommandEvent::Release) => Ok(Queued),
        (AwaitingApproval | Queued, CommandEvent::Hold) => Ok(Held),
        (Queued | Delivered, CommandEvent::Deliver) => Ok(Delivered),
        (Delivered, CommandEvent::Receipt(outcome)) => Ok(match outcome {
            ReceiptOutcome::Done => CommandState::Done,
            ReceiptOutcome::Noop => CommandState::Noop,
            ReceiptOutcome::Failed => Failed,
            ReceiptOutcome::NotNow => Queued,
        }),
        // What was handed out may have been done: without a receipt nobody knows.
        (Delivered, CommandEvent::GiveUp | CommandEvent::Expire) => Ok(CommandState::Unknown),
        (AwaitingApproval | Held | Queued, CommandEvent::Expire) => Ok(Expired),
        (AwaitingApproval | Held | Queued | Delivered, CommandEvent::Cancel) => Ok(Cancelled),
        (AwaitingApproval | Held | Queued | Delivered, CommandEvent::Supersede) => {
            Ok(CommandState::Superseded)
        }
        (
            state,
            CommandEvent::Release
            | CommandEvent::Hold
            | CommandEvent::Deliver
            | CommandEvent::Receipt(_)
            | CommandEvent::GiveUp
            | CommandEvent::Expire
            | CommandEvent::Cancel
            | CommandEvent::Supersede,
        ) => Err(Refused { state }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [CommandEvent; 11] = [
        CommandEvent::Release,
        CommandEvent::Hold,
        CommandEvent::Deliver,
        CommandEvent::Receipt(ReceiptOutcome::Done),
        CommandEvent::Receipt(ReceiptOutcome::Noop),
        CommandEvent::Receipt(ReceiptOutcome::Failed),
        CommandEvent::Receipt(ReceiptOutcome::NotNow),
        CommandEvent::GiveUp,
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
    fn m1_what_waits_for_approval_or_is_held_cannot_be_delivered() {
        for state in [CommandState::AwaitingApproval, CommandState::Held] {
            assert_eq!(next(state, CommandEvent::Deliver), Err(Refused { state }));
        }
        assert_eq!(
            next(CommandState::AwaitingApproval, CommandEvent::Release),
            Ok(CommandState::Queued)
        );
    }

    #[test]
    fn m15_a_receipt_before_delivery_is_refused() {
        for state in [
            CommandState::AwaitingApproval,
            CommandState::Held,
            CommandState::Queued,
        ] {
            assert!(next(state, CommandEvent::Receipt(ReceiptOutcome::Done)).is_err());
        }
    }

    #[test]
    fn not_now_queues_a_command_again() {
        let event = CommandEvent::Receipt(ReceiptOutcome::NotNow);
        assert_eq!(next(CommandState::Delivered, event), Ok(CommandState::Queued));
    }

    #[test]
    fn a_delivered_command_without_a_receipt_ends_unknown() {
        for event in [CommandEvent::Expire, CommandEvent::GiveUp] {
            assert_eq!(next(CommandState::Delivered, event), Ok(CommandState::Unknown));
        }
        assert_eq!(
            next(CommandState::Queued, CommandEvent::Expire),
            Ok(CommandState::Expired)
        );
    }

    #[test]
    fn the_words_read_back() {
        for state in CommandState::ALL {
            assert_eq!(CommandState::parse(state.as_str()), Some(state));
        }
    }
}
