//! The daily partitions of the log: created ahead, and dropped after the retention.

use shared::platform::db::{DbConnection, DbError, DbPool};
use sqlx::{Connection as _, PgConnection, Postgres, Transaction};

use super::LARGE_WORK;

/// The lock that replicas take for this work; any number that is not used elsewhere in this database.
const ADVISORY_LOCK: i64 = 0x6f75_7462_6f78_0001;
/// How long creating a partition waits for readers of the default partition. There are days left to try again.
const CREATE_LOCK_TIMEOUT: &str = "2s";
/// How long dropping a partition waits for writers, which wait behind it meanwhile. It can as well happen later.
const DROP_LOCK_TIMEOUT: &str = "200ms";

/// Which days are kept.
#[derive(Clone, Copy, Debug)]
pub struct PartitionSettings {
    /// Days after today for which a partition is created.
    pub ahead: i32,
    /// Days before today that are kept. A day with unpublished events is kept without limit; a day with events that the
    /// history may lack, up to twice as long.
    pub retention: i32,
}

impl Default for PartitionSettings {
    fn default() -> Self {
        Self { ahead: 3, retention: 14 }
    }
}

/// What one round has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionReport {
    /// Days whose partition was created.
    pub created: Vec<time::Date>,
    /// Days whose partition was dropped.
    pub dropped: Vec<time::Date>,
    /// Days past the retention that have events which are still needed.
    pub kept: Vec<time::Date>,
}

/// Creates the partitions of the coming days, moves rows of the default partition into the partition of their day, and drops
/// the days past the retention. Days are those of the database's clock, in UTC; past are only those that are also past if it is
/// `today`: if the database's clock jumps ahead, all days would go at once, and nothing brings them back. Can run on several
/// replicas at the same time.
pub async fn maintain_partitions(
    pool: &DbPool,
    settings: PartitionSettings,
    today: time::Date,
) -> Result<PartitionReport, DbError> {
    let mut report = PartitionReport::default();
    for day in list_missing_days(pool, settings).await? {
        if pool
            .run_with_longer_limit(LARGE_WORK, |mut db| async move { create_partition(&mut db, day).await })
            .await?
        {
            report.created.push(day);
        }
    }
    let retention = settings.retention;
    for day in list_past_days(pool, retention, today).await? {
        match pool
            .run_with_longer_limit(LARGE_WORK, |mut db| async move {
                drop_partition(&mut db, day, retention, today).await
            })
            .await?
        {
            Some(true) => report.dropped.push(day),
            Some(false) => {}
            None => report.kept.push(day),
        }
    }
    clear_default_partition(pool, retention, today).await?;
    if report != PartitionReport::default() {
        tracing::info!(
            created = ?report.created,
            dropped = ?report.dropped,
            kept = ?report.kept,
            "maintained the outbox's partitions"
        );
    }
    Ok(report)
}

/// Creates a day's partition. `false` if another replica was faster.
async fn create_partition(db: &mut PgConnection, day: time::Date) -> sqlx::Result<bool> {
    let mut transaction = begin_exclusive(db, CREATE_LOCK_TIMEOUT).await?;
    let created =
        sqlx::query_scalar!("SELECT outbox_create_partition($1)", day).fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(created == Some(true))
}

/// Drops a day's partition. `false` if another replica was faster, `None` if the day is still needed.
async fn drop_partition(
    db: &mut PgConnection,
    day: time::Date,
    retention: i32,
    today: time::Date,
) -> sqlx::Result<Option<bool>> {
    let mut transaction = begin_exclusive(db, DROP_LOCK_TIMEOUT).await?;
    if is_still_needed(&mut transaction, day, retention, today).await? {
        transaction.commit().await?;
        return Ok(None);
    }
    let dropped =
        sqlx::query_scalar!("SELECT outbox_drop_partition($1)", day).fetch_one(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(Some(dropped == Some(true)))
}

/// Begins a transaction that holds the lock of this work.
async fn begin_exclusive<'c>(
    db: &'c mut PgConnection,
    lock_timeout: &str,
) -> sqlx::Result<Transaction<'c, Postgres>> {
    let mut transaction = db.begin().await?;
    // In this order: `lock_timeout` must not limit the wait for another replica.
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(ADVISORY_LOCK).execute(&mut *transaction).await?;
    sqlx::query("SELECT set_config('lock_timeout', $1, true)")
        .bind(lock_timeout)
        .execute(&mut *transaction)
        .await?;
    Ok(transaction)
}

/// The days from today on, and the days of rows in the default partition, that have no partition.
async fn list_missing_days(pool: &DbPool, settings: PartitionSettings) -> Result<Vec<time::Date>, DbError> {
    let work = |mut db: DbConnection| async move {
        sqlx::query_scalar!(
            r#"WITH today AS (SELECT (now() AT TIME ZONE 'UTC')::date AS day),
                wanted AS (
                    SELECT today.day + ahead AS day FROM today, generate_series(0, $1::integer) ahead
                    UNION
                    SELECT d.day FROM (SELECT DISTINCT day FROM outbox_default) d, today
                    WHERE d.day BETWEEN today.day - $2::integer AND today.day + $1)
           SELECT day AS "day!" FROM wanted
           WHERE to_regclass('outbox_' || to_char(day, 'YYYYMMDD')) IS NULL
           ORDER BY day"#,
            settings.ahead,
            settings.retention
        )
        .fetch_all(&mut *db)
        .await
    };
    pool.read_with_retry(work).await
}

/// The days past the retention that still have a partition, oldest first.
async fn list_past_days(
    pool: &DbPool,
    retention: i32,
    today: time::Date,
) -> Result<Vec<time::Date>, DbError> {
    let work = |mut db: DbConnection| async move {
        sqlx::query_scalar!(
            r#"SELECT day AS "day!" FROM (
               SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day
               FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
               WHERE i.inhparent = 'outbox'::regclass AND c.relname ~ '^outbox_[0-9]{8}$') p
           WHERE day < least((now() AT TIME ZONE 'UTC')::date, $2::date) - $1::integer
           ORDER BY day"#,
            retention,
            today,
        )
        .fetch_all(&mut *db)
        .await
    };
    pool.read_with_retry(work).await
}

/// Whether a day has events that are not published, or, for twice the retention, events that the reconciler has not found in
/// the history.
async fn is_still_needed(
    connection: &mut PgConnection,
    day: time::Date,
    retention: i32,
    today: time::Date,
) -> Result<bool, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT pg_snapshot_xmax(r.published) = '1'
                  OR EXISTS (SELECT FROM outbox o
                             WHERE o.day = $1 AND o.id > r.restored AND o.xid >= pg_snapshot_xmax(r.published))
                  OR EXISTS (SELECT FROM pg_snapshot_xip(r.published) x
                             JOIN outbox o ON o.day = $1 AND o.xid = x) AS "unpublished!",
                  coalesce((SELECT max(o.id) FROM outbox o WHERE o.day = $1) > r.reconciled, false) AS "unverified!",
                  $1 >= least((now() AT TIME ZONE 'UTC')::date, $3::date) - 2 * $2::integer AS "recent!"
           FROM relay r"#,
        day,
        retention,
        today,
    )
    .fetch_one(connection)
    .await?;
    if row.unverified && !row.recent {
        tracing::error!(%day, "dropping a day of the outbox whose events may not all be in the history");
    }
    Ok(row.unpublished || row.unverified && row.recent)
}

/// Deletes rows past the retention from the default partition, which is never dropped, and the pages up to the last one that has
/// an event of these days.
async fn clear_default_partition(pool: &DbPool, retention: i32, today: time::Date) -> Result<(), DbError> {
    let work = |mut db: DbConnection| async move {
        sqlx::query!(
            r#"WITH deleted AS (
                   DELETE FROM outbox_default o USING relay r
                   WHERE o.day < least((now() AT TIME ZONE 'UTC')::date, $2::date) - $1::integer AND o.id <= r.reconciled
                     AND (pg_visible_in_snapshot(o.xid, r.published)
                          OR o.id <= r.restored AND pg_snapshot_xmax(r.published) <> '1')
                   RETURNING o.day)
               SELECT log_forget(max(day)) AS pages FROM deleted HAVING count(*) > 0"#,
            retention,
            today,
        )
        .fetch_optional(&mut *db)
        .await
    };
    pool.run_with_longer_limit(LARGE_WORK, work).await?;
    Ok(())
}
