//! A server whose every start of a program is written down by strace(1), which sees what no log of the server's would say.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::{pki::peer_is_installed, server::Options};

pub struct Traced {
    folder: TempDir,
}

impl Traced {
    pub async fn new() -> Option<Traced> {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let is_there = peer_is_installed("strace", "command -v strace").await;
        is_there.then_some(Traced { folder })
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("execve")
    }

    /// Options of a server that is watched. With `-D` it stays a child of the test, and with a filter in the kernel it is as fast as
    /// any other.
    pub fn watching(&self, options: Options) -> Options {
        let file = self.file().display().to_string();
        let calls = "trace=execve,execveat";
        let under = [
            "strace",
            "-D",
            "-f",
            "--seccomp-bpf",
            "-A",
            "-o",
            &file,
            "-e",
            calls,
        ];
        Options {
            under: under.map(str::to_owned).into(),
            ..options
        }
    }

    /// The server was started so often, and nothing else was.
    pub fn assert_nothing_but(&self, starts: usize) {
        let text = fs::read_to_string(self.file()).expect("strace wrote something");
        let started: Vec<&str> = text.lines().filter(|line| line.contains("exec")).collect();
        let is_server = |line: &&str| line.contains(r#"/muster", ["#) && line.contains(r#""serve""#);
        let servers = started.iter().copied().filter(is_server).count();
        assert_eq!((servers, started.len()), (starts, starts), "{text}");
    }
}
