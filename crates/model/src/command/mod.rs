//! One-shot commands: what they are, and the states that each goes through.

mod kind;
mod life;

pub use kind::{
    ARGUMENTS_MAX, CommandKind, FILES_MAX, InvalidCommand, LOG_SECONDS_MAX, MESSAGE_CHARS_MAX,
    RESTART_DELAY_SECONDS_MAX, RotatedKey, SCRIPT_SECONDS_MAX, WipeMode,
};
pub use life::{CommandEvent, CommandState, ReceiptOutcome, Refused, next};
