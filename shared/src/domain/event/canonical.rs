//! An event as it is written here: by hand, because two of its parts are JSON already, and read in one pass where
//! nothing else wrote it.

use bytestring::ByteString;
use uuid::Uuid;

use super::{
    Event, EventData, EventType, SCHEMA_VERSION,
    document::{SOURCE, SPECVERSION},
};
use crate::domain::{
    cursor::Cursor,
    digits::Digits,
    encoded::Encoded,
    order::{Changes, json},
    timestamp,
};

/// Digits of `sequence`, so that text order is number order.
const SEQUENCE: usize = 20;

/// Writes an event.
pub(super) fn write(event: &Event) -> String {
    let Event { id, event_type, time, traceparent, data } = event;
    let EventData { order_id, version, customer_id, performed_by, changes, order } = data;
    let trace = traceparent.as_ref().map_or_else(String::new, |traceparent| {
        format!(r#","traceparent":{}"#, serde_json::Value::from(traceparent.as_str()))
    });
    let (mut order_text, mut version_text) = (itoa::Buffer::new(), itoa::Buffer::new());
    let (order_id, version) = (order_text.format(order_id.get()), version_text.format(*version));
    [
        r#"{"specversion":""#,
        SPECVERSION,
        r#"","id":""#,
        id.hyphenated().encode_lower(&mut Uuid::encode_buffer()),
        r#"","source":""#,
        SOURCE,
        r#"","type":""#,
        event_type.as_str(),
        r#"","subject":""#,
        order_id,
        r#"","time":""#,
        timestamp::format(*time).as_str(),
        r#"","datacontenttype":"application/json","sequence":""#,
        Digits::<SEQUENCE>::of(u64::try_from(data.version).unwrap_or_default()).as_str(),
        r#"","partitionkey":""#,
        order_id,
        r#"""#,
        &trace,
        r#","schemaversion":"#,
        itoa::Buffer::new().format(SCHEMA_VERSION),
        r#","data":{"order_id":"#,
        order_id,
        r#","version":"#,
        version,
        r#","customer_id":"#,
        itoa::Buffer::new().format(customer_id.get()),
        r#","performed_by":"#,
        itoa::Buffer::new().format(performed_by.get()),
        r#","changes":"#,
        changes.json(),
        r#","order":"#,
        order.json(),
        "}}",
    ]
    .concat()
}

/// Reads what [`write`] wrote; its parts share the memory of `text`. `None` stands for everything else, whether it is an
/// event or not.
pub(super) fn read(text: &ByteString) -> Option<Event> {
    let mut json = Cursor::new(text);
    json.skip(r#"{"specversion":""#)?;
    json.skip(SPECVERSION)?;
    json.skip(r#"","id":""#)?;
    let id = Uuid::try_parse(json.take(uuid::fmt::Hyphenated::LENGTH)?).ok()?;
    json.skip(r#"","source":""#)?;
    json.skip(SOURCE)?;
    json.skip(r#"","type":"#)?;
    let name = json.text()?;
    let event_type = EventType::ALL.into_iter().find(|event_type| event_type.as_str() == name)?;
    json.skip(r#","subject":""#)?;
    let subject = json.number()?;
    json.skip(r#"","time":"#)?;
    let time = timestamp::parse(json.text()?)?;
    json.skip(r#","datacontenttype":"application/json","sequence":""#)?;
    let sequence: i64 = json.take(SEQUENCE)?.parse().ok()?;
    json.skip(r#"","partitionkey":""#)?;
    let partition_key = json.number()?;
    json.skip("\"")?;
    let traceparent = match json.skip(r#","traceparent":"#) {
        Some(()) => Some(json.text()?.to_owned()),
        None => None,
    };
    json.skip(r#","schemaversion":"#)?;
    let schema_version = json.number()?;
    json.skip(r#","data":{"order_id":"#)?;
    let order_id = json.number()?;
    json.skip(r#","version":"#)?;
    let version = json.number()?;
    json.skip(r#","customer_id":"#)?;
    let customer_id = json.number()?.try_into().ok()?;
    json.skip(r#","performed_by":"#)?;
    let performed_by = json.number()?.try_into().ok()?;
    json.skip(r#","changes":"#)?;
    let changes = part(&mut json, json::changes)?.0;
    json.skip(r#","order":"#)?;
    let (order_json, order) = part(&mut json, json::order)?;
    json.skip("}}")?;

    let agrees = subject == order_id
        && partition_key == order_id
        && order.id.get() == order_id
        && sequence == version
        && event_type.fits(version, order.version)
        && schema_version == i64::from(SCHEMA_VERSION)
        && json.rest().is_empty();
    let order_id = order.id;
    let changes = Changes::written(text.slice_ref(changes));
    let order = Encoded::from_parts(order, text.slice_ref(order_json));
    let data = EventData { order_id, version, customer_id, performed_by, changes, order };
    agrees.then_some(Event { id, event_type, time, traceparent, data })
}

/// Reads a part, and gives its text, too.
fn part<'a, T>(
    json: &mut Cursor<'a>,
    read: impl FnOnce(&mut Cursor<'a>) -> Option<T>,
) -> Option<(&'a str, T)> {
    let before = json.rest();
    let part = read(json)?;
    Some((&before[..before.len() - json.rest().len()], part))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use time::OffsetDateTime;

    use super::{super::Happened, *};
    use crate::domain::order::{MAX_VERSION, MOVES, Order, OrderLine};

    fn id<T: TryFrom<i64> + std::fmt::Debug>() -> impl Strategy<Value = T> {
        (1..=i64::MAX).prop_map(|id| T::try_from(id).unwrap_or_else(|_| unreachable!("it is positive")))
    }

    /// The version of an order that has changed and may change again.
    fn version() -> impl Strategy<Value = i64> {
        prop_oneof![Just(2), Just(MAX_VERSION - 1), 2..MAX_VERSION]
    }

    fn time() -> impl Strategy<Value = OffsetDateTime> {
        (-62_135_596_800_000_000..253_402_300_800_000_000_i64)
            .prop_map(|micros| OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000).unwrap())
    }

    fn line() -> impl Strategy<Value = OrderLine> {
        (id(), id(), 1..=1000, 0..100_000_000_i64).prop_map(|(id, product_id, quantity, cents)| {
            let unit_price = format!("{}.{:02}", cents / 100, cents % 100).parse().unwrap();
            OrderLine { id, product_id, quantity, unit_price }
        })
    }

    prop_compose! {
        fn order()(
            id in id(), customer_id in id(), status in 0..MOVES.len(), version in version(),
            created_at in time(), updated_at in time(), lines in prop::collection::vec(line(), 0..4),
        ) -> Order {
            let total_amount = lines.iter().map(OrderLine::total).sum();
            let (order_date, status) = (created_at.date(), MOVES[status].0);
            Order { id, customer_id, order_date, status, total_amount, version, created_at, updated_at, lines }
        }
    }

    prop_compose! {
        fn event()(
            before in order(), after in order(), kind in 0..3, time in time(), performed_by in id(),
            traceparent in prop::option::of("[ -~]{0,60}"),
        ) -> Event {
            let happened = Happened { time, performed_by, traceparent };
            match kind {
                0 => Event::created(Order { version: 1, ..after }, happened),
                1 => Event::updated(&before, after, happened),
                _ => Event::deleted(after, happened),
            }
        }
    }

    proptest! {
        #[test]
        fn an_event_is_read_at_once_and_as_any_other(event in event()) {
            let text = Bytes::from(write(&event));
            let (at_once, carefully) = Event::read_both_ways(&text);
            prop_assert_eq!(carefully.as_ref(), Some(&event));
            // A trace that needs escapes is left to the other reader.
            let is_plain = event.traceparent.as_ref().is_none_or(|trace| !trace.contains(['"', '\\']));
            prop_assert_eq!(at_once.as_ref(), is_plain.then_some(&event));
            for event in [at_once, carefully].into_iter().flatten() {
                prop_assert_eq!(Bytes::from(write(&event)), text.clone());
            }
            prop_assert_eq!(Event::read(&text).unwrap(), event);
        }

        /// Whatever is read at once is what any other reader reads.
        #[test]
        fn a_text_is_understood_in_one_way(
            event in event(), at in any::<prop::sample::Index>(), length in 0..3_usize, put in "[-0-9a-z\"\\\\{},:\\[\\] ]{0,2}",
        ) {
            let text = write(&event);
            let start = at.index(text.len());
            let end = (start + length).min(text.len());
            let Some((head, tail)) = text.get(..start).zip(text.get(end..)) else { return Ok(()) };
            let (at_once, carefully) = Event::read_both_ways(&Bytes::from(format!("{head}{put}{tail}")));
            if at_once.is_some() {
                prop_assert_eq!(at_once, carefully);
            }
        }
    }
}
