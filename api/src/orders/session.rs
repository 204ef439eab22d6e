//! Reading orders by their ids, for everybody here who needs them as they are.

use std::collections::HashMap;

use shared::{
    db::{DbError, DbPool},
    order::{Order, OrderId},
};

use crate::store;

/// The orders with these ids that exist.
pub(super) async fn orders(db: &DbPool, ids: &[OrderId]) -> Result<HashMap<OrderId, Order>, DbError> {
    let orders = db.read(|mut db| async move { store::orders(&mut db, ids).await }).await?;
    Ok(orders.into_iter().map(|order| (order.id, order)).collect())
}
