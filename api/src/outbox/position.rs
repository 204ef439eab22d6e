//! The relay's position in the log, and the events after it.

use shared::{
    domain::event::Envelope,
    platform::db::{DbConnection, DbError, DbPool},
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{LARGE_WORK, Lease, OutboxError};

/// The snapshot in which nothing is published: all retained events are published again, whatever their xids are.
const NOTHING_PUBLISHED: &str = "1:1:";

/// An event of the log.
#[derive(Clone, Debug)]
pub(super) struct OutboxRow {
    /// Its position in the log.
    pub(super) id: i64,
    /// How long before `read_at` it was recorded.
    age_seconds: f64,
    read_at: Instant,
    /// What is published.
    pub(super) envelope: Envelope,
}

impl OutboxRow {
    /// How long ago it was recorded.
    pub(super) fn age_seconds(&self) -> f64 {
        self.age_seconds + self.read_at.elapsed().as_secs_f64()
    }
}

/// The position of one holder of the lease.
#[derive(Debug)]
pub(super) struct LogPosition {
    /// The epoch of the lease; the position is saved only under it.
    pub(super) epoch: i64,
    /// Everything visible in this snapshot is published. Snapshots travel as text.
    published: String,
    /// Events up to this id are published again in the first window after a restore, and only there.
    restored: i64,
    /// The events that are being published now.
    window: Option<Window>,
    /// When the server was last known to be the one whose snapshots these are. After a crash or a promotion the transaction ids
    /// that were not on disk there are given out again, and a snapshot from before would count their events as published.
    /// What is saved in the database has no such ids.
    valid_at: Instant,
}

/// The events that are visible in the snapshot `end` and are not published yet.
#[derive(Debug)]
struct Window {
    end: String,
    /// All events of the window up to this id are published.
    last: i64,
    low: i64,
    high: i64,
    /// Transactions that were open in the previous snapshot, as text.
    late: Vec<String>,
}

impl LogPosition {
    /// Reads where the last holder of the lease stopped, or starts over if that position is not of this cluster.
    pub(super) async fn load(pool: &DbPool, lease: &Lease, epoch: i64) -> Result<Self, OutboxError> {
        let work = |mut db: DbConnection| async move {
            let valid_at = Instant::now();
            let row = sqlx::query!(
            r#"SELECT r.published::text AS "published!", r.window_end::text, r.window_last, r.restored,
                      w.low, w.high, w.late::text[], c.system_identifier AS "here!", r.system_identifier AS recorded_at_cluster,
                      pg_snapshot_xmax(r.published) > pg_snapshot_xmax(pg_current_snapshot()) AS "ahead!"
               FROM relay r CROSS JOIN pg_control_system() c
               LEFT JOIN LATERAL outbox_window(r.published, r.window_end, r.restored) w ON r.window_end IS NOT NULL"#,
        )
        .fetch_one(&mut *db)
        .await?;
            Ok((row, valid_at))
        };
        let (row, valid_at) = pool.run_with_longer_limit(LARGE_WORK, work).await?;
        if row.here != row.recorded_at_cluster || row.ahead {
            tracing::warn!(
                relay.epoch = epoch,
                cluster.recorded = row.recorded_at_cluster,
                cluster.here = row.here,
                "the cursor comes from another cluster, or from a later time of this one, as after a restore: \
                 every retained event is published again"
            );
            metrics::counter!("relay_started_over_total").increment(1);
            return Self::start_over(pool, lease, epoch).await;
        }
        let window = match (row.window_end, row.window_last) {
            // Without a lower end the window has only late events, which are found by their transactions.
            (Some(end), Some(last)) => Some(Window {
                end,
                last,
                low: row.low.unwrap_or(i64::MAX),
                high: row.high.unwrap_or(0),
                late: row.late.unwrap_or_default(),
            }),
            _ => None,
        };
        Ok(Self { epoch, published: row.published, restored: row.restored, window, valid_at })
    }

    /// Counts nothing as published. Transactions that are open now, or begin later, are in the next window.
    async fn start_over(pool: &DbPool, lease: &Lease, epoch: i64) -> Result<Self, OutboxError> {
        let work = |mut db: DbConnection| async move {
            let valid_at = Instant::now();
            let row = sqlx::query!(
                r#"UPDATE relay
               SET published = $3::text::pg_snapshot, window_end = pg_current_snapshot(),
                   window_last = coalesce((SELECT min(id) FROM outbox), 1) - 1,
                   -- What we see and what is no past transaction of this cluster is foreign.
                   restored = greatest(restored, (
                       SELECT max(id) FROM outbox WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()))),
                   system_identifier = (SELECT system_identifier FROM pg_control_system())
               WHERE singleton AND owner = $1 AND epoch = $2
               RETURNING window_end::text AS "end!", window_last AS "last!", restored,
                         coalesce((SELECT max(id) FROM outbox), 0) AS "high!""#,
                lease.owner(),
                epoch,
                NOTHING_PUBLISHED
            )
            .fetch_optional(&mut *db)
            .await?;
            Ok(row.map(|row| (row, valid_at)))
        };
        let started_over = pool.run_with_longer_limit(LARGE_WORK, work).await?;
        let (row, valid_at) = started_over.ok_or(OutboxError::LeaseLost)?;
        let window = Window { end: row.end, last: row.last, low: row.last, high: row.high, late: Vec::new() };
        Ok(Self {
            epoch,
            published: NOTHING_PUBLISHED.to_owned(),
            restored: row.restored,
            window: Some(window),
            valid_at,
        })
    }

    /// Reads the next events after the id `after`, or after the saved position.
    ///
    /// Opens a window if there is none. Empty if the window has no more events, or if there are no new events.
    pub(super) async fn read_page(
        &mut self,
        pool: &DbPool,
        after: Option<i64>,
        most: i32,
    ) -> Result<Vec<OutboxRow>, OutboxError> {
        if self.window.is_none() {
            self.open_window(pool).await?;
        }
        let Some(window) = &self.window else { return Ok(Vec::new()) };
        let (published, valid_at) = (&self.published, self.valid_at);
        let work = |mut db: DbConnection| async move {
            let Some(valid_at) = db.is_open_since(valid_at) else { return Ok(None) };
            let rows = sqlx::query_as!(
            EventColumns,
            r#"SELECT id AS "id!", event_id AS "event_id!", event_type AS "event_type!", order_id AS "order_id!",
                      version AS "version!", payload AS "payload!",
                      extract(epoch FROM clock_timestamp() - recorded_at)::double precision AS "age!"
               FROM outbox_page($1::text::pg_snapshot, $2::text::pg_snapshot, $7::text[]::xid8[],
                                $3, $4, $5, $6)"#,
            published,
            window.end,
            after.unwrap_or(window.last),
            window.low,
            window.high,
            most,
            &window.late
        )
        .fetch_all(&mut *db)
        .await?;
            Ok(Some((rows, valid_at)))
        };
        let page = pool.run_with_longer_limit(LARGE_WORK, work).await?;
        let (rows, valid_at) = page.ok_or(OutboxError::ServerReplaced)?;
        self.valid_at = valid_at;
        Ok(to_outbox_rows(rows))
    }

    /// Opens the window between the published snapshot and now, if it has events.
    async fn open_window(&mut self, pool: &DbPool) -> Result<(), OutboxError> {
        let (published, restored, valid_at) = (&self.published, self.restored, self.valid_at);
        let work = |mut db: DbConnection| async move {
            let Some(valid_at) = db.is_open_since(valid_at) else { return Ok(None) };
            let row = sqlx::query!(
                r#"SELECT s.upto::text AS "upto!", w.events AS "events!", w.low, w.high,
                      w.late::text[] AS "late!"
               FROM (SELECT pg_current_snapshot() AS upto) s
               CROSS JOIN LATERAL outbox_window($1::text::pg_snapshot, s.upto, $2) w"#,
                published,
                restored
            )
            .fetch_one(&mut *db)
            .await?;
            Ok(Some((row, valid_at)))
        };
        let opened = pool.run_with_longer_limit(LARGE_WORK, work).await?;
        let (row, valid_at) = opened.ok_or(OutboxError::ServerReplaced)?;
        self.valid_at = valid_at;
        if row.events == 0 {
            // Not saved, so that an idle relay writes nothing.
            self.published = row.upto;
        } else {
            let (low, high) = (row.low.unwrap_or(i64::MAX), row.high.unwrap_or(0));
            self.window = Some(Window { end: row.upto, last: self.restored, low, high, late: row.late });
        }
        Ok(())
    }

    /// Whether a window is being published.
    pub(super) const fn in_window(&self) -> bool {
        self.window.is_some()
    }

    /// Records that all events of the window up to `id` are published.
    pub(super) fn advance_to(&mut self, id: i64) {
        if let Some(window) = &mut self.window {
            window.last = window.last.max(id);
        }
    }

    /// Records that all events of the window are published.
    pub(super) fn close_window(&mut self) {
        if let Some(window) = self.window.take() {
            self.published = window.end;
        }
    }

    /// Saves the position under the current epoch, which also renews the lease.
    pub(super) async fn save(&mut self, pool: &DbPool, lease: &Lease) -> Result<(), OutboxError> {
        let asked_at = Instant::now();
        let (end, last) = self.window.as_ref().map(|window| (window.end.as_str(), window.last)).unzip();
        let statement = sqlx::query!(
            "UPDATE relay
             SET published = $3::text::pg_snapshot, window_end = $4::text::pg_snapshot, window_last = $5,
                 expires_at = clock_timestamp() + make_interval(secs => $6), updated_at = clock_timestamp()
             WHERE singleton AND owner = $1 AND epoch = $2",
            lease.owner(),
            self.epoch,
            self.published,
            end,
            last,
            lease.lifetime().as_secs_f64()
        );
        let valid_at = self.valid_at;
        let work = |mut db: DbConnection| async move {
            let Some(valid_at) = db.is_open_since(valid_at) else { return Ok(None) };
            Ok(Some((statement.execute(&mut *db).await?, valid_at)))
        };
        let (saved, valid_at) = pool.run_once(work).await?.ok_or(OutboxError::ServerReplaced)?;
        self.valid_at = valid_at;
        lease.record_renewal(self.epoch, asked_at, saved.rows_affected())
    }
}

/// Reads the events with these ids, in the order of the log.
pub(super) async fn read_by_ids(pool: &DbPool, ids: &[i64]) -> Result<Vec<OutboxRow>, DbError> {
    let work = |mut db: DbConnection| async move {
        sqlx::query_as!(
            EventColumns,
            r#"SELECT id, event_id, event_type, order_id, version, payload,
                  extract(epoch FROM clock_timestamp() - recorded_at)::double precision AS "age!"
           FROM outbox WHERE id = ANY ($1) ORDER BY id"#,
            ids
        )
        .fetch_all(&mut *db)
        .await
    };
    Ok(to_outbox_rows(pool.read_with_retry(work).await?))
}

/// The columns of an event.
struct EventColumns {
    id: i64,
    event_id: Uuid,
    event_type: String,
    order_id: i64,
    version: i64,
    payload: String,
    age: f64,
}

fn to_outbox_rows(rows: Vec<EventColumns>) -> Vec<OutboxRow> {
    let read_at = Instant::now();
    rows.into_iter()
        .map(|row| OutboxRow {
            id: row.id,
            age_seconds: row.age,
            read_at,
            envelope: Envelope {
                id: row.event_id,
                event_type: row.event_type,
                key: row.order_id,
                sequence: row.version,
                body: row.payload,
            },
        })
        .collect()
}
