//! Rows of `dead_letters`.

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{FEW_ROWS, WHOLE_TABLE, run_within};
use crate::dead_letters::{DeadLetter, DeadLetterFilter, NewDeadLetter};

/// Stores a dead letter, unless its tenant was removed. If the same body came from the same source before, that letter's attempts
/// grow and it is open again.
pub async fn insert_dead_letter(
    connection: &mut PgConnection,
    letter: &NewDeadLetter<'_>,
) -> sqlx::Result<()> {
    let event = letter.event;
    sqlx::query!(
        "INSERT INTO dead_letters
             (event_id, event_type, order_id, version, body, source, reason, attempts, broker, tenant_id)
         SELECT $1::uuid, $2::text, $3::bigint, $4::bigint, $5::bytea, $6::text, $7::text, $8::integer, $9::text, $10::integer
         -- Tenant 1 cannot be removed.
         WHERE $10 = 1 OR EXISTS (SELECT FROM tenants t WHERE t.id = $10 AND t.removal_began_at IS NULL)
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
        letter.tenant.get(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// A query over the dead letters that match a filter: its beginning, its end, and the parameters of the end.
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
                     AND NOT ($7 AND redriven_at IS NOT NULL)
                     AND ($8::integer IS NULL OR tenant_id = $8) "
                + $after,
            $filter.ids.as_deref(),
            $filter.source.as_deref(),
            $filter.event_type.as_deref(),
            $filter.order.map(|id| id.get()),
            $filter.since,
            $filter.until,
            $filter.open,
            $filter.tenant.map(|tenant| tenant.get())
            $(, $more)*
        )
    };
}

/// Loads the newest dead letters, or those before `before` (its `failed_at` and its number), newest first.
pub async fn load_newest(
    connection: &mut PgConnection,
    filter: &DeadLetterFilter,
    before: Option<(OffsetDateTime, i64)>,
    limit: i64,
) -> sqlx::Result<Vec<DeadLetter>> {
    let (failed_at, id) = before.unzip();
    let statement = filtered!(
        query_as!(
            DeadLetter,
            "SELECT id, tenant_id, event_id, event_type, order_id, version, body, source, reason, attempts, broker, failed_at,
                    redriven_at", "AND ($9::timestamptz IS NULL OR (failed_at, id) < ($9, $10)) ORDER BY failed_at DESC, id DESC LIMIT $11"
        ),
        filter,
        failed_at,
        id,
        limit
);
    run_within(FEW_ROWS, statement.fetch_all(connection)).await
}

/// Loads the dead letters after a number, in order of their numbers.
pub async fn load_after(
    connection: &mut PgConnection,
    filter: &DeadLetterFilter,
    after: i64,
    limit: i64,
) -> sqlx::Result<Vec<DeadLetter>> {
    let statement = filtered!(
        query_as!(
            DeadLetter,
            "SELECT id, tenant_id, event_id, event_type, order_id, version, body, source, reason, attempts, broker, failed_at,
                    redriven_at", "AND id > $9 ORDER BY id LIMIT $10"
        ),
        filter,
        after,
        limit
);
    run_within(FEW_ROWS, statement.fetch_all(connection)).await
}

/// Counts the dead letters that match.
pub async fn count_dead_letters(
    connection: &mut PgConnection,
    filter: &DeadLetterFilter,
) -> sqlx::Result<i64> {
    let statement = filtered!(query_scalar!("SELECT count(*) AS \"count!\"", ""), filter);
    run_within(WHOLE_TABLE, statement.fetch_one(connection)).await
}

/// Deletes the dead letters that match, and returns their number.
pub async fn delete_dead_letters(
    connection: &mut PgConnection,
    filter: &DeadLetterFilter,
) -> sqlx::Result<u64> {
    let statement = filtered!(query!("DELETE", ""), filter);
    Ok(run_within(WHOLE_TABLE, statement.execute(connection)).await?.rows_affected())
}

/// Marks dead letters as sent again, except those that failed once more meanwhile.
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
    run_within(FEW_ROWS, statement.execute(connection)).await?;
    Ok(())
}
