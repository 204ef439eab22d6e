//! Values of columns as the types of the domain. A value that this program never writes is a decoding error.

use shared::domain::{
    order::{CustomerId, Money, OrderId, OrderKey},
    tenant::TenantId,
};
use sqlx::types::Decimal;

/// A column held what this program never writes.
#[derive(Debug, thiserror::Error)]
#[error("the column {0} holds an impossible value")]
struct ImpossibleValue(&'static str);

pub(super) fn impossible(column: &'static str) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(ImpossibleValue(column)))
}

pub(super) fn decode_customer(id: i64) -> Result<CustomerId, sqlx::Error> {
    id.try_into().map_err(|_| impossible("customer_id"))
}

pub(super) fn decode_order_id(id: i64) -> Result<OrderId, sqlx::Error> {
    id.try_into().map_err(|_| impossible("orders.id"))
}

pub(super) fn decode_tenant(id: i32) -> Result<TenantId, sqlx::Error> {
    id.try_into().map_err(|_| impossible("tenant_id"))
}

/// The key of an order whose id stands in this column.
pub(super) fn decode_order(tenant: i32, id: i64, column: &'static str) -> Result<OrderKey, sqlx::Error> {
    let id = OrderId::try_from(id).map_err(|_| impossible(column))?;
    Ok(OrderKey { tenant: decode_tenant(tenant)?, id })
}

pub(super) fn decode_money(amount: Decimal, column: &'static str) -> Result<Money, sqlx::Error> {
    Money::new(amount).map_err(|_| impossible(column))
}
