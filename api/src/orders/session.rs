//! Reading orders by their ids, for everybody here who needs them as they are.

use std::collections::HashMap;

use shared::{
    domain::order::{Order, OrderId},
    platform::db::{DbError, DbPool},
};

use crate::db;

/// The orders with these ids that exist.
pub(crate) async fn orders(db: &DbPool, ids: &[OrderId]) -> Result<HashMap<OrderId, Order>, DbError> {
    let orders = db.read_with_retry(|mut db| async move { db::orders(&mut db, ids).await }).await?;
    Ok(orders.into_iter().map(|order| (order.id, order)).collect())
}
