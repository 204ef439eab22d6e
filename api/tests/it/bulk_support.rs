//! What the tests of imports and exports have in common.

use std::{fmt::Write as _, net::SocketAddr};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{Session, TestApp, answer};

pub(crate) const IMPORT: &str = "/api/v1/orders/import";
pub(crate) const EXPORT: &str = "/api/v1/orders/export";
pub(crate) const NDJSON: &str = "application/x-ndjson";
pub(crate) const CSV: &str = "text/csv";

/// Rows of NDJSON with an order of this customer each, which differ in their products.
pub(crate) fn ndjson_file(customer: i64, rows: i64) -> String {
    (1..=rows).fold(String::new(), |mut file, row| {
        let line = json!({"product_id": row, "quantity": 2, "unit_price": "25.50"});
        let order = json!({"customer_id": customer, "order_date": "2025-01-20", "lines": [line]});
        let _written = writeln!(file, "{order}");
        file
    })
}

/// The same as CSV.
pub(crate) fn csv_file(customer: i64, rows: i64) -> String {
    (1..=rows).fold("customer_id,order_date,lines\r\n".to_owned(), |mut file, row| {
        let lines = format!(r#"[{{""product_id"":{row},""quantity"":2,""unit_price"":25.5}}]"#);
        let _written = write!(file, "{customer},2025-01-20,\"{lines}\"\r\n");
        file
    })
}

/// The JSON documents of a file, one a line.
pub(crate) fn json_lines(bytes: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(bytes).expect("UTF-8");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect()
}

/// The results of an import: one a row, and the totals.
#[derive(Debug)]
pub(crate) struct Imported {
    pub(crate) rows: Vec<Value>,
    pub(crate) end: Value,
}

impl Imported {
    pub(crate) fn statuses(&self) -> Vec<i64> {
        self.rows.iter().map(|row| row["status"].as_i64().expect("a status")).collect()
    }

    pub(crate) fn ids(&self) -> Vec<i64> {
        self.rows.iter().filter_map(|row| row["id"].as_i64()).collect()
    }
}

impl Session {
    /// Imports a file, and reads the whole response.
    pub(crate) async fn import(
        &self,
        content_type: &str,
        key: Option<&str>,
        file: impl Into<String>,
    ) -> Imported {
        let mut request = self.request(Method::POST, IMPORT).header("content-type", content_type);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = answer(request.body(file.into())).await.expect(StatusCode::OK);
        assert_eq!(answer.header("content-type"), Some(NDJSON));
        let mut rows = json_lines(&answer.bytes);
        let end = rows.pop().expect("a last line");
        for (index, row) in (1..).zip(&rows) {
            assert_eq!(row["row"], index, "results come in the order of the rows");
        }
        assert_eq!(end["rows"], rows.len());
        Imported { rows, end }
    }
}

/// A streamed request or response on a connection of its own.
pub(crate) struct RawStream {
    stream: TcpStream,
    received: Vec<u8>,
}

impl RawStream {
    /// Sends the head of a request; its body comes in pieces if it is a `POST`.
    pub(crate) async fn open(app: &TestApp, session: &Session, method: &str, path: &str) -> Self {
        Self::open_at(app.app.addr, session, method, path).await
    }

    /// [`Self::open`] of a replica.
    pub(crate) async fn open_at(to: SocketAddr, session: &Session, method: &str, path: &str) -> Self {
        let mut stream = TcpStream::connect(to).await.expect("a connection");
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n", session.access);
        if let Some(tenant) = session.acts_in {
            let _written = write!(head, "X-Tenant-Id: {tenant}\r\n");
        }
        if method == "POST" {
            head += "Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n";
        }
        head += "\r\n";
        stream.write_all(head.as_bytes()).await.expect("the head is taken");
        Self { stream, received: Vec::with_capacity(64 * 1024) }
    }

    /// Sends a piece of the body. Fails if the connection is closed.
    pub(crate) async fn send(&mut self, piece: &str) -> std::io::Result<()> {
        self.stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await
    }

    /// Sends the end of the body.
    pub(crate) async fn finish(&mut self) {
        self.stream.write_all(b"0\r\n\r\n").await.expect("the end is taken");
    }

    /// The next line of JSON. `None` if the connection ended before.
    pub(crate) async fn line(&mut self) -> Option<Value> {
        loop {
            while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                // The lines between are the head and the sizes of chunks.
                if line.starts_with(b"{") {
                    return Some(serde_json::from_slice(&line).expect("JSON"));
                }
            }
            if self.stream.read_buf(&mut self.received).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }
}

impl TestApp {
    /// Orders of a customer, written without the API and its events.
    pub(crate) async fn seed_orders(&self, customer: i64, count: i64) {
        sqlx::query(
            "WITH placed AS (
                 INSERT INTO orders (customer_id, order_date, status, total_amount, version, created_at, updated_at)
                 SELECT $1, '2025-01-20', 'PENDING', 51.00, 1, at, at
                 FROM generate_series(1, $2) n, LATERAL (SELECT now() - n * interval '1 second' AS at) t RETURNING id)
             INSERT INTO order_lines (order_id, position, product_id, quantity, unit_price)
             SELECT id, 0, id, 2, 25.50 FROM placed",
        )
        .bind(customer)
        .bind(count)
        .execute(&self.db)
        .await
        .expect("orders");
    }
}
