//! Every other kind of sink end to end: what happens in a server arrives where it should, at least once, in order, whatever breaks.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::{
    log_search::judged_valid,
    support::{
        PATIENCE,
        database::each_database,
        device::Device,
        eventually,
        objects::python,
        receivers::NATS_TOKEN,
        server::{Options, assert_healthy},
        siem::{Arrived, CLIENT_SECRET, HEC_PLAIN_TOKEN, HEC_TOKEN, first_places},
        sinks::{ARRIVAL, BUCKET, Bucket, Peer, Scene, Stream, Syslog, Vendor, upload},
    },
};

/// Everything of both streams arrived, nothing is missing, and what came first came in order. Answers how often something came
/// again.
fn assert_whole(arrived: &[Arrived], events: u64) -> usize {
    let log = first_places(arrived, "log");
    assert!(!log.is_empty());
    assert_eq!(
        log,
        (0..log.len() as u64).collect::<Vec<u64>>(),
        "the log, whole and in order"
    );
    let of_devices = first_places(arrived, "events");
    assert_eq!(
        of_devices,
        (0..events).collect::<Vec<u64>>(),
        "events, whole and in order"
    );
    arrived.len() - log.len() - of_devices.len()
}

/// The sink is away while a busy tenant's day goes by, and the server dies before and while it catches up.
async fn a_day_away(options: Options, peer: &mut impl Peer, authority: Option<PathBuf>) {
    let mut scene = Scene::start(options, authority).await;
    let device = Device::enroll(&scene.api, &scene.server.admin).await;
    scene.put("siem", peer.sink(), json!({"from": "beginning"})).await;
    scene.drained("siem").await;
    peer.close().await;
    scene.entries(40).await;
    let crash: Vec<_> = (0..30).map(|_| ("crash", "program", "vi")).collect();
    for sequence in 1..=30 {
        upload(&device, sequence, &crash).await;
    }
    scene.failing("siem").await;
    scene.server.kill().await;
    scene.server.restart().await;
    peer.open().await;
    eventually("some arrived", ARRIVAL, async || {
        (first_places(&peer.arrived().await, "events").len() >= 300).then_some(())
    })
    .await;
    scene.server.kill().await;
    scene.server.restart().await;
    scene.api = scene.server.api().await;
    let sink = scene.drained("siem").await;
    assert_eq!(
        (&sink["progress"][1]["missed"], &sink["dead_letters"]),
        (&json!(0), &json!(0)),
        "{sink}"
    );
    // A receiver writes a moment after it has read.
    eventually("everything is there", PATIENCE, async || {
        (first_places(&peer.arrived().await, "events").len() == 900).then_some(())
    })
    .await;
    assert_whole(&peer.arrived().await, 900);
    let shown = scene.api.get("/sinks").await.text() + &scene.server.log();
    for secret in [
        HEC_TOKEN,
        CLIENT_SECRET,
        NATS_TOKEN,
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "PRIVATE KEY",
    ] {
        assert!(!shown.contains(secret), "{secret}");
    }
    assert_healthy(&scene.server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_splunk_down_for_a_simulated_day_then_caught_up_lost_0_order_kept() {
    each_database(async |options| {
        let Some(mut splunk) = Vendor::start("splunk").await else {
            return;
        };
        a_day_away(options, &mut splunk, None).await;
        let indexed = splunk.vendors.indexed();
        assert!(
            indexed
                .iter()
                .all(|event| event["sourcetype"] == "muster:ocsf" && event["index"] == "mdm")
        );
        let Some(python) = python() else { return };
        let lines: Vec<String> = indexed
            .iter()
            .map(|event| event["event"].to_string() + "\n")
            .collect();
        judged_valid(&python, &lines.concat()).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_sentinel_down_for_a_simulated_day_then_caught_up_lost_0_order_kept() {
    let Some(mut sentinel) = Vendor::start("sentinel").await else {
        return;
    };
    a_day_away(Options::default(), &mut sentinel, None).await;
    assert!(sentinel.vendors.tokens() <= 3, "a token is kept while it is good");
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_a_webhook_down_for_a_simulated_day_then_caught_up_lost_0_order_kept() {
    let Some(mut hook) = Vendor::start("webhook").await else {
        return;
    };
    a_day_away(Options::default(), &mut hook, None).await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    hook.vendors.signatures_are_judged(folder.path()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_syslog_down_for_a_simulated_day_then_caught_up_lost_0_order_kept() {
    each_database(async |options| {
        let Some(mut syslog) = Syslog::start("ossl").await else {
            return;
        };
        let authority = syslog.certificates.authority();
        a_day_away(options, &mut syslog, Some(authority)).await;
        let messages = syslog.rsyslog.messages();
        let login = messages
            .iter()
            .find(|message| message["msgid"] == "device.enrolled");
        let login = login.expect("the enrollment is there");
        assert_eq!(
            (&login["app-name"], &login["protocol-version"]),
            (&json!("muster"), &json!("1"))
        );
        assert!(
            login["msg"]
                .as_str()
                .is_some_and(|text| text.trim_start().starts_with("CEF:0|Muster|Muster|"))
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_nats_down_for_a_simulated_day_then_caught_up_lost_0_order_kept() {
    let Some(mut stream) = Stream::start(1024 * 1024).await else {
        return;
    };
    let authority = stream.certificates.authority();
    a_day_away(Options::default(), &mut stream, Some(authority)).await;
    // Within its window of duplicates, the stream keeps one of each.
    assert_eq!(assert_whole(&stream.arrived().await, 900), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_in_s3_hold_everything_once_under_retention_and_a_replay_finds_them_again() {
    each_database(async |options| {
        let Some(bucket) = Bucket::start().await else {
            return;
        };
        let mut scene = Scene::start(options, None).await;
        let device = Device::enroll(&scene.api, &scene.server.admin).await;
        scene
            .put("lake", bucket.sink(), json!({"from": "beginning"}))
            .await;
        let crash: Vec<_> = (0..30).map(|_| ("crash", "program", "vi")).collect();
        for sequence in 1..=20 {
            upload(&device, sequence, &crash).await;
        }
        // In the middle of it, or so.
        scene.server.kill().await;
        scene.server.restart().await;
        scene.api = scene.server.api().await;
        let sink = scene.drained("lake").await;
        assert_eq!(sink["dead_letters"], 0, "{sink}");
        assert_eq!(assert_whole(&bucket.arrived().await, 600), 0);
        let names = bucket.s3.names_in(BUCKET).await;
        let tenant = scene.server.admin.tenant.as_str();
        assert!(
            names
                .iter()
                .all(|name| name.starts_with(&format!("muster/{tenant}/"))),
            "{names:?}"
        );
        let held = bucket.s3.headers_of(BUCKET, &names[0]).await;
        assert_eq!(held["x-amz-object-lock-mode"], "GOVERNANCE");
        assert!(held.contains_key("x-amz-object-lock-retain-until-date"));
        // Cut elsewhere, what is there is found again, but for the rest of one object in whose middle a batch begins.
        scene.put("lake", bucket.sink(), json!({})).await;
        let replay = json!({"from": "beginning"});
        scene.api.post("/sinks/lake/replay", &replay).await.ok();
        scene.drained("lake").await;
        assert!(assert_whole(&bucket.arrived().await, 600) < 500);
        // In another format it stands beside.
        scene.put("lake", bucket.sink(), json!({"format": "json"})).await;
        scene
            .api
            .post(
                "/sinks/lake/replay",
                &json!({"from": "beginning", "stream": "events"}),
            )
            .await
            .ok();
        scene.drained("lake").await;
        assert!(assert_whole(&bucket.arrived().await, 600) >= 600);
        let (ok, step, said) = scene.tested("lake").await;
        assert!(ok && step == "write", "{said}");
        bucket.s3.stop().await;
        let (ok, step, said) = scene.tested("lake").await;
        assert!(!ok && step == "connect", "{said}");
        assert!(!scene.server.log().contains("secret-of-the-bucket"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn splunk_counts_nothing_before_an_indexer_acknowledged_it_and_gets_it_again() {
    let Some(mut splunk) = Vendor::start("splunk").await else {
        return;
    };
    splunk.vendors.hold(true);
    splunk.vendors.busy(2);
    let scene = Scene::start(Options::default(), None).await;
    scene
        .put(
            "siem",
            splunk.sink(),
            json!({"streams": ["log"], "from": "beginning"}),
        )
        .await;
    eventually("the collector has events", ARRIVAL, async || {
        (splunk.vendors.pending() > 0).then_some(())
    })
    .await;
    let sink = scene.shown("siem").await;
    assert_eq!(sink["progress"][0]["taken"], 0, "{sink}");
    // The collector dies with what no indexer had.
    splunk.close().await;
    scene.failing("siem").await;
    splunk.vendors.hold(false);
    splunk.open().await;
    scene.drained("siem").await;
    assert_whole(&splunk.arrived().await, 0);
    // A token that acknowledges nothing is not enough, unless that is wanted.
    let mut plain = splunk.sink();
    plain["secret"] = HEC_PLAIN_TOKEN.into();
    scene
        .put("plain", plain.clone(), json!({"streams": ["log"]}))
        .await;
    let (ok, step, said) = scene.tested("plain").await;
    assert!(
        !ok && step == "write" && said.contains("acknowledgment"),
        "{said}"
    );
    plain["place"]["acknowledge"] = false.into();
    scene
        .put("plain", plain, json!({"streams": ["log"], "format": "cef"}))
        .await;
    let (ok, _, said) = scene.tested("plain").await;
    assert!(ok, "{said}");
    let is_test = |event: &Value| {
        let line = event["event"].as_str().unwrap_or_default();
        line.starts_with("CEF:0|Muster|") && line.contains("act=sink.test ")
    };
    assert!(splunk.vendors.indexed().iter().any(is_test));
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_poison_is_set_aside_alone_by_every_kind_and_arrives_when_it_is_mended() {
    for kind in ["splunk", "sentinel", "webhook"] {
        let Some(vendor) = Vendor::start(kind).await else {
            return;
        };
        let scene = Scene::start(Options::default(), None).await;
        let device = Device::enroll(&scene.api, &scene.server.admin).await;
        vendor.vendors.poison(Some("badapp"));
        scene
            .put("siem", vendor.sink(), json!({"streams": ["events"]}))
            .await;
        let events = [
            ("crash", "program", "good1"),
            ("crash", "program", "badapp"),
            ("crash", "program", "good2"),
            ("crash", "program", "good3"),
        ];
        upload(&device, 1, &events).await;
        let sink = scene.drained("siem").await;
        assert_eq!(sink["dead_letters"], 1, "{kind}: {sink}");
        assert_eq!(
            first_places(&vendor.arrived().await, "events"),
            [0, 2, 3],
            "{kind}"
        );
        let dead = scene.api.list("/sinks/siem/dead-letters").await;
        assert_eq!(
            (&dead[0]["place"], &dead[0]["event_name"]),
            (&json!(1), &json!("crash"))
        );
        vendor.vendors.poison(None);
        scene
            .api
            .post("/sinks/siem/dead-letters/replay", &json!({}))
            .await
            .ok();
        eventually("nothing is set aside", ARRIVAL, async || {
            (scene.shown("siem").await["dead_letters"] == 0).then_some(())
        })
        .await;
        assert_eq!(first_places(&vendor.arrived().await, "events").len(), 4, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_busy_is_waited_for() {
    for kind in ["splunk", "sentinel", "webhook"] {
        let Some(vendor) = Vendor::start(kind).await else {
            return;
        };
        let scene = Scene::start(Options::default(), None).await;
        vendor.vendors.busy(2);
        vendor.vendors.statuses(&[503, 429]);
        scene
            .put(
                "siem",
                vendor.sink(),
                json!({"streams": ["log"], "from": "beginning"}),
            )
            .await;
        let sink = scene.drained("siem").await;
        assert_eq!(sink["dead_letters"], 0, "{kind}: {sink}");
        assert_whole(&vendor.arrived().await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_test_says_at_which_step_each_kind_fails() {
    let Some(mut vendor) = Vendor::start("splunk").await else {
        return;
    };
    let scene = Scene::start(Options::default(), None).await;
    for kind in ["splunk", "sentinel", "webhook"] {
        scene.put(kind, vendor.vendors.sink(kind), json!({})).await;
        let (ok, step, said) = scene.tested(kind).await;
        assert!(ok && step == "write", "{kind}: {said}");
    }
    for (kind, secret) in [("splunk", "wrong"), ("sentinel", "wrong")] {
        let mut sink = vendor.vendors.sink(kind);
        sink["secret"] = secret.into();
        scene.put(kind, sink, json!({})).await;
        let (ok, step, said) = scene.tested(kind).await;
        assert!(!ok && step == "authenticate", "{kind}: {said}");
    }
    let mut sink = vendor.vendors.sink("sentinel");
    sink["place"]["rule"] = "dcr-another".into();
    scene.put("sentinel", sink, json!({})).await;
    let (ok, step, said) = scene.tested("sentinel").await;
    assert!(!ok && step == "write" && said.contains("404"), "{said}");
    let mut sink = vendor.vendors.sink("splunk");
    sink["place"]["index"] = "another".into();
    scene.put("splunk", sink, json!({})).await;
    let (ok, step, said) = scene.tested("splunk").await;
    assert!(
        !ok && step == "write" && said.contains("Incorrect index"),
        "{said}"
    );
    // What is new is sent meanwhile, and gets some of them.
    vendor.vendors.statuses(&[403; 20]);
    let (ok, step, said) = scene.tested("webhook").await;
    assert!(!ok && step == "authenticate", "{said}");
    vendor.close().await;
    for kind in ["splunk", "webhook"] {
        let (ok, step, said) = scene.tested(kind).await;
        assert!(!ok && step == "connect", "{kind}: {said}");
    }
    // Where nothing may be sent.
    let to = |place: Value, secret: Value| json!({"place": place, "secret": secret, "streams": ["log"]});
    let metadata = "169.254.169.254";
    let hook = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let nowhere = [
        to(
            json!({"kind": "splunk", "url": format!("https://{metadata}")}),
            "x".into(),
        ),
        to(
            json!({"kind": "webhook", "url": format!("https://{metadata}/latest")}),
            hook.into(),
        ),
        to(json!({"kind": "syslog", "host": metadata}), Value::Null),
        to(
            json!({"kind": "nats", "url": format!("tls://{metadata}:4222")}),
            Value::Null,
        ),
        to(
            json!({"kind": "s3", "url": format!("https://{metadata}"), "region": "r", "access_key_id": "AK"}),
            "x".into(),
        ),
        to(
            json!({"kind": "syslog", "host": "8.8.8.8", "port": 601, "security": "plain"}),
            Value::Null,
        ),
        to(json!({"kind": "nats", "url": "nats://8.8.8.8:4222"}), Value::Null),
    ];
    for (number, sink) in nowhere.iter().enumerate() {
        let name = format!("inside-{number}");
        scene.api.put(&format!("/sinks/{name}"), sink).await.ok();
        let (ok, step, said) = scene.tested(&name).await;
        assert!(!ok && step == "resolve", "{sink}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rsyslog_takes_events_from_the_certificate_that_it_knows_alone() {
    let Some(syslog) = Syslog::start("ossl").await else {
        return;
    };
    let scene = Scene::start(Options::default(), Some(syslog.certificates.authority())).await;
    scene
        .put(
            "siem",
            syslog.sink(),
            json!({"streams": ["log"], "format": "ocsf"}),
        )
        .await;
    let (ok, step, said) = scene.tested("siem").await;
    assert!(ok && step == "write", "{said}");
    let test = eventually("the test arrives", PATIENCE, async || {
        syslog
            .rsyslog
            .messages()
            .into_iter()
            .find(|message| message["msgid"] == "sink.test")
    })
    .await;
    let document: Value =
        serde_json::from_str(test["msg"].as_str().expect("text").trim_start()).expect("it is JSON");
    assert_eq!(document["metadata"]["event_code"], "sink.test");
    // Nobody's certificate, and one that it does not know.
    let mut sink = syslog.sink();
    sink["secret"] = Value::Null;
    sink["place"]
        .as_object_mut()
        .expect("members")
        .remove("client_certificate");
    scene
        .put("nobody", sink, json!({"streams": ["log"], "from": "beginning"}))
        .await;
    let (ok, _, said) = scene.tested("nobody").await;
    assert!(!ok, "{said}");
    scene.failing("nobody").await;
    assert_eq!(scene.shown("nobody").await["progress"][0]["taken"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_does_not_answer_the_end_confirms_nothing_unless_that_is_wanted() {
    // rsyslog with GnuTLS ends connections without saying so.
    let Some(syslog) = Syslog::start("gtls").await else {
        return;
    };
    let scene = Scene::start(Options::default(), Some(syslog.certificates.authority())).await;
    scene
        .put(
            "siem",
            syslog.sink(),
            json!({"streams": ["log"], "from": "beginning"}),
        )
        .await;
    let why = scene.failing("siem").await;
    assert!(why.contains("before the receiver said that it is done"), "{why}");
    assert_eq!(scene.shown("siem").await["progress"][0]["taken"], 0);
    let mut sink = syslog.sink();
    sink["place"]["confirm"] = false.into();
    scene.put("siem", sink, json!({"streams": ["log"]})).await;
    scene.drained("siem").await;
    eventually("everything is there", PATIENCE, async || {
        (!first_places(&syslog.arrived().await, "log").is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_sets_aside_what_its_stream_refuses_and_says_at_which_step_it_fails() {
    let Some(mut stream) = Stream::start(500).await else {
        return;
    };
    let scene = Scene::start(Options::default(), Some(stream.certificates.authority())).await;
    let device = Device::enroll(&scene.api, &scene.server.admin).await;
    scene
        .put("bus", stream.sink(), json!({"streams": ["events"]}))
        .await;
    // The stream takes messages of 500 bytes.
    let long = "x".repeat(200);
    let events = [
        ("crash", "program", "vi"),
        ("crash", "program", &*long),
        ("crash", "program", "ed"),
    ];
    upload(&device, 1, &events).await;
    let sink = scene.drained("bus").await;
    assert_eq!(sink["dead_letters"], 1, "{sink}");
    assert_eq!(first_places(&stream.arrived().await, "events"), [0, 2]);
    let (_, step, said) = scene.tested("bus").await;
    assert_eq!(step, "write", "{said}");
    let mut sink = stream.sink();
    sink["secret"] = "wrong".into();
    scene.put("bus", sink, json!({})).await;
    let (ok, step, said) = scene.tested("bus").await;
    assert!(
        !ok && step == "authenticate" && said.contains("Authorization"),
        "{said}"
    );
    let mut sink = stream.sink();
    sink["place"]["subject"] = "elsewhere".into();
    scene.put("bus", sink, json!({})).await;
    let (ok, step, said) = scene.tested("bus").await;
    assert!(!ok && step == "write" && said.contains("no stream"), "{said}");
    let mut sink = stream.sink();
    sink["place"]["url"] = format!("nats://localhost:{}", stream.nats.port).into();
    scene.put("bus", sink, json!({})).await;
    let (ok, step, said) = scene.tested("bus").await;
    assert!(!ok && step == "tls", "{said}");
    stream.close().await;
    let (ok, step, said) = scene.tested("bus").await;
    assert!(!ok && step == "connect", "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_secrets_of_sinks_do_not_follow_them_and_formats_fit_their_places() {
    let scene = Scene::start(Options::default(), None).await;
    let place = |url: &str| json!({"kind": "splunk", "url": url});
    let sink = json!({"place": place("https://splunk.example.com:8088"), "secret": HEC_TOKEN});
    scene.api.put("/sinks/siem", &sink).await.ok();
    assert_eq!(scene.shown("siem").await["format"], "ocsf");
    let moved = json!({"place": place("https://thief.example.com:8088")});
    scene.api.put("/sinks/siem", &moved).await.expect(400);
    for wrong in [
        json!({"place": place("https://splunk.example.com:8088")}),
        json!({"place": {"kind": "webhook", "url": "https://hooks.example.com"}, "secret": "whsec_short"}),
        json!({"place": {"kind": "syslog", "host": "logs.example.com"}, "secret": "not a key"}),
        json!({"place": {"kind": "sentinel", "url": "https://x.azure.com", "rule": "r", "stream": "s", "directory": "d", "client_id": "c"}, "secret": "x", "format": "cef"}),
    ] {
        scene.api.put("/sinks/other", &wrong).await.expect(400);
    }
    let dead = scene.api.list("/sinks/siem/dead-letters").await;
    assert!(dead.is_empty());
}
