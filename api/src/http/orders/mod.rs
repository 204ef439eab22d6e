//! The routes of orders: how their requests are read, and how their answers are written.
//!
//! What an order may do, and how it is stored, is decided in `crate::orders`.

mod body;
pub mod conditional;
pub mod create;
pub mod delete;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod get;
pub mod history;
pub mod idempotency;
pub mod list;
mod openapi;
pub mod page_cursor;
pub mod response;
pub mod update;
pub mod write_request;
