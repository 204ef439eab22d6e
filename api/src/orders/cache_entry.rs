//! An order as it stands in the cache.

use shared::{
    cache::{CacheWrite, CachedOrder},
    domain::order::{Order, OrderKey},
};

/// The order as it is answered and cached.
pub(super) fn encode_order(order: &Order) -> CachedOrder {
    CachedOrder { version: order.version, owner: order.customer_id, body: order.to_json().into() }
}

/// The entry of an order, which replaces an older one, or is new.
pub(super) fn entry(key: OrderKey, order: CachedOrder) -> CacheWrite {
    let CachedOrder { version, owner, body } = order;
    CacheWrite { order: key, version, content: Some((owner, body)), may_create: true }
}

/// The entry of an order that was deleted by this version.
pub(super) fn tombstone(order: OrderKey, version: i64) -> CacheWrite {
    CacheWrite { order, version, content: None, may_create: true }
}
