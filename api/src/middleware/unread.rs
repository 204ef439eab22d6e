//! What is answered to bytes that cannot be read as a request.

use axum::http::{HeaderMap, StatusCode, header};

use super::{
    context::{self, X_REQUEST_ID},
    headers,
    problem::{self, PROBLEM_JSON},
};
use crate::error::ApiError;

/// Status, headers and body of a refusal, with an id under which the log has it.
pub(crate) fn unread(error: &ApiError) -> (StatusCode, HeaderMap, Vec<u8>) {
    let request_id = context::request_id(&HeaderMap::new());
    let id = request_id.to_str().unwrap_or_default();
    let (status, code, _) = error.code().parts();
    tracing::info!(target: "http", status = status.as_u16(), request_id = id, error.code = code, "no request");
    // Which path was meant is not known.
    let body = problem::document(error, "/", id);
    let mut answer = HeaderMap::new();
    headers::secure(&mut answer);
    answer.insert(header::CONTENT_TYPE, PROBLEM_JSON);
    answer.insert(X_REQUEST_ID, request_id);
    (status, answer, body)
}
