//! Lists and histories with `DATABASE_READ_URL`. The replica is another database, so that its answers can be told from those of
//! the primary: it has no orders.

use reqwest::StatusCode;
use testbed::{Proxy, eventually};

use crate::{
    orders_support::order,
    support::{Session, TestApp, server_address},
};

struct Replicated {
    app: TestApp,
    session: Session,
    to_replica: Proxy,
    replica: testbed::Database,
}

impl Replicated {
    async fn start() -> Self {
        let to_replica = Proxy::start(server_address("DATABASE_URL")).await;
        let replica = testbed::postgres().await;
        let address = to_replica.addr().to_string();
        let url = replica.url().replacen(&server_address("DATABASE_URL"), &address, 1);
        let app = TestApp::with().set("DATABASE_READ_URL", url).start().await;
        let session = app.login(7).await;
        session.place(&order()).await;
        Self { app, session, to_replica, replica }
    }

    /// Has the replica seem to be as far as this many seconds before now.
    async fn set_replica_behind(&self, seconds: f64) {
        sqlx::query("UPDATE relay SET updated_at = clock_timestamp() - make_interval(secs => $1)")
            .bind(seconds)
            .execute(&self.replica.connect().await)
            .await
            .expect("the replica's row");
    }

    /// How many orders the list has; every answer must be one.
    async fn listed(&self) -> usize {
        let list = self.session.get("/api/v1/orders").await.expect(StatusCode::OK);
        list.json["orders"].as_array().expect("orders").len()
    }

    async fn until_health(&self, status: &str, detail: &str) {
        eventually(&format!("the replica is {status} with {detail:?}"), async || {
            let report = self.app.get("/health").await;
            let replica = &report.json["services"]["database_read"];
            let said = replica["detail"].as_str().unwrap_or_default();
            let is_so =
                replica["status"] == status && said.contains(detail) && report.json["status"] == status;
            if is_so { Ok(()) } else { Err(report.json) }
        })
        .await;
    }

    async fn until_read_from_replica(&self) {
        eventually("the replica answers", async || self.listed().await == 0).await;
    }
}

#[tokio::test]
async fn a_replica_that_is_far_behind_is_not_read_from_and_health_says_so() {
    let it = Replicated::start().await;
    it.set_replica_behind(60.0).await;
    it.until_health("degraded", "behind the primary").await;
    assert_eq!(it.listed().await, 1);
    // As far as the primary from now on.
    it.set_replica_behind(-3600.0).await;
    it.until_health("healthy", "").await;
    it.until_read_from_replica().await;
    it.set_replica_behind(60.0).await;
    eventually("the primary answers", async || it.listed().await == 1).await;
    it.app.drain().await;
}

#[tokio::test]
async fn while_the_replica_is_down_or_silent_lists_and_histories_are_read_from_the_primary() {
    let it = Replicated::start().await;
    it.set_replica_behind(-3600.0).await;
    it.until_read_from_replica().await;

    it.to_replica.refuse().await;
    it.to_replica.cut();
    eventually("the primary answers", async || it.listed().await == 1).await;
    it.session.get("/api/v1/orders/1/history").await.expect(StatusCode::OK);
    it.until_health("degraded", "does not answer").await;
    it.app.expect_ready().await;
    it.to_replica.accept().await;
    it.until_read_from_replica().await;

    it.to_replica.freeze();
    assert_eq!(it.listed().await, 1);
    it.until_health("degraded", "").await;
    it.to_replica.thaw();
    it.until_read_from_replica().await;
    it.app.drain().await;
}

#[tokio::test]
async fn a_request_that_takes_too_long_on_the_replica_takes_it_from_no_other() {
    let it = Replicated::start().await;
    it.set_replica_behind(-3600.0).await;
    it.until_read_from_replica().await;
    let replica = it.replica.connect().await;
    let mut holder = replica.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").execute(&mut *holder).await.expect("a lock");
    assert_eq!(it.listed().await, 1, "the primary answers");
    let health = it.app.app.state.orders.read_db().replica_health().expect("a replica");
    assert_eq!(health.unusable, None);
    holder.rollback().await.expect("the lock is gone");
    assert_eq!(it.listed().await, 0);
    it.app.drain().await;
}

#[tokio::test]
async fn an_export_is_read_from_the_primary_so_that_it_is_as_new_as_its_cursor() {
    let it = Replicated::start().await;
    it.set_replica_behind(-3600.0).await;
    it.until_read_from_replica().await;
    let export = it.session.get("/api/v1/orders/export").await.expect(StatusCode::OK);
    let text = String::from_utf8(export.bytes).expect("UTF-8");
    assert!(text.ends_with("{\"complete\":true,\"rows\":1}\n"), "{text}");
    it.app.drain().await;
}

#[tokio::test]
async fn without_a_replica_health_does_not_report_one() {
    let app = TestApp::start().await;
    assert!(app.get("/health").await.json["services"].get("database_read").is_none());
}
