//! The first start on an empty folder, every later one, and the starts that must be refused.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

use serde_json::json;
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use crate::support::{
    api::Api,
    database::{each_database, on_postgres},
    device::Device,
    raw,
    server::{AdminFile, Options, Server, assert_healthy, everything, run_muster, serve_arguments},
};

fn mode(path: &Path) -> u32 {
    fs::metadata(path)
        .expect("the path is there")
        .permissions()
        .mode()
        & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_run_makes_a_folder_that_only_its_owner_can_read() {
    let server = Server::start(Options::default()).await;
    let data = server.data_dir();
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("admin.json")), 0o600);
    for folder in ["keys", "take-away"] {
        let mut found = 0;
        let mut folders = vec![data.join(folder)];
        while let Some(folder) = folders.pop() {
            assert_eq!(mode(&folder), 0o700, "{}", folder.display());
            for entry in fs::read_dir(&folder).expect("the folder can be read") {
                let path = entry.expect("the folder can be read").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    assert_eq!(mode(&path), 0o600, "{}", path.display());
                    found += 1;
                }
            }
        }
        assert!(found > 0, "{folder} holds keys");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_banner_has_a_one_time_link_and_says_what_to_do_with_the_root_key() {
    let mut server = Server::start(Options::default()).await;
    let banner = server.banner();
    assert!(
        banner.contains(&format!("{}/signin#", server.admin.admin_url)),
        "{banner}"
    );
    let root_key = server
        .data_dir()
        .join("take-away")
        .join(format!("root-key-{}.pem", server.admin.tenant));
    assert!(root_key.exists());
    assert!(banner.contains(&root_key.display().to_string()), "{banner}");
    assert!(banner.contains("Carry it away"), "{banner}");

    server.restart().await;
    let banner = server.banner();
    assert!(
        !banner.contains("/signin#") && !banner.contains("root-key"),
        "only the first run makes secrets: {banner}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_root_key_is_not_needed_after_the_first_run() {
    let mut server = Server::start(Options::default()).await;
    fs::remove_dir_all(server.data_dir().join("take-away")).expect("the operator can take it away");
    server.restart().await;
    server.api().await.get("/policies").await.ok();
    assert!(!server.data_dir().join("take-away").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_finds_everything_again() {
    each_database(async |options| {
        let mut server = Server::start(options).await;
        let first = server.admin.clone();
        let api = server.api().await;
        let policy = api.post("/policies", &json!({"name": "kept"})).await.expect(201);
        let ca = fs::read(&first.ca_file).expect("ca.pem is there");

        server.restart().await;
        let second = &server.admin;
        assert_eq!(
            (&second.client_id, &second.client_secret),
            (&first.client_id, &first.client_secret)
        );
        assert_eq!(second.tenant, first.tenant);
        assert_eq!(fs::read(&second.ca_file).expect("ca.pem is there"), ca);
        let again = Api {
            token: api.token.clone(),
            ..server.api().await
        };
        let found = again.get("/policies/kept").await.ok();
        assert_eq!(
            found["id"], policy["id"],
            "a token of before the restart still counts"
        );
        server.stop().await;
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_admin_file_is_made_again_with_a_client_of_its_own() {
    let mut server = Server::start(Options::default()).await;
    let first = server.admin.clone();
    server.stop().await;
    fs::remove_file(server.admin_file()).expect("it can be removed");
    server.restart().await;
    assert_ne!(server.admin.client_id, first.client_id);
    server.api().await.get("/clients").await.ok();
    Api::anonymous(&server.admin)
        .sign_in_as(&first.client_id, &first.client_secret)
        .await
        .get("/clients")
        .await
        .ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_within_ten_seconds_though_connections_stay_open() {
    let mut server = Server::start(Options::default()).await;
    let (admin, device) = (
        server.admin.admin_address().to_owned(),
        server.admin.device_address().to_owned(),
    );
    let mut held = Vec::new();
    for (address, protocol) in [
        (&admin, "http/1.1"),
        (&admin, "h2"),
        (&device, "http/1.1"),
        (&device, "h2"),
    ] {
        held.push(
            raw::connect(&server.admin, address, protocol.as_bytes())
                .await
                .expect("the listener answers"),
        );
    }
    held[0]
        .write_all(b"POST /api/v1/policies HTTP/1.1\r\nHost: localhost\r\nContent-Le")
        .await
        .expect("it is open");
    held[1]
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .expect("it is open");
    let device = Device::enroll(&server.api().await, &server.admin).await;
    let url = format!("{}/agent/v1/wake", server.admin.device_url);
    let mut wake = device.door.http.get(url).send().await.expect("the stream opens");
    assert!(wake.chunk().await.expect("a line comes").is_some());
    let status = server.stop().await;
    assert!(status.success(), "{status}");
    while wake.chunk().await.expect("a held stream ends in order").is_some() {}
}

#[tokio::test(flavor = "multi_thread")]
async fn l1_neither_the_log_nor_the_database_holds_a_secret_in_clear() {
    let mut server = Server::start(Options::default()).await;
    let api = server.api().await;
    let asked = json!({"device_uuid": Uuid::new_v4()});
    let enrollment = api.post("/enrollment-tokens", &asked).await.expect(201)["token"].clone();
    let client = json!({"name": "canary", "scopes": ["device:read"]});
    let client = api.post("/clients", &client).await.expect(201)["client_secret"].clone();
    let link = api
        .post("/console-links", &json!({"person": "Ada"}))
        .await
        .expect(201)["url"]
        .clone();
    api.with_token("canary-token-in-a-header")
        .get("/devices")
        .await
        .expect(401);
    api.get("/devices?access_token=canary-token-in-a-url")
        .await
        .expect(400);
    api.post_bytes("/policies", "{\"canary-in-a-body\":")
        .await
        .expect(400);
    Device::enroll(&api, &server.admin).await;
    server.stop().await;

    let text = |value: &serde_json::Value| value.as_str().expect("a secret is text").to_owned();
    let link = text(&link);
    let signature = |token: &str| {
        token
            .rsplit('.')
            .next()
            .expect("a token has a signature")
            .to_owned()
    };
    let mut secrets = vec![
        server.admin.client_secret.clone(),
        signature(&api.token),
        signature(&text(&enrollment)),
        text(&client),
        link.split('#').nth(1).expect("a link has a secret").to_owned(),
        "canary-".to_owned() + "token-in",
        "canary-in-a-body".to_owned(),
        "PRIVATE KEY".to_owned(),
    ];
    let banner = server.banner();
    let first = banner
        .split("/signin#")
        .nth(1)
        .and_then(|rest| rest.split_whitespace().next());
    secrets.push(first.expect("the banner has a link").to_owned());
    let kept: Vec<(String, Vec<u8>)> = ["muster.db", "muster.db-wal"]
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), fs::read(server.data_dir().join(name)).ok()?)))
        .chain([("the log".to_owned(), server.log().into_bytes())])
        .collect();
    for (place, bytes) in kept {
        for secret in &secrets {
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "{place} holds {secret:.8}…");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_the_moment_the_server_is_ready_is_an_orderly_end() {
    let mut server = Server::start(Options::default()).await;
    for _ in 0..5 {
        server.restart().await;
    }
    let status = server.stop().await;
    assert!(status.success(), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ops_listener_answers_over_plain_http() {
    let server = Server::start(Options::default()).await;
    for path in ["healthz", "readyz", "version", "metrics"] {
        let answer = reqwest::get(format!("{}/{path}", server.admin.ops_url))
            .await
            .expect("it answers");
        assert_eq!(answer.status(), 200, "{path}");
        let text = answer.text().await.expect("it answers text");
        assert!(!text.contains(&server.admin.client_secret), "{path}");
    }
}

/// Runs `muster serve` where it must be refused; what it said.
async fn refused(arguments: Vec<String>) -> String {
    let output = run_muster(arguments).await;
    assert_eq!(output.status.code(), Some(1), "{}", everything(&output));
    everything(&output)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_sqlite_folder_is_refused() {
    let server = Server::start(Options::default()).await;
    let before = fs::read(server.admin_file()).expect("admin.json is there");
    let said = refused(serve_arguments(&server.data_dir(), &Options::default())).await;
    assert!(
        said.contains("muster.db") && said.contains("another process"),
        "{said}"
    );
    assert_eq!(
        fs::read(server.admin_file()).expect("admin.json is there"),
        before,
        "the running one keeps its file"
    );
    server.api().await.get("/policies").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused_and_left_alone() {
    each_database(async |options| {
        let mut server = Server::start(options.clone()).await;
        server.stop().await;
        let store = server.store().await;
        store
            .execute("INSERT INTO storage_migration (version, name, digest) VALUES (999, 'later', '0')")
            .await;
        let said = refused(serve_arguments(&server.data_dir(), &options)).await;
        assert!(said.contains("999") && said.contains("newer"), "{said}");
        store
            .execute("DELETE FROM storage_migration WHERE version = 999")
            .await;
        server.restart().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_node_without_the_keys_is_told_to_copy_them() {
    on_postgres(async |options| {
        let server = Server::start(options.clone()).await;
        let folder = server.folder();
        let said = refused(serve_arguments(&folder.path().join("empty"), &options)).await;
        assert!(said.contains("copy") && said.contains("keys"), "{said}");
        server.api().await.get("/policies").await.ok();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_files_are_named() {
    let mut server = Server::start(Options::default()).await;
    server.stop().await;
    let data = server.data_dir();
    for name in ["admin.json", "keys/access-tokens.pem", "keys/install-id"] {
        let path = data.join(name);
        let good = fs::read(&path).expect("the file is there");
        fs::write(&path, b"rubbish").expect("it can be damaged");
        let said = refused(serve_arguments(&data, &Options::default())).await;
        assert!(
            said.contains(
                path.file_name()
                    .and_then(|name| name.to_str())
                    .expect("it has a name")
            ),
            "{said}"
        );
        fs::write(&path, good).expect("it can be repaired");
    }
    server.restart().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_errors_exit_with_2_and_settings_that_do_not_exist_are_errors() {
    let usage = run_muster(["serve", "--data-dri", "x"]).await;
    assert_eq!(usage.status.code(), Some(2));
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let config = folder.path().join("muster.toml");
    fs::write(&config, "admin_lisen = \"127.0.0.1:0\"\n").expect("it can be written");
    let options = Options::default().with("--config", config.display());
    let said = refused(serve_arguments(&folder.path().join("data"), &options)).await;
    assert!(said.contains("admin_lisen"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_first_start_leaves_nothing_that_hinders_the_next() {
    let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it has an address").to_string();
    let mut arguments = serve_arguments(&folder.path().join("data"), &Options::default());
    let place = arguments
        .iter()
        .position(|word| word == "--admin-listen")
        .expect("the flag is there");
    arguments[place + 1] = address.clone();
    let said = refused(arguments).await;
    assert!(
        said.contains(&address) && said.contains("--admin-listen"),
        "{said}"
    );
    let server = Server::start_in(folder, "data", Options::default()).await;
    assert_eq!(AdminFile::read(&server.admin_file()), server.admin);
    assert!(Uuid::parse_str(server.admin.tenant.trim_start_matches("tnt_")).is_ok());
}
