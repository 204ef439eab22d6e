//! What a hostile client, or a browser led astray, gets.

use std::{collections::HashMap, time::Duration};

use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{TestApp, answer};

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let app = TestApp::start().await;
    for path in ["/", "/nowhere", "/health", "/docs", "/openapi.json"] {
        let answer = app.get(path).await;
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("x-frame-options"), Some("DENY"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
        assert!(answer.header("content-security-policy").is_some(), "{path}");
        assert!(answer.header("cache-control").is_some(), "{path}");
        assert!(answer.header("x-request-id").is_some(), "{path}");
        assert_eq!(answer.header("server"), None, "{path}");
    }
    app.drain().await;
}

#[tokio::test]
async fn cors_is_closed_unless_settings_open_it() {
    let app = TestApp::start().await;
    let preflight = |app: &TestApp, origin: &'static str| {
        let request = app.request(Method::OPTIONS, "/api/v1/auth/refresh").header("origin", origin);
        answer(request.header("access-control-request-method", "POST"))
    };
    let closed = preflight(&app, "https://shop.example").await;
    closed.expect_problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
    app.drain().await;

    let app = TestApp::with()
        .set("CORS_ALLOWED_ORIGINS", "https://shop.example, http://localhost:3000")
        .start()
        .await;
    let open = preflight(&app, "https://shop.example").await.expect(StatusCode::NO_CONTENT);
    assert_eq!(open.header("access-control-allow-origin"), Some("https://shop.example"));
    assert!(open.header("access-control-allow-headers").is_some_and(|names| names.contains("authorization")));
    assert_eq!(open.header("vary"), Some("origin"));
    assert_eq!(preflight(&app, "https://evil.example").await.header("access-control-allow-origin"), None);

    let from = |path: &str| answer(app.request(Method::GET, path).header("origin", "http://localhost:3000"));
    for path in ["/", "/nowhere"] {
        let answer = from(path).await;
        assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:3000"), "{path}");
        assert!(answer.header("access-control-expose-headers").is_some_and(|names| names.contains("etag")));
    }
    app.drain().await;
}

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let app = TestApp::with()
        .tune(|config| config.http.server.header_read_timeout = Duration::from_millis(300))
        .start()
        .await;
    let mut slow = TcpStream::connect(app.app.addr).await.expect("a connection");
    slow.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.expect("taken");
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), slow.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection is still open");
    app.drain().await;
}

#[tokio::test]
async fn a_huge_head_is_refused() {
    let app = TestApp::start().await;
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(64 * 1024));
    expect_refusal(&app.raw(request.as_bytes()).await, 431, "headers_too_large");
    let many = "X-Many: x\r\n".repeat(200);
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n");
    expect_refusal(&app.raw(request.as_bytes()).await, 431, "headers_too_large");
    app.drain().await;
}

/// A problem document like any other, after which the connection ends.
#[track_caller]
fn expect_refusal(answer: &str, status: u16, code: &str) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let mut lines = head.lines();
    assert!(lines.next().is_some_and(|line| line.starts_with(&format!("HTTP/1.1 {status} "))), "{head}");
    let headers: HashMap<&str, &str> = lines.filter_map(|line| line.split_once(": ")).collect();
    let problem: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(headers["content-type"], "application/problem+json");
    assert_eq!(headers["connection"], "close");
    assert_eq!(problem["request_id"], headers["x-request-id"]);
    for name in ["x-content-type-options", "x-frame-options", "content-security-policy", "cache-control"] {
        assert!(headers.contains_key(name), "{name}");
    }
    assert_eq!((problem["status"].as_u64(), problem["code"].as_str()), (Some(status.into()), Some(code)));
    assert_eq!(problem["type"], format!("/problems/{}", code.replace('_', "-")));
}

#[tokio::test]
async fn what_is_no_request_is_answered_by_a_problem() {
    let app = TestApp::start().await;
    for request in [
        "nonsense\r\n\r\n",
        "GET / HTTP/9.9\r\n\r\n",
        "GET /\u{1} HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n",
    ] {
        expect_refusal(&app.raw(request.as_bytes()).await, 400, "malformed_request");
    }
    // Two servers in a row might each take another one.
    for hosts in ["", "Host: a\r\nHost: b\r\n"] {
        let answer = app.raw(format!("GET / HTTP/1.1\r\n{hosts}\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("malformed_request"), "{answer}");
    }
    let old = app.raw(b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 "), "{old}");
    // What comes before it on the same connection is answered as ever.
    let mut both = TcpStream::connect(app.app.addr).await.expect("a connection");
    both.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n").await.expect("taken");
    let mut answers = String::new();
    both.read_to_string(&mut answers).await.expect("the connection ends well");
    let (first, second) = answers.split_at(answers.rfind("HTTP/1.1 ").expect("answers"));
    assert!(first.starts_with("HTTP/1.1 200 OK\r\n"), "{answers}");
    expect_refusal(second, 400, "malformed_request");
    app.drain().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_one_to_end() {
    let app = TestApp::with().tune(|config| config.http.server.connections = 1).start().await;
    let mut first = TcpStream::connect(app.app.addr).await.expect("a connection");
    first.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("taken");
    let mut byte = [0];
    first.read_exact(&mut byte).await.expect("the first is served");

    let mut second = TcpStream::connect(app.app.addr).await.expect("the kernel takes it");
    second.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("taken");
    let early = tokio::time::timeout(Duration::from_millis(200), second.read_exact(&mut byte)).await;
    assert!(early.is_err(), "the second is not served while the first is open");
    drop(first);
    tokio::time::timeout(Duration::from_secs(30), second.read_exact(&mut byte))
        .await
        .expect("in time")
        .expect("the second is served");
    drop(second);
    app.drain().await;
}

#[tokio::test]
async fn a_drain_lets_idle_connections_go_and_takes_no_new_ones() {
    let app = TestApp::start().await;
    let mut idle = TcpStream::connect(app.app.addr).await.expect("a connection");
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("taken");
    let mut byte = [0];
    idle.read_exact(&mut byte).await.expect("an answer");
    let addr = app.app.addr;
    app.drain().await;
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.expect("the connection ends well");
    assert!(TcpStream::connect(addr).await.is_err());
}
