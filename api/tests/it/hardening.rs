//! What a hostile client, or a browser led astray, gets.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{TestApp, answer};

#[tokio::test]
async fn every_response_has_the_security_headers() {
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
}

#[tokio::test]
async fn a_request_head_that_never_ends_is_disconnected() {
    let app = TestApp::with()
        .tune(|config| config.http.server.header_read_timeout = Duration::from_millis(300))
        .start()
        .await;
    let mut slow = TcpStream::connect(app.app.addr).await.expect("a connection");
    slow.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.expect("taken");
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), slow.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection is still open");
}

#[tokio::test]
async fn a_shutdown_closes_idle_connections_and_accepts_no_new_ones() {
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
