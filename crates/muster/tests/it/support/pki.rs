//! Certificates as others see them: `openssl`, files for it, the public routes, and `muster ca`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    api::{Answer, answer},
    device::Device,
    server::{Server, everything, run_muster, tool},
};

/// Whether a program that is not ours is here. Without it the test says so; where peers are required it fails.
pub async fn peer_is_installed(peer: &str, look: &str) -> bool {
    let path = format!("{}:/usr/sbin:/sbin", super::variable("PATH").unwrap_or_default());
    let found = super::server::tool_with("sh", &["-c", look], &[("PATH", &path)]).await;
    if !found.status.success() {
        let is_required = ["CI", "MUSTER_REQUIRE_PEERS"]
            .into_iter()
            .any(|name| super::variable(name).is_some_and(|value| value == "true" || value == "1"));
        assert!(!is_required, "{peer} is required here and is not installed");
        println!("SKIPPED {peer}: not installed");
    }
    found.status.success()
}

/// A block of PEM.
pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).expect("base64 is text"))
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

/// Certificates of a device and of its installation, as files.
pub struct Files {
    pub root: PathBuf,
    pub issuer: PathBuf,
    pub leaf: PathBuf,
    /// The root and the issuer, as relying parties are given them.
    pub trust: PathBuf,
    pub key: PathBuf,
}

impl Files {
    /// Writes a device's chain, with its key, under names that begin with `name`.
    pub fn of(server: &Server, device: &Device, name: &str) -> Files {
        let chain: Vec<&[u8]> = device
            .enrolled
            .certificate_chain
            .iter()
            .map(|der| der.0.as_slice())
            .collect();
        let folder = server.folder();
        let put = |suffix: &str, text: &str| {
            let path = folder.path().join(format!("{name}-{suffix}.pem"));
            fs::write(&path, text).expect("a file can be written");
            path
        };
        let root = fs::read_to_string(&server.admin.ca_file).expect("ca.pem is there");
        let issuer = pem("CERTIFICATE", chain[1]);
        Files {
            root: put("root", &root),
            issuer: put("issuer", &issuer),
            leaf: put("leaf", &pem("CERTIFICATE", chain[0])),
            trust: put("trust", &format!("{root}{issuer}")),
            key: put(
                "key",
                &device.applicant.key.to_pkcs8_pem().expect("it can be written"),
            ),
        }
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().expect("paths here are text")
}

/// Runs openssl; answers whether it succeeded and what it said.
pub async fn openssl(arguments: &[&str]) -> (bool, String) {
    let output = tool("openssl", arguments).await;
    (output.status.success(), everything(&output))
}

/// Runs openssl, which must succeed.
pub async fn openssl_ok(arguments: &[&str]) -> String {
    let (is_good, said) = openssl(arguments).await;
    assert!(is_good, "openssl {arguments:?}: {said}");
    said
}

/// The origin of the plain listener, as the newest start printed it.
pub fn pki_origin(server: &Server) -> String {
    let banner = server.banner();
    let (_, rest) = banner
        .split_once("Revocation lists and OCSP are at ")
        .expect("the plain listener is on");
    rest.split("/pki/").next().expect("it is a URL").to_owned()
}

/// Fetches from the plain listener.
pub async fn fetch(server: &Server, path: &str) -> Answer {
    answer(reqwest::Client::new().get(format!("{}{path}", pki_origin(server)))).await
}

/// `muster ca …` that must succeed.
pub async fn ca(arguments: &[&str]) -> String {
    let output = try_ca(arguments).await;
    assert!(
        output.status.success(),
        "muster ca {arguments:?}: {}",
        everything(&output)
    );
    everything(&output)
}

/// `muster ca …`, whatever comes of it.
pub async fn try_ca(arguments: &[&str]) -> Output {
    run_muster(std::iter::once("ca").chain(arguments.iter().copied())).await
}

/// Replaces an intermediate of a server, with the root's key from where the first run put it; answers the ids of the old and
/// the new one. `more` are more arguments of `muster ca request`.
pub async fn rotate(server: &Server, role: &str, more: &[&str]) -> (String, String) {
    let data = server.data_dir();
    let old = active(&data, role).await;
    let folder = server.folder();
    let (request, signed) = (folder.path().join("ca.csr"), folder.path().join("ca-new.pem"));
    let asked = [
        &[
            "request",
            "--data-dir",
            text(&data),
            "--role",
            role,
            "--out",
            text(&request),
        ],
        more,
    ]
    .concat();
    ca(&asked).await;
    ca(&[
        "sign",
        "--root-key",
        text(&data.join("take-away/root-ca-key.pem")),
        "--root-certificate",
        text(&server.admin.ca_file),
        "--request",
        text(&request),
        "--role",
        role,
        "--out",
        text(&signed),
    ])
    .await;
    ca(&[
        "install",
        "--data-dir",
        text(&data),
        "--certificate",
        text(&signed),
    ])
    .await;
    (old, active(&data, role).await)
}

/// The id of the device CA that signs.
pub async fn active_device_ca(data: &Path) -> String {
    active(data, "device").await
}

async fn active(data: &Path, role: &str) -> String {
    let listed = ca(&["list", "--data-dir", text(data)]).await;
    let line = listed
        .lines()
        .find(|line| line.contains(&format!(" {role} ")) && line.contains(" active "))
        .unwrap_or_else(|| panic!("no active {role} CA:\n{listed}"));
    line.split_whitespace()
        .next()
        .expect("a line begins with an id")
        .to_owned()
}
