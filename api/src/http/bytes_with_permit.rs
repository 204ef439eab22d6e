//! Bytes that hold a part of a memory budget.

use bytes::Bytes;

struct BytesWithPermit<P> {
    bytes: Bytes,
    _permit: P,
}

impl<P> AsRef<[u8]> for BytesWithPermit<P> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The same bytes. They release `permit` when the last reference to them is dropped.
pub(crate) fn bytes_with_permit(bytes: Bytes, permit: impl Send + 'static) -> Bytes {
    Bytes::from_owner(BytesWithPermit { bytes, _permit: permit })
}
