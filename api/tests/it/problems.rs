//! Every answer that is no success is a problem document.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::{
    orders_support::{order, path},
    support::{TestApp, answer},
};

#[tokio::test]
async fn an_unknown_path_is_a_problem() {
    let app = TestApp::start().await;
    let problem = app.get("/nowhere?x=1").await.expect_problem(StatusCode::NOT_FOUND, "not_found");
    assert_eq!(problem.json["instance"], "/nowhere");
}

#[tokio::test]
async fn a_wrong_method_is_a_problem_that_names_the_allowed_ones() {
    let app = TestApp::start().await;
    let problem = answer(app.request(Method::DELETE, "/api/v1/auth/refresh")).await;
    let problem = problem.expect_problem(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed");
    assert_eq!(problem.header("allow"), Some("POST"));
}

#[tokio::test]
async fn a_wrong_content_type_is_a_problem() {
    let app = TestApp::start().await;
    for content_type in ["text/plain", "application/xml", "application/jsonp", ""] {
        let request =
            app.request(Method::POST, "/api/v1/auth/login-test").header("content-type", content_type);
        let problem = answer(request.body(r#"{"customer_id": 1}"#)).await;
        problem.expect_problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type");
    }
    let request = app.request(Method::POST, "/api/v1/auth/login-test");
    let request =
        request.header("content-type", "Application/JSON; charset=utf-8").body(r#"{"customer_id": 1}"#);
    answer(request).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_compressed_body_is_a_problem_that_names_the_accepted_encoding() {
    let app = TestApp::start().await;
    let body = json!({"customer_id": 1});
    let login =
        |coding| app.request(Method::POST, "/api/v1/auth/login-test").header("content-encoding", coding);
    let problem = answer(login("gzip").json(&body)).await;
    let problem = problem.expect_problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type");
    assert_eq!(problem.header("accept-encoding"), Some("identity"));
    answer(login("Identity").json(&body)).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn every_route_without_parameters_refuses_parameters() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let id = session.place(&order()).await;
    let (one, history) = (path(id), format!("{}/history", path(id)));
    for (method, path) in [
        (Method::GET, one.as_str()),
        (Method::GET, &history),
        (Method::PUT, &one),
        (Method::PATCH, &one),
        (Method::DELETE, &one),
        (Method::POST, "/api/v1/orders"),
        (Method::POST, "/api/v1/orders/batch"),
        (Method::POST, "/api/v1/auth/login-test"),
        (Method::POST, "/api/v1/auth/refresh"),
    ] {
        let body = json!({"customer_id": 1});
        let asked = session.request(method.clone(), &format!("{path}?expand=lines&x=1")).json(&body);
        let problem = answer(asked).await;
        let problem = problem.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
        assert_eq!(problem.faults(), ["?expand unknown_field", "?x unknown_field"], "{method} {path}");
    }
    session.get(&format!("{one}?")).await.expect(StatusCode::OK);
}

#[tokio::test]
async fn broken_json_is_a_problem() {
    let app = TestApp::start().await;
    let deep = "[".repeat(4000);
    for body in
        [b"".as_slice(), b"{", b"{\"customer_id\": 1,}", b"{\"a\": \"\xff\"}", b"{} {}", deep.as_bytes()]
    {
        let request = app.request(Method::POST, "/api/v1/auth/login-test").body(body.to_vec());
        let problem = answer(request.header("content-type", "application/json")).await;
        problem.expect_problem(StatusCode::BAD_REQUEST, "malformed_request");
    }
}

#[tokio::test]
async fn all_errors_of_a_body_are_reported_at_once() {
    let app = TestApp::start().await;
    let body = r#"{"customer_id": "x", "role": "root", "a/b~c": 1, "role": "admin"}"#;
    let request = app.request(Method::POST, "/api/v1/auth/login-test").body(body);
    let problem = answer(request.header("content-type", "application/json")).await;
    let problem = problem.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    assert_eq!(
        problem.faults(),
        [
            "/a~1b~0c unknown_field",
            "/customer_id invalid_type",
            "/role duplicate_field",
            "/role invalid_value",
        ]
    );
    assert_eq!(problem.json["detail"], "4 fields are invalid");

    let problem = app.post("/api/v1/auth/login-test", &json!([])).await;
    let problem = problem.expect_problem(StatusCode::UNPROCESSABLE_ENTITY, "validation_failed");
    assert_eq!(problem.faults(), [" invalid_type"]);
}

#[tokio::test]
async fn a_body_over_256_kib_is_a_problem_with_and_without_a_declared_length() {
    let app = TestApp::start().await;
    let body = format!(r#"{{"customer_id": 1, "x": "{}"}}"#, "x".repeat(256 * 1024));
    let head = "POST /api/v1/auth/login-test HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let declared = format!("{head}Content-Length: {}\r\n\r\n", body.len());
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n", body.len());
    for request in [declared, chunked] {
        let answer = app.raw(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains(r#""code":"payload_too_large""#), "{answer}");
    }
}

#[tokio::test]
async fn a_deeply_nested_body_is_a_problem_and_the_api_goes_on() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        for depth in [200, 40_000] {
            let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            for body in [nested.clone(), format!(r#"{{"order_date": "2025-01-20", "lines": {nested}}}"#)] {
                let sent = session
                    .request(Method::POST, "/api/v1/orders")
                    .header("content-type", "application/json")
                    .body(body);
                let refused = answer(sent).await;
                assert!(refused.status.is_client_error(), "{depth} levels of {open}: {}", refused.status);
                assert!(refused.json["code"].is_string(), "{}", refused.json);
            }
        }
    }
    app.get("/").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_valid_request_id_is_kept_and_an_invalid_one_is_replaced() {
    let app = TestApp::start().await;
    let sent = |id: &str| app.request(Method::GET, "/").header("x-request-id", id);
    assert_eq!(answer(sent("my-id:42")).await.header("x-request-id"), Some("my-id:42"));
    let longest = "x".repeat(128);
    assert_eq!(answer(sent(&longest)).await.header("x-request-id"), Some(longest.as_str()));
    for insane in ["", "two words", &"x".repeat(129)] {
        let given = answer(sent(insane)).await;
        let given = given.header("x-request-id").expect("an id");
        assert_eq!(uuid::Uuid::parse_str(given).map(|id| id.get_version_num()), Ok(7), "{insane:?}");
    }
}
