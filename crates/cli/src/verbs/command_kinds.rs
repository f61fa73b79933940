//! `muster command …`: one verb for each further type of command.

use muster_model::command::{CommandKind, RotatedKey};
use muster_model::text::{FilePath, InvalidText, PackageName, PackageVersion, Sha256Text, UserMessage};

use super::command::SendOptions;
use crate::CliError;

/// What one device is told. DEVICE is a device's id, name, serial number or hardware UUID.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum KindCommand {
    /// Unlock what was locked
    #[command(after_help = "Examples:\n  muster command unlock laptop-7 --wait")]
    Unlock {
        device: String,
        #[command(flatten)]
        options: SendOptions,
    },
    /// Make everybody on a device choose a new passcode at the next sign-in
    #[command(after_help = "Examples:\n  muster command clear-passcode laptop-7 --wait")]
    ClearPasscode {
        device: String,
        #[command(flatten)]
        options: SendOptions,
    },
    /// Switch a device off
    #[command(after_help = "Examples:\n  muster command shut-down laptop-7 --delay-seconds 60 --wait")]
    ShutDown {
        device: String,
        /// Wait on the device before it goes off, at most 3600
        #[arg(long, value_name = "SECONDS")]
        delay_seconds: Option<u32>,
        #[command(flatten)]
        options: SendOptions,
    },
    /// End the management of a device: it forgets what it was given; people have to approve it
    #[command(after_help = "Examples:\n  muster command unenroll laptop-7 --yes")]
    Unenroll {
        device: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        options: SendOptions,
    },
    /// Lock a lost device to a screen that says whom to call
    #[command(
        after_help = "Examples:\n  muster command lost-mode-on laptop-7 --message 'Reward for the finder' --phone '+1 555 \
        0100'"
    )]
    LostModeOn {
        device: String,
        /// At most 256 characters
        #[arg(long, value_name = "TEXT")]
        message: Option<String>,
        /// Whom to call
        #[arg(long, value_name = "NUMBER")]
        phone: Option<String>,
        #[command(flatten)]
        options: SendOptions,
    },
    /// End lost mode
    #[command(after_help = "Examples:\n  muster command lost-mode-off laptop-7 --wait")]
    LostModeOff {
        device: String,
        #[command(flatten)]
        options: SendOptions,
    },
    /// Ask a device in lost mode where it is
    #[command(
        after_help = "Examples:\n  muster command locate laptop-7 --wait\n  muster command output cmd_…"
    )]
    Locate {
        device: String,
        #[command(flatten)]
        options: SendOptions,
    },
    /// Install a package or app
    #[command(
        after_help = "Examples:\n  muster command install-app laptop-7 zsh --wait\n  muster command install-app laptop-7 zsh \
        --package-version 5.9-4"
    )]
    InstallApp {
        device: String,
        package: String,
        /// This version, not the newest
        #[arg(long, value_name = "VERSION")]
        package_version: Option<String>,
        #[command(flatten)]
        options: SendOptions,
    },
    /// Remove a package or app
    #[command(after_help = "Examples:\n  muster command remove-app laptop-7 zsh --wait")]
    RemoveApp {
        device: String,
        package: String,
        #[command(flatten)]
        options: SendOptions,
    },
    /// Bring a package or app to its newest version
    #[command(after_help = "Examples:\n  muster command update-app laptop-7 firefox-esr --wait")]
    UpdateApp {
        device: String,
        package: String,
        #[command(flatten)]
        options: SendOptions,
    },
    /// Run a script of `muster script list`
    #[command(
        after_help = "Examples:\n  muster command run-script laptop-7 3f2a… --wait\n  muster command run-script laptop-7 3f2a… \
        --timeout-seconds 30 -- first 'second argument'"
    )]
    RunScript {
        device: String,
        /// SHA-256 of the signed script
        sha256: String,
        /// What the script gets, after `--`
        #[arg(last = true)]
        arguments: Vec<String>,
        /// Less than the script's own limit
        #[arg(long, value_name = "SECONDS")]
        timeout_seconds: Option<u32>,
        #[command(flatten)]
        options: SendOptions,
    },
    /// Fetch the system's log of the last hours
    #[command(
        after_help = "Examples:\n  muster command collect-logs laptop-7 --since-seconds 3600 --wait\n  muster command output \
        cmd_…"
    )]
    CollectLogs {
        device: String,
        /// At most seven days; one day unless given
        #[arg(long, value_name = "SECONDS")]
        since_seconds: Option<u32>,
        #[command(flatten)]
        options: SendOptions,
    },
    /// Fetch files that anybody on the device may read, and logs
    #[command(
        after_help = "Examples:\n  muster command collect-files laptop-7 /etc/os-release /var/log/dpkg.log --wait\n  muster \
        command output cmd_… --out files.tar.gz"
    )]
    CollectFiles {
        device: String,
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<String>,
        #[command(flatten)]
        options: SendOptions,
    },
    /// Replace a key of a device
    #[command(after_help = "Examples:\n  muster command rotate-key laptop-7 certificate --wait")]
    RotateKey {
        device: String,
        #[arg(value_enum)]
        key: Key,
        #[command(flatten)]
        options: SendOptions,
    },
    /// Install the updates of the operating system that are there
    #[command(after_help = "Examples:\n  muster command update-os laptop-7 --wait --timeout 3600")]
    UpdateOs {
        device: String,
        #[command(flatten)]
        options: SendOptions,
    },
    /// Bring the agent of a device to a version
    #[command(after_help = "Examples:\n  muster command update-agent laptop-7 0.2.0-1 --wait")]
    UpdateAgent {
        device: String,
        version: String,
        #[command(flatten)]
        options: SendOptions,
    },
}

/// Which key is replaced.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Key {
    /// The device certificate.
    Certificate,
    /// The recovery key of the disk encryption.
    DiskRecovery,
}

/// A command for one device, as the line asks for it.
#[derive(Debug)]
pub struct Order {
    pub device: String,
    pub kind: CommandKind,
    pub options: SendOptions,
    /// What a person is asked first, unless the line answers.
    pub question: Option<String>,
}

impl KindCommand {
    /// Reads the arguments by the rules that the server and the device use.
    pub fn order(self) -> Result<Order, CliError> {
        let plain = |device, kind, options| Order {
            device,
            kind,
            options,
            question: None,
        };
        Ok(match self {
            Self::Unlock { device, options } => plain(device, CommandKind::Unlock {}, options),
            Self::ClearPasscode { device, options } => plain(device, CommandKind::ClearPasscode {}, options),
            Self::ShutDown {
                device,
                delay_seconds,
                options,
            } => plain(device, CommandKind::ShutDown { delay_seconds }, options),
            Self::Unenroll { device, yes, options } => Order {
                question: (!yes).then(|| format!("This ends the management of {device}.")),
                device,
                kind: CommandKind::Unenroll {},
                options,
            },
            Self::LostModeOn {
                device,
                message,
                phone,
                options,
            } => {
                let text = |text: Option<String>, what: &str| {
                    text.map(|text| read(UserMessage::parse(&text), what)).transpose()
                };
                let (message, phone) = (text(message, "--message")?, text(phone, "--phone")?);
                plain(device, CommandKind::LostModeOn { message, phone }, options)
            }
            Self::LostModeOff { device, options } => plain(device, CommandKind::LostModeOff {}, options),
            Self::Locate { device, options } => plain(device, CommandKind::Locate {}, options),
            Self::InstallApp {
                device,
                package,
                package_version,
                options,
            } => {
                let version = package_version
                    .map(|version| read(PackageVersion::parse(&version), "--package-version"))
                    .transpose()?;
                let package = read(PackageName::parse(&package), "PACKAGE")?;
                plain(device, CommandKind::InstallApp { package, version }, options)
            }
            Self::RemoveApp {
                device,
                package,
                options,
            } => {
                let package = read(PackageName::parse(&package), "PACKAGE")?;
                plain(device, CommandKind::RemoveApp { package }, options)
            }
            Self::UpdateApp {
                device,
                package,
                options,
            } => {
                let package = read(PackageName::parse(&package), "PACKAGE")?;
                plain(device, CommandKind::UpdateApp { package }, options)
            }
            Self::RunScript {
                device,
                sha256,
                arguments,
                timeout_seconds,
                options,
            } => {
                let kind = CommandKind::RunScript {
                    sha256: read(Sha256Text::parse(&sha256), "SHA256")?,
                    arguments,
                    timeout_seconds,
                };
                plain(device, kind, options)
            }
            Self::CollectLogs {
                device,
                since_seconds,
                options,
            } => plain(device, CommandKind::CollectLogs { since_seconds }, options),
            Self::CollectFiles {
                device,
                paths,
                options,
            } => {
                let paths = paths
                    .iter()
                    .map(|path| read(FilePath::parse(path), "PATH"))
                    .collect::<Result<_, _>>()?;
                plain(device, CommandKind::CollectFiles { paths }, options)
            }
            Self::RotateKey { device, key, options } => {
                let key = match key {
                    Key::Certificate => RotatedKey::Certificate,
                    Key::DiskRecovery => RotatedKey::DiskRecovery,
                };
                plain(device, CommandKind::RotateKey { key }, options)
            }
            Self::UpdateOs { device, options } => plain(device, CommandKind::UpdateOs {}, options),
            Self::UpdateAgent {
                device,
                version,
                options,
            } => {
                let version = read(PackageVersion::parse(&version), "VERSION")?;
                plain(device, CommandKind::UpdateAgent { version }, options)
            }
        })
    }
}

fn read<T>(parsed: Result<T, InvalidText>, what: &str) -> Result<T, CliError> {
    parsed.map_err(|why| CliError::Usage(format!("{what} {why}")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        kind: KindCommand,
    }

    fn order(line: &[&str]) -> Result<Order, CliError> {
        let line = Line::try_parse_from(std::iter::once(&"command").chain(line)).expect("it parses");
        line.kind.order()
    }

    #[test]
    fn a_line_becomes_a_command() {
        let json = |line: &[&str]| serde_json::to_value(order(line).expect("valid").kind).expect("json");
        assert_eq!(
            json(&["install-app", "d", "zsh", "--package-version", "5.9-4"]),
            serde_json::json!({"type": "install-app", "package": "zsh", "version": "5.9-4"})
        );
        let digest = "a".repeat(64);
        assert_eq!(
            json(&[
                "run-script",
                "d",
                &digest,
                "--timeout-seconds",
                "5",
                "--",
                "-x",
                "a b"
            ]),
            serde_json::json!({
                "type": "run-script", "sha256": digest, "arguments": ["-x", "a b"], "timeout_seconds": 5
            })
        );
        assert_eq!(
            json(&["rotate-key", "d", "disk-recovery"]),
            serde_json::json!({"type": "rotate-key", "key": "disk-recovery"})
        );
        assert!(order(&["unenroll", "d"]).expect("valid").question.is_some());
        assert!(
            order(&["unenroll", "d", "--yes"])
                .expect("valid")
                .question
                .is_none()
        );
    }

    #[test]
    fn what_no_device_would_take_is_not_sent() {
        for line in [
            &["remove-app", "d", "a;b"][..],
            &["collect-files", "d", "../etc/shadow"],
            &["run-script", "d", "abc"],
            &["update-agent", "d", "=1"],
            &["lost-mode-on", "d", "--message", ""],
        ] {
            assert!(matches!(order(line), Err(CliError::Usage(_))), "{line:?}");
        }
    }
}
