//! The port towards a time-series store: what is put into it, and the questions that every implementation answers alike.

use std::fmt;

use futures_util::future::BoxFuture;
use muster_model::telemetry::Aggregate;
use muster_model::{DeviceId, TenantId};
use uuid::Uuid;

use super::rules::{Chart, Span, Statistic};
use super::series::SeriesSet;

/// Why a store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It may work later.
    #[error("the time-series store does not answer: {0}")]
    Unavailable(String),
    /// It will not work later either.
    #[error("the time-series store refuses: {0}")]
    Refused(String),
}

/// Batches of one device that leave the spool.
#[derive(Debug, Clone, Default)]
pub struct Settling {
    /// Their names in the spool.
    pub batches: Vec<Uuid>,
    /// Their windows together.
    pub set: SeriesSet,
}

/// One line of a device's chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// What of the device it is about; empty where there is only one.
    pub subject: String,
    /// Steps that have samples, by their beginnings in seconds since the epoch.
    pub steps: Vec<(i64, Aggregate)>,
}

/// The newest window of one series.
#[derive(Debug, Clone, PartialEq)]
pub struct Latest {
    pub metric: String,
    pub subject: String,
    /// Where the window begins, in seconds since the epoch.
    pub at: i64,
    /// The latest sample; of a counter, how much it grew in the window.
    pub value: f64,
}

/// A metric of which all devices are asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Survey {
    pub metric: String,
    pub statistic: Statistic,
    pub level: super::rules::Level,
    pub span: Span,
}

/// How a number is distributed over devices.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distribution {
    /// Devices with samples in the span.
    pub devices: u64,
    pub min: f64,
    pub mean: f64,
    pub max: f64,
    /// For each quantile that was asked for, in its order; between two devices by proportion.
    pub quantiles: Vec<f64>,
}

/// Which end of the devices is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Highest,
    Lowest,
}

/// A device with its number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranked {
    pub device: DeviceId,
    pub value: f64,
}

/// In which direction a number moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Movement {
    /// By at least this part of what it was.
    Fell(f64),
    Rose(f64),
}

/// A comparison of two spans.
#[derive(Debug, Clone, PartialEq)]
pub struct Comparison {
    pub metric: String,
    pub before: Span,
    pub after: Span,
    pub movement: Movement,
    /// Devices that are answered; those that moved most come first.
    pub limit: usize,
}

/// A device whose number moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    pub device: DeviceId,
    pub before: f64,
    pub after: f64,
}

impl Movement {
    /// How far it moved in this direction, as a part of what it was; none of what was nothing.
    pub fn part(self, before: f64, after: f64) -> Option<f64> {
        let change = match self {
            Movement::Fell(_) => before - after,
            Movement::Rose(_) => after - before,
        };
        (before != 0.0).then(|| change / before.abs())
    }

    /// The least part that counts.
    pub fn least(self) -> f64 {
        match self {
            Movement::Fell(part) | Movement::Rose(part) => part,
        }
    }
}

/// Where time series are kept.
pub trait SeriesStore: Send + Sync + fmt::Debug {
    /// Where it is, for messages.
    fn place(&self) -> &str;

    /// Keeps windows of a device. Where an implementation shares the spool's database it takes the batches out of the spool in
    /// the same transaction; every other one may be told the same windows again, and keeps them once.
    fn put(
        &self,
        tenant: TenantId,
        batches: Vec<(DeviceId, Settling)>,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The lines of one metric of one device.
    fn lines<'a>(
        &'a self,
        tenant: TenantId,
        device: DeviceId,
        metric: &'a str,
        chart: Chart,
    ) -> BoxFuture<'a, Result<Vec<Line>, StoreError>>;

    /// The newest window of each series of a device in a span.
    fn latest(
        &self,
        tenant: TenantId,
        device: DeviceId,
        span: Span,
    ) -> BoxFuture<'_, Result<Vec<Latest>, StoreError>>;

    /// How a number is distributed over the tenant's devices.
    fn distribution<'a>(
        &'a self,
        tenant: TenantId,
        survey: &'a Survey,
        quantiles: &'a [f64],
    ) -> BoxFuture<'a, Result<Distribution, StoreError>>;

    /// The devices at one end, that end first.
    fn ranking<'a>(
        &'a self,
        tenant: TenantId,
        survey: &'a Survey,
        end: End,
        limit: usize,
    ) -> BoxFuture<'a, Result<Vec<Ranked>, StoreError>>;

    /// The devices whose number moved by a part of itself from one span to another.
    fn changes<'a>(
        &'a self,
        tenant: TenantId,
        comparison: &'a Comparison,
    ) -> BoxFuture<'a, Result<Vec<Change>, StoreError>>;
}
