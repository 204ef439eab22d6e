//! The odd corners of HTTP: what cannot be read, what is not supported, and what is merely unusual.

use reqwest::StatusCode;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::TestApp;

/// A problem document like any other.
#[track_caller]
fn expect_problem(answer: &str, status: u16, code: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.contains("content-type: application/problem+json"), "{answer}");
    assert!(head.contains("x-request-id: "), "{answer}");
    let problem: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!((problem["status"].as_u64(), problem["code"].as_str()), (Some(status.into()), Some(code)));
}

#[tokio::test]
async fn bytes_that_are_not_http_are_400_and_the_connection_ends() {
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
        "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(app.app.addr).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the connection ends well");
        assert!(
            answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.0 400 "),
            "{request}: {answer}"
        );
    }
    // What comes before it on the same connection is answered as ever.
    let mut both = TcpStream::connect(app.app.addr).await.expect("a connection");
    both.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n").await.expect("taken");
    let mut answers = String::new();
    both.read_to_string(&mut answers).await.expect("the connection ends well");
    assert!(answers.starts_with("HTTP/1.1 200 OK\r\n") && answers.contains("HTTP/1.1 400 "), "{answers}");
}

#[tokio::test]
async fn a_huge_request_head_is_431() {
    let app = TestApp::start().await;
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(64 * 1024));
    let large = app.raw(request.as_bytes()).await;
    assert!(large.starts_with("HTTP/1.1 431 "), "{large}");
    let many = "X-Many: x\r\n".repeat(200);
    let many = app.raw(format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n").as_bytes()).await;
    assert!(many.starts_with("HTTP/1.1 431 "), "{many}");
}

#[tokio::test]
async fn a_request_of_http_1_1_has_exactly_one_host() {
    let app = TestApp::start().await;
    for hosts in ["", "Host: a\r\nHost: b\r\n"] {
        let answer = app.raw(format!("GET / HTTP/1.1\r\n{hosts}\r\n").as_bytes()).await;
        expect_problem(&answer, 400, "malformed_request");
    }
    let old = app.raw(b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 "), "{old}");
}

#[tokio::test]
async fn a_transfer_encoding_that_would_need_decoding_is_501() {
    let app = TestApp::start().await;
    let post = "POST /api/v1/auth/login-test HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let body = "12\r\n{\"customer_id\": 1}\r\n0\r\n\r\n";
    for codings in
        ["Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"]
    {
        let answer = app.raw(format!("{post}{codings}\r\n{body}").as_bytes()).await;
        expect_problem(&answer, 501, "not_implemented");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    let twice = app.raw(format!("{post}Transfer-Encoding: chunked, chunked\r\n\r\n{body}").as_bytes()).await;
    expect_problem(&twice, 400, "malformed_request");
    let once = app.raw(format!("{post}Transfer-Encoding: Chunked\r\n\r\n{body}").as_bytes()).await;
    assert!(once.starts_with("HTTP/1.1 200 "), "{once}");
}

#[tokio::test]
async fn an_http_2_preface_is_505_with_a_request_id() {
    let app = TestApp::start().await;
    let mut stream = TcpStream::connect(app.app.addr).await.expect("a connection");
    let frame_of_settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let preface = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &frame_of_settings].concat();
    stream.write_all(&preface).await.expect("taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("the connection ends well");
    assert!(answer.starts_with("HTTP/1.1 505 "), "{answer:?}");
    assert!(answer.contains("\r\nx-request-id: "), "{answer}");
}

#[tokio::test]
async fn an_upgrade_that_is_not_offered_is_ignored_and_the_connection_goes_on() {
    let app = TestApp::start().await;
    let mut stream = TcpStream::connect(app.app.addr).await.expect("a connection");
    for upgrade in ["websocket", "h2c"] {
        let request =
            format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("taken");
        let answer = read_answer(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{upgrade}: {answer}");
    }
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_or_an_error_before_it_sends_the_body() {
    let app = TestApp::start().await;
    let mut stream = TcpStream::connect(app.app.addr).await.expect("a connection");
    let head =
        "Host: x\r\nContent-Type: application/json\r\nContent-Length: 18\r\nExpect: 100-continue\r\n\r\n";
    stream
        .write_all(format!("POST /api/v1/auth/login-test HTTP/1.1\r\n{head}").as_bytes())
        .await
        .expect("taken");
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.expect("an interim answer");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(br#"{"customer_id": 1}"#).await.expect("taken");
    let answer = read_answer(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let refused = app.raw(format!("POST /api/v1/orders HTTP/1.1\r\n{head}").as_bytes()).await;
    expect_problem(&refused, 401, "unauthenticated");
}

#[tokio::test]
async fn unusual_targets_and_methods_are_routed_or_a_problem() {
    let app = TestApp::start().await;
    let absolute = app.raw(b"GET http://elsewhere/api/v1/health/live HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(absolute.starts_with("HTTP/1.1 200 "), "{absolute}");
    for (request, status, code) in [
        ("OPTIONS * HTTP/1.1", 404, "not_found"),
        ("CONNECT example.com:443 HTTP/1.1", 404, "not_found"),
        ("GET http://x HTTP/1.1", 200, ""),
        ("TRACE / HTTP/1.1", 405, "method_not_allowed"),
        ("BREW / HTTP/1.1", 405, "method_not_allowed"),
        ("GET //health HTTP/1.1", 404, "not_found"),
        ("GET /api/v1/orders/%ff HTTP/1.1", 401, "unauthenticated"),
    ] {
        let answer = app.raw(format!("{request}\r\nHost: x\r\n\r\n").as_bytes()).await;
        if status == 200 {
            assert!(answer.starts_with("HTTP/1.1 200 "), "{request}: {answer}");
        } else {
            expect_problem(&answer, status, code);
        }
    }
}

#[tokio::test]
async fn no_body_is_read_before_the_token_is_checked() {
    let app = TestApp::start().await;
    for (method, path) in
        [("POST", "/api/v1/orders"), ("PUT", "/api/v1/orders/1"), ("PATCH", "/api/v1/orders/1")]
    {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n");
        // Not a byte of it is sent.
        let answer = app.raw(format!("{head}Content-Length: 200000\r\n\r\n").as_bytes()).await;
        expect_problem(&answer, 401, "unauthenticated");
    }
}

#[tokio::test]
async fn a_client_that_sends_a_refused_body_to_its_end_still_reads_the_response() {
    let app = TestApp::start().await;
    for length in [100_000, 800_000] {
        let mut stream = TcpStream::connect(app.app.addr).await.expect("a connection");
        let head = "POST /api/v1/orders HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
        let request = format!("{head}Content-Length: {length}\r\n\r\n{}", " ".repeat(length));
        stream.write_all(request.as_bytes()).await.expect("taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("the connection ends well");
        let status = if length > 256 * 1024 { 413 } else { 401 };
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    app.get("/").await.expect(StatusCode::OK);
}

/// Reads one answer whose body has a declared length.
async fn read_answer(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    loop {
        assert_ne!(stream.read_buf(&mut answer).await.expect("more"), 0, "the connection ended");
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && head.to_ascii_lowercase().contains(&format!("content-length: {}\r\n", body.len()))
        {
            return text.into_owned();
        }
    }
}
