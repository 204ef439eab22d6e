//! `api migrate`: brings the database up to this build.

use anyhow::Context as _;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection as _, PgConnection, migrate::Migrator};

/// The schema, built into the binary.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Applies what is missing. Several processes may do so at once: a lock in the database makes them take turns.
pub async fn migrate(url: &SecretString) -> anyhow::Result<()> {
    let mut connection =
        PgConnection::connect(url.expose_secret()).await.context("PostgreSQL cannot be reached")?;
    MIGRATIONS.run(&mut connection).await.context("the migrations cannot be applied")?;
    connection.close().await.context("the connection did not end well")?;
    Ok(())
}
