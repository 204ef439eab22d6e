//! Reading the log by the positions that the relay has given to its events.

use shared::domain::tenant::TenantId;
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::decode::impossible;

/// What the log is at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogTip {
    /// The last position that was given out; 0 if there is none.
    pub head: i64,
    /// The position before the first page that is retained.
    pub retained_after: i64,
    /// The key of the current era; `None` until the first position is given out.
    pub era: Option<i32>,
    /// The time of the database.
    pub now: OffsetDateTime,
}

/// An event of the log. Of other tenants' events, and of those that were removed, there is only the position.
#[derive(Debug)]
pub struct LogRow {
    /// Its position.
    pub position: i64,
    /// When it got the position.
    pub sequenced_at: OffsetDateTime,
    /// Whose order it is about; `None` if it was removed with its tenant.
    pub tenant: Option<TenantId>,
    /// Its type.
    pub event_type: String,
    /// The order that it is about.
    pub order_id: i64,
    /// The `CloudEvent`.
    pub payload: String,
}

/// An era of the log: positions up to `after` are those of the era before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEra {
    /// What cursors name.
    pub key: i32,
    /// The last position that it has in common with the era before.
    pub after: i64,
}

/// Reads a tenant's events of the `most` positions after `after`, or those of every tenant for `None`, and the tip, in one statement and so of one moment.
///
/// Positions have no gaps, so a missing one was dropped after the retention.
pub async fn load_log_page(
    db: &mut PgConnection,
    after: i64,
    most: i32,
    reader: Option<TenantId>,
) -> Result<(LogTip, Vec<LogRow>), sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT tip.head AS "head!", tip.retained_after AS "retained_after!", tip.era AS "era?", tip.now AS "now!",
                  e.position AS "position?", e.sequenced_at AS "sequenced_at?", e.tenant_id AS "tenant_id?",
                  e.event_type AS "event_type?", e.order_id AS "order_id?", e.payload AS "payload?"
           FROM (
               SELECT r.head, (SELECT coalesce(min(p.first) - 1, r.head) FROM log_pages p) AS retained_after,
                      (SELECT g.key FROM log_eras g ORDER BY g.number DESC LIMIT 1) AS era, clock_timestamp() AS now
               FROM relay r
           ) AS tip
           LEFT JOIN LATERAL log_feed($1, $2, $3) e ON true"#,
        after,
        most,
        reader.map(TenantId::get),
    )
    .fetch_all(db)
    .await?;
    let missing = || impossible("log_feed");
    let tip = rows
        .first()
        .map(|row| LogTip { head: row.head, retained_after: row.retained_after, era: row.era, now: row.now })
        .ok_or_else(missing)?;
    let mut events = Vec::with_capacity(rows.len());
    for row in rows {
        // Without events there is one row, of the tip alone.
        let Some(position) = row.position else { continue };
        events.push(LogRow {
            position,
            sequenced_at: row.sequenced_at.ok_or_else(missing)?,
            tenant: row.tenant_id.map(TenantId::try_from).transpose().map_err(|_| impossible("tenant_id"))?,
            event_type: row.event_type.unwrap_or_default(),
            order_id: row.order_id.unwrap_or_default(),
            payload: row.payload.unwrap_or_default(),
        });
    }
    Ok((tip, events))
}

/// Reads all eras, the first one first. There are as many as the log was restored or a standby was promoted.
pub async fn load_log_eras(db: &mut PgConnection) -> Result<Vec<LogEra>, sqlx::Error> {
    sqlx::query_as!(LogEra, "SELECT key, after FROM log_eras ORDER BY number").fetch_all(db).await
}
