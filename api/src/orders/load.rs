//! Loading orders as PostgreSQL has them, for the reader, the writer and the repair of the cache.

use std::collections::HashMap;

use shared::{
    domain::order::{Order, OrderId},
    platform::db::{DbError, DbPool},
};

use crate::db;

/// The orders with these ids that exist.
pub(super) async fn load_orders(db: &DbPool, ids: &[OrderId]) -> Result<HashMap<OrderId, Order>, DbError> {
    db.read_with_retry(|mut db| async move { db::load_orders(&mut db, ids).await }).await
}
