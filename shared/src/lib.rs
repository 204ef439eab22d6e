//! What the API and the worker share: the order and its rules, the event envelope, the cache, the broker
//! seam, and the plumbing of a well-behaved process (configuration, telemetry, clock, shutdown).

mod bounded_listener;
pub mod broker;
pub mod cache;
pub mod clock;
pub mod config;
mod cursor;
pub mod db;
pub mod digits;
pub mod event;
pub mod lanes;
pub mod order;
pub mod redis;
pub mod runtime;
pub mod schema;
pub mod service;
pub mod shutdown;
pub mod table_locks;
pub mod telemetry;
pub mod text;
pub mod timestamp;
pub mod written;
