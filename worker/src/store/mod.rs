//! The only SQL of the worker: functions on a connection.

pub mod cache_debts;
pub mod comparison;
pub mod dead_letters;
pub mod history;
pub mod log;
pub mod orders;
