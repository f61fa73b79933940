//! `muster policy test`: a bundle against a simulated fleet, and the exit code that a pipeline goes by.

use std::{path::Path, process::Output, time::Duration};

use serde_json::{Value, json};

use crate::support::server::{Options, Server, everything, muster};

/// Enough for several devices of every model in the whole fleet, few enough for a test.
const DEVICES: &str = "60";
/// A test may take this long on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(240);
const STRICT: &str = "passcode.min_length: 12\ncamera.allowed: false\n";
const LOOSE: &str = "passcode.min_length: 8\n";

/// Runs `muster policy test` with a folder of temporary files of its own; checks that nothing is left in it.
async fn tested(folder: &Path, arguments: &[&str]) -> Output {
    let temporary = folder.join("temporary");
    std::fs::create_dir_all(&temporary).expect("a folder can be made");
    let mut program = muster();
    program
        .args(["policy", "test", "--seed", "7"])
        .args(arguments)
        .env("TMPDIR", &temporary)
        .current_dir(folder)
        .kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, program.output()).await;
    let output = ended.expect("the test ends in time").expect("it can be run");
    let left: Vec<_> = std::fs::read_dir(&temporary)
        .expect("the folder is there")
        .collect();
    assert!(left.is_empty(), "{left:?}");
    output
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", everything(output)))
}

fn put(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("it can be written");
}

fn sum(report: &Value, field: &str) -> u64 {
    let stages = report["stages"].as_array().expect("stages are a list");
    stages.iter().filter_map(|stage| stage[field].as_u64()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_healthy_bundle_of_the_server_passes_the_test() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    api.post("/policies", &json!({"name": "base"})).await.expect(201);
    let settings = json!({"passcode.min_length": 12, "screen_capture.allowed": false});
    let version = json!({"version": "2026.05", "settings": settings});
    api.post("/policies/base/versions", &version).await.expect(201);
    let bundle = api.get("/policies/base/versions/2026.05/bundle").await.bytes;
    let folder = tempfile::tempdir().expect("a folder can be made");
    std::fs::write(folder.path().join("policy.zip"), bundle).expect("it can be written");

    let words = ["--bundle", "policy.zip", "--devices", DEVICES, "-o", "json"];
    let output = tested(folder.path(), &words).await;
    assert_eq!(output.status.code(), Some(0), "{}", everything(&output));
    let report = report(&output);
    assert_eq!(
        (&report["result"], &report["policy"], &report["version"]),
        (&json!("completed"), &json!("base"), &json!("2026.05"))
    );
    assert_eq!(
        (sum(&report, "devices"), sum(&report, "verified")),
        (60, 60),
        "{report}"
    );
    assert_eq!(report["failures"], json!([]));
    // Where it is weaker, and where it is not there at all.
    let gaps = report["gaps"].as_array().expect("gaps are a list");
    let has = |setting: &str, platform: &str, state: &str| {
        gaps.iter()
            .any(|gap| gap["setting"] == setting && gap["platform"] == platform && gap["state"] == state)
    };
    assert!(has("passcode.min_length", "macos", "weaker"), "{report}");
    assert!(
        has("screen_capture.allowed", "linux", "not_expressible"),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_a_version_that_fails_on_one_model_fails_the_test_and_its_devices_are_back() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    put(folder.path(), "settings.yml", STRICT);
    put(folder.path(), "before.yml", LOOSE);
    let words = [
        "--settings",
        "settings.yml",
        "--devices",
        DEVICES,
        "--fault",
        "Fieldbook 14:camera.allowed=0.5",
    ];
    let with_before = [&words[..], &["--before", "before.yml", "-o", "json"]].concat();
    let output = tested(folder.path(), &with_before).await;
    assert_eq!(output.status.code(), Some(1), "{}", everything(&output));
    let report = report(&output);
    let failure = &report["failures"][0];
    assert_eq!(
        (&failure["setting"], &failure["model"], &failure["platform"]),
        (&json!("camera.allowed"), &json!("Fieldbook 14"), &json!("linux")),
        "{report}"
    );
    assert_eq!(report["failures"].as_array().map(Vec::len), Some(1));
    assert_eq!(failure["devices"].as_u64(), Some(sum(&report, "failed")));
    let back = &report["roll_back"];
    assert_eq!(
        (
            &back["to"],
            &back["back"],
            &back["not_back"],
            &back["never_answered"]
        ),
        (&json!("before"), &report["touched"], &json!(0), &json!(0)),
        "{report}"
    );
    assert!(report["touched"].as_u64().is_some_and(|touched| touched > 0));

    // For a person, and with nothing before.
    let output = tested(folder.path(), &words).await;
    assert_eq!(output.status.code(), Some(1), "{}", everything(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    for part in [
        "STOPPED",
        "camera.allowed",
        "Fieldbook 14",
        "without the policy again",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_silent_devices_fail_the_test() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    put(folder.path(), "settings.yml", LOOSE);
    let words = [
        "--settings",
        "settings.yml",
        "--devices",
        DEVICES,
        "--silent-rate",
        "0.3",
        "--silent-after",
        "8",
        "--stages",
        "half=50,full",
        "-o",
        "json",
    ];
    let output = tested(folder.path(), &words).await;
    assert_eq!(output.status.code(), Some(1), "{}", everything(&output));
    let report = report(&output);
    assert_eq!(
        (&report["stopped_in"], &report["touched"]),
        (&json!("half"), &json!(30)),
        "{report}"
    );
    assert!(
        sum(&report, "silent") > 0 && sum(&report, "failed") == 0,
        "{report}"
    );
    assert_eq!(
        (
            report["roll_back"]["never_answered"].as_u64(),
            &report["roll_back"]["not_back"]
        ),
        (Some(sum(&report, "silent")), &json!(0)),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p6_what_cannot_be_tested_is_said_before_any_device_is_there() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    put(folder.path(), "policy.zip", "PK, and no bundle");
    put(folder.path(), "settings.yml", STRICT);
    put(folder.path(), "wrong.yml", "camera.alowed: false\n");
    put(folder.path(), "scenario.toml", "[[phase]]\nat_second = 0\n");
    for (words, code, says) in [
        (&["--bundle", "policy.zip"][..], 1, "bundle"),
        (&["--bundle", "nowhere.zip"], 1, "nowhere.zip"),
        (&["--settings", "wrong.yml"], 1, "camera.alowed"),
        (&["--devices", "5"], 2, "--bundle"),
        (
            &[
                "--settings",
                "settings.yml",
                "--fault",
                "Nobook:camera.allowed=0.5",
            ],
            2,
            "Nobook",
        ),
        (
            &["--settings", "settings.yml", "--scenario", "scenario.toml"],
            2,
            "at_second",
        ),
        (
            &["--settings", "settings.yml", "--stages", "a=60,b=20,full"],
            2,
            "--stages",
        ),
    ] {
        let output = tested(folder.path(), words).await;
        assert_eq!(
            output.status.code(),
            Some(code),
            "{words:?}: {}",
            everything(&output)
        );
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(says), "{words:?}: {error}");
    }
}
