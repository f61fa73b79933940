//! `cargo xtask test`: everything that must hold, in one command, ending in one line of counts.

mod output;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use self::output::{Reader, Tally};
use crate::workspace::{Profile, Programs, Scope};
use crate::{node, peers, postgres, process, python, tidy};

/// What to run.
#[derive(clap::Args)]
pub struct Options {
    /// Runs only the tests whose names contain NAME, without format, lint and house checks
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Runs only the tests of these packages, without format, lint and house checks
    #[arg(long, short, value_name = "PACKAGE")]
    package: Vec<String>,
}

impl Options {
    fn is_everything(&self) -> bool {
        self.only.is_none() && self.package.is_empty()
    }
}

/// Runs the parts in turn. A part that fails does not stop the next one.
pub fn run(options: &Options) -> Result<bool> {
    let mut run = Run::default();
    let missing = run.part("peers", peers::install_missing)?;
    for peer in missing {
        run.total.skip(format!("{}: not installed", peer.name));
    }
    if options.is_everything() {
        run.counted("format", || {
            yes_or_no("format", process::cargo().args(["fmt", "--all", "--", "--check"]))
        })?;
        run.counted("clippy", || yes_or_no("clippy", &mut clippy()))?;
    }
    let programs = run.part("build", || Programs::build(Profile::Dev, Scope::Everything))?;
    run.total.add(Tally::of("build", programs.is_some()));
    if options.is_everything() {
        run.counted("tidy", || tidy_part(programs.as_ref()))?;
    }
    if let Some(programs) = programs {
        let server = run.part("postgres", start_postgres)?;
        run.counted("tests", || cargo_test(options, &programs, server.as_ref()))?;
        run.part("postgres stop", || {
            drop(server);
            Ok(())
        })?;
    }
    Ok(run.report())
}

/// Tests of one program that run at once, for each core.
const TESTS_PER_CORE: usize = 2;

/// The counts and timings so far.
#[derive(Default)]
struct Run {
    total: Tally,
    timings: Vec<(&'static str, Duration)>,
}

impl Run {
    fn part<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        eprintln!("--- {name}");
        let started = Instant::now();
        let outcome = work().with_context(|| format!("part `{name}`"));
        self.timings.push((name, started.elapsed()));
        outcome
    }

    fn counted(&mut self, name: &'static str, work: impl FnOnce() -> Result<Tally>) -> Result<()> {
        let tally = self.part(name, work)?;
        self.total.add(tally);
        Ok(())
    }

    /// Prints what failed, what was skipped, how long each part took, and the counts as the last line.
    fn report(&self) -> bool {
        println!();
        for (name, elapsed) in &self.timings {
            println!("{name:>14} {:>7.1} s", elapsed.as_secs_f64());
        }
        for failure in &self.total.failures {
            println!("FAILED  {failure}");
        }
        let mut skips: Vec<(&String, usize)> = Vec::new();
        for skip in &self.total.skips {
            match skips.iter_mut().find(|(seen, _)| *seen == skip) {
                Some((_, times)) => *times += 1,
                None => skips.push((skip, 1)),
            }
        }
        for (skip, times) in skips {
            println!("SKIPPED {skip} ({times} times)");
        }
        if process::is_ci() && self.total.skipped > 0 {
            println!("CI is set: what is skipped counts as a failure");
        }
        println!("{}", self.total.line());
        let ran = self.total.passed > 0;
        ran && self.total.failed == 0 && !(process::is_ci() && self.total.skipped > 0)
    }
}

fn yes_or_no(name: &str, command: &mut Command) -> Result<Tally> {
    Ok(Tally::of(
        name,
        process::succeeds(command.stdout(std::io::stderr()))?,
    ))
}

fn clippy() -> Command {
    let mut cargo = process::cargo();
    cargo.args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--quiet",
        "--",
        "--deny=warnings",
    ]);
    cargo
}

fn tidy_part(programs: Option<&Programs>) -> Result<Tally> {
    let mut tally = Tally::default();
    for outcome in tidy::check_all(programs)? {
        outcome.print();
        tally.add(Tally::of(&format!("tidy {}", outcome.name), outcome.passed()));
    }
    Ok(tally)
}

/// Starts the server, or returns none when it is not installed (which is counted as a skip already).
fn start_postgres() -> Result<Option<postgres::Server>> {
    if postgres::find_programs().is_none() {
        return Ok(None);
    }
    postgres::Server::start().map(Some)
}

fn cargo_test(options: &Options, programs: &Programs, server: Option<&postgres::Server>) -> Result<Tally> {
    let mut cargo = process::cargo();
    cargo.args(["test", "--locked", "--no-fail-fast"]);
    if options.package.is_empty() {
        cargo.arg("--workspace");
    }
    for package in &options.package {
        cargo.args(["--package", package]);
    }
    cargo.arg("--").arg("--show-output").args(&options.only);
    cargo
        .env("MUSTER_BIN", &programs.muster)
        .env("MUSTER_AGENT_BIN", &programs.agent);
    // Much of the time of a test is waiting for servers, timers and other programs.
    if process::variable("RUST_TEST_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        cargo.env("RUST_TEST_THREADS", (cores * TESTS_PER_CORE).to_string());
    }
    if let Some(server) = server {
        cargo
            .env("MUSTER_TEST_POSTGRES_URL", &server.url)
            .env("MUSTER_TEST_POSTGRES_ADMIN_URL", &server.admin_url);
    }
    if python::find("moto_server").is_some() {
        cargo.env("MUSTER_TEST_PYTHON_TOOLS", python::programs());
    }
    if let Some(folder) = node::find("oidc-provider") {
        cargo.env("MUSTER_TEST_NODE_TOOLS", folder);
    }
    if let Some(chromium) = peers::find_chromium() {
        cargo.env("MUSTER_TEST_CHROMIUM", chromium);
    }
    if let Some(linter) = python::find("check-jsonschema") {
        cargo.env("MUSTER_TEST_CHECK_JSONSCHEMA", linter);
    }
    let mut cargo = cargo
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let mut reader = Reader::default();
    let lines = BufReader::new(cargo.stdout.take().context("cargo's output is read here")?);
    for line in lines.split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        if reader.take(line) {
            println!("{line}");
        }
    }
    Ok(reader.finish(cargo.wait()?.success()))
}
