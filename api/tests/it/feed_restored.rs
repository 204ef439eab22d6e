//! Cursors of the feed after the database was restored from a dump, in a new cluster.

use std::process::Stdio;

use reqwest::StatusCode;
use testbed::install::PSQL;
use tokio::process::Command;

use crate::{
    orders_support::order,
    support::{Options, TestApp},
};

/// Copies a database into another one, by `pg_dump` and `psql`.
async fn restore_dump(from: &str, into: &str) {
    let psql = PSQL.binary().await.expect("psql");
    let pg_dump = psql.with_file_name("pg_dump");
    let dump = Command::new(pg_dump).args(["--no-owner", from]).output().await.expect("pg_dump");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let file = testbed::paths::data().join(format!("dump-{}.sql", uuid::Uuid::now_v7()));
    tokio::fs::create_dir_all(testbed::paths::data()).await.expect("a folder");
    tokio::fs::write(&file, &dump.stdout).await.expect("a file");
    let restore = Command::new(psql)
        .args([
            into,
            "-X",
            "-q",
            "-v",
            "ON_ERROR_STOP=1",
            "-c",
            "DROP SCHEMA public CASCADE",
            "-c",
            "CREATE SCHEMA public",
            "-f",
        ])
        .arg(&file)
        .stdout(Stdio::null())
        .output()
        .await
        .expect("psql");
    tokio::fs::remove_file(&file).await.expect("removed");
    assert!(restore.status.success(), "{}", String::from_utf8_lossy(&restore.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_new_cluster_a_cursor_from_before_the_dump_goes_on_and_a_later_one_is_gone() {
    let app = TestApp::start().await;
    let alice = app.session(1);
    let mut placed = Vec::new();
    for _ in 0..3 {
        placed.push(alice.place(&order()).await);
    }
    app.sequenced().await;
    let (seen, before_the_dump) = alice.read_on("start", "limit=2").await;
    assert_eq!(seen, placed);
    let dumped = [alice.place(&order()).await, alice.place(&order()).await];
    app.sequenced().await;
    let new_cluster = testbed::private_postgres().await;
    let url = app.app.state.config.database_url.clone();
    restore_dump(secrecy::ExposeSecret::expose_secret(&url), new_cluster.url()).await;
    // Lost with the old cluster.
    alice.place(&order()).await;
    app.sequenced().await;
    let (_, after_the_dump) = alice.read_on(&before_the_dump, "limit=2").await;

    let (database, redis) = tokio::join!(testbed::postgres(), testbed::redis());
    let options = Options::default().set("DATABASE_URL", new_cluster.url());
    let restored = TestApp::start_with(options, database, redis).await;
    let alice = restored.session(1);
    let new = [alice.place(&order()).await, alice.place(&order()).await];
    testbed::eventually("the new events have positions", async || {
        let (orders, _) = alice.read_on(&before_the_dump, "limit=2").await;
        (orders == [dumped, new].concat()).then_some(()).ok_or(orders)
    })
    .await;
    let gone = alice.events(&format!("after={after_the_dump}")).await;
    gone.expect_problem(StatusCode::GONE, "cursor_expired");
    let (all, _) = alice.read_on("start", "limit=2").await;
    assert_eq!(all, [placed, dumped.to_vec(), new.to_vec()].concat());
}
