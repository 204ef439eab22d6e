//! Rows of `cache_debts`: orders whose cache entry could not be written.

use shared::domain::{
    order::{OrderId, OrderKey},
    tenant::TenantId,
};
use sqlx::PgConnection;

/// Records that these orders' entries must not be older than these versions. `debts` names each order once and is sorted by
/// id, so that two workers cannot deadlock.
pub async fn record_debts(connection: &mut PgConnection, debts: &[(OrderKey, i64)]) -> sqlx::Result<()> {
    let order_ids: Vec<i64> = debts.iter().map(|(order, _)| order.id.get()).collect();
    let versions: Vec<i64> = debts.iter().map(|(_, version)| *version).collect();
    let tenants: Vec<i32> = debts.iter().map(|(order, _)| order.tenant.get()).collect();
    sqlx::query!(
        "INSERT INTO cache_debts (order_id, version, tenant_id)
         SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::integer[])
         ON CONFLICT (order_id) DO UPDATE SET version = greatest(cache_debts.version, excluded.version)",
        &order_ids,
        &versions,
        &tenants,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Locks up to `limit` of the oldest debts that no other worker has locked.
pub async fn lock_oldest_debts(
    connection: &mut PgConnection,
    limit: i64,
) -> sqlx::Result<Vec<(OrderKey, i64)>> {
    let rows = sqlx::query!(
        "SELECT order_id, version, tenant_id FROM cache_debts
         ORDER BY owed_since, order_id LIMIT $1 FOR UPDATE SKIP LOCKED",
        limit
    )
    .fetch_all(connection)
    .await?;
    let key = |tenant: i32, id: i64| {
        Some(OrderKey { tenant: TenantId::try_from(tenant).ok()?, id: OrderId::try_from(id).ok()? })
    };
    Ok(rows.into_iter().filter_map(|row| Some((key(row.tenant_id, row.order_id)?, row.version))).collect())
}

/// Deletes debts that were locked in this transaction and paid.
pub async fn delete_debts(connection: &mut PgConnection, paid: &[OrderKey]) -> sqlx::Result<()> {
    let order_ids: Vec<i64> = paid.iter().map(|order| order.id.get()).collect();
    sqlx::query!("DELETE FROM cache_debts WHERE order_id = ANY($1)", &order_ids).execute(connection).await?;
    Ok(())
}
