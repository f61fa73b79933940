//! Bundles in an artifact store: written once, compared before an activation, and read where the database was edited.

use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    api::{Api, answer},
    database::each_database,
    device::{Device, logged},
    eventually,
    objects::{S3, moto_server},
    server::{Options, Server},
};

async fn make(api: &Api, version: &str) -> String {
    if api.get("/policies/base").await.status == 404 {
        api.post("/policies", &json!({"name": "base"})).await.expect(201);
    }
    let body = json!({"version": version, "settings": {"camera.allowed": false}});
    let made = api.post("/policies/base/versions", &body).await.expect(201);
    made["sha256"].as_str().expect("a digest is text").to_owned()
}

fn name(server: &Server, sha256: &str) -> String {
    format!("policy/bundles/{}/{sha256}.zip", server.admin.tenant)
}

fn order(version: &str) -> Value {
    json!({"version": version, "stages": [{"name": "full"}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn p4_a_bundle_in_s3_is_written_once_and_must_be_the_same_at_activation() {
    let Some(moto) = moto_server() else { return };
    each_database(async |options| {
        let s3 = S3::start(&moto).await;
        let server = Server::start(s3.options(options)).await;
        let api = server.api().await;
        let sha256 = make(&api, "1").await;
        let object = name(&server, &sha256);
        let kept = eventually("the bundle is in the bucket", PATIENCE, async || {
            s3.object(&object).await
        })
        .await;
        let bundle = api.get("/policies/base/versions/1/bundle").await;
        assert_eq!(kept, bundle.bytes, "the same bytes in both places");
        api.post("/policies/base/activate", &order("1")).await.expect(202);

        // Somebody with rights on the bucket replaces the object of a version that is not active yet.
        let sha256 = make(&api, "2").await;
        let object = name(&server, &sha256);
        eventually("the second bundle is in the bucket", PATIENCE, async || {
            s3.object(&object).await
        })
        .await;
        s3.put(&object, b"something else").await;
        let refused = api.post("/policies/base/activate", &order("2")).await;
        refused.refused(409, "bundle_changed");
        s3.delete(&object).await;
        let refused = api.post("/policies/base/activate", &order("2")).await;
        refused.refused(409, "bundle_changed");
        logged(&api, "policy.bundle_tampered", 2).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_under_a_bundles_name_already_is_never_overwritten() {
    let Some(moto) = moto_server() else { return };
    let s3 = S3::start(&moto).await;
    // While the store is away, a version is made all the same; its object is waited for.
    let options = s3.options(Options::default());
    let mut server = Server::start(Options::default()).await;
    let api = server.api().await;
    let sha256 = make(&api, "1").await;
    s3.put(&name(&server, &sha256), b"planted before").await;
    server.stop().await;
    let server = Server::start_in(server.folder(), "data", options).await;
    let api = server.api().await;
    logged(&api, "policy.bundle_tampered", 1).await;
    let refused = api.post("/policies/base/activate", &order("1")).await;
    refused.refused(409, "bundle_changed");
    assert_eq!(
        s3.object(&name(&server, &sha256)).await.as_deref(),
        Some(b"planted before".as_slice())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_holds_up_activations_and_nothing_else() {
    let Some(moto) = moto_server() else { return };
    let s3 = S3::start(&moto).await;
    let server = Server::start(s3.options(Options::default())).await;
    let api = server.api().await;
    let object = name(&server, &make(&api, "1").await);
    eventually("the bundle is in the bucket", PATIENCE, async || {
        s3.object(&object).await
    })
    .await;
    let port = s3.stop().await;
    let away = api.post("/policies/base/activate", &order("1")).await;
    away.refused(503, "unavailable");
    assert!(api.list("/rollouts").await.is_empty(), "nothing was changed");
    make(&api, "2").await;
    // It comes back empty: what was there must still be there, what never was is brought there now.
    let _s3 = S3::start_at(&moto, port).await;
    let gone = api.post("/policies/base/activate", &order("1")).await;
    gone.refused(409, "bundle_changed");
    api.post("/policies/base/activate", &order("2")).await.expect(202);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_gets_the_bundle_from_the_store_where_the_database_was_edited() {
    each_database(async |options| {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let place = format!("file://{}", folder.path().display());
        let server = Server::start(options.with("--artifact-store", place)).await;
        let api = server.api().await;
        let sha256 = make(&api, "1").await;
        let file = folder
            .path()
            .join(format!("bundles/{}/{sha256}.zip", server.admin.tenant));
        let kept = eventually("the bundle is in the folder", PATIENCE, async || {
            std::fs::read(&file).ok()
        })
        .await;
        let device = Device::enroll(&api, &server.admin).await;
        let store = server.store().await;
        let edited = store.blob(b"edited");
        store
            .execute(&format!("UPDATE policy_version SET bundle = {edited}"))
            .await;
        let url = format!("{}/agent/v1/bundles/{sha256}", device.door.url);
        let got = answer(device.door.http.get(url)).await;
        assert_eq!(got.status, 200);
        assert_eq!(got.bytes, kept, "the device gets what was signed");
        let refused = api.get("/policies/base/versions/1/bundle").await;
        refused.refused(409, "bundle_changed");
    })
    .await;
}
