//! The worker against real servers.

mod cache_debts;
mod cache_handler;
mod cache_races;
mod commands_replay;
mod config;
mod consumer_faults;
mod consumer_outages;
mod consumer_stop;
mod dead_letters;
mod health;
mod history;
mod postgres_failures;
mod redis_outages;
mod redrive;
mod support;
mod tenant_removal;
mod tenants;
mod verify;
