//! Everything that knows HTTP: the server, the routes, and how requests are read and responses written.
//!
//! What an order may do, and what is stored, is decided in `orders`, `auth` and `db`, which know nothing of HTTP.

pub mod auth;
mod bytes_with_permit;
pub mod error;
pub mod events;
pub mod extract;
pub mod health;
pub mod layer;
pub mod openapi;
pub mod orders;
pub mod router;
pub mod server;
pub mod tenants;
