//! The questions, answered from what waits and from chunks alike.

use muster_model::telemetry::Window;
use muster_storage::testing::on_both;

use super::{DAY, aggregate, batch, device, send, series, settle_all, windows, writers};
use crate::{
    MIGRATIONS,
    policy::testing::Scene,
    telemetry::{self, End, Movement, Ranked, Span, Statistic},
};

fn now(scene: &Scene) -> i64 {
    scene.app.clock.now().as_unix_seconds()
}

async fn store(scene: &Scene, number: u128, sequence: u64, metric: &str, windows: Vec<Window>) {
    let sent = batch(sequence, scene.app.clock.now(), vec![series(metric, windows)]);
    send(scene, (scene.tenant, device(number)), None, sent)
        .await
        .expect("it is taken");
}

fn close(one: f64, another: f64) -> bool {
    (one - another).abs() < 1e-9
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chart_is_the_same_from_what_waits_and_from_chunks() {
    on_both(MIGRATIONS, async |database| {
        let scene = Scene::new(database.db().clone()).await;
        let _writers = writers(&scene);
        let until = now(&scene) / 900 * 900;
        let mut sketched = windows(until, 300, &[0.0; 6]);
        for (place, window) in sketched.iter_mut().enumerate() {
            let base = place as f64 / 10.0;
            window.aggregate = aggregate(&[base, base + 0.01, base + 0.02, base + 0.03]);
        }
        store(&scene, 1, 1, "cpu_usage_ratio", sketched).await;
        let span = Span {
            from: until - 1800,
            to: until,
        };
        let ask = async || {
            telemetry::chart(
                &scene.app,
                scene.tenant,
                device(1),
                "cpu_usage_ratio",
                (span, Some(900)),
            )
            .await
            .expect("asked")
        };
        let (chart, lines) = ask().await;
        assert_eq!((chart.step_seconds, chart.span), (900, span));
        let steps = &lines[0].steps;
        assert_eq!(
            steps.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
            [until - 1800, until - 900]
        );
        let (_, second) = &steps[1];
        assert!(second.count == 12 && close(second.min, 0.3) && close(second.max, 0.53));
        assert!(close(second.sum, 12.0 * 0.415), "{second:?}");
        let median = second
            .sketch()
            .and_then(|sketch| sketch.quantile(0.5))
            .expect("a sketch");
        assert!((median - 0.41).abs() < 0.01, "{median}");
        settle_all(&scene).await;
        assert_eq!(ask().await.1, lines);
        // Half a year later only whole days are left.
        scene.pass_seconds(150 * DAY);
        let long = Span {
            from: until - DAY,
            to: until + DAY,
        };
        let (chart, lines) = telemetry::chart(
            &scene.app,
            scene.tenant,
            device(1),
            "cpu_usage_ratio",
            (long, None),
        )
        .await
        .expect("asked");
        assert_eq!(chart.level, telemetry::Level::Day);
        assert_eq!(lines[0].steps.iter().map(|(_, of)| of.count).sum::<u64>(), 24);
        let foreign = telemetry::chart(
            &scene.app,
            scene.beside().await.tenant,
            device(1),
            "cpu_usage_ratio",
            (long, None),
        )
        .await
        .expect("asked");
        assert!(foreign.1.is_empty(), "another tenant sees nothing");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_is_asked_over_pages_of_what_waits_and_of_chunks() {
    on_both(MIGRATIONS, async |database| {
        let scene = Scene::new(database.db().clone()).await;
        let _writers = writers(&scene);
        let until = now(&scene);
        for number in 1..=40_u128 {
            let value = number as f64 / 100.0;
            store(
                &scene,
                number,
                1,
                "disk_used_ratio",
                windows(until, 300, &[value, value]),
            )
            .await;
            if number == 20 {
                settle_all(&scene).await;
            }
        }
        let span = Span {
            from: until - 3600,
            to: until,
        };
        let metric = ("disk_used_ratio", Statistic::Value);
        let (_, found) = telemetry::distribution(&scene.app, scene.tenant, metric, span, &[0.0, 0.5, 1.0])
            .await
            .expect("asked");
        assert_eq!(found.devices, 40);
        assert!(close(found.mean, 0.205) && close(found.min, 0.01) && close(found.max, 0.4));
        let expected = [0.01, 0.205, 0.4];
        assert!(
            found
                .quantiles
                .iter()
                .zip(expected)
                .all(|(one, another)| close(*one, another)),
            "{found:?}"
        );
        let (_, top) = telemetry::ranking(&scene.app, scene.tenant, metric, span, (End::Highest, 2))
            .await
            .expect("asked");
        let ranked = |number, value| Ranked {
            device: device(number),
            value,
        };
        assert_eq!(top, [ranked(40, 0.4), ranked(39, 0.39)]);
        let (_, bottom) = telemetry::ranking(&scene.app, scene.tenant, metric, span, (End::Lowest, 1))
            .await
            .expect("asked");
        assert_eq!(bottom, [ranked(1, 0.01)]);
        // A counter is what it grew by.
        store(&scene, 7, 2, "crashes_total", windows(until, 300, &[2.0, 3.0])).await;
        let metric = ("crashes_total", Statistic::Value);
        let (_, top) = telemetry::ranking(&scene.app, scene.tenant, metric, span, (End::Highest, 5))
            .await
            .expect("asked");
        assert_eq!(top, [ranked(7, 5.0)]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batteries_that_lost_a_tenth_in_a_month_are_found() {
    on_both(MIGRATIONS, async |database| {
        let scene = Scene::new(database.db().clone()).await;
        let _writers = writers(&scene);
        let until = now(&scene);
        let month = |from: f64, to: f64| -> Vec<f64> {
            (0..30)
                .map(|day| ((from + (to - from) * f64::from(day) / 29.0) * 1e4).round() / 1e4)
                .collect()
        };
        let day = u32::try_from(DAY).expect("a day fits");
        for (number, from, to) in [(1, 0.95, 0.94), (2, 0.9, 0.7), (3, 0.8, 0.75), (4, 1.0, 0.6)] {
            store(
                &scene,
                number,
                1,
                "battery_health_ratio",
                windows(until, day, &month(from, to)),
            )
            .await;
        }
        let ask = async |movement| {
            let (_, found) = telemetry::changes(
                &scene.app,
                scene.tenant,
                "battery_health_ratio",
                (movement, 30),
                10,
            )
            .await
            .expect("asked");
            found.iter().map(|change| change.device).collect::<Vec<_>>()
        };
        let expected = [device(4), device(2)];
        assert_eq!(ask(Movement::Fell(0.1)).await, expected);
        settle_all(&scene).await;
        assert_eq!(ask(Movement::Fell(0.1)).await, expected);
        assert!(ask(Movement::Rose(0.1)).await.is_empty());
    })
    .await;
}
