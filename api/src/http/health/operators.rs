//! The operators' port: `/metrics`, and `/lag` for autoscalers.

use std::sync::{Arc, OnceLock};

use axum::{
    Json, Router,
    response::{IntoResponse as _, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use shared::platform::service;

use super::monitor::HealthMonitor;

/// What the operators' port serves. It listens before the API does, and reports health once the API has started.
#[derive(Clone, Default)]
pub struct Operators(Arc<OnceLock<Arc<HealthMonitor>>>);

/// The events that are in the log and not yet in the history.
#[derive(Serialize)]
struct LagResponse {
    /// Estimated beyond 1,000.
    events: u64,
    /// The age of the oldest of them, 0 if there is none.
    oldest_seconds: u64,
}

impl Operators {
    /// Reports the health of this API from now on.
    pub fn attach(&self, health: &Arc<HealthMonitor>) {
        // A process starts one API.
        let _is_first = self.0.set(Arc::clone(health));
    }

    /// The routes.
    pub fn router(&self, metrics: PrometheusHandle) -> Router {
        let (for_metrics, for_lag) = (self.clone(), self.clone());
        service::metrics_router(metrics, move || {
            let operators = for_metrics.clone();
            async move {
                if let Some(health) = operators.0.get() {
                    Box::pin(health.set_gauges()).await;
                }
            }
        })
        .route("/lag", get(move || async move { for_lag.lag().await }))
    }

    async fn lag(&self) -> Response {
        let Some(health) = self.0.get() else {
            return service::unavailable("/lag", "the API starts");
        };
        match health.history_lag().await {
            Ok(lag) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "an age in seconds"
                )]
                let oldest_seconds = lag.oldest_seconds as u64;
                Json(LagResponse { events: lag.events, oldest_seconds }).into_response()
            }
            Err(error) => service::unavailable("/lag", &format!("the lag is not known: {error}")),
        }
    }
}
