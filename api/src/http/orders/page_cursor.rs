//! The opaque cursor of the list: the position of an order in it.
//!
//! It holds a position and, if that is not the default one, the tenant. Filters are given again with each request, so a cursor can even be used
//! with other filters, and it stays valid when the order that it names is deleted.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use shared::domain::{tenant::TenantId, timestamp};
use time::OffsetDateTime;

use crate::db::ListPosition;

/// The first byte, so that the layouts can be distinguished from each other and from later ones: that of the default tenant,
const LAYOUT: u8 = 1;
/// and that in which the tenant follows.
const LAYOUT_WITH_TENANT: u8 = 2;
const POSITION: usize = 8 + 8;

/// Encodes a position as URL-safe text.
pub(super) fn encode_cursor(position: ListPosition, tenant: TenantId) -> String {
    let micros = i64::try_from(position.created_at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX);
    let mut bytes = beginning(tenant);
    bytes.extend_from_slice(&micros.to_be_bytes());
    bytes.extend_from_slice(&position.id.get().to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Decodes what `encode_cursor` wrote for the same tenant, and nothing else.
pub fn decode_cursor(text: &str, tenant: TenantId) -> Option<ListPosition> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let position: [u8; POSITION] = bytes.strip_prefix(beginning(tenant).as_slice())?.try_into().ok()?;
    let number = |at: usize| position[at..at + 8].try_into().map(i64::from_be_bytes).ok();
    let created_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(number(0)?) * 1000).ok()?;
    // PostgreSQL's times begin in 4713 BC.
    timestamp::is_storable(created_at).then_some(ListPosition { created_at, id: number(8)?.try_into().ok()? })
}

/// What stands before the position.
fn beginning(tenant: TenantId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + 4 + POSITION);
    if tenant.is_default() {
        bytes.push(LAYOUT);
    } else {
        bytes.push(LAYOUT_WITH_TENANT);
        bytes.extend_from_slice(&tenant.get().to_be_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use shared::domain::order::OrderId;

    use super::*;

    fn tenant() -> impl Strategy<Value = TenantId> {
        prop_oneof![Just(1), Just(2), 1..=i32::MAX].prop_map(|id| id.try_into().unwrap())
    }

    proptest! {
        #[test]
        fn a_cursor_reads_as_it_was_written_for_its_tenant_alone(
            micros in -10_i64.pow(15)..10_i64.pow(15), id in 1..=i64::MAX, tenants in (tenant(), tenant()),
        ) {
            let created_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap();
            let position = ListPosition { created_at, id: OrderId::try_from(id).unwrap() };
            let text = encode_cursor(position, tenants.0);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
            prop_assert_eq!(decode_cursor(&text, tenants.0), Some(position));
            prop_assert_eq!(decode_cursor(&text, tenants.1).is_some(), tenants.0 == tenants.1);
        }

        #[test]
        fn a_time_is_read_if_postgresql_can_hold_it(micros in any::<i64>(), id in any::<i64>()) {
            let bytes = [&[LAYOUT][..], &micros.to_be_bytes(), &id.to_be_bytes()].concat();
            // The years 1 to 9999.
            let storable = (-62_135_596_800_000_000..253_402_300_800_000_000).contains(&micros);
            prop_assert_eq!(decode_cursor(&URL_SAFE_NO_PAD.encode(bytes), TenantId::DEFAULT).is_some(), storable && id > 0);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}", tenant in tenant()) {
            if let Some(position) = decode_cursor(&text, tenant) {
                prop_assert_eq!(encode_cursor(position, tenant), text);
            }
        }
    }

    #[test]
    fn garbage_is_refused() {
        let position = ListPosition { created_at: OffsetDateTime::UNIX_EPOCH, id: 7.try_into().unwrap() };
        let good = encode_cursor(position, TenantId::DEFAULT);
        let other_layout = format!("Ag{}", &good[2..]);
        for text in ["", "x", "AQ", &good[1..], &format!("{good}A"), &format!("{good}=="), &other_layout] {
            assert_eq!(decode_cursor(text, TenantId::DEFAULT), None, "{text}");
        }
    }
}
