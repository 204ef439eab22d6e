//! The order, its parts and its rules.

mod changes;
mod ids;
pub(crate) mod json;
mod money;
mod number;
mod status;

use serde::Deserialize;
use time::{Date, OffsetDateTime};
use utoipa::ToSchema;

pub use changes::{ChangedFields, Changes, FieldChange};
pub use ids::{CustomerId, LineId, NotPositive, OrderId, ProductId};
pub use money::{Money, MoneyError};
pub use number::Number;
pub use status::{MOVES, OrderStatus, UnknownStatus};

use crate::domain::timestamp;

/// Lines of one order, at most.
pub const MAX_LINES: usize = 50;
/// Pieces of one line, at most.
pub const MAX_QUANTITY: i32 = 1000;

/// The last version of an order, so that one more is still a number of 64 bits.
pub const MAX_VERSION: i64 = i64::MAX - 1;

/// An order as it is answered, cached and announced. [`Order::to_json`] writes it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
pub struct Order {
    /// Its number.
    pub id: OrderId,
    /// Who it belongs to.
    pub customer_id: CustomerId,
    /// The day it was placed, as the customer says.
    #[serde(with = "timestamp::date")]
    #[schema(value_type = String, format = Date)]
    pub order_date: Date,
    /// Where it stands.
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
}

/// One position of an order.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
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

impl OrderLine {
    /// Price times quantity.
    pub fn total(&self) -> Money {
        self.unit_price.times(self.quantity)
    }

    /// Whether both order the same, whatever their ids.
    pub fn orders_the_same(&self, other: &Self) -> bool {
        self.product_id == other.product_id
            && self.quantity == other.quantity
            && self.unit_price == other.unit_price
    }
}
