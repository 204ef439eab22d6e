//! The responses of handlers that panic or never end, behind the layer of the real handlers.

use std::time::Duration;

use api::http::{router::request_layer, server};
use axum::{Router, routing};
use reqwest::{Method, StatusCode};
use shared::platform::shutdown::Shutdown;

use crate::support::{Answer, TestApp, answer};

/// Serves handlers that fail, with the layer and the server of `app`.
async fn serve(app: &TestApp) -> (String, Shutdown) {
    let state = app.app.state.clone();
    let router = Router::new()
        .route("/panics", routing::get(async || -> &'static str { panic!("the secret of the handler") }))
        .route("/never-ends", routing::get(async || std::future::pending::<&'static str>().await))
        .route("/works", routing::get(async || "well"))
        .layer(request_layer(&state));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let shutdown = Shutdown::new();
    shutdown.spawn(server::serve(listener, router, state.config.http.server, shutdown.clone()));
    (base, shutdown)
}

async fn get(base: &str, path: &str) -> Answer {
    answer(reqwest::Client::new().request(Method::GET, format!("{base}{path}"))).await
}

#[tokio::test]
async fn a_panicking_handler_is_a_500_problem_without_internals_and_others_still_work() {
    let app = TestApp::start().await;
    let (base, shutdown) = serve(&app).await;
    let problem = get(&base, "/panics").await;
    let problem = problem.expect_problem(StatusCode::INTERNAL_SERVER_ERROR, "internal_error");
    assert!(!String::from_utf8_lossy(&problem.bytes).contains("secret"));
    get(&base, "/works").await.expect(StatusCode::OK);
    shutdown.begin();
    assert!(shutdown.drained(Duration::from_secs(30)).await);
}

#[tokio::test]
async fn a_handler_that_never_ends_is_a_504_problem() {
    let app =
        TestApp::with().tune(|config| config.http.request_timeout = Duration::from_millis(200)).start().await;
    let (base, shutdown) = serve(&app).await;
    get(&base, "/never-ends").await.expect_problem(StatusCode::GATEWAY_TIMEOUT, "timeout");
    shutdown.begin();
    assert!(shutdown.drained(Duration::from_secs(30)).await);
}
