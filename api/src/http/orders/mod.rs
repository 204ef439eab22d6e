//! The routes of orders: reading their requests, writing their responses, describing both.
//!
//! What an order can do, and how it is written, is in `crate::orders`.

pub mod batch;
mod body;
pub mod bulk_limits;
pub mod conditional;
pub mod create;
mod csv;
pub mod delete;
mod error;
pub mod export;
mod filter;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod get;
pub mod history;
pub mod idempotency;
pub mod import;
pub mod list;
pub mod openapi;
mod own_fields;
pub mod page_cursor;
pub mod path;
mod response;
mod row_result;
pub mod update;
pub mod write_request;
