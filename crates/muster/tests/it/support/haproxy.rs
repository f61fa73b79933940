//! HAProxy in front of a server, where it is installed.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Once,
};

use tokio::{net::TcpStream, process::Child};

use super::{PATIENCE, eventually, server::program, variable};

/// A running HAProxy. It is killed when the test ends.
pub struct Haproxy {
    _child: Child,
}

impl Haproxy {
    /// Starts it with a configuration and waits until it listens on `port`.
    pub async fn start(binary: &Path, folder: &Path, configuration: &str, port: u16) -> Haproxy {
        let file = folder.join("haproxy.cfg");
        fs::write(&file, configuration).expect("a file can be written");
        let log = fs::File::create(folder.join("haproxy.log")).expect("a file can be made");
        let mut command = program(binary);
        command.arg("-db").arg("-f").arg(&file).stdin(Stdio::null());
        command
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log);
        let mut child = command.kill_on_drop(true).spawn().expect("haproxy starts");
        eventually("haproxy listens", PATIENCE, async || {
            let ended = child.try_wait().is_ok_and(|status| status.is_some());
            let log = || fs::read_to_string(folder.join("haproxy.log")).unwrap_or_default();
            assert!(!ended, "haproxy ended at once:\n{}", log());
            TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        Haproxy { _child: child }
    }
}

/// The program, if it is installed. Without it says so loudly, or panics where that is not allowed.
pub fn haproxy() -> Option<PathBuf> {
    static SAID: Once = Once::new();
    let path = variable("PATH").unwrap_or_default();
    let found = path
        .split(':')
        .chain(["/usr/sbin", "/usr/local/sbin"])
        .map(|folder| Path::new(folder).join("haproxy"))
        .find(|candidate| candidate.exists());
    if found.is_none() {
        let required = variable("CI").as_deref() == Some("true")
            || variable("MUSTER_REQUIRE_PEERS").as_deref() == Some("1");
        assert!(
            !required,
            "haproxy is not installed, and this run must not skip it"
        );
        // Straight to the stream: the test runner swallows what a passing test prints.
        SAID.call_once(|| {
            let _ = writeln!(std::io::stderr(), "SKIPPED haproxy: not installed");
        });
    }
    found
}

/// A port on loopback that nobody uses at the moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("there is a free port");
    listener.local_addr().expect("it is bound").port()
}
