//! The log: gives events their positions, and reads them behind one.
//!
//! What happens here is in the functions `log_…` of the migrations; this is their only caller but for the feed.

use shared::{
    domain::event::Envelope,
    platform::db::{DbConnection, DbError, DbPool},
};
use sqlx::PgConnection;
use tokio::time::Instant;
use uuid::Uuid;

use super::{LARGE_WORK, Lease, OutboxError};

/// The bytes after which a batch ends: it is in memory several times, and the next one beside it. A broker confirms all of it within
/// its time limit, also on a slow line.
const BATCH_BYTES: i64 = 4 * 1024 * 1024;

/// An event of the log.
#[derive(Clone, Debug)]
pub(super) struct LoggedEvent {
    /// Its position: dense, and the same for every reader.
    pub(super) position: i64,
    /// Its id in the table.
    pub(super) id: i64,
    /// How long before `read_at` it was recorded.
    age_seconds: f64,
    read_at: Instant,
    /// What is published.
    pub(super) envelope: Envelope,
}

impl LoggedEvent {
    /// How long ago it was recorded.
    pub(super) fn age_seconds(&self) -> f64 {
        self.age_seconds + self.read_at.elapsed().as_secs_f64()
    }
}

/// Some events in the order of their positions.
#[derive(Debug)]
pub(super) struct Page {
    /// The timeline of the server that they were read from. A promoted server may give these positions to other events.
    pub(super) timeline: i64,
    pub(super) events: Vec<LoggedEvent>,
    /// Whether more events follow that have a position.
    pub(super) has_next: bool,
}

/// Gives every committed event that has none a position, under the lease, and returns how many these were. Writes nothing if
/// there is none.
pub(super) async fn sequence(pool: &DbPool, lease: &Lease, epoch: i64) -> Result<i64, OutboxError> {
    let asked_at = Instant::now();
    let work = |mut db: DbConnection| async move {
        sqlx::query!(
            r#"SELECT s.events, s.started_over AS "started_over!"
               FROM log_sequence($1, $2, make_interval(secs => $3)) s WHERE log_has_new()"#,
            lease.owner(),
            epoch,
            lease.lifetime().as_secs_f64()
        )
        .fetch_optional(&mut *db)
        .await
    };
    let Some(step) = pool.run_with_longer_limit(LARGE_WORK, work).await? else { return Ok(0) };
    lease.record_renewal(epoch, asked_at, u64::from(step.events.is_some()))?;
    if step.started_over {
        tracing::warn!(
            relay.epoch = epoch,
            "the cursor comes from another cluster, or from a later time of this one, as after a restore: every retained \
             event is published again"
        );
        metrics::counter!("relay_started_over_total").increment(1);
    }
    Ok(step.events.unwrap_or(0))
}

/// Reads up to `most` events after the position `after`, or after those that are published; fewer if they are large. Fails with
/// `LeaseLost` if another replica relays.
pub(super) async fn read_page(
    pool: &DbPool,
    lease: &Lease,
    epoch: i64,
    after: Option<i64>,
    most: i32,
) -> Result<Page, OutboxError> {
    let work = |mut db: DbConnection| async move {
        let relay = sqlx::query!(
            r#"SELECT published_position, head, log_timeline() AS "timeline!" FROM relay
               WHERE singleton AND owner = $1 AND epoch = $2"#,
            lease.owner(),
            epoch
        )
        .fetch_optional(&mut *db)
        .await?;
        let Some(relay) = relay else { return Ok(None) };
        let mut after = after.unwrap_or(relay.published_position);
        loop {
            let rows = read_events(&mut db, after, most).await?;
            after += i64::from(most);
            // After a restore, everything that was removed with its tenant is a hole in what is published again.
            if !rows.is_empty() || after >= relay.head {
                let has_next = rows.last().is_some_and(|last| last.position < relay.head);
                return Ok(Some((relay.timeline, has_next, rows)));
            }
        }
    };
    let (timeline, has_next, rows) =
        pool.run_with_longer_limit(LARGE_WORK, work).await?.ok_or(OutboxError::LeaseLost)?;
    Ok(Page { timeline, has_next, events: to_events(rows) })
}

async fn read_events(db: &mut PgConnection, after: i64, most: i32) -> Result<Vec<EventColumns>, sqlx::Error> {
    // The function returns its rows in order, and the window takes them as they come.
    sqlx::query_as!(
        EventColumns,
        r#"SELECT position AS "position!", id AS "id!", event_id AS "event_id!", event_type AS "event_type!",
                  order_id AS "order_id!", version AS "version!", payload AS "payload!",
                  extract(epoch FROM clock_timestamp() - recorded_at)::double precision AS "age!"
           FROM (
               SELECT e.*, sum(octet_length(e.payload)) OVER (ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
               FROM log_events($1, $2) e
           ) AS page
           WHERE coalesce(bytes_before, 0) < $3"#,
        after,
        most,
        BATCH_BYTES,
    )
    .fetch_all(db)
    .await
}

/// Records that all events up to `position` are published, which also renews the lease. `timeline` is that of the server which
/// the events were read from.
pub(super) async fn save_published(
    pool: &DbPool,
    lease: &Lease,
    epoch: i64,
    position: i64,
    timeline: i64,
) -> Result<(), OutboxError> {
    let asked_at = Instant::now();
    // The program of the version before publishes what `published` does not show.
    let statement = sqlx::query_scalar!(
        r#"UPDATE relay r
           SET published_position = CASE WHEN s.same THEN $3 ELSE r.published_position END,
               published = CASE WHEN s.same AND $3 = r.head THEN r.sequenced ELSE r.published END,
               window_end = CASE WHEN s.same AND $3 = r.head THEN NULL ELSE r.window_end END,
               window_last = CASE WHEN s.same AND $3 = r.head THEN NULL ELSE r.window_last END,
               expires_at = clock_timestamp() + make_interval(secs => $5), updated_at = clock_timestamp()
           FROM (SELECT log_timeline() = $4 AS same) s
           WHERE r.singleton AND r.owner = $1 AND r.epoch = $2
           RETURNING s.same AS "same!""#,
        lease.owner(),
        epoch,
        position,
        timeline,
        lease.lifetime().as_secs_f64()
    );
    let same = pool.run_once(|mut db| async move { statement.fetch_optional(&mut *db).await }).await?;
    lease.record_renewal(epoch, asked_at, u64::from(same.is_some()))?;
    if same == Some(true) { Ok(()) } else { Err(OutboxError::ServerReplaced) }
}

/// Reads the events with these ascending ids; only the first ones if they are large. Returns also the ids that are left.
pub(super) async fn read_by_ids<'a>(
    pool: &DbPool,
    ids: &'a [i64],
) -> Result<(Vec<LoggedEvent>, &'a [i64]), DbError> {
    let work = |mut db: DbConnection| async move {
        sqlx::query_as!(
            EventColumns,
            r#"SELECT coalesce(log_position(id), 0) AS "position!", id, event_id, event_type, order_id, version, payload,
                      extract(epoch FROM clock_timestamp() - recorded_at)::double precision AS "age!"
               FROM (
                   SELECT e.*, sum(octet_length(e.payload)) OVER (ORDER BY e.id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
                   FROM outbox e WHERE e.id = ANY ($1)
               ) AS page
               WHERE coalesce(bytes_before, 0) < $2
               ORDER BY id"#,
            ids,
            BATCH_BYTES,
        )
        .fetch_all(&mut *db)
        .await
    };
    let events = to_events(pool.read_with_retry(work).await?);
    let bytes: usize = events.iter().map(|event| event.envelope.body.len()).sum();
    let left = match events.last() {
        Some(last) if i64::try_from(bytes).unwrap_or(i64::MAX) >= BATCH_BYTES => {
            &ids[ids.partition_point(|id| *id <= last.id)..]
        }
        _ => &[],
    };
    Ok((events, left))
}

/// The columns of an event.
struct EventColumns {
    position: i64,
    id: i64,
    event_id: Uuid,
    event_type: String,
    order_id: i64,
    version: i64,
    payload: String,
    age: f64,
}

fn to_events(rows: Vec<EventColumns>) -> Vec<LoggedEvent> {
    let read_at = Instant::now();
    rows.into_iter()
        .map(|row| LoggedEvent {
            position: row.position,
            id: row.id,
            age_seconds: row.age,
            read_at,
            envelope: Envelope {
                id: row.event_id,
                event_type: row.event_type,
                key: row.order_id,
                sequence: row.version,
                position: Some(row.position),
                body: row.payload,
            },
        })
        .collect()
}
