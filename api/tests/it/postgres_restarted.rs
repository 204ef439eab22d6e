//! A PostgreSQL that is stopped and started again.

use crate::{postgres_support::FailingApp, support::Options};

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_of_postgresql_no_new_request_fails() {
    let server = testbed::private_postgres().await;
    let app = FailingApp::start(Options::default(), server.url()).await;
    app.warm_up().await;
    let (mut restarts, mut failures) = (0, Vec::new());
    while restarts < 2 {
        server.stop().await;
        server.start().await;
        // Every connection of every pool is dead, and each request takes another one.
        match app.everything_but_the_relay_works_at_once().await {
            Ok(()) => restarts += 1,
            // A busy machine may be too late once; a dead connection that is used fails a request each time.
            Err(failure) => failures.push(failure),
        }
        assert!(failures.len() < 3, "{failures:?}");
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
