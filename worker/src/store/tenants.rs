//! Rows of `tenants`, which belong to the API.

use std::collections::HashSet;

use shared::domain::tenant::TenantId;
use sqlx::PgConnection;

/// Loads which of these tenants exist and are not being removed.
pub async fn load_existing(
    connection: &mut PgConnection,
    tenants: &[TenantId],
) -> sqlx::Result<HashSet<TenantId>> {
    let ids: Vec<i32> = tenants.iter().map(|tenant| tenant.get()).collect();
    let found =
        sqlx::query_scalar!("SELECT id FROM tenants WHERE id = ANY($1) AND removal_began_at IS NULL", &ids)
            .fetch_all(connection)
            .await?;
    Ok(found.into_iter().filter_map(|id| TenantId::try_from(id).ok()).collect())
}
