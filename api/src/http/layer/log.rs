//! The one log line of a request: fields to query, never bodies, tokens or personal data.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use shared::domain::{order::OrderId, tenant::TenantId};
use tracing::field;

use super::Context;
use crate::http::error::ApiError;

/// A request and its response.
pub(super) struct CompletedRequest<'a> {
    pub(super) method: &'a Method,
    pub(super) route: &'a str,
    pub(super) status: StatusCode,
    pub(super) took: Duration,
    pub(super) context: &'a Context,
    pub(super) error: Option<&'a ApiError>,
}

/// Writes the line, as an error if the status is 5xx.
pub(super) fn log_request(request: &CompletedRequest<'_>) {
    // `tracing` needs the level at compile time, so there is one call for each level.
    macro_rules! write {
        ($level:ident) => {
            tracing::$level!(
                target: "http",
                method = request.method.as_str(),
                route = request.route,
                status = request.status.as_u16(),
                duration_ms = request.took.as_secs_f64() * 1000.0,
                request_id = request.context.request_id(),
                order.id = request.context.order().map(OrderId::get),
                tenant.id = request.context.caller().map(|caller| caller.tenant.get()).filter(|tenant| *tenant != TenantId::DEFAULT.get()),
                caller.tenant.id = request.context.caller().and_then(|caller| caller.home_if_away()).map(TenantId::get),
                customer_id = request.context.caller().map(|caller| caller.customer_id.get()),
                trace_id = request.context.trace.map(|trace| field::display(format!("{:032x}", trace.trace_id()))),
                error.code = request.error.map(|error| error.code().parts().1),
                error.cause = request.error.and_then(ApiError::chain),
                "request"
            )
        };
    }
    if request.status.is_server_error() {
        write!(error);
    } else {
        write!(info);
    }
}
