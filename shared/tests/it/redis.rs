//! The connection to Redis: whatever becomes of it, the next ones work.

use std::time::{Duration, Instant};

use redis::Script;
use secrecy::SecretString;
use shared::platform::redis::{Redis, RedisFailure};
use testbed::{PrivateRedis, Proxy, eventually, eventually_within};

/// Within which a handle works again, on a machine that has other things to do.
const RECOVERY: Duration = Duration::from_secs(30);

fn handle(address: impl std::fmt::Display) -> Redis {
    Redis::new(&SecretString::from(format!("redis://{address}/0"))).unwrap()
}

/// A handle that gives a busy machine time. What it is refused is a failure all the same.
fn patient(address: impl std::fmt::Display) -> Redis {
    handle(address).with_deadline(RECOVERY)
}

/// Writes once.
async fn write(redis: &Redis) -> Result<(), RedisFailure> {
    redis.run_command(redis::cmd("SET").arg("a").arg("b")).await
}

/// How many connections of programs the server has.
async fn connections(server: &PrivateRedis) -> usize {
    let clients: String = server.ask(&["CLIENT", "LIST", "TYPE", "normal"]).await;
    // All but the one that asks.
    clients.lines().count() - 1
}

/// How many connections the server has taken since it started.
async fn connections_taken(server: &PrivateRedis) -> u64 {
    server.info("total_connections_received").await.parse().unwrap()
}

#[tokio::test]
async fn a_silent_connection_is_replaced_within_seconds_and_no_caller_waits_for_its_answers() {
    let server = testbed::private_redis().await;
    let proxy = Proxy::start(server.address()).await;
    let redis = handle(proxy.addr());
    let patient = redis.clone().with_deadline(Duration::from_mins(10));
    write(&patient).await.unwrap();
    proxy.silence();
    let start = Instant::now();
    // Sent into the silence, and sent again on the next connection.
    write(&patient).await.unwrap();
    assert!(start.elapsed() < RECOVERY, "{:?}", start.elapsed());
    eventually("the others work, too", async || write(&redis).await).await;
}

#[tokio::test]
async fn a_server_that_restarts_while_it_is_idle_fails_no_call() {
    let server = testbed::private_redis().await;
    let redis = patient(server.address());
    write(&redis).await.unwrap();
    server.stop().await;
    server.start().await;
    write(&redis).await.unwrap();
    let script = Script::new("return redis.call('SET', KEYS[1], 'x')");
    server.stop().await;
    server.start().await;
    redis.run_script::<()>(script.prepare_invoke().key("a"), RECOVERY).await.unwrap();
}

#[tokio::test]
async fn after_a_failover_the_old_primary_is_left_although_it_runs_as_a_replica() {
    let (old, new) = tokio::join!(testbed::private_redis(), testbed::private_redis());
    let proxy = Proxy::start(old.address()).await;
    let (writer, reader) = (patient(proxy.addr()), patient(proxy.addr()));
    write(&writer).await.unwrap();
    reader.ping().await.unwrap();
    new.replicate(&old).await;

    proxy.lead_to(new.address());
    new.promote().await;
    old.replicate(&new).await;
    // `READONLY` is the answer of a server that did nothing: the write goes to the new primary at once.
    write(&writer).await.unwrap();
    // Whoever only reads would never be told.
    eventually_within(RECOVERY, "the reader has left it too", async || connections(&old).await == 0).await;
    reader.ping().await.unwrap();
}

#[tokio::test]
async fn a_replica_is_not_mistaken_for_the_primary_which_is_found_when_it_starts() {
    let (primary, replica) = tokio::join!(testbed::private_redis(), testbed::private_redis());
    replica.replicate(&primary).await;
    let redis = handle(replica.address());
    let failure = redis.ping().await.unwrap_err();
    assert!(failure.has_code(&["READONLY"]), "{failure}");
    replica.promote().await;
    eventually_within(RECOVERY, "it is the primary now", async || write(&redis).await).await;
}

#[tokio::test]
async fn callers_of_a_server_that_refuses_them_do_not_flood_it_with_connections() {
    let (primary, replica) = tokio::join!(testbed::private_redis(), testbed::private_redis());
    replica.replicate(&primary).await;
    let redis = handle(replica.address());
    let before = connections_taken(&replica).await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(1) {
        let calls = (0..50).map(|_| redis.ping());
        assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_err));
    }
    let taken = connections_taken(&replica).await - before;
    assert!(taken < 40, "{taken} connections in {:?}", start.elapsed());
}

#[tokio::test]
async fn a_user_who_may_only_touch_the_keys_is_served() {
    let server = testbed::private_redis().await;
    let rules =
        ["ACL", "SETUSER", "orders", "on", ">secret", "~cache:*", "~a", "+@read", "+@write", "+@scripting"];
    server.ask::<()>(&rules).await;
    let redis = handle(format!("orders:secret@{}", server.address()));
    write(&redis).await.unwrap();
    let memory = redis.check_writable().await.unwrap();
    assert_eq!(memory, shared::platform::redis::RedisMemory::default(), "it may not ask how much there is");
    let wrong = handle(format!("orders:wrong@{}", server.address()));
    assert!(matches!(wrong.ping().await, Err(RedisFailure::Failed(_))));
}

#[tokio::test]
async fn a_redis_that_answers_but_refuses_writes_is_recognised() {
    let server = testbed::private_redis().await;
    let redis = handle(server.address());
    let memory = redis.check_writable().await.unwrap();
    assert!(memory.used > 0 && memory.limit == 0 && !memory.is_nearly_full(), "{memory:?}");

    // Full, and nothing may be evicted.
    server.ask::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1"]).await;
    redis.ping().await.unwrap();
    let failure = redis.check_writable().await.unwrap_err();
    assert!(failure.has_code(&["OOM"]), "{failure}");

    // Nearly full.
    let limit = (memory.used + memory.used / 20).to_string();
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", &limit]).await;
    assert!(redis.check_writable().await.unwrap().is_nearly_full());
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;

    // A snapshot failed. This one thing `PING` tells, too.
    server.ask::<()>(&["SET", "a", "b"]).await;
    server.ask::<()>(&["CONFIG", "SET", "save", "3600 1"]).await;
    break_snapshots(&server).await;
    let failure = redis.check_writable().await.unwrap_err();
    assert!(failure.has_code(&["MISCONF"]), "{failure}");
}

/// Has the next snapshot fail, as a full disk does.
async fn break_snapshots(server: &PrivateRedis) {
    let (_, folder): (String, String) = server.ask(&["CONFIG", "GET", "dir"]).await;
    // A folder in the file's place cannot be replaced by it, even by root.
    std::fs::create_dir(std::path::Path::new(&folder).join("dump.rdb")).unwrap();
    server.ask::<()>(&["BGSAVE"]).await;
    eventually("the snapshot has failed", async || server.info("rdb_last_bgsave_status").await == "err")
        .await;
}
