//! Bytes that hold a part of a memory budget.

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

struct BytesWithPermit {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for BytesWithPermit {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The same bytes. They release `permit` when the last reference to them is dropped.
pub(crate) fn bytes_with_permit(bytes: Bytes, permit: OwnedSemaphorePermit) -> Bytes {
    Bytes::from_owner(BytesWithPermit { bytes, _permit: permit })
}
