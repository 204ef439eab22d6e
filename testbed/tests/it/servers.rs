//! Servers of one's own: they fail as told, and come back with their data.

use std::time::Duration;

use sqlx::Connection;
use testbed::eventually;
use testbed::native::{self, Storage};
use tokio::time::timeout;

/// Long enough that a server that runs would have answered.
const SILENCE: Duration = Duration::from_millis(500);

async fn ping(url: &str) -> anyhow::Result<()> {
    Ok(redis::cmd("PING").exec_async(&mut testbed::connect_redis(url).await?).await?)
}

#[tokio::test]
async fn a_private_redis_is_killed_frozen_and_started_again() {
    let redis = testbed::private_redis().await;
    ping(redis.url()).await.unwrap();
    redis.pause();
    assert!(timeout(SILENCE, ping(redis.url())).await.map_or(true, |answer| answer.is_err()));
    redis.resume();
    eventually("Redis answers again", async || ping(redis.url()).await).await;
    redis.kill();
    assert!(ping(redis.url()).await.is_err());
    redis.start().await;
    ping(redis.url()).await.unwrap();
    redis.stop().await;
    assert!(ping(redis.url()).await.is_err());
}

#[tokio::test]
async fn a_redis_that_takes_a_second_to_answer_is_waited_for() {
    let redis = testbed::private_redis().await;
    let mut connection = testbed::connect_redis(redis.url()).await.unwrap();
    redis.pause();
    let asked = tokio::spawn(async move { redis::cmd("PING").exec_async(&mut connection).await });
    // Twice as long as the client's default deadline.
    tokio::time::sleep(Duration::from_secs(1)).await;
    redis.resume();
    asked.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_private_postgres_is_migrated_frozen_with_its_sessions_killed_and_started_again() {
    let postgres = testbed::private_postgres().await;
    let mut session = sqlx::PgConnection::connect(postgres.url()).await.unwrap();
    let query = "SELECT count(*) FROM orders";
    let orders: i64 = sqlx::query_scalar(query).fetch_one(&mut session).await.unwrap();
    assert_eq!(orders, 0);

    postgres.pause();
    assert!(timeout(SILENCE, sqlx::query(query).execute(&mut session)).await.is_err());
    postgres.resume();
    let mut session = sqlx::PgConnection::connect(postgres.url()).await.unwrap();

    postgres.kill();
    assert!(sqlx::query(query).execute(&mut session).await.is_err());
    postgres.start().await;
    let mut session = sqlx::PgConnection::connect(postgres.url()).await.unwrap();
    sqlx::query(query).execute(&mut session).await.unwrap();
}

#[tokio::test]
async fn kept_data_is_found_again_by_the_next_start() {
    let folder = testbed::paths::temporary("kept").unwrap();
    let storage = |name: &str| Storage::Keep(folder.join(name));

    let first = native::postgres(&storage("postgres")).await.unwrap();
    let url = first.url().to_owned();
    let mut session = sqlx::PgConnection::connect(&url).await.unwrap();
    sqlx::query("CREATE TABLE kept (id bigint)").execute(&mut session).await.unwrap();
    first.stop().await.unwrap();
    let second = native::postgres(&storage("postgres")).await.unwrap();
    assert_eq!(second.url(), url, "the port is kept where it is free");
    let mut session = sqlx::PgConnection::connect(second.url()).await.unwrap();
    sqlx::query("SELECT * FROM kept").execute(&mut session).await.unwrap();
    second.stop().await.unwrap();

    let first = native::redis(&storage("redis")).await.unwrap();
    let mut connection = testbed::connect_redis(first.url()).await.unwrap();
    redis::cmd("SET").arg("kept").arg(1).exec_async(&mut connection).await.unwrap();
    first.stop().await.unwrap();
    let second = native::redis(&storage("redis")).await.unwrap();
    let mut connection = testbed::connect_redis(second.url()).await.unwrap();
    let kept: Option<i64> = redis::cmd("GET").arg("kept").query_async(&mut connection).await.unwrap();
    assert_eq!(kept, Some(1));
    second.stop().await.unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn a_taken_port_is_replaced_by_another() {
    let folder = testbed::paths::temporary("taken").unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    std::fs::write(folder.join("port"), port.to_string()).unwrap();
    let redis = native::redis(&Storage::Keep(folder.clone())).await.unwrap();
    assert!(!redis.url().contains(&format!(":{port}/")));
    redis.stop().await.unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}
