//! The spans of this system: one for each request, one for each event handled. They cost nothing while traces are not
//! exported.

use tracing::Span;

use super::{TraceParent, otlp};

/// The span of a request and the trace to hand on from it, as a part of the caller's trace where it sent one.
///
/// Without an exporter there is no span, and the caller's trace goes on under a span id of our own.
pub fn request_span(incoming: Option<TraceParent>, method: &str, route: &str) -> (Span, Option<TraceParent>) {
    if !otlp::is_exporting() {
        return (Span::none(), incoming.map(TraceParent::child));
    }
    let span = tracing::info_span!(
        target: "trace",
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = method,
        http.route = route,
        http.response.status_code = tracing::field::Empty,
        otel.status_code = tracing::field::Empty,
    );
    if let Some(incoming) = incoming {
        otlp::set_parent(&span, incoming);
    }
    let trace = otlp::trace_of(&span).or_else(|| incoming.map(TraceParent::child));
    (span, trace)
}

/// Notes how a request was answered on its span.
pub fn record_status(span: &Span, status: u16) {
    if !span.is_none() {
        span.record("http.response.status_code", status);
        if status >= 500 {
            span.record("otel.status_code", "ERROR");
        }
    }
}

/// The span of handling an event that carries `traceparent`: a trace of its own, linked to the one that caused the event,
/// because one batch handles the events of many.
pub fn continue_trace(traceparent: &str) -> Span {
    if !otlp::is_exporting() {
        return Span::none();
    }
    let span =
        tracing::info_span!(target: "trace", "event", otel.name = "process event", otel.kind = "consumer");
    if let Ok(cause) = traceparent.parse() {
        otlp::link(&span, cause);
    }
    span
}
