//! Requests that were let in before the removal of their tenant began, and reach PostgreSQL after that.

use reqwest::StatusCode;
use serde_json::json;
use testbed::eventually;

use crate::{
    orders_support::{order, path},
    support::{TestApp, until_available},
};

#[tokio::test]
async fn what_is_written_after_the_removal_of_its_tenant_began_leaves_nothing() {
    let app = TestApp::start().await;
    let tenant = app.create_tenant("late").await;
    let session = app.login_in(tenant, 7).await;
    let (changed, deleted) = (session.place(&order()).await, session.place(&order()).await);

    // Every statement that writes waits for this table, and then sees the tenants as they are.
    let mut holder = app.db.begin().await.unwrap();
    sqlx::query("LOCK TABLE outbox IN SHARE MODE").execute(&mut *holder).await.unwrap();
    let began = async {
        eventually("an order, a batch and the changes wait", async || {
            app.count("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").await >= 3
        })
        .await;
        app.sql("UPDATE tenants SET removal_began_at = now() WHERE slug = 'late'").await;
        holder.rollback().await.unwrap();
    };
    let (new, batch, change) = (order(), json!({"orders": [order()]}), json!({"metadata": {"late": "yes"}}));
    let (changed, deleted) = (path(changed), path(deleted));
    // No request waits for over two seconds; one that a busy machine makes wait longer is sent again.
    let (created, batch, changed, deleted, ()) = tokio::join!(
        until_available(async || session.post("/api/v1/orders", &new).await),
        until_available(async || session.post("/api/v1/orders/batch", &batch).await),
        until_available(async || session.patch(&changed, &change).await),
        until_available(async || session.delete(&deleted).await),
        began,
    );
    for answer in [created, batch, changed, deleted] {
        answer.expect_problem(StatusCode::FORBIDDEN, "tenant_suspended");
    }
    let as_before = "SELECT (count(*) = 2 AND max(o.version) = 1 AND (SELECT count(*) FROM outbox e WHERE e.tenant_id = t.id) = 2)::int::bigint
         FROM tenants t JOIN orders o ON o.tenant_id = t.id WHERE t.slug = 'late' GROUP BY t.id";
    assert_eq!(app.count(as_before).await, 1);
}
