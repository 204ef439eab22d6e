//! A full Redis under `volatile-ttl`: cached orders make room, and what others rely on stays.

use std::time::Duration;

use reqwest::StatusCode;
use secrecy::SecretString;
use shared::{
    cache::{Cache, CacheWrite},
    domain::{order::OrderKey, tenant::TenantId},
};
use testbed::{PrivateRedis, eventually};

use crate::{
    orders_support::{order, path},
    support::TestApp,
};

/// Room beyond what is there before orders fill it.
const ROOM: u64 = 3 * 1024 * 1024;

/// Caches so many orders of some fifty lines.
async fn cache_orders(server: &PrivateRedis, orders: i64) {
    let url = SecretString::from(server.url().to_owned());
    let cache = Cache::new(&url, Duration::from_hours(1), Duration::from_secs(5)).expect("an address");
    let key = |id: i64| OrderKey { tenant: TenantId::DEFAULT, id: id.try_into().expect("an id") };
    let keys: Vec<_> = (1_000_000..1_000_000 + orders).map(key).collect();
    for keys in keys.chunks(50) {
        let token = cache.begin_fill(keys).await.expect("Redis takes it");
        let content = Some((7.try_into().expect("an id"), vec![b'x'; 8 * 1024].into()));
        let write = |key: &OrderKey| CacheWrite {
            order: *key,
            version: 1,
            content: content.clone(),
            may_create: true,
        };
        cache.fill(&token, &keys.iter().map(write).collect::<Vec<_>>()).await.expect("Redis takes it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_orders_are_evicted_before_sessions_limits_and_events() {
    let server = testbed::private_redis().await;
    let app = TestApp::with()
        .set("REDIS_URL", server.url())
        .set("RATE_LIMIT_CUSTOMER", "3/3600s")
        // On a busy machine Redis would sometimes be late, and the API count by itself meanwhile.
        .tune(|config| config.http.rate_limits.deadline = Duration::from_secs(30))
        .start()
        .await;
    let mut sessions = Vec::new();
    for customer in 101..=120 {
        sessions.push(app.login(customer).await);
    }
    let spent = app.login(1).await;
    let mut last = 0;
    for _ in 0..3 {
        last = spent.place(&order()).await;
    }
    spent.get(&path(last)).await.expect(StatusCode::TOO_MANY_REQUESTS);
    eventually("the events are in the stream", async || {
        server.ask::<u64>(&["XLEN", "events:orders"]).await == 3
    })
    .await;

    let limit = server.info("used_memory").await.parse::<u64>().expect("bytes") + ROOM;
    server
        .ask::<()>(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl", "maxmemory", &limit.to_string()])
        .await;
    cache_orders(&server, 2000).await;
    let evicted: u64 = server.info("evicted_keys").await.parse().expect("a number");
    assert!(evicted > 1000, "only {evicted} keys were evicted");

    for session in sessions {
        app.refresh(&session.refresh).await.expect(StatusCode::OK);
    }
    spent.get(&path(last)).await.expect(StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(server.ask::<u64>(&["XLEN", "events:orders"]).await, 3);
}
