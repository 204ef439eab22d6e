//! A Redis master that is killed under load, behind sentinels and in a cluster: orders go on, no read is older than an answered write,
//! and everything is back within seconds of the promotion.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use reqwest::StatusCode;
use serde_json::json;
use testbed::{RedisGroup, eventually_within};

use crate::{
    orders_support::{order, path},
    support::{Session, TestApp},
};

/// Within which everything works again after the promotion.
const RECOVERY: Duration = Duration::from_secs(15);
/// How many orders are changed and read at the same time.
const ORDERS: usize = 6;

/// Changes and reads an order until `done`; returns how often.
async fn change_and_read(session: &Session, id: i64, done: &AtomicBool) -> i64 {
    let mut version = 1;
    while !done.load(Ordering::Relaxed) {
        let lines = json!([{"product_id": 1, "quantity": 1 + version % 1000, "unit_price": "1.00"}]);
        let changed = session.put(&path(id), &json!({"lines": lines})).await.expect(StatusCode::OK);
        version += 1;
        assert_eq!(changed.json["version"], version);
        for _ in 0..3 {
            let read = session.get(&path(id)).await.expect(StatusCode::OK);
            assert_eq!(read.json["version"], version, "an older version than was answered");
        }
    }
    version
}

async fn survives(group: RedisGroup) {
    let options = TestApp::with().set("REDIS_URL", group.url()).set("RATE_LIMIT_ADDRESS", "1000000/60s");
    let app = options.start().await;
    let body = json!({"customer_id": 1});
    let log_in = async || {
        let answer = app.post("/api/v1/auth/login-test", &body).await;
        if answer.status == StatusCode::OK { Ok(answer) } else { Err(answer.status) }
    };
    eventually_within(RECOVERY, "logging in works", log_in).await;
    let session = app.login(1).await;
    let mut ids = Vec::new();
    for _ in 0..ORDERS {
        ids.push(session.place(&order()).await);
    }
    let done = AtomicBool::new(false);
    let load = futures_util::future::join_all(ids.iter().map(|id| change_and_read(&session, *id, &done)));
    let failover = async {
        let key = format!("{{order:{}}}", ids[0]);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let master = group.master_of(&key).await;
        master.kill();
        group.successor_of(master, &key).await;
        eventually_within(RECOVERY, "logging in works again", log_in).await;
        eventually_within(RECOVERY, "all is well again", async || {
            let health = app.get("/api/v1/health").await.json;
            let services = &health["services"];
            let well = services["redis"]["status"] == "healthy" && services["events"]["status"] == "healthy";
            well.then_some(()).ok_or(health)
        })
        .await;
        done.store(true, Ordering::Relaxed);
    };
    let (versions, ()) = tokio::join!(load, failover);
    assert!(versions.iter().all(|version| *version > 2), "{versions:?}");
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_are_read_and_changed_while_a_master_with_sentinels_is_killed() {
    survives(testbed::private_redis_sentinel().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_are_read_and_changed_while_a_master_of_a_cluster_is_killed() {
    survives(testbed::private_redis_cluster().await).await;
}
