//! The spans of this system: one for each request, and one for each event that a handler receives. They cost nothing if traces
//! are not exported.

use tracing::Span;

use super::{TraceParent, otlp};

/// The span of a request, and the trace to pass on. Both are part of the caller's trace, if it sent one.
///
/// Without an exporter there is no span, and the caller's trace continues under a new span id.
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

/// Records the status of the response on its span.
pub fn record_status(span: &Span, status: u16) {
    if !span.is_none() {
        span.record("http.response.status_code", status);
        if status >= 500 {
            span.record("otel.status_code", "ERROR");
        }
    }
}

/// The span of a handler's call for an event with this `traceparent`: a part of the trace that caused the event. A batch has
/// the events of many traces, so one call has a span in each of them.
///
/// `None` if traces are not exported.
pub fn handler_span(traceparent: Option<&str>, handler: &'static str, event_type: &str) -> Option<Span> {
    if !otlp::is_exporting() {
        return None;
    }
    let span = tracing::info_span!(
        target: "trace",
        parent: None,
        "handler",
        otel.name = format!("{handler} {event_type}"),
        otel.kind = "consumer",
        otel.status_code = tracing::field::Empty,
        event.id = tracing::field::Empty,
        order.id = tracing::field::Empty,
        attempt = tracing::field::Empty,
    );
    if let Some(Ok(cause)) = traceparent.map(str::parse) {
        otlp::set_parent(&span, cause);
    }
    Some(span)
}
