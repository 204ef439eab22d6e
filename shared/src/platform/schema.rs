//! Whether a database has what this build needs: the migrations, and the rights of the role.

use std::{
    fmt::Write as _,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::migrate::Migrator;

use crate::platform::db::{DbConnection, DbError, DbPool};

/// The schema, built into each program.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// How long a successful check is valid.
const VALID: Duration = Duration::from_mins(1);

/// A table or sequence, and the privileges on it that a program cannot work without.
pub type Right = (&'static str, &'static [&'static str]);

/// Why a program cannot use a database, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SchemaFault {
    /// There is no schema.
    #[error("the database was never migrated: run `api migrate`")]
    NeverMigrated,
    /// The schema is older than this build.
    #[error(
        "the database lacks {count} of this build's migrations, the first is {first:04}: run `api migrate`"
    )]
    Outdated {
        /// How many migrations are missing.
        count: usize,
        /// The number of the first.
        first: i64,
    },
    /// The role may not do what the program does.
    #[error("the database role lacks rights: {0}: grant them")]
    Rights(String),
    /// The database could not be queried.
    #[error("the schema cannot be checked: {0}")]
    Database(#[source] DbError),
}

/// Checks a database, and remembers for a minute that the check succeeded.
#[derive(Debug)]
pub struct SchemaCheck {
    rights: &'static [Right],
    good_at: Mutex<Option<Instant>>,
}

impl SchemaCheck {
    /// A check for a program that needs these rights.
    pub const fn new(rights: &'static [Right]) -> Self {
        Self { rights, good_at: Mutex::new(None) }
    }

    /// Checks that every migration of this build is applied and that the role has its rights. A newer schema is fine: old
    /// programs work on it.
    pub async fn check(&self, db: &DbPool) -> Result<(), SchemaFault> {
        let good_at = *self.good_at.lock().unwrap_or_else(PoisonError::into_inner);
        if good_at.is_some_and(|at| at.elapsed() < VALID) {
            return Ok(());
        }
        check_migrations(db).await?;
        check_rights(db, self.rights).await?;
        *self.good_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Ok(())
    }

    /// Makes the next check query the database again, for example because a statement failed.
    pub fn forget(&self) {
        *self.good_at.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

async fn check_migrations(db: &DbPool) -> Result<(), SchemaFault> {
    let applied = db
        .read_with_retry(|mut db| async move {
            sqlx::query_scalar!("SELECT version FROM _sqlx_migrations WHERE success")
                .fetch_all(&mut *db)
                .await
        })
        .await;
    let applied = match applied {
        Ok(applied) => applied,
        Err(error) => {
            return Err(match error.code().as_deref() {
                // No such table; no such schema.
                Some("42P01" | "3F000") => SchemaFault::NeverMigrated,
                Some("42501") => SchemaFault::Rights("SELECT on _sqlx_migrations".to_owned()),
                _ => SchemaFault::Database(error),
            });
        }
    };
    let missing: Vec<i64> = MIGRATIONS
        .iter()
        .map(|migration| migration.version)
        .filter(|version| !applied.contains(version))
        .collect();
    match missing.first() {
        None => Ok(()),
        Some(_) if applied.is_empty() => Err(SchemaFault::NeverMigrated),
        Some(first) => Err(SchemaFault::Outdated { count: missing.len(), first: *first }),
    }
}

async fn check_rights(db: &DbPool, rights: &[Right]) -> Result<(), SchemaFault> {
    let (names, privileges): (Vec<String>, Vec<String>) = rights
        .iter()
        .flat_map(|(name, privileges)| {
            privileges.iter().map(|privilege| ((*name).to_owned(), (*privilege).to_owned()))
        })
        .unzip();
    let (names, privileges) = (&names, &privileges);
    let query = |mut db: DbConnection| async move {
        sqlx::query!(
        r#"SELECT name AS "name!", string_agg(privilege, ', ' ORDER BY privilege) AS "privileges!"
           FROM unnest($1::text[], $2::text[]) AS needed (name, privilege)
           WHERE NOT coalesce(CASE privilege WHEN 'USAGE' THEN has_sequence_privilege(to_regclass(name), privilege)
                                             ELSE has_table_privilege(to_regclass(name), privilege) END, false)
           GROUP BY name ORDER BY name"#,
            names,
            privileges,
        )
        .fetch_all(&mut *db)
        .await
    };
    let lacking = db.read_with_retry(query).await.map_err(SchemaFault::Database)?;
    if lacking.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    for (place, row) in lacking.iter().enumerate() {
        let separator = if place == 0 { "" } else { "; " };
        // Writing to a string cannot fail.
        let _written = write!(text, "{separator}{} on {}", row.privileges, row.name);
    }
    Err(SchemaFault::Rights(text))
}
