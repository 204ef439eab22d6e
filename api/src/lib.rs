//! The API: orders, accounts and health over HTTP, and the relay that publishes the events of the outbox.

pub mod app;
pub mod auth;
pub mod broker;
pub mod config;
pub mod db;
pub mod feed;
pub mod http;
pub mod limits;
pub mod migrate;
pub mod orders;
pub mod outbox;
pub mod state;
pub mod tenants;
