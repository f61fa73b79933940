//! What a command is: its type, its arguments and their bounds.

use serde::{Deserialize, Serialize};

use crate::attestation::Ownership;
use crate::id::PolicyId;
use crate::text::{FilePath, PackageName, PackageVersion, Sha256Text, UserMessage};

/// The longest message on a lock screen.
pub const MESSAGE_CHARS_MAX: usize = 256;
/// The longest that a restart may be put off.
pub const RESTART_DELAY_SECONDS_MAX: u32 = 3600;
/// The longest that a script may run.
pub const SCRIPT_SECONDS_MAX: u32 = 3600;
/// Arguments of a script.
pub const ARGUMENTS_MAX: usize = 32;
/// Bytes of one argument of a script.
const ARGUMENT_BYTES_MAX: usize = 1024;
/// Files that one command collects.
pub const FILES_MAX: usize = 16;
/// How far back logs are collected: 7 days.
pub const LOG_SECONDS_MAX: u32 = 7 * 86_400;

/// How much a wipe removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WipeMode {
    /// Everything on the device.
    Full,
    /// What belongs to the organization.
    Enterprise,
}

/// Which key a device replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RotatedKey {
    /// The device certificate is renewed now.
    Certificate,
    /// The recovery key of the disk encryption.
    DiskRecovery,
}

/// A command with its arguments; on the wire an object whose `type` names it.
///
/// Each may arrive more than once. When its condition for `noop` holds, a device answers so and does nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CommandKind {
    /// Locks the screens of all sessions. `noop` when every session is locked, or nobody is signed in.
    Lock {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// Unlocks what `lock` locked, but not in lost mode. `noop` when nothing is locked.
    Unlock {},
    /// Makes everybody choose a new passcode at the next sign-in; whether the old one serves once more for that, the platform
    /// decides. `noop` when one is to be chosen already.
    ClearPasscode {},
    /// `noop` when a restart is planned already.
    Restart {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delay_seconds: Option<u32>,
    },
    /// `noop` when a shutdown is planned already.
    ShutDown {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        delay_seconds: Option<u32>,
    },
    /// Removes data for good. `noop` when the device was wiped in this enrollment.
    Wipe { mode: WipeMode },
    /// The device leaves the management: what is managed is taken back, and its identity is forgotten. `noop` when it has left.
    Unenroll {},
    /// Locks the device to one screen that says whom to call. `noop` when it shows the same.
    LostModeOn {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<UserMessage>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        phone: Option<UserMessage>,
    },
    /// `noop` when lost mode is off.
    LostModeOff {},
    /// Where the device is, only in lost mode. Never `noop`: places change.
    Locate {},
    /// `noop` when the package is there in this version, or in any where none is named.
    InstallApp {
        package: PackageName,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<PackageVersion>,
    },
    /// `noop` when the package is not there.
    RemoveApp { package: PackageName },
    /// `noop` when there is no newer version; fails where the package is not there.
    UpdateApp { package: PackageName },
    /// Runs a script that the policy signer signed. `noop` never: a script knows its own condition.
    RunScript {
        /// Of the signed script's payload.
        sha256: Sha256Text,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        arguments: Vec<String>,
        /// The script's own limit where it is absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timeout_seconds: Option<u32>,
    },
    /// Never `noop`: facts change.
    CollectInventory {},
    /// Sends the system's log of the last seconds. Never `noop`.
    CollectLogs {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since_seconds: Option<u32>,
    },
    /// Sends files. Never `noop`.
    CollectFiles { paths: Vec<FilePath> },
    /// Never `noop`.
    RotateKey { key: RotatedKey },
    /// Installs the updates of the operating system that are there. `noop` when there are none.
    UpdateOs {},
    /// Installs this version of the agent. `noop` when it is running.
    UpdateAgent { version: PackageVersion },
    /// Shows a text to whoever is signed in. `noop` when nobody is.
    Message { text: UserMessage },
    /// For no device: what people approve before a policy asks less of many devices. Without a bundle the policy is taken
    /// away.
    LoosenPolicy {
        policy_id: PolicyId,
        /// Of the version that is to take its place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bundle_sha256: Option<Sha256Text>,
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
    #[error(
        "a script has at most {ARGUMENTS_MAX} arguments of {ARGUMENT_BYTES_MAX} bytes, without a null character"
    )]
    Arguments,
    #[error("timeout_seconds is from 1 to {SCRIPT_SECONDS_MAX}")]
    Timeout,
    #[error("paths names 1 to {FILES_MAX} files, each once")]
    Paths,
    #[error("since_seconds is from 1 to {LOG_SECONDS_MAX}")]
    Since,
    /// What a personal device cannot be told (NIST SP 800-124r2 section 4.2.3).
    #[error("a personal device can only be wiped of what belongs to the organization: use mode enterprise")]
    Personal,
    #[error("loosen-policy is nothing for a device: it is asked by activating the policy's version")]
    NotForDevices,
}

impl CommandKind {
    /// The words that `type` may hold.
    pub const TYPES: [&'static str; 22] = [
        "lock",
        "unlock",
        "clear-passcode",
        "restart",
        "shut-down",
        "wipe",
        "unenroll",
        "lost-mode-on",
        "lost-mode-off",
        "locate",
        "install-app",
        "remove-app",
        "update-app",
        "run-script",
        "collect-inventory",
        "collect-logs",
        "collect-files",
        "rotate-key",
        "update-os",
        "update-agent",
        "message",
        "loosen-policy",
    ];

    /// Reads a command from JSON and checks its bounds.
    pub fn parse(json: &[u8]) -> Result<CommandKind, InvalidCommand> {
        let kind: CommandKind =
            serde_json::from_slice(json).map_err(|error| InvalidCommand::Malformed(error.to_string()))?;
        kind.check()?;
        Ok(kind)
    }

    /// Checks the bounds that the types do not carry.
    pub fn check(&self) -> Result<(), InvalidCommand> {
        let ensure = |holds: bool, error| if holds { Ok(()) } else { Err(error) };
        match self {
            CommandKind::Lock {
                message: Some(message),
            } => ensure(
                message.chars().count() <= MESSAGE_CHARS_MAX && !message.chars().any(char::is_control),
                InvalidCommand::Message,
            ),
            CommandKind::Restart {
                delay_seconds: Some(seconds),
            }
            | CommandKind::ShutDown {
                delay_seconds: Some(seconds),
            } => ensure(*seconds <= RESTART_DELAY_SECONDS_MAX, InvalidCommand::Delay),
            CommandKind::RunScript {
                arguments,
                timeout_seconds,
                ..
            } => {
                let fits =
                    |argument: &String| argument.len() <= ARGUMENT_BYTES_MAX && !argument.contains('\0');
                ensure(
                    arguments.len() <= ARGUMENTS_MAX && arguments.iter().all(fits),
                    InvalidCommand::Arguments,
                )?;
                ensure(
                    timeout_seconds.is_none_or(|seconds| (1..=SCRIPT_SECONDS_MAX).contains(&seconds)),
                    InvalidCommand::Timeout,
                )
            }
            CommandKind::CollectFiles { paths } => {
                let distinct: std::collections::BTreeSet<_> = paths.iter().collect();
                ensure(
                    distinct.len() == paths.len() && (1..=FILES_MAX).contains(&paths.len()),
                    InvalidCommand::Paths,
                )
            }
            CommandKind::CollectLogs {
                since_seconds: Some(seconds),
            } => ensure((1..=LOG_SECONDS_MAX).contains(seconds), InvalidCommand::Since),
            CommandKind::Lock { message: None }
            | CommandKind::Unlock {}
            | CommandKind::ClearPasscode {}
            | CommandKind::Restart { delay_seconds: None }
            | CommandKind::ShutDown { delay_seconds: None }
            | CommandKind::Wipe { .. }
            | CommandKind::Unenroll {}
            | CommandKind::LostModeOn { .. }
            | CommandKind::LostModeOff {}
            | CommandKind::Locate {}
            | CommandKind::InstallApp { .. }
            | CommandKind::RemoveApp { .. }
            | CommandKind::UpdateApp { .. }
            | CommandKind::CollectInventory {}
            | CommandKind::CollectLogs { since_seconds: None }
            | CommandKind::RotateKey { .. }
            | CommandKind::UpdateOs {}
            | CommandKind::UpdateAgent { .. }
            | CommandKind::Message { .. }
            | CommandKind::LoosenPolicy { .. } => Ok(()),
        }
    }

    /// The word that `type` holds.
    pub const fn type_name(&self) -> &'static str {
        match self {
            CommandKind::Lock { .. } => "lock",
            CommandKind::Unlock {} => "unlock",
            CommandKind::ClearPasscode {} => "clear-passcode",
            CommandKind::Restart { .. } => "restart",
            CommandKind::ShutDown { .. } => "shut-down",
            CommandKind::Wipe { .. } => "wipe",
            CommandKind::Unenroll {} => "unenroll",
            CommandKind::LostModeOn { .. } => "lost-mode-on",
            CommandKind::LostModeOff {} => "lost-mode-off",
            CommandKind::Locate {} => "locate",
            CommandKind::InstallApp { .. } => "install-app",
            CommandKind::RemoveApp { .. } => "remove-app",
            CommandKind::UpdateApp { .. } => "update-app",
            CommandKind::RunScript { .. } => "run-script",
            CommandKind::CollectInventory {} => "collect-inventory",
            CommandKind::CollectLogs { .. } => "collect-logs",
            CommandKind::CollectFiles { .. } => "collect-files",
            CommandKind::RotateKey { .. } => "rotate-key",
            CommandKind::UpdateOs {} => "update-os",
            CommandKind::UpdateAgent { .. } => "update-agent",
            CommandKind::Message { .. } => "message",
            CommandKind::LoosenPolicy { .. } => "loosen-policy",
        }
    }

    /// Whether a device carries it out only with approvals, whatever its root document says.
    pub const fn is_destructive(&self) -> bool {
        match self {
            CommandKind::Wipe { .. } | CommandKind::Unenroll {} => true,
            CommandKind::Lock { .. }
            | CommandKind::Unlock {}
            | CommandKind::ClearPasscode {}
            | CommandKind::Restart { .. }
            | CommandKind::ShutDown { .. }
            | CommandKind::LostModeOn { .. }
            | CommandKind::LostModeOff {}
            | CommandKind::Locate {}
            | CommandKind::InstallApp { .. }
            | CommandKind::RemoveApp { .. }
            | CommandKind::UpdateApp { .. }
            | CommandKind::RunScript { .. }
            | CommandKind::CollectInventory {}
            | CommandKind::CollectLogs { .. }
            | CommandKind::CollectFiles { .. }
            | CommandKind::RotateKey { .. }
            | CommandKind::UpdateOs {}
            | CommandKind::UpdateAgent { .. }
            | CommandKind::Message { .. }
            | CommandKind::LoosenPolicy { .. } => false,
        }
    }

    /// Whether the server asks for approvals once more devices are meant than the tenant's threshold, though a device
    /// alone would carry it out.
    pub const fn is_destructive_at_scale(&self) -> bool {
        match self {
            CommandKind::RunScript { .. }
            | CommandKind::RemoveApp { .. }
            | CommandKind::ClearPasscode {}
            | CommandKind::ShutDown { .. }
            | CommandKind::LoosenPolicy { .. } => true,
            CommandKind::Wipe { .. }
            | CommandKind::Unenroll {}
            | CommandKind::Lock { .. }
            | CommandKind::Unlock {}
            | CommandKind::Restart { .. }
            | CommandKind::LostModeOn { .. }
            | CommandKind::LostModeOff {}
            | CommandKind::Locate {}
            | CommandKind::InstallApp { .. }
            | CommandKind::UpdateApp { .. }
            | CommandKind::CollectInventory {}
            | CommandKind::CollectLogs { .. }
            | CommandKind::CollectFiles { .. }
            | CommandKind::RotateKey { .. }
            | CommandKind::UpdateOs {}
            | CommandKind::UpdateAgent { .. }
            | CommandKind::Message { .. } => false,
        }
    }

    /// Whether it goes on while the tenant is halted, and however many devices are meant: it only asks, tells or gives back.
    pub const fn is_harmless(&self) -> bool {
        match self {
            CommandKind::Unlock {}
            | CommandKind::LostModeOff {}
            | CommandKind::Locate {}
            | CommandKind::CollectInventory {}
            | CommandKind::CollectLogs { .. }
            | CommandKind::Message { .. } => true,
            CommandKind::Lock { .. }
            | CommandKind::ClearPasscode {}
            | CommandKind::Restart { .. }
            | CommandKind::ShutDown { .. }
            | CommandKind::Wipe { .. }
            | CommandKind::Unenroll {}
            | CommandKind::LostModeOn { .. }
            | CommandKind::InstallApp { .. }
            | CommandKind::RemoveApp { .. }
            | CommandKind::UpdateApp { .. }
            | CommandKind::RunScript { .. }
            | CommandKind::CollectFiles { .. }
            | CommandKind::RotateKey { .. }
            | CommandKind::UpdateOs {}
            | CommandKind::UpdateAgent { .. }
            | CommandKind::LoosenPolicy { .. } => false,
        }
    }

    /// Whether a device can be told this at all.
    pub const fn is_for_devices(&self) -> bool {
        !matches!(self, CommandKind::LoosenPolicy { .. })
    }

    /// Refuses what a device of this ownership cannot be told: for a personal device a full wipe does not exist.
    pub const fn check_for(&self, ownership: Ownership) -> Result<(), InvalidCommand> {
        match (self, ownership) {
            (CommandKind::LoosenPolicy { .. }, _) => Err(InvalidCommand::NotForDevices),
            (CommandKind::Wipe { mode: WipeMode::Full }, Ownership::Personal) => {
                Err(InvalidCommand::Personal)
            }
            (_, Ownership::Personal | Ownership::Company) => Ok(()),
        }
    }

    /// The thing that the command decides, where another type can decide otherwise.
    const fn subject(&self) -> Option<LastWord<'_>> {
        match self {
            CommandKind::Lock { .. } | CommandKind::Unlock {} => Some(LastWord::Lock),
            CommandKind::LostModeOn { .. } | CommandKind::LostModeOff {} => Some(LastWord::LostMode),
            CommandKind::Restart { .. } | CommandKind::ShutDown { .. } => Some(LastWord::Power),
            CommandKind::InstallApp { package, .. }
            | CommandKind::RemoveApp { package }
            | CommandKind::UpdateApp { package } => Some(LastWord::App(package)),
            CommandKind::ClearPasscode {}
            | CommandKind::Wipe { .. }
            | CommandKind::Unenroll {}
            | CommandKind::Locate {}
            | CommandKind::RunScript { .. }
            | CommandKind::CollectInventory {}
            | CommandKind::CollectLogs { .. }
            | CommandKind::CollectFiles { .. }
            | CommandKind::RotateKey { .. }
            | CommandKind::UpdateOs {}
            | CommandKind::UpdateAgent { .. }
            | CommandKind::Message { .. }
            | CommandKind::LoosenPolicy { .. } => None,
        }
    }

    /// Whether this command contradicts an earlier one of the same device while that still waits: the later word on the
    /// same thing counts. The same word again contradicts nothing; the device answers it with `noop`.
    pub fn supersedes(&self, earlier: &CommandKind) -> bool {
        self.type_name() != earlier.type_name()
            && self.subject().is_some_and(|own| earlier.subject() == Some(own))
    }
}

/// A thing about which commands can contradict each other.
#[derive(Debug, PartialEq, Eq)]
enum LastWord<'a> {
    Lock,
    LostMode,
    Power,
    App(&'a PackageName),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(json: &str) -> CommandKind {
        CommandKind::parse(json.as_bytes()).expect("it is a command")
    }

    #[test]
    fn commands_are_bounded_and_strict() {
        let good = [
            r#"{"type":"lock","message":"hi"}"#,
            r#"{"type":"collect-inventory"}"#,
            r#"{"type":"wipe","mode":"full"}"#,
            r#"{"type":"message","text":"Update, please."}"#,
            r#"{"type":"install-app","package":"org.example.app"}"#,
            r#"{"type":"collect-files","paths":["/var/log/syslog"]}"#,
            r#"{"type":"rotate-key","key":"disk-recovery"}"#,
        ];
        for text in good {
            assert!(CommandKind::parse(text.as_bytes()).is_ok(), "{text}");
        }
        let long = format!(r#"{{"type":"lock","message":"{}"}}"#, "x".repeat(257));
        let bad = [
            r#"{"type":"message","text":" "}"#,
            r#"{"type":"message","text":"a\u001b[2J"}"#,
            r#"{"type":"lock","extra":1}"#,
            r#"{"type":"restart","delay_seconds":3601}"#,
            r#"{"type":"shut-down","delay_seconds":3601}"#,
            r#"{"type":"install-app","package":"-o=Dpkg::Pre-Invoke"}"#,
            r#"{"type":"remove-app","package":"a b"}"#,
            r#"{"type":"collect-files","paths":[]}"#,
            r#"{"type":"collect-files","paths":["/a","/a"]}"#,
            r#"{"type":"collect-files","paths":["../etc/shadow"]}"#,
            r#"{"type":"collect-files","paths":["/var/../etc/shadow"]}"#,
            r#"{"type":"collect-logs","since_seconds":0}"#,
            r#"{"type":"run-script","sha256":"abc"}"#,
            r#"{"type":"wipe"}"#,
            long.as_str(),
        ];
        for text in bad {
            assert!(CommandKind::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn m11_a_full_wipe_does_not_exist_for_a_personal_device() {
        let full = kind(r#"{"type":"wipe","mode":"full"}"#);
        let enterprise = kind(r#"{"type":"wipe","mode":"enterprise"}"#);
        assert_eq!(full.check_for(Ownership::Personal), Err(InvalidCommand::Personal));
        assert_eq!(enterprise.check_for(Ownership::Personal), Ok(()));
        assert_eq!(full.check_for(Ownership::Company), Ok(()));
    }

    #[test]
    fn the_later_word_on_the_same_thing_counts() {
        let replaces = |later: &str, earlier: &str| kind(later).supersedes(&kind(earlier));
        assert!(replaces(r#"{"type":"unlock"}"#, r#"{"type":"lock"}"#));
        assert!(replaces(
            r#"{"type":"remove-app","package":"a1"}"#,
            r#"{"type":"install-app","package":"a1"}"#
        ));
        assert!(!replaces(
            r#"{"type":"remove-app","package":"a1"}"#,
            r#"{"type":"install-app","package":"b1"}"#
        ));
        assert!(!replaces(r#"{"type":"lock"}"#, r#"{"type":"restart"}"#));
        assert!(!replaces(
            r#"{"type":"lock","message":"b"}"#,
            r#"{"type":"lock","message":"a"}"#
        ));
        assert!(!replaces(
            r#"{"type":"wipe","mode":"full"}"#,
            r#"{"type":"wipe","mode":"full"}"#
        ));
        assert!(!replaces(
            r#"{"type":"message","text":"b"}"#,
            r#"{"type":"message","text":"a"}"#
        ));
    }

    #[test]
    fn every_type_is_listed_once() {
        let distinct: std::collections::BTreeSet<_> = CommandKind::TYPES.into_iter().collect();
        assert_eq!(distinct.len(), CommandKind::TYPES.len());
        for name in CommandKind::TYPES {
            let error = CommandKind::parse(format!(r#"{{"type":"{name}","?":0}}"#).as_bytes());
            let Err(InvalidCommand::Malformed(text)) = error else {
                panic!("{name} takes any member");
            };
            assert!(!text.contains("unknown variant"), "{name}: {text}");
        }
    }

    #[test]
    fn the_reference_says_of_every_type_when_it_is_a_noop() {
        let page = include_str!("../../../../docs/reference/commands.md");
        let rows: Vec<Vec<&str>> = page
            .lines()
            .filter(|line| line.starts_with("| `"))
            .map(|line| line.split('|').map(str::trim).collect())
            .collect();
        // No device is told to loosen a policy.
        for name in CommandKind::TYPES
            .into_iter()
            .filter(|name| *name != "loosen-policy")
        {
            let word = format!("`{name}`");
            let of_type = |row: &&Vec<&str>| row[1].split([' ', ',']).any(|part| part == word);
            let conditions: Vec<&str> = rows.iter().filter(of_type).map(|row| row[3]).collect();
            assert!(!conditions.is_empty(), "{name} is not in the reference");
            assert!(conditions.iter().all(|condition| !condition.is_empty()), "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn reading_a_command_never_panics_and_reads_back(
            json in r#"\{"type":"(lock|restart|wipe|collect-inventory|message|run-script|install-app|[a-z]{0,5})"(,"(message|text|mode|delay_seconds|package|x)":("[a-z ]{0,5}"|"full"|-?[0-9]{1,12}|null|\[\]))?\}"#,
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
