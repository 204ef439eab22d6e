//! The simple model of an order: what it should be, and what should be recorded of it.

use serde_json::{Map, Value, json};
use shared::domain::order::OrderStatus;

use super::commands::{Change, Line};

/// One recorded version: what happened, what changed, and who did it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) action: &'static str,
    pub(super) changes: Value,
    /// The number, and its tenant if that is not the shop's.
    pub(super) performed_by: (i64, Option<i64>),
}

/// What the model knows of an order.
#[derive(Clone, Debug)]
pub(super) struct Modelled {
    pub(super) id: i64,
    pub(super) shop: usize,
    pub(super) owner: i64,
    pub(super) day: u8,
    pub(super) status: OrderStatus,
    pub(super) lines: Vec<Line>,
    pub(super) reference: Option<u8>,
    pub(super) metadata: u8,
    pub(super) deleted: bool,
    /// As it was last answered; `null` once it is deleted.
    pub(super) shown: Value,
    /// One for each version.
    pub(super) entries: Vec<Entry>,
}

/// The fields of an order whose changes are recorded.
pub(super) const RECORDED: [&str; 7] =
    ["customer_id", "order_date", "status", "total_amount", "lines", "reference", "metadata"];

impl Modelled {
    pub(super) fn version(&self) -> usize {
        self.entries.len()
    }

    /// The expected status. If it is a success the model has changed, and says whether anything did. `is_taken` says that another
    /// order has the reference that the change asks for.
    pub(super) fn change(&mut self, change: &Change, is_taken: bool) -> (u16, bool) {
        let status = change.status.unwrap_or(self.status);
        if status != self.status && !self.status.can_become(status) {
            return (409, false);
        }
        let day = change.day.unwrap_or(self.day);
        let lines = change.lines.as_ref().unwrap_or(&self.lines).clone();
        let edited = (day, &lines) != (self.day, &self.lines);
        if edited && self.status != OrderStatus::Pending {
            return (409, false);
        }
        let (reference, metadata) =
            (change.reference.unwrap_or(self.reference), change.metadata.unwrap_or(self.metadata));
        if is_taken && reference != self.reference {
            return (409, false);
        }
        let own = (reference, metadata);
        let changes = edited || status != self.status || own != (self.reference, self.metadata);
        (self.day, self.status, self.lines) = (day, status, lines);
        (self.reference, self.metadata) = own;
        (200, changes)
    }

    /// Notes a version, which is now shown like this.
    pub(super) fn record(&mut self, action: &'static str, shown: Value, performed_by: (i64, Option<i64>)) {
        let changes: Map<String, Value> = RECORDED
            .iter()
            .filter(|name| self.shown[**name] != shown[**name])
            .map(|name| ((*name).to_owned(), json!({"from": self.shown[*name], "to": shown[*name]})))
            .collect();
        self.entries.push(Entry { action, changes: changes.into(), performed_by });
        self.shown = shown;
        self.check(&self.shown);
    }

    /// It is shown as the model says.
    pub(super) fn check(&self, shown: &Value) {
        if self.deleted {
            return;
        }
        assert_eq!(shown["id"], self.id);
        assert_eq!(shown["customer_id"], self.owner);
        assert_eq!(shown["version"], self.version());
        assert_eq!(shown["status"], self.status.as_str());
        assert_eq!(shown["order_date"], date(self.day));
        assert_eq!(shown["reference"], self.reference.map_or(Value::Null, |n| json!(reference(n))));
        assert_eq!(shown["metadata"], metadata(self.metadata));
        let lines: Vec<Value> = self.lines.iter().map(line_shown).collect();
        let shown_lines: Vec<Value> = shown["lines"]
            .as_array()
            .unwrap()
            .iter()
            .map(|line| json!([line["product_id"], line["quantity"], line["unit_price"]]))
            .collect();
        assert_eq!(shown_lines, lines);
        let cents: i64 = self.lines.iter().map(|(_, quantity, price)| quantity * price).sum();
        assert_eq!(shown["total_amount"], amount(cents));
    }
}

pub(super) fn amount(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

pub(super) fn line_shown((product, quantity, price): &Line) -> Value {
    json!([product, quantity, amount(*price)])
}

pub(super) fn date(day: u8) -> String {
    format!("2025-01-{day:02}")
}

pub(super) fn reference(number: u8) -> String {
    format!("№ {number}")
}

/// As many entries.
pub(super) fn metadata(entries: u8) -> Value {
    (0..entries).map(|n| (format!("key {n}"), json!(format!("\"{entries}\"")))).collect::<Map<_, _>>().into()
}

pub(super) fn lines_body(lines: &[Line]) -> Value {
    let line = |(product, quantity, price): &Line| json!({"product_id": product, "quantity": quantity, "unit_price": amount(*price)});
    lines.iter().map(line).collect()
}
