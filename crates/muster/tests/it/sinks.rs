//! Sinks end to end: from what happens in a server to an Elasticsearch, at least once, in order, whatever breaks.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    api::Api,
    database::{each_database, on_postgres},
    device::Device,
    elastic::{Elastic, KEY_SECRET, Mood},
    eventually,
    server::{AdminFile, Options, Server, assert_healthy, create_tenant},
    sinks::upload,
};

/// How long events may take to arrive: a pause after a failure, and a slow machine.
const ARRIVAL: Duration = Duration::from_secs(120);
const LOG: &str = "logs-muster.log-default";
const EVENTS: &str = "logs-muster.events-default";

/// A server that may send to this machine, and where it sends to.
struct Scene {
    server: Server,
    api: Api,
    elastic: Elastic,
}

impl Scene {
    /// Without its peer there is none.
    async fn start(options: Options) -> Option<Scene> {
        let elastic = Elastic::start().await;
        if !elastic.is_judged().await {
            return None;
        }
        let server = Server::start(options.with("--egress-allow", "127.0.0.0/8")).await;
        let api = server.api().await;
        Some(Scene { server, api, elastic })
    }

    async fn sink(&self, name: &str, members: Value) {
        self.api
            .put(&format!("/sinks/{name}"), &self.elastic.sink(&members))
            .await
            .ok();
    }

    async fn shown(&self, name: &str) -> Value {
        self.api.get(&format!("/sinks/{name}")).await.ok()
    }

    /// Makes so many entries of the log.
    async fn entries(&self, count: usize) {
        for number in 0..count {
            let path = format!("/expiries/token-{number}");
            let body = json!({"expires_at": "2099-01-01T00:00:00Z", "note": "of another service"});
            self.api.put(&path, &body).await.ok();
        }
    }

    /// Waits until nothing of a sink waits.
    async fn drained(&self, name: &str) -> Value {
        eventually(&format!("{name} has everything"), ARRIVAL, async || {
            let sink = self.shown(name).await;
            let lag = sink["progress"].as_array().expect("streams").iter();
            let lag: u64 = lag
                .map(|stream| stream["lag_events"].as_u64().expect("a number"))
                .sum();
            (lag == 0).then_some(sink)
        })
        .await
    }

    /// What arrived of the log is a whole range of it, each entry once. An index that refuses some of a request takes what stands
    /// behind them first.
    async fn log_is_whole(&self, from: u64) -> u64 {
        let mut places = places(&self.elastic.documents(LOG));
        places.sort_unstable();
        let expected: Vec<u64> = (from..from + places.len() as u64).collect();
        assert_eq!(places, expected, "the log arrives whole, each entry once");
        places.len() as u64
    }

    /// What arrived of the log is a whole range of it, in order, each entry once.
    async fn log_arrived(&self, from: u64) -> u64 {
        let places = places(&self.elastic.documents(LOG));
        let expected: Vec<u64> = (from..from + places.len() as u64).collect();
        assert_eq!(
            places, expected,
            "the log arrives in its order, whole, each entry once"
        );
        places.len() as u64
    }
}

fn places(documents: &[Value]) -> Vec<u64> {
    let place = |document: &Value| document["event"]["sequence"].as_u64().expect("a place");
    documents.iter().map(place).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_and_events_arrive_once_in_order_with_the_names_of_the_common_schema() {
    each_database(async |options| {
        let Some(scene) = Scene::start(options).await else {
            return;
        };
        let device = Device::enroll(&scene.api, &scene.server.admin).await;
        scene.sink("siem", json!({"from": "beginning"})).await;
        upload(
            &device,
            1,
            &[
                ("crash", "program", "vi"),
                ("login", "user", "mia"),
                ("tamper", "setting", "firewall.enabled"),
                ("made_up", "x", "y"),
            ],
        )
        .await;
        scene.entries(5).await;
        let sink = scene.drained("siem").await;
        let count = scene.log_arrived(0).await;
        assert!(sink["progress"][0]["taken"].as_u64() <= Some(count), "{sink}");
        let of_log = scene.elastic.documents(LOG);
        let enrolled = of_log
            .iter()
            .find(|document| document["event"]["action"] == "device.enrolled")
            .expect("the enrollment is there");
        assert_eq!(enrolled["host"]["id"], device.id());
        assert_eq!(enrolled["organization"]["id"], scene.server.admin.tenant.as_str());
        assert!(enrolled["muster"]["detail"].is_string());
        let events = scene.elastic.documents(EVENTS);
        assert_eq!(places(&events), [0, 1, 2, 3]);
        assert_eq!(
            (&events[0]["process"]["name"], &events[1]["user"]["name"]),
            (&json!("vi"), &json!("mia"))
        );
        assert_eq!(
            (
                &events[2]["event"]["kind"],
                &events[2]["muster"]["event"]["setting"]
            ),
            (&json!("alert"), &json!("firewall.enabled"))
        );
        assert_eq!(events[3]["muster"]["other"], r#"{"x":"y"}"#);
        let shown = scene.api.get("/sinks").await.text();
        assert!(!shown.contains(KEY_SECRET) && !scene.server.log().contains(KEY_SECRET));
        eventually("the gauge says so", ARRIVAL, async || {
            (scene.server.metric("mdm_sink_lag_events").await == 0).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_a_sink_that_is_away_for_a_day_gets_everything_in_order_and_nothing_twice() {
    each_database(async |options| {
        let Some(mut scene) = Scene::start(options).await else {
            return;
        };
        let device = Device::enroll(&scene.api, &scene.server.admin).await;
        scene.sink("siem", json!({"from": "beginning"})).await;
        scene.drained("siem").await;
        scene.elastic.close();
        // A day of a busy tenant: more than one batch of each stream.
        scene.entries(40).await;
        let crash: Vec<_> = (0..30).map(|_| ("crash", "program", "vi")).collect();
        for sequence in 1..=30 {
            upload(&device, sequence, &crash).await;
        }
        eventually("the failure is seen", ARRIVAL, async || {
            let sink = scene.shown("siem").await;
            sink["progress"][0]["error"].is_string().then_some(())
        })
        .await;
        // Killed while it is away, and again while it catches up.
        scene.server.kill().await;
        scene.server.restart().await;
        scene.elastic.open().await;
        eventually("some arrived", ARRIVAL, async || {
            (scene.elastic.documents(EVENTS).len() >= 500).then_some(())
        })
        .await;
        scene.server.kill().await;
        scene.server.restart().await;
        scene.api = scene.server.api().await;
        let sink = scene.drained("siem").await;
        scene.log_arrived(0).await;
        let events = scene.elastic.documents(EVENTS);
        assert_eq!(places(&events), (0..900).collect::<Vec<u64>>());
        assert_eq!(
            (&sink["progress"][1]["missed"], &sink["dead_letters"]),
            (&json!(0), &json!(0))
        );
        assert_healthy(&scene.server).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_poison_is_set_aside_sent_again_and_holds_nothing_up() {
    each_database(async |options| {
        let Some(scene) = Scene::start(options).await else {
            return;
        };
        let device = Device::enroll(&scene.api, &scene.server.admin).await;
        scene.elastic.poison(Some("badapp"));
        scene.sink("siem", json!({"streams": ["events"]})).await;
        let events = [
            ("crash", "program", "good1"),
            ("crash", "program", "badapp"),
            ("crash", "program", "good2"),
            ("crash", "program", "good3"),
        ];
        upload(&device, 1, &events).await;
        let sink = scene.drained("siem").await;
        assert_eq!(sink["dead_letters"], 1);
        assert_eq!(places(&scene.elastic.documents(EVENTS)), [0, 2, 3]);
        let dead = scene.api.list("/sinks/siem/dead-letters").await;
        assert_eq!(
            (&dead[0]["place"], &dead[0]["event_name"]),
            (&json!(1), &json!("crash"))
        );
        assert!(
            dead[0]["error"]
                .as_str()
                .is_some_and(|why| why.contains("document_parsing_exception"))
        );
        eventually("somebody is told", ARRIVAL, async || {
            let alerts = scene.api.list("/alerts").await;
            alerts
                .iter()
                .any(|alert| alert["rule"] == "sink_failing" && alert["objects"][0]["object"] == "siem")
                .then_some(())
        })
        .await;
        // Refused once more, it stays; the index mended, it arrives.
        let again = async || {
            scene
                .api
                .post("/sinks/siem/dead-letters/replay", &json!({}))
                .await
                .ok();
        };
        again().await;
        eventually("it was tried again", ARRIVAL, async || {
            let dead = scene.api.list("/sinks/siem/dead-letters").await;
            (dead[0]["again"] == false).then_some(())
        })
        .await;
        scene.elastic.poison(None);
        again().await;
        eventually("it arrives", ARRIVAL, async || {
            (scene.elastic.documents(EVENTS).len() == 4).then_some(())
        })
        .await;
        eventually("nothing is set aside", ARRIVAL, async || {
            (scene.shown("siem").await["dead_letters"] == 0).then_some(())
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_index_is_tried_again_and_a_replay_repeats_under_the_same_ids() {
    let Some(scene) = Scene::start(Options::default()).await else {
        return;
    };
    scene.elastic.busy(3);
    scene
        .sink("siem", json!({"streams": ["log"], "from": "beginning"}))
        .await;
    scene.drained("siem").await;
    let count = scene.log_is_whole(0).await;
    let from = json!({"from": "beginning", "stream": "log"});
    scene.api.post("/sinks/siem/replay", &from).await.ok();
    eventually("it was sent again", ARRIVAL, async || {
        (scene.elastic.repeated(LOG) as u64 >= count).then_some(())
    })
    .await;
    scene.drained("siem").await;
    assert!(scene.log_is_whole(0).await >= count);
    // Paused, nothing leaves; resumed, what waited does.
    let reason = json!({"reason": "upgrade"});
    scene.api.post("/sinks/siem/pause", &reason).await.ok();
    scene.entries(3).await;
    let before = scene.elastic.documents(LOG).len();
    eventually("they wait", ARRIVAL, async || {
        let behind = scene.shown("siem").await;
        (behind["progress"][0]["lag_events"].as_u64() >= Some(3)).then_some(())
    })
    .await;
    scene.api.post("/sinks/siem/resume", &json!({})).await.ok();
    scene.drained("siem").await;
    assert!(scene.elastic.documents(LOG).len() >= before + 3);
    scene.log_is_whole(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_each_tenant_s_events_go_to_its_own_sink_alone() {
    let Some(mut scene) = Scene::start(Options::default()).await else {
        return;
    };
    scene.server.stop().await;
    let other = create_tenant(&scene.server, "beta").await;
    scene.server.restart().await;
    scene.api = scene.server.api().await;
    let made = AdminFile::read(&other);
    let other = AdminFile {
        tenant: made.tenant,
        client_id: made.client_id,
        client_secret: made.client_secret,
        ..scene.server.admin.clone()
    };
    let other = Api::sign_in(&other).await;
    let index = |name: &str| {
        let place = json!({"kind": "elastic", "url": scene.elastic.origin(), "index": name});
        json!({"place": place, "from": "beginning", "streams": ["log"]})
    };
    scene.sink("siem", index("alpha")).await;
    let beta = scene.elastic.sink(&index("beta"));
    other.put("/sinks/siem", &beta).await.ok();
    scene.entries(3).await;
    scene.drained("siem").await;
    eventually("the other tenant's arrive", ARRIVAL, async || {
        (!scene.elastic.documents("beta").is_empty()).then_some(())
    })
    .await;
    let tenants = |index: &str| {
        let documents = scene.elastic.documents(index);
        let mut tenants: Vec<String> = documents
            .iter()
            .map(|document| document["organization"]["id"].to_string())
            .collect();
        tenants.dedup();
        tenants
    };
    let (alpha, beta) = (tenants("alpha"), tenants("beta"));
    assert_eq!((alpha.len(), beta.len()), (1, 1));
    assert_ne!(alpha, beta);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_says_at_which_step_a_sink_fails() {
    let Some(mut scene) = Scene::start(Options::default()).await else {
        return;
    };
    let test = async |members: Value, secret: Option<&str>| {
        let mut body = scene.elastic.sink(&members);
        if let Some(secret) = secret {
            body["secret"] = secret.into();
        }
        scene.api.put("/sinks/probe", &body).await.ok();
        let probe = scene.api.post("/sinks/probe/test", &json!({})).await.ok();
        let last = probe["steps"]
            .as_array()
            .and_then(|steps| steps.last())
            .expect("a step")
            .clone();
        (
            probe["ok"] == true,
            last["step"].as_str().expect("a word").to_owned(),
            last["said"].to_string(),
        )
    };
    let place = |url: String| json!({"place": {"kind": "elastic", "url": url}});
    let (ok, step, said) = test(json!({}), None).await;
    assert!(ok && step == "write", "{said}");
    assert!(
        scene
            .elastic
            .documents(LOG)
            .iter()
            .any(|event| event["event"]["action"] == "sink.test")
    );
    let (ok, step, _) = test(json!({}), Some("d3Jvbmc=")).await;
    assert!(!ok && step == "authenticate");
    let (ok, step, said) = test(place("https://no.such.name.invalid".to_owned()), None).await;
    assert!(
        !ok && step == "resolve" && said.contains("does not resolve"),
        "{step} {said}"
    );
    let (ok, step, said) = test(place("https://169.254.169.254".to_owned()), None).await;
    assert!(
        !ok && step == "resolve" && said.contains("not on the public internet"),
        "{step} {said}"
    );
    let plain = format!("https://127.0.0.1:{}", scene.elastic.port);
    let (ok, step, said) = test(place(plain), None).await;
    assert!(!ok && step == "tls", "{step} {said}");
    scene.elastic.poison(Some("sink.test"));
    let (ok, step, said) = test(json!({}), None).await;
    assert!(
        !ok && step == "write" && said.contains("document_parsing_exception"),
        "{step} {said}"
    );
    scene.elastic.close();
    let body = scene.elastic.sink(&json!({}));
    scene.api.put("/sinks/probe", &body).await.ok();
    let probe = scene.api.post("/sinks/probe/test", &json!({})).await.ok();
    assert_eq!(probe["steps"][1]["step"], "connect");
    assert_eq!(
        (&probe["ok"], &probe["steps"][1]["ok"]),
        (&json!(false), &json!(false))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn j7_a_hostile_sink_gains_nothing_and_holds_up_no_other() {
    let Some(scene) = Scene::start(Options::default()).await else {
        return;
    };
    let (good, bait) = (Elastic::start().await, Elastic::start().await);
    scene
        .sink("siem", json!({"streams": ["log"], "from": "beginning"}))
        .await;
    scene.drained("siem").await;
    let moods = [
        Mood::Huge(8 * 1024 * 1024),
        Mood::Redirect(format!("http://169.254.169.254/latest/meta-data?{}", bait.port)),
        Mood::Redirect(format!("{}/_bulk", bait.origin())),
        Mood::Status(500),
        Mood::Status(302),
    ];
    for mood in moods {
        let before = scene.elastic.requests();
        scene.elastic.mood(mood.clone());
        scene.entries(1).await;
        // Changing it has it tried at once.
        scene.sink("siem", json!({"streams": ["log"]})).await;
        eventually(&format!("{mood:?} was tried"), ARRIVAL, async || {
            let is_failing = scene.shown("siem").await["progress"][0]["error"].is_string();
            (scene.elastic.requests() > before && is_failing).then_some(())
        })
        .await;
    }
    assert_eq!(bait.requests(), 0, "nobody is sent on");
    // One that never answers holds up no other.
    scene.elastic.mood(Mood::Silent);
    let body = good.sink(&json!({"streams": ["log"], "from": "beginning"}));
    scene.api.put("/sinks/good", &body).await.ok();
    scene.drained("good").await;
    let sink = scene.shown("siem").await;
    assert_eq!(sink["dead_letters"], 0, "{sink}");
    scene.elastic.mood(Mood::Well);
    scene.sink("siem", json!({"streams": ["log"]})).await;
    scene.drained("siem").await;
    scene.log_arrived(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_one_sends_and_the_other_takes_over() {
    on_postgres(async |options| {
        let Some(mut scene) = Scene::start(options).await else {
            return;
        };
        let second = scene.server.second_node().await;
        scene
            .sink("siem", json!({"streams": ["log"], "from": "beginning"}))
            .await;
        scene.entries(20).await;
        scene.drained("siem").await;
        assert_eq!(
            scene.elastic.repeated(LOG),
            0,
            "nothing is sent twice while nobody dies"
        );
        scene.server.kill().await;
        scene.api = second.api().await;
        scene.entries(20).await;
        scene.drained("siem").await;
        scene.log_arrived(0).await;
    })
    .await;
}
