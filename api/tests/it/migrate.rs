//! `api migrate` on databases of older and newer builds.

use api::migrate::{MIGRATIONS, SchemaVersion, migrate};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

async fn execute(database: &testbed::Database, sql: &str) {
    let mut connection = PgConnection::connect(database.url()).await.expect("a connection");
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.expect("executed");
}

fn last() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().expect("migrations")
}

#[tokio::test]
async fn an_older_migrate_accepts_a_newer_schema_and_changes_nothing() {
    let database = testbed::empty_postgres().await;
    let url = SecretString::from(database.url().to_owned());
    let last = last();
    assert_eq!(migrate(&url).await.expect("migrated"), SchemaVersion::Current(last));
    assert_eq!(migrate(&url).await.expect("migrated already"), SchemaVersion::Current(last));

    let newer = last + 1;
    let applied = format!(
        "CREATE TABLE of_a_newer_build (id int);
         INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES ({newer}, 'of a newer build', true, '\\x00', 1)"
    );
    execute(&database, &applied).await;
    let schema = migrate(&url).await.expect("a newer schema is accepted");
    assert_eq!(schema, SchemaVersion::Newer { database: newer, build: last });
    assert!(schema.to_string().contains("newer build"), "{schema}");
    // A table that were gone could not be emptied.
    execute(&database, "TRUNCATE of_a_newer_build").await;
}

#[tokio::test]
async fn a_migration_that_was_changed_after_it_was_applied_is_refused() {
    let database = testbed::empty_postgres().await;
    let url = SecretString::from(database.url().to_owned());
    migrate(&url).await.expect("migrated");
    execute(&database, "UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 1").await;
    let error = migrate(&url).await.expect_err("changed");
    assert!(
        format!("{error:#}").contains("migration 1 was previously applied but has been modified"),
        "{error:#}"
    );
}

#[tokio::test]
async fn processes_that_migrate_at_once_take_turns() {
    let database = testbed::empty_postgres().await;
    let url = SecretString::from(database.url().to_owned());
    let done = futures_util::future::join_all((0..4).map(|_| migrate(&url))).await;
    for schema in done {
        assert_eq!(schema.expect("migrated"), SchemaVersion::Current(last()));
    }
}

/// Whether an index is complete; `None` if there is none of this name.
async fn is_complete(database: &testbed::Database, index: &str) -> Option<bool> {
    let found = sqlx::query_scalar("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass($1)");
    found.bind(index).fetch_optional(&database.connect().await).await.expect("the index is looked for")
}

/// As PostgreSQL leaves an index if its building is interrupted.
async fn leave_half_built(database: &testbed::Database, index: &str) {
    let sql = format!("UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{index}'::regclass");
    execute(database, &sql).await;
}

#[tokio::test]
async fn an_index_that_an_interrupted_migration_has_left_half_built_or_whole_is_built_again() {
    let database = testbed::empty_postgres().await;
    let url = SecretString::from(database.url().to_owned());
    migrate(&url).await.expect("migrated");
    for half_built in [true, false] {
        execute(&database, "DELETE FROM _sqlx_migrations WHERE version = 21").await;
        if half_built {
            leave_half_built(&database, "orders_by_reference").await;
        }
        migrate(&url).await.expect("migrated again");
        assert_eq!(is_complete(&database, "orders_by_reference").await, Some(true));
    }
}

#[tokio::test]
async fn an_index_that_somebody_else_is_building_is_left_alone() {
    let database = testbed::empty_postgres().await;
    let url = SecretString::from(database.url().to_owned());
    migrate(&url).await.expect("migrated");
    execute(&database, "CREATE INDEX orders_of_an_operator ON orders (status)").await;
    leave_half_built(&database, "orders_of_an_operator").await;
    migrate(&url).await.expect("nothing to do");
    assert_eq!(is_complete(&database, "orders_of_an_operator").await, Some(false));
}

#[tokio::test]
async fn sessions_that_ended_while_migration_16_ran_stay_ended() {
    let database = testbed::empty_postgres().await;
    let url = SecretString::from(database.url().to_owned());
    migrate(&url).await.expect("migrated");
    // What another program wrote after the copy and before the triggers.
    execute(
        &database,
        "SET session_replication_role = replica;
         INSERT INTO session_generations (customer_id, generation, ended_at) VALUES (7, 3, now());
         DELETE FROM _sqlx_migrations WHERE version = 30;
         DROP FUNCTION log_remove_forgotten",
    )
    .await;
    migrate(&url).await.expect("migrated again");
    let generation: i64 =
        sqlx::query_scalar("SELECT generation FROM ended_sessions WHERE tenant_id = 1 AND customer_id = 7")
            .fetch_one(&database.connect().await)
            .await
            .expect("the session has ended");
    assert_eq!(generation, 3);
}
