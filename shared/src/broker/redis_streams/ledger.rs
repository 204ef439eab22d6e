//! What this process holds of the group's pending entries.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Instant,
};

use super::entries::EntryId;

/// Entries handed out and not settled, and entries held back until their next attempt.
///
/// Entries that are pending under this consumer's name but not in here were on their way when a
/// `receive` was cancelled or failed.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    in_flight: HashSet<EntryId>,
    held_back: HashMap<EntryId, Instant>,
    /// `held_back` by time.
    schedule: BTreeSet<(Instant, EntryId)>,
}

impl Ledger {
    /// These are handed out now.
    pub(super) fn hand_out<'a>(&mut self, ids: impl IntoIterator<Item = &'a str>) {
        for id in ids.into_iter().filter_map(EntryId::parse) {
            self.release(id);
            self.in_flight.insert(id);
        }
    }

    /// This one is settled.
    pub(super) fn settle(&mut self, id: &str) {
        if let Some(id) = EntryId::parse(id) {
            self.in_flight.remove(&id);
        }
    }

    /// This one is to come again at `due`, where it is still held.
    pub(super) fn hold_back(&mut self, id: &str, due: Instant) {
        if let Some(id) = EntryId::parse(id).and_then(|id| self.in_flight.take(&id)) {
            self.schedule.insert((due, id));
            self.held_back.insert(id, due);
        }
    }

    /// When the next one that is held back is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.schedule.first().map(|(due, _)| *due)
    }

    /// When `id` is due, where it is held back.
    pub(super) fn due_of(&self, id: &str) -> Option<Instant> {
        self.held_back.get(&EntryId::parse(id)?).copied()
    }

    /// Up to `max` of those whose time has come, oldest first. They stay held back until they are handed out, so
    /// that nothing is lost where taking them fails.
    pub(super) fn due(&self, now: Instant, max: usize) -> Vec<String> {
        let due = self.schedule.iter().take_while(|(due, _)| *due <= now);
        due.take(max).map(|(_, id)| id.to_string()).collect()
    }

    /// Whether this process holds it already.
    pub(super) fn holds(&self, id: &str) -> bool {
        EntryId::parse(id).is_some_and(|id| self.in_flight.contains(&id) || self.held_back.contains_key(&id))
    }

    /// Everything held.
    pub(super) fn all(&self) -> Vec<String> {
        self.in_flight.iter().chain(self.held_back.keys()).map(EntryId::to_string).collect()
    }

    /// These belong to another consumer by now, or are gone.
    pub(super) fn lose<'a>(&mut self, ids: impl IntoIterator<Item = &'a String>) {
        for id in ids.into_iter().filter_map(|id| EntryId::parse(id)) {
            self.in_flight.remove(&id);
            self.release(id);
        }
    }

    fn release(&mut self, id: EntryId) {
        if let Some(due) = self.held_back.remove(&id) {
            self.schedule.remove(&(due, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_held_back_comes_in_the_order_of_its_time_and_only_then() {
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        let mut ledger = Ledger::default();
        ledger.hand_out(["1-0", "2-0", "3-0"]);
        ledger.hold_back("1-0", later);
        ledger.hold_back("2-0", now);
        ledger.hold_back("9-9", now);
        assert_eq!(ledger.next_due(), Some(now));
        assert_eq!(ledger.due(now, 10), ["2-0"]);
        assert_eq!(ledger.due(later, 10), ["2-0", "1-0"]);
        assert_eq!(ledger.due(later, 1), ["2-0"]);
        ledger.hand_out(["2-0"]);
        assert_eq!(ledger.due(later, 10), ["1-0"]);
        assert!(ledger.holds("1-0") && ledger.holds("2-0") && ledger.holds("3-0"));
    }

    #[test]
    fn what_another_consumer_has_taken_is_no_longer_held() {
        let mut ledger = Ledger::default();
        ledger.hand_out(["1-0", "2-0"]);
        ledger.hold_back("2-0", Instant::now());
        ledger.lose(&["1-0".to_owned(), "2-0".to_owned()]);
        assert!(ledger.all().is_empty());
        assert_eq!(ledger.next_due(), None);
    }
}
