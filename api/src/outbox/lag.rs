//! How far the history is behind the log. Only the database is asked, so it also works while the workers are frozen.

use std::time::Duration;

use shared::platform::db::{DbConnection, DbError, DbPool};
use tokio::{sync::Mutex, time::Instant};

/// How many events one statement reads.
const SLICE: i32 = 20_000;
/// How many events one measurement reads; the next one continues there.
const MAX_EVENTS: i64 = 200_000;
/// Beyond this many the rest is estimated.
const COUNTED: i64 = 1000;
/// After this time the transactions that wrote to the log have ended, so no event can appear any more among older ones. A
/// transaction that stays open for longer is left to the reconciler.
const SETTLED: Duration = Duration::from_secs(5);
/// A measurement is reused for this long,
const REUSE: Duration = Duration::from_secs(1);
/// and for this long per event that it read. Reading an event takes PostgreSQL about 5 µs, so measuring costs at most a
/// twentieth of one core.
const REUSE_PER_EVENT: Duration = Duration::from_micros(100);

/// The events that are in the log and not in the history. Dead letters that were not published again do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lag {
    /// How many events: exact up to 1,000, beyond that estimated by the distance of the ids.
    pub events: u64,
    /// How long ago the oldest of them was recorded in the log, by the database's clock; 0 if there is none.
    pub oldest_seconds: f64,
}

/// Measures the lag. In a healthy system it reads each event only a few times.
#[derive(Debug)]
pub struct HistoryLag {
    db: DbPool,
    state: Mutex<LagState>,
}

#[derive(Debug, Default)]
struct LagState {
    /// No event up to this id is missing.
    complete: i64,
    last: Option<Measurement>,
}

#[derive(Clone, Copy, Debug)]
struct Measurement {
    lag: Lag,
    /// Until when it is reused.
    until: Instant,
}

impl HistoryLag {
    /// A lag that was not measured yet.
    pub fn new(db: impl Into<DbPool>) -> Self {
        Self { db: db.into(), state: Mutex::default() }
    }

    /// The lag as of about a second ago.
    pub async fn measure(&self) -> Result<Lag, DbError> {
        let mut state = self.state.lock().await;
        if let Some(last) = state.last
            && Instant::now() < last.until
        {
            return Ok(last.lag);
        }
        state.last = None;
        let (lag, seen) = self.count_missing(&mut state.complete).await?;
        let until = Instant::now() + REUSE.max(REUSE_PER_EVENT * seen);
        state.last = Some(Measurement { lag, until });
        Ok(lag)
    }

    /// Counts the missing events after `complete`, moves `complete` forward, and returns how many events it read.
    async fn count_missing(&self, complete: &mut i64) -> Result<(Lag, u32), DbError> {
        let bounds = |mut db: DbConnection| async move {
            sqlx::query!(
                r#"SELECT reconciled, coalesce((SELECT max(id) FROM outbox), 0) AS "newest!",
                      clock_timestamp() - make_interval(secs => $1) AS "settled_before!"
               FROM relay"#,
                SETTLED.as_secs_f64()
            )
            .fetch_one(&mut *db)
            .await
        };
        let bounds = self.db.read_with_retry(bounds).await?;
        // After a restore the ids may be lower.
        if *complete > bounds.newest {
            *complete = 0;
        }
        *complete = bounds.reconciled.min(bounds.newest).max(*complete);

        let (mut at, mut seen, mut missing, mut age) = (*complete, 0, 0, 0.0_f64);
        let mut prefix_is_intact = true;
        let settled_before = bounds.settled_before;
        loop {
            let slice = |mut db: DbConnection| async move {
                sqlx::query!(
                r#"SELECT seen AS "seen!", coalesce(last, $1) AS "last!", missing AS "missing!", complete AS "complete!",
                          coalesce(extract(epoch FROM clock_timestamp() - oldest), 0)::double precision AS "age!"
                   FROM outbox_unrecorded($1, $2, $3)"#,
                at,
                SLICE,
                settled_before
            )
                .fetch_one(&mut *db)
                .await
            };
            let slice = self.db.read_with_retry(slice).await?;
            if prefix_is_intact {
                *complete = slice.complete;
                prefix_is_intact = slice.complete == slice.last;
            }
            (at, seen, missing, age) =
                (slice.last, seen + slice.seen, missing + slice.missing, age.max(slice.age));
            if slice.seen < i64::from(SLICE) || seen >= MAX_EVENTS {
                break;
            }
            if missing > COUNTED {
                missing += bounds.newest.saturating_sub(at).max(0);
                break;
            }
        }
        let lag = Lag { events: missing.unsigned_abs(), oldest_seconds: age };
        Ok((lag, u32::try_from(seen).unwrap_or(u32::MAX)))
    }
}
