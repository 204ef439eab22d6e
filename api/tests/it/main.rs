//! The API against real servers, one module per topic.

mod auth_tokens;
mod orders_create;
mod orders_support;
mod problems;
mod support;
