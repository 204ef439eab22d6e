//! The testbed against real servers.

mod databases;
mod proxy;
