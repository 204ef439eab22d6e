//! Redis servers that replace each other.

use testbed::{RedisGroup, eventually, private_redis_cluster, private_redis_sentinel};

const KEY: &str = "order:1";

async fn a_killed_and_a_frozen_master_are_replaced(group: RedisGroup) {
    let first = group.master_of(KEY).await;
    first.ask::<()>(&["SET", KEY, "kept"]).await;
    group.wait_replicated(first).await;
    first.kill();
    let second = group.successor_of(first, KEY).await;
    assert_eq!(second.ask::<String>(&["GET", KEY]).await, "kept");

    first.start().await;
    group.wait_ready().await;
    assert_eq!(first.info("role").await, "slave");

    second.pause();
    let third = group.successor_of(second, KEY).await;
    third.ask::<()>(&["SET", KEY, "changed"]).await;
    second.resume();
    group.wait_ready().await;
    // The sentinels end the connections of a server that they make a replica, also the one that asks.
    let follows = async || second.try_info("role").await.is_ok_and(|role| role == "slave");
    eventually("the thawed master follows the new one", follows).await;
    assert_eq!(group.master_of(KEY).await.ask::<String>(&["GET", KEY]).await, "changed");
}

#[tokio::test]
async fn sentinels_replace_a_killed_and_a_frozen_master() {
    a_killed_and_a_frozen_master_are_replaced(private_redis_sentinel().await).await;
}

#[tokio::test]
async fn a_cluster_replaces_a_killed_and_a_frozen_master() {
    a_killed_and_a_frozen_master_are_replaced(private_redis_cluster().await).await;
}

#[tokio::test]
async fn a_master_that_is_cut_off_with_one_client_is_replaced_and_still_answers_that_client() {
    let group = private_redis_sentinel().await;
    group.add_user("beside", "secret").await;
    let former = group.master_of(KEY).await;
    group.cut_off(former, "beside", "secret").await;
    group.successor_of(former, KEY).await;
    let set = async |url: &str| {
        let mut connection = testbed::connect_redis(url).await.unwrap();
        redis::cmd("SET").arg(&[KEY, "of the old master"]).exec_async(&mut connection).await
    };
    assert!(set(former.url()).await.unwrap_err().to_string().contains("NOAUTH"));
    set(&format!("redis://beside:secret@{}/0", former.address())).await.unwrap();

    group.let_back(former, "beside", "secret").await;
    group.wait_ready().await;
    assert_eq!(former.info("role").await, "slave");
}
