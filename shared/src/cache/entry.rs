//! Entries of the cache, and their layout in Redis: version, owner, body.
//!
//! Programs of 0.1.0 wrote bodies without the last fields of an order. Such an entry counts as absent, and its version still
//! keeps older ones out; `cache.lua` replaces it by a complete one of the same version.

use bytes::Bytes;

use crate::{
    domain::{
        order::{CustomerId, OrderId, OrderKey},
        tenant::TenantId,
    },
    platform::redis::Era,
};

/// With a single server, the key of every entry begins with this and ends with the order's id. With sentinels or a cluster it is
/// `cache:ERA:{order:ID}`: after a promotion no entry is found that was written before, and in a cluster the hash tag keeps an
/// entry and its mark in one slot. Before the id of an order that is not the default tenant's stands the tenant, as in `order:2:5`.
pub const KEY_PREFIX: &str = "cache:order:";

/// An entry begins with its version and its owner, each zero-padded to this many characters.
const NUMBER_WIDTH: usize = 20;

/// How a body ends that lacks `reference` and `metadata`: with the lines. A complete one ends with the object `metadata`.
const INCOMPLETE: &[u8] = b"]}";

/// What the cache holds of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// No entry, or an incomplete one: ask PostgreSQL.
    Miss,
    /// The order was deleted by this version.
    Deleted {
        /// The version of the deletion.
        version: i64,
    },
    /// The order.
    Found(CachedOrder),
}

/// An order as cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedOrder {
    /// Its version.
    pub version: i64,
    /// Who may see it.
    pub owner: CustomerId,
    /// The JSON body as it is answered.
    pub body: Bytes,
}

/// An entry as Redis holds it, readable or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheEntry(pub(super) Bytes);

impl CacheEntry {
    /// What the entry says, or `None` if the cache did not write it.
    pub fn lookup(&self) -> Option<Lookup> {
        decode_entry(&self.0)
    }

    /// The bytes that Redis holds.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One entry to write.
#[derive(Clone, Debug)]
pub struct CacheWrite {
    /// Which order.
    pub order: OrderKey,
    /// The version of the content.
    pub version: i64,
    /// The owner and the body, or `None` for a tombstone.
    pub content: Option<(CustomerId, Bytes)>,
    /// The write can create the entry if there is none. A late event must not: what has expired may have been newer.
    pub may_create: bool,
}

/// The key of an order's entry.
pub(super) fn entry_key(era: Option<&Era>, order: OrderKey) -> String {
    let (mut tenant, mut id) = (itoa::Buffer::new(), itoa::Buffer::new());
    let [tenant, colon] =
        if order.tenant.is_default() { [""; 2] } else { [tenant.format(order.tenant.get()), ":"] };
    let id = id.format(order.id.get());
    match era {
        None => [KEY_PREFIX, tenant, colon, id].concat(),
        Some(era) => ["cache:", &era.id, ":{order:", tenant, colon, id, "}"].concat(),
    }
}

/// The key of the mark beside an entry.
pub(super) fn mark_key(era: Option<&Era>, order: OrderKey) -> String {
    entry_key(era, order) + ":fill"
}

/// A key in the slot of an order's entry, in whichever era.
pub(super) fn slot_key(order: OrderKey) -> String {
    if order.tenant.is_default() {
        format!("{{order:{}}}", order.id)
    } else {
        format!("{{order:{}:{}}}", order.tenant, order.id)
    }
}

/// The pattern of all entries and marks.
pub(super) fn key_pattern(era: Option<&Era>) -> String {
    era.map_or_else(|| format!("{KEY_PREFIX}*"), |era| format!("cache:{}:{{order:*", era.id))
}

/// The order of a key; `None` for the mark beside an entry.
pub(super) fn parse_key(key: &str) -> Option<OrderKey> {
    let order = match key.strip_prefix(KEY_PREFIX) {
        Some(order) => order,
        None => key.split_once(":{order:")?.1.strip_suffix('}')?,
    };
    let (tenant, id) = match order.split_once(':') {
        Some((tenant, id)) => (TenantId::try_from(tenant.parse::<i32>().ok()?).ok()?, id),
        None => (TenantId::DEFAULT, order),
    };
    Some(OrderKey { tenant, id: OrderId::try_from(id.parse::<i64>().ok()?).ok()? })
}

pub(super) fn encode_entry(write: &CacheWrite) -> Vec<u8> {
    let (owner, body) = match &write.content {
        Some((owner, body)) => (owner.get(), body.as_ref()),
        None => (0, [].as_slice()),
    };
    let mut entry = format!("{:0width$}{owner:0width$}", write.version, width = NUMBER_WIDTH).into_bytes();
    entry.extend_from_slice(body);
    entry
}

/// Reads an entry; its body shares the memory. `None` if the cache did not write it: it counts as absent.
fn decode_entry(entry: &Bytes) -> Option<Lookup> {
    // The first digit is always 0. A sign in its place would be read as a number, too.
    let number = |range| {
        let digits = std::str::from_utf8(entry.get(range)?).ok()?;
        if digits.starts_with('0') { digits.parse::<i64>().ok() } else { None }
    };
    let version = number(0..NUMBER_WIDTH)?;
    let owner = number(NUMBER_WIDTH..2 * NUMBER_WIDTH)?;
    let body = entry.slice(2 * NUMBER_WIDTH..);
    if body.is_empty() {
        return (owner == 0).then_some(Lookup::Deleted { version });
    }
    let owner = CustomerId::try_from(owner).ok()?;
    if body.ends_with(INCOMPLETE) {
        return Some(Lookup::Miss);
    }
    Some(Lookup::Found(CachedOrder { version, owner, body }))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn keys_of_the_default_tenant_are_as_they_were_and_others_name_theirs() {
        let era = Era { id: "0123abcd".to_owned(), met: Instant::now(), met_in_use: false };
        for (tenant, id, plain, in_era, slot) in [
            (1, 5, "cache:order:5", "cache:0123abcd:{order:5}", "{order:5}"),
            (2, 5, "cache:order:2:5", "cache:0123abcd:{order:2:5}", "{order:2:5}"),
            (25, 1, "cache:order:25:1", "cache:0123abcd:{order:25:1}", "{order:25:1}"),
        ] {
            let order =
                OrderKey { tenant: tenant.try_into().unwrap(), id: i64::from(id).try_into().unwrap() };
            assert_eq!(entry_key(None, order), plain);
            assert_eq!(entry_key(Some(&era), order), in_era);
            assert_eq!(slot_key(order), slot);
            for key in [plain, in_era] {
                assert_eq!(parse_key(key), Some(order), "{key}");
                assert_eq!(parse_key(&format!("{key}:fill")), None, "{key}");
            }
        }
        for key in
            ["cache:order:none", "cache:order:", "cache:order:0:5", "cache:order:2:", "cache:order:2:5:6"]
        {
            assert_eq!(parse_key(key), None, "{key}");
        }
    }
}
