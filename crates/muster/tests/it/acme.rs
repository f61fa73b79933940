//! Enrollment by ACME `device-attest-01` with a client that somebody else wrote, and what the server tells by the way.

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, DeviceAttestation, Identifier, NewAccount, NewOrder,
    OrderStatus, RetryPolicy,
};
use muster_attest::testing::KeyPair;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};

use crate::support::{
    acme::{Bound, Client, Kind, Machine, Site, first_of, request_for, text},
    api::answer,
    database::each_database,
    device::Door,
    server::{Options, assert_healthy},
};

/// Enrolls a machine with instant-acme; answers the chain, PEM.
async fn enroll(site: &Site, kind: Kind, machine: &Machine) -> String {
    let admin = &site.server.admin;
    let account = NewAccount {
        contact: &[],
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let directory = format!("{}/acme/{}/directory", admin.device_url, admin.tenant);
    let builder = Account::builder_with_root(&admin.ca_file).expect("the root is readable");
    let (account, _) = builder
        .create(&account, directory, None)
        .await
        .expect("an account is free");
    let identifiers = [Identifier::PermanentIdentifier(
        machine.identifier(&site.api).await,
    )];
    let mut order = account
        .new_order(&NewOrder::new(&identifiers))
        .await
        .expect("the identifier is good");
    let pkcs8 = {
        let mut authorizations = order.authorizations();
        let next = authorizations.next().await.expect("there is one");
        let mut authorization = next.expect("it can be read");
        assert_eq!(authorization.status, AuthorizationStatus::Pending);
        let mut challenge = authorization
            .challenge(ChallengeType::DeviceAttest01)
            .expect("it is the one challenge");
        let bound = Bound {
            token: challenge.token.clone(),
            authorization: challenge.key_authorization().as_str().to_owned(),
        };
        let attested = site.makers.attest(kind, machine, &bound);
        let object = DeviceAttestation {
            att_obj: attested.object.into(),
        };
        challenge
            .send_device_attestation(&object)
            .await
            .expect("a genuine device is believed");
        attested.pkcs8
    };
    let status = order
        .poll_ready(&RetryPolicy::default())
        .await
        .expect("it is ready");
    assert_eq!(status, OrderStatus::Ready);
    order
        .finalize_csr(&request_for(&pkcs8))
        .await
        .expect("the request is for the attested key");
    order
        .poll_certificate(&RetryPolicy::default())
        .await
        .expect("there is a certificate")
}

/// The names in a certificate that are URIs.
fn uris(der: &[u8]) -> Vec<String> {
    let (_, certificate) = X509Certificate::from_der(der).expect("it is a certificate");
    let names = certificate
        .extensions()
        .iter()
        .filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        });
    names
        .flatten()
        .map(|name| match name {
            GeneralName::URI(uri) => (*uri).to_owned(),
            other => panic!("another name: {other}"),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_others_enrolls_every_kind_of_device() {
    each_database(async |options| {
        let site = Site::start(options).await;
        site.import_android_list().await;
        for kind in Kind::ALL {
            let machine = Machine::new();
            let chain = enroll(&site, kind, &machine).await;
            assert_eq!(
                chain.matches("BEGIN CERTIFICATE").count(),
                2,
                "the device's and its issuer's"
            );
            let devices = site.api.list("/devices").await;
            let device = devices
                .iter()
                .find(|device| device["device_uuid"] == json!(machine.device_uuid))
                .expect("the device is there");
            assert_eq!(
                (device["attestation"]["level"].as_str(), device["serial"].as_str()),
                (Some(kind.level()), Some(machine.serial.as_str())),
                "{kind:?}: {device}"
            );
            let id = device["id"].as_str().expect("an id is text");
            let expected = format!("urn:muster:{}:{id}:1", site.server.admin.tenant);
            assert_eq!(uris(&first_of(&chain)), [expected], "{kind:?}");
        }
        let tokens = site.api.list("/enrollment-tokens").await;
        assert!(
            tokens
                .iter()
                .all(|token| token["state"] == "redeemed" && token["protocol"] == "acme"),
            "{tokens:?}"
        );
        assert_healthy(&site.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_and_every_answer_have_what_the_standard_asks() {
    let site = Site::start(Options::default()).await;
    let (door, client) = (Door::of(&site.server.admin), site.client().await);
    let directory = answer(door.http.get(client.url("directory"))).await.ok();
    for name in ["newNonce", "newAccount", "newOrder", "revokeCert"] {
        let url = directory[name].as_str().expect("a URL is text");
        assert!(url.starts_with(&client.base), "{name}: {url}");
    }
    let nonces = [
        answer(door.http.head(client.url("new-nonce"))).await,
        answer(door.http.get(client.url("new-nonce"))).await,
    ];
    assert_eq!(nonces.each_ref().map(|answer| answer.status), [200, 204]);
    let machine = Machine::new();
    let order = client.try_order(&machine.identifier(&site.api).await).await;
    for answer in nonces.iter().chain([&order]) {
        assert!(answer.header("replay-nonce").len() >= 22, "128 bits at least");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(
            answer.header("link"),
            format!("<{}>;rel=\"index\"", client.url("directory"))
        );
    }
    assert_ne!(nonces[0].header("replay-nonce"), nonces[1].header("replay-nonce"));
    let stored = order.expect(201);
    assert_eq!(client.get(order.header("location")).await.ok(), stored);
    let listed = client.get(&format!("{}/orders", client.kid)).await.ok();
    assert_eq!(listed["orders"], json!([order.header("location")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_its_key_and_costs_nothing() {
    let site = Site::start(Options::default()).await;
    let client = site.client().await;
    assert_eq!(site.server.store().await.count("acme_order").await, 0);
    let existing = json!({"onlyReturnExisting": true});
    let answer = client.send(&client.url("new-account"), "jwk", &existing).await;
    answer.refused(400, "account_unknown");
    assert_eq!(
        answer.json()["type"],
        "urn:ietf:params:acme:error:accountDoesNotExist"
    );
    client.order(&Machine::new().identifier(&site.api).await).await;
    let answer = client.send(&client.url("new-account"), "jwk", &existing).await;
    answer.expect(200);
    assert_eq!(answer.header("location"), client.kid);
    assert_eq!(client.get(&client.kid).await.ok()["status"], "valid");
    let deactivate = json!({"status": "deactivated"});
    client
        .post(&client.kid, &deactivate)
        .await
        .refused(400, "invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_identifier_is_not_in_the_database() {
    each_database(async |options| {
        let site = Site::start(options).await;
        let client = site.client().await;
        let identifier = Machine::new().identifier(&site.api).await;
        let order = client.order(&identifier).await;
        let shown = client.get(&order.url).await.ok();
        assert_eq!(shown["identifiers"][0]["value"], json!(identifier));
        let rows = site.server.store().await.rows("SELECT * FROM acme_order").await;
        let kept = format!("{rows:?}");
        assert!(
            !kept.contains(&identifier) && !kept.contains(&hex::encode(&identifier)),
            "{kept}"
        );
        assert!(!site.server.log().contains(&identifier));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_revoked_by_its_key_or_its_account_and_by_nobody_else() {
    each_database(async |options| {
        let site = Site::start(options).await;
        let (owner, stranger) = (site.client().await, site.client().await);
        let url = owner.url("revoke-cert");
        let (by_account, _) = owner.enroll(&site.makers, &Machine::new(), &site.api).await;
        let body = json!({"certificate": text(&by_account), "reason": 4});
        let refusal = stranger.post(&url, &body).await;
        assert_eq!(refusal.json()["type"], "urn:ietf:params:acme:error:unauthorized");
        stranger
            .send(&url, "jwk", &body)
            .await
            .refused(403, "proof_invalid");
        let strange = json!({"certificate": text(&by_account), "reason": 7});
        let refusal = owner.post(&url, &strange).await;
        assert_eq!(
            refusal.json()["type"],
            "urn:ietf:params:acme:error:badRevocationReason"
        );
        owner.post(&url, &body).await.expect(200);
        let again = owner.post(&url, &body).await;
        assert_eq!(again.json()["type"], "urn:ietf:params:acme:error:alreadyRevoked");

        let (by_key, pkcs8) = owner.enroll(&site.makers, &Machine::new(), &site.api).await;
        let holder = Client::with_key(&site.server.admin, &pkcs8);
        let body = json!({"certificate": text(&by_key), "reason": 1});
        holder.send(&url, "jwk", &body).await.expect(200);
        let revoked = site.logged("certificate.revoked", 2).await;
        let reasons: Vec<&Value> = revoked.iter().map(|entry| &entry["detail"]["reason"]).collect();
        assert_eq!(reasons, ["superseded", "key_compromise"]);
        assert_healthy(&site.server).await;
    })
    .await;
}

/// A certificate that carries another's serial number beside a key of the forger's own.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_certificate_with_anothers_serial_number_revokes_nothing() {
    let site = Site::start(Options::default()).await;
    let victim = site.client().await;
    let (certificate, _) = victim.enroll(&site.makers, &Machine::new(), &site.api).await;
    let (_, parsed) = X509Certificate::from_der(&certificate).expect("it is a certificate");
    let forger = KeyPair::p256();
    let pair = rcgen::KeyPair::try_from(forger.pkcs8()).expect("it is a key");
    let mut parameters = rcgen::CertificateParams::new(Vec::new()).expect("no names are fine");
    parameters.serial_number = Some(rcgen::SerialNumber::from_slice(parsed.raw_serial()));
    let forged = parameters.self_signed(&pair).expect("it can be signed");
    let client = Client::with_key(&site.server.admin, forger.pkcs8());
    let body = json!({"certificate": text(forged.der()), "reason": 1});
    let answer = client.send(&client.url("revoke-cert"), "jwk", &body).await;
    answer.refused(403, "proof_invalid");
}
