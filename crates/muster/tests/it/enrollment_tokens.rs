//! Enrollment tokens: what they say, and what is wrong with every other (ABUSE A6 to A8).

use base64::Engine;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    PATIENCE,
    device::{Applicant, Door, token_for},
    eventually,
    jwt::{self, TokenKey},
    server::{Options, Server},
    unix_seconds,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_token_says_what_the_requirements_say_and_no_more() {
    let server = Server::start(Options::default()).await;
    let api = server.api().await;
    let device_uuid = Uuid::new_v4();
    let before = unix_seconds();
    let (header, claims) = jwt::parts(&token_for(&api, device_uuid).await);
    assert_eq!(
        (&header["alg"], &header["typ"]),
        (&json!("ES256"), &json!("enroll+jwt"))
    );
    let names: Vec<&String> = claims.as_object().expect("claims are an object").keys().collect();
    assert_eq!(
        names,
        [
            "aud",
            "device_uuid",
            "exp",
            "iat",
            "iss",
            "jti",
            "nbf",
            "sub",
            "tid"
        ]
    );
    assert_eq!(claims["sub"], "enrollment-token");
    assert_eq!(claims["aud"], "device-agent");
    assert_eq!(claims["device_uuid"], json!(device_uuid));
    assert_eq!(claims["tid"], json!(server.admin.tenant));
    assert!(
        claims["iss"]
            .as_str()
            .is_some_and(|issuer| issuer.starts_with("urn:muster:install:"))
    );
    assert!(
        claims["jti"]
            .as_str()
            .is_some_and(|id| Uuid::parse_str(id).is_ok())
    );
    let time = |name: &str| claims[name].as_i64().expect("times are whole seconds");
    assert_eq!(time("exp") - time("iat"), 300, "five minutes");
    assert!((before..=unix_seconds()).contains(&time("iat")) && time("nbf") == time("iat"));
    let other = jwt::parts(&token_for(&api, device_uuid).await).1;
    assert_ne!(other["jti"], claims["jti"]);
}

/// A server, its enrollment key, and the parts of a good token for a machine.
struct Forge {
    server: Server,
    door: Door,
    key: TokenKey,
    applicant: Applicant,
    header: Value,
    claims: Value,
}

impl Forge {
    async fn open() -> Forge {
        let server = Server::start(Options::default()).await;
        let applicant = Applicant::new();
        let token = token_for(&server.api().await, applicant.device_uuid).await;
        let (header, claims) = jwt::parts(&token);
        let key = TokenKey::read(&server.data_dir().join("keys/enrollment-tokens.pem"));
        Forge {
            door: Door::of(&server.admin),
            server,
            key,
            applicant,
            header,
            claims,
        }
    }

    fn header_with(&self, name: &str, value: Value) -> Value {
        let mut header = self.header.clone();
        header[name] = value;
        header
    }

    async fn refuses(&self, what: &str, token: &str) {
        self.refuses_with(what, token, "token_invalid").await;
    }

    async fn refuses_with(&self, what: &str, token: &str, code: &str) {
        let answer = self.applicant.begin(&self.door, token).await;
        assert_eq!(
            (answer.status, answer.json()["code"].as_str()),
            (401, Some(code)),
            "{what}: {}",
            answer.text()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_an_enrollment_tokens_header_chooses_nothing() {
    let forge = Forge::open().await;
    for alg in ["none", "None", ""] {
        let header = forge.header_with("alg", json!(alg));
        forge
            .refuses(alg, &format!("{}.", jwt::unsigned(&header, &forge.claims)))
            .await;
        forge.refuses(alg, &forge.key.sign(&header, &forge.claims)).await;
    }
    let confused = forge.header_with("alg", json!("HS256"));
    let public = forge.key.public_pem();
    for secret in [public.as_bytes(), public.trim().as_bytes(), b""] {
        forge
            .refuses("HS256", &jwt::sign_hs256(secret, &confused, &forge.claims))
            .await;
    }
    let foreign = TokenKey::foreign();
    let extensions = [
        ("jwk", foreign.public_jwk()),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/chain")),
        ("x5c", json!(["AAAA"])),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
    ];
    for (name, value) in extensions {
        let header = forge.header_with(name, value);
        forge.refuses(name, &forge.key.sign(&header, &forge.claims)).await;
        forge.refuses(name, &foreign.sign(&header, &forge.claims)).await;
    }
    forge
        .refuses("foreign key", &foreign.sign(&forge.header, &forge.claims))
        .await;
    forge
        .refuses(
            "foreign kid",
            &forge
                .key
                .sign(&forge.header_with("kid", json!(foreign.id())), &forge.claims),
        )
        .await;
    for typ in ["JWT", "at+jwt", "enroll+JWT", ""] {
        forge
            .refuses(
                typ,
                &forge
                    .key
                    .sign(&forge.header_with("typ", json!(typ)), &forge.claims),
            )
            .await;
    }
    let text = jwt::unsigned(&forge.header, &forge.claims);
    let zeros = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([0_u8; 64]);
    forge.refuses("r=s=0", &format!("{text}.{zeros}")).await;
    forge
        .applicant
        .try_enroll(&forge.door, &forge.key.sign(&forge.header, &forge.claims))
        .await
        .expect(201);
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_tokens_and_keys_of_another_purpose_enroll_nothing() {
    let forge = Forge::open().await;
    let api = forge.server.api().await;
    forge.refuses("an access token", &api.token).await;
    let access = TokenKey::read(&forge.server.data_dir().join("keys/access-tokens.pem"));
    forge
        .refuses("the access key", &access.sign(&forge.header, &forge.claims))
        .await;
    let named = forge.header_with("kid", json!(access.id()));
    forge
        .refuses("the access key, named", &access.sign(&named, &forge.claims))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_a_wrong_claim_refuses_an_enrollment_token() {
    let forge = Forge::open().await;
    let now = unix_seconds();
    let with = |name: &str, value: Value| {
        let mut claims = forge.claims.clone();
        claims[name] = value;
        forge.key.sign(&forge.header, &claims)
    };
    let wrong = [
        ("iss", json!(format!("urn:muster:install:{}", Uuid::new_v4()))),
        ("aud", json!("muster-admin-api")),
        ("aud", json!(["device-agent"])),
        ("sub", json!("enrollment")),
        ("tid", json!(format!("tnt_{}", "1".repeat(32)))),
        ("jti", json!(Uuid::new_v4())),
        ("exp", json!(now + 10 * 86_400)),
        ("exp", json!("9999999999")),
        ("nbf", json!(now + 600)),
        ("iat", json!(now + 600)),
        ("admin", json!(true)),
    ];
    for (name, value) in wrong {
        forge
            .refuses(&format!("{name} = {value}"), &with(name, value))
            .await;
    }
    for (name, value) in [("exp", json!(now - 1)), ("exp", json!(now))] {
        forge
            .refuses_with("expired", &with(name, value), "token_expired")
            .await;
    }
    for missing in [
        "iss",
        "sub",
        "aud",
        "exp",
        "jti",
        "device_uuid",
        "iat",
        "nbf",
        "tid",
    ] {
        let mut claims = forge.claims.clone();
        claims
            .as_object_mut()
            .expect("claims are an object")
            .remove(missing);
        forge
            .refuses(missing, &forge.key.sign(&forge.header, &claims))
            .await;
    }
    let good = forge.key.sign(&forge.header, &forge.claims);
    let (head, rest) = good.split_once('.').expect("a token has parts");
    let (body, signature) = rest.split_once('.').expect("a token has three parts");
    for place in [0, body.len() / 2, body.len() - 1] {
        let mut bent = body.to_owned().into_bytes();
        bent[place] = if bent[place] == b'A' { b'B' } else { b'A' };
        let bent = String::from_utf8(bent).expect("ASCII stays ASCII");
        forge
            .refuses("tampered", &format!("{head}.{bent}.{signature}"))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_a_token_that_ends_between_the_two_calls_is_judged_by_the_servers_clock() {
    let server = Server::start(Options::default()).await;
    let (api, door, applicant) = (server.api().await, Door::of(&server.admin), Applicant::new());
    let body = json!({"device_uuid": applicant.device_uuid, "ttl_seconds": 1});
    let made = api.post("/enrollment-tokens", &body).await.expect(201);
    let token = made["token"].as_str().expect("a token is text").to_owned();
    let refused = eventually("the token expires", PATIENCE, async || {
        let answer = applicant.begin(&door, &token).await;
        (answer.status != 200).then_some(answer)
    });
    refused.await.refused(401, "token_expired");
    for ttl in [0, -1, 86_401] {
        let body = json!({"device_uuid": applicant.device_uuid, "ttl_seconds": ttl});
        api.post("/enrollment-tokens", &body)
            .await
            .refused(400, "invalid");
    }
}
