//! A machine whose root is a folder and whose programs are the real ones: the agent runs there without a prefix, and what it
//! starts is started. Needs root, for mounts of its own.

use std::{fs, path::PathBuf, process::Stdio};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Child;
use uuid::Uuid;

use super::{
    api::Api,
    device::token_for,
    server::{AdminFile, agent_program, everything, program, tool},
};

/// Folders of the host that the machine has too; its state and its configuration are its own.
const SHARED: [&str; 3] = ["usr", "proc", "dev"];
/// Mounts in a name space of their own, goes there, and becomes the agent. `$1` is the root, `$2` the agent.
const ENTER: &str = r#"set -e
root=$1; agent=$2; shift 2
for name in usr proc dev; do mount --rbind "/$name" "$root/$name"; done
mount --bind "$agent" "$root/opt/muster-agent"
exec chroot "$root" /opt/muster-agent "$@"
"#;

/// A machine in a folder. Its agent is killed when the test ends.
pub struct Cell {
    folder: TempDir,
    agent: Option<Child>,
    /// `dev_…`.
    pub device: String,
}

impl Cell {
    /// An enrolled machine whose agent runs; none where this cannot be done, said loudly.
    pub async fn running(api: &Api, admin: &AdminFile) -> Option<Cell> {
        let can = tool("unshare", &["--mount", "true"]).await;
        if !can.status.success() {
            crate::agent::skip("no mounts can be made here (not root)");
            return None;
        }
        let folder = tempfile::Builder::new().prefix("muster-cell-").tempdir();
        let mut cell = Cell {
            folder: folder.expect("a folder can be made"),
            agent: None,
            device: String::new(),
        };
        for name in SHARED.iter().chain(&["etc", "opt", "run", "tmp", "var/lib"]) {
            fs::create_dir_all(cell.root().join(name)).expect("a folder can be made");
        }
        for name in ["bin", "sbin", "lib", "lib64"] {
            let link = std::os::unix::fs::symlink(format!("usr/{name}"), cell.root().join(name));
            link.expect("a link can be made");
        }
        cell.write("opt/muster-agent", b"");
        cell.write("etc/os-release", b"ID=debian\nVERSION_ID=\"13\"\n");
        let token = token_for(api, Uuid::new_v4()).await;
        cell.write("tmp/token", token.as_bytes());
        cell.write(
            "tmp/ca.pem",
            &fs::read(&admin.ca_file).expect("the certificate is there"),
        );
        let mut enroll = cell.command();
        enroll.args([
            "enroll",
            "--state-dir",
            "/var/lib/muster-agent",
            "--ca-file",
            "/tmp/ca.pem",
        ]);
        enroll.args(["--token", "@/tmp/token", "--server", &admin.device_url]);
        let output = enroll.output().await.expect("unshare starts");
        assert!(output.status.success(), "{}", everything(&output));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let device = said.split_whitespace().find(|word| word.starts_with("dev_"));
        cell.device = device.expect("it says its id").to_owned();
        let log = fs::File::create(cell.folder.path().join("agent.log")).expect("a log can be kept");
        let mut run = cell.command();
        run.args(["run", "--state-dir", "/var/lib/muster-agent"]);
        run.env("MUSTER_LOG_LEVEL", "debug")
            .stdout(Stdio::null())
            .stderr(log);
        cell.agent = Some(run.spawn().expect("unshare starts"));
        Some(cell)
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("agent.log")).unwrap_or_default()
    }

    /// Whether there is something at this path of the machine.
    pub fn has(&self, path: &str) -> bool {
        self.root().join(path.trim_start_matches('/')).exists()
    }

    /// Runs a signed script on the machine and waits for its end; the command, and its output where there is one.
    pub async fn run_script(&self, api: &Api, body: Value) -> (Value, Vec<u8>) {
        let command = super::machine::order(api, &self.device, &body).await;
        let ended = super::machine::ended(api, &command).await;
        let output = api.get(&format!("/commands/{command}/output")).await;
        let bytes = if output.status == 200 {
            output.bytes
        } else {
            Vec::new()
        };
        (ended, bytes)
    }

    fn command(&self) -> tokio::process::Command {
        let mut command = program(std::path::Path::new("unshare"));
        command
            .args([
                "--mount",
                "--propagation",
                "private",
                "--kill-child",
                "--fork",
                "--",
            ])
            .args(["/bin/sh", "-c", ENTER, "enter"])
            .arg(self.root())
            .arg(agent_program())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn write(&self, path: &str, bytes: &[u8]) {
        fs::write(self.root().join(path), bytes).expect("it can be written");
    }
}

impl Drop for Cell {
    /// What the agent saw is what one wants to know of a test that failed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent of {} said:\n{}", self.device, self.log());
        }
    }
}
