//! The order cache in Redis: the body exactly as it is answered, beside its version and owner.
//! The connection to Redis is in `platform`; what to do if the cache does not answer is decided by the callers.
//!
//! Writes compare and set the version in one Lua script (`cache.lua`), so they commute: the newest version remains, whatever
//! the order in which the API and the workers write. A deletion leaves a tombstone with its version.

mod breaker;
mod client;
mod entry;
mod error;
mod lookups;
mod read;
mod scan;

pub use client::{Cache, FillToken};
pub use entry::{CacheEntry, CacheWrite, CachedOrder, KEY_PREFIX, Lookup};
pub use error::CacheError;
pub use scan::CacheScan;
