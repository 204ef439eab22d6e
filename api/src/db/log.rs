//! Reading the log by the positions that the relay has given to its events.

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

/// An event of the log.
#[derive(Debug)]
pub struct LogRow {
    /// Its position.
    pub position: i64,
    /// When it got the position.
    pub sequenced_at: OffsetDateTime,
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

/// Reads the events of the `most` positions after `after`, and the tip, in one statement and so of one moment.
///
/// Positions have no gaps, so a missing one was dropped after the retention.
pub async fn load_log_page(
    db: &mut PgConnection,
    after: i64,
    most: i32,
) -> Result<(LogTip, Vec<LogRow>), sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT tip.head AS "head!", tip.retained_after AS "retained_after!", tip.era AS "era?", tip.now AS "now!",
                  e.position AS "position?", e.sequenced_at AS "sequenced_at?", e.event_type AS "event_type?",
                  e.order_id AS "order_id?", e.payload AS "payload?"
           FROM (
               SELECT r.head, (SELECT coalesce(min(p.first) - 1, r.head) FROM log_pages p) AS retained_after,
                      (SELECT g.key FROM log_eras g ORDER BY g.number DESC LIMIT 1) AS era, clock_timestamp() AS now
               FROM relay r
           ) AS tip
           LEFT JOIN LATERAL log_events($1, $2) e ON true"#,
        after,
        most,
    )
    .fetch_all(db)
    .await?;
    let missing = || impossible("log_events");
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
            event_type: row.event_type.ok_or_else(missing)?,
            order_id: row.order_id.ok_or_else(missing)?,
            payload: row.payload.ok_or_else(missing)?,
        });
    }
    Ok((tip, events))
}

/// Reads all eras, the first one first. There are as many as the log was restored or a standby was promoted.
pub async fn load_log_eras(db: &mut PgConnection) -> Result<Vec<LogEra>, sqlx::Error> {
    sqlx::query_as!(LogEra, "SELECT key, after FROM log_eras ORDER BY number").fetch_all(db).await
}
