//! A PostgreSQL that is stopped and started again.

use crate::{postgres_support::FailingApp, support::Options};

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_postgresql_costs_no_request_that_comes_after_it() {
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
    app.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_postgresql_is_away_answers_are_503_and_all_is_well_when_it_is_back() {
    let server = testbed::private_postgres().await;
    let app = FailingApp::start(Options::default(), server.url()).await;
    app.warm_up().await;
    server.kill();
    app.everything_works().await.expect_err("PostgreSQL is away");
    server.start().await;
    app.recovers().await;
    app.drain().await;
}
