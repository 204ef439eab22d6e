//! What a broker forgets, the reconciler sends again.

use std::time::Duration;

use e2e::{Broker, Client, System};

/// The reconciler looks every minute at what is older than a minute.
const HEALED_WITHIN: Duration = Duration::from_mins(4);

#[tokio::test(flavor = "multi_thread")]
async fn events_lost_with_the_whole_redis_are_repaired() {
    let system = System::new(Broker::RedisStreams).await;
    let api = system.api().await;
    let shop = Client::login(&api.url, 1).await.expect("logs in");
    for seed in 0..20 {
        shop.live_an_order(seed).await.expect("the order lives");
    }
    let pool = system.database.connect().await;
    testbed::eventually("the relay has published everything", async || {
        let mut redis = system.redis.connect().await;
        let length: u64 = redis::cmd("XLEN").arg("events:orders").query_async(&mut redis).await.unwrap_or(0);
        length >= 60
    })
    .await;
    let mut redis = system.redis.connect().await;
    redis::cmd("FLUSHDB").exec_async(&mut redis).await.expect("the stream is gone");
    let _worker = system.worker().await;
    for seed in 20..30 {
        shop.live_an_order(seed).await.expect("the order lives");
    }
    let verdict = system.settle(HEALED_WITHIN).await;
    assert_eq!(verdict.differences, Vec::<String>::new());
    assert_eq!(verdict.history, 90);
    pool.close().await;
}
