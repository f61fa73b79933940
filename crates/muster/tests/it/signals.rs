//! Signals end to end: what others say becomes facts and compliance, and compliance leaves as events and as tokens that a
//! program of somebody else's checks.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::hmac;
use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{
    PATIENCE,
    api::{Answer, Api, answer},
    database::each_database,
    device::{Applicant, Obedient, logged},
    eventually,
    jwt::TokenKey,
    machine::Machine,
    objects::python,
    server::{AdminFile, Options, Server, assert_healthy, create_tenant, everything, muster, program},
    unix_seconds,
};

const ISSUER: &str = "https://edr.example.com/";
const CAEP: &str = "https://schemas.openid.net/secevent/caep/event-type";

/// A policy whose rule asks what a source says.
async fn activate(api: &Api, expression: &str) {
    api.post("/policies", &json!({"name": "base"})).await.expect(201);
    let version = json!({
        "version": "1",
        "settings": {"camera.allowed": false},
        "rules": [{"name": "clean", "severity": "high", "expression": expression}],
    });
    api.post("/policies/base/versions", &version).await.expect(201);
    api.post("/policies/base/activate", &json!({"version": "1"}))
        .await
        .expect(202);
}

async fn stands(api: &Api, device: &mut Obedient, wanted: &str) {
    let path = format!("/devices/{}/compliance", device.device.id());
    eventually(&format!("the device is {wanted}"), PATIENCE, async || {
        device.obey().await;
        (api.get(&path).await.ok()["compliance"] == wanted).then_some(())
    })
    .await;
}

/// Makes a source; answers its address.
async fn source(api: &Api, name: &str, body: &Value) -> String {
    let made = api.put(&format!("/signal-sources/{name}"), body).await.ok();
    made["address"].as_str().expect("an address").to_owned()
}

async fn secret(api: &Api, name: &str, body: &Value) -> String {
    let made = api
        .post(&format!("/signal-sources/{name}/secret"), body)
        .await
        .ok();
    made["secret"].as_str().expect("a secret").to_owned()
}

async fn shown(api: &Api, name: &str) -> Value {
    api.get(&format!("/signal-sources/{name}")).await.ok()
}

/// Posts a message signed as Standard Webhooks say.
async fn hook(api: &Api, address: &str, secret: &str, id: &str, at: i64, body: &Value) -> Answer {
    let (key, body) = (secret.strip_prefix("whsec_").expect("a prefix"), body.to_string());
    let key = hmac::Key::new(hmac::HMAC_SHA256, &STANDARD.decode(key).expect("base64"));
    let tag = hmac::sign(&key, format!("{id}.{at}.{body}").as_bytes());
    let request = api
        .http
        .post(address)
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", at.to_string())
        .header(
            "webhook-signature",
            format!("v1,{}", STANDARD.encode(tag.as_ref())),
        );
    answer(request.body(body)).await
}

async fn push(api: &Api, address: &str, token: &str) -> Answer {
    let request = api
        .http
        .post(address)
        .header("content-type", "application/secevent+jwt");
    answer(request.body(token.to_owned())).await
}

/// A security event token about a device, with one event.
fn token(key: &TokenKey, audience: &str, jti: &str, subject: &Value, event: &str, payload: &Value) -> String {
    let header = json!({"alg": "ES256", "typ": "secevent+jwt", "kid": key.id()});
    let claims = json!({
        "iss": ISSUER, "aud": audience, "iat": unix_seconds(), "jti": jti, "sub_id": subject,
        "events": {format!("{CAEP}/{event}"): payload},
    });
    key.sign(&header, &claims)
}

fn key_set(keys: &[&TokenKey]) -> Value {
    let jwk = |key: &&TokenKey| {
        let mut jwk = key.public_jwk();
        jwk["kid"] = key.id().into();
        jwk
    };
    json!({"keys": keys.iter().map(jwk).collect::<Vec<_>>()})
}

async fn verdicts_of_a_webhook(options: Options) {
    let server = Server::start(options).await;
    let api = server.api().await;
    activate(
        &api,
        r#"!has(signal.edr.verdict) || signal.edr.verdict == "pass""#,
    )
    .await;
    let mut device = Obedient::enroll(&api, &server.admin).await;
    let serial = device.device.applicant.hardware["serial"].clone();
    stands(&api, &mut device, "compliant").await;
    let body = json!({
        "from": {"kind": "webhook", "authentication": "hmac", "fields": {"device": "/host/serial"}, "verdicts": {"infected": "fail"}},
    });
    let address = source(&api, "edr", &body).await;
    let group = json!({"name": "infected", "include": r#"signal.edr.verdict == "fail""#});
    api.post("/groups", &group).await.expect(201);
    let message = json!({"host": {"serial": serial}, "verdict": "infected", "detail": "Emotet"});
    let now = unix_seconds();

    // Without a secret nobody is believed.
    let foreign = format!("whsec_{}", STANDARD.encode([1; 32]));
    let refused = hook(&api, &address, &foreign, "m0", now, &message).await;
    assert_eq!(
        (refused.status, &refused.json()["err"]),
        (400, &json!("authentication_failed"))
    );
    let first = secret(&api, "edr", &json!({})).await;
    for (key, at, body) in [
        (&foreign, now, &message),
        (&first, now - 400, &message),
        (&first, now, &json!({"verdict": "infected"})),
        (
            &first,
            now,
            &json!({"host": {"serial": serial}, "verdict": "unwell"}),
        ),
    ] {
        assert_eq!(hook(&api, &address, key, "m0", at, body).await.status, 400);
    }
    assert_eq!(
        hook(&api, &address, &first, "m1", now, &message).await.status,
        202
    );
    stands(&api, &mut device, "noncompliant").await;
    let said = api
        .get(&format!("/devices/{}/signals", device.device.id()))
        .await
        .ok();
    assert_eq!(
        (
            &said["items"][0]["source"],
            &said["items"][0]["field"],
            &said["items"][0]["value"]
        ),
        (&json!("edr"), &json!("verdict"), &json!("fail")),
        "{said}"
    );
    eventually("the group has the device", PATIENCE, async || {
        let members = api.list("/groups/infected/members").await;
        (members.len() == 1).then_some(())
    })
    .await;

    // The same message again, and one about nobody.
    assert_eq!(
        hook(&api, &address, &first, "m1", now, &message).await.status,
        202
    );
    let stranger = json!({"host": {"serial": "NOBODY"}, "verdict": "pass"});
    assert_eq!(
        hook(&api, &address, &first, "m2", now, &stranger).await.status,
        202
    );
    let source = shown(&api, "edr").await;
    assert_eq!(
        ["received", "taken", "repeated", "unmatched", "refused", "devices"]
            .map(|name| source[name].as_u64()),
        [8, 1, 1, 1, 5, 1].map(Some),
        "{source}"
    );
    assert!(
        source["error"]
            .as_str()
            .is_some_and(|error| error.contains("neither pass nor fail")),
        "{source}"
    );
    let unmatched = api.get("/signal-sources/edr/unmatched").await.ok();
    assert_eq!(unmatched["items"][0]["subject"], "NOBODY", "{unmatched}");

    // A new secret: both are good for a while, or the old one ends at once.
    let second = secret(&api, "edr", &json!({})).await;
    let clean = json!({"host": {"serial": serial}, "verdict": "pass"});
    assert_eq!(hook(&api, &address, &first, "m3", now, &clean).await.status, 202);
    stands(&api, &mut device, "compliant").await;
    let third = secret(&api, "edr", &json!({"overlap_seconds": 0})).await;
    assert_eq!(
        hook(&api, &address, &second, "m4", now, &message).await.status,
        400
    );
    assert_eq!(
        hook(&api, &address, &third, "m4", now, &message).await.status,
        202
    );
    stands(&api, &mut device, "noncompliant").await;

    // What a source said that is gone counts no more.
    api.delete("/signal-sources/edr").await.expect(204);
    assert_eq!(
        hook(&api, &address, &third, "m5", now, &message).await.status,
        404
    );
    stands(&api, &mut device, "compliant").await;
    eventually("nobody is in the group", PATIENCE, async || {
        api.list("/groups/infected/members")
            .await
            .is_empty()
            .then_some(())
    })
    .await;
    logged(&api, "signal_source.removed", 1).await;
    let text = api.get("/log/entries?limit=500").await.text();
    assert!(!text.contains(&first) && !server.log().contains(&first));
    assert_healthy(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_of_a_webhook_become_facts_and_compliance_follows_within_seconds() {
    each_database(verdicts_of_a_webhook).await;
}

/// Serves what a test puts there, and keeps what is posted.
#[derive(Clone, Default)]
struct Peer {
    keys: Arc<Mutex<Value>>,
    posted: Arc<Mutex<Vec<(String, String)>>>,
    /// How many posts are answered 503 before any is taken.
    busy: Arc<Mutex<u32>>,
}

impl Peer {
    async fn start() -> (Peer, String) {
        let peer = Peer::default();
        let router = Router::new()
            .route(
                "/jwks",
                get(
                    |State(peer): State<Peer>| async move { Json(peer.keys.lock().expect("a lock").clone()) },
                ),
            )
            .route("/events", post(take))
            .with_state(peer.clone());
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let origin = format!("http://{}", tcp.local_addr().expect("it is bound"));
        tokio::spawn(async move { axum::serve(tcp, router).await });
        (peer, origin)
    }

    fn posted(&self) -> Vec<(String, String)> {
        self.posted.lock().expect("a lock").clone()
    }
}

async fn take(State(peer): State<Peer>, headers: HeaderMap, body: String) -> StatusCode {
    let mut busy = peer.busy.lock().expect("a lock");
    if *busy > 0 {
        *busy -= 1;
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
    let media_type = headers.get("content-type").and_then(|value| value.to_str().ok());
    assert_eq!(media_type, Some("application/secevent+jwt"));
    peer.posted
        .lock()
        .expect("a lock")
        .push((authorization.unwrap_or_default().to_owned(), body));
    StatusCode::ACCEPTED
}

async fn tokens_of_an_issuer(options: Options) {
    let mut server = Server::start(options.with("--egress-allow", "127.0.0.0/8")).await;
    let api = server.api().await;
    let (peer, origin) = Peer::start().await;
    let (old, new, foreign) = (TokenKey::foreign(), TokenKey::foreign(), TokenKey::foreign());
    *peer.keys.lock().expect("a lock") = key_set(&[&old]);
    let device = {
        let applicant = Applicant::new();
        let body = json!({"device_uuid": applicant.device_uuid, "owner": "Ada@Example.com"});
        let made = api.post("/enrollment-tokens", &body).await.expect(201);
        let door = crate::support::device::Door::of(&server.admin);
        let enrolled = applicant
            .try_enroll(&door, made["token"].as_str().expect("a token"))
            .await;
        enrolled.expect(201);
        applicant.with_identity(&server.admin, &enrolled)
    };
    let body = json!({"from": {"kind": "ssf", "issuer": ISSUER, "jwks_url": format!("{origin}/jwks")}});
    let address = source(&api, "idp", &body).await;
    let by_uuid = json!({"format": "complex", "device": {"format": "uri", "uri": format!("urn:uuid:{}", device.applicant.device_uuid)}});
    let risk = |level: &str| json!({"principal": "DEVICE", "current_level": level, "risk_reason": "malware"});
    let said = async |field: &str| {
        let said = api.get(&format!("/devices/{}/signals", device.id())).await.ok();
        let items = said["items"].as_array().expect("a list").clone();
        let found = items.into_iter().find(|item| item["field"] == field);
        found.map(|item| item["value"].as_str().expect("a text").to_owned())
    };
    let event = |key: &TokenKey, jti: &str, level: &str| {
        token(key, &address, jti, &by_uuid, "risk-level-change", &risk(level))
    };
    assert_eq!(push(&api, &address, &event(&old, "j1", "HIGH")).await.status, 202);
    assert_eq!(said("risk").await.as_deref(), Some("high"));
    assert_eq!(said("detail").await.as_deref(), Some("malware"));

    // Replayed: answered as before, and counted once.
    let replayed = event(&old, "j1", "LOW");
    assert_eq!(push(&api, &address, &replayed).await.status, 202);
    assert_eq!(said("risk").await.as_deref(), Some("high"));
    let source_now = shown(&api, "idp").await;
    assert_eq!(
        (&source_now["taken"], &source_now["repeated"]),
        (&json!(1), &json!(1))
    );

    // Whoever is not the issuer, or speaks to somebody else, is refused with the code of the standard.
    for (wrong, code) in [
        (event(&foreign, "j2", "LOW"), "invalid_key"),
        (
            token(
                &old,
                "https://elsewhere",
                "j2",
                &by_uuid,
                "risk-level-change",
                &risk("LOW"),
            ),
            "invalid_audience",
        ),
        (
            token(
                &old,
                &address,
                "j2",
                &by_uuid,
                "risk-level-change",
                &json!({"principal": "DEVICE"}),
            ),
            "invalid_request",
        ),
        ("nonsense".to_owned(), "invalid_request"),
    ] {
        let refused = push(&api, &address, &wrong).await;
        assert_eq!(
            (refused.status, &refused.json()["err"]),
            (400, &json!(code)),
            "{wrong}"
        );
    }
    let plain = answer(api.http.post(&address).json(&json!({}))).await;
    assert_eq!(
        (plain.status, &plain.json()["err"]),
        (400, &json!("invalid_request"))
    );
    let long = push(&api, &address, &"a".repeat(70_000)).await;
    assert_eq!(long.status, 400);

    // What is said of a person is said of the person's devices.
    let person = json!({"format": "email", "email": "ada@example.com"});
    for (jti, event, payload) in [
        ("j3", "session-revoked", json!({})),
        (
            "j4",
            "credential-change",
            json!({"credential_type": "password", "change_type": "update"}),
        ),
        (
            "j5",
            "assurance-level-change",
            json!({"namespace": "NIST-AAL", "current_level": "nist-aal1"}),
        ),
        (
            "j6",
            "risk-level-change",
            json!({"principal": "USER", "current_level": "MEDIUM"}),
        ),
    ] {
        let pushed = push(
            &api,
            &address,
            &token(&old, &address, jti, &person, event, &payload),
        )
        .await;
        assert_eq!(pushed.status, 202, "{event}");
    }
    assert_eq!(said("assurance").await.as_deref(), Some("nist-aal1"));
    assert_eq!(said("user_risk").await.as_deref(), Some("medium"));
    assert!(said("session_revoked_at").await.is_some() && said("credential_changed_at").await.is_some());
    assert_eq!(
        said("risk").await.as_deref(),
        Some("high"),
        "the device's own is another"
    );
    // A verification event is an arrival like any other.
    let header = json!({"alg": "ES256", "typ": "secevent+jwt", "kid": old.id()});
    let verification = json!({
        "iss": ISSUER, "aud": address, "iat": unix_seconds(), "jti": "j7", "sub_id": {"format": "opaque", "id": "stream"},
        "events": {"https://schemas.openid.net/secevent/ssf/event-type/verification": {"state": "x"}},
    });
    assert_eq!(
        push(&api, &address, &old.sign(&header, &verification))
            .await
            .status,
        202
    );
    let arrivals = api.list("/signal-arrivals").await;
    assert_eq!(
        (&arrivals[0]["event"], &arrivals[0]["outcome"]),
        (&json!("verification"), &json!("ignored"))
    );

    // Keys of metadata services and of this machine's network are not fetched, and nothing but the refusal is said.
    let inside =
        json!({"from": {"kind": "ssf", "issuer": ISSUER, "jwks_url": "http://169.254.169.254/jwks"}});
    let elsewhere = source(&api, "inside", &inside).await;
    let refused = push(
        &api,
        &elsewhere,
        &token(&old, &elsewhere, "j8", &by_uuid, "session-revoked", &json!({})),
    )
    .await;
    assert_eq!(refused.status, 429);
    let why = shown(&api, "inside").await["error"]
        .as_str()
        .expect("a reason")
        .to_owned();
    assert!(
        why.contains("cannot be fetched") && !why.contains("169.254"),
        "{why}"
    );

    // Another tenant's source says nothing about this one's device, whatever it names.
    server.stop().await;
    let file = create_tenant(&server, "other").await;
    server.restart().await;
    let made = AdminFile::read(&file);
    let other = Api::sign_in(&AdminFile {
        tenant: made.tenant,
        client_id: made.client_id,
        client_secret: made.client_secret,
        ..server.admin.clone()
    })
    .await;
    let pinned = json!({"from": {"kind": "ssf", "issuer": ISSUER, "jwks": key_set(&[&new]).to_string()}});
    let theirs = source(&other, "idp", &pinned).await;
    let named = json!({"format": "complex", "device": {"format": "opaque", "id": device.id()}});
    let pushed = push(
        &other,
        &theirs,
        &token(&new, &theirs, "j9", &named, "session-revoked", &json!({})),
    )
    .await;
    assert_eq!(pushed.status, 202);
    assert_eq!(shown(&other, "idp").await["unmatched"], 1);
    assert_eq!(other.get("/signal-sources/inside").await.status, 404);
    assert_healthy(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_an_issuer_are_believed_by_its_keys_alone() {
    each_database(tokens_of_an_issuer).await;
}

/// What a program of somebody else's makes of a token: header and claims, checked with the key set.
async fn judged(jwks: &str, token: &str, typ: &str) -> Option<Value> {
    const JUDGE: &str = r#"
import json, sys
from joserfc import jwt
from joserfc.jwk import KeySet
keys = KeySet.import_key_set(json.loads(sys.argv[1]))
token = jwt.decode(sys.argv[2], keys, algorithms=["ES256"])
assert token.header["typ"] == sys.argv[3], token.header
print(json.dumps(token.claims))
"#;
    let python = python()?;
    let mut command = program(&python);
    let output = command.args(["-c", JUDGE, jwks, token, typ]).output().await;
    let output = output.expect("python starts");
    assert!(output.status.success(), "{}", everything(&output));
    Some(serde_json::from_slice(&output.stdout).expect("claims are JSON"))
}

async fn compliance_leaves(options: Options) {
    let server = Server::start(options.with("--egress-allow", "127.0.0.0/8")).await;
    let api = server.api().await;
    let (peer, origin) = Peer::start().await;
    activate(
        &api,
        r#"!has(signal.edr.verdict) || signal.edr.verdict == "pass""#,
    )
    .await;
    let mut device = Obedient::enroll(&api, &server.admin).await;
    stands(&api, &mut device, "compliant").await;
    let sink = json!({
        "place": {"kind": "ssf", "url": format!("{origin}/events"), "audience": "https://idp.example.com"},
        "streams": ["log"], "format": "set", "secret": "a-bearer-token-of-the-receiver",
    });
    api.put("/sinks/idp", &sink).await.ok();
    let tested = api.post("/sinks/idp/test", &json!({})).await.ok();
    assert_eq!(tested["ok"], true, "{tested}");
    *peer.busy.lock().expect("a lock") = 2;
    let body = json!({"from": {"kind": "webhook", "authentication": "bearer"}});
    let address = source(&api, "edr", &body).await;
    let bearer = secret(&api, "edr", &json!({})).await;
    let id = device.device.id();
    let say = async |verdict: &str| {
        let message = json!({"device": id, "verdict": verdict});
        answer(api.http.post(&address).bearer_auth(&bearer).json(&message))
            .await
            .expect(202);
    };
    say("fail").await;
    stands(&api, &mut device, "noncompliant").await;
    say("pass").await;
    stands(&api, &mut device, "compliant").await;
    // Whoever is retired is told of too: nothing else would ever come of that device.
    let retired = json!({"reason": "sold"});
    api.post(&format!("/devices/{id}/retire"), &retired).await.ok();
    let posted = eventually("every change arrived", Duration::from_secs(120), async || {
        let posted = peer.posted();
        (posted.len() >= 4).then_some(posted)
    })
    .await;
    assert!(
        posted
            .iter()
            .all(|(authorization, _)| authorization == "Bearer a-bearer-token-of-the-receiver")
    );
    let listed = api.get("/signal-sources").await.ok();
    let issuer = listed["issuer"].as_str().expect("an issuer");
    let url = listed["jwks_url"].as_str().expect("an address");
    let jwks = answer(api.http.get(url)).await.text();
    let tenant = &server.admin.tenant;
    let metadata = format!("{}/.well-known/ssf-configuration/signals/{tenant}", api.origin);
    let metadata = answer(api.http.get(metadata)).await.ok();
    assert_eq!(
        (&metadata["issuer"], &metadata["jwks_uri"]),
        (&json!(issuer), &json!(url)),
        "{metadata}"
    );
    let mut statuses = Vec::new();
    for (_, token) in &posted {
        let Some(claims) = judged(&jwks, token, "secevent+jwt").await else {
            return;
        };
        assert_eq!(
            (&claims["iss"], &claims["aud"]),
            (&json!(issuer), &json!("https://idp.example.com"))
        );
        assert!(
            claims.get("exp").is_none() && claims["jti"].is_string(),
            "{claims}"
        );
        if let Some(event) = claims["events"].get(format!("{CAEP}/device-compliance-change")) {
            let ids = claims["sub_id"]["device"]["identifiers"].to_string();
            assert!(ids.contains(&id), "{claims}");
            statuses.push((event["previous_status"].clone(), event["current_status"].clone()));
        }
    }
    let change = |from: &str, to: &str| (json!(from), json!(to));
    assert_eq!(
        statuses,
        [
            change("compliant", "not-compliant"),
            change("not-compliant", "compliant"),
            change("compliant", "not-compliant"),
        ]
    );
    assert_healthy(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_compliance_are_told_in_order_and_checked_by_another_program() {
    each_database(compliance_leaves).await;
}

async fn compliance_token(options: Options) {
    let server = Server::start(options.with("--compliance-token-seconds", 120)).await;
    let api = server.api().await;
    let mut machine = Machine::running(&api, &server.admin).await;
    let (token, folder) = (
        machine.compliance_token("vpn.example.com").await,
        machine.export().await,
    );
    let listed = api.get("/signal-sources").await.ok();
    let jwks = answer(api.http.get(listed["jwks_url"].as_str().expect("an address")))
        .await
        .text();
    let claims = judged(&jwks, &token, "compliance+jwt").await;
    let Some(claims) = claims else { return };
    assert_eq!(
        (&claims["aud"], &claims["sub"]),
        (&json!("vpn.example.com"), &json!(machine.device))
    );
    assert_eq!(
        (&claims["tid"], &claims["compliant"]),
        (&json!(server.admin.tenant), &json!(true)),
        "{claims}"
    );
    let reported = claims["reported_at"].as_i64().expect("the device has reported");
    let age = claims["iat"].as_i64().expect("a time") - reported;
    assert!((0..600).contains(&age), "{claims}");
    let lifetime = claims["exp"].as_i64().expect("a time") - claims["iat"].as_i64().expect("a time");
    assert_eq!(lifetime, 120);

    let file = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("it is written");
        path
    };
    let (token_file, keys_file) = (file("token.jwt", &token), file("jwks.json", &jwks));
    let verify = async |certificate: &std::path::Path, audience: &str| {
        let mut command = muster();
        command
            .args([
                "compliance",
                "verify-token",
                "--audience",
                audience,
                "--reported-within",
                "600",
            ])
            .arg(&token_file)
            .arg("--jwks")
            .arg(&keys_file)
            .arg("--certificate")
            .arg(certificate);
        let output = command.output().await.expect("the program muster starts");
        (output.status.success(), everything(&output))
    };
    let own = folder.join("device.pem");
    let (holds, said) = verify(&own, "vpn.example.com").await;
    assert!(holds && said.contains(&machine.device), "{said}");
    let (holds, said) = verify(&own, "proxy").await;
    assert!(!holds && said.contains("another audience"), "{said}");
    let (holds, said) = verify(&folder.join("ca.pem"), "vpn.example.com").await;
    assert!(!holds && said.contains("another certificate"), "{said}");

    // It says what is found at this moment.
    activate(&api, r#"os.id == "no-such-system""#).await;
    eventually("the token says no", PATIENCE, async || {
        let token = machine.compliance_token("vpn.example.com").await;
        let claims = judged(&jwks, &token, "compliance+jwt")
            .await
            .expect("python is there");
        (claims["state"] == "noncompliant" && claims["compliant"] == false).then_some(())
    })
    .await;
    let retired = json!({"reason": "gone"});
    api.post(&format!("/devices/{}/retire", machine.device), &retired)
        .await;
    machine.refused_compliance_token("vpn.example.com").await;
    machine.stop().await;
    assert_healthy(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compliance_token_is_checked_offline_by_another_program_and_by_ours() {
    each_database(compliance_token).await;
}
