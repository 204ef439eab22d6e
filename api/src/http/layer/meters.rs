//! Request metrics. The handles of each route, method and status are kept, so that counting allocates nothing.

use std::{collections::HashMap, sync::RwLock, time::Duration};

use axum::http::{Method, StatusCode};
use metrics::{Counter, Histogram, counter, histogram};

/// The counters of all routes.
#[derive(Default)]
pub(super) struct Meters(RwLock<HashMap<Box<str>, Vec<Meter>>>);

struct Meter {
    method: &'static str,
    status: StatusCode,
    requests: Counter,
    duration: Histogram,
}

impl Meters {
    /// Counts one answered request.
    pub(super) fn record(&self, route: &str, method: &Method, status: StatusCode, took: Duration) {
        let method = known(method);
        let counted = {
            let meters = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner);
            let meter = meters.get(route).and_then(|meters| find(meters, method, status));
            meter.is_some_and(|meter| {
                meter.count(took);
                true
            })
        };
        if counted {
            return;
        }
        let mut meters = self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let of_route = meters.entry(route.into()).or_default();
        if find(of_route, method, status).is_none() {
            of_route.push(Meter::new(route, method, status));
        }
        if let Some(meter) = find(of_route, method, status) {
            meter.count(took);
        }
    }
}

fn find<'a>(meters: &'a [Meter], method: &str, status: StatusCode) -> Option<&'a Meter> {
    meters.iter().find(|meter| meter.status == status && meter.method == method)
}

impl Meter {
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

/// Methods that a client makes up must not make up metrics.
fn known(method: &Method) -> &'static str {
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
