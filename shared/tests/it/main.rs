//! What is shared, against real servers.

mod cache;
mod cache_eviction;
mod db;
mod redis;
mod redis_failover;
