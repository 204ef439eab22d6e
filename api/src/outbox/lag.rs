//! How far the history is behind the log, from the database alone: it shows also what frozen workers cannot tell.

use std::time::Duration;

use shared::platform::db::{DbConnection, DbError, DbPool};
use tokio::{sync::Mutex, time::Instant};

/// How many events one statement looks at.
const SLICE: i32 = 20_000;
/// How many events one measurement looks at; the next one goes on from there.
const MOST: i64 = 200_000;
/// Beyond this many the rest is estimated.
const COUNTED: i64 = 1000;
/// Transactions that wrote to the log are over after this time, so nothing can appear any more among the events that are older.
/// One that stayed open for longer is left to the reconciler.
const SETTLED: Duration = Duration::from_secs(5);
/// A measurement is given again for this long,
const FRESH: Duration = Duration::from_secs(1);
/// and for this long for each event that it looked at. That takes PostgreSQL about 5 µs, so measuring costs at most a twentieth of one
/// core.
const REST: Duration = Duration::from_micros(100);

/// What is in the log and not in the history. Events that are dead letters and were not sent again do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Lag {
    /// How many events: exact up to 1,000, beyond that estimated by the distance of the ids.
    pub events: u64,
    /// How long ago the oldest of them was recorded in the log, by the database's clock; 0 if there is none.
    pub oldest_seconds: f64,
}

/// Measures the lag, each event of a healthy system a few times.
#[derive(Debug)]
pub struct HistoryLag {
    db: DbPool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing up to this id is missing.
    complete: i64,
    last: Option<Measured>,
}

#[derive(Clone, Copy, Debug)]
struct Measured {
    lag: Lag,
    /// Until when it is given again.
    until: Instant,
}

impl HistoryLag {
    /// Has measured nothing yet.
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
        let (lag, seen) = self.look(&mut state.complete).await?;
        let until = Instant::now() + FRESH.max(REST * seen);
        state.last = Some(Measured { lag, until });
        Ok(lag)
    }

    /// Looks at all events after those that are known to be complete, moves that mark, and answers how many it saw.
    async fn look(&self, complete: &mut i64) -> Result<(Lag, u32), DbError> {
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
        // After a restore the ids may begin again further down.
        if *complete > bounds.newest {
            *complete = 0;
        }
        *complete = bounds.reconciled.min(bounds.newest).max(*complete);

        let (mut at, mut seen, mut missing, mut age) = (*complete, 0, 0, 0.0_f64);
        let mut whole = true;
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
            if whole {
                *complete = slice.complete;
                whole = slice.complete == slice.last;
            }
            (at, seen, missing, age) =
                (slice.last, seen + slice.seen, missing + slice.missing, age.max(slice.age));
            if slice.seen < i64::from(SLICE) || seen >= MOST {
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
