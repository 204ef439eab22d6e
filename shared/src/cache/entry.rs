//! The layout of an entry: version, owner, body.

use bytes::Bytes;

use super::{CacheWrite, CachedOrder, KEY_PREFIX, Lookup};
use crate::domain::order::{CustomerId, OrderId};

/// Characters of the version, zero-padded, in front of an entry; the owner takes as many again.
const NUMBER: usize = 20;

/// The key of an order's entry.
pub(super) fn key(id: OrderId) -> String {
    [KEY_PREFIX, itoa::Buffer::new().format(id.get())].concat()
}

/// The order that a key is of; `None` for the mark beside an entry.
pub(super) fn id(key: &str) -> Option<OrderId> {
    OrderId::try_from(key.strip_prefix(KEY_PREFIX)?.parse::<i64>().ok()?).ok()
}

/// The key of the mark beside it, as `cache.lua` derives it.
pub(super) fn mark(id: OrderId) -> String {
    format!("{KEY_PREFIX}{id}:fill")
}

pub(super) fn encode(write: &CacheWrite) -> Vec<u8> {
    let (owner, body) = match &write.content {
        Some((owner, body)) => (owner.get(), body.as_ref()),
        None => (0, [].as_slice()),
    };
    let mut entry = format!("{:0width$}{owner:0width$}", write.version, width = NUMBER).into_bytes();
    entry.extend_from_slice(body);
    entry
}

/// `None` for what is not an entry of ours: treated as absent. The body is not copied.
pub(super) fn decode(entry: &Bytes) -> Option<Lookup> {
    // The first digit is always there; a sign in its place would be a number too.
    let number = |range| {
        let digits = std::str::from_utf8(entry.get(range)?).ok()?;
        if digits.starts_with('0') { digits.parse::<i64>().ok() } else { None }
    };
    let version = number(0..NUMBER)?;
    let owner = number(NUMBER..2 * NUMBER)?;
    let body = entry.slice(2 * NUMBER..);
    if body.is_empty() {
        return (owner == 0).then_some(Lookup::Deleted { version });
    }
    let owner = CustomerId::try_from(owner).ok()?;
    Some(Lookup::Found(CachedOrder { version, owner, body }))
}
