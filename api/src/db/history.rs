//! Reading what the worker recorded.

use serde_json::value::RawValue;
use shared::domain::order::{CustomerId, OrderId};
use sqlx::{PgConnection, types::Json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{customer, impossible};

/// One recorded version of an order.
#[derive(Debug)]
pub struct Entry {
    /// The version.
    pub version: i64,
    /// `CREATED`, `UPDATED` or `DELETED`.
    pub action: String,
    /// The changed fields, as recorded.
    pub changes: Box<RawValue>,
    /// Who did it.
    pub performed_by: CustomerId,
    /// The event that told of it.
    pub event_id: Uuid,
    /// When it happened.
    pub occurred_at: OffsetDateTime,
    /// When it was recorded.
    pub recorded_at: OffsetDateTime,
}

/// A page of what is recorded of an order.
#[derive(Debug)]
pub struct HistoryPage {
    /// Who the order belongs, or belonged, to; `None` if nothing of it is recorded.
    pub owner: Option<CustomerId>,
    /// The entries, oldest first.
    pub entries: Vec<Entry>,
    /// Whether later versions are recorded than those of the page.
    pub has_next: bool,
    /// The last version before the first gap of the whole history, whatever the page shows.
    pub complete_through: i64,
}

/// The versions after `after`, up to `limit` of them, in one statement and so of one moment.
///
/// A version is its own place among the recorded ones as long as nothing before it is missing. Counting these reads the
/// primary key alone, about 3 ms for 15,000 versions.
pub async fn history(
    db: &mut PgConnection,
    id: OrderId,
    after: i64,
    limit: i64,
) -> Result<HistoryPage, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT whole.complete_through AS "complete_through!", whole.owner, version AS "version?", action AS "action?",
                  changes::json AS "changes?: Json<Box<RawValue>>", performed_by AS "performed_by?",
                  event_id AS "event_id?", occurred_at AS "occurred_at?", recorded_at AS "recorded_at?"
           FROM (
               SELECT count(*) FILTER (WHERE version = place) AS complete_through,
                      (SELECT customer_id FROM order_history WHERE order_id = $1 ORDER BY version LIMIT 1) AS owner
               FROM (SELECT version, row_number() OVER (ORDER BY version) AS place
                     FROM order_history WHERE order_id = $1) AS placed
           ) AS whole
           LEFT JOIN LATERAL (
               -- One more than asked for tells whether another page follows.
               SELECT * FROM order_history WHERE order_id = $1 AND version > $2 ORDER BY version LIMIT $3::bigint + 1
           ) AS page ON true
           ORDER BY version"#,
        id.get(),
        after,
        limit,
    )
    .fetch_all(db)
    .await?;
    let whole = rows.first().map(|row| (row.complete_through, row.owner));
    let (complete_through, owner) = whole.unwrap_or_default();
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        // Without entries there is one row, of the whole history alone.
        let Some(version) = row.version else { continue };
        let missing = || impossible("order_history");
        entries.push(Entry {
            version,
            action: row.action.ok_or_else(missing)?,
            changes: row.changes.ok_or_else(missing)?.0,
            performed_by: customer(row.performed_by.ok_or_else(missing)?)?,
            event_id: row.event_id.ok_or_else(missing)?,
            occurred_at: row.occurred_at.ok_or_else(missing)?,
            recorded_at: row.recorded_at.ok_or_else(missing)?,
        });
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_next = entries.len() > limit;
    entries.truncate(limit);
    Ok(HistoryPage { owner: owner.map(customer).transpose()?, entries, has_next, complete_through })
}
