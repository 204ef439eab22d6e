//! Why a handler failed.

use std::{error::Error, sync::Arc};

use shared::platform::db::DbError;

/// Why a handler failed. The variant decides what follows.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// A dependency is down, which is no event's fault: the batch is held and tried again, and no attempt is counted.
    #[error("a dependency is unavailable")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// It failed and can succeed if it is tried again.
    #[error("the handler failed; the event is tried again")]
    Transient(#[source] Box<dyn Error + Send + Sync>),
    /// It can never succeed.
    #[error("the handler refused the event")]
    Permanent(#[source] Box<dyn Error + Send + Sync>),
}

impl From<DbError> for HandlerError {
    fn from(error: DbError) -> Self {
        Arc::new(error).into()
    }
}

/// For a failure that several batches share.
impl From<Arc<DbError>> for HandlerError {
    fn from(error: Arc<DbError>) -> Self {
        let cause = match error.as_ref() {
            // Also a deadlock, which can hit every attempt: it is no event's fault.
            DbError::Unavailable(_) | DbError::Lost(_) | DbError::Busy(_) => Cause::Server,
            DbError::Refused(_) => classify_code(error.code().as_deref()),
        };
        match cause {
            Cause::Server => Self::Unavailable(error.into()),
            Cause::Transient => Self::Transient(error.into()),
            Cause::Data => Self::Permanent(error.into()),
        }
    }
}

/// What caused PostgreSQL to refuse a statement.
enum Cause {
    Server,
    Transient,
    Data,
}

/// Classifies a code by the classes of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn classify_code(code: Option<&str>) -> Cause {
    match code.and_then(|code| code.get(..2)) {
        // Data exceptions, constraints, check options, limits of the program; or a value that cannot be encoded.
        Some("21" | "22" | "23" | "44" | "54") | None => Cause::Data,
        // The state of the transaction, rights, missing tables and databases, an operator's intervention, and internal errors.
        Some("25" | "28" | "3D" | "3F" | "42" | "57" | "F0" | "XX") => Cause::Server,
        // For example what an operator's own trigger raises.
        Some(_) => Cause::Transient,
    }
}
