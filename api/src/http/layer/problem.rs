//! Problem documents (RFC 9457): the body of every response with a status of 4xx or 5xx.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};

use super::Context;
use crate::http::error::{ApiError, Code, Problem};

/// The media type of problem documents.
pub const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");

/// The problem document of an error in response to one request.
pub fn document(error: &ApiError, instance: &str, request_id: &str) -> Vec<u8> {
    serde_json::to_vec(&complete(error, instance, request_id)).unwrap_or_default()
}

/// The problem of an error in response to one request.
pub fn complete(error: &ApiError, instance: &str, request_id: &str) -> Problem {
    let mut problem = error.problem();
    instance.clone_into(&mut problem.instance);
    request_id.clone_into(&mut problem.request_id);
    problem
}

/// Writes the body of a failed response, and returns the error for the log.
pub(super) fn write_problem(
    response: &mut Response,
    instance: &str,
    context: &Context,
) -> Option<Arc<ApiError>> {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return None;
    }
    let error = response.extensions_mut().remove::<Arc<ApiError>>();
    // A health report is not a problem, and a stored problem stays as it is.
    let content_type = response.headers().get(header::CONTENT_TYPE);
    if error.is_none() && content_type.is_some_and(|kind| kind == PROBLEM_JSON || kind == "application/json")
    {
        return None;
    }
    let error = error.unwrap_or_else(|| Arc::new(error_of_status(status)));
    let body = document(&error, instance, context.request_id());
    *response.status_mut() = error.status();
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.headers_mut().insert(header::CONTENT_TYPE, PROBLEM_JSON);
    *response.body_mut() = Body::from(body);
    Some(error)
}

/// The error of a response without a body, which axum's router or one of its extractors has made.
fn error_of_status(status: StatusCode) -> ApiError {
    match status {
        StatusCode::NOT_FOUND => ApiError::not_found(),
        // axum adds `Allow` after this, so its methods are not known here.
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
