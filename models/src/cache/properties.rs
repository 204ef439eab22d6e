//! What must hold of the cache.

use stateright::Property;

use super::{CacheModel, CacheState, Entry, Replica};

/// Every entry that a replica would show is as new as every write that was answered before.
pub const NOTHING_IS_OLDER: &str = "no read is older than an answered write";
/// The last version is shown from the cache after all others were written.
pub const IS_SHOWN_FROM_CACHE: &str = "the last version is shown from the cache";

/// What holds of the cache.
pub const OF_CACHE: &[&str] = &[NOTHING_IS_OLDER, IS_SHOWN_FROM_CACHE];

pub(super) fn all() -> Vec<Property<CacheModel>> {
    vec![
        Property::always(NOTHING_IS_OLDER, |_, state| {
            shown_entries(state).all(|entry| is_as_new_as_promised(state, entry))
        }),
        Property::sometimes(IS_SHOWN_FROM_CACHE, |model: &CacheModel, state: &CacheState| {
            let is_on_primary = !model.scope.has_successor || state.is_promoted;
            is_on_primary
                && state.promised == model.scope.versions
                && shown_entries(state).any(|entry| entry.version == model.scope.versions)
        }),
    ]
}

/// What the replicas would show from the cache. One that has missed it reads from PostgreSQL; one that is still on a server that
/// was replaced is excepted.
fn shown_entries(state: &CacheState) -> impl Iterator<Item = Entry> {
    let reads_cache =
        |replica: &&Replica| replica.missed.is_none() && replica.process.node == state.primary();
    state.replicas.iter().filter(reads_cache).filter_map(|replica| state.server(replica.process.node).entry)
}

/// A deletion is the last change, so its tombstone is never old.
fn is_as_new_as_promised(state: &CacheState, entry: Entry) -> bool {
    entry.is_tombstone || entry.version >= state.promised
}
