//! Finds the events that the history lacks, and how far consumers have come.

use std::time::Duration;

use shared::platform::db::{DbConnection, DbPool};
use time::OffsetDateTime;

use super::settings::ReconcilerSettings;
use crate::outbox::{LARGE_WORK, Lease, OutboxError};

/// How many events one statement reads.
const SLICE: i64 = 5000;
/// Among how many of the newest events a recorded one is searched, to see how far consumers have come.
const NEWEST: i32 = 2000;

/// Where the scans continue.
#[derive(Debug)]
pub(super) struct ScanPosition {
    /// All events up to this id are verified.
    pub(super) verified: i64,
    rescan_cursor: i64,
    /// The published snapshot, as text.
    published: String,
    restored: i64,
    /// Events recorded before this time should be in the history.
    recorded_before: OffsetDateTime,
}

/// What a round has found.
#[derive(Debug, Default)]
pub(super) struct ScanResult {
    pub(super) seen: u64,
    /// Events that are missing although the history has later ones, in ascending order.
    pub(super) skipped: Vec<i64>,
    /// Missing events after which the history has none, in ascending order.
    pub(super) behind: Vec<i64>,
    /// All events up to this id are verified now.
    pub(super) verified: i64,
    /// Whether that is further than before.
    pub(super) moved: bool,
    /// Where the rescan of recent events continues.
    pub(super) recent_cursor: i64,
    /// Where the rescan of all events continues.
    rescan_cursor: i64,
}

impl ScanResult {
    pub(super) fn missing(&self) -> u64 {
        (self.skipped.len() + self.behind.len()) as u64
    }
}

/// What one statement has found.
struct Slice {
    seen: i64,
    last: i64,
    young: bool,
    verified: i64,
    recorded: Option<i64>,
    missing: Vec<i64>,
}

/// Reads the log and the history.
#[derive(Debug)]
pub(super) struct Scanner {
    pool: DbPool,
    settings: ReconcilerSettings,
}

impl Scanner {
    pub(super) const fn new(pool: DbPool, settings: ReconcilerSettings) -> Self {
        Self { pool, settings }
    }

    /// Reads where the scans continue; events of the age `settled_after` should be in the history. `None` while all events are being published again anyway.
    pub(super) async fn load_position(
        &self,
        settled_after: Duration,
    ) -> Result<Option<ScanPosition>, OutboxError> {
        let after = settled_after.as_secs_f64();
        let work = |mut db: DbConnection| async move {
            sqlx::query!(
                r#"SELECT reconciled, swept, restored, published::text AS "published!",
                      pg_snapshot_xmax(published) = '1' AS "starting_over!",
                      clock_timestamp() - make_interval(secs => $1) AS "recorded_before!"
               FROM relay"#,
                after
            )
            .fetch_one(&mut *db)
            .await
        };
        let row = self.pool.read_with_retry(work).await?;
        Ok((!row.starting_over).then_some(ScanPosition {
            verified: row.reconciled,
            rescan_cursor: row.swept,
            published: row.published,
            restored: row.restored,
            recorded_before: row.recorded_before,
        }))
    }

    /// All scans of one round.
    pub(super) async fn scan(
        &self,
        position: &ScanPosition,
        recent_cursor: i64,
    ) -> Result<ScanResult, OutboxError> {
        let mut found = self.scan_new(position).await?;
        let floor = position.verified.saturating_sub(self.settings.recent);
        found.recent_cursor = self.rescan(position, recent_cursor.max(floor), floor, &mut found).await?;
        found.rescan_cursor = self.rescan(position, position.rescan_cursor, 0, &mut found).await?;
        found.skipped.sort_unstable();
        found.skipped.dedup();
        Ok(found)
    }

    /// Scans the events after the verified ones, up to those that are too young to be in the history.
    async fn scan_new(&self, position: &ScanPosition) -> Result<ScanResult, OutboxError> {
        let mut found = ScanResult { verified: position.verified, ..ScanResult::default() };
        let (mut at, mut seen, mut prefix_is_intact) = (position.verified, 0, true);
        let (mut recorded, mut missing) = (None, Vec::new());
        while seen < self.settings.scan {
            let limit = SLICE.min(self.settings.scan - seen);
            let slice = self.read_slice(position, at, i64::MAX, limit).await?;
            if prefix_is_intact && slice.seen > 0 {
                found.verified = slice.verified;
                prefix_is_intact = slice.verified == slice.last;
            }
            (at, seen) = (slice.last, seen + slice.seen);
            recorded = recorded.max(slice.recorded);
            missing.extend(slice.missing);
            if slice.young || slice.seen < limit {
                break;
            }
        }
        if recorded.max(Some(0)) < missing.last().copied() {
            let work = |mut db: DbConnection| async move {
                sqlx::query_scalar!("SELECT outbox_recorded($1)", NEWEST).fetch_one(&mut *db).await
            };
            let newest = self.pool.run_with_longer_limit(LARGE_WORK, work).await?;
            recorded = recorded.max(newest);
        }
        let skipped = missing.partition_point(|id| Some(*id) < recorded);
        found.behind = missing.split_off(skipped);
        found.skipped = missing;
        found.moved = found.verified > position.verified;
        found.seen = seen.unsigned_abs();
        Ok(found)
    }

    /// Scans verified events after `at`; returns where to continue, which is `floor` after the end.
    async fn rescan(
        &self,
        position: &ScanPosition,
        at: i64,
        floor: i64,
        found: &mut ScanResult,
    ) -> Result<i64, OutboxError> {
        if at >= position.verified {
            return Ok(floor);
        }
        let slice = self.read_slice(position, at, position.verified, self.settings.rescan).await?;
        found.seen += slice.seen.unsigned_abs();
        found.skipped.extend(slice.missing);
        Ok(if slice.seen < self.settings.rescan { floor } else { slice.last })
    }

    async fn read_slice(
        &self,
        position: &ScanPosition,
        after: i64,
        upto: i64,
        limit: i64,
    ) -> Result<Slice, OutboxError> {
        let work = |mut db: DbConnection| async move {
            sqlx::query!(
                r#"SELECT seen AS "seen!", coalesce(last, $1) AS "last!", young > 0 AS "young!",
                      coalesce(verified, $1) AS "verified!", recorded, missing AS "missing!"
               FROM outbox_missing($1, $2, $3, $4::text::pg_snapshot, $5, $6)"#,
                after,
                upto,
                i32::try_from(limit).unwrap_or(i32::MAX),
                position.published,
                position.restored,
                position.recorded_before
            )
            .fetch_one(&mut *db)
            .await
        };
        let row = self.pool.run_with_longer_limit(LARGE_WORK, work).await?;
        Ok(Slice {
            seen: row.seen,
            last: row.last,
            young: row.young,
            verified: row.verified,
            recorded: row.recorded,
            missing: row.missing,
        })
    }

    /// Saves where the scans continue, under the current epoch of the lease.
    pub(super) async fn save_position(
        &self,
        lease: &Lease,
        epoch: i64,
        found: &ScanResult,
    ) -> Result<(), OutboxError> {
        let statement = sqlx::query!(
            "UPDATE relay SET reconciled = $3, swept = $4 WHERE singleton AND owner = $1 AND epoch = $2",
            lease.owner(),
            epoch,
            found.verified,
            found.rescan_cursor
        );
        let saved = self.pool.run_once(|mut db| async move { statement.execute(&mut *db).await }).await?;
        if saved.rows_affected() == 0 { Err(OutboxError::LeaseLost) } else { Ok(()) }
    }
}
