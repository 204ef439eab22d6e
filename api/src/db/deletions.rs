//! Deleted orders, as the log knows them.

use shared::domain::order::{CustomerId, OrderKey};
use sqlx::PgConnection;

use super::{
    columns::raw_keys,
    decode::{decode_customer, decode_order},
};

/// The deletion of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Which order.
    pub order: OrderKey,
    /// The version of the deletion.
    pub version: i64,
    /// The customer it belonged to.
    pub owner: CustomerId,
}

/// Reads the deletions of these orders, for as long as the log retains them. The partial index `outbox_deletions` serves it.
pub async fn load_deletions(
    db: &mut PgConnection,
    orders: &[OrderKey],
) -> Result<Vec<Deletion>, sqlx::Error> {
    let (tenants, ids) = raw_keys(orders);
    sqlx::query!(
        r#"SELECT tenant_id, order_id, version, (payload::json #>> '{data,customer_id}')::bigint AS "customer_id!"
           FROM outbox
           WHERE event_type = 'OrderDeleted' AND order_id = ANY($2)
             AND (tenant_id, order_id) IN (SELECT * FROM unnest($1::integer[], $2::bigint[]))"#,
        &tenants,
        &ids,
    )
    .fetch_all(db)
    .await?
    .into_iter()
    .map(|row| {
        Ok(Deletion {
            order: decode_order(row.tenant_id, row.order_id, "order_id")?,
            version: row.version,
            owner: decode_customer(row.customer_id)?,
        })
    })
    .collect()
}
