//! Writing an order and its changes.

use serde::{Serialize, Serializer, ser::Error as _};
use serde_json::value::RawValue;

use super::super::{Changes, Money, Order, OrderLine};
use crate::domain::{encoded::Encoded, timestamp};

/// What a text has room for from the beginning, so that it is not moved while it grows: an order without its lines,
/// and one line.
const ORDER: usize = 256;
const LINE: usize = 128;

impl Order {
    /// The order as it is answered, cached and announced.
    pub fn to_json(&self) -> String {
        let Self {
            id,
            customer_id,
            order_date,
            status,
            total_amount,
            version,
            created_at,
            updated_at,
            lines,
        } = self;
        let mut json = String::with_capacity(ORDER + LINE * lines.len());
        json.push_str(r#"{"id":"#);
        push_number(&mut json, id.get());
        json.push_str(r#","customer_id":"#);
        push_number(&mut json, customer_id.get());
        json.push_str(r#","order_date":"#);
        push_text(&mut json, timestamp::format_date(*order_date));
        json.push_str(r#","status":"#);
        push_text(&mut json, status.as_str());
        json.push_str(r#","total_amount":"#);
        push_amount(&mut json, *total_amount);
        json.push_str(r#","version":"#);
        push_number(&mut json, *version);
        json.push_str(r#","created_at":"#);
        push_text(&mut json, timestamp::format(*created_at));
        json.push_str(r#","updated_at":"#);
        push_text(&mut json, timestamp::format(*updated_at));
        json.push_str(r#","lines":"#);
        push_lines(&mut json, lines);
        json.push('}');
        json
    }

    /// The fields that differ between two versions, either of which may be missing.
    ///
    /// The id never changes, and `version`, `created_at` and `updated_at` tell nothing beyond the record itself.
    pub fn changes(before: Option<&Self>, after: Option<&Self>) -> Changes {
        let lines = [before, after].iter().flatten().map(|order| order.lines.len()).sum::<usize>();
        let mut changes = Difference { before, after, json: String::with_capacity(ORDER + LINE * lines) };
        changes.field("customer_id", |order| order.customer_id, |json, id| push_number(json, id.get()));
        changes.field("lines", |order| order.lines.as_slice(), push_lines);
        changes.field(
            "order_date",
            |order| order.order_date,
            |json, date| {
                push_text(json, timestamp::format_date(date));
            },
        );
        changes.field("status", |order| order.status, |json, status| push_text(json, status.as_str()));
        changes.field("total_amount", |order| order.total_amount, push_amount);
        changes.finish()
    }
}

impl Encoded<Order> {
    /// Writes it out.
    pub fn new(order: Order) -> Self {
        let json = order.to_json().into();
        Self::from_parts(order, json)
    }
}

/// As a part of something larger, which must be JSON.
impl Serialize for Order {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_json()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// Two versions of an order, written as the fields in which they differ, each a [`FieldChange`](super::super::FieldChange).
struct Difference<'a> {
    before: Option<&'a Order>,
    after: Option<&'a Order>,
    json: String,
}

impl<'a> Difference<'a> {
    fn field<T: PartialEq>(
        &mut self,
        name: &str,
        value: impl Fn(&'a Order) -> T,
        push: impl Fn(&mut String, T),
    ) {
        let (from, to) = (self.before.map(&value), self.after.map(&value));
        if from == to {
            return;
        }
        let json = &mut self.json;
        json.push(if json.is_empty() { '{' } else { ',' });
        push_text(json, name);
        json.push_str(r#":{"from":"#);
        push_or_null(json, from, &push);
        json.push_str(r#","to":"#);
        push_or_null(json, to, &push);
        json.push('}');
    }

    fn finish(self) -> Changes {
        let mut json = self.json;
        json.push_str(if json.is_empty() { "{}" } else { "}" });
        Changes::written(json.into())
    }
}

fn push_or_null<T>(json: &mut String, value: Option<T>, push: impl Fn(&mut String, T)) {
    match value {
        Some(value) => push(json, value),
        None => json.push_str("null"),
    }
}

fn push_lines(json: &mut String, lines: &[OrderLine]) {
    json.push('[');
    for (index, OrderLine { id, product_id, quantity, unit_price }) in lines.iter().enumerate() {
        json.push_str(if index == 0 { r#"{"id":"# } else { r#",{"id":"# });
        push_number(json, id.get());
        json.push_str(r#","product_id":"#);
        push_number(json, product_id.get());
        json.push_str(r#","quantity":"#);
        push_number(json, (*quantity).into());
        json.push_str(r#","unit_price":"#);
        push_amount(json, *unit_price);
        json.push('}');
    }
    json.push(']');
}

fn push_number(json: &mut String, number: i64) {
    json.push_str(itoa::Buffer::new().format(number));
}

fn push_amount(json: &mut String, amount: Money) {
    json.push('"');
    amount.push_to(json);
    json.push('"');
}

/// A text without characters that JSON escapes: names, statuses, dates.
fn push_text(json: &mut String, text: impl AsRef<str>) {
    json.push('"');
    json.push_str(text.as_ref());
    json.push('"');
}
