//! certmonger, the SCEP client of Fedora and Debian, against the server: it enrolls, and it changes its key.

use std::{io::Write, path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use tokio::io::copy_bidirectional;
use uuid::Uuid;

use crate::support::{
    device::{Handshake, Line, logged, tls},
    enrollee::challenge_for,
    server::{AdminFile, Options, Server, everything, program},
};

const CERTMONGER: &str = "/usr/sbin/certmonger";

/// certmonger checks TLS against the machine's own trust store, which tests leave alone: it speaks HTTP to this, and this TLS
/// to the server.
async fn relay(admin: &AdminFile) -> String {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let url = format!("http://{}/scep", socket.local_addr().expect("it is bound"));
    let handshake = Handshake {
        identity: None,
        protocol: b"http/1.1",
    };
    let (config, admin) = (tls(admin, handshake), admin.clone());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = socket.accept().await {
            let (config, admin) = (Arc::clone(&config), admin.clone());
            tokio::spawn(async move {
                if let Ok(mut line) = Line::open(&admin, &config).await {
                    let _ = copy_bidirectional(&mut client, &mut line.0).await;
                }
            });
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn certmonger_enrolls_and_changes_its_key() {
    if !PathBuf::from(CERTMONGER).exists() {
        // Straight to the stream: the test runner swallows what a passing test prints.
        let _ = writeln!(std::io::stderr(), "SKIPPED certmonger: not installed");
        return;
    }
    let server = Server::start(Options::default()).await;
    let (api, url) = (server.api().await, relay(&server.admin).await);
    let device_uuid = Uuid::new_v4();
    let challenge = challenge_for(&api, "scep", device_uuid).await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let at = |name: &str| folder.path().join(name).display().to_string();
    let script = format!(
        "set -e\n\
         getcert add-scep-ca -c muster -u {url}\n\
         getcert request -I device -c muster -k {key} -f {certificate} -g 2048 -N CN={device_uuid} -L {challenge} -w \
             --wait-timeout 60 -v\n\
         cp {certificate} {first}\n\
         getcert rekey -i device -w --wait-timeout 60 -v\n\
         getcert list -i device\n",
        key = at("device.key"),
        certificate = at("device.pem"),
        first = at("first.pem"),
    );
    std::fs::write(at("script"), script).expect("the folder takes files");
    let mut command = program(CERTMONGER.as_ref());
    for (variable, name) in [
        ("HOME", "home"),
        ("CERTMONGER_CAS_DIR", "cas"),
        ("CERTMONGER_REQUESTS_DIR", "requests"),
        ("CERTMONGER_LOCAL_CA_DIR", "local"),
        ("CERTMONGER_CONFIG_DIR", "config"),
        ("CERTMONGER_TMPDIR", "tmp"),
    ] {
        std::fs::create_dir(at(name)).expect("the folder takes folders");
        command.env(variable, at(name));
    }
    command
        .env("CERTMONGER_SYSTEM_LOCK_FILE", at("lock"))
        .args([
            "-L",
            "-P",
            &at("socket"),
            "-n",
            "-d",
            "1",
            "-c",
            &format!("sh {}", at("script")),
        ])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let ended = tokio::time::timeout(Duration::from_secs(150), command.output()).await;
    let output = ended.expect("it ends in time").expect("it starts");
    let said = everything(&output);
    let first = std::fs::read_to_string(at("first.pem")).unwrap_or_else(|error| panic!("{error}\n{said}"));
    let second = std::fs::read_to_string(at("device.pem")).unwrap_or_default();
    assert_ne!(first, second, "{said}\n{}", server.log());
    assert!(said.contains("status: MONITORING"), "{said}");
    logged(&api, "device.rekeyed", 1).await;
    assert_eq!(api.list("/devices").await.len(), 1);
}
