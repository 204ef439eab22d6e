//! The operators' port: `/metrics`, and `/lag` for autoscalers.

use std::sync::{Arc, OnceLock};

use axum::{
    Json, Router,
    response::{IntoResponse as _, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use shared::platform::service::{self, GAUGE_TIMEOUT};

use super::{Health, probe::in_time};
use crate::{
    outbox::{backlog, set_backlog_gauges, set_lag_gauges, set_lease_gauge},
    state::AppState,
};

/// What the operators' port serves. It listens before the API does, and knows its state from then on.
#[derive(Clone, Default)]
pub struct Operators(Arc<OnceLock<AppState>>);

/// The events that are in the log and not yet in the history.
#[derive(Serialize)]
struct LagAnswer {
    /// Estimated beyond 1,000.
    events: u64,
    /// The age of the oldest of them, 0 if there is none.
    oldest_seconds: u64,
}

impl Operators {
    /// Reports on this API from now on.
    pub fn attach(&self, state: &AppState) {
        // Attached once, by the one who started the API.
        let _first = self.0.set(state.clone());
    }

    /// The routes.
    pub fn router(&self, metrics: PrometheusHandle) -> Router {
        let (for_metrics, for_lag) = (self.clone(), self.clone());
        service::metrics_router(metrics, move || {
            let operators = for_metrics.clone();
            async move {
                if let Some(state) = operators.0.get() {
                    Box::pin(state.health.set_gauges()).await;
                }
            }
        })
        .route("/lag", get(move || async move { for_lag.lag().await }))
    }

    async fn lag(&self) -> Response {
        let Some(state) = self.0.get() else {
            return service::unavailable("/lag", "the API starts");
        };
        match in_time(GAUGE_TIMEOUT, state.health.lag.measure()).await {
            Ok(lag) => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "an age in seconds"
                )]
                let oldest_seconds = lag.oldest_seconds as u64;
                Json(LagAnswer { events: lag.events, oldest_seconds }).into_response()
            }
            Err(error) => service::unavailable("/lag", &format!("the lag is not known: {error}")),
        }
    }
}

impl Health {
    /// Reads the gauges that PostgreSQL knows.
    async fn set_gauges(&self) {
        let (backlog, lag) = tokio::join!(
            in_time(GAUGE_TIMEOUT, backlog(&self.db)),
            in_time(GAUGE_TIMEOUT, self.lag.measure())
        );
        set_backlog_gauges(backlog.ok());
        set_lag_gauges(lag.ok());
        set_lease_gauge(self.relay.lease_held());
    }
}
