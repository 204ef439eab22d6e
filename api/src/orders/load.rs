//! Loading orders as PostgreSQL has them, for the reader, the writer and the repair of the cache.

use std::collections::HashMap;

use shared::{
    domain::order::{Order, OrderKey},
    platform::db::{DbError, DbPool},
};

use crate::db;

/// Those of these orders that exist.
pub(super) async fn load_orders(
    db: &DbPool,
    orders: &[OrderKey],
) -> Result<HashMap<OrderKey, Order>, DbError> {
    db.read_with_retry(|mut db| async move { db::load_orders(&mut db, orders).await }).await
}
