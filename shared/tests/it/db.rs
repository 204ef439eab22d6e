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

#[tokio::test]
async fn who_waits_for_the_pool_gets_what_others_would_keep() {
    let database = testbed::empty_postgres().await;
    let (pool, _) = pool(&database, 1).await;
    let connections = Connections::new(pool, 1);
    for _ in 0..3 {
        let held = connections.take().await.unwrap();
        // The one who waits has looked before the connection is kept.
        let (waited, ()) = tokio::join!(connections.take(), async { connections.keep(held) });
        connections.keep(waited.unwrap());
    }
    // Nor is one forgotten who gave up.
    let held = connections.take().await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(10), connections.take()).await.is_err());
    connections.keep(held);
    assert!(tokio::time::timeout(Duration::from_secs(30), connections.take()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_share_few_connections_and_nobody_starves() {
    let database = testbed::empty_postgres().await;
    let (pool, _) = pool(&database, 3).await;
    let connections = Connections::new(pool, 3);
    let tasks = (0..32).map(|_| {
        let connections = connections.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                let mut held = connections.take().await.expect("its turn comes");
                process(&mut held).await;
                connections.keep(held);
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}
