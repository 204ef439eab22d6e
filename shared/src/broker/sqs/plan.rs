//! Which events form a batch, and which batches can be sent at the same time.

use std::collections::BTreeMap;

use super::BATCH;
use crate::domain::event::Envelope;

/// The attribute with an event's position in the log, for readers that want to notice a gap.
pub(super) const POSITION: &str = "position";
/// Its type.
pub(super) const NUMBER: &str = "Number";

/// Batches that must be sent one after the other. An event is named by its index.
pub(super) type Lane = Vec<Vec<usize>>;

/// Divides events into batches, and these into lanes that can be sent at the same time.
///
/// In a FIFO queue all events of a key are in the same lane; in a standard queue each batch has its own lane.
pub(super) fn plan_lanes(
    events: &[(usize, &Envelope)],
    fifo: bool,
    max_bytes: usize,
    lanes: usize,
) -> Vec<Lane> {
    let mut shares: BTreeMap<u64, Vec<(usize, &Envelope)>> = BTreeMap::new();
    for (index, event) in events {
        let share =
            if fifo { event.key.unsigned_abs() % u64::try_from(lanes).unwrap_or(1).max(1) } else { 0 };
        shares.entry(share).or_default().push((*index, event));
    }
    let batched = shares.into_values().map(|share| batches(&share, max_bytes));
    if fifo { batched.collect() } else { batched.flatten().map(|batch| vec![batch]).collect() }
}

/// How much of the limit of a batch an event takes: its body, and the name, type and value of its one attribute.
pub(super) fn sent_bytes(event: &Envelope) -> usize {
    let attribute = |position: i64| POSITION.len() + NUMBER.len() + position.to_string().len();
    event.body.len() + event.position.map_or(0, attribute)
}

fn batches(events: &[(usize, &Envelope)], max_bytes: usize) -> Lane {
    let mut lane: Lane = Vec::new();
    let mut bytes = 0;
    for (index, event) in events {
        let fits = bytes + sent_bytes(event) <= max_bytes;
        match lane.last_mut() {
            Some(batch) if fits && batch.len() < BATCH => batch.push(*index),
            _ => {
                bytes = 0;
                lane.push(vec![*index]);
            }
        }
        bytes += sent_bytes(event);
    }
    lane
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn events(keys: &[i64], bytes: usize) -> Vec<Envelope> {
        let event = |key: &i64| Envelope {
            id: Uuid::now_v7(),
            event_type: "OrderCreated".to_owned(),
            key: *key,
            sequence: 1,
            position: None,
            body: "x".repeat(bytes),
        };
        keys.iter().map(event).collect()
    }

    fn planned(events: &[Envelope], fifo: bool, max_bytes: usize) -> Vec<Lane> {
        plan_lanes(&events.iter().enumerate().collect::<Vec<_>>(), fifo, max_bytes, 4)
    }

    #[test]
    fn a_batch_holds_at_most_ten_entries_and_at_most_the_size() {
        let many = events(&[1; 25], 10);
        let sizes: Vec<usize> = planned(&many, false, 1000).iter().flatten().map(Vec::len).collect();
        assert_eq!(sizes, [10, 10, 5]);
        let large = events(&[1; 5], 400);
        let sizes: Vec<usize> = planned(&large, false, 1000).iter().flatten().map(Vec::len).collect();
        assert_eq!(sizes, [2, 2, 1]);
        let exact = events(&[1; 2], 1000);
        assert_eq!(planned(&exact, false, 1000).len(), 2);
    }

    #[test]
    fn a_fifo_queue_never_has_one_key_in_two_lanes_and_keeps_its_order() {
        let keys: Vec<i64> = (0..200).map(|number| number % 7).collect();
        let all = events(&keys, 10);
        let lanes = planned(&all, true, 1000);
        assert!(lanes.len() > 1, "different keys run side by side");
        for key in 0..7 {
            let with_key: Vec<&Lane> =
                lanes.iter().filter(|lane| lane.iter().flatten().any(|index| keys[*index] == key)).collect();
            assert_eq!(with_key.len(), 1, "key {key}");
            let order: Vec<usize> =
                with_key[0].iter().flatten().copied().filter(|index| keys[*index] == key).collect();
            assert!(order.is_sorted());
        }
        assert_eq!(lanes.iter().flatten().flatten().count(), 200);
    }
}
