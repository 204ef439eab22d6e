//! Deleted orders, as the log knows them.

use shared::domain::order::{CustomerId, OrderId};
use sqlx::PgConnection;

use super::{
    columns::raw_ids,
    decode::{decode_customer, impossible},
};

/// The deletion of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Which order.
    pub order_id: OrderId,
    /// The version of the deletion.
    pub version: i64,
    /// The customer it belonged to.
    pub owner: CustomerId,
}

/// Reads the deletions of these orders, for as long as the log retains them. The partial index `outbox_deletions` serves it.
pub async fn load_deletions(db: &mut PgConnection, ids: &[OrderId]) -> Result<Vec<Deletion>, sqlx::Error> {
    sqlx::query!(
        r#"SELECT order_id, version, (payload::json #>> '{data,customer_id}')::bigint AS "customer_id!"
           FROM outbox WHERE event_type = 'OrderDeleted' AND order_id = ANY($1)"#,
        &raw_ids(ids),
    )
    .fetch_all(db)
    .await?
    .into_iter()
    .map(|row| {
        Ok(Deletion {
            order_id: row.order_id.try_into().map_err(|_| impossible("order_id"))?,
            version: row.version,
            owner: decode_customer(row.customer_id)?,
        })
    })
    .collect()
}
