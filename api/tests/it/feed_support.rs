//! What the tests of the event feed have in common.

use std::{ops::RangeInclusive, time::Duration};

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use testbed::eventually;

use crate::support::{Answer, Session, TestApp};

pub(crate) const EVENTS: &str = "/api/v1/events";

impl TestApp {
    /// Commits the creations of some orders of a customer, in one transaction.
    pub(crate) async fn append(&self, customer: i64, orders: RangeInclusive<i64>) {
        self.append_large(customer, orders, 0).await;
    }

    /// Commits creations that have so many bytes more.
    pub(crate) async fn append_large(&self, customer: i64, orders: RangeInclusive<i64>, bytes: i32) {
        sqlx::query(
            r#"INSERT INTO outbox (event_id, event_type, order_id, version, payload)
               SELECT e.id, 'OrderCreated', o, 1,
                      format('{"id":"%s","type":"OrderCreated","data":{"order_id":%s,"version":1,"customer_id":%s,"x":"%s"}}',
                             e.id, o, $1, repeat('x', $4))
               FROM generate_series($2::bigint, $3) o, LATERAL (SELECT gen_random_uuid() AS id WHERE o > 0) e ORDER BY o"#,
        )
        .bind(customer)
        .bind(orders.start())
        .bind(orders.end())
        .bind(bytes)
        .execute(&self.db)
        .await
        .expect("the events are written");
    }

    /// Waits until every committed event has a position, and returns the last one.
    pub(crate) async fn sequenced(&self) -> i64 {
        eventually("every event has a position", async || {
            let (head, events): (i64, i64) = sqlx::query_as(
                "SELECT head, (SELECT count(*) FROM outbox o WHERE log_position(o.id) IS NULL) FROM relay",
            )
            .fetch_one(&self.db)
            .await
            .expect("the head of the log");
            (events == 0).then_some(head)
        })
        .await
    }

    /// The positions and events of the log.
    pub(crate) async fn log(&self) -> Vec<(i64, String)> {
        let head = self.sequenced().await;
        sqlx::query_as("SELECT position, payload FROM log_events(0, $1) ORDER BY position")
            .bind(i32::try_from(head).expect("a small log"))
            .fetch_all(&self.db)
            .await
            .expect("the log")
    }

    /// Runs a statement.
    pub(crate) async fn sql(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.db).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

impl Session {
    /// A page of the feed.
    pub(crate) async fn events(&self, query: &str) -> Answer {
        self.get(&format!("{EVENTS}?{query}")).await
    }

    /// A good page of the feed.
    pub(crate) async fn page(&self, query: &str) -> Value {
        self.events(query).await.expect(StatusCode::OK).json
    }

    /// The orders of the events of all pages from a cursor on, and the last `next`.
    pub(crate) async fn read_on(&self, after: &str, query: &str) -> (Vec<i64>, String) {
        let (mut orders, mut after) = (Vec::new(), after.to_owned());
        loop {
            let page = self.page(&format!("after={after}&{query}")).await;
            orders.extend(orders_of(&page));
            page["next"].as_str().expect("a cursor").clone_into(&mut after);
            if page["has_more"] == false {
                return (orders, after);
            }
        }
    }

    /// A request for a stream.
    pub(crate) fn stream_request(&self, query: &str) -> RequestBuilder {
        self.request(Method::GET, &format!("{EVENTS}?{query}")).header("accept", "text/event-stream")
    }

    /// Opens a stream.
    pub(crate) async fn stream(&self, query: &str) -> Stream {
        Stream::open(self.stream_request(query)).await
    }
}

/// The orders of the events of a page.
pub(crate) fn orders_of(page: &Value) -> Vec<i64> {
    let events = page["events"].as_array().expect("events");
    events.iter().map(|event| event["event"]["data"]["order_id"].as_i64().expect("an order")).collect()
}

/// One block of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) id: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) data: Option<String>,
    pub(crate) retry: Option<String>,
    pub(crate) comments: usize,
}

impl Block {
    fn parse(text: &str) -> Self {
        let mut block = Self::default();
        for line in text.lines().filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(": ").unwrap_or((line, ""));
            let field = match name {
                "id" => &mut block.id,
                "event" => &mut block.event,
                "data" => &mut block.data,
                "retry" => &mut block.retry,
                "" => {
                    block.comments += 1;
                    continue;
                }
                other => panic!("{other:?} is no field of a stream: {line}"),
            };
            assert_eq!(field.replace(value.to_owned()), None, "{text}");
        }
        block
    }

    /// The order of an event.
    pub(crate) fn order(&self) -> i64 {
        let data: Value = serde_json::from_str(self.data.as_deref().expect("data")).expect("JSON");
        data["data"]["order_id"].as_i64().expect("an order")
    }
}

/// An open stream.
pub(crate) struct Stream {
    pub(crate) response: Response,
    unread: Vec<u8>,
}

impl Stream {
    pub(crate) async fn open(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("a response");
        assert_eq!(response.status(), StatusCode::OK);
        Self::of(response)
    }

    pub(crate) fn of(response: Response) -> Self {
        Self { response, unread: Vec::new() }
    }

    /// The next block; `None` at the end of the stream, also if it was cut.
    pub(crate) async fn block(&mut self) -> Option<Block> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|pair| pair == b"\n\n") {
                let rest = self.unread.split_off(end + 2);
                let block = std::mem::replace(&mut self.unread, rest);
                return Some(Block::parse(std::str::from_utf8(&block).expect("UTF-8")));
            }
            match self.response.chunk().await {
                Ok(Some(bytes)) => self.unread.extend_from_slice(&bytes),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// The next block, which must come.
    pub(crate) async fn next(&mut self) -> Block {
        tokio::time::timeout(Duration::from_secs(30), self.block())
            .await
            .expect("a block in time")
            .expect("a block")
    }

    /// The next event of an order, past comments.
    pub(crate) async fn event(&mut self) -> Block {
        loop {
            let block = self.next().await;
            if block.event.as_deref().is_some_and(|event| event != "progress") {
                return block;
            }
        }
    }

    /// The orders of the next events.
    pub(crate) async fn orders(&mut self, count: usize) -> Vec<i64> {
        let mut orders = Vec::new();
        while orders.len() < count {
            orders.push(self.event().await.order());
        }
        orders
    }

    /// Waits for the end.
    pub(crate) async fn ends(mut self) {
        while self.block().await.is_some() {}
    }
}
