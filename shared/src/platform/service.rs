//! The operators' port, separate from the public one: `/metrics`, and for the worker its health.

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

/// How often histograms are compacted, so that their memory is bounded while nothing scrapes them.
const UPKEEP: Duration = Duration::from_secs(5);

/// `/metrics` in Prometheus' text format. `refresh` runs before each response: it sets the gauges whose values come from
/// servers, so that a scrape shows current values. It must limit its time: see [`GAUGE_TIMEOUT`].
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

/// The value of a gauge that cannot be read: in Prometheus no comparison with it is true, and `max` ignores it.
pub const UNKNOWN: f64 = f64::NAN;

/// How long a scrape waits for a gauge to be read. Prometheus cancels a scrape after 10 s, that of `observability/` after 4 s.
pub const GAUGE_TIMEOUT: Duration = Duration::from_millis(2500);

/// A problem document with status 503, on the operators' port.
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

/// Compacts histograms until shutdown.
pub async fn upkeep(metrics: PrometheusHandle, shutdown: Shutdown) {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        tokio::select! {
            () = shutdown.begun() => return,
            _ = ticks.tick() => metrics.run_upkeep(),
        }
    }
}

/// Serves `router` until shutdown. Returns the address as soon as it listens.
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
