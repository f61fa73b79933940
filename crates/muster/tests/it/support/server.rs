//! `muster serve` as a process: started on ports of its own, stopped, killed, started again on the same data.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::{
    api::Api,
    database::{Place, Store},
    eventually,
};

/// How long a start may take. Debug builds on a busy machine are slow.
const START: Duration = Duration::from_secs(90);
/// How long a stop may take (issue 2: within 10 s).
pub const STOP: Duration = Duration::from_secs(10);

/// `admin.json`, with exactly the keys of the contract.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminFile {
    pub admin_url: String,
    pub device_url: String,
    pub ops_url: String,
    pub ca_file: PathBuf,
    /// Only where the admin listener shows a certificate of another authority too.
    #[serde(default)]
    pub admin_ca_file: Option<PathBuf>,
    pub tenant: String,
    pub client_id: String,
    pub client_secret: String,
}

impl AdminFile {
    pub fn read(path: &Path) -> AdminFile {
        let bytes = fs::read(path).expect("admin.json is there");
        serde_json::from_slice(&bytes).expect("admin.json has exactly the keys of the contract")
    }

    /// `host:port` of the admin listener.
    pub fn admin_address(&self) -> &str {
        address(&self.admin_url)
    }

    /// `host:port` of the device listener.
    pub fn device_address(&self) -> &str {
        address(&self.device_url)
    }
}

fn address(url: &str) -> &str {
    url.split_once("://").expect("a URL has a scheme").1
}

/// How a server is started.
#[derive(Clone, Default)]
pub struct Options {
    /// Where its data is kept; an embedded SQLite unless said otherwise.
    pub place: Place,
    /// More arguments of `muster serve`.
    pub arguments: Vec<String>,
    /// Variables that the program is started with, such as those of a PKCS#11 library.
    pub environment: Vec<(String, String)>,
    /// A program that is given the command and becomes the server, with its arguments; nothing where it is started plainly.
    pub under: Vec<String>,
}

impl Options {
    /// With one more variable of the environment.
    pub fn with_variable(mut self, name: &str, value: impl ToString) -> Options {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// With one more argument of `muster serve`.
    pub fn with(mut self, argument: &str, value: impl ToString) -> Options {
        self.arguments.extend([argument.to_owned(), value.to_string()]);
        self
    }
}

/// How far a start has to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IsUp {
    Ready,
    Unready,
}

/// A running `muster serve`. It is killed when the test ends.
pub struct Server {
    folder: Arc<TempDir>,
    name: String,
    options: Options,
    child: Option<Child>,
    /// `admin.json` of the newest start.
    pub admin: AdminFile,
}

impl Server {
    /// Starts a server on an empty data folder and waits until it is ready.
    pub async fn start(options: Options) -> Server {
        let folder = tempfile::Builder::new()
            .prefix("muster-it-")
            .tempdir()
            .expect("a folder can be made");
        Server::start_in(Arc::new(folder), "data", options).await
    }

    /// Starts a server on the data folder `name` in `folder`, which may hold data of an earlier one.
    pub async fn start_in(folder: Arc<TempDir>, name: &str, options: Options) -> Server {
        let nowhere = AdminFile {
            admin_url: String::new(),
            device_url: String::new(),
            ops_url: String::new(),
            ca_file: PathBuf::new(),
            admin_ca_file: None,
            tenant: String::new(),
            client_id: String::new(),
            client_secret: String::new(),
        };
        let mut server = Server {
            folder,
            name: name.to_owned(),
            options,
            child: None,
            admin: nowhere,
        };
        server.start_again().await;
        server
    }

    /// A second node on the same PostgreSQL: a data folder of its own with the keys of this one.
    pub async fn second_node(&self) -> Server {
        let from = self.data_dir().join("keys");
        copy_folder(&from, &self.folder.path().join("node2/keys"));
        Server::start_in(Arc::clone(&self.folder), "node2", self.options.clone()).await
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    /// A folder of the test, beside the data folder; gone with the server.
    pub fn folder(&self) -> Arc<TempDir> {
        Arc::clone(&self.folder)
    }

    pub fn admin_file(&self) -> PathBuf {
        self.data_dir().join("admin.json")
    }

    /// What the newest start printed for people.
    pub fn banner(&self) -> String {
        fs::read_to_string(self.output("stdout")).unwrap_or_default()
    }

    /// What the server logged, over all starts.
    pub fn log(&self) -> String {
        fs::read_to_string(self.output("stderr")).unwrap_or_default()
    }

    /// What a metric without labels says.
    pub async fn metric(&self, name: &str) -> i64 {
        let answer = reqwest::get(format!("{}/metrics", self.admin.ops_url)).await;
        let text = answer.expect("metrics are served").text().await;
        let text = text.expect("metrics are text");
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .unwrap_or_else(|| panic!("{name} is not in {text}"));
        value.parse().expect("it is a number")
    }

    /// The database behind the server, to look and to tamper.
    pub async fn store(&self) -> Store {
        Store::open(&self.options.place, &self.data_dir()).await
    }

    /// A client with every scope of the default tenant.
    pub async fn api(&self) -> Api {
        Api::sign_in(&self.admin).await
    }

    /// Ends the server as an operator would and waits for it.
    pub async fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let mut child = self.child.take().expect("the server runs");
        let ended = tokio::time::timeout(STOP, child.wait()).await;
        ended
            .expect("SIGTERM ends the server within 10 s")
            .expect("its status can be read")
    }

    /// Ends the server as a power cut would.
    pub async fn kill(&mut self) {
        let mut child = self.child.take().expect("the server runs");
        child.kill().await.expect("a child can be killed");
    }

    /// Stops the server, if it runs, and starts it again on the same data.
    pub async fn restart(&mut self) {
        if self.child.is_some() {
            let status = self.stop().await;
            assert!(status.success(), "SIGTERM is an orderly end: {status}");
        }
        self.start_again().await;
    }

    /// Starts the server again with a fault on purpose, which happens once.
    pub async fn break_with(&mut self, fault: &str) {
        let variable = ("MUSTER_FAULT".to_owned(), fault.to_owned());
        self.options.environment.push(variable);
        self.restart().await;
    }

    /// Starts the server again without its faults on purpose, whether it still runs or not.
    pub async fn mend(&mut self) {
        self.options
            .environment
            .retain(|(name, _)| name != "MUSTER_FAULT");
        // It may be dying at this moment.
        if let Some(mut child) = self.child.take() {
            let _ = child.kill().await;
        }
        self.start_again().await;
    }

    /// Whether the process is still there.
    pub fn runs(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_none()))
    }

    pub fn process_id(&self) -> u32 {
        self.child.as_ref().and_then(Child::id).expect("the server runs")
    }

    fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.process_id()).expect("a process id is small");
        let id = Pid::from_raw(id).expect("a process id is not zero");
        kill_process(id, signal).expect("the server runs");
    }

    /// As `restart`, for a start that is up and not ready.
    pub async fn restart_unready(&mut self) {
        let status = self.stop().await;
        assert!(status.success(), "SIGTERM is an orderly end: {status}");
        self.start_until(IsUp::Unready).await;
    }

    async fn start_again(&mut self) {
        self.start_until(IsUp::Ready).await;
    }

    async fn start_until(&mut self, wanted: IsUp) {
        let before = fs::metadata(self.admin_file())
            .and_then(|meta| meta.modified())
            .ok();
        self.child = Some(self.spawn());
        let data = self.data_dir();
        let ready = eventually("the server is ready", START, async || {
            let written = fs::metadata(data.join("admin.json"))
                .and_then(|meta| meta.modified())
                .ok();
            assert!(self.runs(), "the server ended at once:\n{}", self.log());
            if written.is_none() || written == before {
                return None;
            }
            let admin = AdminFile::read(&data.join("admin.json"));
            let answer = reqwest::get(format!("{}/readyz", admin.ops_url)).await.ok()?;
            // The sign-in link of the first run is the last thing that a start writes.
            let is_ready = answer.status().is_success() || wanted == IsUp::Unready;
            (is_ready && self.banner().contains("Sign in")).then_some(admin)
        });
        self.admin = ready.await;
    }

    fn spawn(&self) -> Child {
        let append = |name: &str| {
            fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.output(name))
        };
        let stdout = fs::File::create(self.output("stdout")).expect("the output can be kept");
        let mut command = match self.options.under.split_first() {
            None => muster(),
            Some((first, arguments)) => {
                let mut command = program(Path::new(first));
                command.args(arguments).arg(muster().as_std().get_program());
                command
            }
        };
        command.args(serve_arguments(&self.data_dir(), &self.options));
        command.envs(self.options.environment.iter().cloned());
        command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(append("stderr").expect("the log can be kept"));
        command
            .kill_on_drop(true)
            .spawn()
            .expect("the program muster starts")
    }

    fn output(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{}.{name}", self.name))
    }
}

/// The arguments of `muster serve` on a data folder, with ports of its own.
pub fn serve_arguments(data_dir: &Path, options: &Options) -> Vec<String> {
    let mut arguments = vec![
        "serve".to_owned(),
        "--data-dir".to_owned(),
        data_dir.display().to_string(),
    ];
    for listener in ["--admin-listen", "--device-listen", "--ops-listen"] {
        arguments.extend([listener.to_owned(), "127.0.0.1:0".to_owned()]);
    }
    if let Place::Postgres(database) = &options.place {
        arguments.extend(["--database-url".to_owned(), database.url()]);
    }
    // A test asks over and over where a device waits.
    const OF_DEVICE: &str = "--device-messages-per-second-of-device";
    if !options.arguments.iter().any(|argument| argument == OF_DEVICE) {
        arguments.extend([OF_DEVICE.to_owned(), "1000000".to_owned()]);
    }
    arguments.extend(options.arguments.iter().cloned());
    arguments
}

/// Runs `muster` with these arguments to its end.
pub async fn run_muster<A: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = A>) -> Output {
    let mut command = muster();
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
    ended
        .expect("the program ends within a minute")
        .expect("the program muster starts")
}

/// Runs a maintenance verb on a server's data folder; the words before `--data-dir`.
pub async fn maintain(server: &Server, words: &[&str]) -> Output {
    let mut command = muster();
    command
        .args(words)
        .arg("--data-dir")
        .arg(server.data_dir())
        .envs(server.options.environment.iter().cloned())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    if let Place::Postgres(database) = &server.options.place {
        command.env("MUSTER_DATABASE_URL", database.url());
    }
    let ended = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
    ended
        .expect("the program ends within a minute")
        .expect("the program muster starts")
}

/// Asserts that the doctor and the log's verifier find nothing.
pub async fn assert_healthy(server: &Server) {
    for words in [&["doctor"][..], &["log", "verify"][..]] {
        let output = maintain(server, words).await;
        assert!(
            output.status.success(),
            "muster {words:?}: {}",
            everything(&output)
        );
    }
}

/// Both streams of a program that ended, as one text.
pub fn everything(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Makes a second tenant of a stopped server and answers its `admin.json`.
pub async fn create_tenant(server: &Server, name: &str) -> PathBuf {
    let file = server.folder().path().join(format!("{name}.json"));
    let words = [
        "tenant",
        "create",
        name,
        "--admin-file",
        file.to_str().expect("paths here are text"),
    ];
    let output = maintain(server, &words).await;
    assert!(output.status.success(), "{}", everything(&output));
    file
}

/// Copies a folder with all that is in it.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("the folder can be read") {
        let entry = entry.expect("the folder can be read");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("it has a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}

/// The path of `muster-agent`: `MUSTER_AGENT_BIN`, or the one that was built beside `muster`.
pub fn agent_program() -> PathBuf {
    let path = match super::variable("MUSTER_AGENT_BIN") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_BIN_EXE_muster")).with_file_name("muster-agent"),
    };
    assert!(
        path.exists(),
        "{} is not built: run `cargo build -p muster-agent`",
        path.display()
    );
    path
}

/// The program under test, with none of the caller's `MUSTER_…` settings.
pub fn muster() -> Command {
    program(Path::new(env!("CARGO_BIN_EXE_muster")))
}

/// The agent under test.
pub fn agent() -> Command {
    program(&agent_program())
}

/// Runs a tool of the system to its end, such as `openssl` or `curl`.
pub async fn tool(name: &str, arguments: &[&str]) -> Output {
    tool_with(name, arguments, &[]).await
}

/// As [`tool`], with variables of the environment.
pub async fn tool_with(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = program(Path::new(name));
    command.envs(environment.iter().copied());
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(Duration::from_secs(60), command.output()).await;
    ended
        .expect("the tool ends within a minute")
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Starts a tool of the system that runs until it is dropped; both streams go to `log`.
pub fn start_tool(name: &str, arguments: &[&str], log: &Path) -> Child {
    let file = fs::File::create(log).expect("the log can be kept");
    let errors = file.try_clone().expect("the log can be kept");
    let mut command = program(Path::new(name));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(file).stderr(errors);
    command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A program, with none of the caller's settings but the search path.
#[expect(
    clippy::disallowed_methods,
    reason = "a test harness whose purpose is to start the programs under test"
)]
pub fn program(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.env_clear().env("RUST_BACKTRACE", "1");
    command.env("PATH", super::variable("PATH").unwrap_or_default());
    command
}
