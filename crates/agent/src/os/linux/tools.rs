//! The one place where the agent starts programs.
//!
//! Programs are named, looked up in fixed folders, given an argument vector and bytes on standard input; there is no
//! shell, no inherited environment and no inherited working folder. Beneath a prefix nothing is ever started.

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ENVIRONMENT_OF_UNIT: [&str; 2] = ["--setenv=LC_ALL=C", "--setenv=DEBIAN_FRONTEND=noninteractive"];
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
const OUTPUT_BYTES_MAX: u64 = 1024 * 1024;
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// What an ordinary program gets; counted in polls, so that no clock is read.
const TIME_MAX: Duration = Duration::from_secs(60);
/// What a unit of systemd's gets besides its own limit, to be killed and cleared away.
const UNIT_GRACE: Duration = Duration::from_secs(10);
/// Where there is this folder, systemd runs the machine (sd_booted(3)).
const SYSTEMD_FOLDER: &str = "/run/systemd/system";
/// How much of a failing program's own words goes into a report.
const COMPLAINT_CHARS_MAX: usize = 300;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ToolError {
    #[error("beneath a root prefix no program is started")]
    Prefix,
    #[error("{0} is not installed")]
    Absent(String),
    #[error("{program} failed ({status}): {complaint}")]
    Failed {
        program: String,
        status: String,
        complaint: String,
    },
    #[error("{program} did not end within {seconds} seconds")]
    TimedOut { program: String, seconds: u64 },
    #[error("{program} could not be run: {source}")]
    Io { program: String, source: std::io::Error },
}

/// Starts programs on the running machine, and on no other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tools {
    real: bool,
}

impl Tools {
    pub(crate) fn new(real: bool) -> Tools {
        Tools { real }
    }

    pub(crate) fn has(&self, program: &str) -> bool {
        self.real && find(program).is_some()
    }

    /// Runs a program to its end; its standard output if it succeeded.
    pub(crate) fn run(&self, program: &str, arguments: &[&str]) -> Result<String, ToolError> {
        self.run_with_input(program, arguments, &[])
    }

    pub(crate) fn run_with_input(
        &self,
        program: &str,
        arguments: &[&str],
        input: &[u8],
    ) -> Result<String, ToolError> {
        self.complete(program, arguments, input, TIME_MAX, read_text)
    }

    /// Runs a program to its end and hands its standard output to `read`, which may stop early.
    pub(crate) fn read<T: Send + 'static>(
        &self,
        program: &str,
        arguments: &[&str],
        read: impl FnOnce(ChildStdout) -> T + Send + 'static,
    ) -> Result<Option<T>, ToolError> {
        self.complete(program, arguments, &[], TIME_MAX, |pipe| Some(read(pipe)))
    }

    /// Whether systemd runs the machine.
    pub(crate) fn has_systemd(&self) -> bool {
        self.has("systemd-run") && Path::new(SYSTEMD_FOLDER).is_dir()
    }

    /// Runs a program as a unit of systemd's, outside of what the agent itself may not touch; where there is no systemd, as
    /// a child of the agent.
    pub(crate) fn run_as_unit(
        &self,
        program: &str,
        arguments: &[&str],
        time_max: Duration,
    ) -> Result<String, ToolError> {
        if !self.has_systemd() {
            return self.complete(program, arguments, &[], time_max, read_text);
        }
        let path = find(program).ok_or_else(|| ToolError::Absent(program.to_owned()))?;
        let limit = format!("--property=RuntimeMaxSec={}", time_max.as_secs());
        let path = path.display().to_string();
        // systemd reads `$$` as `$` (systemd.service(5)).
        let escaped: Vec<String> = arguments
            .iter()
            .map(|argument| argument.replace('$', "$$"))
            .collect();
        let mut unit = vec!["--quiet", "--collect", "--wait", "--pipe", &limit];
        unit.extend(ENVIRONMENT_OF_UNIT);
        unit.extend(["--", &path]);
        unit.extend(escaped.iter().map(String::as_str));
        self.complete("systemd-run", &unit, &[], time_max + UNIT_GRACE, read_text)
    }

    fn complete<T: Default + Send + 'static>(
        &self,
        program: &str,
        arguments: &[&str],
        input: &[u8],
        time_max: Duration,
        read: impl FnOnce(ChildStdout) -> T + Send + 'static,
    ) -> Result<T, ToolError> {
        if !self.real {
            return Err(ToolError::Prefix);
        }
        let path = find(program).ok_or_else(|| ToolError::Absent(program.to_owned()))?;
        let io = |source| ToolError::Io {
            program: program.to_owned(),
            source,
        };
        let mut child = spawn(&path, arguments).map_err(io)?;
        // Reading and writing at once: a program that answers while it is being fed must not block both sides.
        let feed = child.stdin.take().map(|mut pipe| {
            let input = input.to_vec();
            // A program may end without reading its input; its exit status tells.
            std::thread::spawn(move || drop(pipe.write_all(&input)))
        });
        let out = child
            .stdout
            .take()
            .map(|pipe| std::thread::spawn(move || read(pipe)));
        let complaint = child
            .stderr
            .take()
            .map(|pipe| std::thread::spawn(move || read_text(pipe)));
        let status = wait(&mut child, program, time_max)?;
        if let Some(feed) = feed {
            // The thread only writes; nothing in it can panic.
            let _ = feed.join();
        }
        let (out, complaint) = (joined(out), joined(complaint));
        if status.success() {
            return Ok(out);
        }
        Err(ToolError::Failed {
            program: program.to_owned(),
            status: status.to_string(),
            complaint: complaint.trim().chars().take(COMPLAINT_CHARS_MAX).collect(),
        })
    }
}

fn find(program: &str) -> Option<PathBuf> {
    FOLDERS
        .iter()
        .map(|folder| PathBuf::from(folder).join(program))
        .find(|path| path.is_file())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the agent's one place that starts programs: argv only, no shell"
)]
fn spawn(path: &PathBuf, arguments: &[&str]) -> std::io::Result<Child> {
    Command::new(path)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

fn read_text(pipe: impl Read) -> String {
    let mut bytes = Vec::new();
    // What could be read before an error is still the best there is to report.
    let _ = pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn joined<T: Default>(reader: Option<std::thread::JoinHandle<T>>) -> T {
    reader.and_then(|thread| thread.join().ok()).unwrap_or_default()
}

fn wait(child: &mut Child, program: &str, time_max: Duration) -> Result<std::process::ExitStatus, ToolError> {
    let io = |source| ToolError::Io {
        program: program.to_owned(),
        source,
    };
    for _ in 0..time_max.div_duration_f64(POLL_INTERVAL) as u64 {
        if let Some(status) = child.try_wait().map_err(io)? {
            return Ok(status);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    child.kill().map_err(io)?;
    child.wait().map_err(io)?;
    Err(ToolError::TimedOut {
        program: program.to_owned(),
        seconds: time_max.as_secs(),
    })
}

/// A program of somebody else's: it gets what is named here and nothing more, both of its outputs are one stream, and when
/// its time is over it ends with everything that it started.
#[derive(Debug)]
pub(crate) struct Task<'a> {
    /// Absolute.
    pub program: &'a str,
    pub arguments: &'a [String],
    pub environment: &'a [(&'a str, String)],
    pub folder: &'a Path,
    pub time_max: Duration,
    pub output_bytes_max: usize,
    /// What systemd calls it.
    pub unit: &'a str,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Exited(i32),
    Signaled(i32),
    TimedOut,
}

/// What a task printed, at most `output_bytes_max`, and whether there was more.
#[derive(Debug)]
pub(crate) struct TaskEnd {
    pub ending: Ending,
    pub output: Vec<u8>,
    pub has_more: bool,
}

/// Largest file that a task may write.
const TASK_FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
const TASK_FILES_MAX: u64 = 1024;
/// What keeps the output open after the task's end gets this many polls.
const DRAIN_POLLS_MAX: u32 = 50;

impl Tools {
    /// Runs a task to its end or its time's.
    pub(crate) fn run_task(&self, task: &Task<'_>) -> Result<TaskEnd, ToolError> {
        if !self.real {
            return Err(ToolError::Prefix);
        }
        let is_unit = self.has_systemd();
        let name = if is_unit { "systemd-run" } else { task.program };
        let io = |source| ToolError::Io {
            program: name.to_owned(),
            source,
        };
        let (reader, writer) = std::io::pipe().map_err(io)?;
        let output = Arc::new(Mutex::new((Vec::new(), false)));
        let sink = Arc::clone(&output);
        let bytes_max = task.output_bytes_max;
        let mut child = spawn_task(task, is_unit, writer).map_err(io)?;
        let drain = std::thread::spawn(move || drain(reader, bytes_max, &sink));
        if !is_unit {
            limit(&child);
        }
        let waited = wait_or_kill(&mut child, task.time_max, || {
            if is_unit {
                // What it started is in the unit's control group.
                let _ = self.run("systemctl", &["kill", "--signal=SIGKILL", task.unit]);
            }
        });
        let status = waited.map_err(io)?;
        for _ in 0..DRAIN_POLLS_MAX {
            if drain.is_finished() {
                break;
            }
            std::thread::sleep(POLL_INTERVAL);
        }
        let (output, has_more) = output
            .lock()
            .map(|mut output| std::mem::take(&mut *output))
            .unwrap_or_default();
        let ending = match status {
            None => Ending::TimedOut,
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => Ending::Exited(code),
                (None, signal) => Ending::Signaled(signal.unwrap_or_default()),
            },
        };
        Ok(TaskEnd {
            ending,
            output,
            has_more,
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the agent's one place that starts programs: argv only, no shell"
)]
fn spawn_task(task: &Task<'_>, is_unit: bool, writer: std::io::PipeWriter) -> std::io::Result<Child> {
    let mut command = if is_unit {
        let path = find("systemd-run").ok_or(std::io::ErrorKind::NotFound)?;
        let mut command = Command::new(path);
        command
            .args(["--quiet", "--collect", "--wait", "--pipe", "--unit", task.unit])
            .arg(format!("--working-directory={}", task.folder.display()))
            .arg(format!(
                "--property=RuntimeMaxSec={}",
                (task.time_max + UNIT_GRACE).as_secs()
            ))
            .arg(format!("--property=LimitFSIZE={TASK_FILE_BYTES_MAX}"))
            .arg(format!("--property=LimitNOFILE={TASK_FILES_MAX}"))
            .args([
                "--property=LimitCORE=0",
                "--property=MemoryMax=1G",
                "--property=TasksMax=256",
                "--property=OOMPolicy=kill",
            ]);
        for (name, value) in task.environment {
            command.arg(format!("--setenv={name}={value}"));
        }
        command.arg("--").arg(task.program);
        // systemd reads `$$` as `$` (systemd.service(5)).
        command.args(task.arguments.iter().map(|argument| argument.replace('$', "$$")));
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    } else {
        let mut command = Command::new(task.program);
        command
            .args(task.arguments)
            .env_clear()
            .envs(task.environment.iter().map(|(name, value)| (name, value)));
        command
    };
    command
        .current_dir(task.folder)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
}

/// Limits of a task that is no unit. What it started in its first moments has them from the next start on.
fn limit(child: &Child) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let limits = [
        (Resource::Core, 0),
        (Resource::Fsize, TASK_FILE_BYTES_MAX),
        (Resource::Nofile, TASK_FILES_MAX),
    ];
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    for (resource, most) in limits {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        // A task that has ended already has no limits to set.
        let _ = pid.map(|pid| prlimit(Some(pid), resource, limit));
    }
}

fn drain(mut reader: std::io::PipeReader, bytes_max: usize, sink: &Mutex<(Vec<u8>, bool)>) {
    let mut chunk = [0; 8 * 1024];
    while let Ok(count @ 1..) = reader.read(&mut chunk) {
        let Ok(mut sink) = sink.lock() else { return };
        let room = bytes_max.saturating_sub(sink.0.len()).min(count);
        sink.0.extend_from_slice(&chunk[..room]);
        sink.1 |= room < count;
    }
}

/// The status, `None` where the time was over and the whole process group was killed.
fn wait_or_kill(
    child: &mut Child,
    time_max: Duration,
    kill: impl FnOnce(),
) -> std::io::Result<Option<std::process::ExitStatus>> {
    use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let group = group.ok_or(std::io::ErrorKind::NotFound)?;
    let looks = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let mut has_ended = false;
    for _ in 0..time_max.div_duration_f64(POLL_INTERVAL) as u64 {
        has_ended = waitid(WaitId::Pid(group), looks)?.is_some();
        if has_ended {
            break;
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    if !has_ended {
        kill();
    }
    // What the task left running ends with it. The leader is not waited for yet, so that the number of the group cannot be
    // somebody else's.
    let _ = kill_process_group(group, Signal::KILL);
    let status = child.wait()?;
    Ok(has_ended.then_some(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_started_beneath_a_prefix() {
        assert!(matches!(
            Tools::new(false).run("true", &[]),
            Err(ToolError::Prefix)
        ));
    }

    fn task<'a>(arguments: &'a [String], time_max: Duration) -> Task<'a> {
        Task {
            program: "/bin/sh",
            arguments,
            environment: &[],
            folder: Path::new("/"),
            time_max,
            output_bytes_max: 1000,
            unit: "muster-test",
        }
    }

    fn shell(text: &str) -> Vec<String> {
        vec!["-c".to_owned(), text.to_owned()]
    }

    #[test]
    fn a_task_has_an_empty_environment_and_one_output() {
        let script = shell("echo out; echo err >&2; env | grep -v '^PWD=\\|^_=\\|^SHLVL='; exit 3");
        let end = Tools::new(true)
            .run_task(&task(&script, Duration::from_secs(10)))
            .unwrap();
        assert_eq!(end.ending, Ending::Exited(3));
        assert_eq!(String::from_utf8_lossy(&end.output), "out\nerr\n");
    }

    #[test]
    fn a_task_ends_in_time_with_everything_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("alive");
        let late = format!("(sleep 1; touch {}) & sleep 60", file.display());
        let script = shell(&late);
        let end = Tools::new(true)
            .run_task(&task(&script, Duration::from_millis(300)))
            .unwrap();
        assert_eq!(end.ending, Ending::TimedOut);
        let script = shell(&format!("(sleep 1; touch {}) & exit 0", file.display()));
        let end = Tools::new(true)
            .run_task(&task(&script, Duration::from_secs(10)))
            .unwrap();
        assert_eq!(end.ending, Ending::Exited(0));
        let wait = shell("sleep 1.5");
        Tools::new(true)
            .run_task(&task(&wait, Duration::from_secs(10)))
            .unwrap();
        assert!(!file.exists(), "something outlived its task");
    }

    #[test]
    fn an_endless_output_is_cut_and_fills_no_memory() {
        let script = shell("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done");
        let end = Tools::new(true)
            .run_task(&task(&script, Duration::from_millis(500)))
            .unwrap();
        assert_eq!(
            (end.ending, end.output.len(), end.has_more),
            (Ending::TimedOut, 1000, true)
        );
    }

    #[test]
    fn output_failure_and_absence_are_told_apart() {
        let tools = Tools::new(true);
        assert_eq!(tools.run_with_input("cat", &[], b"x; $(id)").unwrap(), "x; $(id)");
        assert!(matches!(tools.run("false", &[]), Err(ToolError::Failed { .. })));
        assert!(matches!(
            tools.run("muster-no-such-program", &[]),
            Err(ToolError::Absent(_))
        ));
    }
}
