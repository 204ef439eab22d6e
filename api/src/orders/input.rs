//! What clients ask for: the fields of an order that they can set, as the OpenAPI document describes them.
//!
//! `crate::http::orders::body` reads them from bodies. Their JSON makes two requests with one `Idempotency-Key` the same, so the
//! order of the fields stays, and a new optional field is left out of it if it is not given.

use std::str::FromStr;

use serde::{Serialize, Serializer};
use shared::domain::{
    order::{CustomerId, LineId, Metadata, Money, OrderLine, OrderStatus, ProductId},
    timestamp,
};
use time::Date;
use utoipa::{
    ToSchema,
    openapi::schema::{ObjectBuilder, OneOfBuilder, Schema, Type},
};

/// An order to place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateOrder, example = json!({"order_date": "2025-01-20", "lines": [
    {"product_id": 1001, "quantity": 2, "unit_price": 25.50}, {"product_id": 1002, "quantity": 1, "unit_price": "15.00"}]}))]
pub struct NewOrder {
    /// The owner: the caller if it is left out. Only administrators can, and must, name a customer.
    #[schema(required = false)]
    pub customer_id: CustomerId,
    /// Not after today anywhere on Earth.
    #[serde(with = "timestamp::date")]
    #[schema(value_type = String, format = Date)]
    pub order_date: Date,
    /// Can be left out, and otherwise must be `PENDING`.
    #[serde(skip_serializing_if = "is_pending")]
    #[schema(required = false, value_type = String, pattern = "^PENDING$")]
    pub status: OrderStatus,
    /// What is ordered.
    #[schema(min_items = 1, max_items = 50)]
    pub lines: Vec<LineInput>,
    /// Your own number of it, such as that of your invoice: one order of a customer can have it, and it is compared to the
    /// letter. White space at its ends is refused. `null` means none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(
        min_length = 1,
        max_length = 64,
        pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$"
    )]
    pub reference: Option<String>,
    /// Your own data, which comes back in answers, events and exports.
    #[serde(skip_serializing_if = "Metadata::is_empty")]
    #[schema(required = false)]
    pub metadata: Metadata,
}

/// Orders to place with one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CreateOrders, example = json!({"orders": [
    {"order_date": "2025-01-20", "lines": [{"product_id": 1001, "quantity": 2, "unit_price": "25.50"}]},
    {"order_date": "2025-01-21", "lines": [{"product_id": 1002, "quantity": 1, "unit_price": "15.00"}]}],
    "on_error": "abort"}))]
pub struct NewOrders {
    /// The orders.
    #[schema(min_items = 1, max_items = 100)]
    pub orders: Vec<NewOrder>,
    /// What becomes of the others if one cannot be placed.
    #[schema(required = false, default = "abort")]
    pub on_error: OnError,
}

/// What becomes of the other orders of a request if one cannot be placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// None is placed.
    #[default]
    Abort,
    /// They are placed.
    Skip,
}

impl FromStr for OnError {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "abort" => Ok(Self::Abort),
            "skip" => Ok(Self::Skip),
            _ => Err("must be skip or abort"),
        }
    }
}

/// What to change. Fields that are left out stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UpdateOrder, example = json!({"status": "SHIPPED"}))]
pub struct OrderUpdate {
    /// The next status, as the table of moves allows.
    #[schema(nullable = false)]
    pub status: Option<OrderStatus>,
    /// The new date, while the order is `PENDING`.
    #[serde(serialize_with = "serialize_optional_date")]
    #[schema(value_type = Option<String>, format = Date, nullable = false)]
    pub order_date: Option<Date>,
    /// The new lines, all of them, while the order is `PENDING`. A line keeps its id if its product stays.
    #[schema(min_items = 1, max_items = 50, nullable = false)]
    pub lines: Option<Vec<LineInput>>,
    /// The new number of your own; `null` takes it away. It can change in every status.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 64, pattern = r"^[^\s\x00-\x1f\x7f-\x9f]([^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f])?$")]
    pub reference: Option<Option<String>>,
    /// The new data of your own, in place of all of the old. They can change in every status.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub metadata: Option<Metadata>,
}

/// A line as it is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LineInput {
    /// What is ordered.
    pub product_id: ProductId,
    /// How many.
    #[schema(minimum = 1, maximum = 1000)]
    pub quantity: i32,
    /// The price of one: a number, or the same in a string, from 0 to 999999.99 with at most two decimals.
    #[schema(schema_with = describe_amount)]
    pub unit_price: Money,
}

impl LineInput {
    /// Price times quantity.
    pub fn total(&self) -> Money {
        self.unit_price.times(self.quantity)
    }

    /// The line with its id.
    pub fn with_id(self, id: LineId) -> OrderLine {
        let Self { product_id, quantity, unit_price } = self;
        OrderLine { id, product_id, quantity, unit_price }
    }
}

/// `PENDING` is what a request without a status means.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
fn is_pending(status: &OrderStatus) -> bool {
    *status == OrderStatus::Pending
}

#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
fn serialize_optional_date<S: Serializer>(date: &Option<Date>, serializer: S) -> Result<S::Ok, S::Error> {
    match date {
        Some(date) => timestamp::date::serialize(date, serializer),
        None => serializer.serialize_none(),
    }
}

/// An amount as a client can write it; it is exact either way.
fn describe_amount() -> Schema {
    let number = ObjectBuilder::new()
        .schema_type(Type::Number)
        .description(Some("With at most two decimals."))
        .multiple_of(Some(0.01))
        .minimum(Some(0.0))
        .maximum(Some(999_999.99));
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some("The same in a string."))
        .pattern(Some(r"^[0-9]{1,6}(\.[0-9]{1,2})?$"));
    OneOfBuilder::new().item(number).item(text).into()
}
