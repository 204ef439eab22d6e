//! What a failure of PostgreSQL means for a piece of work.

use std::io;

use sqlx::{
    error::DatabaseError,
    postgres::{PgDatabaseError, PgSeverity},
};

/// Why a piece of work on PostgreSQL failed.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// PostgreSQL cannot be reached, or cannot do this kind of work now. Nothing was changed.
    #[error("PostgreSQL is unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// The connection broke, or was silent for too long, after the work was sent: it may have been done.
    #[error("the connection to PostgreSQL was lost: {0}")]
    Lost(#[source] sqlx::Error),
    /// A lock, a deadlock, or so much load that the time limit was reached. Nothing was changed, and the same work may succeed
    /// later.
    #[error("PostgreSQL could not do it in time: {0}")]
    Busy(#[source] sqlx::Error),
    /// The statement or its data was refused. Nothing was changed.
    #[error("PostgreSQL refused: {0}")]
    Refused(#[source] sqlx::Error),
}

/// Why a write that was tried several times failed.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct WriteError {
    /// The error of the last attempt. [`DbError::Lost`] if the outcome is unknown.
    #[source]
    pub error: DbError,
    /// Whether an earlier attempt may have done the work.
    pub in_doubt: bool,
}

impl From<sqlx::Error> for DbError {
    /// The codes are those of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
    fn from(error: sqlx::Error) -> Self {
        let answer = match &error {
            sqlx::Error::Database(answer) => answer,
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed => return Self::Lost(error),
            sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Configuration(_) => {
                return Self::Unavailable(error);
            }
            _ => return Self::Refused(error),
        };
        match answer.code().as_deref().unwrap_or_default() {
            _ if makes_connection_useless(&error) => Self::Unavailable(error),
            // Deadlock, serialisation failure, lock time-out, statement time-out or cancelled by an operator.
            "40P01" | "40001" | "55P03" | "57014" => Self::Busy(error),
            // The server ends the connection, perhaps after a commit and before it could report it.
            code if code.starts_with("08") || code.starts_with("57P") => Self::Lost(error),
            _ if is_fatal(answer.as_ref()) => Self::Lost(error),
            // Out of connections, memory or disk; a failure of the system below.
            code if code.starts_with("53") || code.starts_with("58") => Self::Unavailable(error),
            _ => Self::Refused(error),
        }
    }
}

impl DbError {
    /// The time limit was reached without an answer.
    pub(super) fn silent() -> Self {
        Self::Lost(sqlx::Error::Io(io::ErrorKind::TimedOut.into()))
    }

    /// The server did the work, but had been replaced by then.
    pub(super) fn replaced() -> Self {
        Self::Lost(sqlx::Error::Io(io::Error::other("the server was replaced by one that was promoted")))
    }

    /// The error of PostgreSQL or of the connection.
    pub const fn cause(&self) -> &sqlx::Error {
        match self {
            Self::Unavailable(error) | Self::Lost(error) | Self::Busy(error) | Self::Refused(error) => error,
        }
    }

    /// [`Self::cause`], taken out.
    pub fn into_cause(self) -> sqlx::Error {
        match self {
            Self::Unavailable(error) | Self::Lost(error) | Self::Busy(error) | Self::Refused(error) => error,
        }
    }

    /// The five characters of PostgreSQL's error code, if it answered.
    pub fn code(&self) -> Option<String> {
        self.cause().as_database_error().and_then(DatabaseError::code).map(Into::into)
    }

    /// Whether the constraint of this name refused the row.
    pub fn violates(&self, constraint: &str) -> bool {
        self.cause().as_database_error().and_then(DatabaseError::constraint) == Some(constraint)
    }

    /// Whether a lock on a row or key of this table was not available in time. The error for a lock on a whole table names none.
    pub fn waited_for_row_of(&self, table: &str) -> bool {
        let Self::Busy(error) = self else { return false };
        let answer =
            error.as_database_error().and_then(|answer| answer.try_downcast_ref::<PgDatabaseError>());
        answer.is_some_and(|answer| {
            answer.code() == "55P03" && answer.r#where().is_some_and(|context| context.contains(table))
        })
    }

    /// Whether the server ended the statement at its time limit, so that a longer limit may help.
    pub(super) fn is_statement_timeout(&self) -> bool {
        self.code().as_deref() == Some("57014")
    }

    /// Whether another connection may succeed at once, because only this one was unusable.
    pub(super) fn is_of_connection(&self) -> bool {
        match self {
            Self::Lost(_) => true,
            Self::Unavailable(error) => makes_connection_useless(error),
            Self::Busy(_) | Self::Refused(_) => false,
        }
    }

    /// Whether the same work may succeed at once: PostgreSQL chose it as the victim of a conflict.
    pub(super) fn is_victim(&self) -> bool {
        matches!(self.code().as_deref(), Some("40P01" | "40001"))
    }

    /// The error for work that changes nothing: its outcome is not in doubt.
    pub(super) fn of_a_read(self) -> Self {
        match self {
            Self::Lost(error) => Self::Unavailable(error),
            error => error,
        }
    }
}

/// Whether the connection is unusable although it answers: its server is read-only, or its prepared statements are gone or out
/// of date. The statement did nothing.
fn makes_connection_useless(error: &sqlx::Error) -> bool {
    let Some(answer) = error.as_database_error() else { return false };
    match answer.code().as_deref() {
        // Read-only: a standby, or a primary that was made read-only before a switch-over. Or the prepared statements are those of
        // another session: a pooler shares the connection.
        Some("25006" | "26000" | "42P05") => true,
        // A migration has changed what a prepared statement returns.
        Some("0A000") => answer.message().contains("cached plan"),
        _ => false,
    }
}

fn is_fatal(answer: &dyn DatabaseError) -> bool {
    answer
        .try_downcast_ref::<PgDatabaseError>()
        .is_some_and(|answer| matches!(answer.severity(), PgSeverity::Fatal | PgSeverity::Panic))
}
