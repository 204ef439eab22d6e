//! The testbed against real servers.

mod brokers;
mod databases;
#[cfg(target_os = "linux")]
mod listening;
mod processes;
mod proxy;
mod redis_groups;
mod servers;
