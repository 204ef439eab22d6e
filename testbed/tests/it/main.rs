//! The testbed against real servers.

mod brokers;
mod databases;
mod processes;
mod proxy;
mod servers;
