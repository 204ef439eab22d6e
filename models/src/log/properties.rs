//! What must hold of the log. `docs/GUARANTEES.md` says which promise to consumers each property stands for.

use stateright::Property;

use super::{Entry, LogModel, LogState, Order};

/// Once no transaction is open and a step has looked, every committed event has a position.
pub const NOTHING_IS_SKIPPED: &str = "no event is skipped";
/// What a step could see has a position after it, whichever other transactions are open.
pub const NOTHING_WAITS: &str = "no event waits for another transaction";
/// Positions are 1, 2, 3, …, each that of one committed event, and no event has two.
pub const POSITIONS_ARE_DENSE: &str = "positions are dense and given once";
/// The versions of an order are 1, 2, 3, … in the order of their positions.
pub const VERSIONS_ASCEND: &str = "versions of one order ascend";
/// Whoever has read up to a position has seen all that will ever be up to there.
pub const READERS_MISS_NOTHING: &str = "a reader sees nothing new at or below its position";
/// All events up to the published position are on the broker.
pub const PUBLISHED_MEANS_CONFIRMED: &str = "the published position never passes an unpublished event";
/// The published position never moves back.
pub const PUBLISHED_MOVES_FORWARD: &str = "the published position never moves back";
/// Some event has its position while a transaction with a lower xid is open.
pub const OVERTAKES_OPEN_TRANSACTIONS: &str = "an event has its position while an older transaction is open";
/// All transactions have committed, and all their events are published.
pub const ALL_IS_PUBLISHED: &str = "all events are published";

/// What holds of the log whoever publishes it.
pub const OF_SEQUENCING: &[&str] = &[
    NOTHING_IS_SKIPPED,
    NOTHING_WAITS,
    POSITIONS_ARE_DENSE,
    VERSIONS_ASCEND,
    READERS_MISS_NOTHING,
    OVERTAKES_OPEN_TRANSACTIONS,
];
/// What holds of publishing besides.
pub const OF_PUBLISHING: &[&str] = &[
    NOTHING_IS_SKIPPED,
    NOTHING_WAITS,
    POSITIONS_ARE_DENSE,
    VERSIONS_ASCEND,
    READERS_MISS_NOTHING,
    OVERTAKES_OPEN_TRANSACTIONS,
    PUBLISHED_MEANS_CONFIRMED,
    PUBLISHED_MOVES_FORWARD,
    ALL_IS_PUBLISHED,
];

pub(super) fn all() -> Vec<Property<LogModel>> {
    vec![
        Property::always(NOTHING_IS_SKIPPED, |_, state| !is_at_rest(state) || has_positions_of_all(state)),
        Property::always(NOTHING_WAITS, |_, state| has_positions_of_all(state)),
        Property::always(POSITIONS_ARE_DENSE, |_, state| positions_are_dense(state)),
        Property::always(VERSIONS_ASCEND, |_, state| versions_ascend(state)),
        Property::always(READERS_MISS_NOTHING, reader_has_seen_all),
        Property::always(PUBLISHED_MEANS_CONFIRMED, |_, state| is_published_to_cursor(state)),
        Property::always(PUBLISHED_MOVES_FORWARD, |_, state: &LogState| {
            state.row.published_position >= state.most_published
        }),
        Property::sometimes(OVERTAKES_OPEN_TRANSACTIONS, |_, state| overtakes_open_transaction(state)),
        Property::sometimes(ALL_IS_PUBLISHED, |model: &LogModel, state: &LogState| {
            let events: usize = model.scope.plans.iter().map(|plan| plan.len()).sum();
            state.database.committed().count() == events
                && usize::from(state.row.published_position) == events
        }),
    ]
}

/// Whether no transaction is open, and the last step saw it so.
fn is_at_rest(state: &LogState) -> bool {
    state.database.snapshot() == state.row.sequenced
        && !state.database.transactions.iter().any(|one| one.is_open())
}

/// Whether each event that the last step could see has a position.
fn has_positions_of_all(state: &LogState) -> bool {
    let mut visible = state.database.committed().filter(|(_, event)| state.row.sequenced.shows(event.xid));
    visible.all(|(id, _)| state.log.iter().any(|entry| entry.id == id))
}

fn positions_are_dense(state: &LogState) -> bool {
    let is_committed = |entry: &Entry| state.database.committed().any(|(id, _)| id == entry.id);
    let is_repeated = |place: usize| state.log[..place].iter().any(|entry| entry.id == state.log[place].id);
    let mut entries = (1..).zip(&state.log);
    usize::from(state.row.head) == state.log.len()
        && entries.all(|(position, entry)| entry.position == position && is_committed(entry))
        && !(0..state.log.len()).any(is_repeated)
}

fn versions_ascend(state: &LogState) -> bool {
    [Order::A, Order::B].into_iter().all(|order| {
        let events = state.log.iter().map(|entry| state.database.event(entry.id));
        let versions = events.filter(|event| event.order == order).map(|event| event.version);
        (1..).zip(versions).all(|(expected, version)| version == expected)
    })
}

fn reader_has_seen_all(model: &LogModel, state: &LogState) -> bool {
    let visible = model.visible_log(state).into_iter();
    visible
        .filter(|entry| entry.position <= state.reader)
        .map(|entry| entry.id)
        .eq(state.seen.iter().copied())
}

fn is_published_to_cursor(state: &LogState) -> bool {
    let passed = state.log.iter().filter(|entry| entry.position <= state.row.published_position);
    usize::from(state.row.published_position) <= state.log.len()
        && passed.clone().all(|entry| state.broker.contains(entry.id))
}

fn overtakes_open_transaction(state: &LogState) -> bool {
    let is_older_open = |xid| (1..xid).any(|older| state.database.is_in_progress(older));
    state.log.iter().any(|entry| is_older_open(state.database.event(entry.id).xid))
}
