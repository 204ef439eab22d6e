//! The spans of a handler's call in the traces of its events.

use shared::platform::telemetry;
use tracing::{Span, field::display};

use crate::handlers::HandlerEvent;

/// One call of a handler: a span in the trace of each event, which ends when this is dropped. Empty if traces are not
/// exported.
pub(super) struct HandlerSpans(Vec<Span>);

impl HandlerSpans {
    /// Begins the spans.
    pub(super) fn begin(handler: &'static str, events: &[HandlerEvent]) -> Self {
        Self(events.iter().filter_map(|event| begin_span(handler, event)).collect())
    }

    /// Records that the call failed.
    pub(super) fn record_error(&self) {
        for span in &self.0 {
            span.record("otel.status_code", "ERROR");
        }
    }
}

fn begin_span(handler: &'static str, HandlerEvent { event, attempt, .. }: &HandlerEvent) -> Option<Span> {
    let span = telemetry::handler_span(event.traceparent.as_deref(), handler, event.event_type.as_str())?;
    span.record("event.id", display(event.id));
    span.record("order.id", event.data.order_id.get());
    span.record("attempt", attempt);
    Some(span)
}
