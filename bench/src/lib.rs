//! How fast the system is, and how it behaves under load: what `cargo xtask bench`, `load` and `stress` run, built in
//! release so that the measuring takes little from the measured.

pub mod arguments;
pub mod bare;
pub mod bench;
pub mod broker;
pub mod cases;
pub mod cli;
pub mod cpu;
pub mod dataset;
pub mod feed_client;
pub mod load;
pub mod pgbench;
pub mod plan;
pub mod programs;
pub mod progress;
pub mod redis_target;
pub mod report;
pub mod scale;
pub mod servers;
pub mod stats;
pub mod streams;
pub mod stress;
pub mod system;
pub mod tokens;
pub mod wait;
pub mod wrk;
