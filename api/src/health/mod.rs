//! Health of the API and of what it depends on.

/// What the health routes report.
pub struct Health;
