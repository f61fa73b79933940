//! The program as its users see it: exit codes, messages, and what it leaves behind.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

/// A JWT-shaped text whose payload is `{"device_uuid":"4c4c4544-0042-3510-8052-b4c04f4b3132"}`.
const TOKEN: &str =
    "e30.eyJkZXZpY2VfdXVpZCI6IjRjNGM0NTQ0LTAwNDItMzUxMC04MDUyLWI0YzA0ZjRiMzEzMiJ9.Y2FuYXJ5LXNpZ25hdHVyZQ";

#[expect(
    clippy::disallowed_methods,
    reason = "the test harness starts the program under test"
)]
fn agent() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_muster-agent"));
    command.env_clear();
    command
}

fn run(arguments: &[&str]) -> Output {
    agent().args(arguments).output().expect("the program starts")
}

fn check(output: &Output, code: i32, says: &str) {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.contains(says), "{says:?} is not in {text:?}");
    assert!(!text.contains("canary"), "the token was printed: {text}");
}

/// Writes a certificate authority and returns its path.
fn ca_file(folder: &Path) -> String {
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::default()
        .self_signed(&key)
        .expect("a certificate");
    let path = folder.join("ca.pem");
    std::fs::write(&path, certificate.pem()).expect("it writes");
    path.display().to_string()
}

fn enroll(folder: &Path, server: &str, token: &str, more: &[&str]) -> Output {
    let (ca, state) = (ca_file(folder), folder.join("state").display().to_string());
    let root = folder.join("root").display().to_string();
    let mut arguments = vec!["enroll", "--server", server, "--ca-file", &ca, "--token", token];
    arguments.extend(["--state-dir", &state, "--root", &root]);
    arguments.extend(more);
    run(&arguments)
}

#[test]
fn usage_errors_end_with_two() {
    check(&run(&[]), 2, "Usage");
    check(&run(&["fly"]), 2, "unrecognized subcommand");
    check(&run(&["run"]), 2, "--state-dir");
    check(
        &run(&["run", "--state-dir", "x", "--fast"]),
        2,
        "unexpected argument",
    );
    check(
        &run(&[
            "enroll",
            "--server",
            "https://a",
            "--ca-file",
            "b",
            "--state-dir",
            "c",
        ]),
        2,
        "--token",
    );
    check(
        &run(&[
            "enroll",
            "--server",
            "http://a",
            "--ca-file",
            "b",
            "--state-dir",
            "c",
            "--token",
            "d",
        ]),
        2,
        "https",
    );
    check(
        &run(&["status", "--state-dir", "x", "-o", "xml"]),
        2,
        "possible values: text, json",
    );
}

#[test]
fn help_and_version_end_with_zero() {
    check(&run(&["--help"]), 0, "Exit codes: 0 ok, 1 failed, 2 usage.");
    check(&run(&["enroll", "--help"]), 0, "MUSTER_CA_FILE");
    check(&run(&["run", "--help"]), 0, "MUSTER_STATE_DIR");
    check(&run(&["--version"]), 0, env!("CARGO_PKG_VERSION"));
}

#[test]
fn every_flag_has_an_environment_variable() {
    let help = run(&["enroll", "--help"]);
    let text = String::from_utf8_lossy(&help.stdout);
    for flag in [
        "SERVER",
        "CA_FILE",
        "TOKEN",
        "STATE_DIR",
        "ROOT",
        "TPM",
        "LOG_LEVEL",
    ] {
        assert!(text.contains(&format!("[env: MUSTER_{flag}")), "{flag}: {text}");
    }
    let output = agent()
        .arg("run")
        .env("MUSTER_STATE_DIR", "/nonexistent")
        .output()
        .expect("the program starts");
    check(&output, 1, "muster-agent enroll");
}

#[test]
fn a_folder_without_an_identity_is_a_failure_that_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().display().to_string();
    check(&run(&["status", "--state-dir", &path]), 1, "agent.db");
    check(
        &run(&["run", "--state-dir", "/nonexistent"]),
        1,
        "run `muster-agent enroll` first",
    );
    check(&run(&["run", "--state-dir", &path]), 1, "agent.db");
}

#[test]
fn a_tpm_that_is_not_there_is_an_error_and_never_a_key_in_a_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let enroll_with = |tpm| enroll(folder.path(), "https://127.0.0.1:1", TOKEN, &["--tpm", tpm]);
    check(&enroll_with("device:/nonexistent/tpm"), 1, "/nonexistent/tpm");
    check(
        &enroll_with("swtpm:path=/nonexistent/socket"),
        1,
        "/nonexistent/socket",
    );
    let state = folder.path().join("state");
    assert!(!state.join("device.key").exists() && !state.join("device.tpm").exists());
    check(&enroll_with("the-blue-one"), 2, "device:/dev/tpmrm0");
}

#[test]
fn what_is_not_a_token_is_refused_before_anything_else_happens() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    check(
        &enroll(folder.path(), "https://127.0.0.1:1", "hello", &[]),
        1,
        "device_uuid",
    );
    check(
        &enroll(folder.path(), "https://127.0.0.1:1", "@/nonexistent/token", &[]),
        1,
        "/nonexistent/token",
    );
    check(
        &enroll(folder.path(), "https://127.0.0.1:1", "-", &[]),
        1,
        "empty",
    );
    assert!(!folder.path().join("state").exists(), "nothing was left behind");
}

#[test]
fn a_token_comes_from_a_file_or_the_environment() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let token = folder.path().join("token.jwt");
    std::fs::write(&token, format!("{TOKEN}\n")).expect("it writes");
    let output = enroll(
        folder.path(),
        "https://127.0.0.1:1",
        &format!("@{}", token.display()),
        &[],
    );
    check(&output, 1, "cannot be reached");
}

#[test]
fn an_unreachable_server_fails_and_leaves_a_private_folder_to_try_again_with() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for _ in 0..2 {
        check(
            &enroll(folder.path(), "https://127.0.0.1:1", TOKEN, &[]),
            1,
            "cannot be reached",
        );
    }
    let state = folder.path().join("state");
    let mode = |path: &Path| std::fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("device.key")), 0o600);
    check(
        &run(&["run", "--state-dir", &state.display().to_string()]),
        1,
        "run `muster-agent enroll` first",
    );
}

#[test]
fn a_file_that_is_no_certificate_authority_is_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (state, file) = (folder.path().join("state"), folder.path().join("not-a-ca"));
    std::fs::write(&file, "hello").expect("it writes");
    let (state, file) = (state.display().to_string(), file.display().to_string());
    let arguments = [
        "enroll",
        "--server",
        "https://127.0.0.1:1",
        "--token",
        TOKEN,
        "--state-dir",
        &state,
    ];
    check(&run(&[&arguments[..], &["--ca-file", &file]].concat()), 1, "PEM");
    check(
        &run(&[&arguments[..], &["--ca-file", "/nonexistent/ca"]].concat()),
        1,
        "/nonexistent/ca",
    );
}

/// E13: the program holds no secret that all installations share.
#[test]
fn e13_the_program_holds_no_private_key() {
    let bytes = std::fs::read(env!("CARGO_BIN_EXE_muster-agent")).expect("it reads");
    // A PEM block in use has base64 after its header; the header alone is a parser's constant.
    let header = b"PRIVATE KEY-----\n";
    let starts = bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'P')
        .map(|(start, _)| start);
    for start in starts {
        let Some(key) = bytes[start..].strip_prefix(header) else {
            continue;
        };
        let body = &key[..key.len().min(16)];
        let is_base64 = body
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte));
        assert!(!is_base64, "a private key at {start}");
    }
    // PKCS#8 of P-256, Ed25519 and RSA, and SEC 1, in DER.
    let documents = [
        "308187020100301306072a8648ce3d020106082a8648ce3d030107046d306b0201010420",
        "302e020100300506032b657004220420",
        "020100300d06092a864886f70d0101010500048204",
        "30770201010420",
    ];
    for document in documents {
        let head = hex::decode(document).expect("hex");
        let found = bytes.windows(head.len()).position(|window| window == head);
        assert_eq!(found, None, "a private key in DER, {document}");
    }
}
