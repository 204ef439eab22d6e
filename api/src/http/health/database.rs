//! Whether PostgreSQL does what the API needs of it.

use std::time::{Duration, Instant};

use shared::platform::{db::DbConnection, table_locks::oldest_table_lock};

use super::{
    Health, RIGHTS, ServiceHealth, Status,
    probe::{PROBE_TIMEOUT, in_time, milliseconds},
};

/// How long the first question may take: longer than the pool tries to connect, so that its reason is known.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(3500);

/// How the database stands.
#[derive(Debug)]
pub(super) struct DatabaseHealth {
    pub(super) service: ServiceHealth,
}

impl DatabaseHealth {
    /// Why no request should be sent here: the database does not answer, or has another schema or other rights than this
    /// build needs. One that only refuses writes still serves reads.
    pub(super) fn not_ready(&self) -> Option<&str> {
        let detail = self.service.detail.as_deref().unwrap_or("PostgreSQL does not answer");
        (self.service.status == Status::Unhealthy).then_some(detail)
    }
}

impl Health {
    /// Asks the database on a connection of its own, so that requests that hold all others do not look like an outage.
    pub(super) async fn probe_database(&self) -> DatabaseHealth {
        let start = Instant::now();
        let read_only = in_time(
            ANSWER_TIMEOUT,
            self.db.read_with_retry(|mut db: DbConnection| async move {
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
                self.schema.forget();
                return DatabaseHealth {
                    service: ServiceHealth::unhealthy(format!("PostgreSQL does not answer: {error}")),
                };
            }
        };
        if let Err(fault) = in_time(PROBE_TIMEOUT, self.schema.check(&self.db)).await {
            return DatabaseHealth {
                service: ServiceHealth { latency_ms: Some(latency_ms), ..ServiceHealth::unhealthy(fault) },
            };
        }
        let mut troubles = Vec::new();
        if read_only {
            troubles.push("PostgreSQL refuses writes: the server is read-only".to_owned());
        }
        if let Some(cause) = in_time(PROBE_TIMEOUT, async {
            Ok::<_, std::convert::Infallible>(self.writes.failing(&self.db).await)
        })
        .await
        .unwrap_or_else(Some)
        {
            // Perhaps rights were taken away.
            self.schema.forget();
            troubles.push(format!("writes fail: {cause}"));
        }
        if let Ok(Some(lock)) = in_time(PROBE_TIMEOUT, oldest_table_lock(&self.db, RIGHTS)).await {
            troubles.push(lock.to_string());
        }
        let status = if troubles.is_empty() { Status::Healthy } else { Status::Degraded };
        let detail = (!troubles.is_empty()).then(|| troubles.join("; "));
        DatabaseHealth { service: ServiceHealth { status, latency_ms: Some(latency_ms), detail } }
    }
}
