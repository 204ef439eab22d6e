//! Connections to PostgreSQL: which servers, how they are pooled, and what a failure means.
//!
//! The pool is our own, because sqlx's waits without a limit for a connection whose server is silent: when it is
//! returned, and when it is tested. Here a connection goes back to the pool only after its work has ended well; any other
//! is closed. A connection that has rested is tested, with a deadline, before it is handed out. Every
//! statement has a limit on the server, and a slightly longer one on the client.

mod error;
mod pool;
mod servers;

use secrecy::SecretString;

pub use self::{
    error::{DbError, WriteError},
    pool::{DbConnection, DbPool, PoolSettings, within},
    servers::{BadUrl, Servers},
};

/// A pool on the primary that `url` names. It connects when first used, so that a process starts, and says so, while PostgreSQL
/// is down.
pub fn pool(url: &SecretString, max_connections: u32, application: &'static str) -> Result<DbPool, BadUrl> {
    Ok(DbPool::new(Servers::primary(url)?, PoolSettings::new(application, max_connections)))
}
