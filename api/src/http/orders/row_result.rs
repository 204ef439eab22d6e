//! The problem of one order among several.

use crate::http::{
    error::{ApiError, Problem},
    layer::{Context, problem},
};

/// The problem of a row. The cause of a failure that is not the row's own is logged here, because the response to the request
/// is a success.
pub(super) fn refuse_row(error: &ApiError, route: &str, context: &Context) -> Problem {
    let request_id = context.request_id();
    if error.status().is_server_error() {
        let cause = error.chain();
        tracing::error!(request_id, route, error.cause = cause, "an order of several could not be placed");
    }
    problem::complete(error, route, request_id)
}
