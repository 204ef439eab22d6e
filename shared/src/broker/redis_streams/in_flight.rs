//! What this process holds of the group's pending entries.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Instant,
};

use super::entries::EntryId;

/// Entries that are handed out and not settled, and entries that are delayed until their next attempt.
///
/// An entry that is pending under this consumer's name but is not in here was on its way when a `receive` was
/// cancelled or failed.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    handed_out: HashSet<EntryId>,
    delayed: HashMap<EntryId, Instant>,
    /// `delayed` by time.
    schedule: BTreeSet<(Instant, EntryId)>,
}

impl InFlight {
    /// Records that these are handed out now.
    pub(super) fn hand_out<'a>(&mut self, ids: impl IntoIterator<Item = &'a str>) {
        for id in ids.into_iter().filter_map(EntryId::parse) {
            self.undelay(id);
            self.handed_out.insert(id);
        }
    }

    /// Removes an entry that is settled.
    pub(super) fn settle(&mut self, id: &str) {
        if let Some(id) = EntryId::parse(id) {
            self.handed_out.remove(&id);
        }
    }

    /// Delays an entry until `due`, if it is still handed out.
    pub(super) fn delay(&mut self, id: &str, due: Instant) {
        if let Some(id) = EntryId::parse(id).and_then(|id| self.handed_out.take(&id)) {
            self.schedule.insert((due, id));
            self.delayed.insert(id, due);
        }
    }

    /// When the next delayed entry is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.schedule.first().map(|(due, _)| *due)
    }

    /// When `id` is due, if it is delayed.
    pub(super) fn due_of(&self, id: &str) -> Option<Instant> {
        self.delayed.get(&EntryId::parse(id)?).copied()
    }

    /// Up to `max` of the entries that are due, oldest first. They stay delayed until they are handed out, so that nothing
    /// is lost if claiming them fails.
    pub(super) fn due(&self, now: Instant, max: usize) -> Vec<String> {
        let due = self.schedule.iter().take_while(|(due, _)| *due <= now);
        due.take(max).map(|(_, id)| id.to_string()).collect()
    }

    /// Whether this process holds the entry.
    pub(super) fn holds(&self, id: &str) -> bool {
        EntryId::parse(id).is_some_and(|id| self.handed_out.contains(&id) || self.delayed.contains_key(&id))
    }

    /// All entries that this process holds.
    pub(super) fn all(&self) -> Vec<String> {
        self.handed_out.iter().chain(self.delayed.keys()).map(EntryId::to_string).collect()
    }

    /// Removes entries that belong to another consumer by now, or are gone.
    pub(super) fn forget<'a>(&mut self, ids: impl IntoIterator<Item = &'a String>) {
        for id in ids.into_iter().filter_map(|id| EntryId::parse(id)) {
            self.handed_out.remove(&id);
            self.undelay(id);
        }
    }

    fn undelay(&mut self, id: EntryId) {
        if let Some(due) = self.delayed.remove(&id) {
            self.schedule.remove(&(due, id));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn delayed_entries_come_in_the_order_in_which_they_are_due() {
        let now = Instant::now();
        let later = now + Duration::from_secs(10);
        let mut in_flight = InFlight::default();
        in_flight.hand_out(["1-0", "2-0", "3-0"]);
        in_flight.delay("1-0", later);
        in_flight.delay("2-0", now);
        in_flight.delay("9-9", now);
        assert_eq!(in_flight.next_due(), Some(now));
        assert_eq!(in_flight.due(now, 10), ["2-0"]);
        assert_eq!(in_flight.due(later, 10), ["2-0", "1-0"]);
        assert_eq!(in_flight.due(later, 1), ["2-0"]);
        in_flight.hand_out(["2-0"]);
        assert_eq!(in_flight.due(later, 10), ["1-0"]);
        assert!(in_flight.holds("1-0") && in_flight.holds("2-0") && in_flight.holds("3-0"));
    }

    #[test]
    fn an_entry_that_another_consumer_has_taken_is_no_longer_held() {
        let mut in_flight = InFlight::default();
        in_flight.hand_out(["1-0", "2-0"]);
        in_flight.delay("2-0", Instant::now());
        in_flight.forget(&["1-0".to_owned(), "2-0".to_owned()]);
        assert!(in_flight.all().is_empty());
        assert_eq!(in_flight.next_due(), None);
    }
}
