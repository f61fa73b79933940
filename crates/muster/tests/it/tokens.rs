//! Access tokens that were not issued as this installation issues them, each wrong in one way (RFC 8725).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    api::Api,
    jwt::{self, TokenKey},
    raw,
    server::{Options, Server},
    unix_seconds,
};

/// A server, its own key, and the parts of a good token.
struct Forge {
    server: Server,
    api: Api,
    key: TokenKey,
    header: Value,
    claims: Value,
}

impl Forge {
    async fn open() -> Forge {
        let server = Server::start(Options::default()).await;
        let api = server.api().await;
        let key = TokenKey::read(&server.data_dir().join("keys/access-tokens.pem"));
        let (header, claims) = jwt::parts(&api.token);
        Forge {
            server,
            api,
            key,
            header,
            claims,
        }
    }

    fn header_with(&self, name: &str, value: Value) -> Value {
        let mut header = self.header.clone();
        header[name] = value;
        header
    }

    fn signed_with_claim(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims.clone();
        claims[name] = value;
        self.key.sign(&self.header, &claims)
    }

    async fn refuses(&self, what: &str, token: &str) {
        let answer = self.api.with_token(token).get("/devices").await;
        let code = answer.json()["code"].clone();
        assert!(
            answer.status == 401 && (code == "token_invalid" || code == "token_expired"),
            "{what}: {}",
            answer.text()
        );
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_made_by_hand_under_the_right_key_is_accepted_so_that_the_other_tests_mean_something() {
    let forge = Forge::open().await;
    let token = forge.key.sign(&forge.header, &forge.claims);
    forge.api.with_token(token).get("/devices").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_the_algorithm_is_not_the_tokens_choice() {
    let forge = Forge::open().await;
    for alg in ["none", "None", "nOnE", ""] {
        let header = forge.header_with("alg", json!(alg));
        let text = jwt::unsigned(&header, &forge.claims);
        forge
            .refuses(&format!("alg {alg} without a signature"), &format!("{text}."))
            .await;
        forge
            .refuses(
                &format!("alg {alg} with a signature"),
                &forge.key.sign(&header, &forge.claims),
            )
            .await;
    }
    let confused = forge.header_with("alg", json!("HS256"));
    let public = forge.key.public_pem();
    for secret in [
        public.as_bytes(),
        public.trim().as_bytes(),
        b"",
        forge.server.admin.client_secret.as_bytes(),
    ] {
        forge
            .refuses("HS256", &jwt::sign_hs256(secret, &confused, &forge.claims))
            .await;
    }
    for alg in ["ES384", "RS256", "EdDSA", "es256"] {
        let header = forge.header_with("alg", json!(alg));
        forge.refuses(alg, &forge.key.sign(&header, &forge.claims)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_a_header_brings_no_key_and_no_extension() {
    let forge = Forge::open().await;
    let foreign = TokenKey::foreign();
    let with_key = [
        ("jwk", foreign.public_jwk()),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/chain")),
        ("x5c", json!(["AAAA"])),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
    ];
    for (name, value) in with_key {
        let header = forge.header_with(name, value);
        forge
            .refuses(
                &format!("{name}, own key"),
                &forge.key.sign(&header, &forge.claims),
            )
            .await;
        forge
            .refuses(
                &format!("{name}, foreign key"),
                &foreign.sign(&header, &forge.claims),
            )
            .await;
    }
    forge
        .refuses("foreign key", &foreign.sign(&forge.header, &forge.claims))
        .await;
    let own = forge.header_with("kid", json!(foreign.id()));
    forge
        .refuses("foreign kid", &foreign.sign(&own, &forge.claims))
        .await;
    for kid in ["", "../../keys/access-tokens.pem", "' OR 1=1 --", "/dev/null"] {
        let header = forge.header_with("kid", json!(kid));
        forge.refuses(kid, &forge.key.sign(&header, &forge.claims)).await;
    }
    for missing in ["alg", "typ", "kid"] {
        let mut header = forge.header.clone();
        header
            .as_object_mut()
            .expect("a header is an object")
            .remove(missing);
        forge
            .refuses(missing, &forge.key.sign(&header, &forge.claims))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_a_signature_of_zeros_or_of_another_token_is_none() {
    let forge = Forge::open().await;
    let text = jwt::unsigned(&forge.header, &forge.claims);
    let zeros = [0_u8; 64];
    let ones = [0xff_u8; 64];
    for (what, signature) in [
        ("r=s=0", &zeros[..]),
        ("r=s=max", &ones[..]),
        ("empty", &[][..]),
        ("short", &zeros[..63]),
    ] {
        forge
            .refuses(what, &format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
            .await;
    }
    let mut other = forge.claims.clone();
    other["jti"] = json!(Uuid::new_v4());
    let foreign_signature = forge.key.sign(&forge.header, &other);
    let signature = foreign_signature
        .rsplit('.')
        .next()
        .expect("a token has a signature");
    forge
        .refuses("another token's signature", &format!("{text}.{signature}"))
        .await;
    let good = forge.key.sign(&forge.header, &forge.claims);
    for changed in [
        format!("{good}="),
        format!("{good}."),
        format!("{good}.x"),
        good.replace('.', ".."),
        format!(" {good}"),
    ] {
        forge.refuses("bent form", &changed).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_a_key_signs_for_one_purpose() {
    let forge = Forge::open().await;
    let keys = forge.server.data_dir().join("keys");
    let enrollment = TokenKey::read(&keys.join("enrollment-tokens.pem"));
    forge
        .refuses(
            "the enrollment key",
            &enrollment.sign(&forge.header, &forge.claims),
        )
        .await;
    let named = forge.header_with("kid", json!(enrollment.id()));
    forge
        .refuses(
            "the enrollment key, named",
            &enrollment.sign(&named, &forge.claims),
        )
        .await;

    let asked = json!({"device_uuid": Uuid::new_v4()});
    let made = forge.api.post("/enrollment-tokens", &asked).await.expect(201);
    forge
        .refuses(
            "an enrollment token",
            made["token"].as_str().expect("a token is text"),
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_a_wrong_claim_refuses_the_token() {
    let forge = Forge::open().await;
    let now = unix_seconds();
    let other = format!("cli_{}", "1".repeat(32));
    let claims = [
        ("aud", json!("device-agent")),
        ("aud", json!(["muster-admin-api", "other"])),
        ("iss", json!(format!("urn:muster:install:{}", Uuid::new_v4()))),
        ("iss", json!("")),
        ("sub", json!(other)),
        ("client_id", json!(other)),
        ("exp", json!(now - 1)),
        ("exp", json!(now)),
        ("exp", json!(now + 365 * 86_400)),
        ("exp", json!(i64::MAX)),
        ("exp", json!("9999999999")),
        ("exp", json!(9e99)),
        ("nbf", json!(now + 600)),
        ("iat", json!(now + 600)),
        ("iat", json!(i64::MIN)),
        ("scope", json!(["device:read"])),
        ("admin", json!(true)),
        ("role", json!("root")),
    ];
    for (name, value) in claims {
        forge
            .refuses(
                &format!("{name} = {value}"),
                &forge.signed_with_claim(name, value),
            )
            .await;
    }
    for missing in [
        "iss",
        "aud",
        "sub",
        "client_id",
        "tid",
        "scope",
        "iat",
        "nbf",
        "exp",
        "jti",
    ] {
        let mut claims = forge.claims.clone();
        claims
            .as_object_mut()
            .expect("claims are an object")
            .remove(missing);
        forge
            .refuses(&format!("no {missing}"), &forge.key.sign(&forge.header, &claims))
            .await;
    }
    for typ in ["JWT", "enroll+jwt", "at+JWT", "application/at+jwt", ""] {
        let header = forge.header_with("typ", json!(typ));
        forge
            .refuses(&format!("typ {typ}"), &forge.key.sign(&header, &forge.claims))
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_a_tenant_that_is_not_the_clients_is_refused() {
    let forge = Forge::open().await;
    let tenant = format!("tnt_{}", "2".repeat(32));
    let token = forge.signed_with_claim("tid", json!(tenant));
    forge
        .api
        .with_token(token)
        .get("/devices")
        .await
        .refused(401, "unauthenticated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_gives_no_scope_that_its_client_does_not_hold() {
    let forge = Forge::open().await;
    let narrow = forge.api.client_with("narrow", &["device:read"]).await;
    let (header, mut claims) = jwt::parts(&narrow.token);
    claims["scope"] = json!("device:read policy:read client:write");
    let stretched = forge.api.with_token(forge.key.sign(&header, &claims));
    stretched.get("/devices").await.ok();
    stretched
        .get("/policies")
        .await
        .refused(403, "insufficient_scope");
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_a_token_counts_in_the_authorization_header_alone() {
    let forge = Forge::open().await;
    let (admin, token) = (&forge.server.admin, &forge.api.token);
    let places = [
        (format!("/api/v1/devices?access_token={token}"), vec![]),
        (format!("/api/v1/devices?token={token}"), vec![]),
        (
            "/api/v1/devices".to_owned(),
            vec![format!(
                "Cookie: access_token={token}; muster_session={token}; __Host-muster={token}"
            )],
        ),
        (
            "/api/v1/devices".to_owned(),
            vec![format!("X-Access-Token: {token}")],
        ),
        (
            "/api/v1/devices".to_owned(),
            vec![format!("Proxy-Authorization: Bearer {token}")],
        ),
        (
            "/api/v1/devices".to_owned(),
            vec![format!("Authorization: {token}")],
        ),
        (
            "/api/v1/devices".to_owned(),
            vec![format!("Authorization: Token {token}")],
        ),
        (
            "/api/v1/devices".to_owned(),
            vec![
                format!("Authorization: Bearer {token}"),
                "Authorization: Bearer x".to_owned(),
            ],
        ),
    ];
    for (target, headers) in places {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let answer = raw::get(admin, &target, &headers).await;
        assert_eq!(answer.status, 401, "{target} {headers:?}: {}", answer.body);
    }
    let good = format!("Authorization: bearer {token}");
    assert_eq!(raw::get(admin, "/api/v1/devices", &[&good]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_secret_is_no_token() {
    let server = Server::start(Options::default()).await;
    let api = Api::anonymous(&server.admin);
    for text in [
        server.admin.client_secret.as_str(),
        server.admin.client_id.as_str(),
        server.admin.tenant.as_str(),
        "null",
        "undefined",
    ] {
        api.with_token(text)
            .get("/devices")
            .await
            .refused(401, "token_invalid");
    }
}
