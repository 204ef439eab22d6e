//! A primary that is lost, and a standby that takes its place.

use reqwest::{Method, StatusCode};
use testbed::{Proxy, eventually};

use crate::{
    orders_support::order,
    postgres_support::{FailingApp, follows},
    support::{Options, TestApp, answer, server_address},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_api_connected_to_a_standby_works_within_seconds_of_its_promotion() {
    let primary = testbed::private_postgres().await;
    let standby = primary.standby().await;
    let app = FailingApp::start(Options::default(), standby.url()).await;
    // Connections are tried, and none that leads to a standby is kept.
    for _ in 0..2 {
        app.everything_works().await.expect_err("a standby takes no writes");
    }
    primary.kill();
    standby.promote().await;
    app.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_hosts_the_api_finds_the_one_that_was_promoted() {
    let primary = testbed::private_postgres().await;
    let standby = primary.standby().await;
    let (user, _) = primary.url().split_once('@').expect("a user");
    let url =
        format!("{user}@{},{}/orders?target_session_attrs=read-write", standby.address(), primary.address());
    let app = FailingApp::start(Options::default(), &url).await;
    app.warm_up().await;
    eventually("the standby has it all", async || follows(&primary, &standby).await).await;
    primary.kill();
    standby.promote().await;
    app.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_the_sequence_of_a_promoted_server_gives_out_again_is_never_answered_for_another_order() {
    let (database, redis) = tokio::join!(testbed::postgres(), testbed::redis());
    let server = server_address("DATABASE_URL");
    let proxy = Proxy::start(server.clone()).await;
    let url = database.url().replacen(&server, &proxy.addr().to_string(), 1);
    let app = TestApp::start_with(Options::default().set("DATABASE_URL", url), database, redis).await;
    let session = app.session(1);
    let first = session.place(&order()).await;
    // This replica has the next ids in memory, and a replica on the promoted server got them once more.
    let take_id = |id: i64| {
        sqlx::query(
            "INSERT INTO orders (id, customer_id, order_date, status, total_amount, version, created_at, updated_at)
             VALUES ($1, 2, '2025-01-20', 'PENDING', 1, 1, now(), now())",
        )
        .bind(id)
        .execute(&app.db)
    };
    take_id(first + 1).await.expect("the order of another replica");
    let refused = session.post("/api/v1/orders", &order()).await;
    refused.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    let second = session.place(&order()).await;
    assert!(second > first + 1, "{second}");

    // Now the outcome of the first attempt is unknown, so an order of that id might be the one that it wrote.
    take_id(second + 1).await.expect("the order of another replica");
    proxy.silence();
    let refused = session.post("/api/v1/orders", &order()).await;
    refused.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    let placed = answer(session.request(Method::POST, "/api/v1/orders").json(&order())).await;
    assert_eq!(placed.expect(StatusCode::CREATED).json["customer_id"], 1);
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_primary_that_lives_on_is_not_read_from_as_a_replica() {
    let replaced = testbed::private_postgres().await;
    let standby = replaced.standby().await;
    eventually("the standby has it all", async || follows(&replaced, &standby).await).await;
    standby.promote().await;
    let options = Options::default().set("DATABASE_READ_URL", replaced.url());
    let it = FailingApp::start(options, standby.url()).await;
    it.warm_up().await;
    eventually("the report says so", async || {
        let report = it.app.get("/health").await.json;
        let detail = report["services"]["database_read"]["detail"].as_str().unwrap_or_default().to_owned();
        if detail.contains("was replaced") { Ok(()) } else { Err(report) }
    })
    .await;
}
