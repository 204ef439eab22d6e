//! Reading what the worker recorded.

use serde_json::value::RawValue;
use shared::order::{CustomerId, OrderId};
use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::customer;

/// One recorded version of an order.
#[derive(Debug)]
pub struct Entry {
    /// The version.
    pub version: i64,
    /// `CREATED`, `UPDATED` or `DELETED`.
    pub action: String,
    /// The changed fields, as recorded.
    pub changes: Box<RawValue>,
    /// Who the order belongs, or belonged, to.
    pub customer_id: CustomerId,
    /// Who did it.
    pub performed_by: CustomerId,
    /// The event that told of it.
    pub event_id: Uuid,
    /// When it happened.
    pub occurred_at: OffsetDateTime,
    /// When it was recorded.
    pub recorded_at: OffsetDateTime,
}

/// Everything recorded of an order, oldest first.
pub async fn history(db: &mut PgConnection, id: OrderId) -> Result<Vec<Entry>, sqlx::Error> {
    sqlx::query!(
        r#"SELECT version, action, changes::json AS "changes!: Json<Box<RawValue>>", customer_id, performed_by, event_id,
                  occurred_at, recorded_at
           FROM order_history WHERE order_id = $1 ORDER BY version"#,
        id.get(),
    )
    .fetch_all(db)
    .await?
    .into_iter()
    .map(|row| {
        Ok(Entry {
            version: row.version,
            action: row.action,
            changes: row.changes.0,
            customer_id: customer(row.customer_id)?,
            performed_by: customer(row.performed_by)?,
            event_id: row.event_id,
            occurred_at: row.occurred_at,
            recorded_at: row.recorded_at,
        })
    })
    .collect()
}
