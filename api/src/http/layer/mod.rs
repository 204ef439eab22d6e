//! What stands around every handler: one service rather than a stack of ten, because every layer is boxed.
//!
//! In this order: who and which request, the size of the body, the handler under a time-out with panics caught,
//! problem documents, headers, metrics, and the one log line.

mod client;
mod context;
mod cors;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod headers;
mod log;
mod meters;
pub mod problem;
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
    http::{Method, header},
    response::{IntoResponse, Response},
};
use futures_util::FutureExt as _;
use shared::platform::telemetry::{TraceParent, record_status, request_span, within_trace};
use tower::{Layer, Service};
use tracing::Instrument as _;

pub use client::Peer;
pub use context::{Context, X_REQUEST_ID};
pub use cors::Origins;

use crate::{
    http::{
        error::{ApiError, Code},
        extract::BodyReader,
        health,
        server::AnswerBudget,
    },
    limits::{Limits, add_fields},
    state::AppState,
};
use meters::Meters;

/// Puts [`RequestService`] around routes.
#[derive(Clone)]
pub struct RequestLayer(Arc<Shared>);

struct Shared {
    state: AppState,
    meters: Meters,
    bodies: BodyReader,
}

impl RequestLayer {
    /// One frame for all routes, which share its meters.
    pub fn new(state: AppState) -> Self {
        let bodies = BodyReader::new(state.config.http.bodies);
        Self(Arc::new(Shared { state, meters: Meters::default(), bodies }))
    }
}

impl<S> Layer<S> for RequestLayer {
    type Service = RequestService<S>;

    fn layer(&self, inner: S) -> RequestService<S> {
        RequestService { inner, shared: Arc::clone(&self.0) }
    }
}

/// What stands around every handler.
#[derive(Clone)]
pub struct RequestService<S> {
    inner: S,
    shared: Arc<Shared>,
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
        // The one that was polled ready handles the request; the clone waits for the next.
        let inner = std::mem::replace(&mut self.inner, inner);
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { Ok(answer(inner, &shared, request).await) })
    }
}

async fn answer<S>(inner: S, shared: &Shared, mut request: Request) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible> + Send + 'static,
    S::Future: Send,
{
    let start = Instant::now();
    let method = request.method().clone();
    let uri = request.uri().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let label = route.as_ref().map_or("unmatched", MatchedPath::as_str);
    let incoming = context::incoming_trace(request.headers());
    let (span, trace) = request_span(incoming, method.as_str(), label);
    let context = Arc::new(context(&request, trace, &shared.state));
    request.extensions_mut().insert(Arc::clone(&context));

    let http = &shared.state.config.http;
    let bodies = shared.bodies.for_route(label);
    let declared = declared_length(&request);
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = if let Some(preflight) = http.origins.preflight(&request) {
        preflight
    } else if let Err(error) = request_rules::check(request.version(), request.headers()) {
        error.into_response()
    } else if let Err(error) = admit(route.as_ref(), &context, &shared.state.limits).await {
        error.into_response()
    } else if let Err(error) = bodies.check_declared_length(declared) {
        error.into_response()
    } else {
        request.extensions_mut().insert(bodies);
        let budget = request.extensions().get::<AnswerBudget>().cloned();
        let response = within_trace(context.trace, handle(inner, request, http.request_timeout))
            .instrument(span.clone())
            .await;
        match budget {
            // The documents are shared by all who read them, and answers to writes are small.
            Some(budget) if method == Method::GET && context.caller().is_some() => {
                budget.hold(response).await.unwrap_or_else(IntoResponse::into_response)
            }
            _ => response,
        }
    };

    let error = problem::render(&mut response, uri.path(), &context);
    let headers = response.headers_mut();
    headers::secure(headers);
    http.origins.open(origin.as_ref(), headers);
    add_fields(headers, &context.limits());
    headers.insert(X_REQUEST_ID, context.request_id.clone());

    let took = start.elapsed();
    record_status(&span, response.status().as_u16());
    shared.meters.record(label, &method, response.status(), took);
    log::line(&log::Answered {
        method: &method,
        route: label,
        status: response.status(),
        took,
        context: &context,
        error: error.as_deref(),
    });
    response
}

fn context(request: &Request, trace: Option<TraceParent>, state: &AppState) -> Context {
    let peer =
        request.extensions().get::<Peer>().map_or(IpAddr::from(Ipv4Addr::UNSPECIFIED), |peer| peer.0.ip());
    let headers = request.headers();
    let client = client::client_address(peer, headers, state.config.http.trusted_proxies);
    Context::new(headers, client, trace)
}

fn declared_length(request: &Request) -> Option<u64> {
    request.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Counts the request against the limit of its address.
async fn admit(route: Option<&MatchedPath>, context: &Context, limits: &Limits) -> Result<(), ApiError> {
    // A load balancer asks from one address, often, and takes a refusal for a failure.
    let is_health = route.is_some_and(|route| health::ROUTES.contains(&route.as_str()));
    if !is_health && let Some(decision) = limits.address(context.client).await {
        context.add_limit(decision);
        decision.check()?;
    }
    Ok(())
}

/// The handler's answer, or the problem that it took too long or panicked.
async fn handle<S>(mut inner: S, request: Request, deadline: Duration) -> Response
where
    S: Service<Request, Response = Response, Error = Infallible>,
{
    // Nothing that a handler shares is left half-changed by a panic: stores change in transactions.
    let handled = AssertUnwindSafe(async move { inner.call(request).await }).catch_unwind();
    match tokio::time::timeout(deadline, handled).await {
        Ok(Ok(Ok(response))) => response,
        Ok(Ok(Err(never))) => match never {},
        Ok(Err(panic)) => ApiError::internal(panic_message(panic.as_ref())).into_response(),
        Err(_) => {
            let detail = format!("the request took more than {} s", deadline.as_secs());
            ApiError::new(Code::Timeout, detail).into_response()
        }
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a handler panicked: {}", text.unwrap_or("without a message"))
}
