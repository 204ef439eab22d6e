//! What is known of a request while it is handled, shared by `RequestLayer` and the handlers.

use std::{net::IpAddr, sync::OnceLock};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use shared::{domain::order::OrderId, platform::telemetry::TraceParent};
use uuid::Uuid;

use crate::{auth::Caller, limits::LimitCheck};

/// The header that carries the request's id, both ways.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header that carries the caller's trace.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest id that is accepted from a caller.
const MAX_REQUEST_ID: usize = 128;

/// One request. It is in the request's extensions as `Arc<Context>`.
#[derive(Debug)]
pub struct Context {
    /// Printable, so that headers, logs and problems can carry it.
    pub request_id: HeaderValue,
    /// The client's address, as trusted proxies report it.
    pub client: IpAddr,
    /// The caller's trace, continued by our span, or one of our own if traces are exported.
    pub trace: Option<TraceParent>,
    caller: OnceLock<Caller>,
    order: OnceLock<OrderId>,
    /// The checks of the address, the customer and the tenant, in this order.
    limits: [OnceLock<LimitCheck>; 3],
}

impl Context {
    /// What is known before the request is handled.
    pub fn new(headers: &HeaderMap, client: IpAddr, trace: Option<TraceParent>) -> Self {
        Self {
            request_id: request_id(headers),
            client,
            trace,
            caller: OnceLock::new(),
            order: OnceLock::new(),
            limits: [OnceLock::new(), OnceLock::new(), OnceLock::new()],
        }
    }

    /// The id as text.
    pub fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    /// The caller, after its token was verified.
    pub fn caller(&self) -> Option<Caller> {
        self.caller.get().copied()
    }

    /// Records the caller, for the log.
    pub fn set_caller(&self, caller: Caller) {
        // A second extraction finds the same caller.
        let _already_known = self.caller.set(caller);
    }

    /// The order of the request: the one in its path, or the one that it created.
    pub fn order(&self) -> Option<OrderId> {
        self.order.get().copied()
    }

    /// Records the order of the request, for the log.
    pub fn set_order(&self, order: OrderId) {
        let _already_known = self.order.set(order);
    }

    /// Records the result of a limit, for the response's fields.
    pub fn add_limit(&self, check: LimitCheck) {
        if let Some(free) = self.limits.iter().find(|limit| limit.get().is_none()) {
            let _is_free = free.set(check);
        }
    }

    /// The results of the limits.
    pub fn limits(&self) -> Vec<LimitCheck> {
        self.limits.iter().filter_map(|limit| limit.get().copied()).collect()
    }
}

/// The trace that the caller sent.
pub(super) fn incoming_trace(headers: &HeaderMap) -> Option<TraceParent> {
    headers.get(TRACEPARENT)?.to_str().ok()?.parse().ok()
}

/// The caller's id if it is valid, else a new one. An invalid one could forge log lines or fill disks.
pub(super) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let is_valid = |value: &&HeaderValue| {
        (1..=MAX_REQUEST_ID).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    headers.get(X_REQUEST_ID).filter(is_valid).cloned().unwrap_or_else(|| {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let id = Uuid::now_v7();
        let id: &str = id.hyphenated().encode_lower(&mut text);
        HeaderValue::from_str(id).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
    })
}
