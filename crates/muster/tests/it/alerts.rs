//! Alerts end to end: from what happens in a server to each kind of destination, and back to nothing.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    PATIENCE,
    api::Api,
    database::{each_database, on_postgres},
    device::{Applicant, Device, Door, now, token_for},
    eventually,
    mail::{Alertmanager, Mail},
    pagers::{Pagers, Trouble},
    server::{Options, Server},
};

/// How long a message may take to arrive: evaluation, the outbox, and a slow machine.
const ARRIVAL: Duration = Duration::from_secs(90);
const KINDS: [&str; 5] = ["pagerduty", "slack", "opsgenie", "teams", "webhook"];

/// A server that may send to this machine, with every stand-in as a destination.
struct Scene {
    server: Server,
    api: Api,
    pagers: Pagers,
    mail: Mail,
    alertmanager: Alertmanager,
    _folder: Arc<TempDir>,
}

impl Scene {
    /// Without its peers there is none.
    async fn start(options: Options) -> Option<Scene> {
        let folder = Arc::new(tempfile::tempdir().expect("a folder can be made"));
        let mail = Mail::start(folder.path()).await?;
        let alertmanager = Alertmanager::start(folder.path()).await?;
        let pagers = Pagers::start().await;
        if !pagers.is_judged().await {
            return None;
        }
        let options = options
            .with("--egress-allow", "127.0.0.0/8,::1")
            .with("--egress-ca-file", mail.authority().display());
        let server = Server::start(options).await;
        let api = server.api().await;
        for kind in KINDS {
            api.put(&format!("/alert-destinations/{kind}"), &pagers.destination(kind))
                .await
                .ok();
        }
        let place = json!({"kind": "alertmanager", "url": alertmanager.origin});
        api.put("/alert-destinations/alertmanager", &json!({"place": place}))
            .await
            .ok();
        let place = json!({
            "kind": "email", "host": "localhost", "port": mail.port, "username": "mdm", "from": "mdm@example.com",
            "to": ["admin@example.com", "second@example.com"],
        });
        let email = json!({"place": place, "secret": "open sesame"});
        api.put("/alert-destinations/email", &email).await.ok();
        Some(Scene {
            server,
            api,
            pagers,
            mail,
            alertmanager,
            _folder: folder,
        })
    }

    /// Has a rule that comes along tell everybody, and end without waiting.
    async fn tell_everyone(&self, rule: &str, expression: Option<&str>) {
        let shown = self.api.get(&format!("/alert-rules/{rule}")).await.ok();
        let everyone: Vec<&str> = KINDS.into_iter().chain(["alertmanager", "email"]).collect();
        let mut definition = json!({"for_seconds": 0, "keep_seconds": 0, "destinations": everyone});
        for member in ["title", "meaning", "remedy", "severity", "when", "no_data"] {
            definition[member] = shown[member].clone();
        }
        if let Some(expression) = expression {
            definition["when"] = json!({"expression": expression});
        }
        self.api
            .put(&format!("/alert-rules/{rule}"), &definition)
            .await
            .ok();
    }

    async fn state_of(&self, rule: &str) -> Option<Value> {
        let alerts = self.api.list("/alerts?state=all&limit=500").await;
        alerts.into_iter().find(|alert| alert["rule"] == rule)
    }

    async fn is(&self, rule: &str, state: &str) -> Value {
        eventually(&format!("{rule} is {state}"), ARRIVAL, async || {
            self.state_of(rule).await.filter(|alert| alert["state"] == state)
        })
        .await
    }

    /// Waits until every destination has heard of the alert what it should.
    async fn everyone_heard(&self, alert: &Value, event: &str) {
        let (title, id) = (text(&alert["title"]), text(&alert["id"]));
        eventually(
            &format!("everyone heard that {title} is {event}"),
            ARRIVAL,
            async || {
                let missing = self.missing(&title, &id, event).await;
                if !missing.is_empty() {
                    println!("{event} {title}: not yet {missing:?}");
                }
                missing.is_empty().then_some(())
            },
        )
        .await;
    }

    async fn missing(&self, title: &str, id: &str, event: &str) -> Vec<&'static str> {
        let is_end = event == "resolved";
        let any = |path: &str, fits: &dyn Fn(&Value, &str) -> bool| {
            self.pagers
                .heard(path)
                .iter()
                .any(|heard| fits(&heard.body, &heard.path))
        };
        let of_alert = |value: &Value| value.as_str().is_some_and(|text| text.contains(id));
        let begins = |value: &Value, with: &str| value.as_str().is_some_and(|text| text.starts_with(with));
        let headline = if is_end { "[RESOLVED]" } else { "[" };
        let names = |value: &Value| {
            begins(value, headline) && value.as_str().is_some_and(|text| text.contains(title))
        };
        let action = if is_end { "resolve" } else { "trigger" };
        let pagerduty = any("/v2/enqueue", &|body, _| {
            body["event_action"] == action && of_alert(&body["dedup_key"])
        });
        let slack = any("/services/", &|body, _| names(&body["text"]));
        let opsgenie = any("/v2/alerts", &|body, path| {
            if is_end {
                path.contains(id) && path.contains("/close")
            } else {
                of_alert(&body["alias"])
            }
        });
        let of_teams = |value: &Value| {
            let text = value.as_str().unwrap_or_default();
            text.contains(title) && text.contains("RESOLVED") == is_end
        };
        let teams = any("/workflows/", &|body, _| {
            of_teams(&body["attachments"][0]["content"]["body"][0]["text"])
        });
        let kind = format!("alert.{event}");
        let webhook = any("/hook", &|body, _| {
            body["type"] == kind.as_str() && body["data"]["alert"] == id
        });
        let email = self
            .mail
            .taken()
            .iter()
            .any(|mail| names(&mail["subject"]) && mail["tls"] == true);
        let active = self.alertmanager.active().await;
        let name = |rule: &str| -> String {
            let words = rule.split('_').map(|word| word[..1].to_uppercase() + &word[1..]);
            words.fold("Muster".to_owned(), |name, word| name + &word)
        };
        let rule = self.rule_of(id).await;
        let alertmanager = active.contains(&name(&rule)) != is_end;
        [
            ("pagerduty", pagerduty),
            ("slack", slack),
            ("opsgenie", opsgenie),
            ("teams", teams),
            ("webhook", webhook),
            ("email", email),
            ("alertmanager", alertmanager),
        ]
        .into_iter()
        .filter_map(|(name, heard)| (!heard).then_some(name))
        .collect()
    }

    async fn rule_of(&self, id: &str) -> String {
        text(&self.api.get(&format!("/alerts/{id}")).await.ok()["rule"])
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// Enrolls one device, then tries its token again with others until enough were refused.
async fn refused_enrollments(scene: &Scene) {
    let door = Door::of(&scene.server.admin);
    let first = Applicant::new();
    let token = token_for(&scene.api, first.device_uuid).await;
    first.try_enroll(&door, &token).await.ok();
    for _ in 0..21 {
        let answer = Applicant::new().begin(&door, &token).await;
        assert!(answer.status >= 400, "{answer:?}");
    }
}

/// Twenty commands of a device that took a long time to be handed over.
async fn slow_commands(scene: &Scene) {
    let device = Device::enroll(&scene.api, &scene.server.admin).await;
    for _ in 0..20 {
        let lock = json!({"type": "message", "text": "hello"});
        scene
            .api
            .post(&format!("/devices/{}/commands", device.id()), &lock)
            .await
            .expect(202);
    }
    let at = now().as_micros();
    let sql =
        format!("UPDATE commands_command SET waited_ms = 45000, delivered_at = {at} WHERE waited_ms IS NULL");
    scene.server.store().await.execute(&sql).await;
}

/// Six violations of ten verdicts, and one a day ago.
async fn spike(scene: &Scene) {
    let store = scene.server.store().await;
    let tenant = store.id(&scene.server.admin.tenant);
    let policy = uuid::Uuid::new_v4();
    let subjects = json!([[format!("pol_{}", policy.simple()), "rule"]]).to_string();
    let (policy, digest, at) = (store.uuid(policy), store.blob(&[7; 32]), now().as_micros());
    store
        .execute(&format!(
            "INSERT INTO compliance_judged VALUES ({tenant}, {digest}, '{subjects}', {at})"
        ))
        .await;
    for number in 0..10_u128 {
        let device = store.uuid(uuid::Uuid::from_u128(number + 1));
        store
            .execute(&format!(
                "INSERT INTO compliance_device (tenant_id, device_id, state, policies_sha256, judged_sha256, evaluated_at, \
                 logged_hour, logged) VALUES ({tenant}, {device}, 'compliant', '', {digest}, {at}, 0, 0)"
            ))
            .await;
        if number < 6 {
            store
                .execute(&format!(
                    "INSERT INTO compliance_violation (tenant_id, violation_id, device_id, policy_id, subject, severity, reason, \
                     since, steps_done) VALUES ({tenant}, {device}, {device}, {policy}, 'rule', 'low', 'r', {at}, 0)"
                ))
                .await;
        }
    }
    let yesterday = at / 3_600_000_000 - 25;
    store
        .execute(&format!(
            "INSERT INTO compliance_share VALUES ({tenant}, {policy}, 'rule', {yesterday}, 1, 10)"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_four_alerts_fire_and_end_at_every_kind_of_destination() {
    each_database(async |options| {
        let Some(scene) = Scene::start(options).await else {
            return;
        };
        let promised = [
            "enrollment_failure_rate",
            "policy_violation_spike",
            "command_queue_latency",
            "certificate_expiry",
        ];
        for rule in promised {
            scene.tell_everyone(rule, None).await;
        }
        spike(&scene).await;
        refused_enrollments(&scene).await;
        slow_commands(&scene).await;
        let days = |days: u64| now().plus(Duration::from_secs(days * 86_400)).to_string();
        scene
            .api
            .put(
                "/expiries/push",
                &json!({"expires_at": days(20), "note": "vendor"}),
            )
            .await
            .ok();
        for rule in promised {
            let alert = scene.is(rule, "firing").await;
            scene.everyone_heard(&alert, "firing").await;
        }

        // The conditions end: by themselves where the test can make them, by another threshold where only time can.
        scene
            .api
            .put("/expiries/push", &json!({"expires_at": days(400)}))
            .await
            .ok();
        let store = scene.server.store().await;
        store
            .execute("UPDATE commands_command SET waited_ms = 5 WHERE waited_ms IS NOT NULL")
            .await;
        scene
            .tell_everyone(
                "policy_violation_spike",
                Some("policy_violation_increase_24h > 999999%"),
            )
            .await;
        scene
            .tell_everyone(
                "enrollment_failure_rate",
                Some("enrollment_failure_rate_1h > 100%"),
            )
            .await;
        for rule in promised {
            let alert = scene.is(rule, "resolved").await;
            scene.everyone_heard(&alert, "resolved").await;
        }
        assert!(scene.pagers.signatures_verify().await);
        let mail = scene.mail.taken();
        let head = &mail[0]["headers"];
        assert_eq!(head["Auto-Submitted"], "auto-generated", "{head}");
        assert!(mail[0]["parts"]["text/html"].is_string() && mail[0]["parts"]["text/plain"].is_string());
        assert_eq!(
            scene.api.list("/alert-deliveries?state=dead").await,
            Vec::<Value>::new()
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn m6_a_halt_reaches_the_pager_within_a_minute_and_its_lift_ends_it() {
    let Some(scene) = Scene::start(Options::default()).await else {
        return;
    };
    scene
        .api
        .post("/halt", &json!({"reason": "a stolen session"}))
        .await
        .ok();
    let dedup = eventually("the pager is told", ARRIVAL, async || {
        let heard = scene.pagers.heard("/v2/enqueue");
        heard.first().map(|heard| text(&heard.body["dedup_key"]))
    })
    .await;
    scene
        .api
        .post("/halt/lift", &json!({"reason": "session ended"}))
        .await
        .ok();
    eventually("the pager hears of the end", ARRIVAL, async || {
        let heard = scene.pagers.heard("/v2/enqueue");
        let is_end = |body: &Value| body["event_action"] == "resolve" && body["dedup_key"] == dedup.as_str();
        heard.iter().any(|heard| is_end(&heard.body)).then_some(())
    })
    .await;
    assert!(
        scene.pagers.heard("/services/").is_empty(),
        "Slack is not named by this rule"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_button_reaches_every_kind_of_destination() {
    let Some(scene) = Scene::start(Options::default()).await else {
        return;
    };
    for destination in KINDS.into_iter().chain(["alertmanager", "email"]) {
        let sent = scene
            .api
            .post(&format!("/alert-destinations/{destination}/test"), &json!({}))
            .await
            .expect(202);
        for item in sent["items"].as_array().expect("messages") {
            let id = text(&item["id"]);
            eventually(
                &format!("{destination} takes {}", item["event"]),
                ARRIVAL,
                async || {
                    let all = scene.api.list("/alert-deliveries").await;
                    let found = all.into_iter().find(|delivery| delivery["id"] == id.as_str())?;
                    assert_ne!(found["state"], "dead", "{found}");
                    (found["state"] == "delivered").then_some(())
                },
            )
            .await;
        }
    }
    assert!(
        scene
            .mail
            .taken()
            .iter()
            .any(|mail| mail["subject"] == "[TEST] Test message")
    );
    let log = scene.server.log();
    for secret in [crate::support::pagers::ROUTING_KEY, "open sesame", "XXXXXXXX"] {
        assert!(!log.contains(secret), "the log holds no secret");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l6_a_destination_in_trouble_is_tried_again_and_what_it_refuses_is_given_up_and_replayed() {
    let Some(scene) = Scene::start(Options::default()).await else {
        return;
    };
    let trouble = |path, status, times, retry_after| Trouble {
        path,
        status,
        times,
        retry_after,
    };
    scene.pagers.trouble(trouble("/v2/enqueue", 503, 2, None));
    scene.pagers.trouble(trouble("/services/", 400, 1, None));
    scene.pagers.trouble(trouble("/workflows/", 429, 1, Some(3)));
    for destination in ["pagerduty", "slack", "teams"] {
        scene
            .api
            .post(&format!("/alert-destinations/{destination}/test"), &json!({}))
            .await
            .expect(202);
    }
    let of = async |destination: &str| {
        let all = scene.api.list("/alert-deliveries").await;
        let of_it = all
            .into_iter()
            .filter(|delivery| delivery["destination"] == destination && delivery["alert"].is_null());
        of_it.collect::<Vec<_>>()
    };
    eventually("everything came to its end", ARRIVAL, async || {
        let all = scene.api.list("/alert-deliveries").await;
        let tests: Vec<_> = all
            .iter()
            .filter(|delivery| delivery["alert"].is_null())
            .collect();
        (tests.len() == 6 && tests.iter().all(|delivery| delivery["state"] != "waiting")).then_some(())
    })
    .await;
    let first = |deliveries: &[Value]| {
        deliveries
            .iter()
            .find(|one| one["event"] == "test")
            .expect("it is there")
            .clone()
    };
    let pager = first(&of("pagerduty").await);
    assert_eq!(
        (&pager["state"], &pager["attempts"]),
        (&json!("delivered"), &json!(3))
    );
    let teams = first(&of("teams").await);
    assert_eq!(
        (&teams["state"], &teams["attempts"]),
        (&json!("delivered"), &json!(2))
    );
    let slack = of("slack").await;
    let dead = first(&slack);
    assert_eq!(
        (&dead["state"], &dead["status"], &dead["attempts"]),
        (&json!("dead"), &json!(400), &json!(1))
    );
    let later = slack
        .iter()
        .find(|one| one["event"] == "resolved")
        .expect("it is there");
    assert_eq!(later["state"], "delivered", "what is refused holds up nothing");
    let failing = scene.is("destination_failing", "firing").await;
    assert_eq!(failing["objects"][0]["object"], "slack");

    let id = text(&dead["id"]);
    scene
        .api
        .post(&format!("/alert-deliveries/{id}/replay"), &json!({}))
        .await
        .ok();
    eventually("it arrives", ARRIVAL, async || {
        (first(&of("slack").await)["state"] == "delivered").then_some(())
    })
    .await;
    scene.is("destination_failing", "resolved").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn j7_a_destination_on_this_machine_is_refused_unless_it_is_allowed() {
    let server = Server::start(Options::default()).await;
    let (api, pagers) = (server.api().await, Pagers::start().await);
    let port = pagers.origin.rsplit_once(':').expect("a port").1;
    let spellings = [
        "127.0.0.1",
        "localhost",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "169.254.169.254",
    ];
    for (number, host) in spellings.into_iter().enumerate() {
        for scheme in ["http", "https"] {
            let name = format!("hook-{scheme}-{number}");
            let mut body = pagers.destination("webhook");
            body["place"]["url"] = format!("{scheme}://{host}:{port}/hook").into();
            api.put(&format!("/alert-destinations/{name}"), &body).await.ok();
            api.post(&format!("/alert-destinations/{name}/test"), &json!({}))
                .await
                .expect(202);
        }
    }
    eventually("every message was tried", PATIENCE, async || {
        let all = api.list("/alert-deliveries?limit=500").await;
        let firsts: Vec<_> = all
            .iter()
            .filter(|delivery| delivery["event"] == "test")
            .collect();
        let is_refused = |delivery: &&&Value| {
            delivery["error"]
                .as_str()
                .is_some_and(|error| error.contains("not on the public internet"))
        };
        (firsts.iter().filter(is_refused).count() == spellings.len() * 2).then_some(())
    })
    .await;
    assert_eq!(pagers.asked("/"), 0, "nobody was connected to");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_one_tells_and_the_other_takes_over() {
    on_postgres(async |options| {
        let Some(mut scene) = Scene::start(options).await else {
            return;
        };
        let second = scene.server.second_node().await;
        scene.api.post("/halt", &json!({"reason": "one"})).await.ok();
        let begun = async |number: usize| {
            eventually(&format!("the pager hears {number} begin"), ARRIVAL, async || {
                let heard = scene.pagers.heard("/v2/enqueue");
                let begun = heard
                    .iter()
                    .filter(|heard| heard.body["event_action"] == "trigger")
                    .count();
                assert!(begun <= number, "nothing is told twice while nobody dies");
                (begun == number).then_some(())
            })
            .await;
        };
        begun(1).await;
        scene
            .api
            .post("/halt/lift", &json!({"reason": "over"}))
            .await
            .ok();
        scene.is("delivery_halted", "resolved").await;
        scene.server.kill().await;
        let api = second.api().await;
        api.post("/halt", &json!({"reason": "two"})).await.ok();
        eventually("the other node tells", ARRIVAL, async || {
            let heard = scene.pagers.heard("/v2/enqueue");
            let begun = heard
                .iter()
                .filter(|heard| heard.body["event_action"] == "trigger")
                .count();
            (begun >= 2).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pager_that_is_removed_is_told_so_where_it_was() {
    each_database(async |options| {
        let Some(scene) = Scene::start(options).await else {
            return;
        };
        for (kind, path) in [
            ("pagerduty", "/v2/enqueue"),
            ("webhook", "/hook"),
            ("slack", "/services/"),
        ] {
            scene
                .api
                .delete(&format!("/alert-destinations/{kind}"))
                .await
                .expect(204);
            eventually(&format!("{kind} hears that it is removed"), ARRIVAL, async || {
                let heard = scene.pagers.heard(path);
                heard
                    .iter()
                    .any(|heard| heard.raw.contains(&format!("The destination {kind} was removed")))
                    .then_some(())
            })
            .await;
        }
        // Nothing of it is left but the message.
        let store = scene.server.store().await;
        // It is heard a moment before that is written.
        eventually("a secret goes with its message", ARRIVAL, async || {
            let sealed = store
                .value("SELECT COUNT(*) FROM alerts_delivery WHERE secret IS NOT NULL")
                .await;
            (sealed.integer() == 0).then_some(())
        })
        .await;
    })
    .await;
}
