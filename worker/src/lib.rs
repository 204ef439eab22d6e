//! The worker: takes events from the broker, keeps the history complete and the cache right, and gives operators
//! what they need when something is not (dead letters, replay, verification).

pub mod cache_debts;
pub mod cli;
pub mod commands;
pub mod config;
pub mod consumer;
pub mod dead_letters;
pub mod errors;
pub mod handlers;
pub mod health;
pub mod rights;
pub mod run;
pub mod store;
