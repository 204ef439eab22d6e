//! The HTTP side: orders, accounts, health, and the relay that carries events from the outbox to the broker.

pub mod app;
pub mod auth;
pub mod broker;
pub mod config;
pub mod db;
pub mod http;
pub mod limits;
pub mod migrate;
pub mod orders;
pub mod outbox;
pub mod state;
