//! Looking: which events the history lacks, and how far consumers have come.

use shared::platform::db::DbConnection;
use time::OffsetDateTime;

use super::{LARGE_WORK, Memory, OutboxError, Reconciler};

/// How many events one statement looks at.
const SLICE: i64 = 5000;
/// Among how many of the newest events a recorded one is looked for, to see how far consumers have come.
const NEWEST: i32 = 2000;

/// Where the passes stand.
#[derive(Debug)]
pub(super) struct Place {
    /// Everything up to this id is verified.
    pub(super) verified: i64,
    swept: i64,
    /// What is published, as the text of a snapshot.
    published: String,
    restored: i64,
    /// Events recorded before this time should be in the history.
    recorded_before: OffsetDateTime,
}

/// What a round saw.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) seen: u64,
    /// Missing though the history has later ones, in ascending order.
    pub(super) overtaken: Vec<i64>,
    /// Missing, and so is all that we know of after them, in ascending order.
    pub(super) behind: Vec<i64>,
    /// Everything up to this id is verified now, and whether that is further than before.
    pub(super) verified: i64,
    pub(super) moved: bool,
    /// Where the slow second look has come to.
    pub(super) swept: i64,
}

impl Found {
    pub(super) fn missing(&self) -> u64 {
        (self.overtaken.len() + self.behind.len()) as u64
    }
}

/// What one statement saw.
struct Slice {
    seen: i64,
    last: i64,
    young: bool,
    verified: i64,
    recorded: Option<i64>,
    missing: Vec<i64>,
}

impl Reconciler {
    /// Reads where the passes stand. `None` while everything is being published again anyway.
    pub(super) async fn place(&self) -> Result<Option<Place>, OutboxError> {
        let after = self.settings.after.as_secs_f64();
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
        Ok((!row.starting_over).then_some(Place {
            verified: row.reconciled,
            swept: row.swept,
            published: row.published,
            restored: row.restored,
            recorded_before: row.recorded_before,
        }))
    }

    /// All passes of one round.
    pub(super) async fn look(&self, place: &Place, memory: &mut Memory) -> Result<Found, OutboxError> {
        let mut found = self.first_look(place).await?;
        let floor = place.verified.saturating_sub(self.settings.recent);
        let recent = memory.recent.max(floor);
        memory.recent = self.second_look(place, recent, floor, &mut found).await?;
        found.swept = self.second_look(place, place.swept, 0, &mut found).await?;
        found.overtaken.sort_unstable();
        found.overtaken.dedup();
        Ok(found)
    }

    /// From the verified ids on, up to events that are too young to judge.
    async fn first_look(&self, place: &Place) -> Result<Found, OutboxError> {
        let mut found = Found { verified: place.verified, ..Found::default() };
        let (mut at, mut seen, mut whole) = (place.verified, 0, true);
        let (mut recorded, mut missing) = (None, Vec::new());
        while seen < self.settings.scan {
            let most = SLICE.min(self.settings.scan - seen);
            let slice = self.slice(place, at, i64::MAX, most).await?;
            if whole && slice.seen > 0 {
                found.verified = slice.verified;
                whole = slice.verified == slice.last;
            }
            (at, seen) = (slice.last, seen + slice.seen);
            recorded = recorded.max(slice.recorded);
            missing.extend(slice.missing);
            if slice.young || slice.seen < most {
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
        let overtaken = missing.partition_point(|id| Some(*id) < recorded);
        found.behind = missing.split_off(overtaken);
        found.overtaken = missing;
        found.moved = found.verified > place.verified;
        found.seen = seen.unsigned_abs();
        Ok(found)
    }

    /// A slice of what is verified already, from `at` on; answers where to go on, which is `floor` after the end.
    async fn second_look(
        &self,
        place: &Place,
        at: i64,
        floor: i64,
        found: &mut Found,
    ) -> Result<i64, OutboxError> {
        if at >= place.verified {
            return Ok(floor);
        }
        let slice = self.slice(place, at, place.verified, self.settings.sweep).await?;
        found.seen += slice.seen.unsigned_abs();
        found.overtaken.extend(slice.missing);
        Ok(if slice.seen < self.settings.sweep { floor } else { slice.last })
    }

    async fn slice(&self, place: &Place, after: i64, upto: i64, most: i64) -> Result<Slice, OutboxError> {
        let work = |mut db: DbConnection| async move {
            sqlx::query!(
                r#"SELECT seen AS "seen!", coalesce(last, $1) AS "last!", young > 0 AS "young!",
                      coalesce(verified, $1) AS "verified!", recorded, missing AS "missing!"
               FROM outbox_missing($1, $2, $3, $4::text::pg_snapshot, $5, $6)"#,
                after,
                upto,
                i32::try_from(most).unwrap_or(i32::MAX),
                place.published,
                place.restored,
                place.recorded_before
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

    /// Saves where the passes stand, under the current epoch.
    pub(super) async fn save(&self, epoch: i64, verified: i64, swept: i64) -> Result<(), OutboxError> {
        let statement = sqlx::query!(
            "UPDATE relay SET reconciled = $3, swept = $4 WHERE singleton AND owner = $1 AND epoch = $2",
            self.lease.owner(),
            epoch,
            verified,
            swept
        );
        let saved = self.pool.run_once(|mut db| async move { statement.execute(&mut *db).await }).await?;
        if saved.rows_affected() == 0 { Err(OutboxError::LeaseLost) } else { Ok(()) }
    }
}
