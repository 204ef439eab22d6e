//! Reading the history, which the worker records.

use serde::Serialize;
use serde_json::value::RawValue;
use shared::domain::{
    event::EventType,
    order::{CustomerId, FieldChange, OrderKey},
    tenant::TenantId,
    timestamp,
};
use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;
use utoipa::{
    ToSchema,
    openapi::schema::{ObjectBuilder, Type},
};
use uuid::Uuid;

use super::decode::{decode_customer, decode_tenant, impossible};

/// One change.
#[derive(Debug, Serialize, ToSchema)]
pub struct HistoryEntry {
    /// The version it led to.
    #[schema(minimum = 1)]
    pub version: i64,
    /// What was done.
    #[schema(schema_with = describe_action)]
    pub action: String,
    /// Each changed field before and after.
    #[schema(value_type = std::collections::BTreeMap<String, FieldChange>)]
    pub changes: Box<RawValue>,
    /// Who did it.
    pub performed_by: CustomerId,
    /// The tenant of who did it: an operator's own. Left out if it is that of the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub performed_by_tenant: Option<TenantId>,
    /// The event of the change.
    pub event_id: Uuid,
    /// When it happened.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub occurred_at: OffsetDateTime,
    /// When it was recorded.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub recorded_at: OffsetDateTime,
}

fn describe_action() -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some("What was done."))
        .enum_values(Some(EventType::ALL.map(EventType::action)))
}

/// A page of what is recorded of an order.
#[derive(Debug)]
pub struct HistoryPage {
    /// The customer the order belongs, or belonged, to; `None` if nothing of it is recorded.
    pub owner: Option<CustomerId>,
    /// The entries, oldest first.
    pub entries: Vec<HistoryEntry>,
    /// Whether later versions are recorded than those of the page.
    pub has_next: bool,
    /// The last version before the first gap of the whole history, whatever the page shows.
    pub complete_through: i64,
}

/// Reads the versions after `after`, up to `limit` of them, in one statement and so of one moment. There are fewer if they are large:
/// the page ends with the entry whose changes make it more than `max_bytes`.
///
/// A version is its own place among the recorded ones as long as nothing before it is missing. Counting these reads the
/// primary key alone, about 3 ms for 15,000 versions. So the tenant is compared with that of the first version, and nothing is counted
/// if it is another one: its order takes no longer than one that is not there.
pub async fn load_history(
    db: &mut PgConnection,
    order: OrderKey,
    after: i64,
    limit: i64,
    max_bytes: i64,
) -> Result<HistoryPage, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT whole.complete_through AS "complete_through!", whole.last AS "last?", first.owner AS "owner!", version AS "version?", action AS "action?",
                  changes::json AS "changes?: Json<Box<RawValue>>", performed_by AS "performed_by?", performed_by_tenant,
                  event_id AS "event_id?", occurred_at AS "occurred_at?", recorded_at AS "recorded_at?"
           FROM (
               SELECT order_id, tenant_id, customer_id AS owner
               FROM (SELECT order_id, tenant_id, customer_id FROM order_history WHERE order_id = $1
                     ORDER BY version LIMIT 1) AS oldest
               WHERE tenant_id = $4
           ) AS first
           CROSS JOIN LATERAL (
               SELECT count(*) FILTER (WHERE version = place) AS complete_through, max(version) AS last
               FROM (SELECT version, row_number() OVER (ORDER BY version) AS place
                     FROM order_history WHERE order_id = first.order_id) AS placed
           ) AS whole
           LEFT JOIN LATERAL (
               SELECT *, sum(octet_length(changes)) OVER (ORDER BY version) - octet_length(changes) AS bytes_before
               FROM (SELECT * FROM order_history
                     WHERE tenant_id = first.tenant_id AND order_id = first.order_id AND version > $2
                     ORDER BY version LIMIT $3) AS versions
           ) AS page ON page.bytes_before <= $5
           ORDER BY version"#,
        order.id.get(),
        after,
        limit,
        order.tenant.get(),
        max_bytes,
    )
    .fetch_all(db)
    .await?;
    let whole = rows.first().map(|row| (row.complete_through, row.last, Some(row.owner)));
    let (complete_through, last, owner) = whole.unwrap_or_default();
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        // Without entries there is one row, of the whole history alone; without a history there is none.
        let Some(version) = row.version else { continue };
        let missing = || impossible("order_history");
        entries.push(HistoryEntry {
            version,
            action: row.action.ok_or_else(missing)?,
            changes: row.changes.ok_or_else(missing)?.0,
            performed_by: decode_customer(row.performed_by.ok_or_else(missing)?)?,
            performed_by_tenant: row.performed_by_tenant.map(decode_tenant).transpose()?,
            event_id: row.event_id.ok_or_else(missing)?,
            occurred_at: row.occurred_at.ok_or_else(missing)?,
            recorded_at: row.recorded_at.ok_or_else(missing)?,
        });
    }
    let has_next = entries.last().is_some_and(|entry: &HistoryEntry| Some(entry.version) < last);
    Ok(HistoryPage { owner: owner.map(decode_customer).transpose()?, entries, has_next, complete_through })
}
