//! How long requests take, by route, with a trace to look at.

use std::time::Duration;

use muster_model::TraceContext;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{exemplar::HistogramWithExemplars, family::Family},
    registry::Registry,
};

use super::metrics::{ExemplarLabel, exemplar};

/// In seconds.
const BUCKETS: [f64; 9] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// Routes are templates and methods are known ones, so that there are as many series as routes have.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabel {
    method: &'static str,
    route: String,
    /// `2xx` and so on.
    status: &'static str,
}

/// Requests to the admin listener.
#[derive(Debug)]
pub struct RequestMetrics {
    duration: Family<RequestLabel, HistogramWithExemplars<ExemplarLabel>>,
}

impl Default for RequestMetrics {
    fn default() -> RequestMetrics {
        let make: fn() -> HistogramWithExemplars<ExemplarLabel> =
            || HistogramWithExemplars::new(BUCKETS.into_iter());
        RequestMetrics {
            duration: Family::new_with_constructor(make),
        }
    }
}

impl RequestMetrics {
    /// Registers everything under the prefix `mdm_http`.
    pub fn register(&self, registry: &mut Registry) {
        registry.sub_registry_with_prefix("mdm_http").register(
            "request_duration_seconds",
            "How long requests to the admin listener took",
            self.duration.clone(),
        );
    }

    /// Counts a request. `route` is the template of its path; none where there is no such path.
    pub fn took(
        &self,
        (method, route, status): (&'static str, Option<&str>, u16),
        took: Duration,
        trace: Option<TraceContext>,
    ) {
        let label = RequestLabel {
            method,
            route: route.unwrap_or("_none").to_owned(),
            status: class_of(status),
        };
        self.duration
            .get_or_create(&label)
            .observe(took.as_secs_f64(), exemplar(trace), None);
    }
}

fn class_of(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
