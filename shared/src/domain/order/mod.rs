//! The order, its parts, and what changes between two of its versions.
//! Which changes are allowed is decided by the API; only the moves of the status are here.

mod changes;
mod ids;
mod metadata;
mod money;
mod number;
mod status;

use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime};
use utoipa::ToSchema;

pub use changes::{ChangedFields, Changes, FieldChange};
pub use ids::{CustomerId, CustomerKey, LineId, NotPositive, OrderId, OrderKey, ProductId};
pub use metadata::{MAX_METADATA_ENTRIES, MAX_METADATA_KEY, MAX_METADATA_VALUE, Metadata};
pub use money::{Money, MoneyError};
pub use number::Number;
pub use status::{MOVES, OrderStatus, UnknownStatus};

use crate::domain::{tenant::TenantId, timestamp};

/// The most lines of one order.
pub const MAX_LINES: usize = 50;
/// The highest quantity of one line.
pub const MAX_QUANTITY: i32 = 1000;
/// The most characters of a reference, which has at least one.
pub const MAX_REFERENCE: usize = 64;

/// The highest version of an order, so that the version of its deletion still fits 64 bits.
pub const MAX_VERSION: i64 = i64::MAX - 1;

/// An order. Its JSON is the same in answers, in the cache and in events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Order {
    /// Its number.
    pub id: OrderId,
    /// The shop it was placed in. Not in its JSON: whoever reads that has asked for the tenant's order, and events say it
    /// beside the order.
    #[serde(skip)]
    pub tenant_id: TenantId,
    /// Who it belongs to.
    pub customer_id: CustomerId,
    /// The day it was placed, as the customer says.
    #[serde(with = "timestamp::date")]
    #[schema(value_type = String, format = Date)]
    pub order_date: Date,
    /// Its status.
    pub status: OrderStatus,
    /// The sum over its lines, computed.
    #[schema(value_type = String, pattern = r"^\d+\.\d{2}$", example = "66.00")]
    pub total_amount: Money,
    /// 1 at creation, one more with each change; the `ETag`.
    #[schema(minimum = 1)]
    pub version: i64,
    /// When it was created.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub created_at: OffsetDateTime,
    /// When it last changed.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: OffsetDateTime,
    /// What is ordered, in the order given.
    #[schema(min_items = 1, max_items = 50)]
    pub lines: Vec<OrderLine>,
    /// The client's own number of it, unique among the orders of the customer. Missing in what was written before there were
    /// references.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 64)]
    pub reference: Option<String>,
    /// The client's own data. Missing, and then none, in what was written before there were any.
    // The last field, by which a complete cache entry is recognised.
    #[serde(default)]
    pub metadata: Metadata,
}

/// One position of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrderLine {
    /// Its number, unique over all orders.
    pub id: LineId,
    /// What is ordered.
    pub product_id: ProductId,
    /// How many.
    #[schema(minimum = 1, maximum = 1000)]
    pub quantity: i32,
    /// The price of one.
    #[schema(value_type = String, pattern = r"^\d+\.\d{2}$", example = "25.50")]
    pub unit_price: Money,
}

impl Order {
    /// What it is found by.
    pub const fn key(&self) -> OrderKey {
        OrderKey { tenant: self.tenant_id, id: self.id }
    }

    /// Who it belongs to.
    pub const fn owner(&self) -> CustomerKey {
        CustomerKey { tenant: self.tenant_id, id: self.customer_id }
    }

    /// The order's JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("an order can be written as JSON")
    }
}

impl OrderLine {
    /// Price times quantity.
    pub fn total(&self) -> Money {
        self.unit_price.times(self.quantity)
    }

    /// Reports whether both lines order the same, whatever their ids.
    pub fn orders_the_same(&self, other: &Self) -> bool {
        self.product_id == other.product_id
            && self.quantity == other.quantity
            && self.unit_price == other.unit_price
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Order;

    /// The bytes that answers, cache entries and events hold.
    const GOLDEN: &str = concat!(
        r#"{"id":7,"customer_id":9223372036854775807,"order_date":"0987-01-20","status":"PENDING","#,
        r#""total_amount":"49999999500.05","version":1,"created_at":"2025-01-20T10:00:00.000001Z","#,
        r#""updated_at":"2025-12-31T23:59:59.123456Z","lines":["#,
        r#"{"id":9,"product_id":1001,"quantity":1000,"unit_price":"0.00"},"#,
        r#"{"id":10,"product_id":1002,"quantity":1,"unit_price":"999999.99"}],"#,
        r#""reference":"PO-4711","metadata":{"color":"red","gift":"\"yes\""}}"#,
    );

    #[test]
    fn an_order_is_written_with_its_fields_in_order_and_without_spaces() {
        let order: Order = serde_json::from_str(GOLDEN).unwrap();
        assert_eq!(order.to_json(), GOLDEN);
        let bare = Order { lines: Vec::new(), ..order };
        let mut expected: Value = serde_json::from_str(GOLDEN).unwrap();
        expected["lines"] = json!([]);
        assert_eq!(serde_json::from_str::<Value>(&bare.to_json()).unwrap(), expected);
    }

    #[test]
    fn an_order_that_was_written_before_there_were_references_and_metadata_has_none() {
        let (old, _) = GOLDEN.split_once(r#","reference""#).unwrap();
        let order: Order = serde_json::from_str(&format!("{old}}}")).unwrap();
        assert!(order.reference.is_none() && order.metadata.is_empty());
        assert!(order.to_json().ends_with(r#","reference":null,"metadata":{}}"#));
    }
}
