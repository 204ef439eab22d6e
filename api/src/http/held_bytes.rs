//! Bytes that hold a part of a budget.

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

struct HeldBytes {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The same bytes. They give their part of the budget back when the last reference to them is dropped.
pub(crate) fn held_bytes(bytes: Bytes, permit: OwnedSemaphorePermit) -> Bytes {
    Bytes::from_owner(HeldBytes { bytes, _permit: permit })
}
