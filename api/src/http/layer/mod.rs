//! What stands around every handler: one service rather than a stack of ten, because axum boxes every layer.
//!
//! In this order: the request's context, the checks of its head and rate limit, the handler with a time-out and panics
//! caught, problem documents, headers, metrics, and the one log line. It knows no route.

mod client;
mod context;
mod cors;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod headers;
mod log;
pub mod problem;
mod rate_limit;
mod request_metrics;
mod request_rules;

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr},
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, Method, Version, header},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt as _;
use shared::platform::telemetry::{TraceParent, record_status, request_span, within_trace};
use tower::{Layer, Service};
use tracing::Instrument as _;

pub use context::{Context, X_REQUEST_ID};
pub use cors::Origins;

use crate::{
    http::{
        error::{ApiError, Code},
        extract::{BodyLimits, BodyReader},
        server::{PeerAddress, ResponseBudget},
    },
    limits::RateLimiter,
};
use request_metrics::RequestMetrics;

/// What [`RequestLayer`] needs to know.
pub struct RequestSettings {
    /// Proxies in front that append to `X-Forwarded-For`.
    pub trusted_proxies: usize,
    /// A request that takes longer fails with 504.
    pub timeout: Duration,
    /// Routes whose requests can wait for something to happen, and for how long.
    pub waiting_routes: &'static [(&'static str, Duration)],
    /// Limits of request bodies.
    pub bodies: BodyLimits,
    /// Pages that can call from a browser.
    pub origins: Origins,
    /// Counts the requests of each address.
    pub rate_limiter: Arc<RateLimiter>,
    /// Routes whose requests are not counted.
    pub uncounted_routes: &'static [&'static str],
}

impl RequestSettings {
    fn timeout_of(&self, route: &str) -> Duration {
        let waiting = self.waiting_routes.iter().find(|(waiting, _)| *waiting == route);
        self.timeout + waiting.map_or(Duration::ZERO, |(_, wait)| *wait)
    }
}

/// Puts [`RequestService`] around routes.
#[derive(Clone)]
pub struct RequestLayer(Arc<LayerState>);

struct LayerState {
    settings: RequestSettings,
    metrics: RequestMetrics,
    bodies: BodyReader,
}

impl RequestLayer {
    /// Makes a layer for all routes, which share its metrics and its budget for bodies.
    pub fn new(settings: RequestSettings) -> Self {
        let bodies = BodyReader::new(settings.bodies);
        Self(Arc::new(LayerState { settings, metrics: RequestMetrics::default(), bodies }))
    }
}

impl<S> Layer<S> for RequestLayer {
    type Service = RequestService<S>;

    fn layer(&self, inner: S) -> RequestService<S> {
        RequestService { inner, layer: Arc::clone(&self.0) }
    }
}

/// What stands around every handler.
#[derive(Clone)]
pub struct RequestService<S> {
    inner: S,
    layer: Arc<LayerState>,
}

impl<S> Service<Request> for RequestService<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let inner = self.inner.clone();
        // The service that was polled ready handles the request; its clone waits for the next.
        let inner = std::mem::replace(&mut self.inner, inner);
        let layer = Arc::clone(&self.layer);
        Box::pin(async move { Ok(respond(inner, &layer, request).await) })
    }
}

async fn respond<S>(inner: S, layer: &LayerState, mut request: Request) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible> + Send + 'static,
    S::Future: Send,
{
    let start = Instant::now();
    let settings = &layer.settings;
    let method = request.method().clone();
    let uri = request.uri().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let route = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let incoming = context::incoming_trace(request.headers());
    let (span, trace) = request_span(incoming, method.as_str(), route);
    let context = Arc::new(new_context(&request, trace, settings.trusted_proxies));
    request.extensions_mut().insert(Arc::clone(&context));

    let origin = request.headers().get(header::ORIGIN).cloned();
    let bodies = layer.bodies.for_route(route);
    let mut response = if let Some(preflight) = settings.origins.preflight(&request) {
        preflight
    } else if let Err(error) =
        admit(request.version(), request.headers(), route, &context, settings, &bodies).await
    {
        error.into_response()
    } else {
        request.extensions_mut().insert(bodies);
        let budget = request.extensions().get::<ResponseBudget>().cloned();
        let response = within_trace(context.trace, handle(inner, request, settings.timeout_of(route)))
            .instrument(span.clone())
            .await;
        match budget {
            // The documents are shared by all who read them, and responses to writes are small.
            Some(budget) if method == Method::GET && context.caller().is_some() => {
                budget.reserve(response).await.unwrap_or_else(IntoResponse::into_response)
            }
            _ => response,
        }
    };

    let error = problem::write_problem(&mut response, uri.path(), &context);
    let headers = response.headers_mut();
    headers::add_security_headers(headers);
    settings.origins.add_headers(origin.as_ref(), headers);
    rate_limit::add_fields(headers, &context.limits());
    headers.insert(X_REQUEST_ID, context.request_id.clone());

    let took = start.elapsed();
    record_status(&span, response.status().as_u16());
    layer.metrics.record(route, &method, response.status(), took);
    log::log_request(&log::CompletedRequest {
        method: &method,
        route,
        status: response.status(),
        took,
        context: &context,
        error: error.as_deref(),
    });
    response
}

fn new_context(request: &Request, trace: Option<TraceParent>, trusted_proxies: usize) -> Context {
    let peer = request.extensions().get::<PeerAddress>();
    let peer = peer.map_or(IpAddr::from(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
    let headers = request.headers();
    Context::new(headers, client::client_address(peer, headers, trusted_proxies), trace)
}

/// Checks the head of a request, and counts it against the limit of its address.
async fn admit(
    version: Version,
    headers: &HeaderMap,
    route: &str,
    context: &Context,
    settings: &RequestSettings,
    bodies: &BodyReader,
) -> Result<(), ApiError> {
    request_rules::check(version, headers)?;
    if !settings.uncounted_routes.contains(&route)
        && let Some(check) = settings.rate_limiter.count_address(context.client).await
    {
        context.add_limit(check);
        check.require_allowed()?;
    }
    bodies.check_declared_length(declared_length(headers))
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Returns the handler's response, or the problem that it took too long or panicked.
async fn handle<S>(mut inner: S, request: Request, timeout: Duration) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    // A panic leaves nothing that handlers share half-changed: stores change in transactions.
    let handled = AssertUnwindSafe(async move { inner.call(request).await }).catch_unwind();
    match tokio::time::timeout(timeout, handled).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Ok(Err(never))) => match never {},
        Ok(Err(panic)) => ApiError::internal(panic_message(panic.as_ref())).into_response(),
        Err(_) => {
            let detail = format!("the request took more than {} s", timeout.as_secs());
            ApiError::new(Code::Timeout, detail).into_response()
        }
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a handler panicked: {}", text.unwrap_or("without a message"))
}
