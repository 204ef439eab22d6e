//! What became of an event, and of a batch.

/// What a handler, or all handlers together, made of one event.
#[derive(Clone, Debug)]
pub(super) enum Outcome {
    /// Its effect is durable.
    Done,
    /// It failed, and the event itself is at fault.
    Failed(Failure),
    /// The process stops while a dependency is down: another worker must try.
    Interrupted,
}

/// The failure of one event.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    /// The part that failed: the name of a handler, `parse`, or `consumer`.
    pub(super) source: &'static str,
    pub(super) reason: String,
    /// Whether a retry cannot help.
    pub(super) permanent: bool,
}

impl Failure {
    pub(super) const fn permanent(source: &'static str, reason: String) -> Self {
        Self { source, reason, permanent: true }
    }
}

impl Outcome {
    /// The worse of two handlers' outcomes, which decides.
    pub(super) fn worse(self, other: Self) -> Self {
        if other.rank() > self.rank() { other } else { self }
    }

    pub(super) const fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            Self::Done | Self::Interrupted => None,
        }
    }

    const fn rank(&self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed(Failure { permanent: false, .. }) => 1,
            Self::Failed(Failure { permanent: true, .. }) => 2,
            Self::Interrupted => 3,
        }
    }
}

/// How many events of a batch had which result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchSummary {
    /// Events received.
    pub received: usize,
    /// Acknowledged; their effects are durable.
    pub handled: usize,
    /// Sent back to the broker for another attempt.
    pub retried: usize,
    /// Stored as dead letters and acknowledged.
    pub dead_lettered: usize,
    /// Left for another worker, because this one stops.
    pub handed_back: usize,
}
