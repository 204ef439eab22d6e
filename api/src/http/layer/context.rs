//! What is known of a request while it is handled: shared by the frame around the handlers and the handlers.

use std::{net::IpAddr, sync::OnceLock};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use shared::{domain::order::OrderId, platform::telemetry::TraceParent};
use uuid::Uuid;

use crate::{auth::Caller, limits::Decision};

/// The header that carries the request's id, both ways.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header that carries the caller's trace.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The longest id that is taken over from a caller.
const MAX_REQUEST_ID: usize = 128;

/// One request. It stands in the request's extensions as `Arc<Context>`.
#[derive(Debug)]
pub struct Context {
    /// Printable, so that it can stand in headers, logs and problems alike.
    pub request_id: HeaderValue,
    /// Where the request comes from, seen through the trusted proxies.
    pub client: IpAddr,
    /// The caller's trace, continued by our span, or one of our own where traces are exported.
    pub trace: Option<TraceParent>,
    caller: OnceLock<Caller>,
    order: OnceLock<OrderId>,
    /// Of the address, then of the customer.
    limits: [OnceLock<Decision>; 2],
}

impl Context {
    /// What can be told before the request is routed.
    pub fn new(headers: &HeaderMap, client: IpAddr, trace: Option<TraceParent>) -> Self {
        Self {
            request_id: request_id(headers),
            client,
            trace,
            caller: OnceLock::new(),
            order: OnceLock::new(),
            limits: [OnceLock::new(), OnceLock::new()],
        }
    }

    /// The id as text.
    pub fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }

    /// Who calls, once the token has been verified.
    pub fn caller(&self) -> Option<Caller> {
        self.caller.get().copied()
    }

    /// Notes who calls, for the log.
    pub fn set_caller(&self, caller: Caller) {
        // Extracting twice finds the same caller.
        let _already_known = self.caller.set(caller);
    }

    /// The order that the request is about: in its path, or placed by it.
    pub fn order(&self) -> Option<OrderId> {
        self.order.get().copied()
    }

    /// Notes which order the request is about, for the log.
    pub fn set_order(&self, order: OrderId) {
        let _already_known = self.order.set(order);
    }

    /// Notes what a limit said, for the answer's fields.
    pub fn add_limit(&self, decision: Decision) {
        if let Some(free) = self.limits.iter().find(|limit| limit.get().is_none()) {
            let _is_free = free.set(decision);
        }
    }

    /// What the limits said.
    pub fn limits(&self) -> Vec<Decision> {
        self.limits.iter().filter_map(|limit| limit.get().copied()).collect()
    }
}

/// The caller's trace as it sent it.
pub(super) fn incoming_trace(headers: &HeaderMap) -> Option<TraceParent> {
    headers.get(TRACEPARENT)?.to_str().ok()?.parse().ok()
}

/// The caller's id where it is sane, else a new one. Insane ones could forge log lines or fill disks.
pub(super) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let sane = |value: &&HeaderValue| {
        (1..=MAX_REQUEST_ID).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    headers.get(X_REQUEST_ID).filter(sane).cloned().unwrap_or_else(|| {
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let id = Uuid::now_v7();
        let id: &str = id.hyphenated().encode_lower(&mut text);
        HeaderValue::from_str(id).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
    })
}
