//! What a change changed: each field with its value before and after.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::Order;

/// One field before and after. `null` stands for "there was none": `from` at creation, `to` at deletion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldChange {
    /// The value before.
    pub from: Value,
    /// The value after.
    pub to: Value,
}

/// The changed fields by name.
pub type Changes = BTreeMap<String, FieldChange>;

impl Order {
    /// The fields that differ between two versions, either of which may be missing.
    ///
    /// The id never changes, and `version`, `created_at` and `updated_at` tell nothing beyond the record itself.
    pub fn changes(before: Option<&Self>, after: Option<&Self>) -> Changes {
        let (before, after) = (fields(before), fields(after));
        before
            .into_iter()
            .zip(after)
            .filter(|((_, from), (_, to))| from != to)
            .map(|((name, from), (_, to))| (name.to_owned(), FieldChange { from, to }))
            .collect()
    }
}

fn fields(order: Option<&Order>) -> [(&'static str, Value); 5] {
    let field = |value: fn(&Order) -> Value| order.map_or(Value::Null, value);
    [
        ("customer_id", field(|order| order.customer_id.get().into())),
        ("order_date", field(|order| crate::timestamp::format_date(order.order_date).into())),
        ("status", field(|order| order.status.as_str().into())),
        ("total_amount", field(|order| order.total_amount.to_string().into())),
        ("lines", field(|order| serde_json::to_value(&order.lines).unwrap_or(Value::Null))),
    ]
}
