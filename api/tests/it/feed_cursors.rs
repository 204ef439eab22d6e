//! Cursors of the event feed: whose they are, and how long they can be used.

use reqwest::StatusCode;
use serde_json::Value;

use crate::{feed_support::orders_of, support::TestApp};

fn next(page: &Value) -> String {
    page["next"].as_str().expect("a cursor").to_owned()
}

impl TestApp {
    /// A log of ten events in pages of two.
    async fn with_ten_events() -> Self {
        let app = Self::start().await;
        for order in (1..=9).step_by(2) {
            app.append(1, order..=order + 1).await;
            app.sequenced().await;
        }
        app
    }
}

#[tokio::test]
async fn a_forged_cursor_is_refused() {
    let app = TestApp::with_ten_events().await;
    let admin = app.login_admin(1).await;
    let good = next(&admin.page("limit=5").await);
    assert_eq!(orders_of(&admin.page(&format!("after={good}")).await), [6, 7, 8, 9, 10]);
    let last = if good.ends_with('A') { 'Q' } else { 'A' };
    let changed = format!("{}{last}", &good[..good.len() - 1]);
    let first = format!("B{}", &good[1..]);
    for forged in
        ["x", "", "Start", "1", &good[1..], &format!("{good}A"), &format!("{good}=="), &changed, &first]
    {
        let refused = admin.events(&format!("after={forged}")).await;
        refused.expect_problem(StatusCode::BAD_REQUEST, "malformed_request");
        if !forged.is_empty() {
            let stream =
                admin.stream_request("").header("last-event-id", forged).send().await.expect("an answer");
            assert_eq!(stream.status(), StatusCode::BAD_REQUEST, "{forged}");
        }
    }
}

#[tokio::test]
async fn a_cursor_of_another_customer_or_role_is_refused() {
    let app = TestApp::with_ten_events().await;
    let sessions = [app.login(1).await, app.login(2).await, app.login_admin(1).await];
    let mut cursors = Vec::new();
    for session in &sessions {
        cursors.push(next(&session.page("limit=1").await));
    }
    for (of, cursor) in cursors.iter().enumerate() {
        for (by, session) in sessions.iter().enumerate() {
            let answer = session.events(&format!("after={cursor}")).await;
            if by == of {
                answer.expect(StatusCode::OK);
            } else {
                answer.expect_problem(StatusCode::BAD_REQUEST, "malformed_request");
            }
        }
    }
    // Two administrators have the same feed.
    let other_admin = app.login_admin(9).await;
    other_admin.events(&format!("after={}", cursors[2])).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_cursor_outlives_a_change_of_the_secret_while_the_old_one_verifies() {
    let app = TestApp::with_ten_events().await;
    let admin = app.login_admin(1).await;
    let cursor = next(&admin.page("limit=9").await);
    let rotated = app
        .replica_with(|config| {
            let old =
                std::mem::replace(&mut config.auth.secret, "the next secret, of 32 bytes or more".into());
            config.auth.previous_secrets.push(old);
        })
        .await;
    let page = rotated.session(&admin).page(&format!("after={cursor}")).await;
    assert_eq!(orders_of(&page), [10]);
    admin
        .events(&format!("after={}", next(&page)))
        .await
        .expect_problem(StatusCode::BAD_REQUEST, "malformed_request");
}

#[tokio::test]
async fn a_cursor_behind_the_retention_is_410_and_names_the_oldest_one_and_the_export() {
    let app = TestApp::with_ten_events().await;
    let customer = app.login(1).await;
    let cursors = [next(&customer.page("limit=1").await), next(&customer.page("limit=4").await)];
    // Two pages are dropped with their events, and half of a third one, as if it held those of two days.
    app.sql("DELETE FROM outbox WHERE order_id <= 5").await;
    app.sql("DELETE FROM log_pages WHERE first <= 3").await;
    // The recent events of this process are still in its memory.
    let replica = app.replica().await;
    let customer = replica.session(&customer);
    for cursor in cursors {
        let refused = customer.events(&format!("after={cursor}")).await;
        let refused = refused.expect_problem(StatusCode::GONE, "cursor_expired");
        assert_eq!(refused.json["export"], "/api/v1/orders/export");
        let oldest = refused.json["oldest_cursor"].as_str().expect("a cursor");
        assert_eq!(customer.read_on(oldest, "limit=2").await.0, [6, 7, 8, 9, 10]);
        let stream =
            customer.stream_request("").header("last-event-id", &cursor).send().await.expect("an answer");
        assert_eq!(stream.status(), StatusCode::GONE);
    }
    assert_eq!(customer.read_on("start", "limit=1").await.0, [6, 7, 8, 9, 10]);
}

#[tokio::test]
async fn a_reader_never_passes_over_an_event_that_is_missing() {
    let app = TestApp::with_ten_events().await;
    let admin = app.login_admin(1).await;
    let cursor = next(&admin.page("limit=5").await);
    app.sql("DELETE FROM outbox WHERE order_id = 7").await;
    let replica = app.replica().await;
    let admin = replica.session(&admin);
    let refused =
        admin.events(&format!("after={cursor}")).await.expect_problem(StatusCode::GONE, "cursor_expired");
    let oldest = refused.json["oldest_cursor"].as_str().expect("a cursor");
    assert_eq!(orders_of(&admin.page(&format!("after={oldest}")).await), [8, 9, 10]);
    assert_eq!(orders_of(&admin.page("after=start").await), [8, 9, 10]);
}

#[tokio::test]
async fn a_cursor_ahead_of_the_log_or_of_an_unknown_era_is_410() {
    let app = TestApp::with_ten_events().await;
    let admin = app.login_admin(1).await;
    let end = next(&admin.page("after=now").await);
    app.sql("DELETE FROM log_pages WHERE first > 8").await;
    app.sql("UPDATE relay SET head = 8").await;
    let other = app.replica().await;
    let of_other = other.session(&admin);
    of_other.events(&format!("after={end}")).await.expect_problem(StatusCode::GONE, "cursor_expired");
    app.sql("UPDATE log_eras SET key = (key + 1) % 1000").await;
    let refused = app.replica().await.session(&admin).events(&format!("after={end}")).await;
    refused.expect_problem(StatusCode::GONE, "cursor_expired");
}

#[tokio::test]
async fn a_cursor_of_an_era_is_good_up_to_where_the_next_one_began() {
    let app = TestApp::with_ten_events().await;
    let admin = app.login_admin(1).await;
    let (common, beyond) = (next(&admin.page("limit=6").await), next(&admin.page("limit=7").await));
    let mut stream = admin.stream("after=now").await;
    stream.next().await;
    app.sql(
        "INSERT INTO log_eras (number, key, after, system_identifier, timeline)
         SELECT number + 1, (key + 7) % 1000000, 6, system_identifier, timeline FROM log_eras",
    )
    .await;
    stream.ends().await;
    assert_eq!(orders_of(&admin.page(&format!("after={common}")).await), [7, 8, 9, 10]);
    admin.events(&format!("after={beyond}")).await.expect_problem(StatusCode::GONE, "cursor_expired");
    let issued = next(&admin.page(&format!("after={common}&limit=3")).await);
    assert_eq!(orders_of(&admin.page(&format!("after={issued}")).await), [10]);
}
