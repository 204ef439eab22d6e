//! A PostgreSQL that is stopped and started again.

use crate::{postgres_support::FailingApp, support::Options};

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_postgresql_no_new_request_fails() {
    let server = testbed::private_postgres().await;
    let app = FailingApp::start(Options::default(), server.url()).await;
    app.warm_up().await;
    for _ in 0..2 {
        server.stop().await;
        server.start().await;
        // Every connection of every pool is dead, and each request takes another one.
        app.everything_but_the_relay_works_at_once().await;
        app.recovers().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgresql_requests_are_503_and_work_again_when_it_is_back() {
    let server = testbed::private_postgres().await;
    let app = FailingApp::start(Options::default(), server.url()).await;
    app.warm_up().await;
    server.kill();
    app.everything_works().await.expect_err("PostgreSQL is away");
    server.start().await;
    app.recovers().await;
}
