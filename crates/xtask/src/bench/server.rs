//! A real `muster serve` in a temporary folder, and the programs that put load on it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::process::{cpu_seconds, rss_bytes};
use crate::process;
use crate::workspace::Programs;

/// How long a server may take until it answers `/readyz`.
const READY_SECONDS_MAX: u64 = 60;
/// How long a server may take to drain after SIGTERM; the product promises 10.
const STOP_SECONDS_MAX: u64 = 15;
/// How long the operations listener may take to answer.
const OPS_SECONDS_MAX: u64 = 5;

/// The part of `DIR/admin.json` (the outer contract) that is read here; load programs read the rest themselves.
#[derive(Deserialize)]
struct AdminFile {
    ops_url: String,
}

/// A running server; dropped, it is stopped and its folder removed.
pub struct Server {
    program: PathBuf,
    child: Child,
    folder: tempfile::TempDir,
    ops_url: String,
}

impl Server {
    /// Starts the program at `program` on free ports with an empty data folder and waits until it is ready.
    pub fn start(program: &Path, arguments: &[&str]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("muster-bench-").tempdir()?;
        let log = fs::File::create(folder.path().join("log"))?;
        let mut command = process::command(program);
        command
            .arg("serve")
            .arg("--data-dir")
            .arg(folder.path().join("data"));
        for listener in ["--admin-listen", "--device-listen", "--ops-listen"] {
            command.args([listener, "127.0.0.1:0"]);
        }
        // What the server can is measured, not what a tenant may.
        for budget in [
            "--api-requests-per-second",
            "--api-requests-per-second-of-caller",
            "--device-messages-per-second",
            "--device-messages-per-second-of-device",
        ] {
            command.args([budget, "1000000"]);
        }
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn().context("cannot start the server")?;
        let mut server = Self {
            program: program.to_owned(),
            child,
            folder,
            ops_url: String::new(),
        };
        server.ops_url = server.wait_until_ready()?;
        Ok(server)
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `admin.json` of the server, for programs that read it themselves.
    pub fn admin_file(&self) -> PathBuf {
        self.folder.path().join("data/admin.json")
    }

    /// Processor seconds so far.
    pub fn cpu_seconds(&self) -> Result<f64> {
        cpu_seconds(self.pid())
    }

    /// Resident bytes now.
    pub fn rss_bytes(&self) -> Result<u64> {
        rss_bytes(self.pid())
    }

    /// The sum of a metric over its labels on `/metrics` (OpenMetrics 1.0 text); 0 when it has no sample yet.
    pub fn metric(&self, name: &str) -> Result<f64> {
        Ok(metric(&http_get(&self.ops_url, "/metrics")?, name))
    }

    /// Waits until a metric is at least `value`.
    pub fn wait_for_metric(&self, name: &str, value: f64, seconds_max: u64) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(seconds_max) {
            if self.metric(name)? >= value {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        bail!(
            "`{name}` is {} after {seconds_max} s, not {value}",
            self.metric(name)?
        )
    }

    /// Starts the same program with other arguments against this server, in the background.
    pub fn load(&self, arguments: &[&str]) -> Result<Load> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("load-log"))?;
        let mut command = process::command(&self.program);
        command.args(arguments).arg("--admin-file").arg(self.admin_file());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().context("cannot start the load")?;
        let lines = BufReader::new(child.stdout.take().context("its output is read here")?);
        Ok(Load {
            child,
            lines,
            log: self.folder.path().join("load-log"),
        })
    }

    fn wait_until_ready(&mut self) -> Result<String> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(READY_SECONDS_MAX) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended ({status}); its log says:\n{}", self.log());
            }
            let admin = fs::read(self.admin_file())
                .ok()
                .and_then(|text| serde_json::from_slice::<AdminFile>(&text).ok());
            if let Some(admin) = admin
                && http_get(&admin.ops_url, "/readyz").is_ok()
            {
                return Ok(admin.ops_url);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!(
            "the server was not ready after {READY_SECONDS_MAX} s; its log says:\n{}",
            self.log()
        )
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// A load program; dropped, it is stopped.
///
/// It prints the line `measuring` when its devices are enrolled and connected and its figures begin, and as its last
/// line one JSON object: its report.
pub struct Load {
    child: Child,
    lines: BufReader<ChildStdout>,
    log: PathBuf,
}

impl Load {
    /// Waits until its figures begin.
    pub fn wait_until_measuring(&mut self) -> Result<()> {
        let mut line = String::new();
        while self.lines.read_line(&mut line)? > 0 {
            if line.trim_end() == "measuring" {
                return Ok(());
            }
            line.clear();
        }
        bail!("the load ended before it measured; it says:\n{}", self.said())
    }

    /// Waits for its end and reads its report.
    pub fn report(mut self) -> Result<serde_json::Value> {
        let mut said = String::new();
        self.lines.read_to_string(&mut said)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the load ended with {status}; it says:\n{}", self.said());
        }
        let line = said.lines().next_back().unwrap_or_default();
        serde_json::from_str(line).with_context(|| format!("the load's last line is no JSON: {line}"))
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        stop(&mut self.child);
    }
}

/// Runs a load that computes in its own process, without a server, and reads its report.
pub fn computed(programs: &Programs, words: &[&str]) -> Result<serde_json::Value> {
    let output = process::command(&programs.muster)
        .arg("load")
        .args(words)
        .output()?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("the load ended with {}; it says:\n{said}", output.status);
    }
    let said = String::from_utf8(output.stdout)?;
    let line = said.lines().next_back().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("the load's last line is no JSON: {line}"))
}

/// A number of a load's report.
pub fn number(report: &serde_json::Value, field: &str) -> Result<f64> {
    report[field]
        .as_f64()
        .with_context(|| format!("the report has no number `{field}`: {report}"))
}

/// Asks the process to end, waits, and only then kills it. A process that has ended is left alone.
fn stop(child: &mut Child) {
    if !matches!(child.try_wait(), Ok(None)) {
        return;
    }
    let asked = process::succeeds(process::command("kill").args(["-TERM", &child.id().to_string()]));
    let started = Instant::now();
    while asked.is_ok() && started.elapsed() < Duration::from_secs(STOP_SECONDS_MAX) {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    eprintln!(
        "process {} did not end within {STOP_SECONDS_MAX} s and is killed",
        child.id()
    );
    if child.kill().is_ok() {
        child.wait().ok();
    }
}

/// The body of a 200 answer of the plain HTTP listener (RFC 9112; `Connection: close` ends the body).
fn http_get(url: &str, path: &str) -> Result<String> {
    let address = url
        .strip_prefix("http://")
        .context("the operations listener is plain HTTP")?
        .trim_end_matches('/');
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(OPS_SECONDS_MAX)))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("{path} answers {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

fn metric(text: &str, name: &str) -> f64 {
    let value = |line: &str| -> Option<f64> {
        let rest = line.strip_prefix(name)?;
        let after_labels = match rest.strip_prefix('{') {
            Some(labels) => labels.rsplit_once('}')?.1,
            None => rest,
        };
        after_labels.strip_prefix(' ')?.split(' ').next()?.parse().ok()
    };
    text.lines().filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_found_by_its_whole_name_and_summed_over_its_labels() {
        let text = "# TYPE mdm_a gauge\nmdm_a_total 7\nmdm_a 3\nmdm_b{x=\"y\"} 4\nmdm_b{x=\"}\"} 5 1700000000\n# EOF\n";
        assert_eq!(metric(text, "mdm_a"), 3.0);
        assert_eq!(metric(text, "mdm_b"), 9.0);
        assert_eq!(metric(text, "mdm_c"), 0.0);
    }

    #[test]
    fn only_a_200_answer_counts() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let serve = std::thread::spawn(move || {
            for status in ["200 OK", "503 Service Unavailable"] {
                let (mut stream, _) = listener.accept().expect("a client");
                let mut request = [0; 1024];
                let length = stream.read(&mut request).expect("a request");
                assert!(request[..length].starts_with(b"GET /readyz HTTP/1.1\r\n"));
                let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
                stream.write_all(answer.as_bytes()).expect("an answer");
            }
        });
        assert_eq!(http_get(&url, "/readyz").expect("ready"), "ok");
        assert!(http_get(&url, "/readyz").is_err());
        serve.join().expect("both were asked");
    }
}
