//! The store and its way in, on both engines.

mod bounds;
mod questions;

use muster_channel_agent::telemetry::{Accounting, DeviceEvent, Series, TelemetryBatch};
use muster_model::{
    DeviceId, TenantId, Timestamp,
    telemetry::{Aggregate, Quantiles, StreamId, Window},
};
use tokio::{sync::watch, task::JoinSet};
use uuid::Uuid;

use super::{Sender, Taken, admit, prepare, write, write_queued};
use crate::{access::problem::Problem, policy::testing::Scene};

pub const DAY: i64 = 86_400;

pub fn device(number: u128) -> DeviceId {
    DeviceId::from_uuid(Uuid::from_u128(number))
}

pub fn stream(number: u8) -> StreamId {
    StreamId::from_bytes([number; 16]).expect("a stream has a name")
}

/// Windows of one sample each, `step` seconds apart, that end with `values`' last at `until`.
pub fn windows(until: i64, step: u32, values: &[f64]) -> Vec<Window> {
    let first = until - i64::from(step) * values.len() as i64;
    let window = |(place, value): (i64, &f64)| Window {
        start_seconds: first + place * i64::from(step),
        width_seconds: step,
        aggregate: Aggregate::of(*value),
    };
    (0_i64..).zip(values).map(window).collect()
}

pub fn series(metric: &str, windows: Vec<Window>) -> Series {
    Series {
        metric: metric.parse().expect("it is a name"),
        label: None,
        windows,
    }
}

/// A batch of the first enrollment.
pub fn batch(sequence: u64, at: Timestamp, series: Vec<Series>) -> TelemetryBatch {
    TelemetryBatch {
        epoch: 1,
        stream: stream(1),
        sequence,
        device_time: at,
        boot_id: None,
        series,
        events: Vec::new(),
        spans: Vec::new(),
        accounting: Accounting::default(),
    }
}

pub fn event(number: u64, kind: &str, at: Timestamp) -> DeviceEvent {
    DeviceEvent {
        number,
        kind: kind.parse().expect("it is a name"),
        at,
        attributes: [("program".to_owned(), "vi".to_owned())].into(),
    }
}

/// The writers of a process, while it lives.
pub struct Writers {
    _stop: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

pub fn writers(scene: &Scene) -> Writers {
    let (stop, stopping) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for _ in 0..2 {
        tasks.spawn(write_queued(scene.app.clone(), stopping.clone()));
    }
    Writers {
        _stop: stop,
        _tasks: tasks,
    }
}

/// Sends a batch as the gateway does.
pub async fn send(
    scene: &Scene,
    (tenant, device): (TenantId, DeviceId),
    clock_offset: Option<i64>,
    batch: TelemetryBatch,
) -> Result<Taken, Problem> {
    let room = admit(&scene.app, tenant, device, (1000, 20_000))?;
    let sender = Sender {
        tenant,
        device,
        epoch: batch.epoch,
        clock_offset,
    };
    let days = scene.app.settings.telemetry_retention_days;
    let batch = prepare(&sender, batch, scene.app.clock.now(), days);
    write(&scene.app, tenant, batch, room).await
}

/// Brings everything that waits to the store.
pub async fn settle_all(scene: &Scene) {
    scene.pass_seconds(1801);
    while super::settle(&scene.app).await.expect("the store takes it") {}
    scene.pass_seconds(-1801);
}

pub fn aggregate(values: &[f64]) -> Aggregate {
    let mut whole = Aggregate::of(values[0]);
    for value in &values[1..] {
        whole.merge(&Aggregate::of(*value), Quantiles::Sketched);
    }
    whole
}
