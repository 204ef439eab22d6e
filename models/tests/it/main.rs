//! Explores the models: the built designs break no property, and each wrong one breaks the one that it is known to break.

mod cache;
mod cache_wrong_designs;
mod log;
mod log_wrong_designs;
mod support;
