//! A primary that is lost, and a standby that takes its place.

use testbed::eventually;

use crate::{postgres_support::FailingApp, support::Options};

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

/// Whether a standby has replayed what its primary has written.
async fn follows(
    primary: &testbed::PrivatePostgres,
    standby: &testbed::PrivatePostgres,
) -> Result<bool, sqlx::Error> {
    use sqlx::Connection as _;
    let mut connection = sqlx::PgConnection::connect(primary.url()).await?;
    let written: i64 = sqlx::query_scalar("SELECT (pg_current_wal_lsn() - '0/0')::bigint")
        .fetch_one(&mut connection)
        .await?;
    let mut connection = sqlx::PgConnection::connect(standby.url()).await?;
    let replayed: i64 = sqlx::query_scalar("SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint")
        .fetch_one(&mut connection)
        .await?;
    Ok(replayed >= written)
}
