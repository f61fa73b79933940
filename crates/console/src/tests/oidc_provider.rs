//! Signing in with a real identity provider in a real browser: npm's oidc-provider and Chromium.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use axum::http::Method;
use muster_integrations::Egress;
use muster_model::{ClientId, TenantId};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use super::{
    browser::{Stage, stage_of},
    chromium::program,
};
use crate::testing::Scene;

const SECRET: &str = "a secret with spaces & signs: +%/";
const FIND: &str = "test -n \"$MUSTER_TEST_NODE_TOOLS\" && echo \"$MUSTER_TEST_NODE_TOOLS\"; \
    test \"$CI\" = true -o \"$MUSTER_REQUIRE_PEERS\" = 1 && echo required >&2; true";

/// The folder of npm's programs. Without it the tests say so; where peers are required they fail.
fn tools() -> Option<String> {
    let output = program("sh")
        .args(["-c", FIND])
        .output()
        .expect("a shell can be started");
    let path = String::from_utf8_lossy(&output.stdout)
        .lines()
        .next()
        .map(str::to_owned);
    if path.is_none() {
        assert!(
            output.stderr.is_empty(),
            "oidc-provider is required here and is not installed"
        );
        println!("SKIPPED oidc-provider: it is not installed");
    }
    path
}

struct Provider {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    issuer: String,
}

impl Provider {
    fn start(tools: &str) -> Provider {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/oidc_provider.mjs");
        let mut process = program("node")
            .args([script, tools])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("node can be started");
        let orders = process.stdin.take().expect("it is piped");
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut provider = Provider {
            process,
            orders,
            answers,
            issuer: String::new(),
        };
        provider.issuer = provider.line()["issuer"]
            .as_str()
            .expect("it says where it is")
            .to_owned();
        provider
    }

    fn line(&mut self) -> Value {
        loop {
            let mut line = String::new();
            let read = self.answers.read_line(&mut line).expect("it can be read");
            assert!(read > 0, "the provider ended");
            if let Ok(value) = serde_json::from_str(&line) {
                return value;
            }
        }
    }

    fn order(&mut self, order: &Value) {
        writeln!(self.orders, "{order}").expect("it listens");
        assert_eq!(self.line()["ready"], order["kid"]);
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // It is our own child; one that has ended already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A stage whose tenant is connected with the provider.
async fn connected() -> Option<(Stage, Provider)> {
    let mut provider = Provider::start(&tools()?);
    let stage = stage_of(async |base: &str| Scene::at_now(base).await).await?;
    let networks = ["127.0.0.0/8", "::1"].map(|text| text.parse().expect("it is a network"));
    let egress = Egress::new(&networks, None).expect("a client can be made");
    assert!(
        stage.scene.app.web.set(Box::new(egress)).is_ok(),
        "it is set once"
    );
    let body = json!({
        "definition": {"issuer": provider.issuer, "client_id": "muster", "scopes": ["profile", "groups"]},
        "client_secret": SECRET,
    });
    let path = "/api/v1/access/connections/corp";
    let made = stage.scene.call(Method::PUT, path, &body.to_string()).await;
    let addresses = &made["addresses"];
    provider.order(&json!({"kid": "k1", "client": {
        "client_id": "muster", "client_secret": SECRET, "redirect_uris": [addresses["redirect_uri"]],
        "post_logout_redirect_uris": [addresses["post_logout_redirect_uri"]],
        "backchannel_logout_uri": addresses["backchannel_logout_uri"], "backchannel_logout_session_required": true,
        "require_auth_time": true,
    }}));
    for (role, group) in [("owner", "mdm-admins"), ("helpdesk", "it-support")] {
        let body = json!({"role": role, "group": group, "source": "corp"});
        stage
            .scene
            .call(Method::POST, "/api/v1/access/grants", &body.to_string())
            .await;
    }
    Some((stage, provider))
}

fn log_in_at_provider(stage: &mut Stage, who: &str) {
    stage.until("document.readyState === 'complete' && document.querySelector('[name=login]') !== null");
    stage.evaluate(&format!("document.querySelector('[name=login]').value = '{who}'"));
    stage.evaluate("document.querySelector('[name=password]').value = 'x'");
    stage.evaluate("document.querySelector('[type=submit]').click()");
    // The provider asks once what this server may see.
    stage.until(
        "document.readyState === 'complete' && (location.hostname === 'localhost' || \
         (document.querySelector('[name=login]') === null && document.querySelector('[type=submit]') !== null))",
    );
    if stage.evaluate("location.hostname") != "localhost" {
        stage.evaluate("document.querySelector('[type=submit]').click()");
    }
}

fn sign_in(stage: &mut Stage, who: &str) {
    stage.open("/signin?next=/devices");
    stage.evaluate("document.querySelector('a.primary').click()");
    log_in_at_provider(stage, who);
}

/// A page that needs a person leads to where people sign in.
fn is_signed_out(stage: &mut Stage) {
    let page = json!(format!("{}/devices", stage.base));
    stage.evaluate(&format!("location.href = {page}"));
    stage.until("location.pathname === '/signin' && document.readyState === 'complete'");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_signs_in_proves_it_again_and_signs_out_there() {
    let Some((mut stage, mut provider)) = connected().await else {
        return;
    };
    let test = stage
        .scene
        .call(Method::POST, "/api/v1/access/connections/corp/test", "")
        .await;
    let outcomes = test["items"].as_array().expect("it is a list");
    let failed: Vec<_> = outcomes
        .iter()
        .filter(|step| step["outcome"] != "ok" && step["step"] != "claims")
        .collect();
    assert!(failed.is_empty(), "{test}");
    sign_in(&mut stage, "ada");
    stage.until("location.pathname === '/devices' && document.readyState === 'complete'");
    let shown = stage
        .evaluate("document.querySelector('header').textContent")
        .to_string();
    assert!(
        shown.contains("Ada Lovelace") && shown.contains("Access"),
        "{shown}"
    );

    // Before what is destructive the provider asks again, though it knows her.
    stage.scene.pass_seconds(14 * 60);
    stage.open("/devices");
    stage.scene.pass_seconds(2 * 60);
    stage.open("/access/roles");
    stage.evaluate("document.querySelector('[name=name]').value = 'viewer'");
    stage.evaluate("document.querySelector('[name=scope]').checked = true");
    stage.evaluate("document.querySelector('form[action=\"/access/roles/put\"] button').click()");
    stage.until("document.body.textContent.includes('Prove who you are')");
    stage.evaluate("document.querySelector('a.primary').click()");
    stage.until("location.pathname === '/step-up' && document.readyState === 'complete'");
    stage.scene.catch_up();
    stage.evaluate("document.querySelector('a.primary').click()");
    log_in_at_provider(&mut stage, "ada");
    stage.until("location.pathname === '/access/roles' && location.search === '?notice=proven'");

    // New keys there are taken without anybody here, though not sooner than half a minute after the last look.
    stage.scene.pass_seconds(31);
    block_in_place(|| provider.order(&json!({"kid": "k2"})));
    stage.evaluate("document.querySelector('.person button').click()");
    stage.until("location.pathname === '/signin' && document.readyState === 'complete'");
    sign_in(&mut stage, "ben");
    stage.until("location.pathname === '/devices' && document.readyState === 'complete'");
    let shown = stage
        .evaluate("document.querySelector('header').textContent")
        .to_string();
    assert!(shown.contains("Ben") && !shown.contains("Access"), "{shown}");

    // The session there is ended in another window; the one here is over with the next click.
    let end = format!("{}/session/end", provider.issuer);
    block_in_place(|| stage.browser.open(&end));
    stage.until("document.querySelector('form[action$=\"/confirm\"]') !== null");
    stage.evaluate("document.querySelector('[name=logout], button').click()");
    stage.until("document.readyState === 'complete' && document.body.textContent.toLowerCase().includes('sign-out success')");
    is_signed_out(&mut stage);

    // Somebody without a role gets a page that says so, and no session.
    sign_in(&mut stage, "cleo");
    stage.until("document.body.textContent.includes('You have no role here')");
    is_signed_out(&mut stage);
}

/// Calls the API of a tenant; the answer is one of success.
async fn call_in(stage: &Stage, of: (TenantId, ClientId), method: Method, path: &str, body: &Value) -> Value {
    let answer = stage.scene.in_tenant(of, method, path, &body.to_string()).await;
    assert!(answer.status.is_success(), "{path}: {}", answer.body);
    answer.json()
}

/// Somebody begins at a page that offers the connection, and logs in there.
fn go_on(stage: &mut Stage, path: &str, who: &str) {
    stage.open(path);
    stage.evaluate("document.querySelector('a.primary').click()");
    log_in_at_provider(stage, who);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t10_the_groups_of_a_real_provider_lead_people_and_their_devices_to_a_tenant() {
    let Some((mut stage, mut provider)) = connected().await else {
        return;
    };
    let (acme, _) = stage.scene.another_tenant("acme").await;
    let (beta, _) = stage.scene.another_tenant("beta").await;
    let rules = json!({"rules": [
        {"value": "acme-staff", "tenant": acme.0}, {"value": "beta-staff", "tenant": beta.0},
    ]});
    let path = "/api/v1/access/connections/corp/routing";
    let routing = stage.scene.call(Method::PUT, path, &rules.to_string()).await;
    let id = routing["connection"].as_str().expect("it has an id").to_owned();
    for of in [acme, beta] {
        let path = "/api/v1/access/routed-connections";
        let offers = call_in(&stage, of, Method::GET, path, &json!({})).await;
        let body = json!({"offer": offers["items"][0]["offer"]});
        call_in(&stage, of, Method::PUT, &format!("{path}/{id}"), &body).await;
        let body = json!({"role": "helpdesk", "group": "acme-staff", "source": "routed:corp"});
        call_in(&stage, of, Method::POST, "/api/v1/access/grants", &body).await;
        let path = format!("/api/v1/access/self-enrollment/{id}");
        call_in(&stage, of, Method::PUT, &path, &json!({})).await;
    }
    go_on(&mut stage, "/signin?next=/devices&company=acme", "dora");
    stage.until("location.pathname === '/devices' && document.readyState === 'complete'");
    let path = "/api/v1/access/sessions";
    let of_acme = call_in(&stage, acme, Method::GET, path, &json!({}))
        .await
        .to_string();
    let of_beta = call_in(&stage, beta, Method::GET, path, &json!({}))
        .await
        .to_string();
    assert!(of_acme.contains("routed:corp/dora@example.com"), "{of_acme}");
    assert!(!of_beta.contains("dora"), "{of_beta}");

    // The provider knows her, and asks her all the same before her device gets a token; she is asked here as well.
    let device = "/enroll-my-device?device=9b2f0c3e-1111-4222-8333-444455556666&company=acme";
    go_on(&mut stage, device, "dora");
    stage.until(
        "document.readyState === 'complete' && document.body.textContent.includes('Is this your device?')",
    );
    stage.evaluate("document.querySelector('button.primary').click()");
    stage.until("document.body.textContent.includes('muster-agent enroll') && document.querySelector('svg.qr') !== null");

    // Somebody of both is of neither, and their device is nowhere.
    stage.scene.pass_seconds(31);
    block_in_place(|| provider.order(&json!({"kid": "k2"})));
    go_on(&mut stage, device, "emil");
    stage.until("document.body.textContent.includes('Your sign-in is held')");
    let held = stage
        .scene
        .call(Method::GET, "/api/v1/access/held-sign-ins", "")
        .await;
    assert_eq!(held["items"][0]["reason"], "several_tenants", "{held}");
    for of in [acme, beta] {
        let tokens = call_in(&stage, of, Method::GET, "/api/v1/enrollment-tokens", &json!({})).await;
        assert!(!tokens.to_string().contains("emil"), "{tokens}");
    }
}
