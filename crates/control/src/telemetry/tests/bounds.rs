//! Each batch counts once, in its place in time, and no table grows without end.

use muster_model::{Timestamp, telemetry::Window};
use muster_storage::{Scope, Tx, testing::on_both};

use super::{DAY, batch, device, event, send, series, settle_all, stream, windows, writers};
use crate::{
    MIGRATIONS,
    access::problem::Problem,
    policy::testing::Scene,
    telemetry::{
        self, CLOCK_ROWS_MAX, EVENT_RETENTION, EVENTS_MAX, EventFilter, Level, STREAMS_MAX, Taken, store,
    },
};

fn now(scene: &Scene) -> Timestamp {
    scene.app.clock.now()
}

async fn read<T: Send + 'static>(
    scene: &Scene,
    job: impl FnOnce(&mut Tx) -> Result<T, Problem> + Send + 'static,
) -> T {
    scene
        .app
        .db
        .read(Scope::Tenant(scene.tenant.uuid()), job)
        .await
        .expect("the database answers")
}

/// Chunks, windows and bytes at a level.
async fn held(scene: &Scene, level: Level) -> (u64, u64, u64) {
    let tenant = scene.tenant;
    read(scene, move |tx| Ok(store::held_chunks(tx, tenant, level)?)).await
}

async fn waiting(scene: &Scene) -> u64 {
    let tenant = scene.tenant;
    read(scene, move |tx| Ok(store::spool_held(tx, tenant)?)).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_comes_again_counts_once_before_and_after_it_is_merged() {
    on_both(MIGRATIONS, async |database| {
        let scene = Scene::new(database.db().clone()).await;
        let _writers = writers(&scene);
        let at = now(&scene);
        let whose = (scene.tenant, device(1));
        let first = || {
            let windows = windows(at.as_unix_seconds() - 600, 300, &[0.5; 12]);
            let mut batch = batch(1, at, vec![series("battery_level_ratio", windows)]);
            batch.events = vec![event(1, "crash", at)];
            batch
        };
        let is_new = async |batch| send(&scene, whose, None, batch).await.expect("it is taken");
        let taken = |is_new, accepted_through| Taken {
            is_new,
            accepted_through,
        };
        assert_eq!(is_new(first()).await, taken(true, 1));
        assert_eq!(is_new(first()).await, taken(false, 1));
        settle_all(&scene).await;
        assert_eq!(waiting(&scene).await, 0);
        assert_eq!(is_new(first()).await, taken(false, 1));
        // A number that was left out never comes later.
        assert_eq!(is_new(batch(3, at, Vec::new())).await, taken(true, 3));
        assert_eq!(is_new(batch(2, at, Vec::new())).await, taken(false, 3));
        settle_all(&scene).await;
        let (_, points, bytes) = held(&scene, Level::Raw).await;
        assert_eq!(points, 12);
        assert!(bytes < 12 * 16, "{bytes} bytes");
        let tenant = scene.tenant;
        let (events, health) = read(&scene, move |tx| {
            let filter = EventFilter {
                device: Some(device(1)),
                name: Some("crash".to_owned()),
                before: (Timestamp::from_micros(i64::MAX), uuid::Uuid::max()),
            };
            let events = telemetry::events(tx, tenant, &filter, 10)?;
            Ok((events, telemetry::device_health(tx, tenant, device(1))?))
        })
        .await;
        assert_eq!(events.len(), 1);
        assert_eq!(
            (
                health.streams[0].batches,
                health.streams[0].points,
                health.streams[0].accepted_through
            ),
            (2, 12, 3)
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_corrected_and_shown() {
    on_both(MIGRATIONS, async |database| {
        let scene = Scene::new(database.db().clone()).await;
        let _writers = writers(&scene);
        let at = now(&scene);
        let ahead = Timestamp::from_unix_seconds(at.as_unix_seconds() + 5 * 3600);
        let of_device = windows(ahead.as_unix_seconds(), 300, &[1.0, 2.0]);
        let mut sent = batch(1, ahead, vec![series("load1", of_device)]);
        sent.events = vec![event(1, "crash", ahead)];
        send(&scene, (scene.tenant, device(1)), None, sent)
            .await
            .expect("taken");
        let latest = telemetry::latest(&scene.app, scene.tenant, device(1))
            .await
            .expect("asked");
        assert_eq!(
            latest
                .iter()
                .map(|latest| (latest.at, latest.value))
                .collect::<Vec<_>>(),
            [(at.as_unix_seconds() - 300, 2.0)]
        );
        let tenant = scene.tenant;
        let (event, health) = read(&scene, move |tx| {
            let filter = EventFilter {
                device: None,
                name: None,
                before: (Timestamp::from_micros(i64::MAX), uuid::Uuid::max()),
            };
            let events = telemetry::events(tx, tenant, &filter, 10)?;
            Ok((
                events[0].clone(),
                telemetry::device_health(tx, tenant, device(1))?,
            ))
        })
        .await;
        assert_eq!((event.at, event.device_at), (at, ahead));
        assert_eq!(health.streams[0].clock_offset, Some(-5 * 3600 * 1_000_000));
        assert_eq!(health.clock[0].offset, -5 * 3600 * 1_000_000);
        // One that waited on the device for two weeks is no wrong clock.
        let made = Timestamp::from_unix_seconds(at.as_unix_seconds() - 14 * DAY);
        let old = windows(made.as_unix_seconds(), 300, &[7.0]);
        let sent = batch(2, made, vec![series("load1", old)]);
        send(&scene, (scene.tenant, device(1)), None, sent)
            .await
            .expect("taken");
        let health = read(&scene, move |tx| telemetry::device_health(tx, tenant, device(1))).await;
        assert_eq!((health.streams[0].clock_offset, health.clock.len()), (None, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_table_grows_without_end() {
    on_both(MIGRATIONS, async |database| {
        let scene = Scene::new(database.db().clone()).await;
        let _writers = writers(&scene);
        let whose = (scene.tenant, device(1));
        // A year of one window a day, of many streams, with a clock that is wrong each hour and more events than are kept.
        let mut number = 0;
        for day in 0..410 {
            let at = now(&scene);
            let hour = i64::from(day % 24) * 3600;
            let windows: Vec<Window> = windows(at.as_unix_seconds() - hour, 300, &[0.5]);
            let mut sent = batch(1 + day as u64, at, vec![series("load1", windows)]);
            sent.stream = stream(1 + (day / 20) as u8);
            sent.events = (0..4)
                .map(|_| {
                    number += 1;
                    event(number, "crash", at)
                })
                .collect();
            send(&scene, whose, Some(3600 * 1_000_000 + i64::from(day)), sent)
                .await
                .expect("taken");
            scene.pass_seconds(DAY);
            if day % 10 == 0 {
                settle_all(&scene).await;
            }
        }
        settle_all(&scene).await;
        telemetry::forget_expired(&scene.app).await.expect("forgotten");
        let (raw, hours, days) = (
            held(&scene, Level::Raw).await,
            held(&scene, Level::Hour).await,
            held(&scene, Level::Day).await,
        );
        assert!(raw.0 <= 11, "{raw:?}");
        assert!(hours.0 <= 15, "{hours:?}");
        assert!(days.0 <= 10, "{days:?}");
        assert_eq!(waiting(&scene).await, 0);
        let tenant = scene.tenant;
        let (health, events) = read(&scene, move |tx| {
            let filter = EventFilter {
                device: Some(device(1)),
                name: None,
                before: (Timestamp::from_micros(i64::MAX), uuid::Uuid::max()),
            };
            let events = telemetry::events(tx, tenant, &filter, 5000)?;
            Ok((telemetry::device_health(tx, tenant, device(1))?, events))
        })
        .await;
        assert!(health.streams.len() <= STREAMS_MAX, "{}", health.streams.len());
        assert!(health.clock.len() <= CLOCK_ROWS_MAX, "{}", health.clock.len());
        let oldest = events.last().expect("there are events").received_at;
        assert!(events.len() <= EVENTS_MAX && now(&scene).since(oldest) <= EVENT_RETENTION);
        // The next enrollment ends the streams of the one before.
        let mut sent = batch(1, now(&scene), Vec::new());
        sent.epoch = 2;
        send(&scene, whose, None, sent).await.expect("taken");
        let health = read(&scene, move |tx| telemetry::device_health(tx, tenant, device(1))).await;
        assert_eq!((health.streams.len(), health.streams[0].epoch), (1, 2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_storm_leaves_room_for_the_others() {
    on_both(MIGRATIONS, async |database| {
        let scene = Scene::new(database.db().clone()).await;
        let other = scene.beside().await;
        let app = &scene.app;
        // Nobody writes yet: the storm takes all that it can get.
        let mut held = Vec::new();
        let refused = loop {
            let sender = device(held.len() as u128 + 10);
            match telemetry::admit(app, scene.tenant, sender, (1000, 1 << 20)) {
                Ok(room) => held.push(room),
                Err(problem) => break problem,
            }
            assert!(held.len() < 100_000, "there is an end");
        };
        assert_eq!((refused.code(), refused.kind.status), ("unavailable", 503));
        assert!(
            refused
                .retry_after_seconds
                .is_some_and(|seconds| (10..=60).contains(&seconds))
        );
        let of_other =
            (0..20).map(|number| telemetry::admit(app, other.tenant, device(number), (1000, 1 << 20)));
        let of_other = of_other
            .collect::<Result<Vec<_>, _>>()
            .expect("the other tenant has room");
        drop((held, of_other));
        assert_eq!(app.telemetry.ingest.under_way(), 0);
        let _writers = writers(&scene);
        let at = now(&scene);
        let sent = batch(
            1,
            at,
            vec![series("load1", windows(at.as_unix_seconds(), 300, &[1.0]))],
        );
        send(&scene, (other.tenant, device(1)), None, sent)
            .await
            .expect("taken");
    })
    .await;
}
