//! The HTTP side: orders, accounts, health, and the relay that carries events from the outbox to the broker.

pub mod auth;
pub mod config;
pub mod error;
pub mod health;
pub mod middleware;
pub mod orders;
pub mod outbox;
pub mod router;
pub mod state;
pub mod store;
