//! A PostgreSQL database for each test.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use anyhow::Context;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use uuid::Uuid;

use crate::{decoy, paths};

/// Names the advisory lock under which one test process makes the template for all the others.
const TEMPLATE_LOCK: i64 = 0x7465_6d70_6c61_7465;

/// A database that only this test uses. It is dropped with this value.
#[derive(Debug)]
pub struct Database {
    url: String,
    /// On a shared server: where and as what it is dropped.
    shared: Option<(String, String)>,
}

/// A fresh database with the workspace's migrations applied, and with a decoy: tenant 2, of which no test may see anything.
///
/// Cloned from a template that the first test makes, which takes some 50 ms however many migrations there are.
///
/// # Panics
///
/// When `DATABASE_URL` is not set, or its server cannot be used.
pub async fn postgres() -> Database {
    let made = migrated_database(&crate::required("DATABASE_URL")).await;
    made.unwrap_or_else(|error| panic!("no database for this test: {error:#}"))
}

/// The same as [`postgres`], on the server at this URL.
pub async fn migrated_database(admin_url: &str) -> anyhow::Result<Database> {
    let template = template(admin_url).await?;
    create(admin_url, Some(&template)).await
}

/// A fresh database on the server at this URL with the workspace's migrations applied, and nothing else: what PostgreSQL plans does not
/// depend on rows.
pub async fn bare_database(admin_url: &str) -> anyhow::Result<Database> {
    let database = create(admin_url, None).await?;
    migrate(database.url()).await?;
    Ok(database)
}

/// A fresh database with nothing in it.
///
/// # Panics
///
/// When `DATABASE_URL` is not set, or its server cannot be used.
pub async fn empty_postgres() -> Database {
    let admin_url = crate::required("DATABASE_URL");
    create(&admin_url, None).await.unwrap_or_else(|error| panic!("no database for this test: {error:#}"))
}

/// Applies the workspace's migrations to a database.
pub async fn migrate(url: &str) -> anyhow::Result<()> {
    let migrator = migrator().await?;
    let mut connection = PgConnection::connect(url).await.context("cannot connect in order to migrate")?;
    migrator.run(&mut connection).await.context("the migrations cannot be applied")?;
    connection.close().await?;
    Ok(())
}

impl Database {
    /// A database on a server of the test's own, with which it ends.
    pub(crate) fn of_private_server(url: &str) -> Self {
        Self { url: url.to_owned(), shared: None }
    }

    /// For `DATABASE_URL` of a program under test.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A small pool of connections.
    ///
    /// # Panics
    ///
    /// When the server refuses them.
    pub async fn connect(&self) -> PgPool {
        PgPoolOptions::new()
            .max_connections(10)
            .acquire_timeout(Duration::from_secs(30))
            .connect(&self.url)
            .await
            .unwrap_or_else(|error| panic!("the test's own database does not answer: {error}"))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some((admin_url, name)) = self.shared.take() else { return };
        let sql = format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)");
        crate::clean_up(async move {
            let mut admin = PgConnection::connect(&admin_url).await?;
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await?;
            Ok(())
        });
    }
}

/// Creates a database of its own, as a copy of the template if there is one.
async fn create(admin_url: &str, template: Option<&str>) -> anyhow::Result<Database> {
    let name = format!("test_{}", Uuid::now_v7().simple());
    let mut admin = connect(admin_url).await?;
    let sql = match template {
        Some(template) => format!("CREATE DATABASE \"{name}\" TEMPLATE \"{template}\""),
        None => format!("CREATE DATABASE \"{name}\" TEMPLATE template0"),
    };
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await.context("cannot create a database")?;
    admin.close().await?;
    Ok(Database { url: with_database(admin_url, &name)?, shared: Some((admin_url.to_owned(), name)) })
}

/// The name of the migrated template, which is created first if it is missing.
async fn template(admin_url: &str) -> anyhow::Result<String> {
    let migrator = migrator().await?;
    let mut admin = connect(admin_url).await?;
    let today: String = sqlx::query_scalar("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
        .fetch_one(&mut admin)
        .await?;
    let name = template_name(&migrator, &today);
    if exists(&mut admin, &name).await? {
        return Ok(name);
    }

    // The lock ends with the connection, also when this process is killed in between.
    sqlx::query("SELECT pg_advisory_lock($1)").bind(TEMPLATE_LOCK).execute(&mut admin).await?;
    if !exists(&mut admin, &name).await? {
        sweep(&mut admin).await?;
        // Under another name until it is complete, so that its name alone says that it can be used.
        let draft = format!("{name}_draft");
        for sql in [
            format!("DROP DATABASE IF EXISTS \"{draft}\" WITH (FORCE)"),
            format!("CREATE DATABASE \"{draft}\" TEMPLATE template0"),
        ] {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await?;
        }
        let mut inside = connect(&with_database(admin_url, &draft)?).await?;
        migrator.run(&mut inside).await.context("the migrations cannot be applied")?;
        sqlx::raw_sql(decoy::SQL).execute(&mut inside).await.context("the decoy cannot be made")?;
        inside.close().await?;
        // A connection, such as autovacuum's, would make every copy of it fail.
        for sql in [
            format!("ALTER DATABASE \"{draft}\" ALLOW_CONNECTIONS false"),
            format!("ALTER DATABASE \"{draft}\" RENAME TO \"{name}\""),
        ] {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await?;
        }
    }
    admin.close().await?;
    Ok(name)
}

/// Named after the migrations and the decoy, so that a changed one makes a new template, and after the day, because a migration
/// may create partitions from today on.
fn template_name(migrator: &Migrator, today: &str) -> String {
    let mut hasher = DefaultHasher::new();
    for migration in migrator.iter() {
        (migration.version, &migration.checksum).hash(&mut hasher);
    }
    decoy::SQL.hash(&mut hasher);
    format!("tmpl_{:016x}_{today}", hasher.finish())
}

/// Drops the templates of other days, and the databases of test processes that were killed over an hour ago.
/// The time is part of their names, which are version 7 UUIDs.
async fn sweep(admin: &mut PgConnection) -> anyhow::Result<()> {
    let stale: Vec<String> = sqlx::query_scalar(
        r"SELECT datname::text FROM pg_database
          WHERE (datname LIKE 'tmpl\_%' AND right(datname, 8) < to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')
                 AND right(datname, 8) ~ '^[0-9]{8}$')
             OR (datname ~ '^test_[0-9a-f]{32}$'
                 AND ('x' || substr(datname, 6, 12))::bit(48)::bigint
                     < extract(epoch FROM now() - interval '1 hour') * 1000)",
    )
    .fetch_all(&mut *admin)
    .await?;
    for name in stale {
        let sql = format!("DROP DATABASE IF EXISTS \"{name}\"");
        // One that is still in use refuses to be dropped, which is right.
        let _kept = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *admin).await;
    }
    Ok(())
}

async fn exists(admin: &mut PgConnection, name: &str) -> anyhow::Result<bool> {
    Ok(sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(admin)
        .await?)
}

async fn connect(url: &str) -> anyhow::Result<PgConnection> {
    PgConnection::connect(url).await.context("the PostgreSQL server at DATABASE_URL does not answer")
}

async fn migrator() -> anyhow::Result<Migrator> {
    let folder = paths::workspace().join("migrations");
    Migrator::new(folder.as_path()).await.with_context(|| format!("cannot read {}", folder.display()))
}

/// The same server and user, with another database.
fn with_database(url: &str, name: &str) -> anyhow::Result<String> {
    let _checked: PgConnectOptions = url.parse().context("DATABASE_URL is not a PostgreSQL address")?;
    let (address, query) = url.split_once('?').map_or((url, None), |(address, query)| (address, Some(query)));
    let authority = address.find("://").map_or(0, |at| at + 3);
    let server = address[authority..].find('/').map_or(address, |slash| &address[..authority + slash]);
    Ok(match query {
        Some(query) => format!("{server}/{name}?{query}"),
        None => format!("{server}/{name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn another_database_keeps_server_user_and_options() {
        let cases = [
            ("postgres://u:p@h:1/a", "postgres://u:p@h:1/b"),
            ("postgres://u:p@h:1", "postgres://u:p@h:1/b"),
            ("postgres://u@h/a?sslmode=disable", "postgres://u@h/b?sslmode=disable"),
        ];
        for (url, expected) in cases {
            assert_eq!(with_database(url, "b").unwrap(), expected);
        }
    }
}
