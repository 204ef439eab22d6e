//! The errors of one request's fields, collected.

use crate::http::error::{ApiError, FieldError};

/// The most errors that are reported, so that a hostile body cannot make a response far larger than itself.
const MAX_ERRORS: usize = 100;

/// Codes of field errors, stable for programs.
pub mod field_code {
    /// The field is missing.
    pub const REQUIRED: &str = "required";
    /// No such field or parameter exists.
    pub const UNKNOWN_FIELD: &str = "unknown_field";
    /// The field or parameter is given more than once.
    pub const DUPLICATE_FIELD: &str = "duplicate_field";
    /// A JSON value of another type is expected.
    pub const INVALID_TYPE: &str = "invalid_type";
    /// The type is right, but no such value exists: a date, a status, an address.
    pub const INVALID_VALUE: &str = "invalid_value";
    /// Outside the bounds, which the detail names.
    pub const OUT_OF_RANGE: &str = "out_of_range";
    /// Fewer or more elements or characters than allowed.
    pub const INVALID_LENGTH: &str = "invalid_length";
    /// Another order of the customer has the reference.
    pub const REFERENCE_TAKEN: &str = "reference_taken";
    /// A password that is common or close to the address.
    pub const TOO_WEAK: &str = "too_weak";
    /// More decimals than the amount can have.
    pub const TOO_MANY_DECIMALS: &str = "too_many_decimals";
}

/// Collects the errors of one request's fields.
#[derive(Debug, Default)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// Starts without errors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an error. After the first hundred, errors are dropped.
    pub fn push(&mut self, error: FieldError) {
        if self.0.len() < MAX_ERRORS {
            self.0.push(error);
        }
    }

    /// Returns the value, or collects the error.
    pub fn check<T>(&mut self, result: Result<T, FieldError>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    /// Whether further errors would be dropped.
    pub(super) fn are_full(&self) -> bool {
        self.0.len() >= MAX_ERRORS
    }

    /// Whether no error was collected.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns what `build` makes of the parsed parts, or all errors as 422.
    ///
    /// `build` is called only if no error was collected; then every part is there.
    pub fn into_result<T>(self, build: impl FnOnce() -> Option<T>) -> Result<T, ApiError> {
        if !self.0.is_empty() {
            return Err(ApiError::validation(self.0));
        }
        build().ok_or_else(|| ApiError::internal("a field is missing although no error was collected"))
    }
}
