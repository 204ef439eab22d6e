//! What every program of this system needs: settings, connections, telemetry, shutdown.
//!
//! Nothing here knows orders or events.

pub mod backoff;
pub mod batching;
mod bounded_listener;
pub mod config;
pub mod db;
pub mod page_size;
pub mod redis;
pub mod runtime;
pub mod schema;
pub mod service;
pub mod shutdown;
pub mod table_locks;
pub mod telemetry;
pub mod text;
