//! A real browser for tests: headless Chromium, spoken to over pipes (Chrome DevTools Protocol).

use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;

const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Chromium's first argument is its own path, then come the pipes that it reads and writes.
const START: &str = r#"exec "$0" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
    --disable-background-networking --disable-component-update --disable-sync --user-data-dir="$3" \
    --remote-debugging-pipe about:blank 3<"$1" 4>"$2""#;

pub struct Browser {
    process: Child,
    commands: File,
    answers: Receiver<Value>,
    session: Option<String>,
    last_id: u64,
    /// What the page complained about: blocked by the policy, not found, thrown.
    pub complaints: Vec<String>,
    _folder: TempDir,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the tests' only place that starts programs"
)]
pub fn program(name: &str) -> Command {
    Command::new(name)
}

/// Where Chromium is installed. Without it the tests say so; where peers are required they fail.
pub fn installed() -> Option<String> {
    let look = "command -v chromium || command -v chromium-browser || command -v google-chrome; \
        test \"$CI\" = true -o \"$MUSTER_REQUIRE_PEERS\" = 1 && echo required >&2";
    let output = program("sh")
        .args(["-c", look])
        .output()
        .expect("a shell can be started");
    let path = String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()
        .map(str::to_owned);
    if path.is_none() {
        assert!(
            output.stderr.is_empty(),
            "Chromium is required here and is not installed"
        );
        println!("SKIPPED chromium: it is not installed");
    }
    path
}

impl Browser {
    pub fn start(path: &str) -> Browser {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let pipe = |name: &str| folder.path().join(name);
        let (to, from, profile) = (pipe("to"), pipe("from"), pipe("profile"));
        let made = program("mkfifo")
            .args([&to, &from])
            .status()
            .expect("mkfifo is there");
        assert!(made.success());
        let process = program("sh")
            .args(["-c", START, path])
            .args([&to, &from, &profile])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Chromium can be started");
        let commands = File::options()
            .write(true)
            .open(&to)
            .expect("the shell opens the other end");
        let mut browser = Browser {
            process,
            commands,
            answers: read(&from),
            session: None,
            last_id: 0,
            complaints: Vec::new(),
            _folder: folder,
        };
        let targets = browser.call("Target.getTargets", json!({}));
        let pages = targets["targetInfos"].as_array().expect("there are targets");
        let page = pages
            .iter()
            .find(|target| target["type"] == "page")
            .expect("there is a page");
        let attached = browser.call(
            "Target.attachToTarget",
            json!({"targetId": page["targetId"], "flatten": true}),
        );
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Loads a page and waits until its scripts have run.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
        // A page may take what is behind the # for itself.
        let url = url.split('#').next().unwrap_or(url);
        self.until(&format!(
            "document.readyState === 'complete' && location.href.startsWith({})",
            json!(url)
        ));
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, expression: &str) {
        let deadline = Instant::now() + ANSWER_MAX;
        while self.evaluate(expression) != json!(true) {
            assert!(Instant::now() < deadline, "it never became true: {expression}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The value of an expression in the page; null while the page changes.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self.call(
            "Runtime.evaluate",
            json!({"expression": expression, "returnByValue": true}),
        );
        answer["result"]["value"].clone()
    }

    pub fn press(&mut self, key: &str, code: u32) {
        let text = if key == "Enter" { json!("\r") } else { Value::Null };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code});
            if kind == "keyDown" && !text.is_null() {
                event["text"] = text.clone();
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// The size of the window and the color scheme that the person prefers.
    pub fn look(&mut self, width: u32, scheme: &str) {
        let window = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500});
        self.call("Emulation.setDeviceMetricsOverride", window);
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.call("Emulation.setEmulatedMedia", json!({"features": [feature]}));
    }

    /// Writes what is seen into the folder that MUSTER_TEST_PICTURES names, if it names one, for whoever wants to look.
    #[expect(
        clippy::disallowed_methods,
        reason = "a person asks for it, no setting of the program"
    )]
    pub fn picture(&mut self, name: &str) {
        let Some(folder) = std::env::var_os("MUSTER_TEST_PICTURES") else {
            return;
        };
        let shot = self.call("Page.captureScreenshot", json!({"captureBeyondViewport": true}));
        let bytes = STANDARD.decode(shot["data"].as_str().unwrap_or_default());
        let file = Path::new(&folder).join(format!("{name}.png"));
        std::fs::write(file, bytes.expect("it is a picture")).expect("it can be written");
    }

    /// A virtual authenticator that makes and uses passkeys as if a person had verified themselves at each.
    pub fn hold_passkeys(&mut self) {
        self.call("Emulation.setFocusEmulationEnabled", json!({"enabled": true}));
        self.call("WebAuthn.enable", json!({}));
        let options = json!({
            "protocol": "ctap2", "transport": "internal", "hasResidentKey": true, "hasUserVerification": true,
            "isUserVerified": true, "automaticPresenceSimulation": true,
        });
        self.call("WebAuthn.addVirtualAuthenticator", json!({"options": options}));
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last_id += 1;
        let mut message = json!({"id": self.last_id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.commands
            .write_all(format!("{message}\0").as_bytes())
            .expect("Chromium listens");
        loop {
            let answer = self.answers.recv_timeout(ANSWER_MAX).expect("Chromium answers");
            if answer["id"] == self.last_id {
                return answer["result"].clone();
            }
            self.note(&answer);
        }
    }

    fn note(&mut self, event: &Value) {
        let parameters = &event["params"];
        match event["method"].as_str() {
            Some("Log.entryAdded") => self.complaints.push(parameters["entry"]["text"].to_string()),
            Some("Runtime.exceptionThrown") => {
                self.complaints.push(parameters["exceptionDetails"].to_string())
            }
            Some("Page.javascriptDialogOpening") => {
                self.complaints.push(format!("a dialog opened: {parameters}"))
            }
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It is our own child; a browser that has ended already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Reads messages, each ended by a zero byte, in a thread of its own, so that waiting has an end.
fn read(pipe: &Path) -> Receiver<Value> {
    let (sender, receiver) = channel();
    let mut answers = BufReader::new(File::open(pipe).expect("the shell opens the other end"));
    thread::spawn(move || {
        loop {
            let mut message = Vec::new();
            match answers.read_until(0, &mut message) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            message.pop();
            let Ok(value) = serde_json::from_slice(&message) else {
                return;
            };
            if sender.send(value).is_err() {
                return;
            }
        }
    });
    receiver
}
