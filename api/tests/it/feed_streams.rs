//! The event feed as server-sent events.

use std::time::{Duration, Instant};

use jsonwebtoken::{EncodingKey, Header};
use reqwest::StatusCode;
use serde_json::json;
use shared::domain::clock::Clock;
use testbed::eventually;

use crate::{
    feed_support::{Block, EVENTS, Stream},
    orders_support::order,
    support::{SECRET, Session, TestApp},
};

#[tokio::test]
async fn a_stream_has_the_events_of_the_log_byte_for_byte_and_goes_on_with_each_new_one() {
    let app = TestApp::start().await;
    let (alice, admin) = (app.login(1).await, app.login_admin(2).await);
    alice.place(&order()).await;
    app.sequenced().await;
    let mut stream = admin.stream("").await;
    let headers = stream.response.headers();
    assert_eq!(headers["content-type"], "text/event-stream");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["x-accel-buffering"], "no");
    let first = Block { retry: Some("2000".to_owned()), ..Block::default() };
    assert_eq!(stream.next().await, first);
    let mut events = vec![stream.next().await];
    for _ in 0..3 {
        alice.place(&order()).await;
        app.sequenced().await;
        events.push(stream.next().await);
    }
    let log = app.log().await;
    let page = admin.page("").await;
    assert_eq!((events.len(), log.len()), (4, 4));
    for (index, (event, (_, payload))) in events.iter().zip(&log).enumerate() {
        assert_eq!(event.event.as_deref(), Some("OrderCreated"));
        assert_eq!(event.data.as_ref(), Some(payload));
        assert_eq!(event.id.as_deref(), page["events"][index]["cursor"].as_str());
    }
}

#[tokio::test]
async fn a_stream_resumes_after_the_last_event_id_which_wins_over_the_url() {
    let app = TestApp::start().await;
    let (alice, admin) = (app.login(1).await, app.login_admin(2).await);
    for order in 1..=3 {
        app.append(1, order..=order).await;
        app.append(2, order + 10..=order + 10).await;
    }
    app.sequenced().await;
    let mut stream = alice.stream("after=start").await;
    assert_eq!(stream.orders(1).await, [1]);
    let last = stream.event().await;
    assert_eq!(last.order(), 2);
    let id = last.id.expect("an id");
    for query in ["after=now", "after=start", ""] {
        let mut resumed = Stream::open(alice.stream_request(query).header("last-event-id", &id)).await;
        assert_eq!(resumed.orders(1).await, [3], "{query}");
    }
    let mut filtered = admin.stream("types=OrderUpdated,OrderCreated&order_id=12").await;
    assert_eq!(filtered.orders(1).await, [12]);
}

#[tokio::test]
async fn a_silent_stream_sends_comments_and_a_cursor_if_the_filter_lets_nothing_pass() {
    let app = TestApp::with().tune(|config| config.feed.heartbeat = Duration::from_millis(200)).start().await;
    let alice = app.login(1).await;
    let mut stream = alice.stream("after=now").await;
    stream.next().await;
    for _ in 0..2 {
        assert_eq!(stream.next().await, Block { comments: 1, ..Block::default() });
    }
    app.append(2, 1..=3).await;
    app.sequenced().await;
    let progress = loop {
        let block = stream.next().await;
        if block.event.is_some() {
            break block;
        }
    };
    assert_eq!((progress.event.as_deref(), progress.data.as_deref()), (Some("progress"), Some("{}")));
    let now = alice.page("after=now").await;
    assert_eq!(progress.id.as_deref(), now["next"].as_str(), "it is behind all that did not pass");
    assert_eq!(stream.next().await, Block { comments: 1, ..Block::default() }, "once is enough");
}

#[tokio::test]
async fn progress_also_comes_while_a_long_log_is_searched() {
    let app = TestApp::start().await;
    app.append(2, 1..=12_000).await;
    app.append(1, 7..=7).await;
    app.sequenced().await;
    let mut stream = app.login(1).await.stream("after=start").await;
    let mut progress = 0;
    loop {
        match stream.next().await.event.as_deref() {
            Some("progress") => progress += 1,
            Some("OrderCreated") => break,
            _ => {}
        }
    }
    assert_eq!(progress, 2, "after each 5,000 events that did not pass");
}

#[tokio::test]
async fn a_stream_outlives_the_limit_of_requests_and_ends_within_a_second_of_shutdown() {
    let app = TestApp::start().await;
    let alice = app.login(1).await;
    let limit = Duration::from_secs(2);
    let limited = app.replica_with(|config| config.http.request_timeout = limit).await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        streams.push(limited.session(&alice).stream("after=now").await);
    }
    let begun = Instant::now();
    eventually("the limit has passed", async || begun.elapsed() > limit * 3 / 2).await;
    let id = alice.place(&order()).await;
    app.sequenced().await;
    for stream in &mut streams {
        assert_eq!(stream.orders(1).await, [id]);
    }
    let begun = Instant::now();
    let ended = tokio::spawn(async move {
        for stream in streams {
            stream.ends().await;
        }
        begun.elapsed()
    });
    limited.drain().await;
    let took = ended.await.expect("no panic");
    // A busy machine gets ten; a stream that only its next heartbeat ends takes fifteen.
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn a_stream_ends_when_the_token_expires_with_which_it_was_opened() {
    let app = TestApp::start().await;
    let mut session = app.login(1).await;
    let now = Clock::System.now().unix_timestamp();
    let expiry = now + 15;
    let claims = json!({"sub": "1", "customer_id": 1, "role": "customer", "type": "access", "iat": now,
        "exp": expiry, "jti": "x"});
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    session.access = jsonwebtoken::encode(&Header::default(), &claims, &key).expect("a token");
    let mut stream = session.stream("after=now").await;
    app.append(1, 1..=1).await;
    app.sequenced().await;
    assert_eq!(stream.orders(1).await, [1]);
    tokio::time::timeout(Duration::from_secs(40), stream.ends()).await.expect("it ends");
    assert!(Clock::System.now().unix_timestamp() >= expiry, "not before");
    let refused = session.stream_request("").send().await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn there_are_five_streams_a_customer_and_one_that_is_closed_makes_room_at_once() {
    let app = TestApp::with().tune(|config| config.feed.streams = 7).start().await;
    let (alice, bob) = (app.login(1).await, app.login(2).await);
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(alice.stream("").await);
    }
    let refusal = async |session: &Session, number: &str| {
        let answer = session.stream_request("").send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()["retry-after"], "5");
        let problem: serde_json::Value = answer.json().await.expect("a problem");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.starts_with(number)), "{problem}");
    };
    refusal(&alice, "5 ").await;
    let _of_bob = [bob.stream("").await, bob.stream("").await];
    refusal(&bob, "7 ").await;
    alice.page("").await;
    drop(streams.pop());
    eventually("the stream is closed", async || app.app.state.feed.open_streams() == 6).await;
    bob.stream("").await;
}

#[tokio::test]
async fn a_ticket_opens_one_stream_on_any_replica() {
    let app = TestApp::with().set("CORS_ALLOWED_ORIGINS", "https://shop.example").start().await;
    let alice = app.login(1).await;
    app.append(2, 1..=1).await;
    app.append(1, 2..=2).await;
    app.sequenced().await;
    let ticket = async || {
        let answer = alice.ticket().await;
        assert_eq!(
            (&answer.json["expires_in"], answer.header("cache-control")),
            (&json!(60), Some("no-store"))
        );
        answer.json["ticket"].as_str().expect("a ticket").to_owned()
    };
    let with = |base: &str, ticket: &str| {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let url = format!("{base}{EVENTS}?ticket={ticket}");
        client.get(url).header("accept", "text/event-stream").header("origin", "https://shop.example")
    };
    let replica = app.replica().await;
    for base in [app.url(""), format!("http://{}", replica.app.addr)] {
        let ticket = ticket().await;
        let wrong = with(&base, &format!("{ticket}&limit=1")).send().await.expect("an answer");
        assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY, "it does not use the ticket up");
        let page = with(&base, &ticket).header("accept", "application/json");
        let mut page = page.build().expect("a request");
        page.headers_mut().remove("accept");
        let page = reqwest::Client::builder().no_proxy().build().expect("a client").execute(page).await;
        assert_eq!(page.expect("an answer").status(), StatusCode::UNAUTHORIZED, "it opens a stream only");
        let mut stream = Stream::open(with(&base, &ticket)).await;
        assert_eq!(stream.response.headers()["access-control-allow-origin"], "https://shop.example");
        assert_eq!(stream.orders(1).await, [2], "it is the stream of who got the ticket");
        let again = with(&base, &ticket).send().await.expect("an answer");
        assert_eq!(again.status(), StatusCode::UNAUTHORIZED);
    }
    let never_issued = with(&app.url(""), "x").send().await.expect("an answer");
    assert_eq!(never_issued.status(), StatusCode::UNAUTHORIZED);

    let kept = ticket().await;
    let mut redis = app.redis.connect().await;
    let keys: Vec<String> =
        redis::cmd("KEYS").arg("*ticket:*").query_async(&mut redis).await.expect("the keys");
    assert_eq!(keys.len(), 1, "what was used is gone");
    assert!(!keys[0].contains(&kept), "who can read Redis cannot use it");
    let left: i64 = redis::cmd("TTL").arg(&keys[0]).query_async(&mut redis).await.expect("a time");
    assert!((1..=60).contains(&left), "{left}");
    let without_token = app.post(&format!("{EVENTS}/tickets"), &json!({})).await;
    without_token.expect_problem(StatusCode::UNAUTHORIZED, "unauthenticated");
}

#[tokio::test]
async fn an_access_token_in_a_url_is_refused_and_so_is_a_ticket_beside_a_token() {
    let app = TestApp::start().await;
    let alice = app.login(1).await;
    for query in ["access_token", "token", "ticket"].map(|name| format!("{name}={}", alice.access)) {
        for answer in [app.get(&format!("{EVENTS}?{query}")).await, alice.events(&query).await] {
            let refused = answer.expect_problem(StatusCode::BAD_REQUEST, "malformed_request");
            let detail = refused.json["detail"].as_str().expect("a detail");
            assert!(detail.contains("an access token must not be in a URL"), "{detail}");
        }
    }
    alice.events("ticket=x").await.expect_problem(StatusCode::BAD_REQUEST, "malformed_request");
}
