//! Every answer that is no success is written as a problem document (RFC 9457), whoever made it.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};

use super::Context;
use crate::http::error::{ApiError, Code};

/// The media type of problem documents.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The problem document of an error as it is answered to one request.
pub fn document(error: &ApiError, instance: &str, request_id: &str) -> Vec<u8> {
    let mut problem = error.problem();
    instance.clone_into(&mut problem.instance);
    request_id.clone_into(&mut problem.request_id);
    serde_json::to_vec(&problem).unwrap_or_default()
}

/// Writes the body of a failed answer, and gives back the error for the log.
pub(super) fn render(response: &mut Response, instance: &str, context: &Context) -> Option<Arc<ApiError>> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    let error = response.extensions_mut().remove::<Arc<ApiError>>();
    // A report of health is an answer of its own kind, and a stored problem stays as it was.
    let content_type = response.headers().get(header::CONTENT_TYPE);
    if error.is_none() && content_type.is_some_and(|kind| kind == PROBLEM_JSON || kind == "application/json")
    {
        return None;
    }
    let error = error.unwrap_or_else(|| Arc::new(described(status)));
    let body = document(&error, instance, context.request_id());
    *response.status_mut() = error.status();
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM_JSON);
    *response.body_mut() = Body::from(body);
    Some(error)
}

/// A bare status, as the router or an extractor of the framework answers it, in our words.
fn described(status: StatusCode) -> ApiError {
    match status {
        StatusCode::NOT_FOUND => ApiError::not_found(),
        // The framework writes `Allow` after this, so its methods cannot be named here.
        StatusCode::METHOD_NOT_ALLOWED => ApiError::new(
            Code::MethodNotAllowed,
            "this resource does not have this method; the header `Allow` names those it has",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::new(Code::PayloadTooLarge, "the body is too large"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            ApiError::new(Code::UnsupportedMediaType, "the body must be application/json")
        }
        status if status.is_client_error() => {
            ApiError::new(Code::MalformedRequest, "the request cannot be read")
        }
        status => ApiError::internal(format!("a bare {status}")),
    }
}
