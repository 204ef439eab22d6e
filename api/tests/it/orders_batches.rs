//! Requests that share a commit. PostgreSQL refuses something that no validation foresees, here by a trigger: only the
//! request that brought it may suffer.

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use testbed::eventually;

use crate::{
    orders_support::{order, path},
    support::{Session, TestApp},
};

/// How many requests are sent at once.
const REQUESTS: i64 = 8;

/// Has PostgreSQL refuse the rows of which `which` is true, and count all rows that it is given, also by statements that
/// are rolled back.
async fn refuse(app: &TestApp, event: &str, which: &str) {
    let sql = format!(
        "CREATE SEQUENCE attempts MINVALUE 0;
         SELECT nextval('attempts');
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM nextval('attempts');
             IF {which} THEN RAISE 'not on my watch'; END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER refuse BEFORE {event} FOR EACH ROW EXECUTE FUNCTION refuse()"
    );
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&app.db).await.expect("the trigger is made");
}

/// Sends the requests at once, and gives the statuses of the answers.
async fn at_once(session: &Session, method: Method, requests: &[(String, Value)]) -> Vec<StatusCode> {
    let sent = requests.iter().map(|(path, body)| session.send(method.clone(), path, &[], Some(body)));
    join_all(sent).await.into_iter().map(|answer| answer.status).collect()
}

/// The statuses where all but the fourth succeed.
fn all_but_the_fourth(status: StatusCode) -> Vec<StatusCode> {
    let of = |n| if n == 3 { StatusCode::INTERNAL_SERVER_ERROR } else { status };
    (0..REQUESTS).map(of).collect()
}

#[tokio::test]
async fn an_order_that_postgresql_refuses_fails_no_other_of_its_batch() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    refuse(&app, "INSERT ON order_lines", "NEW.product_id = 13").await;
    let mut bad = order();
    bad["lines"] = json!([{"product_id": 13, "quantity": 1, "unit_price": 1}]);
    let requests: Vec<_> = (0..REQUESTS)
        .map(|n| ("/api/v1/orders".to_owned(), if n == 3 { bad.clone() } else { order() }))
        .collect();

    let mut refused = 0;
    eventually("the refused order was written with others", async || {
        let statuses = at_once(&session, Method::POST, &requests).await;
        assert_eq!(statuses, all_but_the_fourth(StatusCode::CREATED));
        refused += 1;
        // Without neighbours, it is tried twice and they once.
        let lines = app.count("SELECT count(*) FROM order_lines WHERE tenant_id = 1").await;
        app.count("SELECT last_value FROM attempts").await > lines + 2 * refused
    })
    .await;
    for what in ["SELECT count(*) FROM orders WHERE tenant_id = 1", "SELECT count(*) FROM outbox"] {
        assert_eq!(app.count(what).await, refused * (REQUESTS - 1), "{what}");
    }
}

#[tokio::test]
async fn a_change_that_postgresql_refuses_fails_no_other_of_its_batch() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let mut paths = Vec::new();
    for _ in 0..REQUESTS {
        paths.push(path(session.place(&order()).await));
    }
    refuse(&app, "UPDATE ON orders", "NEW.id = 4").await;

    let mut refused = 0;
    eventually("the refused change was written with others", async || {
        let date = ["2025-01-21", "2025-01-22"][usize::from(refused % 2 == 0)];
        let requests: Vec<_> = paths.iter().map(|path| (path.clone(), json!({"order_date": date}))).collect();
        let statuses = at_once(&session, Method::PUT, &requests).await;
        assert_eq!(statuses, all_but_the_fourth(StatusCode::OK));
        refused += 1;
        let changes = app.count("SELECT count(*) FROM outbox WHERE version > 1").await;
        app.count("SELECT last_value FROM attempts").await > changes + 2 * refused
    })
    .await;
    assert_eq!(
        app.count("SELECT sum(version - 1)::bigint FROM orders WHERE tenant_id = 1").await,
        refused * (REQUESTS - 1)
    );
    assert_eq!(app.count("SELECT version FROM orders WHERE id = 4").await, 1);
}
