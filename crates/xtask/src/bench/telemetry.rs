//! `bench telemetry`: devices upload batches as fast as they are taken; a VictoriaMetrics on the same machine gets the same windows in
//! the same run, and both are asked the same questions.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::Options;
use super::report::{Better, Ratio};
use super::server::{Server, number};
use crate::process;
use crate::workspace::Programs;

/// Devices when none are asked for.
const DEVICES: u32 = 50;
/// How long the peer may take to listen.
const LISTEN_SECONDS_MAX: u64 = 30;

/// A running VictoriaMetrics; dropped, it is killed and its folder removed.
struct Peer {
    child: Child,
    folder: tempfile::TempDir,
    origin: String,
}

impl Peer {
    fn start() -> Result<Peer> {
        let program = process::find("victoria-metrics")
            .context("victoria-metrics is not installed: cargo xtask setup installs it")?;
        let folder = tempfile::Builder::new().prefix("muster-bench-vm-").tempdir()?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let mut command = process::command(program);
        command
            .arg(format!(
                "-storageDataPath={}",
                folder.path().join("data").display()
            ))
            .arg(format!("-httpListenAddr={address}"))
            .args(["-retentionPeriod=2y", "-search.latencyOffset=0s"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().context("cannot start victoria-metrics")?;
        let peer = Peer {
            child,
            folder,
            origin: format!("http://{address}"),
        };
        let started = Instant::now();
        while TcpStream::connect(&address).is_err() {
            if started.elapsed() > Duration::from_secs(LISTEN_SECONDS_MAX) {
                bail!("victoria-metrics does not listen after {LISTEN_SECONDS_MAX} s");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(peer)
    }

    /// Bytes of its data once it has ended and written everything.
    fn end(mut self) -> Result<u64> {
        process::succeeds(process::command("kill").args(["-TERM", &self.child.id().to_string()]))?;
        self.child.wait()?;
        folder_bytes(&self.folder.path().join("data"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            self.child.wait().ok();
        }
    }
}

fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            bytes += folder_bytes(&entry.path())?;
        } else if kind.is_file() {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

/// Uploads, merges, asks, and prints each figure beside the peer's.
pub fn run(programs: &Programs, options: &Options) -> Result<()> {
    let peer = Peer::start()?;
    let server = Server::start(&programs.muster, &["--telemetry-merge-after-seconds", "0"])?;
    let (devices, seconds) = (
        options.devices.unwrap_or(DEVICES).to_string(),
        options.seconds.to_string(),
    );
    let words = [
        "load",
        "telemetry",
        "--devices",
        &devices,
        "--seconds",
        &seconds,
        "--beside",
        &peer.origin,
    ];
    let mut load = server.load(&words)?;
    load.wait_until_measuring()?;
    let report = load.report()?;
    let points = number(&report, "points")?;
    println!(
        "{points:.0} windows of {devices} devices in {:.0} batches, {:.1} bytes of each on the wire: taken after {:.1} s, merged after \
         {:.1} s; one upload {:.1} ms (p50), {:.1} ms (p99); server {} MiB resident",
        number(&report, "batches")?,
        number(&report, "wire_bytes_per_point")?,
        number(&report, "seconds")?,
        number(&report, "settled_seconds")?,
        number(&report, "upload_p50_ms")?,
        number(&report, "upload_p99_ms")?,
        server.rss_bytes()? >> 20,
    );
    let peer_bytes = peer.end()? as f64 / points;
    let against = "VictoriaMetrics with the same windows, each as five samples, over HTTP without TLS";
    let ratio = |what, value, unit, peer, better| {
        let ratio = Ratio {
            what,
            value,
            unit,
            against,
            peer,
            better,
        };
        println!("{ratio}");
    };
    let of = |name| number(&report, name);
    ratio(
        "windows taken and kept durably",
        of("points_per_second")?,
        "/s",
        of("peer_points_per_second")?,
        Better::More,
    );
    ratio(
        "windows taken and merged",
        points / of("settled_seconds")?,
        "/s",
        of("peer_points_per_second")?,
        Better::More,
    );
    ratio(
        "bytes of a window as it came",
        of("raw_bytes_per_point")?,
        "bytes",
        peer_bytes,
        Better::Less,
    );
    ratio(
        "bytes of a window with its hours and days",
        of("all_bytes_per_point")?,
        "bytes",
        peer_bytes,
        Better::Less,
    );
    ratio(
        "chart of a device over a day",
        of("chart_p50_ms")?,
        "ms",
        of("peer_chart_p50_ms")?,
        Better::Less,
    );
    ratio(
        "distribution over the fleet",
        of("fleet_p50_ms")?,
        "ms",
        of("peer_fleet_p50_ms")?,
        Better::Less,
    );
    Ok(())
}
