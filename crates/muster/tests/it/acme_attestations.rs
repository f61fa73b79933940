//! Attestations that prove nothing (ABUSE E8; attacks 19 to 21, 43, 48, 53 to 57 and 75 of the catalogue of attestation).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use muster_attest::testing::{AppleMaker, AppleProperties, KeyPair, apple_object};
use muster_trust::key::sha256;
use serde_json::json;

use crate::support::{
    acme::{Bound, Client, Kind, Machine, Order, Site, refused, request_for},
    api::Answer,
    database::each_database,
    device::now,
    server::{Options, assert_healthy},
};

/// A hostile attestation: its name, what is sent, and the code that the log has.
struct Hostile {
    what: &'static str,
    bend: fn(&Site, &Machine, &Bound) -> Vec<u8>,
    logged: &'static str,
}

fn apple(site: &Site, properties: &AppleProperties) -> Vec<u8> {
    site.makers.apple(KeyPair::p256(), properties).object
}

/// Attestations that prove nothing, with what the log says of them.
const HOSTILE: &[Hostile] = &[
    Hostile {
        what: "attack 54: Apple without freshness",
        bend: |site, machine, bound| apple(site, &machine.properties(bound).without("11.1")),
        logged: "apple.no_freshness",
    },
    Hostile {
        what: "attack 55: Apple with the freshness of another challenge",
        bend: |site, machine, bound| {
            let other = sha256(b"another token");
            apple(site, &machine.properties(bound).with("11.1", other.as_bytes()))
        },
        logged: "apple.freshness",
    },
    Hostile {
        what: "Apple bound to the key authorization, as other formats are",
        bend: |site, machine, bound| {
            let other = sha256(bound.authorization.as_bytes());
            apple(site, &machine.properties(bound).with("11.1", other.as_bytes()))
        },
        logged: "apple.freshness",
    },
    Hostile {
        what: "Apple bound to the raw token",
        bend: |site, machine, bound| {
            let raw = URL_SAFE_NO_PAD
                .decode(&bound.token)
                .expect("a token is base64url");
            apple(site, &machine.properties(bound).with("11.1", &raw))
        },
        logged: "apple.freshness",
    },
    Hostile {
        what: "attack 56: Apple without serial number",
        bend: |site, machine, bound| apple(site, &machine.properties(bound).without("9.1")),
        logged: "identity.missing",
    },
    Hostile {
        what: "attack 56: Apple without UDID",
        bend: |site, machine, bound| apple(site, &machine.properties(bound).without("9.2")),
        logged: "identity.missing",
    },
    Hostile {
        what: "Apple of another device",
        bend: |site, machine, bound| apple(site, &machine.properties(bound).with("9.1", b"OTHER123")),
        logged: "identity.other",
    },
    Hostile {
        what: "attack 19: a root that nobody trusts",
        bend: |_, machine, bound| {
            let maker = AppleMaker::new(now());
            apple_object(&maker.chain(&machine.properties(bound)).x5c)
        },
        logged: "chain.",
    },
    Hostile {
        what: "attack 21: the attacker's root sent along",
        bend: |_, machine, bound| {
            let maker = AppleMaker::new(now());
            let mut x5c = maker.chain(&machine.properties(bound)).x5c;
            x5c.push(maker.root().certificate().to_vec());
            apple_object(&x5c)
        },
        logged: "chain.",
    },
    Hostile {
        what: "a chain cut to its leaf",
        bend: |site, machine, bound| {
            let chain = site.makers.apple.chain(&machine.properties(bound));
            apple_object(&chain.x5c[..1])
        },
        logged: "chain.",
    },
    Hostile {
        what: "a chain of twenty",
        bend: |site, machine, bound| {
            let chain = site.makers.apple.chain(&machine.properties(bound));
            let twenty: Vec<Vec<u8>> = chain.x5c.iter().cycle().take(20).cloned().collect();
            apple_object(&twenty)
        },
        logged: "chain.too_long",
    },
    Hostile {
        what: "no certificate",
        bend: |_, _, _| apple_object(&[]),
        logged: "chain.empty",
    },
    Hostile {
        what: "a TPM whose attestation key has no name",
        bend: |site, _, bound| site.makers.tpm_named(None, bound).object,
        logged: "identity.missing",
    },
    Hostile {
        what: "a TPM whose attestation key has another machine's name",
        bend: |site, _, bound| {
            let other = Machine::new().device_uuid.to_string();
            site.makers.tpm_named(Some(&other), bound).object
        },
        logged: "identity.other",
    },
    Hostile {
        what: "attack 43: a TPM that certified for another order",
        bend: |site, machine, bound| {
            let other = Bound {
                token: bound.token.clone(),
                authorization: format!("{}x", bound.authorization),
            };
            site.makers.attest(Kind::Tpm, machine, &other).object
        },
        logged: "tpm.attest.nonce_mismatch",
    },
    Hostile {
        what: "Android with the challenge of another order",
        bend: |site, machine, bound| {
            let other = Bound {
                token: bound.token.clone(),
                authorization: bound.token.clone(),
            };
            site.makers.attest(Kind::Android, machine, &other).object
        },
        logged: "android.challenge",
    },
    Hostile {
        what: "attack 75: a deep object",
        bend: |_, _, _| [vec![0x81; 30_000], vec![0x00]].concat(),
        logged: "object.too_complex",
    },
    Hostile {
        what: "attack 75: an object that says it has 2^63 bytes",
        bend: |_, _, _| vec![0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        logged: "object.malformed",
    },
    Hostile {
        what: "attack 75: an object of 30 kB of nothing",
        bend: |_, _, _| [vec![0x59, 0x75, 0x30], vec![0; 30_000]].concat(),
        logged: "object.",
    },
    Hostile {
        what: "an object of no bytes",
        bend: |_, _, _| Vec::new(),
        logged: "object.malformed",
    },
    Hostile {
        what: "attack 48: a format that proves nothing",
        bend: |_, _, _| {
            let mut object = vec![0xa2, 0x63];
            object.extend(b"fmt\x64none\x67attStmt\xa0");
            object
        },
        logged: "object.format",
    },
];

/// An order whose challenge is answered with this; answers the order and what was told.
async fn answered(site: &Site, client: &Client, machine: &Machine, bend: &Hostile) -> (Order, Answer) {
    let order = client.order(&machine.identifier(&site.api).await).await;
    let object = (bend.bend)(site, machine, &client.bound(&order));
    let told = client.answer_challenge(&order, &object).await;
    (order, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn e8_every_attestation_that_proves_nothing_is_refused_the_same_and_logged_apart() {
    each_database(async |options| {
        let site = Site::start(options).await;
        site.import_android_list().await;
        let mut sentences = Vec::new();
        for hostile in HOSTILE {
            // One account may have so many orders at a time.
            let (client, machine) = (site.client().await, Machine::new());
            let (order, told) = answered(&site, &client, &machine, hostile).await;
            let told = told.expect(200);
            assert_eq!(
                (
                    told["status"].as_str(),
                    told["error"]["type"].as_str(),
                    told["error"]["code"].as_str()
                ),
                (
                    Some("invalid"),
                    Some("urn:ietf:params:acme:error:badAttestationStatement"),
                    Some("attestation_rejected")
                ),
                "{}: {told}",
                hostile.what
            );
            sentences.push(told["error"]["detail"].clone());
            // One try: the genuine article is too late now.
            let late = site.makers.attest(Kind::Apple, &machine, &client.bound(&order));
            let told = client.answer_challenge(&order, &late.object).await.expect(200);
            assert_eq!(told["status"], "invalid", "{}", hostile.what);
            assert_eq!(
                client.get(&order.url).await.ok()["status"],
                "invalid",
                "{}",
                hostile.what
            );
            let finalized = client.finalize(&order, &request_for(&late.pkcs8)).await;
            refused(hostile.what, &finalized, 403, "orderNotReady", "order_not_ready");
        }
        sentences.dedup();
        assert_eq!(sentences.len(), 1, "no oracle: {sentences:?}");
        let entries = site.logged("enrollment.refused", HOSTILE.len()).await;
        assert_eq!(entries.len(), HOSTILE.len());
        for (entry, hostile) in entries.iter().zip(HOSTILE) {
            let reason = entry["detail"]["reason"].as_str().unwrap_or_default();
            assert!(reason.starts_with(hostile.logged), "{}: {entry}", hostile.what);
        }
        assert_eq!(site.api.list("/devices").await.len(), 0, "nobody enrolled");
        assert_healthy(&site.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e8_a_challenge_of_another_order_is_not_met_by_this_ones_attestation() {
    let site = Site::start(Options::default()).await;
    let client = site.client().await;
    let machine = Machine::new();
    let identifier = machine.identifier(&site.api).await;
    let (one, two) = (client.order(&identifier).await, client.order(&identifier).await);
    assert_ne!(one.token, two.token);
    for kind in [Kind::Apple, Kind::Tpm] {
        let (one, two) = match kind {
            Kind::Apple => (one.clone(), two.clone()),
            _ => (client.order(&identifier).await, client.order(&identifier).await),
        };
        let attested = site.makers.attest(kind, &machine, &client.bound(&one));
        let told = client.answer_challenge(&two, &attested.object).await.expect(200);
        assert_eq!(told["status"], "invalid", "{kind:?}: {told}");
        let told = client.answer_challenge(&one, &attested.object).await.expect(200);
        assert_eq!(told["status"], "valid", "{kind:?}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_answered_by_an_object_and_what_is_none_decides_nothing() {
    let site = Site::start(Options::default()).await;
    let client = site.client().await;
    let machine = Machine::new();
    let order = client.order(&machine.identifier(&site.api).await).await;
    for body in [json!({}), json!([]), json!("x"), json!({"attObj": 5})] {
        let answer = client.post(&order.challenge, &body).await;
        refused(&body.to_string(), &answer, 400, "malformed", "malformed");
    }
    let large = client.answer_challenge(&order, &[0; 50_000]).await;
    refused("50 kB", &large, 413, "malformed", "body_too_large");
    let attested = site.makers.attest(Kind::Apple, &machine, &client.bound(&order));
    let told = client
        .answer_challenge(&order, &attested.object)
        .await
        .expect(200);
    assert_eq!(told["status"], "valid", "{told}");

    let failed = client.order(&machine.identifier(&site.api).await).await;
    let body = json!({"error": "the Secure Enclave is asleep"});
    let told = client.post(&failed.challenge, &body).await.expect(200);
    assert_eq!(told["status"], "invalid", "{told}");
    let entries = site.logged("enrollment.refused", 1).await;
    let reason = entries[0]["detail"]["reason"].as_str().expect("a reason");
    assert!(reason.contains("Secure Enclave is asleep"), "{reason}");
}
