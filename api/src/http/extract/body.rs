//! The bytes of a JSON body: the right content type, not too many, and in time.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    extract::{FromRequest, OptionalFromRequest, Request},
    http::{HeaderMap, HeaderValue, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Query;
use crate::http::{
    bytes_with_permit::bytes_with_permit,
    error::{ApiError, Code},
};

/// The largest body that is read: 256 KiB.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// The largest body of the auth routes, which strangers can call: 4 KiB.
pub const AUTH_BODY_BYTES: usize = 4 * 1024;
const AUTH_ROUTES: &str = "/api/v1/auth/";
/// The largest body of a batch: 1 MiB, twice what a hundred of the largest orders take without spaces.
pub const BATCH_BODY_BYTES: usize = 1024 * 1024;
const BATCH_ROUTE: &str = "/api/v1/orders/batch";
/// Its body is a stream, of which only a row at a time is kept.
const IMPORT_ROUTE: &str = "/api/v1/orders/import";

/// The first 8 KiB of each body are not taken from the budget, so that ordinary orders are accepted while large bodies use
/// up the budget.
const FREE_BYTES: usize = 8 * 1024;
/// A body that comes in pieces grows by at least 4 KiB.
const STEP_BYTES: usize = 4 * 1024;

/// The body of a request that must carry JSON, not yet parsed. No route with a body has query parameters.
#[derive(Clone, Debug)]
pub struct JsonBody(pub Bytes);

impl<S: Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request<Body>, _state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::new(Code::UnsupportedMediaType, "the body must be application/json"));
        }
        require_uncompressed(request.headers())?;
        Query::reject_all(request.uri().query())?;
        let reader = request.extensions().get::<BodyReader>().cloned();
        let reader = reader.ok_or_else(|| ApiError::internal("the route is not inside `RequestLayer`"))?;
        reader.read_body(request.into_body()).await.map(Self)
    }
}

impl<S: Sync> OptionalFromRequest<S> for JsonBody {
    type Rejection = ApiError;

    /// Returns `None` for a request without a body.
    async fn from_request(request: Request<Body>, state: &S) -> Result<Option<Self>, ApiError> {
        if request.body().is_end_stream() {
            Query::reject_all(request.uri().query())?;
            return Ok(None);
        }
        <Self as FromRequest<S>>::from_request(request, state).await.map(Some)
    }
}

/// Limits of the bodies of all requests together.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Bytes of all bodies in flight, without the first 8 KiB of each.
    pub budget_bytes: usize,
    /// How long a body can take to arrive.
    pub deadline: Duration,
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self { budget_bytes: 32 * 1024 * 1024, deadline: Duration::from_secs(5) }
    }
}

/// Reads bodies within their limits. `RequestLayer` puts it into each request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct BodyReader {
    max_bytes: usize,
    deadline: Duration,
    budget: Arc<Semaphore>,
}

impl BodyReader {
    /// Makes a reader for all routes, which share its budget.
    pub(crate) fn new(limits: BodyLimits) -> Self {
        let budget = Arc::new(Semaphore::new(limits.budget_bytes.min(Semaphore::MAX_PERMITS)));
        Self { max_bytes: MAX_BODY_BYTES, deadline: limits.deadline, budget }
    }

    /// The same reader with the limit of a route.
    pub(crate) fn for_route(&self, route: &str) -> Self {
        let max_bytes = match route {
            BATCH_ROUTE => BATCH_BODY_BYTES,
            IMPORT_ROUTE => usize::MAX,
            route if route.starts_with(AUTH_ROUTES) => AUTH_BODY_BYTES,
            _ => MAX_BODY_BYTES,
        };
        Self { max_bytes, ..self.clone() }
    }

    /// Fails with 413 if the declared length is over the limit.
    pub(crate) fn check_declared_length(&self, length: Option<u64>) -> Result<(), ApiError> {
        if length.is_some_and(|length| length > self.max_bytes as u64) {
            Err(self.too_large())
        } else {
            Ok(())
        }
    }

    async fn read_body(&self, body: Body) -> Result<Bytes, ApiError> {
        tokio::time::timeout(self.deadline, self.collect(body)).await.unwrap_or_else(|_| {
            let detail = format!("the body was not sent within {} s", self.deadline.as_secs());
            Err(closing(ApiError::new(Code::RequestTimeout, detail)))
        })
    }

    async fn collect(&self, mut body: Body) -> Result<Bytes, ApiError> {
        let mut permit = None;
        let mut bytes = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                ApiError::new(Code::MalformedRequest, "the body ended before it was complete")
                    .caused_by(error)
            })?;
            let Ok(chunk) = frame.into_data() else { continue };
            let length = bytes.len() + chunk.len();
            if length > self.max_bytes {
                return Err(self.too_large());
            }
            self.reserve(&mut permit, length)?;
            if bytes.is_empty() && body.is_end_stream() {
                // The usual body comes in one piece, which need not be copied.
                return Ok(with_optional_permit(chunk, permit));
            }
            // Copied, because a piece of one byte can keep a whole buffer of the connection alive.
            bytes.reserve(chunk.len().max(STEP_BYTES.min(self.max_bytes - bytes.len())));
            bytes.extend_from_slice(&chunk);
        }
        Ok(with_optional_permit(bytes.freeze(), permit))
    }

    /// Takes the part of the budget that a body of this length needs.
    fn reserve(&self, permit: &mut Option<OwnedSemaphorePermit>, length: usize) -> Result<(), ApiError> {
        let held = permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = length.saturating_sub(FREE_BYTES).saturating_sub(held);
        if more == 0 {
            return Ok(());
        }
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.budget).try_acquire_many_owned(more).map_err(|_| {
            let error =
                ApiError::unavailable("the bodies in flight take all the memory that is set aside for them");
            closing(error)
        })?;
        match permit {
            Some(permit) => permit.merge(more),
            None => *permit = Some(more),
        }
        Ok(())
    }

    /// The 413 that names the limit.
    fn too_large(&self) -> ApiError {
        let detail = format!("the body may have at most {} bytes", self.max_bytes);
        closing(ApiError::new(Code::PayloadTooLarge, detail))
    }
}

/// Fails with 415 if the body is compressed.
pub(crate) fn require_uncompressed(headers: &HeaderMap) -> Result<(), ApiError> {
    if is_uncompressed(headers) {
        return Ok(());
    }
    let detail = "the body must be sent as it is, without a Content-Encoding";
    let accepted = HeaderValue::from_static("identity");
    Err(ApiError::new(Code::UnsupportedMediaType, detail).with_header(header::ACCEPT_ENCODING, accepted))
}

/// Adds `Connection: close`, because the rest of the body is not read.
fn closing(error: ApiError) -> ApiError {
    error.with_header(header::CONNECTION, HeaderValue::from_static("close"))
}

/// The bytes, which release their part of the budget when the last of them is dropped.
fn with_optional_permit(bytes: Bytes, permit: Option<OwnedSemaphorePermit>) -> Bytes {
    match permit {
        Some(permit) => bytes_with_permit(bytes, permit),
        None => bytes,
    }
}

/// Whether the type is `application/json`, with any parameters: `charset=utf-8` is common, but has no meaning.
fn is_json(headers: &HeaderMap) -> bool {
    essence(headers).is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
}

/// The media type of a body without its parameters.
pub(crate) fn essence(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split_once(';').map_or(value, |(essence, _)| essence).trim())
}

/// Whether the body is not compressed: a small compressed body can hold a huge one.
fn is_uncompressed(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(budget_bytes: usize) -> BodyReader {
        BodyReader::new(BodyLimits { budget_bytes, ..BodyLimits::default() })
    }

    /// A body that comes in pieces.
    fn pieces(pieces: usize, bytes: usize) -> Body {
        let pieces = (0..pieces).map(move |_| Ok::<_, std::io::Error>(vec![b' '; bytes]));
        Body::from_stream(futures_util::stream::iter(pieces))
    }

    #[tokio::test]
    async fn bodies_take_from_the_budget_what_they_have_beyond_eight_kib() {
        let reader = reader(2000);
        let small = reader.read_body(Body::from(vec![b' '; FREE_BYTES])).await.expect("free");
        let large = reader.read_body(pieces(9, 1024)).await.expect("within the budget");
        assert_eq!((small.len(), large.len()), (8192, 9216));
        assert_eq!(reader.budget.available_permits(), 2000 - 1024);
    }

    #[tokio::test]
    async fn a_body_that_finds_the_budget_used_up_is_refused_and_small_ones_are_not() {
        let reader = reader(2048);
        let first = reader.read_body(pieces(10, 1024)).await.expect("the whole budget");
        let refused = reader.read_body(pieces(9, 1024)).await.expect_err("the budget is used up");
        assert_eq!(refused.status(), 503);
        assert!(refused.headers().contains_key(header::RETRY_AFTER));
        assert!(reader.read_body(pieces(8, 1024)).await.is_ok());
        drop(first);
        assert!(reader.read_body(pieces(9, 1024)).await.is_ok());
    }

    #[tokio::test]
    async fn the_auth_routes_take_four_kib() {
        let auth = reader(0).for_route("/api/v1/auth/login");
        assert!(auth.check_declared_length(Some(4096)).is_ok());
        assert!(auth.check_declared_length(Some(4097)).is_err());
        assert_eq!(auth.read_body(pieces(5, 1024)).await.expect_err("too large").status(), 413);
        let orders = reader(0).for_route("/api/v1/orders");
        assert!(orders.check_declared_length(Some(4097)).is_ok());
    }

    #[tokio::test]
    async fn a_body_in_pieces_of_one_byte_takes_no_more_memory_than_one_in_large_pieces() {
        let reader = reader(MAX_BODY_BYTES);
        let bytes = reader.read_body(pieces(5000, 1)).await.expect("a body");
        assert_eq!(bytes.len(), 5000);
        let bytes = bytes.try_into_mut().expect("nobody else holds them");
        assert!(bytes.capacity() <= 4 * STEP_BYTES, "{}", bytes.capacity());
    }
}
