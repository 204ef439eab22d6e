//! Doing a piece of work on a pool's connection: once, with a longer limit, or again after a failure.

use std::time::Duration;

use sqlx::AssertSqlSafe;
use tokio::time::Instant;

use super::{
    DbConnection, DbError, DbPool, WriteError,
    connection::{TEST_LIMIT, within},
    settings::MARGIN,
};

/// How often a piece of work is tried.
const ATTEMPTS: u32 = 4;
/// A read that began longer ago is not tried again: its client has an answer by now.
const READ_LIMIT: Duration = Duration::from_secs(6);
/// Between the first and the second attempt of a write; doubled each time.
const PAUSE: Duration = Duration::from_millis(50);

impl DbPool {
    /// Does a piece of work once.
    pub async fn run_once<T, F>(&self, work: impl FnOnce(DbConnection) -> F) -> Result<T, DbError>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        let (done, connection) = self.acquire().await?.lend(self.client_limit(), work).await;
        if let Some(connection) = connection {
            connection.release();
        }
        done
    }

    /// Does a piece of work that can be large: if the usual limit is too short, once more with this one. So a silent
    /// connection is noticed soon, and large work still succeeds.
    pub async fn run_with_longer_limit<T, F>(
        &self,
        limit: Duration,
        mut work: impl FnMut(DbConnection) -> F,
    ) -> Result<T, DbError>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        match self.run_once(&mut work).await {
            Err(error) if error.is_statement_timeout() => {}
            done => return done,
        }
        let mut connection = self.acquire().await?;
        set_statement_limit(&mut connection, limit).await?;
        let (done, connection) = connection.lend(limit + MARGIN, work).await;
        // The others keep the usual limit, and a relay keeps its connection, without which it would read its cursor again.
        if let Some(mut connection) = connection
            && set_statement_limit(&mut connection, self.statement_limit()).await.is_ok()
        {
            connection.release();
        }
        done
    }

    /// Reads, on another connection if the first one was broken, and again if PostgreSQL chose it as the victim of a conflict.
    pub async fn read_with_retry<T, F>(&self, mut work: impl FnMut(DbConnection) -> F) -> Result<T, DbError>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        let begun = Instant::now();
        for _ in 1..ATTEMPTS {
            match self.run_once(&mut work).await {
                Err(error)
                    if (error.is_of_connection() || error.is_victim()) && begun.elapsed() < READ_LIMIT =>
                {
                    tracing::debug!(error = %error, "a read is tried again");
                }
                done => return done.map_err(DbError::of_a_read),
            }
        }
        self.run_once(work).await.map_err(DbError::of_a_read)
    }

    /// Writes, and tries again if the outcome is unknown, so that it becomes known. Also returns whether an earlier attempt may
    /// have done the work (`in_doubt`): the write must recognise that, for example by its ids.
    pub async fn write_with_retry<T, F>(
        &self,
        mut in_doubt: bool,
        mut work: impl FnMut(DbConnection) -> F,
    ) -> Result<(T, bool), WriteError>
    where
        F: Future<Output = sqlx::Result<T>>,
    {
        let mut pause = PAUSE;
        let mut attempt = 1;
        loop {
            let error = match self.run_once(&mut work).await {
                Ok(done) => return Ok((done, in_doubt)),
                Err(error) => error,
            };
            in_doubt |= matches!(error, DbError::Lost(_));
            let again = match error {
                DbError::Refused(_) => false,
                // The attempt before may still run on the server and hold the locks.
                _ => in_doubt || error.is_of_connection() || error.is_victim(),
            };
            if !again || attempt == ATTEMPTS {
                let is_unknown = in_doubt && !matches!(error, DbError::Refused(_));
                let error = match error {
                    DbError::Unavailable(error) | DbError::Busy(error) if is_unknown => DbError::Lost(error),
                    error => error,
                };
                return Err(WriteError { error, in_doubt });
            }
            tracing::warn!(error = %error, attempt, in_doubt, "a write failed; it is done again");
            tokio::time::sleep(pause).await;
            (pause, attempt) = (pause * 2, attempt + 1);
        }
    }
}

async fn set_statement_limit(connection: &mut DbConnection, limit: Duration) -> Result<(), DbError> {
    let set = sqlx::raw_sql(AssertSqlSafe(format!("SET statement_timeout = {}", limit.as_millis())));
    within(TEST_LIMIT, set.execute(&mut **connection)).await.map(drop)
}
