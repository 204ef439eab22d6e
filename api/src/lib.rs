//! The HTTP side: orders, accounts, health, and the relay that carries events from the outbox to the broker.

pub mod app;
pub mod auth;
pub mod broker;
pub mod config;
pub mod error;
pub mod extract;
pub mod health;
mod held_bytes;
pub mod limits;
pub mod middleware;
pub mod migrate;
pub mod openapi;
pub mod orders;
pub mod outbox;
pub mod router;
pub mod server;
pub mod state;
pub mod store;
