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

/// Some positions of the log.
#[derive(Debug)]
pub struct LogPage {
    /// The log at the same moment.
    pub tip: LogTip,
    /// The events at these positions. Positions have no gaps, so a missing one was dropped after the retention.
    pub rows: Vec<LogRow>,
    /// The last of these positions.
    pub end: i64,
}

/// Which positions of the log to read.
#[derive(Clone, Copy, Debug)]
pub struct LogSpan {
    /// Those after this one.
    pub after: i64,
    /// How many at most.
    pub most: i32,
    /// No more after the event that makes it more than so many bytes. What follows is not even read by the server.
    pub bytes: usize,
}

/// Reads a tenant's events, or those of every tenant for `None`, and the tip, in one statement and so of one moment.
pub async fn load_log_page(
    db: &mut PgConnection,
    LogSpan { after, most, bytes }: LogSpan,
    reader: Option<TenantId>,
) -> Result<LogPage, sqlx::Error> {
    // The function returns its rows in order, and the window takes them as they come: sorting them again would take a fifth of the time.
    let rows = sqlx::query!(
        r#"SELECT tip.head AS "head!", tip.retained_after AS "retained_after!", tip.era AS "era?", tip.now AS "now!",
                  e.position AS "position?", e.sequenced_at AS "sequenced_at?", e.tenant_id AS "tenant_id?",
                  e.event_type AS "event_type?", e.order_id AS "order_id?", e.payload AS "payload?"
           FROM (
               SELECT r.head, (SELECT coalesce(min(p.first) - 1, r.head) FROM log_pages p) AS retained_after,
                      (SELECT g.key FROM log_eras g ORDER BY g.number DESC LIMIT 1) AS era, clock_timestamp() AS now
               FROM relay r
           ) AS tip
           LEFT JOIN LATERAL (
               SELECT f.*, sum(octet_length(f.payload)) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
               FROM log_feed($1, $2, $3) f
           ) AS e ON coalesce(e.bytes_before, 0) < $4"#,
        after,
        most,
        reader.map(TenantId::get),
        i64::try_from(bytes).unwrap_or(i64::MAX),
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
    let read: usize = events.iter().map(|event| event.payload.len()).sum();
    let end = match events.last() {
        Some(last) if read >= bytes => last.position,
        _ => tip.head.min(after.saturating_add(i64::from(most))),
    };
    Ok(LogPage { tip, rows: events, end })
}

/// The last of the `most` positions after `after` whose event was dropped after the retention, if there is one. Reads no event.
pub async fn last_dropped_position(
    db: &mut PgConnection,
    after: i64,
    most: i32,
) -> Result<Option<i64>, sqlx::Error> {
    // A reader of no tenant.
    sqlx::query_scalar!(
        "SELECT max(p.position)
         FROM generate_series($1::bigint + 1, least($1::bigint + $2::integer, (SELECT r.head FROM relay r))) AS p (position)
         LEFT JOIN log_feed($1, $2, 0) f USING (position)
         WHERE f.position IS NULL",
        after,
        most,
    )
    .fetch_one(db)
    .await
}

/// Reads all eras, the first one first. There are as many as the log was restored or a standby was promoted.
pub async fn load_log_eras(db: &mut PgConnection) -> Result<Vec<LogEra>, sqlx::Error> {
    sqlx::query_as!(LogEra, "SELECT key, after FROM log_eras ORDER BY number").fetch_all(db).await
}
