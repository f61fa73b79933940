//! Whose word people are who they are: the accounts that make sign-in links, and the connections of identity providers.

use std::collections::BTreeSet;

use axum::http::{Method, StatusCode};
use muster_control::access::{self, scope};
use muster_model::{ClientId, Timestamp};
use muster_storage::{Scope, Statement};
use muster_trust::{
    entry::{Actor, ActorKind},
    key::SigningKey,
};
use serde_json::{Value, json};

use super::{oidc::Stage, security::forms};
use crate::testing::{Answer, Scene};

const LINKS: &str = "/api/v1/console-links";
const LINKER: &str = "client:write";

async fn account(scene: &Scene, name: &str, scopes: &[&str]) -> ClientId {
    let body = json!({"name": name, "scopes": scopes}).to_string();
    let made = scene.call(Method::POST, "/api/v1/clients", &body).await;
    let id = made["client_id"].as_str().expect("it has an id");
    id.parse().expect("it is a client's")
}

/// An account asks for a link.
async fn ask(scene: &Scene, by: (ClientId, &str), link: Value) -> Answer {
    scene
        .ask_as(by.0, by.1, Method::POST, LINKS, &link.to_string())
        .await
}

/// The secret of a link that an account makes.
async fn link(scene: &Scene, by: (ClientId, &str), link: Value) -> String {
    let made = ask(scene, by, link).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    let url = made.json()["url"].as_str().expect("it is text").to_owned();
    url.rsplit_once('#')
        .expect("the secret is behind the #")
        .1
        .to_owned()
}

async fn used(scene: &Scene, secret: &str) -> Answer {
    let form = format!("secret={secret}&next=%2F");
    scene.send(Method::POST, "/signin", &[], &form).await
}

async fn signed_in(scene: &Scene, secret: &str) -> String {
    let cookie = used(scene, secret).await.cookie(access::SESSION_COOKIE);
    format!("{}={}", access::SESSION_COOKIE, cookie.expect("a session begins"))
}

async fn stands(scene: &Scene, cookie: &str) -> bool {
    let page = scene
        .send(Method::GET, "/access/me", &[("cookie", cookie)], "")
        .await;
    page.status == StatusCode::OK
}

#[tokio::test]
async fn a15_a_name_belongs_to_the_account_that_made_its_first_link() {
    let scene = Scene::new().await;
    let weak = (account(&scene, "weak", &[LINKER]).await, LINKER);
    let every = scope::every();
    let strong = (scene.client, every.as_str());
    // Mara's session is the owner's: three links for her would end it, and one would prove who she is in it.
    for _ in 0..3 {
        let refused = ask(&scene, weak, json!({"person": "mara"})).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    }
    assert!(stands(&scene, &scene.cookie).await);
    // A token that holds less than its account is no stronger than what it holds.
    let narrow = (strong.0, LINKER);
    let refused = ask(&scene, narrow, json!({"person": "mara", "roles": []})).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    // Who holds as much makes one, and ends nothing: the name stays where it is.
    link(&scene, strong, json!({"person": "mara"})).await;
    assert!(stands(&scene, &scene.cookie).await);
    // Names of its own it has as before.
    let first = link(&scene, weak, json!({"person": "wanda"})).await;
    let open = link(&scene, weak, json!({"person": "wanda"})).await;
    let wanda = signed_in(&scene, &first).await;
    assert!(stands(&scene, &wanda).await);
    // Who holds more takes the name, and what the other one let in is over.
    link(&scene, strong, json!({"person": "wanda"})).await;
    assert!(!stands(&scene, &wanda).await);
    assert_eq!(used(&scene, &open).await.status, StatusCode::UNAUTHORIZED);
    let refused = ask(&scene, weak, json!({"person": "wanda"})).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    scene.settle().await;
    let log = scene
        .call(Method::GET, "/api/v1/log/entries?action=signin.link_created", "")
        .await;
    assert!(log.to_string().contains("vouched_before"), "{log}");
}

#[tokio::test]
async fn the_name_of_an_account_that_is_gone_goes_to_who_gives_roles() {
    let scene = Scene::new().await;
    let gone = (account(&scene, "gone", &[LINKER]).await, LINKER);
    link(&scene, gone, json!({"person": "gina"})).await;
    let path = format!("/api/v1/clients/{}", gone.0);
    scene.call(Method::DELETE, &path, "").await;
    let weak = (account(&scene, "weak", &[LINKER]).await, LINKER);
    let refused = ask(&scene, weak, json!({"person": "gina"})).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    let giver = account(&scene, "giver", &[LINKER, "access:write"]).await;
    link(
        &scene,
        (giver, "client:write access:write"),
        json!({"person": "gina"}),
    )
    .await;
}

#[tokio::test]
async fn a15_a_link_that_gives_less_than_the_session_proves_nothing_in_it() {
    let mut scene = Scene::new().await;
    let every = scope::every();
    let strong = (scene.client, every.as_str());
    let alice = link(&scene, strong, json!({"person": "alice"})).await;
    scene.cookie = signed_in(&scene, &alice).await;
    let narrow = (strong.0, "client:write device:read");
    let viewer = json!({"description": "", "scopes": ["device:read"]}).to_string();
    scene
        .call(Method::PUT, "/api/v1/access/roles/viewer", &viewer)
        .await;
    let less = link(&scene, narrow, json!({"person": "alice", "roles": ["viewer"]})).await;
    let refused = scene.post("/step-up", &[("secret", &less)]).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.body);
    let as_much = link(&scene, strong, json!({"person": "alice"})).await;
    let proven = scene.post("/step-up", &[("secret", &as_much)]).await;
    assert_eq!(proven.location(), "/?notice=proven", "{}", proven.body);
}

#[tokio::test]
async fn a15_a_passkey_that_was_made_under_another_account_proves_nothing() {
    let scene = Scene::new().await;
    let weak = (account(&scene, "weak", &[LINKER]).await, LINKER);
    link(&scene, weak, json!({"person": "wanda"})).await;
    let tenant = scene.tenant;
    let key = SigningKey::generate_p256().expect("a key can be made");
    let (spki, id) = (key.public().spki_der(), key.public().key_id());
    let at = scene.app.clock.now().as_micros();
    let statement = Statement {
        name: "TEST_PASSKEY",
        sql: "INSERT INTO access_passkey (tenant_id, key_id, credential_id, public_key, actor, name, relying_party, origin, \
            created_at) VALUES ($1, $2, $2, $3, 'wanda', 'x', 'localhost', 'https://localhost', $4)",
    };
    let made = scene.app.db.write(Scope::Tenant(tenant.uuid()), move |tx| {
        let id = id.0.as_bytes().as_slice();
        tx.execute(&statement, &[&tenant.uuid(), &id, &spki.as_slice(), &at])
    });
    assert_eq!(made.await.expect("it is written"), 1);
    let proving = async || {
        let read = scene.app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
            access::proving_passkeys_of(tx, tenant, "wanda")
        });
        read.await.expect("they can be read").len()
    };
    assert_eq!(proving().await, 1);
    scene.pass_seconds(1);
    let every = scope::every();
    link(&scene, (scene.client, &every), json!({"person": "wanda"})).await;
    assert_eq!(proving().await, 0);
}

#[tokio::test]
async fn whoever_lets_a_person_of_links_in_again_holds_what_their_account_holds() {
    let scene = Scene::new().await;
    let person = json!({"person": "noor"}).to_string();
    let open = scene.link("noor").await;
    let path = |what: &str| format!("/api/v1/access/people/{what}");
    scene.call(Method::POST, &path("disable"), &person).await;
    let refused = scene
        .ask("access:write", Method::POST, &path("enable"), &person)
        .await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    scene.call(Method::POST, &path("enable"), &person).await;
    // What was open when they were disabled is no way in any more.
    assert_eq!(used(&scene, &open).await.status, StatusCode::UNAUTHORIZED);
    assert_ne!(scene.sign_in("noor").await, "");
}

#[tokio::test]
async fn whoever_takes_a_scim_token_away_could_have_made_it() {
    let stage = Stage::new().await;
    let scene = &stage.scene;
    let token = async || {
        let body = json!({"connector": "entra"}).to_string();
        let made = scene.call(Method::POST, "/api/v1/scim-tokens", &body).await;
        format!(
            "/api/v1/scim-tokens/{}",
            made["id"].as_str().expect("it has an id")
        )
    };
    let both = "client:write scim:write";
    let path = token().await;
    let refused = scene.ask(LINKER, Method::DELETE, &path, "").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    let done = scene.ask(both, Method::DELETE, &path, "").await;
    assert_eq!(done.status, StatusCode::NO_CONTENT, "{}", done.body);
    // Groups of the connector give roles from here on.
    let path = token().await;
    let body = json!({"definition": {"issuer": stage.idp.issuer, "client_id": "muster",
        "directory": {"connector": "entra", "by": "subject"}}});
    scene
        .call(Method::PUT, "/api/v1/access/connections/corp", &body.to_string())
        .await;
    let refused = scene.ask(both, Method::DELETE, &path, "").await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
    scene.call(Method::DELETE, &path, "").await;
}

/// Since when the only person of the connection counts as who they are.
async fn since(scene: &Scene) -> Timestamp {
    let tenant = scene.tenant;
    let listed = scene.call(Method::GET, "/api/v1/access/people", "").await;
    let people = listed["items"].as_array().expect("a list");
    let known = people.iter().find(|person| person["comes_by"] != "link");
    let actor = Actor {
        kind: ActorKind::User,
        id: known.expect("somebody came")["person"]
            .as_str()
            .expect("a name")
            .to_owned(),
    };
    let read = scene.app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
        access::account_since(tx, tenant, &actor)
    });
    read.await
        .expect("it can be read")
        .expect("the person is not of the first run")
}

#[tokio::test]
async fn m3_people_of_a_connection_are_new_again_when_it_believes_another_word() {
    const CONNECTION: &str = "/api/v1/access/connections/corp";
    const TRUST: &str = "/api/v1/trusts/corp-api";
    let mut stage = Stage::new().await;
    stage.grant("owner", "mdm-admins").await;
    stage.scene.pass_seconds(86_400);
    let program = stage.scene.cookie.clone();
    stage.scene.cookie = stage.scene.sign_in("mara").await;
    stage.sign_in().await;
    stage.scene.cookie = program;
    let scene = &stage.scene;
    let connection = |changes: Value, secret: &str| {
        let mut definition = json!({"issuer": stage.idp.issuer, "client_id": "muster"});
        super::oidc::merge(&mut definition, &changes);
        let mut body = json!({"definition": definition});
        if !secret.is_empty() {
            body["client_secret"] = secret.into();
        }
        (CONNECTION, body)
    };
    let trust = |audience: &str| {
        let people = json!({"connection": "corp", "audience": audience, "required_scope": "muster.use",
            "introspection_endpoint": "http://127.0.0.1:9/introspect", "introspection_client_id": "muster"});
        (
            TRUST,
            json!({"definition": {"people": people}, "introspection_secret": "s3cret"}),
        )
    };
    let none = || json!({});
    // What is put first, and whether people are new again by it.
    for ((path, body), is_anew, what) in [
        (connection(none(), ""), false, "the same"),
        (connection(none(), "another"), true, "another secret"),
        (connection(none(), "another"), false, "the same secret"),
        (connection(json!({"idle_seconds": 600}), ""), false, "a limit"),
        (
            connection(json!({"groups_claim": "roles"}), ""),
            true,
            "another claim",
        ),
        (
            connection(json!({"groups_claim": "roles"}), ""),
            false,
            "the same claim",
        ),
        (trust("api://muster"), true, "a trust"),
        (trust("api://muster"), false, "the same trust"),
        (trust("api://other"), true, "another audience"),
    ] {
        scene.pass_seconds(86_400);
        let before = since(scene).await;
        let put = scene.try_call(Method::PUT, path, &body.to_string()).await;
        assert!(put.status.is_success(), "{what}: {}", put.body);
        let expected = if is_anew { scene.app.clock.now() } else { before };
        assert_eq!(since(scene).await, expected, "{what}");
    }
}

#[tokio::test]
async fn a15_no_form_does_what_needs_a_fresh_proof_without_one() {
    let mut scene = Scene::new().await;
    let weak: Vec<&str> = scope::ALL
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !scope::NEEDS_PROOF.contains(name))
        .collect();
    let role = json!({"description": "", "scopes": weak}).to_string();
    scene.call(Method::PUT, "/api/v1/access/roles/weak", &role).await;
    scene.pass_seconds(600);
    scene.page("/access/me").await;
    scene.pass_seconds(301);
    let owner = scene.cookie.clone();
    let every = scope::every();
    let secret = link(
        &scene,
        (scene.client, &every),
        json!({"person": "weak", "roles": ["weak"]}),
    )
    .await;
    let weak = signed_in(&scene, &secret).await;
    let mut asked = BTreeSet::new();
    for path in forms().into_iter().filter(|path| path != "/signout") {
        scene.cookie = weak.clone();
        let refused = scene.post(&path, &[]).await;
        let is_named = |name: &&str| refused.body.contains(*name);
        if refused.status != StatusCode::FORBIDDEN || !scope::NEEDS_PROOF.iter().any(is_named) {
            continue;
        }
        scene.cookie = owner.clone();
        let stale = scene.post(&path, &[]).await;
        assert_eq!(stale.status, StatusCode::UNAUTHORIZED, "{path}: {}", stale.body);
        assert!(stale.body.contains("/step-up?next="), "{path}: {}", stale.body);
        asked.insert(path);
    }
    for path in [
        "/alerts/silences",
        "/sinks/nobody/pause",
        "/sinks/nobody/replay-dead",
        "/access/grant",
    ] {
        assert!(asked.contains(path), "{path}: {asked:?}");
    }
    assert!(asked.len() > 30, "{asked:?}");
    // A kind of command that needs one, in a form that is free for others.
    scene.cookie = owner;
    let device = scene.device("S-1").await.id;
    let form = format!("/devices/{device}/commands");
    let digest = "0".repeat(64);
    let script = [("type", "run-script"), ("sha256", digest.as_str())];
    let stale = scene.post(&form, &script).await;
    assert_eq!(stale.status, StatusCode::UNAUTHORIZED, "{}", stale.body);
    let locked = scene.post(&form, &[("type", "lock")]).await;
    assert_eq!(locked.status, StatusCode::SEE_OTHER, "{}", locked.body);
}

#[tokio::test]
async fn links_that_are_none_and_sign_in_pages_are_counted_by_address() {
    let scene = Scene::new().await;
    let limited = async |method: Method, path: &str, body: &str| {
        for _ in 0..2000 {
            let answer = scene.send(method.clone(), path, &[], body).await;
            if answer.status == StatusCode::TOO_MANY_REQUESTS {
                return true;
            }
        }
        false
    };
    let good = scene.link("ada").await;
    assert_eq!(used(&scene, &good).await.status, StatusCode::SEE_OTHER);
    assert!(limited(Method::POST, "/signin", "secret=none&next=%2F").await);
    assert!(limited(Method::GET, "/signin?company=x", "").await);
}
