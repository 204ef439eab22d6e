//! `clear-cache` with every kind of Redis.

use testbed::RedisGroup;

use crate::tool::Workspace;

async fn forgets_only_cached_orders(group: RedisGroup) {
    let orders: Vec<String> = (1..=9).map(|id| format!("cache:1a2b3c4d:{{order:{id}}}")).collect();
    let others: Vec<String> = (1..=9).map(|id| format!("session:{id}")).collect();
    for key in orders.iter().chain(&others) {
        group.master_of(key).await.ask::<()>(&["SET", key, "x"]).await;
    }
    let workspace = Workspace::new();
    let tool = workspace.launch_with("true", &["clear-cache"], &[("REDIS_URL", group.url())]);
    let (status, log) = tool.wait().await;
    assert!(status.success() && log.contains("9 cached orders forgotten"), "{status}: {log}");
    for key in &others {
        assert!(group.master_of(key).await.ask::<bool>(&["EXISTS", key]).await, "{key}");
    }
}

#[tokio::test]
async fn behind_sentinels_only_cached_orders_are_forgotten() {
    forgets_only_cached_orders(testbed::private_redis_sentinel().await).await;
}

#[tokio::test]
async fn in_a_cluster_only_cached_orders_are_forgotten() {
    forgets_only_cached_orders(testbed::private_redis_cluster().await).await;
}
