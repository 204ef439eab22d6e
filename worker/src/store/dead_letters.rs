//! Rows of `dead_letters`.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{FEW_ROWS, WHOLE_TABLE, bounded};
use crate::dead_letters::{DeadLetter, Filter, NewDeadLetter};

/// Sets an event aside. The same body from the same source again raises the attempts and is open again.
pub async fn insert(connection: &mut PgConnection, letter: &NewDeadLetter<'_>) -> sqlx::Result<()> {
    let event = letter.event;
    sqlx::query!(
        "INSERT INTO dead_letters
             (event_id, event_type, order_id, version, body, source, reason, attempts, broker)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (source, sha256(body)) DO UPDATE
         SET reason = excluded.reason, attempts = greatest(dead_letters.attempts, excluded.attempts),
             broker = excluded.broker, failed_at = clock_timestamp(), redriven_at = NULL",
        event.map(|event| event.id),
        event.map(|event| event.event_type.as_str()),
        event.map(|event| event.data.order_id.get()),
        event.map(|event| event.data.version),
        letter.body,
        letter.source,
        letter.reason,
        letter.attempts,
        letter.broker,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A query over the letters that a filter lets through: its beginning, the condition, its end, more parameters.
macro_rules! filtered {
    ($query:ident!($($row:ident,)? $before:literal, $after:literal), $filter:expr $(, $more:expr)*) => {
        sqlx::$query!(
            $($row,)?
            $before
                + " FROM dead_letters
                   WHERE ($1::bigint[] IS NULL OR id = ANY($1))
                     AND ($2::text IS NULL OR source = $2)
                     AND ($3::text IS NULL OR event_type = $3)
                     AND ($4::bigint IS NULL OR order_id = $4)
                     AND ($5::timestamptz IS NULL OR failed_at >= $5)
                     AND ($6::timestamptz IS NULL OR failed_at < $6)
                     AND NOT ($7 AND redriven_at IS NOT NULL) "
                + $after,
            $filter.ids.as_deref(),
            $filter.source.as_deref(),
            $filter.event_type.as_deref(),
            $filter.order.map(|id| id.get()),
            $filter.since,
            $filter.until,
            $filter.open
            $(, $more)*
        )
    };
}

/// The newest ones, or the next ones before `before` (when it was set aside, and its number), for walking back over all.
pub async fn newest(
    connection: &mut PgConnection,
    filter: &Filter,
    before: Option<(OffsetDateTime, i64)>,
    most: i64,
) -> sqlx::Result<Vec<DeadLetter>> {
    let (failed_at, id) = before.unzip();
    let statement = filtered!(
        query_as!(
            DeadLetter,
            "SELECT id, event_id, event_type, order_id, version, body, source, reason, attempts, broker, failed_at,
                    redriven_at", "AND ($8::timestamptz IS NULL OR (failed_at, id) < ($8, $9)) ORDER BY failed_at DESC, id DESC LIMIT $10"
        ),
        filter,
        failed_at,
        id,
        most
);
    bounded(FEW_ROWS, statement.fetch_all(connection)).await
}

/// The next ones after a number, for walking over all.
pub async fn after(
    connection: &mut PgConnection,
    filter: &Filter,
    after: i64,
    most: i64,
) -> sqlx::Result<Vec<DeadLetter>> {
    let statement = filtered!(
        query_as!(
            DeadLetter,
            "SELECT id, event_id, event_type, order_id, version, body, source, reason, attempts, broker, failed_at,
                    redriven_at", "AND id > $8 ORDER BY id LIMIT $9"
        ),
        filter,
        after,
        most
);
    bounded(FEW_ROWS, statement.fetch_all(connection)).await
}

/// How many there are.
pub async fn count(connection: &mut PgConnection, filter: &Filter) -> sqlx::Result<i64> {
    let statement = filtered!(query_scalar!("SELECT count(*) AS \"count!\"", ""), filter);
    bounded(WHOLE_TABLE, statement.fetch_one(connection)).await
}

/// Removes them and says how many there were.
pub async fn delete(connection: &mut PgConnection, filter: &Filter) -> sqlx::Result<u64> {
    let statement = filtered!(query!("DELETE", ""), filter);
    Ok(bounded(WHOLE_TABLE, statement.execute(connection)).await?.rows_affected())
}

/// Marks letters as sent again, but not those that were set aside once more meanwhile.
pub async fn mark_redriven(
    connection: &mut PgConnection,
    sent: &[(i64, OffsetDateTime)],
) -> sqlx::Result<()> {
    let (ids, failed_at): (Vec<i64>, Vec<OffsetDateTime>) = sent.iter().copied().unzip();
    let statement = sqlx::query!(
        "UPDATE dead_letters SET redriven_at = clock_timestamp()
         FROM unnest($1::bigint[], $2::timestamptz[]) AS sent (id, failed_at)
         WHERE dead_letters.id = sent.id AND dead_letters.failed_at = sent.failed_at",
        &ids,
        &failed_at,
    );
    bounded(FEW_ROWS, statement.execute(connection)).await?;
    Ok(())
}
