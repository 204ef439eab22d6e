//! The errors of orders as problems.

use axum::http::{HeaderValue, header};

use crate::{
    http::{
        error::{ApiError, Code, FieldError},
        extract::field_code,
    },
    orders::{OrderError, rules::RuleViolation},
};

impl From<OrderError> for ApiError {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::Overloaded(_) | OrderError::OrderLocked => Self::unavailable(error),
            OrderError::Rule(violation) => violation.into(),
            OrderError::KeyReused => {
                let detail = "this Idempotency-Key was used for another request; choose a new one";
                Self::new(Code::IdempotencyKeyReused, detail)
            }
            OrderError::KeyInProgress => Self::new(Code::IdempotencyInProgress, error.to_string())
                .with_header(header::RETRY_AFTER, HeaderValue::from_static("1")),
            OrderError::TenantRemoved => Self::new(Code::TenantSuspended, error.to_string()),
            OrderError::UnknownOutcome(_) => Self::unknown_outcome(error),
            OrderError::Database(error) => error.as_ref().into(),
            OrderError::InvalidId(_) | OrderError::BatchLost => Self::internal(error),
        }
    }
}

impl From<RuleViolation> for ApiError {
    fn from(violation: RuleViolation) -> Self {
        let detail = violation.to_string();
        match violation {
            RuleViolation::NotFound => Self::not_found(),
            RuleViolation::VersionMismatch { current } => {
                Self::new(Code::VersionMismatch, detail).with_fact("current_version", current)
            }
            RuleViolation::IllegalTransition { from, to } => {
                let allowed: Vec<&str> = from.moves().iter().map(|status| status.as_str()).collect();
                Self::new(Code::IllegalTransition, detail)
                    .with_fact("from", from.as_str())
                    .with_fact("to", to.as_str())
                    .with_fact("allowed", allowed)
            }
            RuleViolation::ReferenceTaken { order_id } => {
                Self::new(Code::ReferenceTaken, detail).with_fact("order_id", order_id.get())
            }
            RuleViolation::ReferencesTaken { taken } => {
                let errors = taken.iter().map(|(place, order_id)| {
                    let detail = format!("order {order_id} has this reference already");
                    FieldError::new(format!("/orders/{place}/reference"), field_code::REFERENCE_TAKEN, detail)
                });
                let error = Self::new(Code::ReferenceTaken, detail).with_field_errors(errors.collect());
                match taken.first() {
                    Some((_, order_id)) => error.with_fact("order_id", order_id.get()),
                    None => error,
                }
            }
            RuleViolation::NoNextVersion => Self::new(Code::OrderNotEditable, detail),
            RuleViolation::NotEditable { status } => {
                Self::new(Code::OrderNotEditable, detail).with_fact("order_status", status.as_str())
            }
        }
    }
}
