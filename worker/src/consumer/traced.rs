//! What a call of a handler leaves in the traces of its events.

use shared::platform::telemetry;
use tracing::{Span, field::display};

use crate::handlers::HandlerEvent;

/// One call of a handler: a span in the trace of each of its events, from its beginning until this is dropped. Empty
/// while traces are not exported.
pub(super) struct Traced(Vec<Span>);

impl Traced {
    /// The call begins.
    pub(super) fn begin(handler: &'static str, events: &[HandlerEvent]) -> Self {
        Self(events.iter().filter_map(|event| span(handler, event)).collect())
    }

    /// The call did not do its work.
    pub(super) fn failed(&self) {
        for span in &self.0 {
            span.record("otel.status_code", "ERROR");
        }
    }
}

fn span(handler: &'static str, HandlerEvent { event, attempt, .. }: &HandlerEvent) -> Option<Span> {
    let span = telemetry::handler_span(event.traceparent.as_deref(), handler, event.event_type.as_str())?;
    span.record("event.id", display(event.id));
    span.record("order.id", event.data.order_id.get());
    span.record("attempt", attempt);
    Some(span)
}
