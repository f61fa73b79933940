//! The one place where the agent starts programs.
//!
//! Programs are named, looked up in fixed folders, given an argument vector and bytes on standard input; there is no
//! shell, no inherited environment and no inherited working folder. Beneath a prefix nothing is ever started.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
const OUTPUT_BYTES_MAX: u64 = 1024 * 1024;
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// 60 seconds, counted in polls so that no clock is read.
const POLLS_MAX: u32 = 3_000;
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
    #[error("{0} did not end within 60 seconds")]
    TimedOut(String),
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
        let out = child.stdout.take().map(collect);
        let complaint = child.stderr.take().map(collect);
        let status = wait(&mut child, program)?;
        if let Some(feed) = feed {
            // The thread only writes; nothing in it can panic.
            let _ = feed.join();
        }
        let text = |reader: Option<std::thread::JoinHandle<String>>| {
            reader.and_then(|thread| thread.join().ok()).unwrap_or_default()
        };
        let (out, complaint) = (text(out), text(complaint));
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
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

fn collect(pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What could be read before an error is still the best there is to report.
        let _ = pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait(child: &mut Child, program: &str) -> Result<std::process::ExitStatus, ToolError> {
    let io = |source| ToolError::Io {
        program: program.to_owned(),
        source,
    };
    for _ in 0..POLLS_MAX {
        if let Some(status) = child.try_wait().map_err(io)? {
            return Ok(status);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    child.kill().map_err(io)?;
    child.wait().map_err(io)?;
    Err(ToolError::TimedOut(program.to_owned()))
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
