//! `POST /api/v1/orders/import`.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use api::http::orders::bulk_limits::BulkLimit;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use testbed::eventually;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    bulk_support::{CSV, EXPORT, IMPORT, NDJSON, RawStream, csv_file, json_lines, ndjson_file},
    orders_support::{order, path},
    support::{Session, TestApp, answer},
};

const ORDERS: &str = "SELECT count(*) FROM orders WHERE tenant_id = 1";

#[tokio::test]
async fn each_row_is_placed_and_has_its_result_in_the_order_of_the_rows() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    for (content_type, file) in
        [(NDJSON, ndjson_file(1, 300)), (CSV, csv_file(1, 300)), ("Text/CSV; charset=utf-8", csv_file(1, 1))]
    {
        let imported = session.import(content_type, None, file).await;
        let rows = imported.rows.len();
        let end = json!({"complete": true, "rows": rows, "created": rows, "replayed": 0, "failed": 0});
        assert_eq!(imported.end, end);
        let last = imported.rows.last().unwrap();
        let id = last["id"].as_i64().unwrap();
        assert_eq!(*last, json!({"row": rows, "status": 201, "id": id, "version": 1}));
        let stored = session.get(&path(id)).await.expect(StatusCode::OK);
        assert_eq!(stored.json["lines"][0]["product_id"], rows);
        assert_eq!(stored.json["total_amount"], "51.00");
        assert_eq!(app.events(id).await, ["OrderCreated 1"]);
    }
    assert_eq!(app.count(ORDERS).await, 601);
}

#[tokio::test]
async fn a_bad_row_is_its_own_result_with_pointers_into_the_row() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let good = order().to_string();
    let foreign = r#"{"customer_id":2,"order_date":"2025-01-20","lines":[{"product_id":1,"quantity":1,"unit_price":1}]}"#;
    let too_long = format!("{{\"x\":\"{}\"}}", "x".repeat(256 * 1024));
    let file = format!(
        "{good}\nnonsense\n\n{{\"order_date\":\"2025-01-20\",\"lines\":[{{\"product_id\":1,\"quantity\":0,\"unit_price\":1}}],\"a\":1}}\n\
         {foreign}\n{too_long}\n{good}"
    );
    let imported = session.import(NDJSON, None, file).await;
    assert_eq!(imported.statuses(), [201, 400, 422, 403, 413, 201]);
    let problem = &imported.rows[2]["problem"];
    let pointers: Vec<&Value> =
        problem["errors"].as_array().unwrap().iter().map(|error| &error["pointer"]).collect();
    assert_eq!(pointers, ["/lines/0/quantity", "/a"]);
    assert_eq!(problem["instance"], IMPORT);
    let end = json!({"complete": true, "rows": 6, "created": 2, "replayed": 0, "failed": 4});
    assert_eq!(imported.end, end);
}

#[tokio::test]
async fn bad_rows_of_csv_are_their_own_results() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let good = r#"2025-01-20,"[{""product_id"":1,""quantity"":1,""unit_price"":1}]""#;
    let lone_lines = r#"2025-01-20,"[{""product_id"":1,""quantity"":1,""unit_price"":1}],""#;
    let file = format!(
        "order_date,lines\n{good}\n# no comment\n2025-01-20\n2025-13-20,x\n,[]\n{lone_lines}\n\n{good},1\n{}\n{good}\n",
        "x".repeat(300 * 1024)
    );
    let imported = session.import(CSV, None, file).await;
    assert_eq!(imported.statuses(), [201, 400, 400, 422, 422, 422, 400, 413, 201]);
    let codes = |row: usize| -> Vec<String> {
        let errors = imported.rows[row]["problem"]["errors"].as_array().unwrap();
        errors
            .iter()
            .map(|error| format!("{} {}", error["pointer"], error["code"]).replace('"', ""))
            .collect()
    };
    assert_eq!(codes(3), ["/order_date invalid_value", "/lines invalid_type"]);
    assert_eq!(codes(4), ["/order_date required", "/lines invalid_length"]);
}

#[tokio::test]
async fn the_same_file_with_the_same_key_reports_what_was_placed_and_places_nothing_twice() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let first = session.import(NDJSON, Some("k"), ndjson_file(1, 20)).await;
    let longer = session.import(NDJSON, Some("k"), ndjson_file(1, 25)).await;
    assert_eq!(first.ids(), longer.ids()[..20]);
    assert!(longer.rows[..20].iter().all(|row| row["replayed"] == true && row["status"] == 201));
    assert!(longer.rows[20..].iter().all(|row| row["replayed"].is_null()));
    let end = json!({"complete": true, "rows": 25, "created": 5, "replayed": 20, "failed": 0});
    assert_eq!(longer.end, end);
    // The same rows as CSV are the same requests.
    let as_csv = session.import(CSV, Some("k"), csv_file(1, 25)).await;
    assert_eq!(as_csv.ids(), longer.ids());
    assert_eq!(app.count(ORDERS).await, 25);

    let key = "SELECT count(*) FROM idempotency_keys WHERE key = 'k#25'";
    assert_eq!(app.count(key).await, 1);
    let changed = session.import(NDJSON, Some("k"), order().to_string()).await;
    assert_eq!(changed.rows[0]["problem"]["code"], "idempotency_key_reused");
}

/// Sends the first bytes of a file, and closes the connection.
async fn import_cut(app: &TestApp, session: &Session, content_type: &str, key: &str, file: &str, cut: usize) {
    let mut stream = TcpStream::connect(app.app.addr).await.expect("a connection");
    let head = format!(
        "POST {IMPORT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: {content_type}\r\n\
         Idempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n",
        session.access,
        file.len()
    );
    stream.write_all(head.as_bytes()).await.expect("the head is taken");
    // A refused header of CSV may have closed it.
    let _sent = stream.write_all(&file.as_bytes()[..cut]).await;
}

#[tokio::test]
async fn a_client_that_waits_until_it_may_send_is_told_to_and_a_byte_order_mark_is_no_part_of_a_row() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let file = format!("\u{feff}{}", order());
    let mut stream = TcpStream::connect(app.app.addr).await.expect("a connection");
    let head = format!(
        "POST {IMPORT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: {NDJSON}\r\n\
         Connection: close\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        session.access,
        file.len()
    );
    stream.write_all(head.as_bytes()).await.expect("the head is taken");
    let mut line = [0; 25];
    stream.read_exact(&mut line).await.expect("a response");
    assert_eq!(line.as_slice(), b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(file.as_bytes()).await.expect("the file is taken");
    let mut response = String::new();
    stream.read_to_string(&mut response).await.expect("the results");
    assert!(response.contains(r#""status":201"#), "{response}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_at_random_bytes_and_sent_again_places_every_row_once() {
    const ROWS: i64 = 40;
    // An import that was cut off may still be running when the next one begins.
    let app = TestApp::with()
        .tune(|config| config.http.bulk.imports = BulkLimit { total: 60, of_tenant: 60, of_one: 60 })
        .start()
        .await;
    let admin = app.login_admin(1).await;
    let mut random = StdRng::seed_from_u64(18);
    let mut replayed = 0;
    for customer in 1..=50 {
        let (content_type, file) = if customer % 2 == 0 {
            (NDJSON, ndjson_file(customer, ROWS))
        } else {
            (CSV, csv_file(customer, ROWS))
        };
        let key = format!("cut-{customer}");
        let cut = random.random_range(0..file.len());
        import_cut(&app, &admin, content_type, &key, &file, cut).await;
        let whole = admin.import(content_type, Some(&key), file).await;
        assert_eq!(whole.statuses(), vec![201; 40], "{:?}", whole.rows);
        let ids: HashSet<i64> = whole.ids().into_iter().collect();
        assert_eq!(ids.len(), 40);
        replayed += whole.end["replayed"].as_i64().unwrap();
    }
    let sums = "SELECT count(*) FROM (SELECT o.customer_id, l.product_id FROM orders o JOIN order_lines l ON l.order_id = o.id
                                      WHERE o.tenant_id = 1 GROUP BY 1, 2 HAVING count(*) = 1) AS once";
    assert_eq!((app.count(ORDERS).await, app.count(sums).await), (50 * ROWS, 50 * ROWS));
    assert!(replayed > 0, "no cut came after a row");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_come_while_the_file_is_still_being_sent_beyond_the_time_limit_of_a_request() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let limit = Duration::from_secs(1);
    let limited = app.replica_with(|config| config.http.request_timeout = limit).await;
    let mut import = RawStream::open_at(limited.app.addr, &session, "POST", IMPORT).await;
    let begun = Instant::now();
    let mut row = 0;
    while begun.elapsed() < 2 * limit {
        row += 1;
        import.send(&format!("{}\n", order())).await.expect("it goes on");
        assert_eq!(import.line().await.expect("a result")["row"], row);
    }
    import.finish().await;
    let end = import.line().await.expect("a last line");
    assert_eq!((&end["complete"], &end["created"]), (&json!(true), &json!(row)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_sends_nothing_more_ends_the_import_and_is_told_so() {
    let app = TestApp::with().tune(|config| config.http.bulk.stall = Duration::from_secs(2)).start().await;
    let session = app.login(1).await;
    let mut import = RawStream::open(&app, &session, "POST", IMPORT).await;
    let half = order().to_string();
    import.send(&format!("{half}\n{}", &half[..20])).await.expect("it is taken");
    assert_eq!(import.line().await.expect("a result")["status"], 201);
    let end = import.line().await.expect("a last line");
    assert_eq!((&end["complete"], &end["rows"]), (&json!(false), &json!(1)));
    assert_eq!(end["problem"]["code"], "request_timeout");
    assert_eq!(import.line().await, None, "the connection is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_its_results_is_not_read_from_and_then_closed() {
    let app = TestApp::with()
        .tune(|config| config.http.server.write_timeout = Duration::from_millis(500))
        .start()
        .await;
    let session = app.login(1).await;
    let mut import = RawStream::open(&app, &session, "POST", IMPORT).await;
    // Two bytes make a result of some hundred, and need no database.
    let rows = "x\n".repeat(32 * 1024);
    let mut sent = 0;
    while import.send(&rows).await.is_ok() {
        sent += rows.len();
        assert!(sent < 64 * 1024 * 1024, "rows are read although nobody reads their results");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_ends_an_import_within_a_second_with_a_result_for_each_row_that_was_taken() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let mut import = RawStream::open(&app, &session, "POST", IMPORT).await;
    import.send(&ndjson_file(1, 10)).await.expect("it is taken");
    for row in 1..=10 {
        assert_eq!(import.line().await.expect("a result")["row"], row);
    }
    let read = async {
        let begun = Instant::now();
        (import.line().await.expect("a last line"), begun.elapsed())
    };
    let ((end, took), ()) = tokio::join!(read, app.drain());
    assert_eq!((&end["complete"], &end["rows"]), (&json!(false), &json!(10)));
    assert_eq!(end["problem"]["code"], "unavailable");
    // A busy machine gets ten.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_ends_if_postgresql_stays_away_and_goes_on_with_its_key() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let lock = "BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE";
    let mut blocker = app.db.acquire().await.expect("a connection");
    sqlx::raw_sql(lock).execute(&mut *blocker).await.expect("the lock");
    let ended = session.import(NDJSON, Some("k"), ndjson_file(1, 3)).await;
    assert_eq!(ended.end["complete"], false, "{:?}", ended.end);
    assert_eq!(ended.end["problem"]["code"], "unavailable", "{:?}", ended.end);
    sqlx::raw_sql("ROLLBACK").execute(&mut *blocker).await.expect("the lock is released");
    let whole = session.import(NDJSON, Some("k"), ndjson_file(1, 3)).await;
    assert_eq!((&whole.end["complete"], whole.statuses()), (&json!(true), vec![201; 3]));
    assert_eq!(app.count(ORDERS).await, 3);
}

#[tokio::test]
async fn an_export_can_be_imported_in_both_formats() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    session.import(NDJSON, None, ndjson_file(1, 5)).await;
    let placed = |file: &[u8]| -> Vec<Value> {
        let orders = json_lines(file).into_iter().filter(|line| line["id"].is_i64());
        orders
            .map(|order| json!([order["order_date"], order["total_amount"], order["lines"][0]["product_id"]]))
            .collect()
    };
    let before = session.get(EXPORT).await.expect(StatusCode::OK);
    for (format, content_type) in [("ndjson", NDJSON), ("csv", CSV)] {
        let file = session.get(&format!("{EXPORT}?format={format}")).await.expect(StatusCode::OK);
        for order in json_lines(&session.get(EXPORT).await.bytes) {
            if let Some(id) = order["id"].as_i64() {
                session.delete(&path(id)).await.expect(StatusCode::NO_CONTENT);
            }
        }
        let imported = session.import(content_type, None, String::from_utf8(file.bytes).unwrap()).await;
        assert_eq!(imported.statuses(), vec![201; 5], "{:?}", imported.rows);
        let mut after = placed(&session.get(EXPORT).await.bytes);
        let mut expected = placed(&before.bytes);
        after.sort_by_key(Value::to_string);
        expected.sort_by_key(Value::to_string);
        assert_eq!(after, expected);
    }
}

#[tokio::test]
async fn the_fields_that_an_export_has_beside_must_be_right() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let exported = session.get(&path(id)).await.json;
    let with = |name: &str, value: Value| {
        let mut row = exported.clone();
        row[name] = value;
        row.to_string()
    };
    let rows = [
        exported.to_string(),
        with("total_amount", json!("66.01")),
        with("id", json!("x")),
        with("version", json!(0)),
        with("created_at", json!("yesterday")),
        with("status", json!("SHIPPED")),
    ];
    let imported = session.import(NDJSON, None, rows.join("\n")).await;
    assert_eq!(imported.statuses(), [201, 422, 422, 422, 422, 422]);
    let pointer = |row: usize| imported.rows[row]["problem"]["errors"][0]["pointer"].clone();
    let pointers: Vec<Value> = (1..6).map(pointer).collect();
    assert_eq!(pointers, ["/total_amount", "/id", "/version", "/created_at", "/status"]);
    assert_ne!(imported.ids(), [id], "it gets a number of its own");
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_a_problem_and_places_nothing() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let send = async |content_type: &str, target: &str, file: &str| {
        let request = session.request(Method::POST, target).header("content-type", content_type);
        answer(request.body(file.to_owned())).await
    };
    let json = send("application/json", IMPORT, &order().to_string()).await;
    json.expect_problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type");
    let unknown = send(CSV, IMPORT, "order_date,lines,colour,lines\n").await;
    let unknown = unknown.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    assert_eq!(unknown.faults(), ["/colour unknown_field", "/lines duplicate_field"]);
    send(CSV, IMPORT, "").await.expect_problem(StatusCode::BAD_REQUEST, "malformed_request");
    let parameter = send(NDJSON, &format!("{IMPORT}?dry_run=1"), "").await;
    parameter.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    let stranger = answer(app.request(Method::POST, IMPORT).header("content-type", NDJSON).body("")).await;
    stranger.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
    assert_eq!(session.import(NDJSON, None, "").await.end["rows"], 0);
    assert_eq!(app.count(ORDERS).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_import_of_a_caller_is_refused_until_the_first_has_ended_and_others_are_not() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let mut first = RawStream::open(&app, &session, "POST", IMPORT).await;
    first.send(&ndjson_file(1, 1)).await.expect("it is taken");
    first.line().await.expect("a result");
    let request = || session.request(Method::POST, IMPORT).header("content-type", NDJSON).body("");
    let refused = answer(request()).await.expect_problem(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    assert_eq!(refused.header("retry-after"), Some("5"));
    app.login(2).await.import(NDJSON, None, ndjson_file(2, 1)).await;
    // A client that disappears makes room, too.
    drop(first);
    eventually("there is room", async || answer(request()).await.status == StatusCode::OK).await;
}
