//! The operators' port: `/metrics`, and for the worker its health, apart from the public one.

use std::{net::SocketAddr, time::Duration};

use axum::{Router, http::header, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;

use crate::{bounded_listener::BoundedListener, shutdown::Shutdown};

/// How often histograms are folded, so that they take bounded memory while nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// `/metrics` in Prometheus' text format.
pub fn metrics_router(metrics: PrometheusHandle) -> Router {
    Router::new().route(
        "/metrics",
        get(move || {
            let text = metrics.render();
            async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
        }),
    )
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
