//! Events as a worker receives them: an event that was read says the same when it is sent again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shared::{
    domain::event::{Event, EventType},
    platform::telemetry::TraceParent,
};

fuzz_target!(|body: &[u8]| {
    let event = match Event::read(&body.to_vec().into()) {
        Ok(event) => event,
        Err(error) => return assert!(!error.to_string().is_empty(), "a dead letter says why"),
    };
    let data = &event.data;
    assert!(data.version >= 1);
    assert_eq!(data.order.id, data.order_id);
    assert!(EventType::ALL.contains(&event.event_type));

    let envelope = event.to_envelope();
    let trace = event.traceparent.as_deref().and_then(|text| text.parse::<TraceParent>().ok());
    // It may be anything, and then it is no trace to continue.
    assert!(trace.is_none_or(|trace| trace.trace_id() != 0));
    assert_eq!((envelope.id, envelope.key, envelope.sequence), (event.id, data.order_id.get(), data.version));
    assert_eq!(envelope.event_type, event.event_type.as_str());
    // Times are written in UTC and to the microsecond: from then on they stay the same.
    let again = Event::read(&envelope.body.clone().into()).expect("what was written out is read");
    assert_eq!(again.to_envelope(), envelope);
    assert_eq!(again.tenant(), event.tenant());
    assert_eq!(
        (again.id, again.event_type, again.traceparent),
        (event.id, event.event_type, event.traceparent)
    );
    assert_eq!(
        (again.data.performed_by, again.data.performed_by_tenant),
        (event.data.performed_by, event.data.performed_by_tenant)
    );
    assert_eq!((again.data.changes, again.data.order), (event.data.changes, event.data.order));
});
