//! The operators' port: `/metrics`, and for the worker its health, apart from the public one.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;
use tokio::net::TcpListener;

use crate::platform::{bounded_listener::BoundedListener, shutdown::Shutdown};

/// How often histograms are folded, so that they take bounded memory while nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// `/metrics` in Prometheus' text format. `refresh` runs before each answer: it reads the gauges that are asked from
/// servers, so that a scrape shows how things are now. It must bound itself: see [`GAUGE_TIMEOUT`].
pub fn metrics_router<F>(
    metrics: PrometheusHandle,
    refresh: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> Router
where
    F: Future<Output = ()> + Send,
{
    Router::new().route(
        "/metrics",
        get(move || async move {
            refresh().await;
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.render())
        }),
    )
}

/// The value of a gauge that cannot be read: in Prometheus no comparison with it is true, and `max` passes it over.
pub const UNKNOWN: f64 = f64::NAN;

/// How long a scrape waits for a gauge to be read. Prometheus gives up after 10 s, that of `observability/` after 4 s.
pub const GAUGE_TIMEOUT: Duration = Duration::from_millis(2500);

/// A 503 problem on the operators' port.
pub fn unavailable(instance: &str, detail: &str) -> Response {
    let problem = json!({
        "type": "/problems/unavailable",
        "title": "Service unavailable",
        "status": 503,
        "detail": detail,
        "instance": instance,
        "code": "unavailable",
    });
    let headers = [(header::CONTENT_TYPE, "application/problem+json"), (header::RETRY_AFTER, "1")];
    (StatusCode::SERVICE_UNAVAILABLE, headers, problem.to_string()).into_response()
}

/// Folds histograms until shutdown.
pub async fn upkeep(metrics: PrometheusHandle, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            () = shutdown.begun() => return,
            _ = ticks.tick() => metrics.run_upkeep(),
        }
    }
}

/// Binds and serves `router` until `shutdown` has drained; the address is returned once it listens.
pub async fn serve(addr: SocketAddr, router: Router, shutdown: &Shutdown) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(addr).await?;
    let bound = listener.local_addr()?;
    let listener = BoundedListener::new(listener);
    let stop = shutdown.clone();
    shutdown.spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(async move { stop.begun().await });
        if let Err(error) = served.await {
            tracing::error!(error = %error, "the metrics server failed");
        }
    });
    Ok(bound)
}
