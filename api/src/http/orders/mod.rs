//! The routes of orders: reading their requests, writing their responses, describing both.
//!
//! What an order can do, and how it is written, is in `crate::orders`.

mod body;
pub mod conditional;
pub mod create;
pub mod delete;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod filter;
pub mod get;
pub mod history;
pub mod idempotency;
pub mod list;
pub mod openapi;
pub mod page_cursor;
pub mod path;
mod response;
pub mod update;
pub mod write_request;
