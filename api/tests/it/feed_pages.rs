//! The event feed by pages and long polls: `GET /api/v1/events`.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::json;

use crate::{
    feed_support::{EVENTS, orders_of},
    orders_support::{order, path},
    support::TestApp,
};

#[tokio::test]
async fn pages_have_every_event_once_in_the_order_of_the_log_byte_for_byte() {
    let app = TestApp::start().await;
    let (alice, admin) = (app.login(1).await, app.login_admin(2).await);
    for _ in 0..3 {
        let id = alice.place(&order()).await;
        alice.patch(&path(id), &json!({"status": "CONFIRMED"})).await.expect(StatusCode::OK);
        alice.delete(&path(id)).await.expect(StatusCode::NO_CONTENT);
    }
    let log = app.log().await;
    assert_eq!(log.len(), 9);
    let mut after = "start".to_owned();
    for (index, (_, payload)) in log.iter().enumerate() {
        let page = admin.events(&format!("after={after}&limit=1")).await.expect(StatusCode::OK);
        let text = String::from_utf8(page.bytes).expect("UTF-8");
        let next = page.json["next"].as_str().expect("a cursor");
        let expected = format!(
            r#"{{"events":[{{"cursor":"{next}","event":{payload}}}],"next":"{next}","has_more":{}}}"#,
            index < 8
        );
        assert_eq!(text, expected);
        next.clone_into(&mut after);
    }
    let empty = admin.page(&format!("after={after}")).await;
    assert_eq!(empty, json!({"events": [], "next": after, "has_more": false}));
}

#[tokio::test]
async fn without_a_cursor_a_reader_begins_at_the_start_and_now_is_after_the_newest_event() {
    let app = TestApp::start().await;
    let admin = app.login_admin(1).await;
    let before = admin.page("after=now").await["next"].as_str().expect("a cursor").to_owned();
    app.append(1, 1..=5).await;
    app.sequenced().await;
    let page = admin.get(EVENTS).await.expect(StatusCode::OK);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert_eq!(orders_of(&page.json), [1, 2, 3, 4, 5]);
    assert_eq!(page.json, admin.page("after=start").await);
    let now = admin.page("after=now").await;
    assert_eq!((orders_of(&now), &now["has_more"]), (vec![], &json!(false)));
    app.append(1, 6..=6).await;
    app.sequenced().await;
    let after_now = admin.page(&format!("after={}", now["next"].as_str().expect("a cursor"))).await;
    assert_eq!(orders_of(&after_now), [6]);
    let (from_before_the_first, _) = admin.read_on(&before, "").await;
    assert_eq!(from_before_the_first, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test]
async fn a_customer_sees_its_own_orders_events_and_an_admin_all() {
    let app = TestApp::start().await;
    let [alice, bob, nobody] = [app.login(1).await, app.login(2).await, app.login(3).await];
    let admin = app.login_admin(2).await;
    for customer in [1, 2, 1, 1] {
        app.append(customer, customer * 10..=customer * 10 + 1).await;
    }
    app.sequenced().await;
    for limit in ["limit=1", "limit=3", ""] {
        assert_eq!(alice.read_on("start", limit).await.0, [10, 11, 10, 11, 10, 11]);
        assert_eq!(bob.read_on("start", limit).await.0, [20, 21]);
        assert_eq!(nobody.read_on("start", limit).await.0, [0; 0]);
        assert_eq!(admin.read_on("start", limit).await.0, [10, 11, 20, 21, 10, 11, 10, 11]);
    }
    assert_eq!(bob.read_on("start", "order_id=10").await.0, [0; 0], "nothing is disclosed");
    app.get(EVENTS).await.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
}

#[tokio::test]
async fn filters_choose_types_and_an_order_and_next_moves_on_past_what_does_not_pass() {
    let app = TestApp::start().await;
    let alice = app.login(1).await;
    let (first, second) = (alice.place(&order()).await, alice.place(&order()).await);
    alice.patch(&path(first), &json!({"status": "SHIPPED"})).await.expect(StatusCode::OK);
    alice.delete(&path(second)).await.expect(StatusCode::NO_CONTENT);
    app.sequenced().await;
    assert_eq!(alice.read_on("start", &format!("order_id={second}")).await.0, [second, second]);
    assert_eq!(alice.read_on("start", "types=OrderUpdated,OrderDeleted").await.0, [first, second]);
    let both = format!("types=OrderCreated&order_id={first}");
    let page = alice.page(&both).await;
    assert_eq!(orders_of(&page), [first]);
    let end = alice.page("after=now").await["next"].clone();
    assert_eq!((&page["next"], &page["has_more"]), (&end, &json!(false)), "all of the log was looked at");
}

#[tokio::test]
async fn a_request_looks_at_a_bounded_part_of_the_log_and_says_that_there_is_more() {
    let app = TestApp::start().await;
    let alice = app.login(1).await;
    app.append(2, 1..=25_000).await;
    app.append(1, 7..=7).await;
    app.sequenced().await;
    let page = alice.page("after=start").await;
    assert_eq!((orders_of(&page), &page["has_more"]), (vec![], &json!(true)));
    assert_eq!(alice.read_on("start", "").await.0, [7]);
}

#[tokio::test]
async fn readers_from_the_database_and_from_memory_get_the_same_pages() {
    let app = TestApp::with().tune(|config| config.feed.recent_events = 100).start().await;
    let admin = app.login_admin(1).await;
    let all: Vec<i64> = (1..=2500).collect();
    app.append(1, 1..=1200).await;
    let head = app.sequenced().await;
    assert_eq!(head, 1200);
    let (mut orders, at) = admin.read_on("start", "limit=1000").await;
    // These come while a reader waits, so memory has the last hundred.
    let polling = admin.clone();
    let waited = tokio::spawn(async move { polling.page(&format!("after={at}&wait=30&limit=1")).await });
    app.append(1, 1201..=2500).await;
    let first = waited.await.expect("no panic");
    orders.extend(orders_of(&first));
    app.sequenced().await;
    let next = first["next"].as_str().expect("a cursor");
    for limit in [1000, 333, 50] {
        let (rest, _) = admin.read_on(next, &format!("limit={limit}")).await;
        assert_eq!([&orders[..], &rest].concat(), all, "{limit}");
        let (from_start, _) = admin.read_on("start", &format!("limit={limit}")).await;
        assert_eq!(from_start, all, "{limit}");
    }
}

#[tokio::test]
async fn a_long_poll_answers_when_an_event_comes_or_when_its_time_is_over() {
    let app = TestApp::start().await;
    let (alice, bob) = (app.login(1).await, app.login(2).await);
    let limited = app.replica_with(|config| config.http.request_timeout = Duration::from_secs(1)).await;
    let poll = |session: &crate::support::Session| {
        let session = limited.session(session);
        tokio::spawn(async move { session.page("after=now&wait=30").await })
    };
    let (of_alice, of_bob) = (poll(&alice), poll(&bob));
    // Both wait by now, or see the event at once: `now` is when the request is read.
    testbed::eventually("both wait for an event", async || limited.app.state.feed.waiting() == 2).await;
    let begun = Instant::now();
    let id = alice.place(&order()).await;
    app.sequenced().await;
    assert_eq!(orders_of(&of_alice.await.expect("no panic")), [id]);
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    bob.place(&order()).await;
    app.sequenced().await;
    assert_eq!(
        orders_of(&of_bob.await.expect("no panic")).len(),
        1,
        "another customer's event does not end it"
    );

    let begun = Instant::now();
    let page = limited.session(&bob).page("after=now&wait=2").await;
    assert_eq!((orders_of(&page), &page["has_more"]), (vec![], &json!(false)));
    assert!(begun.elapsed() >= Duration::from_secs(2), "also beyond the limit of other requests");
}

#[tokio::test]
async fn a_long_poll_ends_at_shutdown() {
    let app = TestApp::start().await;
    let alice = app.login(1).await;
    let poll = tokio::spawn(async move { alice.page("after=now&wait=30").await });
    testbed::eventually("it waits for an event", async || app.app.state.feed.waiting() == 1).await;
    let begun = Instant::now();
    app.drain().await;
    assert_eq!(orders_of(&poll.await.expect("no panic")), [0; 0]);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn every_error_of_the_query_is_reported_at_once() {
    let app = TestApp::start().await;
    let alice = app.login(1).await;
    let query = "limit=0&wait=31&types=OrderCreated,Order&order_id=x&cursor=start&limit=1";
    let refused =
        alice.events(query).await.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    let faults = [
        "?cursor unknown_field",
        "?limit duplicate_field",
        "?limit out_of_range",
        "?order_id invalid_type",
        "?types invalid_value",
        "?wait out_of_range",
    ];
    assert_eq!(refused.faults(), faults);
    for query in ["limit=1001", "limit=1.5", "wait=-1", "types=", "order_id=0"] {
        alice.events(query).await.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    }
    let stream = alice.stream_request("limit=1&wait=1").send().await.expect("an answer");
    assert_eq!(stream.status(), StatusCode::UNPROCESSABLE_ENTITY, "they mean nothing for a stream");
}

#[tokio::test]
async fn a_page_has_at_most_four_mebibytes_also_from_memory() {
    let app = TestApp::start().await;
    let admin = app.login_admin(9).await;
    // While somebody waits, the new events are in memory.
    let _waiting = admin.stream("after=now").await;
    app.append_large(1, 1..=600, 10_000).await;
    app.sequenced().await;
    let page = admin.events("limit=1000").await.expect(StatusCode::OK);
    assert!(page.bytes.len() < 4 * 1024 * 1024 + 64 * 1024, "{} bytes", page.bytes.len());
    assert_eq!(page.json["has_more"], true);
    let mut orders = orders_of(&page.json);
    let (rest, _) = admin.read_on(page.json["next"].as_str().expect("a cursor"), "limit=1000").await;
    orders.extend(rest);
    assert_eq!(orders, (1..=600).collect::<Vec<_>>());
}
