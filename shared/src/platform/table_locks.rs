//! Finds a session that blocks others by a lock on one of our tables.

use std::fmt;

use crate::platform::{
    db::{DbConnection, DbError, DbPool},
    schema::Right,
};

/// A lock that is held for this many seconds is reported. Our own statements hold theirs for milliseconds.
const MIN_AGE: f64 = 2.0;

/// A lock that blocks our reads or writes of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableLock {
    /// The table.
    pub table: String,
    /// PostgreSQL's name for the lock, for example `AccessExclusiveLock`.
    pub mode: String,
    /// Whether the session has the lock. If not, it waits for it, and later sessions wait behind it.
    pub granted: bool,
    /// The session that has it or waits for it; `None` for a prepared transaction.
    pub pid: Option<i32>,
    /// The application name of the session.
    pub application: String,
    /// The state of the session, for example `idle in transaction`, if our role may see it.
    pub state: Option<String>,
    /// For how many seconds, if our role may see it.
    pub seconds: Option<f64>,
}

/// The oldest lock of more than two seconds that keeps a program with these rights from using one of its tables.
pub async fn oldest_table_lock(db: &DbPool, rights: &[Right]) -> Result<Option<TableLock>, DbError> {
    let tables: Vec<String> = rights.iter().map(|(name, _)| (*name).to_owned()).collect();
    let tables = &tables;
    let query = |mut db: DbConnection| async move {
        sqlx::query_as!(
        TableLock,
        r#"SELECT class.relname::text AS "table!", lock.mode AS "mode!", lock.granted AS "granted!", lock.pid,
                  coalesce(session.application_name, '') AS "application!", session.state,
                  extract(epoch FROM clock_timestamp() - coalesce(lock.waitstart, session.xact_start))::double precision
                      AS seconds
           FROM pg_locks AS lock
           JOIN pg_class AS class ON class.oid = lock.relation AND class.relkind IN ('r', 'p')
           JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
           LEFT JOIN pg_stat_activity AS session ON session.pid = lock.pid
           WHERE lock.locktype = 'relation'
             AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND namespace.nspname = current_schema()
             -- A partition is called after its table.
             AND regexp_replace(class.relname, '_([0-9]{8}|default)$', '') = ANY ($2)
             -- The modes with which an INSERT collides.
             AND lock.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
             AND coalesce(lock.waitstart, session.xact_start, '-infinity')
                 < clock_timestamp() - make_interval(secs => $1)
           ORDER BY coalesce(lock.waitstart, session.xact_start) NULLS FIRST, lock.pid LIMIT 1"#,
        MIN_AGE,
        tables,
    )
    .fetch_optional(&mut *db)
    .await
    };
    db.read_with_retry(query).await
}

impl fmt::Display for TableLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, mode, granted, pid, application, state, seconds } = self;
        match pid {
            Some(pid) => write!(f, "the session with pid {pid} ({application:?}")?,
            None => write!(f, "a prepared transaction (see pg_prepared_xacts")?,
        }
        if let Some(state) = state {
            write!(f, ", {state}")?;
        }
        let verb = if *granted { "holds" } else { "waits for" };
        write!(f, ") {verb} {mode} on the table {table}")?;
        match seconds {
            Some(seconds) => write!(f, " for {seconds:.0} s"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::TableLock;

    #[test]
    fn a_lock_is_described_by_its_session_its_mode_and_its_table() {
        let lock = TableLock {
            table: "order_history".to_owned(),
            mode: "AccessExclusiveLock".to_owned(),
            granted: true,
            pid: Some(4711),
            application: "psql".to_owned(),
            state: Some("idle in transaction".to_owned()),
            seconds: Some(41.6),
        };
        let text = r#"the session with pid 4711 ("psql", idle in transaction) holds AccessExclusiveLock on the table order_history for 42 s"#;
        assert_eq!(lock.to_string(), text);
        let prepared = TableLock { pid: None, state: None, seconds: None, granted: false, ..lock };
        let text = "a prepared transaction (see pg_prepared_xacts) waits for AccessExclusiveLock on the table order_history";
        assert_eq!(prepared.to_string(), text);
    }
}
