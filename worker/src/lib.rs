//! The worker: consumes events from the broker, keeps the history complete and the cache correct, and has the commands for
//! operators (dead letters, replay, verification).

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
pub mod tenant_removal;
