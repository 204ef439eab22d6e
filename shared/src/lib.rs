//! What the API and the worker share: the order and its events, the broker seam, the cache, and the plumbing of a
//! well-behaved process.

pub mod broker;
pub mod cache;
pub mod domain;
pub mod platform;
