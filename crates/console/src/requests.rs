//! A request as a span: whose trace it is in, what it was, and how it ended (OpenTelemetry semantic conventions for HTTP server
//! spans). Nothing of its address but the route, and nothing of its headers and bodies, is told.

use std::{borrow::Cow, time::Duration};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderName, Method, StatusCode},
};
use muster_control::{
    App, clock,
    trace::{Kind, Source, Span},
};
use muster_model::{Timestamp, TraceContext, telemetry::SpanId, trace::TRACESTATE_BYTES_MAX};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A request that is being answered.
#[derive(Debug)]
pub struct Begun {
    pub context: TraceContext,
    /// The span of who called.
    caller: Option<SpanId>,
    trace_state: Option<String>,
    method: &'static str,
    route: Option<String>,
    /// A span tells of it.
    pub is_told: bool,
    started_at: Timestamp,
    started: Duration,
}

impl Begun {
    /// What is only looked at in the console is not told of, and neither is what has no such path.
    pub fn read(app: &App, request: &Request, is_api: bool) -> Begun {
        let caller = caller(request.headers());
        let method = request.method();
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        let route = request.extensions().get::<MatchedPath>();
        Begun {
            context: app.traces.begin(caller),
            caller: caller.map(|caller| caller.span_id),
            trace_state: caller.and_then(|_| trace_state(request.headers())),
            method: known(method),
            route: route.map(|route| route.as_str().to_owned()),
            is_told: app.traces.is_on() && route.is_some() && (is_api || !is_read),
            started_at: app.clock.now(),
            started: clock::uptime(),
        }
    }

    /// The request was answered. Whoever was not let in, or came too often, is told of by metrics alone: strangers must not fill
    /// the collector.
    pub fn end(self, app: &App, status: StatusCode) {
        let took = clock::uptime().saturating_sub(self.started);
        let told = self.is_told.then_some(self.context);
        let of = (self.method, self.route.as_deref(), status.as_u16());
        app.requests.took(of, took, told);
        if !self.is_told || matches!(status, StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS) {
            return;
        }
        let name = match &self.route {
            Some(route) => Cow::Owned(format!("{} {route}", self.method)),
            None => Cow::Borrowed(self.method),
        };
        let span = Span {
            source: Source::Server,
            context: self.context,
            parent: self.caller,
            trace_state: self.trace_state,
            name,
            kind: Kind::Server,
            started_at: self.started_at,
            ended_at: self.started_at.plus(took),
            attributes: Vec::new(),
            error: None,
        };
        let mut span = span
            .with("http.request.method", self.method)
            .with("url.scheme", "https")
            .with("http.response.status_code", i64::from(status.as_u16()));
        if let Some(route) = self.route {
            span = span.with("http.route", route);
        }
        if status.is_server_error() {
            span = span.failed(status.as_str());
        }
        app.traces.finish(span);
    }
}

/// The caller's place in a trace. A header that is none, or comes twice, counts as left out (W3C Trace Context section 3.2).
fn caller(headers: &HeaderMap) -> Option<TraceContext> {
    let mut given = headers.get_all(TRACEPARENT).iter();
    let only = given.next().filter(|_| given.next().is_none())?;
    TraceContext::parse(only.to_str().ok()?)
}

/// What other vendors pass along, whole or not at all.
fn trace_state(headers: &HeaderMap) -> Option<String> {
    let mut all = String::new();
    for value in headers.get_all(TRACESTATE) {
        let value = value.to_str().ok()?;
        if all.len() + value.len() >= TRACESTATE_BYTES_MAX {
            return None;
        }
        if !all.is_empty() {
            all.push(',');
        }
        all.push_str(value);
    }
    (!all.is_empty()).then_some(all)
}

fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const GIVEN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    #[test]
    fn a_traceparent_is_believed_once() {
        assert!(caller(&headers(&[(TRACEPARENT, GIVEN)])).is_some());
        assert!(caller(&headers(&[(TRACEPARENT, GIVEN), (TRACEPARENT, GIVEN)])).is_none());
        assert!(caller(&headers(&[(TRACEPARENT, "00-0-0-01")])).is_none());
        assert!(caller(&headers(&[])).is_none());
    }

    #[test]
    fn a_tracestate_is_kept_whole_or_not_at_all() {
        let state = |values: &[&str]| {
            let pairs: Vec<_> = values.iter().map(|value| (TRACESTATE, *value)).collect();
            trace_state(&headers(&pairs))
        };
        assert_eq!(state(&["a=1", "b=2"]).as_deref(), Some("a=1,b=2"));
        assert_eq!(state(&["a=1", &"x".repeat(600)]), None);
        assert_eq!(state(&[]), None);
    }
}
