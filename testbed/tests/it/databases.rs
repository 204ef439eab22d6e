//! Each test has a database of its own.

use sqlx::Connection;

#[tokio::test]
async fn a_database_is_migrated_and_seen_by_one_test_only() {
    let (one, two) = tokio::join!(testbed::postgres(), testbed::postgres());
    assert_ne!(one.url(), two.url());

    let pool = one.connect().await;
    sqlx::query("CREATE TABLE only_here (id bigint)").execute(&pool).await.unwrap();
    let migrated: bool =
        sqlx::query_scalar("SELECT to_regclass('orders') IS NOT NULL").fetch_one(&pool).await.unwrap();
    assert!(migrated);

    let seen: bool = sqlx::query_scalar("SELECT to_regclass('only_here') IS NOT NULL")
        .fetch_one(&two.connect().await)
        .await
        .unwrap();
    assert!(!seen);
}

#[tokio::test]
async fn a_database_is_gone_when_it_is_dropped_although_connections_are_open() {
    let database = testbed::empty_postgres().await;
    let pool = database.connect().await;
    let name: String = sqlx::query_scalar("SELECT current_database()::text").fetch_one(&pool).await.unwrap();
    let others = testbed::empty_postgres().await;
    drop(database);
    let left: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(&others.connect().await)
        .await
        .unwrap();
    assert!(!left);
}

#[tokio::test]
async fn an_empty_database_has_no_tables() {
    let database = testbed::empty_postgres().await;
    let mut connection = sqlx::PgConnection::connect(database.url()).await.unwrap();
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(tables, 0);
}

#[tokio::test]
async fn a_redis_database_is_empty_and_seen_by_one_test_only() {
    let (one, two) = tokio::join!(testbed::redis(), testbed::redis());
    assert_ne!(one.url(), two.url());
    let mut connection = one.connect().await;
    redis::cmd("SET").arg("key").arg("value").exec_async(&mut connection).await.unwrap();
    let keys: u64 = redis::cmd("DBSIZE").query_async(&mut two.connect().await).await.unwrap();
    assert_eq!(keys, 0);
}
