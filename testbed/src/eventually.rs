//! Waiting for a condition with a bound: what tests use in place of a sleep.

use std::time::{Duration, Instant};

/// How long [`eventually`] waits. Generous, because the machines that run tests are slow and shared.
const BOUND: Duration = Duration::from_secs(30);

/// Between two looks at the condition.
const PAUSE: Duration = Duration::from_millis(20);

/// What a condition may answer: a `bool`, or an `Option` or `Result` whose value is handed back.
pub trait Outcome {
    /// What the caller gets once the condition holds.
    type Value;

    /// The value if the condition holds, else what was seen instead.
    fn outcome(self) -> Result<Self::Value, String>;
}

impl Outcome for bool {
    type Value = ();

    fn outcome(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("it does not hold".into()) }
    }
}

impl<T> Outcome for Option<T> {
    type Value = T;

    fn outcome(self) -> Result<T, String> {
        self.ok_or_else(|| "there is nothing yet".into())
    }
}

impl<T, E: std::fmt::Debug> Outcome for Result<T, E> {
    type Value = T;

    fn outcome(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:?}"))
    }
}

/// Waits up to 30 s until `condition` holds, and returns its value.
///
/// # Panics
///
/// When it does not hold in time, with `what` as the sentence: say what should have happened,
/// as in `eventually("the history has two rows", async || …)`.
#[track_caller]
pub fn eventually<T: Outcome>(
    what: &str,
    condition: impl AsyncFnMut() -> T,
) -> impl Future<Output = T::Value> {
    eventually_within(BOUND, what, condition)
}

/// [`eventually`] with a bound of one's own.
///
/// # Panics
///
/// When the condition does not hold in time.
#[track_caller]
pub fn eventually_within<T: Outcome>(
    bound: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> T,
) -> impl Future<Output = T::Value> {
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        loop {
            // A condition that itself never answers counts as one that does not hold.
            let left = bound.saturating_sub(start.elapsed()).max(PAUSE);
            let seen = match tokio::time::timeout(left, condition()).await {
                Ok(outcome) => match outcome.outcome() {
                    Ok(value) => return value,
                    Err(seen) => seen,
                },
                Err(_) => "the check itself did not answer".into(),
            };
            assert!(
                start.elapsed() < bound,
                "{what}: not within {bound:?}, as waited for at {caller}; last seen: {seen}"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }
}
