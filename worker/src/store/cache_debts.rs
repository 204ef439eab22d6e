//! Rows of `cache_debts`: orders whose cache entry could not be written.

use shared::domain::order::OrderId;
use sqlx::PgConnection;

/// Records that these orders' entries must not be older than these versions. `debts` names each order once and is sorted by
/// id, so that two workers cannot deadlock.
pub async fn record_debts(connection: &mut PgConnection, debts: &[(OrderId, i64)]) -> sqlx::Result<()> {
    let (order_ids, versions): (Vec<i64>, Vec<i64>) =
        debts.iter().map(|(order, version)| (order.get(), *version)).unzip();
    sqlx::query!(
        "INSERT INTO cache_debts (order_id, version) SELECT * FROM unnest($1::bigint[], $2::bigint[])
         ON CONFLICT (order_id) DO UPDATE SET version = greatest(cache_debts.version, excluded.version)",
        &order_ids,
        &versions,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Locks up to `limit` of the oldest debts that no other worker has locked.
pub async fn lock_oldest_debts(
    connection: &mut PgConnection,
    limit: i64,
) -> sqlx::Result<Vec<(OrderId, i64)>> {
    let rows = sqlx::query!(
        "SELECT order_id, version FROM cache_debts ORDER BY owed_since, order_id LIMIT $1 FOR UPDATE SKIP LOCKED",
        limit
    )
    .fetch_all(connection)
    .await?;
    let debt = |row: (i64, i64)| Some((OrderId::try_from(row.0).ok()?, row.1));
    Ok(rows.into_iter().filter_map(|row| debt((row.order_id, row.version))).collect())
}

/// Deletes debts that were locked in this transaction and paid.
pub async fn delete_debts(connection: &mut PgConnection, paid: &[OrderId]) -> sqlx::Result<()> {
    let order_ids: Vec<i64> = paid.iter().map(|id| id.get()).collect();
    sqlx::query!("DELETE FROM cache_debts WHERE order_id = ANY($1)", &order_ids).execute(connection).await?;
    Ok(())
}
