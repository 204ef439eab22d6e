//! The worker's health, on its operators' port.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use futures_util::future::join_all;
use serde_json::json;
use shared::{
    broker::EventSource,
    cache::Cache,
    db::{DbConnection, DbPool},
};
use tokio::sync::OnceCell;

use crate::errors::chain;

/// A dependency that does not answer in this time is not ready.
const LIMIT: Duration = Duration::from_secs(2);

/// What the worker needs in order to work.
#[derive(Clone)]
pub struct Health {
    /// PostgreSQL.
    pub db: DbPool,
    /// Redis with the cache.
    pub cache: Cache,
    /// The broker, once it is connected.
    pub source: Arc<OnceCell<Arc<dyn EventSource>>>,
}

impl Health {
    /// What is not ready, and why; empty when all is well.
    pub async fn faults(&self) -> Vec<String> {
        let checks: [(&str, futures_util::future::BoxFuture<'_, Result<(), String>>); 3] = [
            ("database", Box::pin(self.database())),
            ("redis", Box::pin(async { self.cache.ping().await.map_err(|error| chain(&error)) })),
            ("events", Box::pin(self.events())),
        ];
        let checked = checks.map(|(name, check)| async move {
            match tokio::time::timeout(LIMIT, check).await {
                Ok(Ok(())) => None,
                Ok(Err(fault)) => Some(format!("{name}: {fault}")),
                Err(_) => Some(format!("{name}: no answer within {LIMIT:?}")),
            }
        });
        join_all(checked).await.into_iter().flatten().collect()
    }

    async fn database(&self) -> Result<(), String> {
        let probe = |mut db: DbConnection| async move {
            sqlx::query_scalar!(r#"SELECT 1 AS "one!""#).fetch_one(&mut *db).await
        };
        let answer = self.db.read(probe).await;
        answer.map(|_| ()).map_err(|error| chain(&error))
    }

    async fn events(&self) -> Result<(), String> {
        match self.source.get() {
            Some(source) => source.check().await.map_err(|error| chain(&error)),
            None => Err("not connected yet".to_owned()),
        }
    }
}

/// `/health/live` and `/health/ready`.
pub fn router(health: Health) -> Router {
    Router::new().route("/health/live", get(async || Json(json!({ "status": "alive" })))).route(
        "/health/ready",
        get(move || {
            let health = health.clone();
            async move { ready(&health.faults().await) }
        }),
    )
}

fn ready(faults: &[String]) -> Response {
    if faults.is_empty() {
        return Json(json!({ "status": "ready" })).into_response();
    }
    let problem = json!({
        "type": "/problems/unavailable",
        "title": "Service unavailable",
        "status": 503,
        "detail": format!("not ready: {}", faults.join("; ")),
        "instance": "/health/ready",
        "code": "unavailable",
    });
    let headers = [(header::CONTENT_TYPE, "application/problem+json"), (header::RETRY_AFTER, "1")];
    (StatusCode::SERVICE_UNAVAILABLE, headers, problem.to_string()).into_response()
}
