//! What a reader of the feed may rely on: every event once in a pass, in the same order for everybody, whatever fails.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    time::Duration,
};

use reqwest::{Method, StatusCode};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection};
use testbed::{Proxy, eventually};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::{
    feed_support::{EVENTS, Stream},
    support::{Session, TestApp, until_available},
};

/// Reads by one stream after the other, each from the last id on, until this many events have come. Returns their payloads.
async fn read_by_streams(open: impl AsyncFn(Option<&str>) -> Option<Stream>, count: usize) -> Vec<String> {
    let (mut payloads, mut last) = (Vec::new(), None::<String>);
    while payloads.len() < count {
        let Some(mut stream) = open(last.as_deref()).await else { continue };
        while let Some(block) = stream.block().await {
            if block.id.is_some() {
                last = block.id;
            }
            if block.event.is_some_and(|event| event != "progress") {
                payloads.push(block.data.expect("data"));
            }
            if payloads.len() >= count {
                break;
            }
        }
    }
    payloads
}

/// Reads by long polls until this many events have come. Returns their payloads.
async fn read_by_pages(session: &Session, query: &str, count: usize) -> Vec<String> {
    let (mut payloads, mut after) = (Vec::new(), "start".to_owned());
    while payloads.len() < count {
        let query = format!("after={after}&wait=5&{query}");
        let page = until_available(async || session.events(&query).await).await;
        let Value::Array(events) = &page.json["events"] else { panic!("{}", page.json) };
        payloads.extend(events.iter().map(|event| event["event"]["id"].to_string()));
        page.json["next"].as_str().expect("a cursor").clone_into(&mut after);
    }
    payloads
}

/// Reads this many events from the start, every other reader by streams and the rest by pages, and returns their ids.
pub(crate) async fn read_ids(session: &Session, reader: usize, count: usize) -> Vec<String> {
    if reader % 2 == 1 {
        return read_by_pages(session, &format!("limit={}", reader * 3), count).await;
    }
    let open = async |last: Option<&str>| {
        let request = session.stream_request("after=start");
        let request = match last {
            Some(last) => request.header("last-event-id", last),
            None => request,
        };
        Some(Stream::open(request).await)
    };
    read_by_streams(open, count).await.iter().map(|payload| id_of(payload)).collect()
}

/// What each event begins with in a stream.
const DATA: &[u8] = b"\ndata: ";

/// Opens a stream on a connection for which the client's kernel buffers little.
async fn open_without_reading(app: &TestApp, session: &Session) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(16 * 1024).expect("a small window");
    let mut client = socket.connect(app.app.addr).await.expect("a connection");
    let head = format!(
        "GET {EVENTS} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\nauthorization: Bearer {}\r\n\r\n",
        session.access
    );
    client.write_all(head.as_bytes()).await.expect("the request is taken");
    client
}

pub(crate) fn id_of(payload: &str) -> String {
    serde_json::from_str::<Value>(payload).expect("JSON")["id"].to_string()
}

#[tokio::test]
async fn two_hundred_cuts_lose_and_double_nothing() {
    const EVENTS_IN_ALL: i64 = 4000;
    let app = TestApp::start().await;
    let proxy = Proxy::start(app.app.addr.to_string()).await;
    let admin = app.login_admin(1).await;
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    let url = format!("http://{}{EVENTS}", proxy.addr());
    let open = async |last: Option<&str>| {
        let mut request = client
            .request(Method::GET, &url)
            .bearer_auth(&admin.access)
            .header("accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.ok()?;
        (response.status() == 200).then(|| Stream::of(response))
    };
    let mut cuts = 0;
    let write = async {
        for batch in 0..EVENTS_IN_ALL / 20 {
            app.append(1, batch * 20 + 1..=batch * 20 + 20).await;
            app.sequenced().await;
            proxy.cut();
            cuts += 1;
        }
    };
    let read = read_by_streams(open, usize::try_from(EVENTS_IN_ALL).expect("a count"));
    let (payloads, ()) = tokio::join!(read, write);
    assert_eq!(cuts, 200);
    let log: Vec<String> = app.log().await.into_iter().map(|(_, payload)| payload).collect();
    assert_eq!(payloads, log);
}

#[tokio::test]
async fn readers_who_start_at_different_times_see_the_sequence_of_the_log_whatever_transactions_stay_open() {
    const WRITERS: i64 = 6;
    const ROUNDS: i64 = 25;
    let app = TestApp::start().await;
    let admins = futures_util::future::join_all((1..=10).map(|id| app.login_admin(id))).await;
    let count = usize::try_from(WRITERS * ROUNDS * 2).expect("a count");
    let url = app.app.state.config.database_url.clone();
    let writers = (0..WRITERS).map(|writer| {
        let url = secrecy::ExposeSecret::expose_secret(&url).to_owned();
        tokio::spawn(async move {
            let mut connection = PgConnection::connect(&url).await.expect("a connection");
            for round in 0..ROUNDS {
                let mut transaction = connection.begin().await.expect("a transaction");
                for version in [2 * round + 1, 2 * round + 2] {
                    sqlx::query(
                        r#"INSERT INTO outbox (event_id, event_type, order_id, version, payload)
                           SELECT id, 'OrderUpdated', $1, $2, format('{"id":"%s","data":{"customer_id":1,"order_id":%s,"version":%s}}', id, $1, $2)
                           FROM (SELECT gen_random_uuid() AS id) e"#,
                    )
                    .bind(writer + 1)
                    .bind(version)
                    .execute(&mut *transaction)
                    .await
                    .expect("an event");
                    // Some transactions stay open while others commit.
                    let pause = Duration::from_millis(u64::try_from((writer * 37 + round * 11) % 90).unwrap_or(0));
                    tokio::time::sleep(pause).await;
                }
                transaction.commit().await.expect("a commit");
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let is_done = AtomicBool::new(false);
    let sequencing = async {
        while !is_done.load(SeqCst) {
            app.sequenced().await;
            tokio::task::yield_now().await;
        }
    };
    let reading = async {
        let readers = admins.iter().enumerate().map(async |(index, admin)| {
            tokio::time::sleep(Duration::from_millis(150) * u32::try_from(index).expect("a number")).await;
            read_ids(admin, index, count).await
        });
        let seen = futures_util::future::join_all(readers).await;
        is_done.store(true, SeqCst);
        seen
    };
    let (seen, ()) = tokio::join!(reading, sequencing);
    for writer in writers {
        writer.await.expect("no panic");
    }
    let log: Vec<String> = app.log().await.iter().map(|(_, payload)| id_of(payload)).collect();
    assert_eq!(log.len(), count);
    for (reader, ids) in seen.iter().enumerate() {
        assert_eq!(ids, &log, "reader {reader}");
    }
    let mut versions: HashMap<i64, i64> = HashMap::new();
    for (_, payload) in app.log().await {
        let event: Value = serde_json::from_str(&payload).expect("JSON");
        let [order, version] =
            ["order_id", "version"].map(|name| event["data"][name].as_i64().expect("a number"));
        assert_eq!(versions.insert(order, version).unwrap_or(0) + 1, version, "order {order}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_resumes_without_a_gap() {
    let app = TestApp::with().tune(|config| config.feed.streams_per_customer = 1).start().await;
    let admin = app.login_admin(1).await;
    let mut client = open_without_reading(&app, &admin).await;
    eventually("the stream has caught up", async || app.app.state.feed.waiting() == 1).await;
    let mut written = 0;
    let mut write_more = async || {
        app.append_large(1, written + 1..=written + 10, 10_000).await;
        written += 10;
        app.sequenced().await;
    };
    eventually("the stream is cut off", async || {
        write_more().await;
        app.app.state.feed.open_streams() == 0
    })
    .await;
    // What has arrived before can be lost with the connection; it comes again.
    let mut received = Vec::new();
    let _was_reset = client.read_to_end(&mut received).await;
    let mut stream = admin.stream("after=start").await;
    let orders = stream.orders(usize::try_from(written).expect("a count")).await;
    assert_eq!(orders, (1..=written).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_slow_client_that_is_catching_up_is_not_cut_off_and_reaches_what_comes_meanwhile() {
    const ORDERS: usize = 220;
    let app =
        TestApp::with().tune(|config| config.feed.stalled_after = Duration::from_millis(1)).start().await;
    app.append_large(1, 1..=200, 10_000).await;
    app.sequenced().await;
    let mut client = open_without_reading(&app, &app.login_admin(1).await).await;
    eventually("the stream is open", async || app.app.state.feed.open_streams() == 1).await;
    // Nobody waits for the end of the log, so only the database knows these.
    app.append_large(1, 201..=220, 10_000).await;
    app.sequenced().await;
    let (mut received, mut piece, mut events) = (Vec::new(), vec![0; 64 * 1024], 0);
    while events < ORDERS {
        let length = client.read(&mut piece).await.expect("bytes");
        assert!(length > 0, "it was cut off after {events} events");
        let new = received.len().saturating_sub(DATA.len() - 1);
        received.extend_from_slice(&piece[..length]);
        events += received[new..].windows(DATA.len()).filter(|window| *window == DATA).count();
        // A client that takes its time, more of it than a stream that has caught up may.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn clients_that_do_not_read_make_no_page_wait_and_give_way_to_other_streams() {
    let app = TestApp::with().tune(|config| config.feed.held_pages = 2).start().await;
    app.append_large(1, 1..=2000, 10_000).await;
    app.sequenced().await;
    let admin = app.login_admin(1).await;
    let mut stuck = Vec::new();
    for _ in 0..4 {
        stuck.push(open_without_reading(&app, &admin).await);
    }
    eventually("the streams are open", async || app.app.state.feed.open_streams() == 4).await;
    admin.events("after=start&limit=5").await.expect(StatusCode::OK);
    let mut stream = app.login_admin(2).await.stream("after=start").await;
    assert_eq!(stream.orders(2000).await, (1..=2000).collect::<Vec<_>>());
}
