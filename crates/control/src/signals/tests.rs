//! What messages say and what becomes of rows, and the bounds of the tables on both engines.

use std::{collections::BTreeMap, time::Duration};

use muster_model::{DeviceId, SignalArrivalId, SignalSourceId, Timestamp, signal::SignalField};
use muster_storage::{Scope, testing::on_both};
use proptest::prelude::*;
use uuid::Uuid;

use super::{
    definition::{Fields, SignalSourceDefinition},
    reconcile,
    rules::{SaidRow, Statement, Took, What, message},
    store::{self, Arrival},
};
use crate::{MIGRATIONS, access::problem::Problem, policy::testing::Scene};

const NOW: Timestamp = Timestamp::from_unix_seconds(1_800_000_000);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_seconds(NOW.as_unix_seconds() + seconds)
}

fn words(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(theirs, ours)| ((*theirs).to_owned(), (*ours).to_owned()))
        .collect()
}

fn read(body: &str) -> Result<Statement, String> {
    let (verdicts, risks) = (words(&[("Infected", "fail")]), words(&[("5", "high")]));
    message(body.as_bytes(), &Fields::default(), (&verdicts, &risks), NOW)
}

#[test]
fn a_message_of_the_documented_form_is_read() {
    let read = read(
        r#"{"device":"SN-1","verdict":"Infected","risk":5,"observed_at":"2027-01-15T07:00:00Z","detail":"Emotet","more":[1]}"#,
    )
    .expect("it is read");
    assert_eq!(read.devices, ["SN-1"]);
    assert_eq!(read.what, [What::Verdict("fail"), What::Risk("high")]);
    assert_eq!((read.at, read.detail.as_deref()), (at(-3600), Some("Emotet")));
}

#[test]
fn a_message_of_another_shape_is_read_by_its_pointers() {
    let fields = Fields {
        device: "/host/serial".to_owned(),
        risk: "/alerts/0/severity".to_owned(),
        observed_at: "/ts".to_owned(),
        ..Fields::default()
    };
    let body = r#"{"host":{"serial":" SN-2 "},"alerts":[{"severity":"LOW"}],"ts":1799999990000}"#;
    let nothing = BTreeMap::new();
    let read = message(body.as_bytes(), &fields, (&nothing, &nothing), NOW).expect("it is read");
    assert_eq!(
        (read.devices, read.what, read.at),
        (vec!["SN-2".to_owned()], vec![What::Risk("low")], at(-10))
    );
}

#[test]
fn what_cannot_be_meant_is_refused_with_the_field() {
    for (body, expected) in [
        ("nonsense", "no JSON"),
        ("{}", "/device names no device"),
        (r#"{"device":""}"#, "/device names no device"),
        (r#"{"device":["a"]}"#, "/device is no text"),
        (r#"{"device":"a"}"#, "neither /verdict nor /risk is there"),
        (
            r#"{"device":"a","verdict":"maybe"}"#,
            "/verdict is neither pass nor fail",
        ),
        (r#"{"device":"a","risk":"extreme"}"#, "/risk is none of low"),
        (
            r#"{"device":"a","risk":"low","observed_at":"yesterday"}"#,
            "/observed_at is no time",
        ),
        (
            r#"{"device":"a","risk":"low","observed_at":7}"#,
            "/observed_at is no time",
        ),
        (
            r#"{"device":"a","risk":"low","observed_at":1800000200}"#,
            "in the future",
        ),
    ] {
        let said = read(body).expect_err(body);
        assert!(said.contains(expected), "{body}: {said}");
    }
}

fn statement(seconds: i64, what: What) -> Statement {
    Statement {
        event: "message".to_owned(),
        devices: Vec::new(),
        people: Vec::new(),
        subject: String::new(),
        what: vec![what],
        at: at(seconds),
        detail: Some(seconds.to_string()),
    }
}

#[test]
fn older_statements_change_nothing_and_repeated_ones_only_their_end() {
    let (mut row, old_until) = (SaidRow::default(), at(-60));
    let mut take = |statement: Statement| row.take(&statement, old_until);
    assert_eq!(take(statement(-10, What::Verdict("fail"))), Took::Changed);
    assert_eq!(take(statement(-10, What::Verdict("fail"))), Took::Again);
    assert_eq!(take(statement(-20, What::Verdict("pass"))), Took::Nothing);
    // Another part of it may be older.
    assert_eq!(take(statement(-20, What::Risk("high"))), Took::Changed);
    assert_eq!(
        (row.observed_at, row.detail.as_deref()),
        (Some(at(-10)), Some("-10"))
    );
    let mut take = |statement: Statement| row.take(&statement, old_until);
    // Times may be whole seconds: what comes later counts.
    assert_eq!(take(statement(-10, What::Verdict("pass"))), Took::Changed);
    assert_eq!(take(statement(-5, What::Verdict("pass"))), Took::Again);
    assert_eq!(take(statement(-5, What::SessionRevoked)), Took::Changed);
    assert_eq!(take(statement(-5, What::SessionRevoked)), Took::Again);
    let signal = row.clone().signal(Duration::from_secs(60));
    let verdict = signal.said(SignalField::Verdict).expect("it was said");
    assert_eq!((verdict.text.as_str(), verdict.until), ("pass", at(55)));
    assert_eq!(signal.ends_next(NOW), Some(at(40)));
    assert_eq!(signal.ends_next(at(45)), Some(at(55)));
    assert_eq!(signal.ends_next(at(55)), None);
    // What counted no more is news when it is said again.
    assert_eq!(
        row.take(&statement(0, What::Verdict("pass")), at(-5)),
        Took::Changed
    );
}

#[test]
fn definitions_are_read_strictly() {
    let check = |text: &str| {
        let read: SignalSourceDefinition = serde_json::from_str(text).map_err(|error| error.to_string())?;
        read.check().map_err(|problem| problem.detail)
    };
    for good in [
        r#"{"from":{"kind":"webhook","authentication":"hmac"}}"#,
        r#"{"from":{"kind":"webhook","authentication":"bearer","fields":{"device":"/host/id"},"risks":{"Crit":"high"}},
            "devices_by":["label:entra_id","serial"]}"#,
        r#"{"from":{"kind":"ssf","issuer":"https://idp.example.com","jwks_url":"https://idp.example.com/jwks"}}"#,
    ] {
        assert_eq!(check(good), Ok(()), "{good}");
    }
    for wrong in [
        r#"{"from":{"kind":"webhook"}}"#,
        r#"{"from":{"kind":"webhook","authentication":"none"}}"#,
        r#"{"from":{"kind":"webhook","authentication":"hmac","fields":{"device":"device"}}}"#,
        r#"{"from":{"kind":"webhook","authentication":"hmac","verdicts":{"bad":"broken"}}}"#,
        r#"{"from":{"kind":"webhook","authentication":"hmac"},"devices_by":[]}"#,
        r#"{"from":{"kind":"webhook","authentication":"hmac"},"devices_by":["hostname"]}"#,
        r#"{"from":{"kind":"webhook","authentication":"hmac"},"max_age_hours":0}"#,
        r#"{"from":{"kind":"ssf","issuer":"https://idp.example.com"}}"#,
        r#"{"from":{"kind":"ssf","issuer":"a","jwks_url":"https://a.example","jwks":"{}"}}"#,
        r#"{"from":{"kind":"ssf","issuer":"a","jwks":"{\"keys\":[]}"}}"#,
        r#"{"from":{"kind":"ssf","issuer":"a","jwks_url":"file:///etc/passwd"}}"#,
        r#"{"from":{"kind":"ssf","issuer":"","jwks_url":"https://a.example"}}"#,
    ] {
        assert!(check(wrong).is_err(), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_has_a_bound_and_what_gets_too_old_is_due() {
    on_both(MIGRATIONS, async |db| {
        let scene = Scene::new(db.db().clone()).await;
        let body = r#"{"from":{"kind":"webhook","authentication":"hmac"},"max_age_hours":1}"#;
        let made = scene.call("PUT", "/signal-sources/edr", Some(body)).await;
        assert_eq!(made.status, 200, "{made:?}");
        let source: SignalSourceId = made.json()["id"]
            .as_str()
            .expect("an id")
            .parse()
            .expect("it is one");
        let (tenant, device) = (scene.tenant, DeviceId::from_uuid(Uuid::from_u128(7)));
        let write = scene.app.db.write(Scope::Tenant(tenant.uuid()), move |tx| {
            for number in 0..5_u8 {
                let then = at(i64::from(number));
                store::unmatch(tx, tenant, source, &format!("SN-{number}"), "nobody", then)?;
                assert!(store::see(tx, tenant, source, &[number], then)?);
                assert!(!store::see(tx, tenant, source, &[number], then)?);
                let arrival = Arrival {
                    id: SignalArrivalId::generate(then, [number; 10]),
                    source: String::new(),
                    arrived_at: then,
                    event: "message".to_owned(),
                    subject: "SN".to_owned(),
                    device: None,
                    devices: 0,
                    outcome: "unmatched".to_owned(),
                    detail: None,
                };
                store::arrived(tx, tenant, source, &arrival)?;
            }
            store::forget_unmatched(tx, tenant, source, at(1), 3)?;
            let left = store::unmatched(tx, tenant, source, 10)?;
            assert_eq!((left.len(), left[0].subject.as_str()), (4, "SN-4"));
            store::forget_unmatched(tx, tenant, source, at(1), 1)?;
            assert_eq!(store::unmatched(tx, tenant, source, 10)?.len(), 2);
            store::forget_seen(tx, tenant, source, at(0), 2)?;
            assert!(store::see(tx, tenant, source, &[0], at(9))?, "it was forgotten");
            assert!(
                !store::see(tx, tenant, source, &[4], at(9))?,
                "the newest are kept"
            );
            store::forget_arrivals(tx, tenant, Uuid::nil(), 2)?;
            assert_eq!(store::arrivals(tx, tenant, Uuid::max(), 10)?.len(), 3);

            // What was said is due at once, and then when it is too old.
            let mut said = SaidRow::default();
            said.take(&statement(0, What::Verdict("fail")), at(-3600));
            store::put_said(tx, tenant, device, source, &said, NOW)?;
            let due = reconcile::due(tx, NOW, 10)?;
            assert_eq!(due.iter().map(|due| due.device).collect::<Vec<_>>(), [device]);
            reconcile::followed(tx, &due[0], NOW)?;
            assert!(reconcile::due(tx, at(3599), 10)?.is_empty());
            assert_eq!(reconcile::due(tx, at(3600), 10)?.len(), 1);
            let signals = super::of_device(tx, tenant, device)?;
            let verdict = signals["edr"].said(SignalField::Verdict).expect("it was said");
            assert_eq!(verdict.until, at(3600));
            // Said again, its end moves, and it is looked at no sooner.
            said.take(&statement(60, What::Verdict("fail")), at(-3600));
            store::put_said(tx, tenant, device, source, &said, at(3660))?;
            let due = reconcile::due(tx, at(3600), 10)?;
            reconcile::followed(tx, &due[0], at(3600))?;
            assert_eq!(reconcile::due(tx, at(3660), 10)?.len(), 1);
            assert_eq!(store::forget_said(tx, tenant, source, at(100), 10)?, 1);
            Ok::<_, Problem>(())
        });
        write.await.expect("it is written");

        // A source that is removed takes what it said along, page by page, and then goes.
        let gone = scene.call("DELETE", "/signal-sources/edr", None).await;
        assert_eq!(gone.status, 204, "{gone:?}");
        super::forget_expired(&scene.app).await.expect("it goes");
        let left = scene.app.db.read(Scope::System, |tx| {
            Ok::<_, Problem>(store::deleted(tx, 10)?.len())
        });
        assert_eq!(left.await.expect("it is read"), 0);
        let keys = scene.app.db.read(Scope::Tenant(tenant.uuid()), move |tx| {
            Ok::<_, Problem>(store::keys(tx, tenant)?.len())
        });
        assert_eq!(
            keys.await.expect("they are read"),
            1,
            "the tenant has a key to sign with"
        );
    })
    .await;
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), value in any::<i64>()) {
        let nothing = BTreeMap::new();
        let _ = message(&bytes, &Fields::default(), (&nothing, &nothing), NOW);
        let body = serde_json::json!({"device": String::from_utf8_lossy(&bytes), "risk": "low", "observed_at": value});
        let _ = message(body.to_string().as_bytes(), &Fields::default(), (&nothing, &nothing), NOW);
    }
}
