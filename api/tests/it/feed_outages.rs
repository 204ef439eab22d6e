//! The event feed while what the API depends on is away.

use std::time::Duration;

use reqwest::StatusCode;
use testbed::{Proxy, eventually};

use crate::{
    feed_delivery::{id_of, read_ids},
    orders_cache::with_redis_behind_a_proxy,
    orders_support::order,
    support::{TestApp, server_address},
};

#[tokio::test]
async fn the_feed_needs_neither_redis_nor_the_broker() {
    let nowhere = format!("redis://127.0.0.1:{}", testbed::free_port());
    let app = TestApp::with().set("REDIS_URL", nowhere).start().await;
    let alice = app.session(1);
    let mut stream = alice.stream("after=start").await;
    app.append(1, 1..=3).await;
    assert_eq!(stream.orders(3).await, [1, 2, 3]);
    assert_eq!(alice.read_on("start", "limit=2").await.0, [1, 2, 3]);
    let ticket = alice.post("/api/v1/events/tickets", &serde_json::json!({})).await;
    let refused = ticket.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    assert!(refused.header("retry-after").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_readers_see_every_event_once_while_the_broker_is_away_and_comes_back_empty() {
    const OF_EACH_TIME: usize = 15;
    // Redis is cache and broker.
    let (app, proxy) = with_redis_behind_a_proxy().await;
    let customer = app.session(1);
    let admins = futures_util::future::join_all((1..=10).map(|number| app.login_admin(number))).await;
    let readers = admins.iter().enumerate().map(|(reader, admin)| read_ids(admin, reader, 3 * OF_EACH_TIME));
    let place_some = async || {
        for _ in 0..OF_EACH_TIME {
            customer.place(&order()).await;
        }
        app.sequenced().await;
    };
    let write = async {
        place_some().await;
        proxy.refuse().await;
        proxy.cut();
        place_some().await;
        let () = redis::cmd("FLUSHDB")
            .query_async(&mut app.redis_connection().await)
            .await
            .expect("an empty Redis");
        proxy.accept().await;
        place_some().await;
    };
    let (seen, ()) = tokio::join!(futures_util::future::join_all(readers), write);
    let log: Vec<String> = app.log().await.iter().map(|(_, payload)| id_of(payload)).collect();
    assert_eq!(log.len(), 3 * OF_EACH_TIME);
    for (reader, ids) in seen.iter().enumerate() {
        assert_eq!(ids, &log, "reader {reader}");
    }
}

#[tokio::test]
async fn a_stream_waits_for_postgresql_and_goes_on_while_a_page_is_503() {
    let database = testbed::postgres().await;
    let proxy = Proxy::start(server_address("DATABASE_URL")).await;
    let url = database.url().replacen(&server_address("DATABASE_URL"), &proxy.addr().to_string(), 1);
    let options = TestApp::with()
        .set("DATABASE_URL", url)
        .tune(|config| config.feed.heartbeat = Duration::from_millis(500));
    let app = TestApp::start_with(options, database, testbed::redis().await).await;
    let alice = app.session(1);
    app.append(1, 1..=1).await;
    let mut stream = alice.stream("after=start").await;
    assert_eq!(stream.orders(1).await, [1]);

    proxy.refuse().await;
    proxy.cut();
    alice.events("after=start").await.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    app.append(1, 2..=2).await;
    let mut comments = 0;
    while comments < 3 {
        let block = stream.next().await;
        assert_eq!(block.event, None, "the event cannot be read yet");
        comments += block.comments;
    }
    proxy.accept().await;
    assert_eq!(stream.orders(1).await, [2]);
    eventually("pages come again", async || alice.events("after=start").await.status == StatusCode::OK).await;
    app.drain().await;
}
