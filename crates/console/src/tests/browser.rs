//! The console in a real browser: sign-in, every page in both themes and at 400 pixels, keyboard, live progress.

use std::sync::{Arc, RwLock};

use axum::{Router, extract::Request, http::Method};
use serde_json::json;
use tokio::{net::TcpListener, task::block_in_place};
use tower::ServiceExt;

use super::chromium::{Browser, installed};
use crate::testing::{HOSTILE, Scene};
use muster_trust::key::SigningKey;

/// A person's name of a root document that looks like markup.
const HOSTILE_NAME: &str = "<script>alert(1)</script>{{7*7}}";

/// What every page must be; answers what it is not.
const AUDIT: &str = r"(() => {
    const bad = [];
    const name = (e) => (e.getAttribute('aria-label') ?? e.textContent ?? '').trim();
    for (const e of document.querySelectorAll('input:not([type=hidden]), select, textarea')) {
        if (!e.labels.length) bad.push('a field without a label: ' + e.name);
    }
    for (const e of document.querySelectorAll('a, button, summary')) if (!name(e)) bad.push('without a name: ' + e.tagName);
    for (const e of document.querySelectorAll('th')) if (!e.scope) bad.push('a header without a scope: ' + name(e));
    for (const e of document.querySelectorAll('[aria-labelledby], [aria-describedby]')) {
        for (const id of ((e.getAttribute('aria-labelledby') ?? '') + ' ' + (e.getAttribute('aria-describedby') ?? '')).split(' ')) {
            if (id && !document.getElementById(id)) bad.push('names an element that is not there: ' + id);
        }
    }
    const ids = [...document.querySelectorAll('[id]')].map((e) => e.id);
    for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) bad.push('twice the id ' + id);
    if (document.querySelectorAll('h1').length !== 1) bad.push('not one h1');
    if (document.documentElement.lang !== 'en') bad.push('no language');
    if (document.documentElement.scrollWidth > document.documentElement.clientWidth) bad.push('wider than the window: ' + document.documentElement.scrollWidth);
    return bad;
})()";

/// The scene behind a real socket, and a browser that looks at it.
pub struct Stage {
    pub scene: Scene,
    pub browser: Browser,
    pub base: String,
    /// What answers: the scene's router, which is another one after a new root document.
    answers: Arc<RwLock<Router>>,
}

pub async fn stage() -> Option<Stage> {
    stage_of(async |base: &str| Scene::at(base).await).await
}

/// A stage of a scene that is made for the address at which it is reached.
pub async fn stage_of(scene: impl AsyncFnOnce(&str) -> Scene) -> Option<Stage> {
    let path = installed()?;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("the listener has an address");
    let base = format!("http://localhost:{}", address.port());
    let scene = scene(&base).await;
    let answers = Arc::new(RwLock::new(scene.router.clone()));
    let shared = Arc::clone(&answers);
    let service = Router::new().fallback(move |request: Request| {
        let router = shared.read().expect("nobody panics with it").clone();
        router.oneshot(request)
    });
    tokio::spawn(async move { axum::serve(listener, service).await });
    let browser = block_in_place(|| Browser::start(&path));
    Some(Stage {
        scene,
        browser,
        base,
        answers,
    })
}

impl Stage {
    /// Serves what the scene is now.
    pub fn follow(&mut self) {
        *self.answers.write().expect("nobody panics with it") = self.scene.router.clone();
    }

    pub fn open(&mut self, path: &str) {
        block_in_place(|| self.browser.open(&format!("{}{path}", self.base)));
    }

    pub fn until(&mut self, expression: &str) {
        block_in_place(|| self.browser.until(expression));
    }

    pub fn evaluate(&mut self, expression: &str) -> serde_json::Value {
        block_in_place(|| self.browser.evaluate(expression))
    }

    pub async fn sign_in(&mut self) {
        let secret = self.scene.link("mara").await;
        self.open(&format!("/signin#{secret}"));
        self.until("location.hash === '' && !location.href.includes('#')");
        assert_eq!(self.evaluate("document.activeElement.textContent"), "Sign in");
        block_in_place(|| self.browser.press("Enter", 13));
        self.until("location.pathname === '/' && document.readyState === 'complete'");
    }

    pub fn check(&mut self, path: &str) {
        self.open(path);
        assert_eq!(self.evaluate(AUDIT), json!([]), "{path}");
        assert_eq!(self.browser.complaints, Vec::<String>::new(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_is_sound_in_both_themes_and_on_a_phone() {
    let Some(mut stage) = stage().await else { return };
    let wiped = stage.scene.device("WIPED").await.id;
    let unapproved = stage.scene.ask_wipe(wiped).await;
    let key = SigningKey::generate_p256().expect("a key can be made");
    stage.scene.name_approver(HOSTILE_NAME, key.public(), None).await;
    stage.follow();
    let awaited = stage.scene.ask_wipe(wiped).await;
    let device = stage.scene.device("SAME").await.id;
    stage.scene.telemetry(device).await;
    let rival = stage.scene.device("SAME").await.id;
    let (policy, rollout) = stage
        .scene
        .rollout(HOSTILE, r#"{"lockscreen.message":"<b>x</b>"}"#)
        .await;
    let lock = json!({"type": "lock", "message": HOSTILE}).to_string();
    let sent = stage
        .scene
        .call(Method::POST, &format!("/api/v1/devices/{device}/commands"), &lock)
        .await;
    let command = sent["command_id"].as_str().expect("it has an id").to_owned();
    let labels = json!({"labels": {"department": HOSTILE}}).to_string();
    let labelled = format!("/api/v1/devices/{device}/labels");
    stage.scene.call(Method::PUT, &labelled, &labels).await;
    let group = json!({"name": HOSTILE, "include": "has(labels.department)", "exclude": "os.id == \"x\""});
    let group = stage
        .scene
        .call(Method::POST, "/api/v1/groups", &group.to_string())
        .await;
    let group = group["id"].as_str().expect("it has an id").to_owned();
    while muster_control::groups::reconcile(&stage.scene.app)
        .await
        .expect("groups are evaluated")
    {}
    stage.scene.settle().await;
    let connection =
        json!({"definition": {"issuer": "https://idp.example", "client_id": HOSTILE}, "client_secret": "x"});
    stage
        .scene
        .call(
            Method::PUT,
            "/api/v1/access/connections/corp",
            &connection.to_string(),
        )
        .await;
    super::saml::connect_hostile(&stage.scene, "portal").await;
    let look = json!({
        "display_name": HOSTILE, "signin_notice": HOSTILE, "accent": {"light": "#7a1fa2"},
        "support": {"mail": "help@example.com", "phone": "+49 30 123", "url": "https://help.example.com/it"},
    });
    stage
        .scene
        .call(Method::PUT, "/api/v1/settings/branding", &look.to_string())
        .await;
    let grant = json!({"role": "security", "group": HOSTILE, "source": "corp"}).to_string();
    stage
        .scene
        .call(Method::POST, "/api/v1/access/grants", &grant)
        .await;
    stage.sign_in().await;
    let mut paths: Vec<String> = [
        "",
        "/settings",
        "/facts",
        "/telemetry",
        "/telemetry?span=7d&metric=disk_used_ratio",
        "/commands",
        "/certificates",
        "/timeline",
    ]
    .map(|tab| format!("/devices/{device}{tab}"))
    .to_vec();
    paths.extend(
        [
            "/",
            "/devices",
            "/groups",
            "/groups/new",
            "/query",
            "/query?q=SELECT+*+FROM+devices",
            "/query?q=SELECT+devise+FROM+devices",
            "/health",
            "/secrets",
            "/tenants",
            "/branding",
            "/health?metric=crashes_total",
            "/health?metric=uptime_seconds",
            "/labels/table",
            "/compliance",
            "/compliance?filter=severity%3Amedium",
            "/policies",
            "/policies/new",
            "/rollouts",
            "/commands",
            "/alerts?state=all",
            "/alerts/deliveries",
            "/alerts/destinations",
            "/alerts/destinations/new",
            "/alerts/destinations/new?kind=email",
            "/signals",
            "/users",
            "/users/groups",
            "/users/sync",
            "/device-login",
            "/signin",
            "/signin?left=everywhere",
            "/sinks",
            "/sinks/new",
            "/sinks/new?kind=s3",
            "/log",
            "/log/0",
            "/tokens",
            "/tokens/new",
            "/tokens/table",
            "/quarantine",
            "/enrollment-policy",
            "/settings",
        ]
        .map(str::to_owned),
    );
    paths.extend(
        [
            "/api/v1/docs",
            "/errors",
            "/errors/not_found",
            "/runbooks",
            "/runbooks/split_view",
        ]
        .map(str::to_owned),
    );
    paths.extend([
        format!("/devices/{rival}"),
        format!("/tenants/{}/limits", stage.scene.tenant),
        format!("/groups/{group}"),
        format!("/groups/{group}?device={device}"),
        format!("/groups/{group}?device=nobody"),
        format!("/groups/{group}/edit"),
        format!("/policies/{policy}"),
        format!("/policies/{policy}/versions/2026.05"),
        format!("/policies/{policy}/versions/2026.05/what-if"),
        format!("/policies/{policy}/versions/2026.05/what-if?platform=linux"),
        format!("/devices/{device}/why"),
        format!("/devices/{device}/why?subject=lockscreen.message"),
        format!("/policies/{policy}/versions/new"),
        format!("/rollouts/{rollout}"),
        format!("/commands/{command}"),
        "/approvals".to_owned(),
        "/passkeys".to_owned(),
        "/halt".to_owned(),
        "/access".to_owned(),
        "/access/roles".to_owned(),
        "/access/sessions".to_owned(),
        "/access/connections".to_owned(),
        "/access/connections/corp".to_owned(),
        "/access/connections/portal".to_owned(),
        "/access/me".to_owned(),
        "/access/explain?needs=command:wipe,script:run".to_owned(),
        "/step-up?next=/devices".to_owned(),
        "/operations".to_owned(),
        "/operations?state=held".to_owned(),
        format!("/operations/{awaited}"),
        format!("/operations/{unapproved}"),
        format!("/commands/cmd_{}", awaited.replace('-', "")),
        format!("/commands/new?device={wiped}&type=wipe"),
        "/commands/new?filter=platform%3Alinux&type=run-script".to_owned(),
        "/commands/new?filter=platform%3Alinux&type=rotate-key".to_owned(),
        "/log?actor=mara&since=2026-01-01T00%3A00&until=2030-01-01T00%3A00".to_owned(),
        format!("/log?object={awaited}"),
    ]);
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (400, "light")] {
        block_in_place(|| stage.browser.look(width, scheme));
        for path in &paths {
            stage.check(path);
        }
    }
    stage.scene.post("/halt", &[("reason", HOSTILE)]).await;
    block_in_place(|| stage.browser.look(400, "dark"));
    for path in ["/", "/halt", "/commands"] {
        stage.check(path);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_program_asks_for_is_sound_in_both_themes_and_on_a_phone() {
    let Some(mut stage) = stage().await else { return };
    stage.sign_in().await;
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (400, "light")] {
        let picture = |name: &str| format!("{name}-{width}-{scheme}");
        block_in_place(|| stage.browser.look(width, scheme));
        let fields = [
            ("client_id", "muster-cli"),
            ("label", HOSTILE),
            ("scope", "device:read root:write"),
        ];
        let asked = stage
            .scene
            .ask_oauth("/oauth2/device_authorization", &fields)
            .await;
        let code = asked.json()["user_code"].as_str().expect("a code").to_owned();
        stage.check("/device-login");
        stage.browser.picture(&picture("code"));
        let heading = "Did you start this program yourself";
        send(&mut stage, "/device-login", &[("code", &code)], heading).await;
        assert_eq!(stage.evaluate(AUDIT), json!([]), "the question");
        stage.browser.picture(&picture("question"));
        stage.check("/device-login?notice=program-let-in");
        stage.browser.picture(&picture("let-in"));
        send(
            &mut stage,
            "/device-login",
            &[("code", "BBBB-BBBB")],
            "No program waits",
        )
        .await;
        assert_eq!(stage.evaluate(AUDIT), json!([]), "no such code");
        stage.browser.picture(&picture("none"));
        // A 404 is what the browser tells of.
        stage.browser.complaints.clear();
        for (name, path) in [
            ("signin", "/signin"),
            ("users", "/users"),
            ("access", "/access"),
            ("signals", "/signals"),
        ] {
            stage.check(path);
            stage.browser.picture(&picture(name));
        }
    }
}

/// Fills in a form, sends it, and waits for the page that answers.
async fn send(stage: &mut Stage, path: &str, fields: &[(&str, &str)], heading: &str) {
    stage.open(path);
    for (name, value) in fields {
        stage.evaluate(&format!(
            "{{ const e = document.querySelector('main [name={name}]{}'); e.value = {}; e.checked = true; }}",
            if *name == "protocol" {
                format!("[value={value}]")
            } else {
                String::new()
            },
            json!(value)
        ));
    }
    stage.evaluate("document.querySelector('main form').requestSubmit()");
    stage.until(&format!(
        "document.readyState === 'complete' && document.body.textContent.includes({})",
        json!(heading)
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_answers_the_forms_of_enrollment_is_sound() {
    let Some(mut stage) = stage().await else { return };
    stage.sign_in().await;
    let uuid = "12345678-9abc-4def-8123-456789abcdef";
    let (good, bad) = (
        format!("device_uuid,owner\n{uuid},{HOSTILE}\n"),
        "device_uuid,serial\nnobody,\n",
    );
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (400, "light")] {
        block_in_place(|| stage.browser.look(width, scheme));
        for protocol in ["agent", "acme", "scep", "est"] {
            let fields = [("device_uuid", uuid), ("protocol", protocol)];
            send(&mut stage, "/tokens/new", &fields, "This is the only time").await;
            assert_eq!(stage.evaluate(AUDIT), json!([]), "{protocol}");
        }
        for (csv, heading) in [(good.as_str(), "1 token made"), (bad, "No token was made")] {
            send(&mut stage, "/tokens/table", &[("csv", csv)], heading).await;
            assert_eq!(stage.evaluate(AUDIT), json!([]), "{heading}");
        }
        send(
            &mut stage,
            "/enrollment-policy",
            &[("models", &"x".repeat(129))],
            "The policy is as it was",
        )
        .await;
        assert_eq!(stage.evaluate(AUDIT), json!([]), "a refused policy");
        assert_eq!(stage.browser.complaints, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_keyboard_is_enough_and_progress_is_live() {
    let Some(mut stage) = stage().await else { return };
    stage.scene.device("S-1").await;
    let (_, rollout) = stage
        .scene
        .rollout("baseline", r#"{"passcode.min_length":12}"#)
        .await;
    stage.sign_in().await;
    let path = format!("/rollouts/{rollout}");
    stage.open(&path);
    block_in_place(|| stage.browser.press("Tab", 9));
    assert_eq!(
        stage.evaluate("document.activeElement.textContent"),
        "Skip to content"
    );

    const PENDING: &str =
        "[...document.querySelectorAll('dd[data-field^=pending]')].map(e => e.textContent).sort().join()";
    assert_eq!(stage.evaluate(PENDING), "1");
    stage.scene.device("S-2").await;
    stage.until(&format!("{PENDING} === '2'"));

    stage.evaluate("document.querySelector('[data-opens=do-pause]').focus()");
    block_in_place(|| stage.browser.press("Enter", 13));
    stage.until(
        "document.querySelector('#do-pause').open && document.querySelector('#do-pause').matches(':modal')",
    );
    block_in_place(|| stage.browser.press("Escape", 27));
    stage.until("!document.querySelector('#do-pause').open");
    block_in_place(|| stage.browser.press("Enter", 13));
    stage.until("document.querySelector('#do-pause').matches(':modal')");
    assert_eq!(stage.evaluate("document.activeElement.textContent"), "Pause");
    block_in_place(|| stage.browser.press("Enter", 13));
    stage.until("location.search === '?notice=rollout-paused' && document.readyState === 'complete'");
    assert_eq!(stage.browser.complaints, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_theme_is_remembered() {
    const BACKGROUND: &str = "getComputedStyle(document.body).backgroundColor";
    let Some(mut stage) = stage().await else { return };
    block_in_place(|| stage.browser.look(1280, "light"));
    stage.open("/signin");
    let light = stage.evaluate(BACKGROUND);
    block_in_place(|| stage.browser.look(1280, "dark"));
    let dark = stage.evaluate(BACKGROUND);
    assert_ne!(light, dark, "the system's preference is followed");
    stage.evaluate("document.querySelector('[data-theme-toggle]').click()");
    assert_eq!(stage.evaluate(BACKGROUND), light, "the first press chooses light");
    stage.open("/errors");
    assert_eq!(stage.evaluate(BACKGROUND), light, "on the next page as well");
}
