//! The routes of orders.

/// The order cache, its breaker, and the writer that groups commits.
pub struct Orders;
