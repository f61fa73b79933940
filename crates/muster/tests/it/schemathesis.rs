//! The OpenAPI document against the server, by a program that is not ours: schemathesis makes requests of every operation, good
//! and bad ones, and compares each answer with what the document promises.
//!
//! `MUSTER_SCHEMATHESIS_EXAMPLES` makes a long run by hand, `MUSTER_SCHEMATHESIS_SEED` repeats one (CONTRIBUTING.md).

use std::{fs, path::Path, process::Stdio, time::Duration};

use crate::support::{
    server::{Options, Server, assert_healthy, everything, program},
    traced::Traced,
    variable,
};

/// Made-up requests for each operation, beside those that schemathesis derives from every constraint of the document.
const EXAMPLES: &str = "2";
const SEED: &str = "20261128";
/// How long the whole may take, with long runs by hand.
const PATIENCE: Duration = Duration::from_secs(4 * 3600);

/// What is switched off, in schemathesis' own words, with the reason. Every other check is on, also those of later versions.
const SETTINGS: &str = r#"
[checks]
# A schema does not say that a name has to exist, that an expression has to parse or that a setting is in the catalogue, so what fits the
# schema is refused in most operations, and rightly.
positive_data_acceptance.enabled = false

# The reader of JSON takes a list of a struct's members in their order for the struct, here in the policy's limits. What is stored is
# what the members say.
[[operations]]
include-name = "PUT /api/v1/enrollment-policy"
checks.negative_data_rejection.enabled = false
"#;

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_no_answer_that_the_document_does_not_promise() {
    let tools = variable("MUSTER_TEST_PYTHON_TOOLS").map(std::path::PathBuf::from);
    let Some(tools) = tools else {
        let is_required = ["CI", "MUSTER_REQUIRE_PEERS"]
            .into_iter()
            .any(|name| variable(name).is_some_and(|value| value == "true" || value == "1"));
        assert!(!is_required, "schemathesis is required here and is not installed");
        println!("SKIPPED schemathesis: not installed");
        return;
    };
    let Some(traced) = Traced::new().await else { return };
    let mut server = Server::start(traced.watching(Options::default())).await;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let report = server.folder().path().join("schemathesis.json");
    let settings = server.folder().path().join("schemathesis.toml");
    fs::write(&settings, SETTINGS).expect("it can be written");
    let mut command = program(&tools.join("schemathesis"));
    command
        .arg("--config-file")
        .arg(&settings)
        .arg("run")
        .arg(here.join("../../openapi/admin.json"))
        .args(["--url", &server.admin.admin_url, "--tls-verify"])
        .arg(&server.admin.ca_file)
        .args(["--phases", "examples,coverage,fuzzing,stateful"])
        .args([
            "--max-examples",
            &variable("MUSTER_SCHEMATHESIS_EXAMPLES").unwrap_or_else(|| EXAMPLES.to_owned()),
        ])
        .args([
            "--seed",
            &variable("MUSTER_SCHEMATHESIS_SEED").unwrap_or_else(|| SEED.to_owned()),
        ])
        .args([
            "--workers",
            "2",
            "--continue-on-failure",
            "--no-color",
            "--no-shrink",
        ])
        .args(["--suppress-health-check", "all", "--warnings", "off"])
        .args(["--report", "json", "--report-json-path"])
        .arg(&report)
        .env("SCHEMATHESIS_HOOKS", here.join("tests/it/schemathesis_hooks.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("MUSTER_URL", &server.admin.admin_url)
        .env("MUSTER_CA_FILE", &server.admin.ca_file)
        .env("MUSTER_CLIENT_ID", &server.admin.client_id)
        .env("MUSTER_CLIENT_SECRET", &server.admin.client_secret)
        .current_dir(server.folder().path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = ended.expect("it ends").expect("schemathesis starts");
    let said = everything(&output);
    assert!(fs::exists(&report).is_ok_and(|is_there| is_there), "{said}");
    assert!(output.status.success(), "{said}");
    let summary = said.split("SUMMARY").nth(1).unwrap_or_default();
    println!(
        "schemathesis:{}",
        summary.trim_matches(|letter| letter == '=' || letter == ' ')
    );
    assert_healthy(&server).await;
    // J2: whatever it asked, no program was started.
    server.stop().await;
    traced.assert_nothing_but(1);
}
