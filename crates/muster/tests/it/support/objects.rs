//! Object storage that is not ours: moto's S3, where it is installed.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Once,
};

use reqwest::{
    Client,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};
use tokio::process::Child;

use super::{
    PATIENCE, eventually,
    haproxy::free_port,
    server::{Options, program},
    variable,
};

/// Where the programs of the Python package index are.
const TOOLS_VARIABLE: &str = "MUSTER_TEST_PYTHON_TOOLS";
const BUCKET: &str = "bundles";

/// A running S3 server with one bucket. It is killed when the test ends.
pub struct S3 {
    child: Child,
    port: u16,
    client: Client,
}

impl S3 {
    pub async fn start(program: &Path) -> S3 {
        S3::start_at(program, free_port()).await
    }

    /// Ends it: whoever asks gets no connection. Answers its port.
    pub async fn stop(mut self) -> u16 {
        self.child.kill().await.expect("a child can be killed");
        self.port
    }

    /// A server that keeps its bundles here.
    pub fn options(&self, options: Options) -> Options {
        self.access(options)
            .with("--artifact-store", format!("s3://{BUCKET}/policy"))
    }

    /// A server that may use every bucket here.
    pub fn access(&self, options: Options) -> Options {
        options
            .with_variable("AWS_ENDPOINT", format!("http://127.0.0.1:{}", self.port))
            .with_variable("AWS_ALLOW_HTTP", true)
            .with_variable("AWS_REGION", "us-east-1")
            .with_variable("AWS_ACCESS_KEY_ID", "test")
            .with_variable("AWS_SECRET_ACCESS_KEY", "test")
    }

    /// Makes another bucket that can hold objects.
    pub async fn make_locked(&self, bucket: &str) {
        let url = format!("http://127.0.0.1:{}/{bucket}", self.port);
        let made = self
            .client
            .put(&url)
            .header("x-amz-bucket-object-lock-enabled", "true");
        let made = made.send().await;
        made.and_then(reqwest::Response::error_for_status)
            .expect("a bucket is made");
    }

    /// Holds an object for years, as a default retention of the bucket would: moto takes objects into that only with a header
    /// that S3 does not ask for.
    pub async fn hold(&self, bucket: &str, name: &str) {
        let url = format!("http://127.0.0.1:{}/{bucket}/{name}?retention", self.port);
        let body = "<Retention><Mode>COMPLIANCE</Mode><RetainUntilDate>2100-01-01T00:00:00Z</RetainUntilDate></Retention>";
        let held = self
            .client
            .put(url)
            .header("content-type", "application/xml")
            .body(body);
        let held = held.send().await;
        held.and_then(reqwest::Response::error_for_status)
            .expect("the object is held");
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// An object's bytes, if it is there.
    pub async fn object(&self, name: &str) -> Option<Vec<u8>> {
        self.object_in(BUCKET, name).await
    }

    /// As [`S3::object`], from another bucket.
    pub async fn object_in(&self, bucket: &str, name: &str) -> Option<Vec<u8>> {
        let url = format!("http://{}/{bucket}/{name}", self.address());
        let answer = self.client.get(url).send().await.ok()?;
        let answer = answer.error_for_status().ok()?;
        Some(answer.bytes().await.ok()?.to_vec())
    }

    /// The names of everything in a bucket, in their order; at most a thousand.
    pub async fn names_in(&self, bucket: &str) -> Vec<String> {
        let url = format!("http://{}/{bucket}?list-type=2", self.address());
        let listed = self.client.get(url).send().await.expect("it answers");
        let text = listed.text().await.expect("it is text");
        let names = text.split("<Key>").skip(1);
        names
            .filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned()))
            .collect()
    }

    /// The headers of an object.
    pub async fn headers_of(&self, bucket: &str, name: &str) -> HeaderMap {
        let url = format!("http://{}/{bucket}/{name}", self.address());
        let asked = self.client.head(url).send().await;
        let answer = asked.and_then(reqwest::Response::error_for_status);
        answer.expect("it is there").headers().clone()
    }

    /// Puts an object there as the bucket's administrator would.
    pub async fn put(&self, name: &str, bytes: &'static [u8]) {
        let answer = self.client.put(self.url(name)).body(bytes).send().await;
        answer
            .and_then(reqwest::Response::error_for_status)
            .expect("the object is written");
    }

    pub async fn delete(&self, name: &str) {
        let answer = self.client.delete(self.url(name)).send().await;
        answer
            .and_then(reqwest::Response::error_for_status)
            .expect("the object is removed");
    }

    /// On a port that is free now; with an empty bucket.
    pub async fn start_at(binary: &Path, port: u16) -> S3 {
        let mut command = program(binary);
        command
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command.kill_on_drop(true).spawn().expect("moto_server starts");
        let s3 = S3 {
            child,
            port,
            client: signed(),
        };
        eventually("moto answers", PATIENCE, async || {
            let made = s3.client.put(s3.url("")).send().await.ok()?;
            made.status().is_success().then_some(())
        })
        .await;
        s3
    }

    fn url(&self, name: &str) -> String {
        format!("http://{}/{BUCKET}/{name}", self.address())
    }
}

/// Moto wants to be told who asks, and believes it.
fn signed() -> Client {
    let who = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
    let headers = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static(who))]);
    let client = Client::builder().default_headers(headers).build();
    client.expect("a client can be made")
}

/// The program, if it is installed. Without it says so loudly, or panics where that is not allowed.
pub fn moto_server() -> Option<PathBuf> {
    tool_of_python("moto_server")
}

/// Python with the packages that tests use.
pub fn python() -> Option<PathBuf> {
    tool_of_python("python")
}

/// A program of the Python environment, if it is installed.
pub fn python_tool(name: &str) -> Option<PathBuf> {
    tool_of_python(name)
}

fn tool_of_python(name: &str) -> Option<PathBuf> {
    static SAID: Once = Once::new();
    let found = variable(TOOLS_VARIABLE)
        .map(|folder| Path::new(&folder).join(name))
        .filter(|path| path.exists());
    if found.is_none() {
        let required = variable("CI").as_deref() == Some("true")
            || variable("MUSTER_REQUIRE_PEERS").as_deref() == Some("1");
        assert!(
            !required,
            "{name} is not installed, and this run must not skip it"
        );
        // Straight to the stream: the test runner swallows what a passing test prints.
        SAID.call_once(|| {
            let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {TOOLS_VARIABLE} is not set");
        });
    }
    found
}
