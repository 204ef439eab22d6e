//! Whether PostgreSQL can be used by the API.

use std::time::{Duration, Instant};

use shared::platform::{
    db::{DbConnection, DbPool},
    schema::SchemaCheck,
    table_locks::oldest_table_lock,
};

use super::{
    probe::{PROBE_TIMEOUT, milliseconds, with_timeout},
    report::{HealthStatus, ServiceHealth},
    rights::RIGHTS,
};
use crate::orders::outcomes::WriteOutcomes;

/// The time-out of the first query: longer than the pool tries to connect, so that the pool's error is reported.
const FIRST_QUERY_TIMEOUT: Duration = Duration::from_millis(3500);

/// Probes PostgreSQL. `db` is a pool that requests do not use, so that a pool that they use up does not look like an outage.
pub(super) async fn probe_database(
    db: &DbPool,
    schema: &SchemaCheck,
    writes: &WriteOutcomes,
) -> ServiceHealth {
    let start = Instant::now();
    let read_only = with_timeout(
            FIRST_QUERY_TIMEOUT,
            db.read_with_retry(|mut db: DbConnection| async move {
                sqlx::query_scalar!(
                    r#"SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean AS "read_only!""#
                )
                .fetch_one(&mut *db)
                .await
            }),
        )
        .await;
    let latency_ms = milliseconds(start.elapsed());
    let read_only = match read_only {
        Ok(read_only) => read_only,
        Err(error) => {
            schema.forget();
            return ServiceHealth::unhealthy(format!("PostgreSQL does not answer: {error}"));
        }
    };
    if let Err(error) = with_timeout(PROBE_TIMEOUT, schema.check(db)).await {
        return ServiceHealth { latency_ms: Some(latency_ms), ..ServiceHealth::unhealthy(error) };
    }
    let mut problems = Vec::new();
    if read_only {
        problems.push("PostgreSQL refuses writes: the server is read-only".to_owned());
    }
    if let Some(cause) =
        with_timeout(PROBE_TIMEOUT, async { Ok::<_, std::convert::Infallible>(writes.failing(db).await) })
            .await
            .unwrap_or_else(Some)
    {
        // Rights may have been revoked.
        schema.forget();
        problems.push(format!("writes fail: {cause}"));
    }
    if let Ok(Some(lock)) = with_timeout(PROBE_TIMEOUT, oldest_table_lock(db, RIGHTS)).await {
        problems.push(lock.to_string());
    }
    let status = if problems.is_empty() { HealthStatus::Healthy } else { HealthStatus::Degraded };
    let detail = (!problems.is_empty()).then(|| problems.join("; "));
    ServiceHealth { status, latency_ms: Some(latency_ms), detail }
}
