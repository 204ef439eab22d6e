//! The bytes of a JSON body: the right content type, and not too many.

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::{HeaderMap, HeaderValue, header},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::Query;
use crate::error::{ApiError, Code};

/// The largest body that is read: 256 KiB.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// The body of a request that must carry JSON, not yet parsed. No route with a body has parameters in its query.
#[derive(Clone, Debug)]
pub struct JsonBody(pub Bytes);

impl<S: Sync> FromRequest<S> for JsonBody {
    type Rejection = ApiError;

    async fn from_request(request: Request<Body>, _state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::new(Code::UnsupportedMediaType, "the body must be application/json"));
        }
        if !is_plain(request.headers()) {
            let detail = "the body must be sent as it is, without a Content-Encoding";
            let accepted = HeaderValue::from_static("identity");
            return Err(ApiError::new(Code::UnsupportedMediaType, detail)
                .with_header(header::ACCEPT_ENCODING, accepted));
        }
        Query::none(request.uri().query())?;
        let limited = Limited::new(request.into_body(), MAX_BODY_BYTES);
        match limited.collect().await {
            Ok(body) => Ok(Self(body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
            Err(error) => Err(ApiError::new(Code::MalformedRequest, "the body ended before it was complete")
                .caused_by(error)),
        }
    }
}

/// 413 with the limit.
pub(crate) fn too_large() -> ApiError {
    ApiError::new(Code::PayloadTooLarge, format!("the body may have at most {MAX_BODY_BYTES} bytes"))
}

/// `application/json`, whatever its parameters (`charset=utf-8` is common, though it means nothing).
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let essence = value.split_once(';').map_or(value, |(essence, _)| essence);
    essence.trim().eq_ignore_ascii_case("application/json")
}

/// Not compressed: a small body can hold a huge one.
fn is_plain(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}
