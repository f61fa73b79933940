//! A Linux machine with the real `muster-agent`: a folder that it takes for the root of its file system.

use std::{fs, path::PathBuf, process::Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use uuid::Uuid;

use super::{
    PATIENCE,
    api::Api,
    device::token_for,
    eventually,
    server::{self, AdminFile},
};

const COMMON_PASSWORD: &str = "# /etc/pam.d/common-password\npassword\t[success=1 default=ignore]\tpam_unix.so obscure yescrypt\n\
    password\trequisite\t\t\tpam_deny.so\npassword\trequired\t\t\tpam_permit.so\n";
const COMMON_AUTH: &str = "#\n# /etc/pam.d/common-auth\n#\nauth\t[success=1 default=ignore]\tpam_unix.so nullok\n\
    # here's the fallback if no module succeeds\nauth\trequisite\t\t\tpam_deny.so\nauth\trequired\t\t\tpam_permit.so\n";
const OS_RELEASE: &str =
    "ID=debian\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"13\"\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n";

/// A machine. Its agent is killed when the test ends.
pub struct Machine {
    folder: TempDir,
    state_dir: PathBuf,
    environment: Vec<(String, String)>,
    agent: Option<Child>,
    pub device_uuid: Uuid,
    /// `dev_…`, once it is enrolled.
    pub device: String,
}

impl Machine {
    /// A freshly installed Debian without an identity.
    pub fn new() -> Machine {
        let folder = tempfile::Builder::new()
            .prefix("muster-machine-")
            .tempdir()
            .expect("a folder can be made");
        let state_dir = folder.path().join("state");
        let machine = Machine {
            folder,
            state_dir,
            environment: Vec::new(),
            agent: None,
            device_uuid: Uuid::new_v4(),
            device: String::new(),
        };
        machine.write("/etc/os-release", OS_RELEASE);
        machine.write("/etc/pam.d/common-password", COMMON_PASSWORD);
        machine.write("/etc/pam.d/common-auth", COMMON_AUTH);
        machine
    }

    /// This machine with its agent's state in a folder of the test's choice.
    pub fn with_state_dir(mut self, state_dir: PathBuf) -> Machine {
        self.state_dir = state_dir;
        self
    }

    /// Sets an environment variable of the agent from its next start on.
    pub fn set_environment(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// An enrolled machine whose agent runs.
    pub async fn running(api: &Api, admin: &AdminFile) -> Machine {
        let mut machine = Machine::new();
        machine.enroll(api, admin).await;
        machine.start();
        machine
    }

    /// Runs `muster-agent enroll`, which must succeed.
    pub async fn enroll(&mut self, api: &Api, admin: &AdminFile) {
        let output = self.run_enroll(api, admin).await;
        assert!(output.status.success(), "{}", server::everything(&output));
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let device = said.split_whitespace().find(|word| word.starts_with("dev_"));
        self.device = device.unwrap_or_else(|| panic!("no id in {said:?}")).to_owned();
    }

    /// Runs `muster-agent enroll`, which must fail; answers what it said.
    pub async fn try_enroll(&self, api: &Api, admin: &AdminFile) -> String {
        let output = self.run_enroll(api, admin).await;
        assert!(!output.status.success(), "{}", server::everything(&output));
        server::everything(&output)
    }

    /// As [`Machine::try_enroll`], with a token of the test's choice.
    pub async fn try_enroll_with(&self, token: &str, admin: &AdminFile) -> String {
        let output = self.enroll_with(token, admin).await;
        assert!(!output.status.success(), "{}", server::everything(&output));
        server::everything(&output)
    }

    async fn run_enroll(&self, api: &Api, admin: &AdminFile) -> std::process::Output {
        let token = token_for(api, self.device_uuid).await;
        self.enroll_with(&token, admin).await
    }

    async fn enroll_with(&self, text: &str, admin: &AdminFile) -> std::process::Output {
        let token = self.folder.path().join("token.jwt");
        fs::write(&token, text).expect("it can be written");
        let mut command = self.command("enroll");
        command.args([
            "--server",
            &admin.device_url,
            "--token",
            &format!("@{}", token.display()),
        ]);
        command
            .arg("--ca-file")
            .arg(&admin.ca_file)
            .arg("--root")
            .arg(self.root());
        command.output().await.expect("the program muster-agent starts")
    }

    /// Runs `muster-agent export`; answers the folder with the files.
    pub async fn export(&self) -> PathBuf {
        let out = self.folder.path().join("exported");
        let mut command = self.command("export");
        let output = command.arg("--out").arg(&out).output().await;
        let output = output.expect("the program muster-agent starts");
        assert!(output.status.success(), "{}", server::everything(&output));
        out
    }

    /// Runs `muster-agent compliance-token`; answers the token.
    pub async fn compliance_token(&self, audience: &str) -> String {
        let mut command = self.command("compliance-token");
        let output = command.args(["--audience", audience]).output().await;
        let output = output.expect("the program muster-agent starts");
        assert!(output.status.success(), "{}", server::everything(&output));
        String::from_utf8(output.stdout)
            .expect("it is text")
            .trim()
            .to_owned()
    }

    /// As `compliance_token`, where none is given: what is said instead.
    pub async fn refused_compliance_token(&self, audience: &str) -> String {
        let mut command = self.command("compliance-token");
        let output = command.args(["--audience", audience]).output().await;
        let output = output.expect("the program muster-agent starts");
        assert!(!output.status.success(), "{}", server::everything(&output));
        server::everything(&output)
    }

    /// The enrollment token that the newest try used.
    pub fn token(&self) -> String {
        fs::read_to_string(self.folder.path().join("token.jwt")).expect("a token was made")
    }

    /// The folder of the agent's key and state.
    pub fn state_dir(&self) -> &std::path::Path {
        &self.state_dir
    }

    /// Starts `muster-agent run`.
    pub fn start(&mut self) {
        assert!(self.agent.is_none(), "the agent runs already");
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_file());
        self.set_environment("MUSTER_LOG_LEVEL", "debug");
        let mut command = self.command("run");
        command
            .stdout(Stdio::null())
            .stderr(log.expect("the log can be kept"));
        self.agent = Some(command.spawn().expect("the program muster-agent starts"));
    }

    /// Ends the agent as a power cut would.
    pub async fn kill(&mut self) {
        self.agent
            .take()
            .expect("the agent runs")
            .kill()
            .await
            .expect("a child can be killed");
    }

    /// Ends the agent as the service manager would; its exit code.
    pub async fn stop(&mut self) -> Option<i32> {
        let mut agent = self.agent.take().expect("the agent runs");
        let id = agent
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw)
            .expect("it runs");
        kill_process(id, Signal::TERM).expect("it runs");
        let ended = tokio::time::timeout(PATIENCE, agent.wait())
            .await
            .expect("SIGTERM ends the agent");
        ended.expect("its status can be read").code()
    }

    /// Whether the agent's process is still there.
    pub fn runs(&mut self) -> bool {
        self.agent
            .as_mut()
            .is_some_and(|agent| agent.try_wait().is_ok_and(|status| status.is_none()))
    }

    /// What `muster-agent status -o json` says.
    pub async fn status(&self) -> Value {
        let output = self
            .command("status")
            .args(["-o", "json"])
            .output()
            .await
            .expect("the program starts");
        assert!(output.status.success(), "{}", server::everything(&output));
        serde_json::from_slice(&output.stdout).expect("it is JSON")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// How often a text stands in the agent's log.
    pub fn logged(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    /// The text of a file of the machine, `None` where there is none.
    pub fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok()
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder can be made");
        fs::write(path, text).expect("it can be written");
    }

    pub fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).expect("it can be removed");
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("agent.log")
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = server::agent();
        command
            .arg(verb)
            .arg("--state-dir")
            .arg(&self.state_dir)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

impl Drop for Machine {
    /// What the agent saw is what one wants to know of a test that failed.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent of {} said:\n{}", self.device, self.log());
        }
    }
}

/// Waits until a command has come to its end; answers it.
pub async fn ended(api: &Api, command: &str) -> Value {
    eventually(&format!("{command} ends"), PATIENCE, async || {
        let shown = api.get(&format!("/commands/{command}")).await.ok();
        (!shown["completed_at"].is_null()).then_some(shown)
    })
    .await
}

/// Queues a command for a device; answers its id.
pub async fn order(api: &Api, device: &str, body: &Value) -> String {
    let asked = api
        .post(&format!("/devices/{device}/commands"), body)
        .await
        .expect(202);
    asked["command_id"].as_str().expect("an id is text").to_owned()
}

/// Waits until a device has reported a version of its policy; answers its settings by key.
pub async fn reported(api: &Api, device: &str, version: &str) -> Value {
    eventually(
        &format!("{device} reports version {version}"),
        PATIENCE,
        async || {
            let settings = settings_of(api, device).await;
            let current = settings["is_current"] == true
                && settings["policies"]
                    .as_array()
                    .is_some_and(|policies| policies.iter().any(|policy| policy["version"] == version));
            current.then_some(settings)
        },
    )
    .await
}

/// `GET /devices/{id}/settings`.
pub async fn settings_of(api: &Api, device: &str) -> Value {
    api.get(&format!("/devices/{device}/settings")).await.ok()
}

/// One setting of what [`settings_of`] answered.
pub fn setting<'a>(settings: &'a Value, key: &str) -> &'a Value {
    let list = settings["settings"].as_array().expect("settings are a list");
    list.iter()
        .find(|setting| setting["key"] == key)
        .unwrap_or_else(|| panic!("{key} is not in {settings}"))
}

/// Makes a version of the policy `name`, which is made too where there is none, and activates it; answers the rollout's id.
pub async fn activate(api: &Api, name: &str, version: &str, settings: &Value) -> String {
    if api.get(&format!("/policies/{name}")).await.status == 404 {
        api.post("/policies", &serde_json::json!({"name": name}))
            .await
            .expect(201);
    }
    let body = serde_json::json!({"version": version, "settings": settings});
    api.post(&format!("/policies/{name}/versions"), &body).await.ok();
    // At once for every machine, and whatever they say of it.
    let stages = serde_json::json!([{"name": "full", "gate": {"on_failure": "hold"}}]);
    let body = serde_json::json!({"version": version, "stages": stages});
    let begun = api
        .post(&format!("/policies/{name}/activate"), &body)
        .await
        .expect(202);
    begun["rollout_id"].as_str().expect("an id is text").to_owned()
}

/// A TCP relay in front of the device listener: devices keep one address over restarts of the server, and can be cut off.
pub struct Relay {
    address: std::net::SocketAddr,
    target: tokio::sync::watch::Sender<Option<String>>,
}

impl Relay {
    /// A relay to the device listener of a server.
    pub async fn to(admin: &AdminFile) -> Relay {
        Relay::before(admin.device_address()).await
    }

    /// A relay to `host:port`.
    pub async fn before(target: &str) -> Relay {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let (target, watched) = tokio::sync::watch::channel(Some(target.to_owned()));
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(relay(near, watched.clone()));
            }
        });
        Relay { address, target }
    }

    /// `admin.json` as a device behind the relay should see it.
    pub fn in_front_of(&self, admin: &AdminFile) -> AdminFile {
        AdminFile {
            device_url: format!("https://{}", self.address),
            ..admin.clone()
        }
    }

    /// Ends every connection and takes no other.
    pub fn cut(&self) {
        self.target.send_replace(None);
    }

    /// Relays to this server from now on.
    pub fn point(&self, admin: &AdminFile) {
        self.open(admin.device_address());
    }

    /// Relays to `host:port` from now on.
    pub fn open(&self, target: &str) {
        self.target.send_replace(Some(target.to_owned()));
    }

    /// Where the relay listens.
    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }
}

async fn relay(mut near: tokio::net::TcpStream, mut target: tokio::sync::watch::Receiver<Option<String>>) {
    let Some(address) = target.borrow_and_update().clone() else {
        return;
    };
    let Ok(mut far) = tokio::net::TcpStream::connect(address).await else {
        return;
    };
    tokio::select! {
        // Either side ends it, as does a change of the target.
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        _ = target.changed() => {}
    }
}
