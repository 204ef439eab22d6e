//! The answer to a request that writes: sent now, and kept where the request carries a key.

use std::borrow::Cow;

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use shared::domain::{
    encoded::Encoded,
    order::{CustomerId, Order, OrderId},
};

use super::{conditional::etag, idempotency::IDEMPOTENT_REPLAYED};
use crate::{
    db::StoredResponse,
    http::{error::ApiError, layer::problem},
};

/// An answer to a request that writes.
#[derive(Clone, Debug)]
pub struct Answer {
    kept: StoredResponse,
    replayed: bool,
}

/// What a problem document says of its request: needed where one is kept.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The path.
    pub path: String,
    /// The id of the request.
    pub request_id: String,
}

const CONTENT_TYPE: Cow<'static, str> = Cow::Borrowed("content-type");
const ETAG: Cow<'static, str> = Cow::Borrowed("etag");
const LOCATION: Cow<'static, str> = Cow::Borrowed("location");

impl Answer {
    /// 201 with where the order is.
    pub fn created(order: &Encoded<Order>) -> Self {
        let location = (LOCATION, format!("/api/v1/orders/{}", order.id));
        let mut answer = Self::found(order.version, order.to_bytes());
        answer.kept.status = 201;
        answer.kept.headers.push(location);
        answer
    }

    /// 200 with the order.
    pub fn found(version: i64, body: Bytes) -> Self {
        let headers = vec![(CONTENT_TYPE, "application/json".to_owned()), (ETAG, etag(version))];
        Self { kept: StoredResponse { status: 200, headers, body }, replayed: false }
    }

    /// 204.
    pub fn deleted() -> Self {
        Self {
            kept: StoredResponse { status: 204, headers: Vec::new(), body: Bytes::new() },
            replayed: false,
        }
    }

    /// A refusal that comes from the state of the order, written out so that it can be kept.
    pub fn refused(error: &ApiError, asked: &Asked) -> Self {
        let status = i16::try_from(error.status().as_u16()).unwrap_or(500);
        let headers = vec![(CONTENT_TYPE, "application/problem+json".to_owned())];
        let body = problem::document(error, &asked.path, &asked.request_id).into();
        Self { kept: StoredResponse { status, headers, body }, replayed: false }
    }

    /// An answer that was given before.
    pub fn replayed(kept: StoredResponse) -> Self {
        Self { kept, replayed: true }
    }

    /// The order that was placed, if one was.
    pub fn placed(&self) -> Option<OrderId> {
        let (_, location) = self.kept.headers.iter().find(|(name, _)| *name == LOCATION)?;
        let id: i64 = location.rsplit('/').next()?.parse().ok()?;
        id.try_into().ok()
    }

    /// What is kept of it.
    pub fn kept(&self) -> &StoredResponse {
        &self.kept
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let Self { kept: StoredResponse { status, headers, body }, replayed } = self;
        let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let mut response = (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body).into_response();
        // The body's own default type does not hold.
        response.headers_mut().remove(header::CONTENT_TYPE);
        for (name, value) in headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(&*name), HeaderValue::try_from(value)) {
                response.headers_mut().insert(name, value);
            }
        }
        if replayed {
            response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// An order's body as it is answered and cached, with its owner; for an order that is not written yet.
pub(crate) fn written(order: &Order) -> (CustomerId, Bytes) {
    (order.customer_id, order.to_json().into())
}
