//! W3C trace context: continued from the caller, kept while a request is handled, and passed on in events.
//!
//! This works with and without an exporter: a caller's trace id always reaches the event and the log.

use std::{fmt, future::Future, str::FromStr};

use rand::Rng as _;

tokio::task_local! {
    static CURRENT: Option<TraceParent>;
}

/// The `traceparent` header, version 00: which trace, which span of it, and whether it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

/// A text that is not a `traceparent`. It is ignored, as the specification requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent")]
pub struct NotATraceParent;

impl TraceParent {
    /// Makes one from its parts.
    pub fn new(trace_id: u128, span_id: u64, sampled: bool) -> Self {
        Self { trace_id, span_id, flags: u8::from(sampled) }
    }

    /// The same trace, continued by a new span.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span_id: rand::rng().random_range(1..=u64::MAX), ..self }
    }

    /// The id of the trace.
    pub fn trace_id(self) -> u128 {
        self.trace_id
    }

    /// The id of the span.
    pub fn span_id(self) -> u64 {
        self.span_id
    }

    /// Whether the trace is recorded.
    pub fn sampled(self) -> bool {
        self.flags & 1 == 1
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl FromStr for TraceParent {
    type Err = NotATraceParent;

    fn from_str(text: &str) -> Result<Self, NotATraceParent> {
        let mut parts = text.split('-');
        let mut hex = |digits: usize| {
            let part = parts.next().ok_or(NotATraceParent)?;
            let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            if part.len() != digits || !part.bytes().all(lower_hex) {
                return Err(NotATraceParent);
            }
            u128::from_str_radix(part, 16).map_err(|_| NotATraceParent)
        };
        let (version, trace_id, span_id, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        // A later version may add parts at the end; version 00 has exactly these.
        let too_long = version == 0 && parts.next().is_some();
        if version == 0xff || trace_id == 0 || span_id == 0 || too_long {
            return Err(NotATraceParent);
        }
        Ok(Self {
            trace_id,
            span_id: u64::try_from(span_id).map_err(|_| NotATraceParent)?,
            flags: u8::try_from(flags).map_err(|_| NotATraceParent)?,
        })
    }
}

/// Runs `work` as part of a trace, which [`current_traceparent`] returns anywhere inside it.
pub async fn within_trace<F: Future>(trace: Option<TraceParent>, work: F) -> F::Output {
    CURRENT.scope(trace, work).await
}

/// The `traceparent` to pass on, in an event or a call. `None` outside of a trace.
///
/// It is local to the task: a spawned task does not inherit it, so read it before spawning.
pub fn current_traceparent() -> Option<String> {
    CURRENT.try_with(|trace| trace.map(|trace| trace.to_string())).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_reads_as_it_is_written() {
        let trace: TraceParent = EXAMPLE.parse().unwrap();
        assert!(trace.sampled());
        assert_eq!(trace.to_string(), EXAMPLE);
        assert_eq!(trace.child().trace_id(), trace.trace_id());
        assert_ne!(trace.child().span_id(), trace.span_id());
    }

    #[test]
    fn what_is_no_traceparent_is_ignored() {
        let too_long = format!("{EXAMPLE}-00");
        for text in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            too_long.as_str(),
        ] {
            assert_eq!(text.parse::<TraceParent>(), Err(NotATraceParent), "{text}");
        }
    }

    #[tokio::test]
    async fn work_inside_a_trace_knows_it() {
        assert_eq!(current_traceparent(), None);
        let inside = within_trace(EXAMPLE.parse().ok(), async { current_traceparent() }).await;
        assert_eq!(inside.as_deref(), Some(EXAMPLE));
    }
}
