//! Orders and certificate requests: whose they are, what they may ask for, and how often (ABUSE E3, E5, E11, T1, T5; attacks
//! 45 and 64 of the catalogue of attestation).

use muster_attest::testing::KeyPair;
use serde_json::json;

use crate::support::{
    acme::{Attested, Client, Machine, Makers, Order, Site, refused, request_for, request_with, text},
    api::Answer,
    database::each_database,
    device::token_for,
    server::{AdminFile, Options, Server, assert_healthy, create_tenant},
};

#[tokio::test(flavor = "multi_thread")]
async fn e5_an_identifier_that_is_unknown_used_expired_or_of_another_protocol_is_one_refusal() {
    each_database(async |options| {
        let site = Site::start(options).await;
        let client = site.client().await;
        let machine = Machine::new();
        let expired = machine.identifier_for(&site.api, 1).await;
        let agent = token_for(&site.api, machine.device_uuid).await;
        let scep = site
            .api
            .post(
                "/enrollment-tokens",
                &json!({"device_uuid": machine.device_uuid, "protocol": "scep"}),
            )
            .await
            .expect(201);
        tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
        let identifiers = [
            text([7; 32]),
            expired,
            agent,
            scep["token"].as_str().expect("text").to_owned(),
            machine.serial.clone(),
            machine.device_uuid.to_string(),
            String::new(),
            "x".repeat(5000),
        ];
        let mut told = Vec::new();
        for identifier in identifiers {
            let answer = client.try_order(&identifier).await;
            refused(&identifier, &answer, 403, "unauthorized", "challenge_invalid");
            told.push(answer.json()["detail"].clone());
        }
        told.dedup();
        assert_eq!(told.len(), 1, "one sentence for all: {told:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_for_one_permanent_identifier_and_no_lifetime_of_its_own() {
    let site = Site::start(Options::default()).await;
    let client = site.client().await;
    let value = Machine::new().identifier(&site.api).await;
    let one = json!({"type": "permanent-identifier", "value": value});
    let dns = json!({"type": "dns", "value": "example.com"});
    let cases = [
        (
            "none",
            json!({"identifiers": []}),
            "rejectedIdentifier",
            "invalid",
        ),
        (
            "two",
            json!({"identifiers": [one, one]}),
            "rejectedIdentifier",
            "invalid",
        ),
        (
            "a name",
            json!({"identifiers": [dns]}),
            "unsupportedIdentifier",
            "invalid",
        ),
        (
            "a lifetime",
            json!({"identifiers": [one], "notAfter": "2099-01-01T00:00:00Z"}),
            "malformed",
            "invalid",
        ),
        ("no object", json!([]), "malformed", "malformed"),
        ("no list", json!({"identifiers": one}), "malformed", "malformed"),
    ];
    for (what, body, kind, code) in cases {
        refused(
            what,
            &client.post(&client.url("new-order"), &body).await,
            400,
            kind,
            code,
        );
    }
    client.order(&value).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t1_an_order_is_its_accounts_alone() {
    let site = Site::start(Options::default()).await;
    let (client, stranger) = (site.client().await, site.client().await);
    let machine = Machine::new();
    let identifier = machine.identifier(&site.api).await;
    let (order, attested) = client.ready(&site.makers, &machine, &identifier).await;
    let nothing = client.url(&format!("order/{}", "0".repeat(32)));
    let expected = stranger.get(&nothing).await;
    refused("nothing", &expected, 404, "malformed", "not_found");
    for url in [&order.url, &order.authorization, &order.challenge] {
        let answer = stranger.get(url).await;
        refused(url, &answer, 404, "malformed", "not_found");
        assert_eq!(answer.json()["detail"], expected.json()["detail"]);
    }
    let request = request_for(&attested.pkcs8);
    refused(
        "finalize",
        &stranger.finalize(&order, &request).await,
        404,
        "malformed",
        "not_found",
    );
    let answer = stranger.answer_challenge(&order, &attested.object).await;
    refused("challenge", &answer, 404, "malformed", "not_found");
    let answer = stranger.get(&client.kid).await;
    refused("another's account", &answer, 403, "unauthorized", "proof_invalid");
    client.finalize(&order, &request).await.expect(200);
    let certificate = order.url.replace("/order/", "/certificate/");
    client.get(&certificate).await.expect(200);
    refused(
        "certificate",
        &stranger.get(&certificate).await,
        404,
        "malformed",
        "not_found",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn t5_nothing_of_one_tenant_is_good_at_another() {
    each_database(async |options| {
        let mut server = Server::start(options).await;
        server.stop().await;
        let file = create_tenant(&server, "other").await;
        server.restart().await;
        let made = AdminFile::read(&file);
        let other = AdminFile {
            tenant: made.tenant,
            client_id: made.client_id,
            client_secret: made.client_secret,
            ..server.admin.clone()
        };
        let api = server.api().await;
        let makers = Makers::trusted_by(&api).await;
        let (here, there) = (Client::new(&server.admin).await, Client::new(&other).await);
        let machine = Machine::new();
        let identifier = machine.identifier(&api).await;
        refused(
            "an identifier of another tenant",
            &there.try_order(&identifier).await,
            403,
            "unauthorized",
            "challenge_invalid",
        );
        let (order, attested) = here.ready(&makers, &machine, &identifier).await;
        let moved = |url: &str| url.replace(&server.admin.tenant, &other.tenant);
        refused(
            "its order",
            &there.get(&moved(&order.url)).await,
            404,
            "malformed",
            "not_found",
        );
        let key_of_here = here.at(&other);
        refused(
            "its order, by its own key",
            &key_of_here.get(&moved(&order.url)).await,
            404,
            "malformed",
            "not_found",
        );
        let mut header = there.header(&there.kid, "kid").await;
        header["nonce"] = json!(here.nonce().await);
        let answer = there
            .post_raw(&there.kid, there.seal(&header, "").to_string())
            .await;
        refused(
            "a nonce of another tenant",
            &answer,
            400,
            "badNonce",
            "nonce_invalid",
        );
        here.finalize(&order, &request_for(&attested.pkcs8))
            .await
            .expect(200);
        assert_healthy(&server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e5_a_certificate_request_is_for_the_attested_key_and_asks_for_no_more() {
    each_database(async |options| {
        let site = Site::start(options).await;
        let client = site.client().await;
        let machine = Machine::new();
        let identifier = machine.identifier(&site.api).await;
        let (order, attested) = client.ready(&site.makers, &machine, &identifier).await;
        let asks = |bend: fn(&mut rcgen::CertificateParams)| request_with(&attested.pkcs8, bend);
        let mut unsigned = request_for(&attested.pkcs8);
        let last = unsigned.len() - 1;
        unsigned[last] ^= 1;
        let refusals = [
            (
                "attack 64: an authority",
                asks(|parameters| {
                    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
                }),
            ),
            (
                "attack 64: a name",
                asks(|parameters| {
                    let name = "evil.example".try_into().expect("a name");
                    parameters.subject_alt_names = vec![rcgen::SanType::DnsName(name)];
                }),
            ),
            (
                "attack 64: another device's URI",
                asks(|parameters| {
                    let uri = "urn:muster:tnt_1:dev_1:1".try_into().expect("a URI");
                    parameters.subject_alt_names = vec![rcgen::SanType::URI(uri)];
                }),
            ),
            (
                "attack 64: to be a server",
                asks(|parameters| {
                    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
                }),
            ),
            (
                "attack 64: to sign certificates",
                asks(|parameters| {
                    parameters.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
                }),
            ),
            ("a bent signature", unsigned),
            ("no request", b"nonsense".to_vec()),
            ("nothing", Vec::new()),
        ];
        for (what, request) in refusals {
            refused(
                what,
                &client.finalize(&order, &request).await,
                400,
                "badCSR",
                "csr_invalid",
            );
        }
        let answer = client.post(&order.finalize, &json!({"csr": "***"})).await;
        refused("no base64url", &answer, 400, "malformed", "malformed");
        // None of that ended the order: what a device of ours asks for is harmless.
        let harmless = asks(|parameters| {
            parameters
                .distinguished_name
                .push(rcgen::DnType::CommonName, "anything");
            parameters.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
            parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        });
        assert_eq!(
            client.finalize(&order, &harmless).await.expect(200)["status"],
            "valid"
        );

        // Attack 45: another key than the attested one ends the order.
        let machine = Machine::new();
        let identifier = machine.identifier(&site.api).await;
        let (order, attested) = client.ready(&site.makers, &machine, &identifier).await;
        let other = request_for(KeyPair::p256().pkcs8());
        refused(
            "another key",
            &client.finalize(&order, &other).await,
            400,
            "badCSR",
            "csr_invalid",
        );
        let late = client.finalize(&order, &request_for(&attested.pkcs8)).await;
        refused("too late", &late, 403, "orderNotReady", "order_not_ready");
        let entries = site.logged("enrollment.refused", 1).await;
        assert_eq!(entries[0]["detail"]["code"], "csr_invalid", "{entries:?}");
        assert_eq!(site.api.list("/devices").await.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_before_the_attestation_is_too_early() {
    let site = Site::start(Options::default()).await;
    let client = site.client().await;
    let order = client.order(&Machine::new().identifier(&site.api).await).await;
    let request = request_for(KeyPair::p256().pkcs8());
    refused(
        "early",
        &client.finalize(&order, &request).await,
        403,
        "orderNotReady",
        "order_not_ready",
    );
    let certificate = order.url.replace("/order/", "/certificate/");
    refused(
        "no certificate",
        &client.get(&certificate).await,
        404,
        "malformed",
        "not_found",
    );
    assert_eq!(client.get(&order.url).await.ok()["status"], "pending");
}

#[tokio::test(flavor = "multi_thread")]
async fn e3_requests_at_once_make_one_certificate() {
    each_database(async |options| {
        let site = Site::start(options).await;
        let client = site.client().await;
        let machine = Machine::new();
        let identifier = machine.identifier(&site.api).await;
        let (order, attested) = client.ready(&site.makers, &machine, &identifier).await;
        let request = request_for(&attested.pkcs8);
        let answers =
            futures_util::future::join_all((0..12).map(|_| client.finalize(&order, &request))).await;
        for answer in &answers {
            assert_eq!(answer.expect(200)["status"], "valid");
        }
        let store = site.server.store().await;
        assert_eq!(store.count("certificates_certificate").await, 1);
        assert_eq!(site.api.list("/devices").await.len(), 1);
        assert_healthy(&site.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e3_one_identifier_makes_one_device_whatever_the_number_of_orders() {
    each_database(async |options| {
        let site = Site::start(options).await;
        let machine = Machine::new();
        let identifier = machine.identifier(&site.api).await;
        let mut ready: Vec<(Client, Order, Attested)> = Vec::new();
        for _ in 0..4 {
            let client = site.client().await;
            let (order, attested) = client.ready(&site.makers, &machine, &identifier).await;
            ready.push((client, order, attested));
        }
        let racing = ready.iter().map(|(client, order, attested)| async move {
            client.finalize(order, &request_for(&attested.pkcs8)).await
        });
        let answers = futures_util::future::join_all(racing).await;
        let won = answers.iter().filter(|answer| answer.status == 200).count();
        assert_eq!(
            won,
            1,
            "{:?}",
            answers.iter().map(Answer::text).collect::<Vec<_>>()
        );
        for lost in answers.iter().filter(|answer| answer.status != 200) {
            refused("lost", lost, 403, "unauthorized", "token_redeemed");
        }
        assert_eq!(site.api.list("/devices").await.len(), 1);
        assert_eq!(
            site.server.store().await.count("certificates_certificate").await,
            1
        );
        assert_healthy(&site.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e11_orders_are_bounded_by_account_and_by_identifier() {
    let site = Site::start(Options::default()).await;
    let identifier = Machine::new().identifier(&site.api).await;
    let (one, two, three) = (site.client().await, site.client().await, site.client().await);
    for client in [&one, &two] {
        for _ in 0..8 {
            client.order(&identifier).await;
        }
    }
    let other = Machine::new().identifier(&site.api).await;
    let full = one.try_order(&other).await;
    refused("the account's ninth", &full, 429, "rateLimited", "rate_limited");
    assert!(!full.header("retry-after").is_empty());
    let full = three.try_order(&identifier).await;
    refused(
        "the identifier's seventeenth",
        &full,
        429,
        "rateLimited",
        "rate_limited",
    );
    three.order(&other).await;
}
