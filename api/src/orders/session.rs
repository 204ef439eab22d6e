//! One piece of work on a connection of a pool, bounded in time, and what its failure means.

use std::{
    collections::HashMap,
    io,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use shared::{
    db::{Connections, Held},
    order::{Order, OrderId},
};
use sqlx::{PgConnection, error::DatabaseError};

use crate::{
    error::{ApiError, Code, is_outage},
    store,
};

/// How long a piece of work may take. Shorter than a request, so that its end is still told to the client.
const DEADLINE: Duration = Duration::from_millis(4500);
/// How often work whose outcome is unknown is done again.
const ATTEMPTS: u32 = 4;
/// How long the first of these waits; doubled each time.
const PAUSE: Duration = Duration::from_millis(50);

/// Why a piece of work failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// PostgreSQL is out of reach. Nothing was changed.
    Unavailable(sqlx::Error),
    /// The connection broke, or was silent for too long, after the work was sent: it may have been done.
    InDoubt(sqlx::Error),
    /// Something of the work itself was refused. Nothing was changed.
    Refused(sqlx::Error),
}

/// A connection lent to a piece of work. It goes back where it came from, also when the work is given up.
///
/// Lent by value, because the compiler cannot tell yet that work on a borrowed connection may move between threads.
pub(super) struct Lent {
    connection: Option<Held>,
    home: Arc<Mutex<Option<Held>>>,
}

impl Deref for Lent {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("it is here until it is dropped")
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("it is here until it is dropped")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.home.lock().unwrap_or_else(PoisonError::into_inner) = self.connection.take();
    }
}

/// Does a piece of work on a connection.
pub(super) async fn run<T, F>(db: &Connections, work: impl FnOnce(Lent) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    let home: Arc<Mutex<Option<Held>>> = Arc::default();
    let back = || home.lock().unwrap_or_else(PoisonError::into_inner).take();
    let connection = Some(db.take().await.map_err(Failure::Unavailable)?);
    let lent = Lent { connection, home: Arc::clone(&home) };
    let error = match tokio::time::timeout(DEADLINE, work(lent)).await {
        Ok(Ok(done)) => {
            if let Some(connection) = back() {
                db.keep(connection);
            }
            return Ok(done);
        }
        Ok(Err(error)) => error,
        Err(_) => sqlx::Error::Io(io::ErrorKind::TimedOut.into()),
    };
    let failure = classify(error);
    if matches!(failure, Failure::InDoubt(_))
        && let Some(connection) = back()
    {
        connection.discard();
    }
    Err(failure)
}

/// Does work that may be repeated, and repeats it where its outcome is unknown, because then somebody has to find out.
///
/// Also says whether it was repeated. A write recognises by its ids what an earlier attempt has done.
pub(super) async fn run_again<T, F>(
    db: &Connections,
    mut in_doubt: bool,
    mut work: impl FnMut(Lent) -> F,
) -> Result<(T, bool), GaveUp>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    let mut pause = PAUSE;
    for attempt in 1.. {
        let cause = match run(db, &mut work).await {
            Ok(done) => return Ok((done, in_doubt)),
            Err(Failure::Refused(error)) => return Err(GaveUp::Refused { error, in_doubt }),
            Err(Failure::Unavailable(error)) if !in_doubt && !is_broken(&error) => {
                return Err(GaveUp::Unavailable(error.to_string()));
            }
            Err(Failure::Unavailable(error)) => error,
            Err(Failure::InDoubt(error)) => {
                in_doubt = true;
                error
            }
        };
        if attempt == ATTEMPTS {
            let cause = cause.to_string();
            return Err(if in_doubt { GaveUp::Unknown(cause) } else { GaveUp::Unavailable(cause) });
        }
        tracing::warn!(error = %cause, attempt, in_doubt, "a write was cut off; it is done again");
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    Err(GaveUp::Unknown("no attempt was made".to_owned()))
}

/// Reads, on another connection where the first was broken.
pub(super) async fn read<T, F>(db: &Connections, mut work: impl FnMut(Lent) -> F) -> Result<T, GaveUp>
where
    F: Future<Output = Result<T, sqlx::Error>>,
{
    let mut last = None;
    // A server that was restarted leaves as many broken connections as the pool has.
    for _ in 0..db.pool().options().get_max_connections() {
        match run(db, &mut work).await {
            Ok(done) => return Ok(done),
            Err(Failure::Unavailable(error) | Failure::InDoubt(error)) if is_broken(&error) => {
                last = Some(error);
            }
            Err(Failure::Unavailable(error) | Failure::InDoubt(error)) => {
                return Err(GaveUp::Unavailable(error.to_string()));
            }
            Err(Failure::Refused(error)) => return Err(GaveUp::Refused { error, in_doubt: false }),
        }
    }
    let last = last.map(|error| error.to_string()).unwrap_or_default();
    Err(GaveUp::Unavailable(format!("every connection is broken: {last}")))
}

/// The orders with these ids that exist.
pub(super) async fn orders(db: &Connections, ids: &[OrderId]) -> Result<HashMap<OrderId, Order>, GaveUp> {
    let orders = read(db, |mut db| async move { store::orders(&mut db, ids).await }).await?;
    Ok(orders.into_iter().map(|order| (order.id, order)).collect())
}

/// Why work was given up.
#[derive(Debug, thiserror::Error)]
pub(super) enum GaveUp {
    /// PostgreSQL is out of reach, and nothing was changed.
    #[error("PostgreSQL is out of reach: {0}")]
    Unavailable(String),
    /// PostgreSQL went out of reach in the middle: whether anything was changed is not known.
    #[error("PostgreSQL went out of reach: {0}")]
    Unknown(String),
    /// The work itself was refused.
    #[error("PostgreSQL refused: {error}")]
    Refused {
        /// Why.
        error: sqlx::Error,
        /// Whether an earlier attempt may have done it.
        in_doubt: bool,
    },
}

impl GaveUp {
    /// What the client is told.
    pub(super) fn to_api_error(&self) -> ApiError {
        match self {
            Self::Unavailable(_) => ApiError::unavailable(self.to_string()),
            Self::Unknown(_) => {
                let detail = "the outcome is not known; repeating the request with its Idempotency-Key tells";
                ApiError::new(Code::Timeout, detail).caused_by(self.to_string())
            }
            Self::Refused { .. } => ApiError::internal(self.to_string()),
        }
    }
}

fn classify(error: sqlx::Error) -> Failure {
    match &error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            Failure::InDoubt(error)
        }
        sqlx::Error::Database(database) => match database.code().as_deref() {
            // The server ends the connection, perhaps after the commit and before it could tell.
            Some(code) if code.starts_with("08") || code.starts_with("57P") => Failure::InDoubt(error),
            // A standby: it will be promoted, or the address will point elsewhere.
            Some("25006") => Failure::Unavailable(error),
            _ if is_outage(&error) => Failure::Unavailable(error),
            _ => Failure::Refused(error),
        },
        _ => Failure::Refused(error),
    }
}

/// Whether a connection broke, rather than that none was to be had: another one may do.
fn is_broken(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Io(error) if error.kind() != io::ErrorKind::TimedOut)
}

/// Whether the work was refused because a lock was not to be had in time.
pub(super) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).is_some_and(|code| code == "55P03")
}

/// Whether the work was refused because this very row is there already.
pub(super) fn violates(error: &sqlx::Error, constraint: &str) -> bool {
    error.as_database_error().and_then(|error| error.constraint()) == Some(constraint)
}

impl Failure {
    /// What the client is told of work that was done once.
    pub(super) fn into_api_error(self) -> ApiError {
        match self {
            // A lock that could not be had in time: somebody else holds it for long.
            Self::Refused(error) if is_lock_timeout(&error) => ApiError::unavailable(error),
            Self::Unavailable(error) => ApiError::unavailable(error),
            Self::InDoubt(error) => GaveUp::Unknown(error.to_string()).to_api_error(),
            Self::Refused(error) => ApiError::internal(error),
        }
    }
}
