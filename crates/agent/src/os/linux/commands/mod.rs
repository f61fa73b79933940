//! One-shot commands on the machine, one file per family.
//!
//! Beneath a prefix a command changes files as it would on the machine; where a program would be started, its argument
//! vector is written to [`STARTED_FILE`] instead, and the running machine is left alone.

mod apps;
mod collect;
mod lost;
mod passcode;
mod place;
mod power;
mod script;
mod sessions;
mod volumes;
mod wipe;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use muster_model::command::{CommandKind, RotatedKey};
use muster_model::settings::SettingValue;

use super::files::Root;
use super::managed::ManagedStore;
use super::tools::{ToolError, Tools};
use crate::os::{ExecOutcome, Order};

/// What would have been started beneath a prefix: one argument vector per line, as a JSON array.
pub(crate) const STARTED_FILE: &str = "/run/muster/started";
/// Older lines go where the file would grow beyond this.
const STARTED_BYTES_MAX: usize = 64 * 1024;
/// What apt and dpkg hold while they work.
const PACKAGE_LOCKS: [&str; 2] = ["/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock"];

/// What a command may look at and change.
#[derive(Clone, Copy)]
pub(crate) struct Site<'m> {
    pub root: &'m Root,
    pub tools: Tools,
    pub store: &'m ManagedStore,
    /// Held by whoever changes what [`ManagedStore`] keeps.
    pub records: &'m Mutex<()>,
    /// The agent's own folder: nothing in it is ever sent.
    pub state_dir: &'m Path,
}

impl Site<'_> {
    /// Runs a program outside of the agent's sandbox, or writes down beneath a prefix what would have run.
    fn start(&self, program: &str, arguments: &[&str], time_max: Duration) -> Result<String, ToolError> {
        if self.root.is_real() {
            return self.tools.run_as_unit(program, arguments, time_max);
        }
        let line = serde_json::to_string(&[&[program], arguments].concat())
            .expect("a list of texts has a JSON form");
        let before = self.root.read(STARTED_FILE).ok().flatten().unwrap_or_default();
        let room = STARTED_BYTES_MAX.saturating_sub(line.len() + 1);
        let kept = &before[before.floor_char_boundary(before.len().saturating_sub(room))..];
        let text = format!("{kept}{line}\n");
        self.root
            .write(STARTED_FILE, text.as_bytes(), 0o600)
            .map(|()| String::new())
            .map_err(|error| ToolError::Io {
                program: program.to_owned(),
                source: std::io::Error::other(error),
            })
    }

    /// Why nothing can be installed or removed, or the machine not be switched off, at this moment.
    fn packages_busy(&self) -> Option<ExecOutcome> {
        let busy = PACKAGE_LOCKS.iter().any(|path| self.root.is_locked(path));
        busy.then(|| ExecOutcome::not_now("packages_busy", "apt or dpkg is at work"))
    }
}

/// Carries a command out. What needs the server is not done here.
pub(crate) fn execute(order: &Order<'_>, site: Site<'_>) -> ExecOutcome {
    match order.kind {
        CommandKind::Lock { message } => sessions::lock(message.as_deref(), site),
        CommandKind::Unlock {} => sessions::unlock(site),
        CommandKind::Message { text } => sessions::message(text.as_str(), site),
        CommandKind::ClearPasscode {} => passcode::clear(site),
        CommandKind::Restart { delay_seconds } => {
            power::plan(power::Power::Restart, delay_seconds.unwrap_or(0), site)
        }
        CommandKind::ShutDown { delay_seconds } => {
            power::plan(power::Power::ShutDown, delay_seconds.unwrap_or(0), site)
        }
        CommandKind::Wipe { mode } => wipe::wipe(*mode, site),
        CommandKind::Unenroll {} => wipe::unenroll(site),
        CommandKind::LostModeOn { message, phone } => lost::on(message.as_ref(), phone.as_ref(), site),
        CommandKind::LostModeOff {} => lost::off(site),
        CommandKind::Locate {} => place::locate(site),
        CommandKind::InstallApp { package, version } => apps::install(package, version.as_ref(), site),
        CommandKind::RemoveApp { package } => apps::remove(package, site),
        CommandKind::UpdateApp { package } => apps::update(package, site),
        CommandKind::UpdateOs {} => apps::update_system(site),
        CommandKind::UpdateAgent { version } => apps::update_agent(version, site),
        CommandKind::RunScript {
            arguments,
            timeout_seconds,
            ..
        } => script::run(order, arguments, *timeout_seconds, site),
        CommandKind::CollectLogs { since_seconds } => collect::logs(*since_seconds, site),
        CommandKind::CollectFiles { paths } => collect::files(paths, site),
        CommandKind::CollectInventory {} => ExecOutcome::done(),
        CommandKind::RotateKey {
            key: RotatedKey::Certificate,
        } => ExecOutcome::done(),
        CommandKind::RotateKey {
            key: RotatedKey::DiskRecovery,
        } => ExecOutcome::failed(
            "not_supported",
            "this agent has put no recovery key in escrow, so there is none to replace",
        ),
        // Its statement is refused before it comes here.
        CommandKind::LoosenPolicy { .. } => {
            ExecOutcome::failed("not_supported", "this is nothing that a device carries out")
        }
    }
}

/// Whether the machine is already as the command would leave it.
pub(crate) fn already_true(kind: &CommandKind, site: Site<'_>) -> bool {
    match kind {
        CommandKind::Lock { message } => sessions::is_locked(message.as_deref(), site),
        CommandKind::Unlock {} => sessions::is_unlocked(site),
        CommandKind::ClearPasscode {} => passcode::is_cleared(site),
        CommandKind::Restart { .. } => power::is_planned(power::Power::Restart, site),
        CommandKind::ShutDown { .. } => power::is_planned(power::Power::ShutDown, site),
        CommandKind::LostModeOn { message, phone } => lost::is_on(message.as_ref(), phone.as_ref(), site),
        CommandKind::LostModeOff {} => !lost::is_lost(site.root),
        CommandKind::InstallApp { package, version } => apps::is_installed(package, version.as_ref(), site),
        CommandKind::RemoveApp { package } => !apps::is_installed(package, None, site),
        CommandKind::UpdateAgent { version } => apps::runs_agent(version, site),
        // The device core knows whether it was wiped; what is newest, only the archives know.
        CommandKind::Wipe { .. }
        | CommandKind::Unenroll {}
        | CommandKind::UpdateApp { .. }
        | CommandKind::UpdateOs {} => false,
        CommandKind::Locate {}
        | CommandKind::RunScript { .. }
        | CommandKind::CollectInventory {}
        | CommandKind::CollectLogs { .. }
        | CommandKind::CollectFiles { .. }
        | CommandKind::RotateKey { .. }
        | CommandKind::Message { .. }
        | CommandKind::LoosenPolicy { .. } => false,
    }
}

/// No setting at all: what a machine has that is not managed.
pub(crate) fn nothing() -> BTreeMap<String, SettingValue> {
    BTreeMap::new()
}

/// A file could not be written.
fn write_failed(error: &super::files::FileError) -> ExecOutcome {
    ExecOutcome::failed("write_failed", &error.to_string())
}

#[cfg(test)]
mod test_lock {
    //! Somebody else who works on the packages: a record lock is asked of another process only.

    use std::io::Read as _;
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    const HOLD: &str = "import fcntl, sys, time\nf = open(sys.argv[1], 'r+')\nfcntl.lockf(f, fcntl.LOCK_EX)\n\
                        print('held', flush=True)\ntime.sleep(60)\n";

    #[expect(
        clippy::disallowed_methods,
        reason = "a test harness starts the other program"
    )]
    pub(crate) fn hold(path: &Path) -> Option<Child> {
        let started = Command::new("/usr/bin/python3")
            .args(["-c", HOLD])
            .arg(path)
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut child) = started else {
            eprintln!("SKIPPED: there is no python3");
            return None;
        };
        let mut word = [0; 4];
        child.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
        Some(child)
    }
}

#[cfg(test)]
mod test_site {
    //! A folder that stands for a machine.

    use super::*;

    pub(crate) struct TestSite {
        folder: tempfile::TempDir,
        state: tempfile::TempDir,
        pub root: Root,
        store: ManagedStore,
        records: Mutex<()>,
    }

    impl TestSite {
        pub(crate) fn new() -> TestSite {
            let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            TestSite {
                root: Root::new(folder.path()),
                store: ManagedStore::new(state.path()),
                folder,
                state,
                records: Mutex::new(()),
            }
        }

        pub(crate) fn with(self, path: &str, text: &str) -> TestSite {
            self.put(path, text);
            self
        }

        pub(crate) fn put(&self, path: &str, text: &str) {
            self.root.write(path, text.as_bytes(), 0o644).unwrap();
        }

        pub(crate) fn text(&self, path: &str) -> String {
            self.root.read(path).unwrap().unwrap_or_default()
        }

        pub(crate) fn folder(&self) -> &Path {
            self.folder.path()
        }

        pub(crate) fn site(&self) -> Site<'_> {
            Site {
                root: &self.root,
                tools: Tools::new(false),
                store: &self.store,
                records: &self.records,
                state_dir: self.state.path(),
            }
        }

        /// What the machine answers to a command, as the agent asks it.
        pub(crate) fn answer(&self, json: &str) -> ExecOutcome {
            let kind = CommandKind::parse(json.as_bytes()).unwrap();
            if already_true(&kind, self.site()) {
                return ExecOutcome::noop("already so");
            }
            let order = Order {
                command_id: muster_model::id::CommandId::generate(
                    muster_model::time::Timestamp::from_micros(1),
                    [1; 10],
                ),
                kind: &kind,
                script: None,
            };
            execute(&order, self.site())
        }

        /// The argument vectors that would have been started, oldest first.
        pub(crate) fn started(&self) -> Vec<Vec<String>> {
            self.text(STARTED_FILE)
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::test_site::TestSite;
    use super::*;
    use muster_model::command::ReceiptOutcome;

    #[test]
    fn every_command_leaves_the_running_machine_alone_beneath_a_prefix() {
        let commands = [
            r#"{"type":"lock"}"#,
            r#"{"type":"unlock"}"#,
            r#"{"type":"clear-passcode"}"#,
            r#"{"type":"restart"}"#,
            r#"{"type":"shut-down"}"#,
            r#"{"type":"wipe","mode":"enterprise"}"#,
            r#"{"type":"unenroll"}"#,
            r#"{"type":"lost-mode-on","message":"Call us"}"#,
            r#"{"type":"locate"}"#,
            r#"{"type":"lost-mode-off"}"#,
            r#"{"type":"install-app","package":"zsh"}"#,
            r#"{"type":"remove-app","package":"zsh"}"#,
            r#"{"type":"update-app","package":"zsh"}"#,
            r#"{"type":"collect-inventory"}"#,
            r#"{"type":"collect-logs"}"#,
            r#"{"type":"collect-files","paths":["/etc/hostname"]}"#,
            r#"{"type":"rotate-key","key":"disk-recovery"}"#,
            r#"{"type":"update-os"}"#,
            r#"{"type":"update-agent","version":"9.9"}"#,
            r#"{"type":"message","text":"hi"}"#,
            r#"{"type":"wipe","mode":"full"}"#,
        ];
        let machine = TestSite::new();
        for json in commands {
            let outcome = machine.answer(json);
            let why = outcome.detail.unwrap_or_default();
            assert!(!why.contains("prefix no program"), "{json}: {why}");
        }
    }

    /// How the condition of a type for `noop` is tested.
    enum Condition {
        /// After these commands, the last one does nothing more.
        After(&'static [&'static str]),
        /// It never is: the command twice.
        Never(&'static str),
        /// Only archives or sessions of a running machine say: by `apps::nothing_newer_is_a_noop` and
        /// `sessions::where_nobody_is_signed_in_a_lock_and_a_message_are_noops`.
        OfRunningMachine,
        /// No device is told this.
        OfServer,
        /// The device core knows: `m10_a_wiped_device_obeys_nobody_and_goes_when_its_receipt_has_arrived`.
        OfCore,
    }

    fn condition(type_name: &str) -> Condition {
        use Condition::{After, Never, OfCore, OfRunningMachine, OfServer};
        match type_name {
            "lock" => After(&[r#"{"type":"lock","message":"a"}"#; 2]),
            "unlock" => After(&[
                r#"{"type":"lock"}"#,
                r#"{"type":"unlock"}"#,
                r#"{"type":"unlock"}"#,
            ]),
            "clear-passcode" => After(&[r#"{"type":"clear-passcode"}"#; 2]),
            "restart" => After(&[r#"{"type":"restart","delay_seconds":60}"#; 2]),
            "shut-down" => After(&[r#"{"type":"shut-down"}"#; 2]),
            "lost-mode-on" => After(&[r#"{"type":"lost-mode-on","message":"Call","phone":"112"}"#; 2]),
            "lost-mode-off" => After(&[r#"{"type":"lost-mode-off"}"#]),
            "install-app" => After(&[r#"{"type":"install-app","package":"bash","version":"5.2-1"}"#]),
            "remove-app" => After(&[r#"{"type":"remove-app","package":"zsh"}"#]),
            "update-agent" => After(&[r#"{"type":"update-agent","version":"7.7-1"}"#]),
            "loosen-policy" => OfServer,
            "wipe" | "unenroll" => OfCore,
            "update-app" | "update-os" | "message" => OfRunningMachine,
            "locate" => Never(r#"{"type":"locate"}"#),
            "run-script" => Never(
                r#"{"type":"run-script","sha256":"0000000000000000000000000000000000000000000000000000000000000000"}"#,
            ),
            "collect-inventory" => Never(r#"{"type":"collect-inventory"}"#),
            "collect-logs" => Never(r#"{"type":"collect-logs"}"#),
            "collect-files" => Never(r#"{"type":"collect-files","paths":["/etc/os-release"]}"#),
            "rotate-key" => Never(r#"{"type":"rotate-key","key":"certificate"}"#),
            other => panic!("nobody has said when {other} is a noop"),
        }
    }

    #[test]
    fn every_type_has_a_condition_for_noop_under_which_nothing_is_started() {
        for type_name in CommandKind::TYPES {
            let machine = TestSite::new()
                .with(
                    "/var/lib/dpkg/status",
                    "Package: bash\nStatus: install ok installed\nVersion: 5.2-1\n\n\
                     Package: muster-agent\nStatus: install ok installed\nVersion: 7.7-1\n\n",
                )
                .with("/etc/passwd", "ada:x:1000:1000::/home/ada:/bin/bash\n")
                .with("/etc/shadow", "ada:$y$a:19000:0:99999:7:::\n");
            match condition(type_name) {
                Condition::After(commands) => {
                    let (last, before) = commands.split_last().unwrap();
                    for json in before {
                        let outcome = machine.answer(json);
                        assert_eq!(outcome.outcome, ReceiptOutcome::Done, "{json}: {outcome:?}");
                    }
                    let started = machine.started();
                    let outcome = machine.answer(last);
                    assert_eq!(outcome.outcome, ReceiptOutcome::Noop, "{last}: {outcome:?}");
                    assert_eq!(machine.started(), started, "{last}");
                    let kind = CommandKind::parse(last.as_bytes()).unwrap();
                    assert_eq!(kind.type_name(), type_name);
                }
                Condition::Never(json) => {
                    for _ in 0..2 {
                        assert_ne!(machine.answer(json).outcome, ReceiptOutcome::Noop, "{json}");
                    }
                }
                Condition::OfRunningMachine | Condition::OfCore | Condition::OfServer => {}
            }
        }
    }

    #[test]
    fn what_would_be_started_is_written_down_and_bounded() {
        let machine = TestSite::new();
        for number in 0..2000 {
            let argument = format!("{number}-{}", "x".repeat(50));
            machine
                .site()
                .start("true", &[&argument], Duration::from_secs(1))
                .unwrap();
        }
        let text = machine.text(STARTED_FILE);
        assert!(text.len() <= STARTED_BYTES_MAX);
        assert!(text.contains("1999-x") && !text.contains("\"0-x"));
    }

    #[test]
    fn a_recovery_key_that_nobody_keeps_is_not_replaced() {
        let outcome = TestSite::new().answer(r#"{"type":"rotate-key","key":"disk-recovery"}"#);
        assert_eq!(
            (outcome.outcome, outcome.code.as_deref()),
            (ReceiptOutcome::Failed, Some("not_supported"))
        );
    }
}
