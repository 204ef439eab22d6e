//! Connections that are kept from their pool, against a real PostgreSQL.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use shared::db::{Connections, Held};
use sqlx::{PgPool, postgres::PgPoolOptions};
use testbed::Database;

/// A pool, and how often it handed out a connection that it had before.
async fn pool(database: &Database, connections: u32) -> (PgPool, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let pool = PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(30))
        .before_acquire(move |_, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            Box::pin(async { Ok(true) })
        })
        .connect(database.url())
        .await
        .expect("PostgreSQL answers");
    (pool, count)
}

async fn process(held: &mut Held) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut **held).await.expect("it answers")
}

#[tokio::test]
async fn a_kept_connection_is_used_again_without_its_pool() {
    let database = testbed::empty_postgres().await;
    let (pool, from_pool) = pool(&database, 1).await;
    let connections = Connections::new(pool, 1);
    let mut held = connections.take().await.unwrap();
    let first = process(&mut held).await;
    connections.keep(held);
    let before = from_pool.load(Ordering::SeqCst);
    for _ in 0..3 {
        let mut held = connections.take().await.unwrap();
        assert_eq!(process(&mut held).await, first);
        connections.keep(held);
    }
    assert_eq!(from_pool.load(Ordering::SeqCst), before);
    connections.close().await;
}

#[tokio::test]
async fn no_more_are_kept_than_others_can_do_without() {
    let database = testbed::empty_postgres().await;
    let (pool, _) = pool(&database, 2).await;
    let connections = Connections::new(pool.clone(), 1);
    let (first, second) = (connections.take().await.unwrap(), connections.take().await.unwrap());
    connections.keep(first);
    connections.keep(second);
    let others = pool.acquire().await.unwrap();
    drop(others);
    // It waits for what is lent, and not for what is kept.
    tokio::time::timeout(Duration::from_secs(30), connections.close()).await.expect("it closes");
}

#[tokio::test]
async fn a_discarded_connection_makes_room_for_another() {
    let database = testbed::empty_postgres().await;
    let (pool, _) = pool(&database, 1).await;
    let connections = Connections::new(pool, 1);
    let mut held = connections.take().await.unwrap();
    let first = process(&mut held).await;
    held.discard();
    let mut held = connections.take().await.unwrap();
    assert_ne!(process(&mut held).await, first);
}
