//! The faults of one request, collected.

use crate::http::error::{ApiError, FieldError};

/// Reported at most, so that a hostile body cannot make an answer far larger than itself.
const MAX_FAULTS: usize = 100;

/// Collects the faults of one request.
#[derive(Debug, Default)]
pub struct FieldErrors(Vec<FieldError>);

impl FieldErrors {
    /// None so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one; beyond a hundred, further ones are not told.
    pub fn push(&mut self, fault: FieldError) {
        if self.0.len() < MAX_FAULTS {
            self.0.push(fault);
        }
    }

    /// Keeps the value or collects the fault.
    pub fn check<T>(&mut self, result: Result<T, FieldError>) -> Option<T> {
        result.map_err(|fault| self.push(fault)).ok()
    }

    /// Whether further ones would not be told.
    pub(super) fn are_full(&self) -> bool {
        self.0.len() >= MAX_FAULTS
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What `build` puts together from the parsed parts, or all faults as 422.
    ///
    /// `build` is called only where there is no fault, and then every part is there.
    pub fn into_result<T>(self, build: impl FnOnce() -> Option<T>) -> Result<T, ApiError> {
        if !self.0.is_empty() {
            return Err(ApiError::validation(self.0));
        }
        build().ok_or_else(|| ApiError::internal("a part is missing though no fault was found"))
    }
}
