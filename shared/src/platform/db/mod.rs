//! Connections to PostgreSQL: which servers, how they are pooled, what a failure means, and what is tried again.
//! No SQL of orders.
//!
//! The pool is our own, because sqlx's waits without a limit for a connection whose server is silent: when the connection is
//! returned, and when it is tested. Here a connection returns to the pool only after its work has ended well; any other
//! is closed. A connection that was idle is tested, with a deadline, before it is handed out. Every statement has a limit on
//! the server, and a slightly longer one on the client.

mod cluster;
mod connection;
mod error;
mod pool;
mod retry;
mod servers;
mod settings;

use secrecy::SecretString;

pub use self::{
    connection::{DbConnection, within},
    error::{DbError, WriteError},
    pool::DbPool,
    servers::{BadUrl, Servers},
    settings::PoolSettings,
};

/// A pool on the primary that `url` names. It connects when first used, so that a process starts and reports its health while
/// PostgreSQL is down.
pub fn pool(url: &SecretString, max_connections: u32, application: &'static str) -> Result<DbPool, BadUrl> {
    Ok(DbPool::new(Servers::primary(url)?, PoolSettings::new(application, max_connections)))
}
