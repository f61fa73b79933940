//! People of the operator's tenant in another tenant: not without its consent, never more than it let in, and seen by both logs.

use serde_json::{Value, json};

use crate::support::{
    PATIENCE,
    api::{Api, answer},
    database::each_database,
    device::Device,
    eventually,
    server::{Options, Server, assert_healthy},
};
use crate::tenant_lifecycle::{Made, make};

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

/// A person, signed in to the console and by a program.
struct Person {
    api: Api,
    cookie: String,
    csrf: String,
}

/// Signs a person in by a link of the tenant's service account, and lets a program of theirs in.
async fn person(tenant: &Api, name: &str, roles: &[&str]) -> Person {
    let link = tenant
        .post("/console-links", &json!({"person": name, "roles": roles}))
        .await
        .expect(201);
    let url = text(&link["url"]);
    let (_, secret) = url.rsplit_once('#').expect("the secret is behind the #");
    let form = [("secret", secret), ("next", "/")];
    let url = format!("{}/signin", tenant.origin);
    let signed_in = answer(tenant.http.post(url).form(&form)).await;
    let (cookie, csrf) = cookie_of(signed_in.header("set-cookie"));
    let asked = tenant
        .form(
            "/oauth2/device_authorization",
            &[("client_id", "muster-cli"), ("label", name)],
        )
        .await
        .ok();
    let code = text(&asked["user_code"]);
    let person = Person {
        api: tenant.with_token(""),
        cookie,
        csrf,
    };
    let decided = person
        .form("/device-login/decide", &[("code", &code), ("decision", "allow")])
        .await;
    assert_eq!(decided, 303);
    let device_code = text(&asked["device_code"]);
    let granted = tenant
        .form(
            "/oauth2/token",
            &[
                ("grant_type", "urn:ietf:params:oauth:grant-type:device_code"),
                ("client_id", "muster-cli"),
                ("device_code", &device_code),
            ],
        )
        .await
        .ok();
    Person {
        api: tenant.with_token(text(&granted["access_token"])),
        ..person
    }
}

/// The cookie of an answer, and what forms of its session carry.
fn cookie_of(set: &str) -> (String, String) {
    let cookie = set.split(';').next().expect("a cookie has a value").to_owned();
    let (_, secret) = cookie.split_once('=').expect("a cookie has a name");
    let csrf = muster_trust::key::sha256(format!("csrf:{secret}").as_bytes()).to_string();
    (cookie, csrf)
}

impl Person {
    /// Sends a form of the console; answers the status.
    async fn form(&self, path: &str, fields: &[(&str, &str)]) -> u16 {
        let mut form = vec![("csrf", self.csrf.as_str())];
        form.extend_from_slice(fields);
        let url = format!("{}{path}", self.api.origin);
        let request = self.api.http.post(url).header("cookie", &self.cookie).form(&form);
        answer(request).await.status
    }

    async fn ask(&self, tenant: &str, role: &str) -> Value {
        let body = json!({"reason": "ticket 4711", "role": role, "minutes": 30});
        self.api
            .post(&format!("/tenants/{tenant}/visits"), &body)
            .await
            .expect(201)
    }

    /// Begins a visit; answers a client that is in the visited tenant.
    async fn begin(&self, visit: &str) -> Api {
        let begun = self
            .api
            .post(&format!("/visits/{visit}/begin"), &json!({}))
            .await
            .expect(201);
        self.api.with_token(text(&begun["token"]))
    }
}

/// The installation's operator with a person, and a tenant with a person.
struct Both {
    server: Server,
    operator: Api,
    visitor: Person,
    made: Made,
    theirs: Api,
    owner: Person,
}

impl Both {
    async fn start(options: Options) -> Both {
        let server = Server::start(options).await;
        let operator = server.api().await;
        let visitor = person(&operator, "olga", &["owner"]).await;
        let made = make(&operator, &server, "acme").await;
        let theirs = Api::sign_in(&made.admin).await;
        let owner = person(&theirs, "tara", &["owner"]).await;
        Both {
            server,
            operator,
            visitor,
            made,
            theirs,
            owner,
        }
    }

    async fn allow(&self, mode: &str, ceiling: &str) {
        let body = json!({"mode": mode, "ceiling": ceiling});
        self.owner.api.put("/settings/operator-access", &body).await.ok();
    }

    /// Asks for a visit, has it granted, and begins it.
    async fn visit(&self, role: &str) -> (String, Api) {
        let asked = self.visitor.ask("acme", role).await;
        let id = text(&asked["id"]);
        if asked["state"] == "requested" {
            let path = format!("/operator-visits/{id}/grant");
            self.owner.api.post(&path, &json!({})).await.ok();
        }
        let inside = self.visitor.begin(&id).await;
        inside.get("/devices").await.ok();
        (id, inside)
    }

    /// Waits until the visit is in this state for this reason, and both logs say so.
    async fn ended(&self, id: &str, action: &str, because: &str) {
        for api in [&self.operator, &self.theirs] {
            let entry = entry_of(api, id, action).await;
            assert_eq!(entry["detail"]["because"], because, "{entry}");
            assert_eq!(entry["detail"]["tenant"], self.made.id.as_str(), "{entry}");
            assert_eq!(
                entry["detail"]["operator"],
                self.server.admin.tenant.as_str(),
                "{entry}"
            );
        }
    }
}

/// The entry of an action about an object, when it has its place.
async fn entry_of(api: &Api, object: &str, action: &str) -> Value {
    eventually(&format!("{action} is logged"), PATIENCE, async || {
        let path = format!("/log/entries?action={action}");
        let found = api.get(&path).await.json();
        let mut found = found["items"].as_array()?.iter();
        found.rfind(|entry| entry["object"] == object).cloned()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn v1_nobody_visits_by_default_and_both_logs_know_who_tried() {
    each_database(async |options| {
        let both = Both::start(options).await;
        let shown = both.theirs.get("/settings/operator-access").await.ok();
        assert_eq!(
            (shown["mode"].as_str(), shown["ceiling"].as_str()),
            (Some("never"), Some("read_only"))
        );
        let path = format!("/tenants/{}/visits", both.made.id);
        let wanted = json!({"reason": "curious", "minutes": 5});
        both.visitor
            .api
            .post(&path, &wanted)
            .await
            .refused(403, "visit_refused");
        for api in [&both.operator, &both.theirs] {
            eventually("the attempt is logged", PATIENCE, async || {
                let found = api.list("/log/entries?action=visit.refused").await;
                let entry = found.first()?;
                assert_eq!(entry["detail"]["reason"], "curious");
                Some(())
            })
            .await;
        }
        // A service account visits nobody and lets nobody in, whatever it holds; nor does a stranger to the operator's tenant.
        both.operator
            .post(&path, &wanted)
            .await
            .refused(403, "insufficient_scope");
        both.owner
            .api
            .post(&path, &wanted)
            .await
            .refused(403, "operator_only");
        let ask = json!({"mode": "ask"});
        both.theirs
            .put("/settings/operator-access", &ask)
            .await
            .refused(403, "insufficient_scope");
        both.visitor
            .api
            .put("/settings/operator-access", &ask)
            .await
            .refused(409, "illegal_state");
        for (body, code) in [
            (json!({"reason": "", "minutes": 5}), "invalid"),
            (json!({"reason": "a", "minutes": 481}), "invalid"),
            (json!({"reason": "a", "minutes": 5, "role": "owner"}), "invalid"),
        ] {
            both.visitor.api.post(&path, &body).await.refused(400, code);
        }
        // Who signed in long ago proves first who they are.
        let store = both.server.store().await;
        store
            .execute("UPDATE access_session SET authenticated_at = 1")
            .await;
        both.visitor
            .api
            .post(&path, &wanted)
            .await
            .refused(401, "step_up_required");
        both.owner
            .api
            .put("/settings/operator-access", &ask)
            .await
            .refused(401, "step_up_required");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v2_a_visit_is_granted_seen_and_ended_by_the_tenant_that_is_visited() {
    each_database(async |options| {
        let both = Both::start(options).await;
        both.allow("ask", "helpdesk").await;
        let device = Device::enroll(&both.theirs, &both.made.admin).await.id();
        // Beyond the ceiling is refused; a request waits.
        let path = format!("/tenants/{}/visits", both.made.id);
        let beyond = json!({"reason": "a", "minutes": 5, "role": "operator"});
        both.visitor
            .api
            .post(&path, &beyond)
            .await
            .refused(403, "visit_refused");
        let asked = both.visitor.ask("acme", "helpdesk").await;
        let id = text(&asked["id"]);
        assert_eq!(
            (asked["state"].as_str(), asked["person"].as_str()),
            (Some("requested"), Some("olga"))
        );
        let begin = format!("/visits/{id}/begin");
        both.visitor
            .api
            .post(&begin, &json!({}))
            .await
            .refused(409, "illegal_state");
        let listed = both.owner.api.list("/operator-visits").await;
        // The newest first; the attempt before is there as well.
        assert_eq!(
            (
                listed.len(),
                listed[0]["reason"].as_str(),
                listed[1]["state"].as_str()
            ),
            (2, Some("ticket 4711"), Some("denied"))
        );
        let grant = format!("/operator-visits/{id}/grant");
        both.theirs
            .post(&grant, &json!({}))
            .await
            .refused(403, "insufficient_scope");
        both.owner
            .api
            .post(&grant, &json!({"minutes": 31}))
            .await
            .refused(400, "invalid");
        both.owner.api.post(&grant, &json!({"minutes": 20})).await.ok();
        // Only who asked begins it, once.
        let colleague = person(&both.operator, "otto", &["owner"]).await;
        colleague
            .api
            .post(&begin, &json!({}))
            .await
            .refused(403, "insufficient_scope");
        let inside = both.visitor.begin(&id).await;
        both.visitor
            .api
            .post(&begin, &json!({}))
            .await
            .refused(409, "illegal_state");
        // They are in the visited tenant, and do what the role gives.
        let seen = inside.list("/devices").await;
        assert_eq!(seen.len(), 1);
        inside
            .post(&format!("/devices/{device}/commands"), &json!({"type": "lock"}))
            .await
            .expect(202);
        let actor = format!("olga (visit {id})");
        // The visited tenant ends it: the next request is nobody's.
        let end = format!("/operator-visits/{id}/end");
        let ended = both.theirs.post(&end, &json!({})).await.ok();
        assert_eq!(ended["state"], "ended");
        let changes = ended["changes"].as_u64().expect("a number");
        assert!(changes > 0);
        inside.get("/devices").await.refused(401, "unauthenticated");
        both.theirs
            .post(&end, &json!({}))
            .await
            .refused(409, "illegal_state");
        both.ended(&id, "visit.ended", "visited").await;
        for action in ["visit.requested", "visit.granted", "visit.begun"] {
            for api in [&both.operator, &both.theirs] {
                let entry = entry_of(api, &id, action).await;
                assert_eq!(entry["detail"]["visit"], id.as_str());
            }
        }
        // At home it was olga who began it.
        let entry = entry_of(&both.operator, &id, "visit.begun").await;
        assert_eq!(entry["actor"], "olga", "{entry}");
        // The operator's log says how much was changed, and between which sizes of the other.
        let entry = entry_of(&both.operator, &id, "visit.ended").await;
        let detail = &entry["detail"];
        assert_eq!(detail["changes"], changes, "{entry}");
        let (before, after) = (&detail["log_size_before"], &detail["log_size_after"]);
        assert!(before.as_u64() < after.as_u64(), "{entry}");
        assert!(
            text(&detail["checkpoint"]).contains(&after.to_string()),
            "{entry}"
        );
        // That is what the other has: each entry says whose it is.
        let theirs = both.theirs.list("/log/entries?limit=500").await;
        let made = theirs
            .iter()
            .filter(|entry| entry["actor"].to_string().contains(&actor) && entry["object"] != id.as_str());
        let made: Vec<&Value> = made
            .filter(|entry| entry["action"] != "session.started")
            .collect();
        assert_eq!(made.len() as u64, changes, "{made:?}");
        for entry in made {
            assert_eq!(entry["detail"]["visit"], id.as_str(), "{entry}");
            assert_eq!(
                entry["detail"]["by_tenant"],
                both.server.admin.tenant.as_str(),
                "{entry}"
            );
        }
        assert_healthy(&both.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v3_a_visit_becomes_nothing_more() {
    each_database(async |options| {
        let both = Both::start(options).await;
        both.allow("always", "operator").await;
        let (id, inside) = both.visit("operator").await;
        let device = Device::enroll(&both.theirs, &both.made.admin).await.id();
        let no = json!({});
        let tenant = &both.server.admin.tenant;
        for (method, path, body) in [
            (
                "POST",
                "/clients".to_owned(),
                json!({"name": "mine", "scopes": ["device:read"]}),
            ),
            ("POST", "/console-links".to_owned(), json!({"person": "me"})),
            (
                "POST",
                "/enrollment-tokens".to_owned(),
                json!({"device_uuid": uuid::Uuid::new_v4()}),
            ),
            ("POST", "/scim-tokens".to_owned(), json!({"connector": "mine"})),
            (
                "PUT",
                "/access/roles/mine".to_owned(),
                json!({"scopes": ["device:read"]}),
            ),
            ("POST", "/halt".to_owned(), json!({"because": "me"})),
            (
                "POST",
                "/scripts".to_owned(),
                json!({"name": "n", "interpreter": "sh", "text": "id"}),
            ),
            (
                "POST",
                format!("/devices/{device}/commands"),
                json!({"type": "wipe", "mode": "full"}),
            ),
            ("POST", format!("/devices/{device}/retire"), no.clone()),
            ("POST", format!("/operator-visits/{id}/grant"), no.clone()),
            ("POST", format!("/operator-visits/{id}/end"), no.clone()),
            (
                "PUT",
                "/settings/operator-access".to_owned(),
                json!({"mode": "always", "ceiling": "operator"}),
            ),
            (
                "POST",
                format!("/tenants/{tenant}/visits"),
                json!({"reason": "on", "minutes": 5}),
            ),
            ("POST", format!("/visits/{id}/begin"), no.clone()),
            ("GET", "/tenants".to_owned(), no.clone()),
            ("GET", "/export".to_owned(), no.clone()),
            ("GET", format!("/tenants/{}/export", both.made.id), no.clone()),
        ] {
            let request = inside.request(method.parse().expect("a method"), &path);
            let request = if method == "GET" {
                request
            } else {
                request.json(&body)
            };
            let refused = answer(request).await;
            let word = refused.word();
            let is_refused = refused.status == 403 || (refused.status == 404 && path.contains("/halt"));
            assert!(is_refused, "{method} {path} answered {word}");
        }
        // The token is none of the operator's tenant, and opens no page.
        let at_home = person(&both.operator, "otto", &["owner"]).await;
        assert_eq!(at_home.api.get("/tenants").await.status, 200);
        let name = format!("__Host-muster-visit={}", inside.token);
        let page = both
            .operator
            .http
            .get(format!("{}/devices", both.operator.origin));
        assert_eq!(answer(page.header("cookie", name)).await.status, 303);
        // What it asks for in the visited tenant is of an account that is new there.
        let entry = entry_of(&both.theirs, &id, "visit.begun").await;
        assert_eq!(entry["detail"]["role"], "operator");
        // A lower ceiling counts at once, and ends what is beyond it.
        both.allow("always", "read_only").await;
        inside.get("/devices").await.refused(401, "unauthenticated");
        both.ended(&id, "visit.ended", "setting").await;
        assert_healthy(&both.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v4_a_visit_ends_with_whatever_it_stands_on() {
    each_database(async |options| {
        let both = Both::start(options).await;
        both.allow("always", "read_only").await;
        let store = both.server.store().await;
        // Its time.
        let (id, inside) = both.visit("read_only").await;
        let visit = store.id(&id);
        let sql = format!("UPDATE access_visit SET ends_at = 1 WHERE visit_id = {visit}");
        assert_eq!(store.execute(&sql).await, 1);
        inside.get("/devices").await.refused(401, "unauthenticated");
        both.ended(&id, "visit.ended", "time").await;
        // The visitor leaves.
        let (id, inside) = both.visit("read_only").await;
        both.visitor
            .api
            .post(&format!("/visits/{id}/end"), &json!({}))
            .await
            .ok();
        inside.get("/devices").await.refused(401, "unauthenticated");
        both.ended(&id, "visit.ended", "visitor").await;
        // The tenant is suspended; that it goes on at once brings the visit not back.
        let (id, inside) = both.visit("read_only").await;
        let path = format!("/tenants/{}", both.made.id);
        both.operator
            .post(&format!("{path}/suspend"), &json!({}))
            .await
            .ok();
        both.operator
            .post(&format!("{path}/resume"), &json!({}))
            .await
            .ok();
        both.ended(&id, "visit.ended", "suspended").await;
        inside.get("/devices").await.refused(401, "unauthenticated");
        // The person may not any more.
        let (id, inside) = both.visit("read_only").await;
        both.operator
            .post("/access/people/disable", &json!({"person": "olga"}))
            .await
            .ok();
        inside.get("/devices").await.refused(401, "unauthenticated");
        both.ended(&id, "visit.ended", "session").await;
        assert_healthy(&both.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v5_what_nobody_answers_expires_and_what_is_of_others_is_not_there() {
    each_database(async |options| {
        let both = Both::start(options).await;
        both.allow("ask", "read_only").await;
        let id = text(&both.visitor.ask("acme", "read_only").await["id"]);
        // Another tenant knows nothing of it.
        let other = make(&both.operator, &both.server, "other").await;
        let others = Api::sign_in(&other.admin).await;
        let others = person(&others, "nora", &["owner"]).await.api;
        others
            .get(&format!("/operator-visits/{id}"))
            .await
            .refused(404, "not_found");
        for verb in ["grant", "deny", "end"] {
            let path = format!("/operator-visits/{id}/{verb}");
            others.post(&path, &json!({})).await.refused(404, "not_found");
        }
        others
            .post(&format!("/visits/{id}/end"), &json!({}))
            .await
            .refused(403, "operator_only");
        assert_eq!(others.list("/operator-visits").await.len(), 0);
        // A day passes.
        let store = both.server.store().await;
        let visit = store.id(&id);
        let sql = format!("UPDATE access_visit SET answer_by = 1 WHERE visit_id = {visit}");
        assert_eq!(store.execute(&sql).await, 1);
        both.owner
            .api
            .post(&format!("/operator-visits/{id}/grant"), &json!({}))
            .await
            .refused(409, "illegal_state");
        both.ended(&id, "visit.expired", "time").await;
        // Denied is denied.
        let id = text(&both.visitor.ask("acme", "read_only").await["id"]);
        both.theirs
            .post(&format!("/operator-visits/{id}/deny"), &json!({}))
            .await
            .ok();
        let begun = both
            .visitor
            .api
            .post(&format!("/visits/{id}/begin"), &json!({}))
            .await;
        begun.refused(409, "illegal_state");
        for api in [&both.operator, &both.theirs] {
            entry_of(api, &id, "visit.denied").await;
        }
        // A tenant that lets nobody in any more denies what waits.
        let id = text(&both.visitor.ask("acme", "read_only").await["id"]);
        both.allow("never", "read_only").await;
        both.ended(&id, "visit.denied", "setting").await;
        assert_healthy(&both.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v6_a_visitor_locks_and_cancels_their_own_and_visits_more_are_no_second_allowance() {
    each_database(async |options| {
        let both = Both::start(options).await;
        both.allow("always", "operator").await;
        let device = Device::enroll(&both.theirs, &both.made.admin).await.id();
        let path = format!("/devices/{device}/commands");
        let lock = json!({"type": "lock"});
        let of_theirs = text(&both.theirs.post(&path, &lock).await.expect(202)["command_id"]);
        let (_, inside) = both.visit("operator").await;
        for body in [
            json!({"type": "install-app", "package": "sudo", "version": "1.9.4-2"}),
            json!({"type": "remove-app", "package": "sudo"}),
            json!({"type": "update-agent", "version": "0.1.0"}),
            json!({"type": "clear-passcode"}),
            json!({"type": "shut-down"}),
            json!({"type": "collect-files", "paths": ["/etc/shadow"]}),
            json!({"type": "unlock"}),
        ] {
            inside.post(&path, &body).await.refused(403, "insufficient_scope");
            let mut bulk = body.clone();
            bulk["devices"] = json!([device]);
            let refused = inside.post("/commands", &bulk).await;
            assert!([401, 403].contains(&refused.status), "{bulk}: {}", refused.word());
        }
        let cancel = format!("/commands/{of_theirs}/cancel");
        inside
            .post(&cancel, &json!({}))
            .await
            .refused(403, "insufficient_scope");
        let own = text(&inside.post(&path, &lock).await.expect(202)["command_id"]);
        let cancel = format!("/commands/{own}/cancel");
        inside.post(&cancel, &json!({})).await.ok();
        let policy = muster_model::PolicyId::from_uuid(uuid::Uuid::new_v4());
        let body = json!({"version": "1"});
        inside
            .post(&format!("/policies/{policy}/activate"), &body)
            .await
            .refused(403, "insufficient_scope");
        // What they asked counts for all visits together.
        let (granted, inside) = both.visit("operator").await;
        inside.post(&path, &lock).await.expect(202);
        let store = both.server.store().await;
        let account = format!("user:visitors of {}", both.server.admin.tenant);
        let counted = store
            .rows("SELECT DISTINCT actor FROM commands_pace WHERE actor LIKE '%visit%'")
            .await;
        let counted: Vec<&str> = counted.iter().map(|row| row[0].text()).collect();
        assert_eq!(counted, [account.as_str()]);
        // Who wants to be asked is asked: what only the setting granted is over.
        let waiting = text(&both.visitor.ask("acme", "operator").await["id"]);
        both.allow("ask", "operator").await;
        inside.get("/devices").await.refused(401, "unauthenticated");
        both.ended(&granted, "visit.ended", "setting").await;
        both.visitor
            .api
            .post(&format!("/visits/{waiting}/begin"), &json!({}))
            .await
            .refused(409, "illegal_state");
        assert_healthy(&both.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v7_never_wins_over_whatever_visitors_do_at_the_same_time() {
    each_database(async |options| {
        let both = Both::start(options).await;
        both.allow("always", "read_only").await;
        let mut asked = Vec::new();
        for _ in 0..6 {
            asked.push(text(&both.visitor.ask("acme", "read_only").await["id"]));
        }
        let never = json!({"mode": "never"});
        let beginning = async {
            for id in &asked {
                let begun = both
                    .visitor
                    .api
                    .post(&format!("/visits/{id}/begin"), &json!({}))
                    .await;
                assert!([201, 403, 409].contains(&begun.status), "{}", begun.status);
            }
        };
        let forbidding = async {
            both.theirs.put("/settings/operator-access", &never).await.ok();
        };
        tokio::join!(beginning, forbidding);
        for visit in both.owner.api.list("/operator-visits").await {
            assert_eq!(visit["state"], "ended", "{visit}");
        }
        assert_healthy(&both.server).await;
    })
    .await;
}
