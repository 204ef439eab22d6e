//! Ids, versions, times, dates and amounts at the ends of their ranges, through PostgreSQL and back: no fault of the server.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use reqwest::{Method, StatusCode};
use serde_json::json;
use shared::domain::order::MAX_VERSION;

use crate::{
    orders_support::{order, path},
    support::TestApp,
};

const ORDERS: &str = "/api/v1/orders";
/// Microseconds since the Unix epoch: the years 1 to 9999.
const FIRST_MICROS: i64 = -62_135_596_800_000_000;
const LAST_MICROS: i64 = 253_402_300_799_999_999;
/// PostgreSQL's first time, in 4713 BC. Its last one is beyond 64 bits.
const POSTGRESQLS_FIRST_MICROS: i64 = -210_866_803_200_000_000;

fn cursor(layout: u8, micros: i64, id: i64) -> String {
    let bytes = [&[layout][..], &micros.to_be_bytes(), &id.to_be_bytes()].concat();
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Numbers around these, as far as there are any.
fn around(numbers: &[i64]) -> Vec<i64> {
    numbers.iter().flat_map(|number| [-1, 0, 1].map(|step| number.saturating_add(step))).collect()
}

#[tokio::test]
async fn an_invented_cursor_is_followed_or_refused() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    session.place(&order()).await;
    let seed: u64 = rand::rng().random();
    println!("the seed is {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let mut times = around(&[i64::MIN, POSTGRESQLS_FIRST_MICROS, FIRST_MICROS, 0, LAST_MICROS, i64::MAX]);
    times.extend((0..20).map(|_| random.random::<i64>()));
    for micros in times {
        for id in [i64::MIN, -1, 0, 1, i64::MAX, random.random()] {
            let may_be = (FIRST_MICROS..=LAST_MICROS).contains(&micros) && id > 0;
            let expected = if may_be { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
            let listed = session.get(&format!("{ORDERS}?cursor={}", cursor(1, micros, id))).await;
            assert_eq!(listed.status, expected, "{micros} {id}: {}", listed.json);
        }
    }
    for wrong in [cursor(0, 0, 1), cursor(2, 0, 1), cursor(255, 0, 1), cursor(1, 0, 1)[1..].to_owned()] {
        let refused = session.get(&format!("{ORDERS}?cursor={wrong}")).await;
        refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    }
}

#[tokio::test]
async fn ids_versions_and_filters_at_the_ends_of_their_ranges_are_answered() {
    let app = TestApp::start().await;
    let (session, admin) = (app.login(i64::MAX).await, app.login_admin(1).await);
    let id = session.place(&order()).await;
    for other in ["0", "-1", "-0", "007", "+7", "9223372036854775806", "9223372036854775807"] {
        let path = format!("{ORDERS}/{other}");
        session.get(&path).await.expect(StatusCode::NOT_FOUND);
        session
            .get(&format!("{path}/history?after_version={}", i64::MAX))
            .await
            .expect(StatusCode::NOT_FOUND);
        session.put(&path, &json!({"status": "SHIPPED"})).await.expect(StatusCode::NOT_FOUND);
        session.delete(&path).await.expect(StatusCode::NOT_FOUND);
    }
    session.get(&format!("{ORDERS}/9223372036854775808")).await.expect(StatusCode::NOT_FOUND);
    for tag in ["0", "-1", "9223372036854775807", "9223372036854775808", "00000000000000000001"] {
        let headers = [("if-match", &*format!("\"{tag}\""))];
        let stale = session.send(Method::DELETE, &path(id), &headers, None).await;
        stale.expect_problem(StatusCode::PRECONDITION_FAILED, "version_mismatch");
    }
    let nines = "9".repeat(24);
    for query in [
        "product_id=9223372036854775807".to_owned(),
        "customer_id=9223372036854775807&size=100".to_owned(),
        "order_date_from=0001-01-01&order_date_to=9999-12-31".to_owned(),
        "order_date_from=9999-12-31".to_owned(),
        format!("min_total=-{nines}.99&max_total={nines}.99"),
        format!("min_total=1{zeros}e-70&max_total=1.1{zeros}", zeros = "0".repeat(70)),
        "page=101&size=100".to_owned(),
    ] {
        for session in [&session, &admin] {
            let listed = session.get(&format!("{ORDERS}?{query}")).await;
            // Nobody but an administrator may ask for others' orders, and the customer asks for its own.
            assert_eq!(listed.status, StatusCode::OK, "{query}: {}", listed.json);
        }
    }
    for query in [
        "order_date_from=0000-12-31",
        "order_date_to=10000-01-01",
        "product_id=9223372036854775808",
        "min_total=1e25",
        "max_total=1e99999999999999999999",
        "page=9223372036854775807&size=100",
    ] {
        let refused = session.get(&format!("{ORDERS}?{query}")).await;
        refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    }
}

#[tokio::test]
async fn an_order_at_the_ends_of_its_ranges_reads_as_it_was_written() {
    let app = TestApp::start().await;
    let session = app.login(i64::MAX).await;
    let line = |quantity: i32, price: &str| json!({"product_id": i64::MAX, "quantity": quantity, "unit_price": price});
    for body in [
        json!({"order_date": "0001-01-01", "lines": [line(1, "0.00")]}),
        json!({"order_date": "2024-02-29", "lines": vec![line(1000, "999999.99"); 50]}),
    ] {
        let created = session.post(ORDERS, &body).await.expect(StatusCode::CREATED);
        let id = created.json["id"].as_i64().unwrap();
        for _ in 0..2 {
            assert_eq!(session.get(&path(id)).await.expect(StatusCode::OK).bytes, created.bytes);
            app.forget_cached(id).await;
        }
        let listed = session.get(&format!("{ORDERS}?size=1")).await.expect(StatusCode::OK);
        assert_eq!(listed.json["orders"][0], created.json);
    }
    for date in ["0000-01-01", "0000-12-31", "9999-12-31", "10000-01-01", "-0001-01-01"] {
        let refused = session.post(ORDERS, &json!({"order_date": date, "lines": [line(1, "1")]})).await;
        refused.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    }
}

#[tokio::test]
async fn an_order_at_its_last_version_is_shown_and_changes_no_more() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let set = async |version: i64| {
        let update = sqlx::query("UPDATE orders SET version = $1 WHERE id = $2").bind(version).bind(id);
        update.execute(&app.db).await.unwrap();
        app.forget_cached(id).await;
    };
    set(MAX_VERSION - 1).await;
    let last = session.put(&path(id), &json!({"status": "CONFIRMED"})).await.expect(StatusCode::OK);
    assert_eq!(
        (&last.json["version"], last.header("etag")),
        (&json!(MAX_VERSION), Some("\"9223372036854775806\""))
    );
    for version in [MAX_VERSION, i64::MAX] {
        set(version).await;
        assert_eq!(session.get(&path(id)).await.expect(StatusCode::OK).json["version"], version);
        for (method, body) in [(Method::PUT, Some(json!({"status": "SHIPPED"}))), (Method::DELETE, None)] {
            let refused = session.send(method, &path(id), &[], body.as_ref()).await;
            refused.expect_problem(StatusCode::CONFLICT, "order_not_editable");
        }
        let unchanged = session.put(&path(id), &json!({"status": "CONFIRMED"})).await;
        assert_eq!(unchanged.expect(StatusCode::OK).json["version"], version);
    }

    sqlx::query(
        "INSERT INTO order_history (order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)
         SELECT $1, version, 'UPDATED', '{}', 1, 1, gen_random_uuid(), at
         FROM unnest(ARRAY[1, 2, $2], ARRAY['0001-01-01Z', '9999-12-31 23:59:59.999999Z', now()]::timestamptz[]) AS row (version, at)",
    )
    .bind(id)
    .bind(i64::MAX)
    .execute(&app.db)
    .await
    .unwrap();
    let history = format!("{}/history", path(id));
    let whole = session.get(&history).await.expect(StatusCode::OK).json;
    assert_eq!((&whole["complete_through"], &whole["entries"][2]["version"]), (&json!(2), &json!(i64::MAX)));
    assert_eq!(whole["entries"][1]["occurred_at"], "9999-12-31T23:59:59.999999Z");
    for (after, entries) in [(2, 1), (i64::MAX - 1, 1), (i64::MAX, 0)] {
        let page = session.get(&format!("{history}?limit=1&after_version={after}")).await;
        let page = page.expect(StatusCode::OK).json;
        assert_eq!(page["entries"].as_array().unwrap().len(), entries, "{after}");
        assert_eq!((&page["has_next"], &page["complete_through"]), (&json!(false), &json!(2)));
    }
}
