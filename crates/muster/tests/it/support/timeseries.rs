//! Time-series stores that are not ours: Prometheus and VictoriaMetrics, where they are installed.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{net::TcpStream, process::Child};

use super::{
    PATIENCE, eventually,
    haproxy::free_port,
    server::{Options, program},
    variable,
};

/// A running store. It is killed when the test ends.
pub struct TimeSeries {
    pub name: &'static str,
    _child: Child,
    _folder: tempfile::TempDir,
    pub url: String,
}

impl TimeSeries {
    /// Every store that is installed; each that is not is said loudly, or panics where that is not allowed.
    pub async fn all() -> Vec<TimeSeries> {
        let mut stores = Vec::new();
        if let Some(binary) = find("prometheus") {
            stores.push(TimeSeries::prometheus(&binary).await);
        }
        if let Some(binary) = find("victoria-metrics") {
            stores.push(TimeSeries::victoria_metrics(&binary).await);
        }
        stores
    }

    /// Takes what is a year old too: devices come back after weeks.
    async fn prometheus(binary: &Path) -> TimeSeries {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let (file, port) = (folder.path().join("prometheus.yml"), free_port());
        let configuration = "storage:\n  tsdb:\n    out_of_order_time_window: 400d\n";
        fs::write(&file, configuration).expect("a file can be written");
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.path().join("data").display()),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--storage.tsdb.retention.time=2y".to_owned(),
            "--web.enable-remote-write-receiver".to_owned(),
        ];
        TimeSeries::start("prometheus", binary, &arguments, folder, port).await
    }

    async fn victoria_metrics(binary: &Path) -> TimeSeries {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let port = free_port();
        let arguments = [
            format!("-storageDataPath={}", folder.path().join("data").display()),
            format!("-httpListenAddr=127.0.0.1:{port}"),
            "-retentionPeriod=2y".to_owned(),
            "-search.latencyOffset=0s".to_owned(),
            // A sample that comes again is one sample.
            "-dedup.minScrapeInterval=1ms".to_owned(),
        ];
        TimeSeries::start("victoria-metrics", binary, &arguments, folder, port).await
    }

    async fn start(
        name: &'static str,
        binary: &Path,
        arguments: &[String],
        folder: tempfile::TempDir,
        port: u16,
    ) -> TimeSeries {
        let log = fs::File::create(folder.path().join("log")).expect("a file can be made");
        let mut command = program(binary);
        command.args(arguments).stdin(Stdio::null());
        command
            .stdout(log.try_clone().expect("a file can be shared"))
            .stderr(log);
        let mut child = command.kill_on_drop(true).spawn().expect("the store starts");
        eventually("the time-series store listens", PATIENCE, async || {
            let ended = child.try_wait().is_ok_and(|status| status.is_some());
            let log = || fs::read_to_string(folder.path().join("log")).unwrap_or_default();
            assert!(!ended, "{name} ended at once:\n{}", log());
            TcpStream::connect(("127.0.0.1", port)).await.ok()
        })
        .await;
        TimeSeries {
            name,
            _child: child,
            _folder: folder,
            url: format!("http://127.0.0.1:{port}"),
        }
    }

    /// A server that keeps its telemetry here.
    pub fn options(&self, options: Options) -> Options {
        options.with("--telemetry-write-url", format!("{}/api/v1/write", self.url))
    }
}

fn find(name: &str) -> Option<PathBuf> {
    let path = variable("PATH").unwrap_or_default();
    let found = path
        .split(':')
        .map(|folder| Path::new(folder).join(name))
        .find(|candidate| candidate.exists());
    if found.is_none() {
        let required = variable("CI").as_deref() == Some("true")
            || variable("MUSTER_REQUIRE_PEERS").as_deref() == Some("1");
        assert!(
            !required,
            "{name} is not installed, and this run must not skip it"
        );
        let _ = writeln!(std::io::stderr(), "SKIPPED {name}: not installed");
    }
    found
}
