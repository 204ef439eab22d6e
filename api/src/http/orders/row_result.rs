//! The problem of one order among several.

use serde_json::value::{RawValue, to_raw_value};

use crate::{
    http::{
        error::{ApiError, Problem},
        layer::{Context, problem},
    },
    orders::response::OrderResponse,
};

/// Why an order was not placed.
pub(super) struct RowProblem {
    /// The status that a request with this order alone would have had.
    pub(super) status: u16,
    /// The problem document.
    pub(super) document: Box<RawValue>,
}

impl RowProblem {
    /// The problem of an error.
    pub(super) fn new(error: &ApiError, route: &str, context: &Context) -> Self {
        let problem = refuse_row(error, route, context);
        // It has no map whose keys are not strings, the only thing that can fail.
        Self { status: problem.status, document: to_raw_value(&problem).unwrap_or_default() }
    }

    /// The refusal that was sent under a key before, or stored a moment ago; `None` if the order was placed.
    pub(super) fn of_response(response: &OrderResponse) -> Result<Option<Self>, ApiError> {
        let stored = &response.stored;
        match u16::try_from(stored.status) {
            Ok(201) => Ok(None),
            Ok(status) => {
                let document = serde_json::from_slice(&stored.body).map_err(ApiError::internal)?;
                Ok(Some(Self { status, document }))
            }
            Err(error) => Err(ApiError::internal(error)),
        }
    }
}

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
