//! The one line a request leaves in the log: fields to query, never bodies, tokens or personal data.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use shared::domain::order::OrderId;
use tracing::field;

use super::Context;
use crate::http::error::ApiError;

/// A request that has been answered.
pub(super) struct Answered<'a> {
    pub(super) method: &'a Method,
    pub(super) route: &'a str,
    pub(super) status: StatusCode,
    pub(super) took: Duration,
    pub(super) context: &'a Context,
    pub(super) error: Option<&'a ApiError>,
}

/// Writes the line: as an error where the fault is ours.
pub(super) fn line(answered: &Answered<'_>) {
    // The level of an event is part of its static description, hence one call for each.
    macro_rules! write {
        ($level:ident) => {
            tracing::$level!(
                target: "http",
                method = answered.method.as_str(),
                route = answered.route,
                status = answered.status.as_u16(),
                duration_ms = answered.took.as_secs_f64() * 1000.0,
                request_id = answered.context.request_id(),
                order.id = answered.context.order().map(OrderId::get),
                customer_id = answered.context.caller().map(|caller| caller.customer_id.get()),
                trace_id = answered.context.trace.map(|trace| field::display(format!("{:032x}", trace.trace_id()))),
                error.code = answered.error.map(|error| error.code().parts().1),
                error.cause = answered.error.and_then(ApiError::chain),
                "request"
            )
        };
    }
    if answered.status.is_server_error() {
        write!(error);
    } else {
        write!(info);
    }
}
