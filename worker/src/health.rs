//! The worker's health checks, on the operators' port.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    response::{IntoResponse as _, Response},
    routing::get,
};
use futures_util::future::join_all;
use serde_json::json;
use shared::{
    broker::EventSource,
    cache::Cache,
    platform::{
        db::{DbConnection, DbError, DbPool},
        schema::SchemaCheck,
        service,
        shutdown::Shutdown,
        table_locks::{TableLock, oldest_table_lock},
    },
};
use tokio::sync::OnceCell;

use crate::{consumer::HeldBatches, errors::chain, rights::RIGHTS};

/// A dependency that does not answer within this time is not ready.
const CHECK_LIMIT: Duration = Duration::from_secs(2);
/// A batch that is held for this many seconds is reported.
const HELD_SECONDS: u64 = 2;
/// How often table locks are looked for while batches are held.
const LOCK_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Checks the dependencies of the worker.
pub struct Health {
    /// PostgreSQL, on a pool that the handlers do not use.
    pub db: DbPool,
    /// Whether the database is what this build needs.
    pub schema: SchemaCheck,
    /// Redis with the cache.
    pub cache: Cache,
    /// The broker, once it is connected.
    pub source: Arc<OnceCell<Arc<dyn EventSource>>>,
    /// The batches that wait for a dependency.
    pub held: HeldBatches,
}

impl Health {
    /// What is not ready, and why; empty if everything is ready.
    pub async fn problems(&self) -> Vec<String> {
        let checks: [(&str, futures_util::future::BoxFuture<'_, Result<(), String>>); 4] = [
            ("database", Box::pin(self.check_database())),
            ("redis", Box::pin(self.check_redis())),
            ("events", Box::pin(self.check_broker())),
            ("held", Box::pin(async { self.check_held_batches() })),
        ];
        let checked = checks.map(|(name, check)| async move {
            match tokio::time::timeout(CHECK_LIMIT, check).await {
                Ok(Ok(())) => None,
                Ok(Err(problem)) => Some(format!("{name}: {problem}")),
                Err(_) => Some(format!("{name}: no answer within {CHECK_LIMIT:?}")),
            }
        });
        join_all(checked).await.into_iter().flatten().collect()
    }

    async fn check_database(&self) -> Result<(), String> {
        let probe = |mut db: DbConnection| async move {
            sqlx::query_scalar!(
                r#"SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean AS "read_only!""#
            )
            .fetch_one(&mut *db)
            .await
        };
        let read_only = self.db.read_with_retry(probe).await.map_err(|error| {
            self.schema.forget();
            chain(&error)
        })?;
        self.schema.check(&self.db).await.map_err(|fault| fault.to_string())?;
        if read_only {
            return Err("PostgreSQL refuses writes: the server is read-only".to_owned());
        }
        match self.find_table_lock().await {
            Ok(None) => Ok(()),
            Ok(Some(lock)) => Err(lock.to_string()),
            Err(error) => Err(chain(&error)),
        }
    }

    async fn find_table_lock(&self) -> Result<Option<TableLock>, DbError> {
        oldest_table_lock(&self.db, RIGHTS).await
    }

    async fn check_redis(&self) -> Result<(), String> {
        self.cache.check_writable().await.map(|_| ()).map_err(|error| chain(&error))
    }

    async fn check_broker(&self) -> Result<(), String> {
        match self.source.get() {
            Some(source) => source.check().await.map_err(|error| chain(&error)),
            None => Err("not connected yet".to_owned()),
        }
    }

    fn check_held_batches(&self) -> Result<(), String> {
        let held: Vec<String> = self
            .held
            .summaries()
            .into_iter()
            .filter(|held| held.seconds >= HELD_SECONDS)
            .map(|held| {
                // The role may have lost rights.
                self.schema.forget();
                let batches = if held.batches == 1 { "batch waits" } else { "batches wait" };
                format!(
                    "{} {batches} for {} since {} s: {}",
                    held.batches, held.part, held.seconds, held.error
                )
            })
            .collect();
        if held.is_empty() { Ok(()) } else { Err(held.join("; ")) }
    }
}

/// `/health/live` and `/health/ready`.
pub fn router(health: Arc<Health>) -> Router {
    Router::new().route("/health/live", get(async || Json(json!({ "status": "alive" })))).route(
        "/health/ready",
        get(move || {
            let health = Arc::clone(&health);
            async move { readiness(&health.problems().await) }
        }),
    )
}

fn readiness(problems: &[String]) -> Response {
    if problems.is_empty() {
        return Json(json!({ "status": "ready" })).into_response();
    }
    service::unavailable("/health/ready", &format!("not ready: {}", problems.join("; ")))
}

/// Until shutdown, logs which session locks a table that held batches need: the error of a batch only says that PostgreSQL
/// did not answer in time.
pub async fn log_table_locks(health: Arc<Health>, shutdown: Shutdown) {
    let mut logged = None;
    loop {
        tokio::select! {
            () = shutdown.begun() => return,
            () = tokio::time::sleep(LOCK_CHECK_INTERVAL) => {}
        }
        if health.held.summaries().is_empty() {
            logged = None;
            continue;
        }
        if let Ok(Ok(Some(lock))) = tokio::time::timeout(CHECK_LIMIT, health.find_table_lock()).await
            && logged != Some((lock.pid, lock.table.clone()))
        {
            tracing::warn!(lock.table, lock.mode, lock.pid, "held batches wait for a lock: {lock}");
            logged = Some((lock.pid, lock.table));
        }
    }
}
