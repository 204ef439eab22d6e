//! The opaque cursor of the list: the position of an order in it.
//!
//! It holds a position and nothing else: filters are given again with each request, so a cursor can even be used
//! with other filters, and it stays valid when the order that it names is deleted.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use shared::domain::timestamp;
use time::OffsetDateTime;

use crate::db::ListPosition;

/// The first byte, so that a later layout can be distinguished from this one.
const LAYOUT: u8 = 1;
const LENGTH: usize = 1 + 8 + 8;

/// Encodes a position as URL-safe text.
pub(super) fn encode_cursor(position: ListPosition) -> String {
    let micros = i64::try_from(position.created_at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX);
    let mut bytes = [0; LENGTH];
    bytes[0] = LAYOUT;
    bytes[1..9].copy_from_slice(&micros.to_be_bytes());
    bytes[9..].copy_from_slice(&position.id.get().to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes what `encode_cursor` wrote, and nothing else.
pub fn decode_cursor(text: &str) -> Option<ListPosition> {
    let bytes: [u8; LENGTH] = URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()?;
    let number = |at: usize| bytes[at..at + 8].try_into().map(i64::from_be_bytes).ok();
    if bytes[0] != LAYOUT {
        return None;
    }
    let created_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(number(1)?) * 1000).ok()?;
    // PostgreSQL's times begin in 4713 BC.
    timestamp::is_storable(created_at).then_some(ListPosition { created_at, id: number(9)?.try_into().ok()? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::domain::order::OrderId;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_reads_as_it_was_written(micros in -10_i64.pow(15)..10_i64.pow(15), id in 1..=i64::MAX) {
            let created_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap();
            let position = ListPosition { created_at, id: OrderId::try_from(id).unwrap() };
            let text = encode_cursor(position);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
            prop_assert_eq!(decode_cursor(&text), Some(position));
        }

        #[test]
        fn a_time_is_read_if_postgresql_can_hold_it(micros in any::<i64>(), id in any::<i64>()) {
            let mut bytes = [0; LENGTH];
            bytes[0] = LAYOUT;
            bytes[1..9].copy_from_slice(&micros.to_be_bytes());
            bytes[9..].copy_from_slice(&id.to_be_bytes());
            // The years 1 to 9999.
            let storable = (-62_135_596_800_000_000..253_402_300_800_000_000).contains(&micros);
            prop_assert_eq!(decode_cursor(&URL_SAFE_NO_PAD.encode(bytes)).is_some(), storable && id > 0);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            if let Some(position) = decode_cursor(&text) {
                prop_assert_eq!(encode_cursor(position), text);
            }
        }
    }

    #[test]
    fn garbage_is_refused() {
        let good =
            encode_cursor(ListPosition { created_at: OffsetDateTime::UNIX_EPOCH, id: 7.try_into().unwrap() });
        let other_layout = format!("Ag{}", &good[2..]);
        for text in ["", "x", "AQ", &good[1..], &format!("{good}A"), &format!("{good}=="), &other_layout] {
            assert_eq!(decode_cursor(text), None, "{text}");
        }
    }
}
