//! The reference of cached reads: axum that answers the same bytes from memory, and does nothing else.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context;
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use testbed::http;
use tokio::net::TcpListener;

/// What every server writes by itself.
const ITS_OWN: [HeaderName; 2] = [header::DATE, header::CONTENT_LENGTH];

/// An answer as [`serve`] reads it from a file: a header on each line, an empty line, and the body.
pub fn recorded(answer: &http::Response) -> String {
    let mut text = String::new();
    for (name, value) in &answer.headers {
        let _infallible = writeln!(text, "{name}: {value}");
    }
    text + "\n" + &answer.body
}

/// Answers every order with the answer in this file, until it is killed.
pub async fn serve(port: u16, answer: &Path) -> anyhow::Result<()> {
    let (headers, body) = read(&tokio::fs::read_to_string(answer).await?)?;
    let answer = move || {
        let mut response = Response::new(Body::from(body.clone()));
        *response.headers_mut() = headers.clone();
        async { response }
    };
    let router = Router::new().route("/", get(|| async {})).route("/api/v1/orders/{id}", get(answer));
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    Ok(axum::serve(listener, router).await?)
}

fn read(recorded: &str) -> anyhow::Result<(HeaderMap, Bytes)> {
    let (lines, body) = recorded.split_once("\n\n").context("no answer has been recorded")?;
    let mut headers = HeaderMap::new();
    for line in lines.lines() {
        let (name, value) = line.split_once(": ").with_context(|| format!("{line:?} is no header"))?;
        headers.append(HeaderName::try_from(name)?, HeaderValue::try_from(value)?);
    }
    for name in ITS_OWN {
        headers.remove(name);
    }
    Ok((headers, Bytes::from(body.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_was_recorded() {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let answer = http::Response {
            status: 200,
            headers: vec![header("etag", "\"1\""), header("Vary", "a, b"), header("date", "today")],
            body: "{\"id\": 1}\n\n".to_owned(),
        };
        let (headers, body) = read(&recorded(&answer)).unwrap();
        assert_eq!(headers.len(), 2);
        assert_eq!(
            (&headers["etag"], &headers["vary"]),
            (&"\"1\"".parse().unwrap(), &"a, b".parse().unwrap())
        );
        assert_eq!(body, answer.body);
    }
}
