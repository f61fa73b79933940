//! Faults on purpose, in debug builds alone: what happens when the process dies, fails or hangs at a step.
//!
//! A step is the action of a log entry, such as `operation.approved`, or `command.delivered`; before or after its transaction
//! is committed. A release build has none of this.

use std::{
    str::FromStr,
    sync::atomic::{AtomicBool, Ordering},
};

use crate::access::problem::Problem;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// The process ends, as by `kill -9`.
    Kill,
    /// The transaction fails; after it, only the answer does.
    Error,
    /// Nothing goes on for some seconds.
    Hang,
}

/// When it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

/// One fault, which happens once: `operation.approved/before/kill`.
#[derive(Debug)]
pub struct Fault {
    step: String,
    when: When,
    what: What,
    happened: AtomicBool,
}

const HANG: std::time::Duration = std::time::Duration::from_secs(3);

impl FromStr for Fault {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Fault, &'static str> {
        let mut parts = text.split('/');
        let (Some(step), Some(when), Some(what), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err("a fault is STEP/before|after/kill|error|hang");
        };
        Ok(Fault {
            step: step.to_owned(),
            when: match when {
                "before" => When::Before,
                "after" => When::After,
                _ => return Err("a fault happens before or after"),
            },
            what: match what {
                "kill" => What::Kill,
                "error" => What::Error,
                "hang" => What::Hang,
                _ => return Err("a fault is kill, error or hang"),
            },
            happened: AtomicBool::new(false),
        })
    }
}

/// Lets the fault happen, if this is its step and its time, and it has not happened yet.
pub fn at<'s>(
    fault: Option<&Fault>,
    when: When,
    steps: impl IntoIterator<Item = &'s str>,
) -> Result<(), Problem> {
    let Some(fault) = fault.filter(|fault| fault.when == when) else {
        return Ok(());
    };
    if !steps.into_iter().any(|step| step == fault.step) || fault.happened.swap(true, Ordering::SeqCst) {
        return Ok(());
    }
    match fault.what {
        What::Kill => std::process::abort(),
        What::Error => Err(Problem::internal(format!("a fault on purpose at {}", fault.step))),
        What::Hang => {
            std::thread::sleep(HANG);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_happens_once_at_its_step_and_time() {
        let fault: Fault = "operation.approved/after/error".parse().expect("it is a fault");
        assert!(at(Some(&fault), When::Before, ["operation.approved"]).is_ok());
        assert!(at(Some(&fault), When::After, ["command.created"]).is_ok());
        assert!(
            at(
                Some(&fault),
                When::After,
                ["command.created", "operation.approved"]
            )
            .is_err()
        );
        assert!(at(Some(&fault), When::After, ["operation.approved"]).is_ok());
        assert!("operation.approved/never/error".parse::<Fault>().is_err());
    }
}
