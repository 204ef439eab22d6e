//! Responses of orders over HTTP.

use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::idempotency::IDEMPOTENT_REPLAYED;
use crate::{
    db::StoredResponse,
    http::{error::ApiError, layer::problem},
    orders::response::{OrderResponse, RenderRefusal},
};

impl IntoResponse for OrderResponse {
    fn into_response(self) -> Response {
        let Self { stored: StoredResponse { status, headers, body }, replayed } = self;
        let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        let mut response = (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), body).into_response();
        // axum has guessed a type from that of the body.
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

/// Renders refusals as the problem documents of one request.
pub(super) fn render_refusals(path: String, request_id: String) -> RenderRefusal {
    Box::new(move |violation| {
        let error = ApiError::from(violation);
        StoredResponse {
            status: i16::try_from(error.status().as_u16()).unwrap_or(500),
            headers: vec![("content-type".into(), "application/problem+json".to_owned())],
            body: problem::document(&error, &path, &request_id).into(),
        }
    })
}
