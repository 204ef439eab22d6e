//! The API against real servers, one module per topic.

mod auth_tokens;
mod problems;
mod support;
