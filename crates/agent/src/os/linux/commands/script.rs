//! `run-script`: a program that the tenant's policy role signed, with what it prints.
//!
//! It runs as root, in a folder of its own that goes with it, with an environment of its own, without standard input; its
//! arguments are arguments, never text of a shell. When its time is over, or when it ends, everything it started ends.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use muster_trust::statement::{Interpreter, MAX_RECEIPT_OUTPUT_BYTES, ScriptStatement};

use super::Site;
use crate::os::linux::tools::{Ending, Task};
use crate::os::{ExecOutcome, Order};

const FOLDER: &str = "scripts";

pub(super) fn run(
    order: &Order<'_>,
    arguments: &[String],
    timeout_seconds: Option<u32>,
    site: Site<'_>,
) -> ExecOutcome {
    let Some(script) = order.script else {
        return ExecOutcome::failed("script_missing", "the command came without its script");
    };
    let interpreter = interpreter(script.interpreter);
    let seconds = timeout_seconds.map_or(script.timeout_seconds, |own| own.min(script.timeout_seconds));
    if !site.root.is_real() {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        return match site.start(interpreter, &arguments, Duration::from_secs(seconds.into())) {
            Ok(_) => ExecOutcome::done(),
            Err(error) => ExecOutcome::failed("script_failed", &error.to_string()),
        };
    }
    if !site.root.exists(interpreter) {
        return ExecOutcome::failed("not_supported", &format!("{interpreter} is not there"));
    }
    let name = order.command_id.to_string();
    let folder = match Folder::make(site.state_dir, &name, &script.text) {
        Ok(folder) => folder,
        Err(error) => return ExecOutcome::failed("write_failed", &error.to_string()),
    };
    perform(script, arguments, seconds, &name, &folder, site)
}

fn perform(
    script: &ScriptStatement,
    arguments: &[String],
    seconds: u32,
    name: &str,
    folder: &Folder,
    site: Site<'_>,
) -> ExecOutcome {
    let mut argv = vec![folder.program.display().to_string()];
    argv.extend_from_slice(arguments);
    let home = folder.work.display().to_string();
    let task = Task {
        program: interpreter(script.interpreter),
        arguments: &argv,
        environment: &[
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            ),
            ("LC_ALL", "C.UTF-8".to_owned()),
            ("HOME", home.clone()),
            ("TMPDIR", home),
            ("MUSTER_COMMAND_ID", name.to_owned()),
        ],
        folder: &folder.work,
        time_max: Duration::from_secs(seconds.into()),
        output_bytes_max: (script.output_bytes_max as usize).min(MAX_RECEIPT_OUTPUT_BYTES),
        unit: &format!("muster-script-{name}.service"),
    };
    let end = match site.tools.run_task(&task) {
        Ok(end) => end,
        Err(error) => return ExecOutcome::failed("script_failed", &error.to_string()),
    };
    let cut = if end.has_more {
        format!("; the output is cut at {} bytes", end.output.len())
    } else {
        String::new()
    };
    let outcome = match end.ending {
        Ending::Exited(0) => ExecOutcome {
            detail: Some(format!("exit code 0{cut}")),
            ..ExecOutcome::done()
        },
        Ending::Exited(code) => ExecOutcome::failed("exit_code", &format!("exit code {code}{cut}")),
        Ending::Signaled(signal) => {
            ExecOutcome::failed("signaled", &format!("ended by signal {signal}{cut}"))
        }
        Ending::TimedOut => ExecOutcome::failed("timed_out", &format!("ended after {seconds} seconds{cut}")),
    };
    ExecOutcome {
        output: Some(String::from_utf8_lossy(&end.output).into_owned()),
        ..outcome
    }
}

const fn interpreter(interpreter: Interpreter) -> &'static str {
    match interpreter {
        Interpreter::Sh => "/bin/sh",
        Interpreter::Bash => "/bin/bash",
        Interpreter::Python3 => "/usr/bin/python3",
    }
}

/// The script's own folder; it goes when it is dropped.
struct Folder {
    whole: PathBuf,
    program: PathBuf,
    work: PathBuf,
}

impl Folder {
    /// What a crash left of an earlier one goes first.
    fn make(state_dir: &Path, name: &str, text: &str) -> std::io::Result<Folder> {
        let all = state_dir.join(FOLDER);
        let _ = std::fs::remove_dir_all(&all);
        let whole = all.join(name);
        let folder = Folder {
            program: whole.join("script"),
            work: whole.join("work"),
            whole: all,
        };
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder.work)?;
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&folder.program)?;
        file.write_all(text.as_bytes())?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.whole) {
            tracing::warn!(%error, "what a script left behind stays until the next script");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::linux::files::Root;
    use crate::os::linux::managed::ManagedStore;
    use crate::os::linux::tools::Tools;
    use muster_model::command::{CommandKind, ReceiptOutcome};
    use muster_model::id::{CommandId, TenantId};
    use muster_model::time::Timestamp;

    fn script(interpreter: Interpreter, text: &str) -> ScriptStatement {
        ScriptStatement {
            tenant: TenantId::generate(Timestamp::from_micros(1), [1; 10]),
            name: "test".parse().unwrap(),
            interpreter,
            text: text.to_owned(),
            timeout_seconds: 5,
            output_bytes_max: 500,
        }
    }

    /// What the running machine answers; the script touches its own folder only.
    fn answer(script: &ScriptStatement, arguments: &[&str], timeout_seconds: Option<u32>) -> ExecOutcome {
        let state = tempfile::tempdir().unwrap();
        let (root, store) = (Root::running_machine(), ManagedStore::new(state.path()));
        let records = std::sync::Mutex::new(());
        let site = Site {
            root: &root,
            tools: Tools::new(true),
            store: &store,
            records: &records,
            state_dir: state.path(),
        };
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let kind = CommandKind::RunScript {
            sha256: "0".repeat(64).parse().unwrap(),
            arguments: arguments.clone(),
            timeout_seconds,
        };
        let order = Order {
            command_id: CommandId::generate(Timestamp::from_micros(1), [1; 10]),
            kind: &kind,
            script: Some(script),
        };
        let outcome = run(&order, &arguments, timeout_seconds, site);
        assert!(!state.path().join(FOLDER).exists(), "the folder stayed");
        outcome
    }

    #[test]
    fn a_script_gets_its_arguments_and_gives_its_output() {
        let text = "printf '[%s]' \"$@\"; echo; echo to-stderr >&2; pwd; ls -A; echo \"$HOME\"";
        let outcome = answer(
            &script(Interpreter::Sh, text),
            &["a b", "$(id)", "; id", ""],
            None,
        );
        assert_eq!(outcome.outcome, ReceiptOutcome::Done, "{outcome:?}");
        let output = outcome.output.unwrap();
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines[..2], ["[a b][$(id)][; id][]", "to-stderr"]);
        assert!(lines[2].ends_with("/work") && lines[3] == lines[2], "{lines:?}");
    }

    #[test]
    fn the_exit_code_and_a_cut_output_are_told() {
        let outcome = answer(
            &script(Interpreter::Bash, "for i in {1..1000}; do echo $i; done; exit 7"),
            &[],
            None,
        );
        assert_eq!(outcome.code.as_deref(), Some("exit_code"));
        assert_eq!(
            outcome.detail.as_deref(),
            Some("exit code 7; the output is cut at 500 bytes")
        );
        assert_eq!(outcome.output.unwrap().len(), 500);
    }

    #[test]
    fn the_shorter_of_the_two_times_counts() {
        let outcome = answer(&script(Interpreter::Sh, "echo before; sleep 60"), &[], Some(1));
        assert_eq!(outcome.code.as_deref(), Some("timed_out"));
        assert_eq!(outcome.output.as_deref(), Some("before\n"));
    }

    #[test]
    fn what_is_not_text_is_told_as_far_as_it_is() {
        let outcome = answer(&script(Interpreter::Sh, r"printf 'a\377b'"), &[], None);
        assert_eq!(outcome.output.as_deref(), Some("a\u{fffd}b"));
    }

    #[test]
    fn nothing_of_the_agents_surroundings_reaches_a_script() {
        let outcome = answer(
            &script(Interpreter::Sh, "env | cut -d= -f1 | sort | tr '\\n' ' '"),
            &[],
            None,
        );
        let names = outcome.output.unwrap();
        assert!(!names.contains("CARGO"), "{names}");
        for name in names.split_whitespace() {
            let own = [
                "HOME",
                "LC_ALL",
                "MUSTER_COMMAND_ID",
                "PATH",
                "PWD",
                "TMPDIR",
                "_",
                "SHLVL",
                "OLDPWD",
            ];
            assert!(own.contains(&name), "{name}");
        }
    }
}
