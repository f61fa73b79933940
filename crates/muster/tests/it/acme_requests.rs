//! What is wrong with every other ACME request, whatever it asks for (ABUSE A1, A5, A6, D5, E8).

use serde_json::{Value, json};

use crate::support::{
    acme::{Client, Site, refused, text},
    api::answer,
    database::each_database,
    device::Door,
    raw,
    server::{AdminFile, Options},
};

/// Every route below `/acme/{tenant}/` that takes a signature.
fn signed_routes(client: &Client) -> Vec<String> {
    let id = "0".repeat(32);
    let key = client
        .kid
        .rsplit_once('/')
        .expect("a URL has slashes")
        .1
        .to_owned();
    let paths = [
        "new-account".to_owned(),
        format!("account/{key}"),
        format!("account/{key}/orders"),
        "new-order".to_owned(),
        format!("order/{id}"),
        format!("order/{id}/finalize"),
        format!("authz/{id}"),
        format!("challenge/{id}"),
        format!("certificate/{id}"),
        "revoke-cert".to_owned(),
    ];
    paths.iter().map(|path| client.url(path)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_every_acme_route_without_a_signature_is_refused() {
    let site = Site::start(Options::default()).await;
    let (client, stranger) = (site.client().await, site.client().await);
    let door = Door::of(&site.server.admin);
    for url in signed_routes(&client) {
        refused(
            &url,
            &client.post_raw(&url, "{}").await,
            400,
            "malformed",
            "malformed",
        );
        for by in ["kid", "jwk"] {
            let mut envelope = client.seal(&client.header(&url, by).await, "");
            envelope["signature"] = stranger.seal(&client.header(&url, by).await, "")["signature"].clone();
            let answer = client.post_raw(&url, envelope.to_string()).await;
            let right = answer.json()["code"].clone();
            assert!(
                [json!("proof_invalid"), json!("malformed")].contains(&right) && answer.status >= 400,
                "{url} by {by}: {}",
                answer.text()
            );
        }
        answer(door.http.get(&url))
            .await
            .refused(405, "method_not_allowed");
        // Other spellings of the path are other paths.
        let path = url.strip_prefix(&door.url).expect("it is below the origin");
        for spelling in [
            format!("/{path}"),
            format!("{path}/"),
            path.to_uppercase(),
            path.replace("/acme/", "/acme//"),
        ] {
            let answer = client.post_raw(&format!("{}{spelling}", door.url), "{}").await;
            assert_eq!(answer.status, 404, "{spelling}: {}", answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_the_header_of_an_acme_request_chooses_nothing() {
    let site = Site::start(Options::default()).await;
    let client = site.client().await;
    let url = client.url("new-order");
    let with = async |name: &str, value: Value| {
        let mut header = client.header(&url, "kid").await;
        header[name] = value;
        client
            .post_raw(&url, client.seal(&header, "{}").to_string())
            .await
    };
    for alg in ["none", "HS256", "ES512", "RS1"] {
        let answer = with("alg", json!(alg)).await;
        refused(
            alg,
            &answer,
            400,
            "badSignatureAlgorithm",
            "algorithm_unsupported",
        );
        assert_eq!(
            answer.json()["algorithms"],
            json!(["ES256", "ES384", "RS256", "EdDSA"])
        );
    }
    refused(
        "another alg",
        &with("alg", json!("RS256")).await,
        403,
        "unauthorized",
        "proof_invalid",
    );
    let malformed = [
        ("jwk and kid", "jwk", client.jwk()),
        ("crit", "crit", json!(["exp"])),
        ("b64", "b64", json!(false)),
        ("x5c", "x5c", json!([])),
        ("no url", "url", Value::Null),
    ];
    for (what, name, value) in malformed {
        refused(what, &with(name, value).await, 400, "malformed", "malformed");
    }
    let kids = [
        format!("{}x", client.kid),
        client.url("account/1"),
        client.kid.replace("https://", "http://"),
        client.kid.replace("p256.", "ed25519."),
        "https://evil.example/acme/account/1".to_owned(),
    ];
    for kid in kids {
        let answer = with("kid", json!(kid)).await;
        refused(&kid, &answer, 400, "accountDoesNotExist", "account_unknown");
    }
    let stranger = site.client().await;
    let answer = with("kid", json!(stranger.kid)).await;
    refused("another's kid", &answer, 403, "unauthorized", "proof_invalid");
    let by_key = client.send(&url, "jwk", &json!({})).await;
    refused("jwk where kid belongs", &by_key, 400, "malformed", "malformed");
    let by_account = client.post(&client.url("new-account"), &json!({})).await;
    refused(
        "kid where jwk belongs",
        &by_account,
        400,
        "malformed",
        "malformed",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_the_url_of_a_request_is_the_configured_one() {
    let site = Site::start(Options::default()).await;
    let client = site.client().await;
    let url = client.url("new-order");
    let admin = &site.server.admin;
    for signed in [
        client.url("new-account"),
        url.replace(&admin.device_url, "https://evil.example"),
        format!("{url}?a=b"),
        format!("{url}/"),
        url.replace("https://", "http://"),
        url.replace(&admin.device_url, ""),
    ] {
        let header = client.header(&signed, "kid").await;
        let answer = client
            .post_raw(&url, client.seal(&header, "{}").to_string())
            .await;
        refused(&signed, &answer, 403, "unauthorized", "proof_invalid");
    }
    // What the request says of its host changes nothing that is answered.
    let path = format!("/acme/{}/directory", admin.tenant);
    let door = AdminFile {
        admin_url: admin.device_url.clone(),
        ..admin.clone()
    };
    for header in ["X-Forwarded-Host: evil.example", "Forwarded: host=evil.example"] {
        let answer = raw::get(&door, &path, &[header]).await;
        assert_eq!(answer.status, 200);
        assert!(
            !answer.body.contains("evil") && answer.body.contains(&admin.device_url),
            "{}",
            answer.body
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e8_a_nonce_is_good_once_on_both_databases() {
    each_database(async |options| {
        let site = Site::start(options).await;
        let client = site.client().await;
        let url = client.kid.clone();
        let envelope = client.seal(&client.header(&url, "kid").await, "").to_string();
        client.post_raw(&url, envelope.clone()).await.expect(200);
        let replayed = client.post_raw(&url, envelope).await;
        refused("replayed", &replayed, 400, "badNonce", "nonce_invalid");

        let once = client.seal(&client.header(&url, "kid").await, "").to_string();
        let racing = (0..16).map(|_| client.post_raw(&url, once.clone()));
        let answers = futures_util::future::join_all(racing).await;
        let accepted = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(accepted, 1, "of sixteen at once");

        let good = client.nonce().await;
        let bent = format!("{}{}", if good.starts_with('A') { 'B' } else { 'A' }, &good[1..]);
        for nonce in ["", "AAAA", &bent, &good[..50], &format!("{good}=")] {
            let mut header = client.header(&url, "kid").await;
            header["nonce"] = json!(nonce);
            let answer = client.post_raw(&url, client.seal(&header, "").to_string()).await;
            refused(nonce, &answer, 400, "badNonce", "nonce_invalid");
        }
        let mut header = client.header(&url, "kid").await;
        header.as_object_mut().expect("an object").remove("nonce");
        let answer = client.post_raw(&url, client.seal(&header, "").to_string()).await;
        refused("no nonce", &answer, 400, "badNonce", "nonce_invalid");
        // A refusal of the signature uses no nonce up: strangers cannot spend what they see.
        let mut envelope = client.seal(&client.header(&url, "kid").await, "");
        let right = envelope["signature"].clone();
        envelope["signature"] = json!(text([1; 64]));
        client
            .post_raw(&url, envelope.to_string())
            .await
            .refused(403, "proof_invalid");
        envelope["signature"] = right;
        client.post_raw(&url, envelope.to_string()).await.expect(200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_bodies_are_bounded_and_strict() {
    let site = Site::start(Options::default()).await;
    let client = site.client().await;
    let url = client.url("new-order");
    let large = client.post_raw(&url, vec![b' '; 64 * 1024 + 1]).await;
    refused("large", &large, 413, "malformed", "body_too_large");
    let good = client.seal(&client.header(&url, "kid").await, "{}").to_string();
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    for body in [
        "",
        "{",
        "null",
        "[]",
        "{}",
        deep.as_str(),
        &good.replacen('{', "{\"header\":{},", 1),
    ] {
        let what = &body[..body.len().min(20)];
        refused(
            what,
            &client.post_raw(&url, body.to_owned()).await,
            400,
            "malformed",
            "malformed",
        );
    }
    let door = Door::of(&site.server.admin);
    let path = url.strip_prefix(&door.url).expect("it is below the origin");
    for kind in [
        None,
        Some("application/json"),
        Some("application/jose"),
        Some("text/plain"),
    ] {
        let answer = door
            .send(reqwest::Method::POST, path, kind, good.clone().into_bytes())
            .await;
        refused(
            &format!("{kind:?}"),
            &answer,
            415,
            "malformed",
            "unsupported_media_type",
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_is_not_there_is_a_path_that_is_not_there() {
    let site = Site::start(Options::default()).await;
    let (admin, client) = (&site.server.admin, site.client().await);
    let door = Door::of(admin);
    let nowhere = format!("tnt_{}1", "0".repeat(31));
    let mut seen = Vec::new();
    for tenant in [
        nowhere.as_str(),
        "x",
        "tnt_",
        "%2e%2e",
        &admin.tenant.to_uppercase(),
    ] {
        for path in ["directory", "new-nonce"] {
            let url = format!("{}/acme/{tenant}/{path}", admin.device_url);
            seen.push(answer(door.http.get(url)).await);
        }
        let url = format!("{}/acme/{tenant}/new-account", admin.device_url);
        seen.push(client.post_raw(&url, "{}").await);
    }
    let url = format!("{}/nothing", admin.device_url);
    let expected = answer(door.http.get(url)).await;
    for answer in seen {
        let said = answer.refused(404, "not_found");
        assert_eq!(said, expected.refused(404, "not_found"));
        assert_eq!(answer.header("replay-nonce"), "");
    }
}
