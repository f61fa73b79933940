//! Telemetry: what a device measures of itself, how measurements are summed up, and how often that happens.
//!
//! * [`Metric`]: the closed catalogue of numbers, with base units in their names. [`MetricName`] is what came from a device,
//!   which may be newer than this program.
//! * [`EventKind`], [`EventName`]: the same for things that happen.
//! * [`Aggregate`], [`Window`]: samples of one metric over a span of time, mergeable.
//! * [`Sketch`]: quantiles within one percent, mergeable.
//! * [`SamplingPlan`]: what policy decides of all that.

mod aggregate;
mod event;
mod id;
mod metric;
mod number;
mod plan;
mod sketch;

pub use aggregate::{Aggregate, InvalidWindow, WINDOW_SECONDS_MAX, Window};
pub use event::{EventDef, EventKind, EventName, Urgency};
pub use id::{BootId, InvalidHexId, SpanId, StreamId, TraceId};
pub use metric::{InvalidName, LabelValue, Metric, MetricDef, MetricKind, MetricName, Quantiles, Unit};
pub use plan::{Bound, LowBandwidthWindow, MetricPlan, SamplingPlan, Threshold};
pub use sketch::{InvalidSketch, RELATIVE_ACCURACY, SKETCH_BINS_MAX, Sketch};

/// The longest name of a metric or an event, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// The longest value of a metric's label, in bytes.
pub const LABEL_BYTES_MAX: usize = 32;
/// The most values that the label of one metric takes on one device: disks, sensors, interfaces.
pub const LABEL_VALUES_MAX: usize = 8;
