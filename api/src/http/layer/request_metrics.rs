//! Metrics of requests. The handles of each route, method and status are cached, so that counting allocates nothing.

use std::{collections::HashMap, sync::RwLock, time::Duration};

use axum::http::{Method, StatusCode};
use metrics::{Counter, Histogram, counter, histogram};

/// The metrics of all routes.
#[derive(Default)]
pub(super) struct RequestMetrics(RwLock<HashMap<Box<str>, Vec<RouteMetrics>>>);

/// The metrics of one route, method and status.
struct RouteMetrics {
    method: &'static str,
    status: StatusCode,
    requests: Counter,
    duration: Histogram,
}

impl RequestMetrics {
    /// Counts one request.
    pub(super) fn record(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let method = method_label(method);
        let counted = {
            let routes = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            let metrics = routes.get(route).and_then(|metrics| find_metrics(metrics, method, status));
            metrics.is_some_and(|metrics| {
                metrics.count(took);
                true
            })
        };
        if counted {
            return;
        }
        let mut routes = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let of_route = routes.entry(route.into()).or_default();
        if find_metrics(of_route, method, status).is_none() {
            of_route.push(RouteMetrics::new(route, method, status));
        }
        if let Some(metrics) = find_metrics(of_route, method, status) {
            metrics.count(took);
        }
    }
}

fn find_metrics<'a>(
    of_route: &'a [RouteMetrics],
    method: &str,
    status: StatusCode,
) -> Option<&'a RouteMetrics> {
    of_route.iter().find(|metrics| metrics.status == status && metrics.method == method)
}

impl RouteMetrics {
    fn new(route: &str, method: &'static str, status: StatusCode) -> Self {
        let labels = [
            ("route", route.to_owned()),
            ("method", method.to_owned()),
            ("status", status.as_str().to_owned()),
        ];
        Self {
            method,
            status,
            requests: counter!("http_requests_total", &labels),
            duration: histogram!("http_request_duration_seconds", &labels),
        }
    }

    fn count(&self, took: Duration) {
        self.requests.increment(1);
        self.duration.record(took.as_secs_f64());
    }
}

/// Methods that clients make up must not create metrics.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
