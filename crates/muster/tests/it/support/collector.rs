//! A collector of traces that is not ours: rotel, which prints every span that it takes over OTLP.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Once,
};

use tokio::process::Child;

use super::{PATIENCE, eventually, haproxy::free_port, server, variable};

/// Where the programs of the Python package index are.
const TOOLS_VARIABLE: &str = "MUSTER_TEST_PYTHON_TOOLS";

/// A span as the collector printed it.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Attributes of the resource.
    pub resource: BTreeMap<String, String>,
    pub trace: String,
    pub id: String,
    /// Empty of a root.
    pub parent: String,
    pub name: String,
    pub kind: String,
    pub start_nanos: u64,
    pub end_nanos: u64,
    pub status: String,
    pub attributes: BTreeMap<String, String>,
}

impl Seen {
    pub fn service(&self) -> &str {
        self.resource.get("service.name").map_or("", String::as_str)
    }
}

/// A running collector. It is killed when the test ends.
pub struct Collector {
    _child: Child,
    program: PathBuf,
    pub grpc_port: u16,
    pub http_port: u16,
    log: PathBuf,
}

impl Collector {
    /// Starts one that writes into `folder`; none where it is not installed.
    pub async fn start(folder: &Path) -> Option<Collector> {
        let program = find()?;
        Some(Collector::start_at(program, folder, free_port(), free_port()).await)
    }

    async fn start_at(program: PathBuf, folder: &Path, grpc_port: u16, http_port: u16) -> Collector {
        let log = folder.join(format!("collector-{grpc_port}.log"));
        let at = |port: u16| format!("127.0.0.1:{port}");
        let (grpc, http) = (at(grpc_port), at(http_port));
        let arguments = [
            "start",
            "--exporter",
            "blackhole",
            "--debug-log",
            "traces",
            "--debug-log-verbosity",
            "detailed",
            "--otlp-grpc-endpoint",
            &grpc,
            "--otlp-http-endpoint",
            &http,
        ];
        let child = server::start_tool(&program.display().to_string(), &arguments, &log);
        eventually("the collector listens", PATIENCE, async || {
            tokio::net::TcpStream::connect(&http).await.ok().map(drop)
        })
        .await;
        Collector {
            _child: child,
            program,
            grpc_port,
            http_port,
            log,
        }
    }

    /// Another collector at the same places, after this one has ended.
    pub async fn start_again(self, folder: &Path) -> Collector {
        let Collector {
            mut _child,
            program,
            grpc_port,
            http_port,
            log,
        } = self;
        _child.kill().await.expect("a child can be killed");
        let earlier = log.with_extension("before");
        fs::rename(&log, earlier).expect("the log can be put aside");
        Collector::start_at(program, folder, grpc_port, http_port).await
    }

    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Every span that was taken.
    pub fn spans(&self) -> Vec<Seen> {
        read(&self.said())
    }

    pub fn of_trace(&self, trace: &str) -> Vec<Seen> {
        let mut spans = self.spans();
        spans.retain(|span| span.trace == trace);
        spans
    }
}

fn find() -> Option<PathBuf> {
    static SAID: Once = Once::new();
    let of_tools = |bin: String| {
        let library = Path::new(&bin).parent()?.join("lib");
        let mut versions = fs::read_dir(library).ok()?.filter_map(Result::ok);
        versions.find_map(|version| {
            let program = version.path().join("site-packages/rotel/rotel-agent");
            program.exists().then_some(program)
        })
    };
    let found = variable(TOOLS_VARIABLE).and_then(of_tools);
    if found.is_none() {
        let required = variable("CI").as_deref() == Some("true")
            || variable("MUSTER_REQUIRE_PEERS").as_deref() == Some("1");
        assert!(!required, "rotel is not installed, and this run must not skip it");
        SAID.call_once(|| {
            let _ = writeln!(std::io::stderr(), "SKIPPED rotel: it is not installed");
        });
    }
    found
}

/// Reads the detailed debug output. Attributes belong to the resource until a span begins.
fn read(text: &str) -> Vec<Seen> {
    let mut spans: Vec<Seen> = Vec::new();
    let (mut resource, mut in_span) = (BTreeMap::new(), false);
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with("ResourceSpans #") {
            (resource, in_span) = (BTreeMap::new(), false);
        } else if line.starts_with("ScopeSpans #") {
            in_span = false;
        } else if line.starts_with("Span #") {
            in_span = true;
            spans.push(Seen {
                resource: resource.clone(),
                ..Seen::default()
            });
        } else if let Some((name, value)) = line.strip_prefix("-> ").and_then(|pair| pair.split_once(": ")) {
            let value = value.split_once('(').map_or(value, |(_, value)| value);
            let value = value.strip_suffix(')').unwrap_or(value).to_owned();
            match spans.last_mut().filter(|_| in_span) {
                Some(span) => drop(span.attributes.insert(name.to_owned(), value)),
                None => drop(resource.insert(name.to_owned(), value)),
            }
        } else if let Some((field, value)) = line.split_once(':')
            && in_span
            && let Some(span) = spans.last_mut()
        {
            let value = value.trim();
            match field.trim() {
                "Trace ID" => value.clone_into(&mut span.trace),
                "Parent ID" => value.clone_into(&mut span.parent),
                "ID" => value.clone_into(&mut span.id),
                "Name" => value.clone_into(&mut span.name),
                "Kind" => value.clone_into(&mut span.kind),
                "Status code" => value.clone_into(&mut span.status),
                "Start time" => span.start_nanos = value.parse().unwrap_or_default(),
                "End time" => span.end_nanos = value.parse().unwrap_or_default(),
                _ => {}
            }
        }
    }
    spans
}
