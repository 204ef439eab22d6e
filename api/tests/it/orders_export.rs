//! `GET /api/v1/orders/export`.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use api::http::orders::bulk_limits::BulkLimit;
use futures_util::future::join_all;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use reqwest::StatusCode;
use serde_json::{Value, json};
use testbed::eventually;

use crate::{
    bulk_support::{EXPORT, NDJSON, RawStream, json_lines},
    orders_support::{order, path},
    support::{Session, TestApp},
};

/// Enough that no buffer of the kernel holds all of it: some 25 MB.
const MANY: i64 = 100_000;

/// The orders of an export without its first and last line.
fn orders_of(mut lines: Vec<Value>) -> Vec<Value> {
    let last = lines.pop().expect("a last line");
    assert_eq!(last, json!({"complete": true, "rows": lines.len() - 1}));
    let first = lines.remove(0);
    assert!(first["feed_cursor"].as_str().is_some_and(|cursor| !cursor.is_empty()), "{first}");
    lines
}

#[tokio::test]
async fn an_export_has_every_order_newest_first_between_its_cursor_and_its_count() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    app.seed_orders(1, 1_203).await;
    let placed = session.place(&order()).await;
    let export = session.get(EXPORT).await.expect(StatusCode::OK);
    assert_eq!(export.header("content-type"), Some(NDJSON));
    assert_eq!(export.header("content-disposition"), Some("attachment; filename=\"orders.ndjson\""));
    assert_eq!(export.header("cache-control"), Some("no-store"));
    let orders = orders_of(json_lines(&export.bytes));
    assert_eq!(orders.len(), 1_204);
    assert_eq!(orders[0], session.get(&path(placed)).await.json);
    let created: Vec<&str> = orders.iter().map(|order| order["created_at"].as_str().unwrap()).collect();
    assert!(created.is_sorted_by(|a, b| a >= b));
}

#[tokio::test]
async fn csv_has_a_row_an_order_and_its_cursor_and_count_in_comments_at_the_end() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let export = session.get(&format!("{EXPORT}?format=csv")).await.expect(StatusCode::OK);
    assert_eq!(export.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    let text = String::from_utf8(export.bytes).unwrap();
    let lines: Vec<&str> = text.split("\r\n").collect();
    let [header, row, cursor, complete, ""] = lines[..] else { panic!("{text}") };
    assert_eq!(
        header,
        "id,customer_id,order_date,status,total_amount,version,created_at,updated_at,lines,reference,metadata"
    );
    let order = session.get(&path(id)).await.json;
    let quoted = order["lines"].to_string().replace('"', "\"\"");
    let at = order["created_at"].as_str().unwrap();
    // The test's JSON has its members in another order.
    assert_eq!(row.len(), format!("{id},1,2025-01-20,PENDING,66.00,1,{at},{at},\"{quoted}\",,{{}}").len());
    assert!(row.starts_with(&format!("{id},1,2025-01-20,PENDING,66.00,1,{at},{at},\"[{{")), "{row}");
    assert!(row.ends_with("}]\",,{}"), "{row}");
    assert!(cursor.starts_with("# feed_cursor: "), "{cursor}");
    assert_eq!(complete, "# complete: true, rows: 1");
}

#[tokio::test]
async fn an_export_takes_the_filters_of_the_list_and_a_customer_exports_its_own_orders() {
    let app = TestApp::start().await;
    let (one, admin) = (app.login(1).await, app.login_admin(9).await);
    app.seed_orders(1, 3).await;
    app.seed_orders(2, 2).await;
    let shipped = one.place(&order()).await;
    one.put(&path(shipped), &json!({"status": "SHIPPED"})).await.expect(StatusCode::OK);
    let count = async |session: &Session, query: &str| {
        let export = session.get(&format!("{EXPORT}{query}")).await.expect(StatusCode::OK);
        orders_of(json_lines(&export.bytes)).len()
    };
    assert_eq!(count(&one, "").await, 4);
    assert_eq!(count(&admin, "?format=ndjson").await, 6);
    assert_eq!(count(&admin, "?customer_id=2").await, 2);
    assert_eq!(count(&one, "?status=SHIPPED").await, 1);
    assert_eq!(count(&one, "?product_id=1002&min_total=66&max_total=66").await, 1);
    assert_eq!(count(&one, "?order_date_from=2025-01-21").await, 0);
    let foreign = one.get(&format!("{EXPORT}?customer_id=2")).await;
    foreign.expect_problem(StatusCode::FORBIDDEN, "forbidden");
    let wrong = one.get(&format!("{EXPORT}?format=xml&page=1&size=5&min_total=2&max_total=1")).await;
    let wrong = wrong.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    let faults =
        ["?format invalid_value", "?max_total out_of_range", "?page unknown_field", "?size unknown_field"];
    assert_eq!(wrong.faults(), faults);
    let stranger = app.get(EXPORT).await;
    stranger.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
}

/// The events after a cursor to the end of the log, once the relay has given all of them a position.
async fn events_after(app: &TestApp, session: &Session, cursor: &str) -> Vec<Value> {
    let last = app.count("SELECT max(id) FROM outbox").await;
    eventually("every event has a position", async || {
        let position = sqlx::query_scalar::<_, Option<i64>>("SELECT log_position($1)").bind(last);
        position.fetch_one(&app.db).await.expect("an answer").is_some()
    })
    .await;
    let (mut events, mut after, mut has_more) = (Vec::new(), cursor.to_owned(), true);
    while has_more {
        let page = session.get(&format!("/api/v1/events?after={after}&limit=1000")).await;
        let page = page.expect(StatusCode::OK).json;
        events.extend(page["events"].as_array().expect("events").iter().map(|item| item["event"].clone()));
        page["next"].as_str().expect("a cursor").clone_into(&mut after);
        has_more = page["has_more"] == true;
    }
    events
}

/// Places, changes and deletes orders until it is told to stop.
async fn write_until(stop: &AtomicBool, session: &Session, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut own = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match random.random_range(0..4) {
            0 if !own.is_empty() => {
                let id: i64 = own.swap_remove(random.random_range(0..own.len()));
                session.delete(&path(id)).await.expect(StatusCode::NO_CONTENT);
            }
            1 if !own.is_empty() => {
                let id = own[random.random_range(0..own.len())];
                let date =
                    format!("2024-{:02}-{:02}", random.random_range(1..13), random.random_range(1..29));
                session.patch(&path(id), &json!({"order_date": date})).await.expect(StatusCode::OK);
            }
            _ => own.push(session.place(&order()).await),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_under_load_and_the_feed_from_its_cursor_are_equal_to_the_tables() {
    let app = TestApp::start().await;
    let admin = app.login_admin(9).await;
    let writers = join_all((1..=4).map(|customer| app.login(customer))).await;
    let stop = AtomicBool::new(false);
    let load = join_all((1..).zip(&writers).map(|(seed, session)| write_until(&stop, session, seed)));
    let export = async {
        eventually("there is something to export", async || {
            app.count("SELECT count(*) FROM orders WHERE tenant_id = 1").await > 20
        })
        .await;
        app.seed_orders(9, 5_000).await;
        let export = admin.get(EXPORT).await.expect(StatusCode::OK);
        stop.store(true, Ordering::Relaxed);
        json_lines(&export.bytes)
    };
    let (exported, _) = tokio::join!(export, load);
    let cursor = exported[0]["feed_cursor"].as_str().expect("a cursor").to_owned();

    let mut copy: HashMap<i64, (i64, Value)> = HashMap::new();
    for order in orders_of(exported) {
        let (id, version) = (order["id"].as_i64().unwrap(), order["version"].as_i64().unwrap());
        assert!(copy.insert(id, (version, order)).is_none(), "{id} comes twice");
    }
    let events = events_after(&app, &admin, &cursor).await;
    assert!(!events.is_empty(), "nothing happened meanwhile");
    for event in events {
        let data = &event["data"];
        let (id, version) = (data["order_id"].as_i64().unwrap(), data["version"].as_i64().unwrap());
        if copy.get(&id).is_none_or(|(known, _)| *known < version) {
            let order = if event["type"] == "OrderDeleted" { Value::Null } else { data["order"].clone() };
            copy.insert(id, (version, order));
        }
    }
    copy.retain(|_, (_, order)| !order.is_null());

    let stored: Vec<(i64, i64)> = sqlx::query_as("SELECT id, version FROM orders WHERE tenant_id = 1")
        .fetch_all(&app.db)
        .await
        .expect("orders");
    assert_eq!(copy.len(), stored.len());
    for (id, version) in stored {
        assert_eq!(copy.get(&id).map(|(version, _)| *version), Some(version), "{id}");
    }
    // To the last field.
    let again = orders_of(json_lines(&admin.get(EXPORT).await.bytes));
    for order in again {
        assert_eq!(copy[&order["id"].as_i64().unwrap()].1, order);
    }
}

/// The last line of an export.
async fn last_line(mut export: RawStream) -> Option<Value> {
    let mut last = None;
    while let Some(line) = export.line().await {
        last = Some(line);
    }
    last
}

/// Reads an export to its end, which is a cut, and returns how many rows came before it.
async fn rows_before_the_cut(mut export: RawStream) -> i64 {
    let mut rows = 0;
    while let Some(line) = export.line().await {
        assert!(line["complete"].is_null(), "it is not complete");
        rows += 1;
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_cuts_an_export_within_a_second_and_the_file_shows_it() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    app.seed_orders(1, MANY).await;
    let mut export = RawStream::open(&app, &session, "GET", EXPORT).await;
    assert!(export.line().await.expect("a first line")["feed_cursor"].is_string());
    let begun = Instant::now();
    let read = async { (rows_before_the_cut(export).await, begun.elapsed()) };
    let ((rows, took), ()) = tokio::join!(read, app.drain());
    assert!(rows < MANY);
    // A busy machine gets ten.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_cuts_the_exports_of_the_tenant_and_of_no_other() {
    // Of each tenant more than the kernel buffers until the clients read on.
    const OF_EACH: i64 = 20_000;
    let app = TestApp::start().await;
    let operator = app.login_operator().await;
    let tenant = app.create_tenant("shop").await;
    let (suspended, other) = (app.login_in(tenant, 1).await, app.login(1).await);
    app.seed_orders(1, 2 * OF_EACH).await;
    app.sql("UPDATE order_lines SET tenant_id = t.id FROM tenants t WHERE slug = 'shop' AND order_id % 2 = 0 AND tenant_id = 1").await;
    app.sql("UPDATE orders o SET tenant_id = t.id FROM tenants t WHERE slug = 'shop' AND o.id % 2 = 0 AND tenant_id = 1").await;
    let mut cut = RawStream::open(&app, &suspended, "GET", EXPORT).await;
    let mut whole = RawStream::open(&app, &other, "GET", EXPORT).await;
    for export in [&mut cut, &mut whole] {
        export.line().await.expect("a first line");
    }
    operator.suspend(tenant).await;
    assert!(rows_before_the_cut(cut).await < OF_EACH);
    assert_eq!(last_line(whole).await, Some(json!({"complete": true, "rows": OF_EACH})));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_or_has_gone_makes_room_for_the_next() {
    let app = TestApp::with()
        .tune(|config| {
            config.http.bulk.exports = BulkLimit { total: 1, of_tenant: 1, of_one: 1 };
            config.http.server.write_timeout = Duration::from_secs(5);
        })
        .start()
        .await;
    let session = app.login(1).await;
    app.seed_orders(1, MANY).await;
    let query = format!("{EXPORT}?order_date_from=2025-01-21");
    for goes in [true, false] {
        let mut export = RawStream::open(&app, &session, "GET", EXPORT).await;
        export.line().await.expect("a first line");
        let refused = session.get(&query).await;
        let refused = refused.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
        assert_eq!(refused.header("retry-after"), Some("5"));
        let silent = (!goes).then_some(export);
        eventually("there is room", async || session.get(&query).await.status == StatusCode::OK).await;
        drop(silent);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_takes_longer_than_a_request_can() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    app.seed_orders(1, MANY).await;
    let limit = Duration::from_secs(2);
    let limited = app.replica_with(|config| config.http.request_timeout = limit).await;
    let mut export = RawStream::open_at(limited.app.addr, &session, "GET", EXPORT).await;
    export.line().await.expect("a first line");
    // Its client takes its time; more waits than the kernel buffers.
    tokio::time::sleep(limit).await;
    assert_eq!(last_line(export).await, Some(json!({"complete": true, "rows": MANY})));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_whose_database_fails_is_cut_and_the_next_one_is_a_problem() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    app.seed_orders(1, MANY).await;
    let mut export = RawStream::open(&app, &session, "GET", EXPORT).await;
    export.line().await.expect("a first line");
    sqlx::query("DROP TABLE order_lines").execute(&app.db).await.expect("it goes");
    let mut last = None;
    while let Some(line) = export.line().await {
        last = Some(line);
    }
    assert!(last.expect("some orders")["complete"].is_null(), "it is not complete");
    session.get(EXPORT).await.expect_problem(StatusCode::INTERNAL_SERVER_ERROR, "internal_error");
}
