//! Stores of secrets outside of the database: there, sealed, throttled, refusing, gone and back. Each stand-in counts only as long as
//! the vendor's own client works with it.

use std::{fs, path::Path, time::Duration};

use serde_json::json;

use crate::{
    custody::say_judged,
    support::{
        PATIENCE,
        api::Api,
        azure::{Azure, CLIENT, CLIENT_SECRET, TENANT},
        device::Device,
        eventually,
        objects::{S3, moto_server, python},
        pki::{peer_is_installed, text},
        server::{AdminFile, Options, Server, create_tenant},
        vault::{Fault, ROLE_ID, SECRET_ID, Vault},
    },
};

/// Asks the stand-in what our server asks, through the client library of the real one.
const HVAC_KV: &str = r#"
import sys, hvac
url, role_id, secret_id = sys.argv[1:4]
client = hvac.Client(url=url)
client.token = client.auth.approle.login(role_id, secret_id=secret_id)["auth"]["client_token"]
kv = client.secrets.kv.v2
one = kv.create_or_update_secret("judged/x", secret={"value": "one"}, cas=0, mount_point="secret")
assert one["data"]["version"] == 1, one
try:
    kv.create_or_update_secret("judged/x", secret={"value": "no"}, cas=0, mount_point="secret")
    sys.exit("a version that came between was accepted")
except hvac.exceptions.InvalidRequest:
    pass
kv.create_or_update_secret("judged/x", secret={"value": "two"}, cas=1, mount_point="secret")
got = kv.read_secret_version("judged/x", version=1, mount_point="secret")
assert got["data"]["data"]["value"] == "one", got
assert kv.read_secret_metadata("judged/x", mount_point="secret")["data"]["current_version"] == 2
assert kv.read_configuration(mount_point="secret")["data"]["max_versions"] == 10
client.auth.token.renew_self()
pod = hvac.Client(url=url)
pod.auth.kubernetes.login(role=role_id, jwt=secret_id)
print("judged")
"#;

async fn is_judged(vault: &Vault) -> bool {
    if !peer_is_installed("hvac", "/usr/bin/python3 -c 'import hvac'").await {
        return false;
    }
    say_judged(
        "/usr/bin/python3",
        &["-c", HVAC_KV, &vault.url, ROLE_ID, SECRET_ID],
        &[],
    )
    .await;
    true
}

fn in_vault(vault: &Vault, folder: &Path) -> Options {
    let file = folder.join("secret-id");
    fs::write(&file, SECRET_ID).expect("it can be written");
    Options::default()
        .with("--secret-store", "vault:secret/muster")
        .with("--vault-url", &vault.url)
        .with("--vault-role-id", ROLE_ID)
        .with("--vault-secret-id-file", text(&file))
}

async fn rotate(api: &Api, name: &str) {
    let version = async || api.get(&format!("/secrets/{name}")).await.ok()["version"].as_i64();
    let before = version().await;
    api.post(&format!("/secrets/{name}/rotate"), &json!({}))
        .await
        .expect(202);
    eventually("it is rotated", PATIENCE, async || {
        (version().await > before).then_some(())
    })
    .await;
}

async fn ready(server: &Server) -> u16 {
    let answer = reqwest::get(format!("{}/readyz", server.admin.ops_url)).await;
    answer.expect("the ops listener answers").status().as_u16()
}

async fn token_status(server: &Server) -> u16 {
    let fields = [
        ("grant_type", "client_credentials"),
        ("client_id", server.admin.client_id.as_str()),
        ("client_secret", server.admin.client_secret.as_str()),
    ];
    Api::anonymous(&server.admin)
        .form("/oauth2/token", &fields)
        .await
        .status
}

#[tokio::test(flavor = "multi_thread")]
async fn l9_vault_sealed_throttled_refusing_and_back() {
    let vault = Vault::start().await;
    if !is_judged(&vault).await {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    let options = in_vault(&vault, folder.path()).with("--secret-cache-seconds", 12);
    let mut server = Server::start(options).await;
    let api = server.api().await;
    let device = Device::enroll(&api, &server.admin).await;
    assert_eq!(
        api.post("/secret-stores/test", &json!({})).await.ok()["place"],
        "vault:secret/muster"
    );
    rotate(&api, "access-token-key").await;
    rotate(&api, "enrollment-token-key").await;
    let kept = vault.versions("muster/access-token-key").await;
    assert_eq!(kept.len(), 1);
    let value = kept[0]["value"].as_str().expect("text").to_owned();
    assert!(value.contains("PRIVATE KEY"));
    let shown = api.get("/secrets/access-token-key").await;
    assert_eq!(shown.json()["place"], "vault:secret/muster");
    let secret_line = value.lines().nth(2).expect("a key has lines");
    assert!(!shown.text().contains(secret_line) && !server.log().contains(secret_line));

    // Versions of the key folder are retired at once here, so that everything hangs on Vault.
    let store = server.store().await;
    store
        .execute("UPDATE secrets_version SET retires_at = 0 WHERE place = 'file' AND name <> 'sealing-key'")
        .await;
    store
        .execute("UPDATE secrets_version SET activates_at = 0 WHERE place <> 'file'")
        .await;
    for fault in [
        Fault::Sealed,
        Fault::Denied,
        Fault::Throttled,
        Fault::Garbage,
        Fault::Silent,
    ] {
        vault.set(Fault::None).await;
        eventually("Vault is heard of", Duration::from_secs(90), async || {
            (token_status(&server).await == 200).then_some(())
        })
        .await;
        vault.set(fault).await;
        assert_eq!(
            token_status(&server).await,
            200,
            "{fault:?}: what is in memory signs"
        );
        assert_eq!(ready(&server).await, 200, "{fault:?}");
        eventually("the bounded time is over", Duration::from_secs(60), async || {
            (token_status(&server).await == 503).then_some(())
        })
        .await;
        assert_eq!(ready(&server).await, 503, "{fault:?}");
        device.checkin().await;
        assert!(!server.log().contains(SECRET_ID), "{fault:?}");
    }
    // A start beside a sealed Vault: devices are served, nobody gets a token, and it heals by itself.
    vault.set(Fault::Sealed).await;
    server.restart_unready().await;
    let device = device.at(&server.admin);
    device.checkin().await;
    assert_eq!((token_status(&server).await, ready(&server).await), (503, 503));
    vault.set(Fault::None).await;
    eventually("it heals", Duration::from_secs(60), async || {
        (token_status(&server).await == 200 && ready(&server).await == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_logs_in_with_its_service_account_and_its_token_is_renewed() {
    let vault = Vault::start().await;
    if !is_judged(&vault).await {
        return;
    }
    vault.lease(6).await;
    let before = vault.renewals().await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("token");
    fs::write(&file, SECRET_ID).expect("it can be written");
    let options = Options::default()
        .with("--secret-store", "vault:secret/muster")
        .with("--vault-url", &vault.url)
        .with("--vault-namespace", "team")
        .with("--vault-kubernetes-role", ROLE_ID)
        .with("--vault-kubernetes-token-file", text(&file))
        .with("--secret-cache-seconds", 8);
    let server = Server::start(options).await;
    rotate(&server.api().await, "access-token-key").await;
    eventually("the token is renewed", Duration::from_secs(40), async || {
        (vault.renewals().await > before).then_some(())
    })
    .await;
    assert!(vault.versions("muster/access-token-key").await.len() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn l9_a_set_of_keys_is_whole_or_away() {
    let vault = Vault::start().await;
    if !is_judged(&vault).await {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut server = Server::start(in_vault(&vault, folder.path())).await;
    let api = server.api().await;
    let shown = async |server: &Server| {
        let url = format!(
            "{}/signals/{}/jwks.json",
            server.admin.admin_url, server.admin.tenant
        );
        api.http.get(url).send().await.expect("the server answers")
    };
    assert_eq!(shown(&server).await.status().as_u16(), 200);
    let store = server.store().await;
    let head = async || store.value("SELECT secret FROM signals_key").await.bytes()[..9].to_vec();
    let before = head().await;
    rotate(&api, "sealing-key").await;
    eventually("it is sealed anew", Duration::from_secs(60), async || {
        (head().await != before).then_some(())
    })
    .await;
    vault.set(Fault::Sealed).await;
    server.restart_unready().await;
    let answer = shown(&server).await;
    assert_eq!(
        answer.status().as_u16(),
        503,
        "an empty set would be kept by others"
    );
    assert!(answer.headers().contains_key("retry-after"));
    vault.set(Fault::None).await;
    eventually("the set is back", Duration::from_secs(90), async || {
        (shown(&server).await.status().as_u16() == 200).then_some(())
    })
    .await;
}

/// Asks the stand-in what our server asks, through Azure's own libraries.
const AZURE: &str = r#"
import sys
from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient
address, tenant, client, secret = sys.argv[1:5]
credential = ClientSecretCredential(tenant, client, secret, authority="https://" + address, disable_instance_discovery=True)
vault = SecretClient("https://" + address, credential, verify_challenge_resource=False)
one = vault.set_secret("judged", "one")
two = vault.set_secret("judged", "two")
assert one.properties.version != two.properties.version
assert vault.get_secret("judged").value == "two"
assert vault.get_secret("judged", one.properties.version).value == "one"
print("judged")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn azure_key_vault_keeps_keys_with_a_client_secret_and_with_a_federated_token() {
    let Some(python) = python() else { return };
    if !peer_is_installed(
        "azure",
        &format!(
            "{} -c 'import azure.keyvault.secrets, azure.identity'",
            python.display()
        ),
    )
    .await
    {
        return;
    }
    let azure = Azure::start().await;
    let arguments = ["-c", AZURE, &azure.address, TENANT, CLIENT, CLIENT_SECRET];
    let trust = [("REQUESTS_CA_BUNDLE", text(&azure.ca_file))];
    say_judged(text(&python), &arguments, &trust).await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let file = folder.path().join("token");
    fs::write(&file, CLIENT_SECRET).expect("it can be written");
    let place = format!("azure:https://{}", azure.address);
    for login in [
        ("AZURE_CLIENT_SECRET", CLIENT_SECRET),
        ("AZURE_FEDERATED_TOKEN_FILE", text(&file)),
    ] {
        let options = Options::default()
            .with("--secret-store", &place)
            .with("--secret-store-ca-file", azure.ca_file.display())
            .with_variable("AZURE_TENANT_ID", TENANT)
            .with_variable("AZURE_CLIENT_ID", CLIENT)
            .with_variable("AZURE_AUTHORITY_HOST", format!("https://{}", azure.address))
            .with_variable(login.0, login.1);
        let server = Server::start(options).await;
        let api = server.api().await;
        let before = azure.values("muster-access-token-key").await.len();
        rotate(&api, "access-token-key").await;
        let values = azure.values("muster-access-token-key").await;
        assert_eq!(values.len(), before + 1);
        assert!(values[before].contains("PRIVATE KEY"));
        azure.throttle(true).await;
        let refused = api.post("/secret-stores/test", &json!({})).await;
        refused.refused(503, "unavailable");
        assert_eq!(token_status(&server).await, 200, "l9: what is in memory signs");
        azure.throttle(false).await;
        let log = server.log();
        assert!(!log.contains(CLIENT_SECRET) && !log.contains("PRIVATE KEY"));
    }
}

/// Reads what our server wrote, through AWS's own library.
const BOTO3: &str = r#"
import sys, boto3
client = boto3.client("secretsmanager", endpoint_url=sys.argv[1], region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
versions = client.list_secret_version_ids(SecretId="muster/access-token-key", IncludeDeprecated=True)["Versions"]
assert len(versions) == int(sys.argv[2]), versions
assert "PRIVATE KEY" in client.get_secret_value(SecretId="muster/access-token-key")["SecretString"]
print("judged")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn aws_secrets_manager_keeps_keys_and_boto3_reads_them() {
    let (Some(moto), Some(python)) = (moto_server(), python()) else {
        return;
    };
    let s3 = S3::start(&moto).await;
    let endpoint = format!("http://{}", s3.address());
    let options = Options::default()
        .with("--secret-store", "aws:us-east-1/muster")
        .with_variable("AWS_ENDPOINT_URL_SECRETS_MANAGER", &endpoint)
        .with_variable("AWS_ACCESS_KEY_ID", "test")
        .with_variable("AWS_SECRET_ACCESS_KEY", "test");
    let server = Server::start(options).await;
    let api = server.api().await;
    rotate(&api, "access-token-key").await;
    say_judged(text(&python), &["-c", BOTO3, &endpoint, "1"], &[]).await;
    api.post("/secret-stores/test", &json!({})).await.ok();
    api.post("/secret-stores/test", &json!({})).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn l9_failed_rotations_push_no_version_out_of_vault() {
    let vault = Vault::start().await;
    if !is_judged(&vault).await {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut server = Server::start(in_vault(&vault, folder.path())).await;
    let api = server.api().await;
    let tested = api.post("/secret-stores/test", &json!({})).await.ok();
    assert_eq!(tested["versions_kept"], 10);
    assert!(
        tested["warning"]
            .as_str()
            .is_some_and(|warning| warning.contains("10"))
    );
    // Vault takes the value and does not give it back: the next attempts take that one, and write none.
    vault.set(Fault::Unreadable).await;
    let path = "/secrets/access-token-key";
    api.post(&format!("{path}/rotate"), &json!({})).await.expect(202);
    let failed = async |api: &Api| {
        eventually("it failed", PATIENCE, async || {
            (api.get(path).await.ok()["error"].is_string()).then_some(())
        })
        .await;
    };
    failed(&api).await;
    for _ in 0..3 {
        api.post(&format!("{path}/rotate"), &json!({})).await.expect(202);
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    server.restart_unready().await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(vault.versions("muster/access-token-key").await.len(), 1);
    vault.set(Fault::None).await;
    let api = server.api().await;
    eventually("the store is asked again", Duration::from_secs(90), async || {
        api.post(&format!("{path}/rotate"), &json!({})).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        (api.get(path).await.ok()["version"] == 2).then_some(())
    })
    .await;
    assert_eq!(
        vault.versions("muster/access-token-key").await.len(),
        1,
        "it was taken into use"
    );
    // A version that is in use is not pushed out: then nothing is rotated, and the record says why.
    vault.keep_versions(1).await;
    server
        .store()
        .await
        .execute(
            "UPDATE secrets_record SET rotated_at = rotated_at - 120000000 WHERE name = 'access-token-key'",
        )
        .await;
    api.post(&format!("{path}/rotate"), &json!({})).await.expect(202);
    failed(&api).await;
    let error = api.get(path).await.ok()["error"]
        .as_str()
        .expect("text")
        .to_owned();
    assert!(error.contains("push out"), "{error}");
    assert_eq!(vault.versions("muster/access-token-key").await.len(), 1);
    assert_eq!(token_status(&server).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_tenants_do_not_see_where_the_installation_keeps_its_secrets() {
    let vault = Vault::start().await;
    if !is_judged(&vault).await {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder can be made");
    let mut server = Server::start(in_vault(&vault, folder.path())).await;
    rotate(&server.api().await, "access-token-key").await;
    server.stop().await;
    let file = create_tenant(&server, "other").await;
    server.restart().await;
    let other = AdminFile {
        admin_url: server.admin.admin_url.clone(),
        ca_file: server.admin.ca_file.clone(),
        ..AdminFile::read(&file)
    };
    let (own, other) = (server.api().await, Api::sign_in(&other).await);
    vault.set(Fault::Sealed).await;
    eventually("the store does not answer", Duration::from_secs(60), async || {
        let stores = own.get("/secret-stores").await.ok()["items"].clone();
        (stores[0]["error"].is_string()).then_some(())
    })
    .await;
    assert!(own.get("/secrets").await.text().contains("vault:secret/muster"));
    let stores = other.get("/secret-stores").await;
    assert_eq!(stores.json()["items"][0]["place"], "external");
    assert_eq!(stores.json()["items"][0]["is_answering"], false);
    for answer in [stores, other.get("/secrets").await] {
        let said = answer.text();
        assert!(
            !said.contains("vault") && !said.to_lowercase().contains("sealed or"),
            "{said}"
        );
    }
    let shared = other.get("/secrets/access-token-key").await.ok();
    assert_eq!(
        (&shared["place"], &shared["belongs_to"]),
        (&json!("external"), &json!("installation"))
    );
}
