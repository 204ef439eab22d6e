//! What a handler that panics or never ends is answered with: the frame around real handlers, around such ones.

use std::time::Duration;

use api::http::{layer::RequestLayer, server};
use axum::{Router, routing::get};
use reqwest::{Method, StatusCode};
use shared::platform::shutdown::Shutdown;

use crate::support::{Answer, TestApp, answer};

/// Serves handlers that fail, behind the frame and the server of `app`.
async fn serve(app: &TestApp) -> (String, Shutdown) {
    let state = app.app.state.clone();
    let router = Router::new()
        .route("/panics", get(async || -> &'static str { panic!("the secret of the handler") }))
        .route("/never-ends", get(async || std::future::pending::<&'static str>().await))
        .route("/works", get(async || "well"))
        .layer(RequestLayer::new(state.clone()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("an address"));
    let shutdown = Shutdown::new();
    shutdown.spawn(server::serve(listener, router, state.config.http.server, shutdown.clone()));
    (base, shutdown)
}

async fn ask(base: &str, path: &str) -> Answer {
    answer(reqwest::Client::new().request(Method::GET, format!("{base}{path}"))).await
}

#[tokio::test]
async fn a_panicking_handler_is_a_problem_without_internals_and_harms_nobody_else() {
    let app = TestApp::start().await;
    let (base, shutdown) = serve(&app).await;
    let problem = ask(&base, "/panics").await;
    let problem = problem.expect_problem(StatusCode::INTERNAL_SERVER_ERROR, "internal_error");
    assert!(!String::from_utf8_lossy(&problem.bytes).contains("secret"));
    ask(&base, "/works").await.expect(StatusCode::OK);
    shutdown.begin();
    assert!(shutdown.drained(Duration::from_secs(30)).await);
    app.drain().await;
}

#[tokio::test]
async fn a_handler_that_never_ends_is_a_problem() {
    let app =
        TestApp::with().tune(|config| config.http.request_timeout = Duration::from_millis(200)).start().await;
    let (base, shutdown) = serve(&app).await;
    ask(&base, "/never-ends").await.expect_problem(StatusCode::GATEWAY_TIMEOUT, "timeout");
    shutdown.begin();
    assert!(shutdown.drained(Duration::from_secs(30)).await);
    app.drain().await;
}
