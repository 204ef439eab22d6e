//! The only SQL of the worker: functions on a connection, and what their failures mean.

pub mod cache_debts;
pub mod comparison;
pub mod dead_letters;
pub mod history;
pub mod log;
pub mod orders;

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use shared::db::{Connections, Held};
use sqlx::PgConnection;

/// How long a statement of a handler may take. Beyond it the server counts as unavailable.
const STATEMENT_LIMIT: Duration = Duration::from_secs(5);

/// Why a session has its connection.
const HERE: &str = "only the end of a session takes its connection";

/// PostgreSQL did not do what was asked, and whose fault that is.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The server, the network, the schema or its rights: not the fault of what was to be stored.
    #[error("PostgreSQL is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// No answer in time.
    #[error("PostgreSQL did not answer within {0:?}")]
    TimedOut(Duration),
    /// Something else was in the way; it may succeed next time.
    #[error("PostgreSQL could not do it this time")]
    Conflict(#[source] sqlx::Error),
    /// The data itself cannot be stored.
    #[error("PostgreSQL refused the data")]
    Refused(#[source] sqlx::Error),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            // The classes of https://www.postgresql.org/docs/current/errcodes-appendix.html
            sqlx::Error::Database(answer) => match answer.code().as_deref().and_then(|code| code.get(..2)) {
                // Data exceptions, constraints, check options, limits of the program.
                Some("21" | "22" | "23" | "44" | "54") => Self::Refused(error),
                // Connection, transaction state (a standby after a fail-over), rights, missing tables and databases,
                // resources, an operator's intervention, the system below, and what the server calls its own faults.
                Some("08" | "25" | "28" | "3D" | "3F" | "42" | "53" | "57" | "58" | "F0" | "XX") => {
                    Self::Unavailable(error)
                }
                // Deadlocks and serialisation, locks, and what an operator's own trigger may raise.
                _ => Self::Conflict(error),
            },
            sqlx::Error::Encode(_)
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::RowNotFound => Self::Refused(error),
            _ => Self::Unavailable(error),
        }
    }
}

/// A connection that is used again only after [`Session::release`].
///
/// One whose statement failed, timed out or was cancelled is closed instead: after a restart or a fail-over it is dead,
/// and on a silent network the pool would wait for its answer.
#[derive(Debug)]
pub struct Session<'a> {
    connections: &'a Connections,
    /// Here until the end.
    connection: Option<Held>,
}

impl<'a> Session<'a> {
    /// Takes a connection.
    pub async fn open(connections: &'a Connections) -> Result<Self, StoreError> {
        Ok(Self { connections, connection: Some(connections.take().await?) })
    }

    /// Gives the connection back: all its statements have succeeded.
    pub fn release(mut self) {
        if let Some(connection) = self.connection.take() {
            self.connections.keep(connection);
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.discard();
        }
    }
}

impl Deref for Session<'_> {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect(HERE)
    }
}

impl DerefMut for Session<'_> {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect(HERE)
    }
}

/// Bounds a handler's statement.
pub async fn bounded<T>(statement: impl Future<Output = sqlx::Result<T>>) -> Result<T, StoreError> {
    match tokio::time::timeout(STATEMENT_LIMIT, statement).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(StoreError::TimedOut(STATEMENT_LIMIT)),
    }
}
