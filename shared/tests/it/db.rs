//! The pool, against a real PostgreSQL that restarts, falls silent, and becomes read-only.

use std::time::{Duration, Instant};

use secrecy::SecretString;
use shared::platform::db::{DbConnection, DbError, DbPool, PoolSettings, Servers};
use sqlx::{Connection as _, PgConnection};
use testbed::{Proxy, eventually, eventually_within};

fn pool(url: &str, connections: u32) -> DbPool {
    shared::platform::db::pool(&SecretString::from(url.to_owned()), connections, "test").expect("a URL")
}

/// The same database behind a proxy.
async fn behind_proxy(url: &str) -> (String, Proxy) {
    let (user, rest) = url.split_once('@').expect("a user");
    let (server, database) = rest.split_once('/').expect("a database");
    let proxy = Proxy::start(server).await;
    (format!("{user}@{}/{database}", proxy.addr()), proxy)
}

async fn process(mut connection: DbConnection) -> sqlx::Result<i32> {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *connection).await
}

async fn sleep_on_server(mut connection: DbConnection) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_sleep(600)").execute(&mut *connection).await.map(|_| ())
}

/// Opens as many connections as the pool may have, and leaves them at rest.
async fn fill(pool: &DbPool, connections: usize) {
    let mut open = Vec::new();
    for _ in 0..connections {
        open.push(pool.acquire().await.expect("a connection"));
    }
    open.into_iter().for_each(DbConnection::release);
}

async fn run(url: &str, sql: &'static str) {
    let mut connection = PgConnection::connect(url).await.expect("PostgreSQL answers");
    sqlx::raw_sql(sql).execute(&mut connection).await.expect(sql);
}

#[tokio::test]
async fn a_connection_returns_to_the_pool_after_its_work_and_is_closed_if_the_work_was_cancelled() {
    let database = testbed::empty_postgres().await;
    let pool = pool(database.url(), 1);
    let first = pool.run_once(process).await.unwrap();
    assert_eq!(pool.run_once(process).await.unwrap(), first);
    let refused =
        pool.run_once(|mut db| async move { sqlx::query("SELECT 1/0").execute(&mut *db).await }).await;
    assert!(matches!(refused, Err(DbError::Refused(_))), "{refused:?}");
    assert_eq!(
        pool.run_once(process).await.unwrap(),
        first,
        "an error of the statement is none of the connection"
    );
    drop(pool.acquire().await.unwrap());
    assert_ne!(pool.run_once(process).await.unwrap(), first);
}

#[tokio::test]
async fn a_cancelled_transaction_holds_no_locks() {
    let database = testbed::empty_postgres().await;
    run(database.url(), "CREATE TABLE t AS SELECT 1 AS n").await;
    let pool = pool(database.url(), 2);
    let failed = pool
        .run_once(|mut db| async move {
            let mut transaction = db.begin().await?;
            sqlx::query("UPDATE t SET n = 2").execute(&mut *transaction).await?;
            sqlx::query("SELECT 1/0").execute(&mut *transaction).await
        })
        .await;
    assert!(matches!(failed, Err(DbError::Refused(_))), "{failed:?}");
    let update =
        |mut db: DbConnection| async move { sqlx::query("UPDATE t SET n = n + 1").execute(&mut *db).await };
    assert_eq!(pool.run_once(update).await.unwrap().rows_affected(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_share_few_connections_and_none_starves() {
    let database = testbed::empty_postgres().await;
    let pool = pool(database.url(), 3);
    let tasks = (0..32).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            for _ in 0..50 {
                pool.run_once(process).await.expect("its turn comes");
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let open = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'test'";
    let open: i64 = sqlx::query_scalar(open).fetch_one(&database.connect().await).await.unwrap();
    assert!(open <= 3, "{open} connections");
}

#[tokio::test]
async fn a_restart_fails_no_read() {
    let server = testbed::private_postgres().await;
    let pool = pool(server.url(), 4);
    fill(&pool, 4).await;
    server.stop().await;
    server.start().await;
    for read in futures_util::future::join_all((0..8).map(|_| pool.read_with_retry(process))).await {
        read.unwrap();
    }
}

#[tokio::test]
async fn silent_connections_are_replaced_within_seconds_however_many_they_are() {
    let database = testbed::empty_postgres().await;
    let (url, proxy) = behind_proxy(database.url()).await;
    let pool = pool(&url, 8);
    fill(&pool, 8).await;
    let sibling = pool.sibling(PoolSettings::new("sibling", 8));
    fill(&sibling, 8).await;
    proxy.silence();
    // Each of these is given up after six seconds. One of them is used at once, and not tested.
    pool.read_with_retry(process).await.expect("on another connection");
    sibling.read_with_retry(process).await.expect("warned by the first pool");
    for read in futures_util::future::join_all((0..8).map(|_| pool.read_with_retry(process))).await {
        read.unwrap();
    }
}

#[tokio::test]
async fn a_statement_whose_caller_has_gone_ends_on_the_server_too() {
    let database = testbed::empty_postgres().await;
    let hour = Duration::from_hours(1);
    let patient = PoolSettings::new("patient", 1).with_limits(hour, hour);
    let pool = pool(database.url(), 1).sibling(patient);
    let watcher = database.connect().await;
    let runs = async || {
        let running =
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'patient' AND state = 'active'
                       AND datname = current_database()";
        sqlx::query_scalar::<_, i64>(running).fetch_one(&watcher).await.unwrap() == 1
    };
    let long =
        pool.run_once(|mut db| async move { sqlx::query("SELECT pg_sleep(3600)").execute(&mut *db).await });
    tokio::select! {
        done = long => panic!("{done:?}"),
        () = eventually("it runs", &runs) => {}
    }
    eventually("it has ended", async || !runs().await).await;
}

#[tokio::test]
async fn a_cancelled_test_of_a_connection_still_closes_the_silent_ones() {
    let database = testbed::empty_postgres().await;
    let (url, proxy) = behind_proxy(database.url()).await;
    let pool = pool(&url, 8);
    fill(&pool, 8).await;
    proxy.silence();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // As a health check does that waits for half a second.
    let half = Duration::from_millis(500);
    tokio::time::timeout(half, pool.read_with_retry(process)).await.expect_err("the test takes a second");
    tokio::time::timeout(Duration::from_secs(10), pool.read_with_retry(process))
        .await
        .expect("in time")
        .unwrap();
}

#[tokio::test]
async fn connections_are_not_kept_once_their_server_is_read_only_and_work_again_when_it_is_not() {
    let server = testbed::private_postgres().await;
    run(server.url(), "CREATE TABLE t (n int)").await;
    let pool = pool(server.url(), 2);
    fill(&pool, 2).await;
    let write =
        |mut db: DbConnection| async move { sqlx::query("INSERT INTO t VALUES (1)").execute(&mut *db).await };
    pool.run_once(write).await.unwrap();
    run(server.url(), "ALTER SYSTEM SET default_transaction_read_only = on").await;
    run(server.url(), "SELECT pg_reload_conf()").await;
    let refused = eventually("a write is refused", async || pool.run_once(write).await.err());
    assert!(matches!(refused.await, DbError::Unavailable(_)));
    let refused =
        pool.read_with_retry(process).await.expect_err("no connection to a read-only server is used");
    assert!(refused.to_string().contains("read-only"), "{refused}");
    run(server.url(), "ALTER SYSTEM RESET default_transaction_read_only").await;
    run(server.url(), "SELECT pg_reload_conf()").await;
    eventually("it is written to", async || pool.run_once(write).await).await;
}

/// The port of the server that a connection leads to.
async fn address(mut connection: DbConnection) -> sqlx::Result<i32> {
    sqlx::query_scalar("SELECT inet_server_port()").fetch_one(&mut *connection).await
}

fn port(server: &testbed::PrivatePostgres) -> i32 {
    server.address().rsplit(':').next().unwrap().parse().unwrap()
}

/// Both hosts of a primary and its standby.
fn both(primary: &testbed::PrivatePostgres, standby: &testbed::PrivatePostgres) -> String {
    let (user, _) = primary.url().split_once('@').unwrap();
    format!("{user}@{},{}/orders", primary.address(), standby.address())
}

#[tokio::test]
async fn of_several_hosts_the_writable_one_is_used_and_after_a_promotion_the_other() {
    let primary = testbed::private_postgres().await;
    let standby = primary.standby().await;
    let (user, _) = primary.url().split_once('@').unwrap();
    let url = format!("{user}@{},{}/orders", standby.address(), primary.address());
    let pool = pool(&url, 2);
    assert_eq!(pool.read_with_retry(address).await.unwrap(), port(&primary));
    let replica = format!("{url}?target_session_attrs=standby");
    let replica = Servers::replica(&SecretString::from(replica)).unwrap();
    let replica = DbPool::new(replica, PoolSettings::new("replica", 1));
    assert_eq!(replica.read_with_retry(address).await.unwrap(), port(&standby));

    primary.kill();
    standby.promote().await;
    let now = eventually("it is found", async || pool.read_with_retry(address).await).await;
    assert_eq!(now, port(&standby));
}

#[tokio::test]
async fn a_promoted_server_is_found_although_the_old_primary_lives_on_and_that_one_is_not_used_again() {
    let primary = testbed::private_postgres().await;
    let standby = primary.standby().await;
    let url = both(&primary, &standby);
    let pool = pool(&url, 4);
    fill(&pool, 4).await;
    let sibling = pool.sibling(PoolSettings::new("sibling", 4));
    fill(&sibling, 4).await;
    assert_eq!(sibling.read_with_retry(address).await.unwrap(), port(&primary));
    standby.promote().await;
    let found = async || pool.read_with_retry(address).await.is_ok_and(|found| found == port(&standby));
    eventually("it is found", found).await;
    for pool in [&pool, &sibling] {
        let reads = futures_util::future::join_all((0..4).map(|_| pool.read_with_retry(address))).await;
        assert!(reads.into_iter().all(|read| read.unwrap() == port(&standby)));
    }
    // Not even if it is the only one that answers.
    standby.kill();
    let refused = pool.read_with_retry(address).await.expect_err("the old primary is not used");
    assert!(refused.to_string().contains("was replaced"), "{refused}");
    standby.start().await;
    eventually("it is used again", async || pool.read_with_retry(address).await).await;
    // A program that begins now tries the old primary first.
    let new = DbPool::new(Servers::primary(&SecretString::from(url)).unwrap(), PoolSettings::new("new", 1));
    assert_eq!(new.read_with_retry(address).await.unwrap(), port(&standby));
}

#[tokio::test]
async fn connections_to_a_primary_that_was_frozen_while_another_was_promoted_are_not_used_when_it_goes_on() {
    let primary = testbed::private_postgres().await;
    let standby = primary.standby().await;
    let pool = pool(&both(&primary, &standby), 4);
    fill(&pool, 4).await;
    let sibling = pool.sibling(PoolSettings::new("sibling", 4));
    fill(&sibling, 4).await;
    primary.pause();
    standby.promote().await;
    let found = async || pool.read_with_retry(address).await.is_ok_and(|found| found == port(&standby));
    eventually("it is found", found).await;
    primary.resume();
    for read in futures_util::future::join_all((0..4).map(|_| sibling.read_with_retry(address))).await {
        assert_eq!(read.unwrap(), port(&standby));
    }
}

#[tokio::test]
async fn hosts_that_do_not_resolve_or_are_silent_do_not_keep_the_others_from_being_used_in_time() {
    let database = testbed::empty_postgres().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap();
    let with_hosts = |hosts: &str| {
        let (user, rest) = database.url().split_once('@').unwrap();
        let (server, database) = rest.split_once('/').unwrap();
        format!("{user}@{}/{database}", hosts.replace("SERVER", server))
    };
    let found = pool(&with_hosts(&format!("nowhere.invalid,{silent},SERVER")), 2);
    for _ in 0..2 {
        let begun = Instant::now();
        let connection = found.acquire().await.expect("within the time for a connection");
        println!("connected after {:?}", begun.elapsed());
        drop(connection);
    }
    let missing = pool(&with_hosts(&format!("nowhere.invalid,{silent},127.0.0.1:1")), 1);
    let error = missing.acquire().await.expect_err("no host answers").to_string();
    assert!(error.contains("nowhere.invalid:5432: ") && error.contains("127.0.0.1:1: "), "{error}");
}

#[tokio::test]
async fn a_statement_that_the_client_has_cancelled_does_not_continue_in_postgresql() {
    let database = testbed::empty_postgres().await;
    let pool = pool(database.url(), 4);
    for _ in 0..4 {
        // The client goes away before there is an answer.
        let _gone = tokio::time::timeout(Duration::from_millis(100), pool.run_once(sleep_on_server)).await;
    }
    let busy = pool.run_once(sleep_on_server).await.expect_err("it takes too long");
    assert!(matches!(busy, DbError::Busy(_)), "the server says so before the client gives up: {busy:?}");
    let db = database.connect().await;
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%pg_sleep%'
                   AND state = 'active' AND pid <> pg_backend_pid()";
    eventually_within(Duration::from_secs(10), "nothing runs any more", async || {
        sqlx::query_scalar::<_, i64>(running).fetch_one(&db).await.unwrap() == 0
    })
    .await;
}

#[tokio::test]
async fn large_work_gets_more_time_although_a_silent_server_is_noticed_soon() {
    let database = testbed::empty_postgres().await;
    let settings =
        PoolSettings::new("test", 1).with_limits(Duration::from_millis(300), Duration::from_millis(300));
    let servers = Servers::primary(&SecretString::from(database.url().to_owned())).unwrap();
    let pool = DbPool::new(servers, settings);
    let slow =
        |mut db: DbConnection| async move { sqlx::query("SELECT pg_sleep(1)").execute(&mut *db).await };
    assert!(matches!(pool.run_once(slow).await, Err(DbError::Busy(_))));
    let before = pool.run_once(process).await.unwrap();
    pool.run_with_longer_limit(Duration::from_secs(30), slow).await.unwrap();
    assert_eq!(pool.run_once(process).await.unwrap(), before, "the connection is used again");
    let limit = |mut db: DbConnection| async move {
        sqlx::query_scalar::<_, String>("SHOW statement_timeout").fetch_one(&mut *db).await
    };
    assert_eq!(pool.run_once(limit).await.unwrap(), "300ms", "with its usual limit");
}

#[tokio::test]
async fn a_deadlock_is_retried_and_an_unavailable_lock_is_reported_as_busy() {
    let database = testbed::empty_postgres().await;
    run(database.url(), "CREATE TABLE t AS SELECT n FROM generate_series(1, 2) n").await;
    let settings = PoolSettings::new("test", 4).with_limits(Duration::from_secs(30), Duration::from_secs(20));
    let servers = Servers::primary(&SecretString::from(database.url().to_owned())).unwrap();
    let pool = DbPool::new(servers, settings);
    let barrier = std::sync::Arc::new(tokio::sync::Barrier::new(2));
    let update_both = |first: i32, second: i32| {
        let (pool, barrier) = (pool.clone(), std::sync::Arc::clone(&barrier));
        async move {
            let once = std::sync::atomic::AtomicBool::new(true);
            let (once, barrier) = (&once, &barrier);
            pool.write_with_retry(false, |mut db| async move {
                let mut transaction = db.begin().await?;
                let update = "UPDATE t SET n = n WHERE n = $1";
                sqlx::query(update).bind(first).execute(&mut *transaction).await?;
                if once.swap(false, std::sync::atomic::Ordering::SeqCst) {
                    barrier.wait().await;
                }
                sqlx::query(update).bind(second).execute(&mut *transaction).await?;
                transaction.commit().await
            })
            .await
        }
    };
    let (one, other) = tokio::join!(update_both(1, 2), update_both(2, 1));
    assert!(matches!((one.unwrap(), other.unwrap()), (((), false), ((), false))));

    let mut holder = PgConnection::connect(database.url()).await.unwrap();
    let mut transaction = holder.begin().await.unwrap();
    sqlx::query("LOCK TABLE t").execute(&mut *transaction).await.unwrap();
    let impatient = pool.sibling(
        PoolSettings::new("test", 1).with_limits(Duration::from_secs(4), Duration::from_millis(200)),
    );
    let busy = impatient
        .run_once(|mut db| async move { sqlx::query("SELECT FROM t").execute(&mut *db).await })
        .await;
    let busy = busy.expect_err("the table is locked");
    assert!(matches!(busy, DbError::Busy(_)) && !busy.waited_for_row_of("t"), "{busy:?}");
}
