//! PgBouncer between the API and PostgreSQL.

use testbed::eventually;

use crate::{postgres_support::FailingApp, support::Options};

#[tokio::test(flavor = "multi_thread")]
async fn with_pgbouncer_in_session_mode_everything_works() {
    let database = testbed::postgres().await;
    let bouncer = testbed::private_pgbouncer(database.url(), "session").await;
    let app = FailingApp::start(Options::default(), bouncer.url()).await;
    app.warm_up().await;
    app.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_pgbouncer_in_transaction_mode_nothing_is_tried_and_the_error_names_the_reason() {
    let database = testbed::postgres().await;
    let bouncer = testbed::private_pgbouncer(database.url(), "transaction").await;
    let app = FailingApp::start(Options::default(), bouncer.url()).await;
    let refused = eventually("it is noticed", async || app.app.app.state.db.acquire().await.err()).await;
    assert!(refused.to_string().contains("pool_mode"), "{refused}");
    app.everything_works().await.expect_err("nothing works, and no answer is 500");
}
