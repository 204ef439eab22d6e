//! Health of the API and of the services that it depends on, and the operators' port.
//!
//! What health measures is owned by `orders` and `outbox`; here it is probed and reported.

mod database;
mod health_log;
pub mod monitor;
pub mod operators;
mod probe;
mod recent_value;
pub mod report;
mod rights;
pub mod routes;

pub use rights::RIGHTS;
