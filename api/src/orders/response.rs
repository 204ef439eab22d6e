//! The response to a request that writes, as plain data: it is sent now, and stored if the request has an `Idempotency-Key`.

use std::borrow::Cow;

use bytes::Bytes;
use shared::domain::{
    encoded::Encoded,
    order::{Order, OrderId},
};

use super::{preconditions::etag, rules::RuleViolation};
use crate::db::StoredResponse;

/// A response to a request that writes.
#[derive(Clone, Debug)]
pub struct OrderResponse {
    /// What is sent, and stored under a key.
    pub stored: StoredResponse,
    /// Whether it was sent before.
    pub replayed: bool,
}

/// Renders a refusal, so that it can be stored. The HTTP side passes it in with the request that it belongs to.
pub type RenderRefusal = Box<dyn Fn(RuleViolation) -> StoredResponse + Send + Sync>;

const CONTENT_TYPE: Cow<'static, str> = Cow::Borrowed("content-type");
const ETAG: Cow<'static, str> = Cow::Borrowed("etag");
const LOCATION: Cow<'static, str> = Cow::Borrowed("location");

impl OrderResponse {
    /// 201 with the order's address.
    pub fn created(order: &Encoded<Order>) -> Self {
        let mut response = Self::ok(order.version, order.to_bytes());
        response.stored.status = 201;
        response.stored.headers.push((LOCATION, format!("/api/v1/orders/{}", order.id)));
        response
    }

    /// 200 with the order.
    pub fn ok(version: i64, body: Bytes) -> Self {
        let headers = vec![(CONTENT_TYPE, "application/json".to_owned()), (ETAG, etag(version))];
        Self::first(StoredResponse { status: 200, headers, body })
    }

    /// 204.
    pub fn deleted() -> Self {
        Self::first(StoredResponse { status: 204, headers: Vec::new(), body: Bytes::new() })
    }

    /// A response that is sent for the first time.
    pub fn first(stored: StoredResponse) -> Self {
        Self { stored, replayed: false }
    }

    /// A response that was sent before.
    pub fn replayed(stored: StoredResponse) -> Self {
        Self { stored, replayed: true }
    }

    /// The order that was created, if one was.
    pub fn created_order(&self) -> Option<OrderId> {
        let (_, location) = self.stored.headers.iter().find(|(name, _)| *name == LOCATION)?;
        let id: i64 = location.rsplit('/').next()?.parse().ok()?;
        id.try_into().ok()
    }
}
