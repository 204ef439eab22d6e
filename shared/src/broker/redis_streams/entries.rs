//! Entries of the stream as Redis answers them.

use std::fmt;

use bytes::Bytes;
use redis::Value;
use time::OffsetDateTime;

use crate::broker::Delivery;

/// The field with the whole event.
pub(super) const BODY: &str = "body";
/// The field with the event's position in the log, for readers that want to notice a gap.
pub(super) const POSITION: &str = "position";

/// One entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StreamEntry {
    pub(super) id: String,
    pub(super) body: Bytes,
}

impl StreamEntry {
    /// Hands it out as its `attempt`th attempt.
    pub(super) fn into_delivery(self, attempt: u32) -> Delivery {
        let published_at = EntryId::parse(&self.id).and_then(EntryId::time);
        Delivery { body: self.body, attempt, published_at, receipt: self.id }
    }
}

/// An entry's id: the milliseconds of the server's clock since the Unix epoch, and a number among those of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct EntryId {
    millis: u64,
    number: u64,
}

impl EntryId {
    /// Reads what Redis writes, `1737367200123-7`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        // Not `split_once`, whose search is made for long texts; this is done several times for each event.
        let hyphen = text.bytes().position(|byte| byte == b'-')?;
        Some(Self { millis: text[..hyphen].parse().ok()?, number: text[hyphen + 1..].parse().ok()? })
    }

    fn time(self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.millis) * 1_000_000).ok()
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.millis, self.number)
    }
}

/// The entries in an answer of `XREADGROUP` to one stream. Nothing new is `Nil`.
pub(super) fn from_read(answer: Value) -> Vec<StreamEntry> {
    let stream = match answer {
        Value::Array(mut streams) => match streams.pop() {
            Some(Value::Array(mut pair)) => pair.pop(),
            _ => None,
        },
        // The newer protocol.
        Value::Map(mut streams) => streams.pop().map(|(_, entries)| entries),
        _ => None,
    };
    stream.map(from_list).unwrap_or_default()
}

/// The cursor and the entries in an answer of `XAUTOCLAIM`.
pub(super) fn from_auto_claim(answer: Value) -> (Option<String>, Vec<StreamEntry>) {
    let Value::Array(parts) = answer else { return (None, Vec::new()) };
    let mut parts = parts.into_iter();
    (parts.next().and_then(text), parts.next().map(from_list).unwrap_or_default())
}

/// A list of entries, as `XCLAIM` answers. What has been deleted from the stream is left out.
pub(super) fn from_list(entries: Value) -> Vec<StreamEntry> {
    let Value::Array(entries) = entries else { return Vec::new() };
    entries.into_iter().filter_map(entry).collect()
}

/// An entry of somebody else, without our field, has what came as its body: its consumer finds that it is no event, and
/// sets it aside so that an operator sees what it was.
fn entry(value: Value) -> Option<StreamEntry> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    let id = parts.next().and_then(text)?;
    let Some(Value::Array(fields)) = parts.next() else { return None };
    let mut fields = fields.into_iter();
    let (mut body, mut others) = (None, Vec::new());
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        if let (Value::BulkString(name), Value::BulkString(value)) = (name, value) {
            if name == BODY.as_bytes() {
                body = Some(value.into());
            } else {
                others.push((name, value));
            }
        }
    }
    Some(StreamEntry { id, body: body.unwrap_or_else(|| what_came(&others)) })
}

/// The fields of an entry as JSON, in their order: `{"fields":[["name","value"]]}`. What is not text is an object with its
/// bytes, escaped as in Rust.
fn what_came(fields: &[(Vec<u8>, Vec<u8>)]) -> Bytes {
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::Value::from(text),
        Err(_) => serde_json::json!({"bytes": bytes.escape_ascii().to_string()}),
    };
    let fields: Vec<_> = fields.iter().map(|(name, value)| [text(name), text(value)]).collect();
    serde_json::json!({"fields": fields}).to_string().into()
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// The consumer and the delivery count in an answer of `XPENDING` about one entry.
pub(super) fn pending(answer: Value) -> Option<(String, u32)> {
    let Value::Array(mut rows) = answer else { return None };
    let Value::Array(row) = rows.pop()? else { return None };
    let mut row = row.into_iter();
    let consumer = row.nth(1).and_then(text)?;
    match row.nth(1)? {
        Value::Int(count) => Some((consumer, u32::try_from(count).unwrap_or(u32::MAX))),
        _ => None,
    }
}

/// The ids in an answer of `XPENDING` about many entries.
pub(super) fn pending_ids(answer: Value) -> Vec<String> {
    let Value::Array(rows) = answer else { return Vec::new() };
    rows.into_iter()
        .filter_map(|row| match row {
            Value::Array(row) => row.into_iter().next().and_then(text),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn row(id: &str, fields: &[&str]) -> Value {
        Value::Array(vec![bulk(id), Value::Array(fields.iter().map(|field| bulk(field)).collect())])
    }

    #[test]
    fn an_entry_without_our_field_has_what_came_as_its_body_and_a_deleted_one_is_left_out() {
        let bytes = Value::Array(vec![bulk("data"), Value::BulkString(b"\xff\"".to_vec())]);
        let list = Value::Array(vec![
            row("1-0", &["id", "x", "body", "{}"]),
            Value::Nil,
            row("2-0", &["something", "else", "something", "more"]),
            Value::Array(vec![bulk("3-0"), bytes]),
        ]);
        let read = Value::Array(vec![Value::Array(vec![bulk("events:orders"), list])]);
        let expected = [
            ("1-0", "{}"),
            ("2-0", r#"{"fields":[["something","else"],["something","more"]]}"#),
            ("3-0", r#"{"fields":[["data",{"bytes":"\\xff\\\""}]]}"#),
        ]
        .map(|(id, body)| StreamEntry { id: id.to_owned(), body: Bytes::copy_from_slice(body.as_bytes()) });
        assert_eq!(from_read(read), expected);
        assert_eq!(from_read(Value::Nil), []);
    }

    #[test]
    fn an_entry_id_tells_when_it_was_published() {
        let entry = StreamEntry { id: "1737367200123-7".to_owned(), body: Bytes::new() };
        let delivery = entry.into_delivery(2);
        assert_eq!(delivery.attempt, 2);
        assert_eq!(delivery.published_at.map(OffsetDateTime::unix_timestamp), Some(1_737_367_200));
    }

    #[test]
    fn the_owner_and_the_delivery_count_are_read_from_xpending() {
        let rows = Value::Array(vec![Value::Array(vec![
            bulk("1-0"),
            bulk("worker-1"),
            Value::Int(12),
            Value::Int(3),
        ])]);
        assert_eq!(pending(rows.clone()), Some(("worker-1".to_owned(), 3)));
        assert_eq!(pending_ids(rows), ["1-0"]);
        assert_eq!(pending(Value::Array(Vec::new())), None);
    }
}
