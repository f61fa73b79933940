//! People whom an attribute leads to another tenant.

use muster_model::{ClientId, TenantId};

use super::*;

type Of = (TenantId, ClientId);

/// The first tenant with a connection whose attribute leads to `acme`, which takes its people and gives them a role.
async fn routed() -> (Stage, Of) {
    let mut stage = Stage::new().await;
    let (acme, _) = stage.scene.another_tenant("acme").await;
    stage.scene.cookie = String::new();
    let rules = json!({"rules": [{"value": "acme-staff", "tenant": acme.0}, {"value": "ours", "tenant": stage.scene.tenant}]});
    let path = format!("{PATH}/routing");
    stage.scene.call(Method::PUT, &path, &rules.to_string()).await;
    let offered = at(&stage, acme, Method::GET, "/routed-connections", &json!({})).await;
    let body = json!({"offer": offered["items"][0]["offer"], "assigned_people": false});
    let path = format!("/routed-connections/{}", stage.id);
    at(&stage, acme, Method::PUT, &path, &body).await;
    let grant = json!({"role": "helpdesk", "group": "acme-staff", "source": "routed:corp"});
    at(&stage, acme, Method::POST, "/grants", &grant).await;
    (stage, acme)
}

async fn at(stage: &Stage, of: Of, method: Method, path: &str, body: &Value) -> Value {
    let path = format!("/api/v1/access{path}");
    let answer = stage.scene.in_tenant(of, method, &path, &body.to_string()).await;
    assert!(answer.status.is_success(), "{path}: {}", answer.body);
    answer.json()
}

/// How many people are signed in by SAML.
async fn sessions(stage: &Stage, of: Of) -> usize {
    let found = at(stage, of, Method::GET, "/sessions", &json!({})).await;
    let items = found["items"].as_array().expect("it is a list");
    items.iter().filter(|one| one["method"] == "saml").count()
}

fn in_groups(groups: &[&str]) -> impl FnOnce(&mut Said) {
    let groups = groups.iter().map(|group| (*group).to_owned()).collect();
    move |said| said.attributes[2].1 = groups
}

#[tokio::test]
async fn t10_an_attribute_of_an_assertion_leads_to_one_tenant_or_nowhere() {
    let (mut stage, acme) = routed().await;
    let home = (stage.scene.tenant, stage.scene.client);
    for (groups, reason) in [
        (&["everybody"][..], "no_rule"),
        (&["ACME-staff"], "claim_spelling"),
        (&["acme-staff", "ours"], "several_tenants"),
        (&[], "claim_absent"),
    ] {
        let answer = stage.visit_as(in_groups(groups)).await;
        refused(reason, &answer);
        let held = at(&stage, home, Method::GET, "/held-sign-ins", &json!({})).await;
        assert!(held.to_string().contains(reason), "{groups:?}: {held}");
    }
    assert_eq!(
        (sessions(&stage, home).await, sessions(&stage, acme).await),
        (0, 0)
    );
    let answer = stage.visit_as(in_groups(&["acme-staff"])).await;
    assert_eq!(answer.location(), "/devices", "{}", answer.body);
    let value = answer.cookie(SESSION_COOKIE).expect("a session begins");
    stage.scene.cookie = format!("{SESSION_COOKIE}={value}");
    assert!(stage.is_in().await);
    assert_eq!(
        (sessions(&stage, home).await, sessions(&stage, acme).await),
        (0, 1)
    );
}

#[tokio::test]
async fn a13_a_logout_at_the_provider_ends_sessions_in_the_tenant_that_it_led_to() {
    let (mut stage, acme) = routed().await;
    let comes_in = async |stage: &mut Stage| {
        let answer = stage.visit_as(in_groups(&["acme-staff"])).await;
        let value = answer.cookie(SESSION_COOKIE).expect("a session begins");
        stage.scene.cookie = format!("{SESSION_COOKIE}={value}");
        assert!(stage.is_in().await);
    };
    comes_in(&mut stage).await;
    let slo = format!("/auth/saml/{}/slo", stage.id);
    for (id, name, session, is_over) in [
        ("_l0", "0002", None, false),
        ("_l1", "0001", Some("_other"), false),
        ("_l2", "0001", Some("_session"), true),
    ] {
        let message = logout::logout_request(&stage, id, name, session);
        let query = stage.idp.query("SAMLRequest", &message, None);
        let path = format!("{slo}?{query}");
        let answer = stage.scene.send(Method::GET, &path, &[FOREIGN], "").await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.body);
        assert_eq!(stage.is_in().await, !is_over, "{id}");
    }
    assert_eq!(sessions(&stage, acme).await, 0);
    stage.scene.settle().await;
    let log = stage
        .scene
        .in_tenant(acme, Method::GET, "/api/v1/log/entries?limit=200", "")
        .await;
    assert!(
        log.body.contains("logout at the identity provider"),
        "{}",
        log.body
    );
    // Whoever signs out here is offered to sign out there as well.
    comes_in(&mut stage).await;
    let answer = stage.scene.post("/signout", &[]).await;
    assert!(answer.location().starts_with("/signin"), "{}", answer.body);
    assert!(answer.cookie(FAREWELL_COOKIE).is_some(), "the way there is kept");
}
