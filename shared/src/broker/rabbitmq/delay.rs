//! How long a message waits for its next attempt, and which attempt it is.

use std::time::Duration;

use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable},
};

/// The attempts that were made before a message was published anew.
const ATTEMPTS: &str = "x-attempts";

const SHORTEST_MS: u64 = 125;
const DOUBLINGS: u32 = 13;

/// A queue whose messages all wait for the same time, so that none delays another that is due earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Delay {
    doublings: u32,
}

impl Delay {
    /// The shortest delay that is no shorter than `after`; the longest delay if `after` is longer than all.
    pub(super) fn for_wait(after: Duration) -> Self {
        let doublings = (0..DOUBLINGS)
            .find(|doublings| Self { doublings: *doublings }.duration() >= after)
            .unwrap_or(DOUBLINGS);
        Self { doublings }
    }

    /// How long its messages wait.
    pub(super) const fn duration(self) -> Duration {
        Duration::from_millis(SHORTEST_MS << self.doublings)
    }

    /// The name of its queue, next to that of the queue it leads back to.
    pub(super) fn queue(self, main: &str) -> String {
        format!("{main}.delay.{}", self.duration().as_millis())
    }
}

/// Which attempt a delivery is, from 1.
pub(super) fn attempt(properties: &BasicProperties, redelivered: bool) -> u32 {
    let header =
        |name: &str| properties.headers().as_ref().and_then(|table| number(table.inner().get(name)?));
    // RabbitMQ 4 counts in `x-acquired-count` what it no longer counts as a failed delivery.
    let returns = header("x-delivery-count").max(header("x-acquired-count"));
    let returns = returns.unwrap_or_else(|| u32::from(redelivered));
    header(ATTEMPTS).unwrap_or(0).saturating_add(returns).saturating_add(1)
}

/// The properties of the copy that goes to a delay queue, after `attempts` attempts.
pub(super) fn copy(original: &BasicProperties, attempts: u32) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in original.headers().iter().flat_map(FieldTable::inner) {
        // Skip the broker's own headers, which are about the original.
        if !name.as_str().starts_with("x-") {
            headers.insert(name.clone(), value.clone());
        }
    }
    headers.insert(ATTEMPTS.into(), AMQPValue::LongLongInt(attempts.into()));
    original.clone().with_headers(headers)
}

fn number(value: &AMQPValue) -> Option<u32> {
    match value {
        AMQPValue::ShortShortInt(number) => u32::try_from(*number).ok(),
        AMQPValue::ShortShortUInt(number) => Some((*number).into()),
        AMQPValue::ShortInt(number) => u32::try_from(*number).ok(),
        AMQPValue::ShortUInt(number) => Some((*number).into()),
        AMQPValue::LongInt(number) => u32::try_from(*number).ok(),
        AMQPValue::LongUInt(number) => Some(*number),
        AMQPValue::LongLongInt(number) => u32::try_from(*number).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_at_least_what_was_asked_for_and_less_than_twice_that() {
        for millis in [126, 500, 999, 1000, 1001, 60_000, 1_000_000] {
            let after = Duration::from_millis(millis);
            let delay = Delay::for_wait(after).duration();
            assert!(delay >= after && delay < after * 2, "{after:?} became {delay:?}");
        }
        assert_eq!(Delay::for_wait(Duration::ZERO).duration(), Duration::from_millis(125));
        assert_eq!(Delay::for_wait(Duration::from_hours(9)).duration(), Duration::from_secs(1024));
        assert_eq!(Delay::for_wait(Duration::from_secs(2)).queue("q"), "q.delay.2000");
    }

    #[test]
    fn attempts_add_up_over_returns_and_copies() {
        let fresh = BasicProperties::default();
        assert_eq!(attempt(&fresh, false), 1);
        assert_eq!(attempt(&fresh, true), 2);
        let copied = copy(&fresh, 3);
        assert_eq!(attempt(&copied, false), 4);
        let mut headers = copied.headers().clone().expect("headers");
        headers.insert("x-delivery-count".into(), AMQPValue::LongLongInt(2));
        let returned = copied.with_headers(headers);
        assert_eq!(attempt(&returned, true), 6);
        assert_eq!(attempt(&copy(&returned, 6), false), 7);
    }
}
