//! The recent events of the log, in memory.

use std::{collections::VecDeque, sync::Arc};

use super::event::FeedEvent;

/// The last events up to the head, without a gap.
#[derive(Debug)]
pub(super) struct Ring {
    events: VecDeque<Arc<FeedEvent>>,
    head: i64,
    bytes: usize,
    max_events: usize,
    max_bytes: usize,
}

impl Ring {
    /// A ring without events, whose next one comes after `head`.
    pub(super) fn empty(head: i64, max_events: usize, max_bytes: usize) -> Self {
        Self { events: VecDeque::new(), head, bytes: 0, max_events, max_bytes }
    }

    /// The position of the last event.
    pub(super) fn head(&self) -> i64 {
        self.head
    }

    /// Forgets all events and goes on after `head`.
    pub(super) fn restart(&mut self, head: i64) {
        *self = Self::empty(head, self.max_events, self.max_bytes);
    }

    /// Adds an event, and forgets the oldest ones that are too many. Returns `false`, and adds nothing, if the event does not
    /// follow the last one.
    pub(super) fn push(&mut self, event: FeedEvent) -> bool {
        if event.position != self.head + 1 {
            return false;
        }
        self.head = event.position;
        self.bytes += event.body.len();
        self.events.push_back(Arc::new(event));
        while self.events.len() > self.max_events || self.bytes > self.max_bytes && self.events.len() > 1 {
            self.bytes -= self.events.pop_front().map_or(0, |oldest| oldest.body.len());
        }
        true
    }

    /// The events after a position, oldest first. Returns `None` if some of them are forgotten, or the position is ahead.
    pub(super) fn after(&self, position: i64) -> Option<impl ExactSizeIterator<Item = &Arc<FeedEvent>>> {
        let count = usize::try_from(self.head.checked_sub(position)?).ok()?;
        let skipped = self.events.len().checked_sub(count)?;
        Some(self.events.range(skipped..))
    }

    /// The bytes of the events after a position; all if some of them are forgotten.
    pub(super) fn bytes_after(&self, position: i64) -> usize {
        self.after(position).map_or(usize::MAX, |events| events.map(|event| event.body.len()).sum())
    }
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;
    use tokio::time::Instant;

    use super::*;
    use crate::db::LogRow;

    fn event(position: i64) -> FeedEvent {
        let now = OffsetDateTime::UNIX_EPOCH;
        let row = LogRow {
            position,
            tenant: None,
            sequenced_at: now,
            event_type: String::new(),
            order_id: 1,
            payload: "ten bytes.".to_owned(),
        };
        FeedEvent::new(row, now, Instant::now())
    }

    fn positions(ring: &Ring, after: i64) -> Option<Vec<i64>> {
        Some(ring.after(after)?.map(|event| event.position).collect())
    }

    #[test]
    fn a_reader_gets_exactly_the_events_after_its_position_or_nothing() {
        let mut ring = Ring::empty(5, 3, 1000);
        assert_eq!(positions(&ring, 5), Some(vec![]));
        assert_eq!(positions(&ring, 4), None);
        assert_eq!(positions(&ring, 6), None);
        for position in 6..=9 {
            assert!(ring.push(event(position)));
        }
        assert_eq!(positions(&ring, 5), None, "the event 6 is forgotten");
        assert_eq!(positions(&ring, 6), Some(vec![7, 8, 9]));
        assert_eq!(positions(&ring, 9), Some(vec![]));
        assert_eq!(positions(&ring, i64::MIN), None);
        assert_eq!((ring.bytes_after(7), ring.bytes_after(9), ring.bytes_after(5)), (20, 0, usize::MAX));
    }

    #[test]
    fn an_event_that_does_not_follow_is_not_taken() {
        let mut ring = Ring::empty(5, 3, 1000);
        for position in [5, 7, 0] {
            assert!(!ring.push(event(position)), "{position}");
        }
        assert!(ring.push(event(6)));
        ring.restart(20);
        assert_eq!((ring.head(), positions(&ring, 6), positions(&ring, 20)), (20, None, Some(vec![])));
    }

    #[test]
    fn the_oldest_events_are_forgotten_if_all_are_too_large() {
        let mut ring = Ring::empty(0, 100, 25);
        for position in 1..=4 {
            ring.push(event(position));
        }
        assert_eq!(positions(&ring, 2), Some(vec![3, 4]));
        assert_eq!(positions(&ring, 1), None);
    }
}
