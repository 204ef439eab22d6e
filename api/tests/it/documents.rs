//! The OpenAPI document and Swagger UI.

use reqwest::StatusCode;
use serde_json::Value;

use crate::support::TestApp;

#[tokio::test]
async fn the_served_and_the_printed_document_are_equal() {
    let app = TestApp::start().await;
    let served = app.get("/openapi.json").await.expect(StatusCode::OK);
    assert_eq!(served.header("content-type"), Some("application/json"));
    let printed = std::process::Command::new(env!("CARGO_BIN_EXE_api")).arg("openapi").output();
    let printed: Value = serde_json::from_slice(&printed.expect("the binary runs").stdout).expect("JSON");
    assert_eq!(served.json, printed);
}

#[tokio::test]
async fn every_operation_names_its_errors_and_whether_it_needs_a_token() {
    let app = TestApp::start().await;
    let document = app.get("/openapi.json").await.json;
    let paths = document["paths"].as_object().expect("paths");
    assert!(paths.len() >= 8);
    for (path, item) in paths {
        for (method, operation) in item.as_object().expect("operations") {
            let place = format!("{method} {path}");
            assert!(operation["summary"].is_string(), "{place} has no summary");
            assert!(operation["responses"]["429"].is_object(), "{place}");
            assert!(operation["responses"]["503"].is_object(), "{place}");
            let open = operation["security"]
                .as_array()
                .is_some_and(|needed| needed.contains(&serde_json::json!({})));
            assert!(open || operation["responses"]["401"].is_object(), "{place}");
            let secured = ["/api/v1/orders", "/api/v1/events", "/api/v1/admin", "/api/v1/auth/logout-all"]
                .iter()
                .any(|secured| path.starts_with(secured));
            assert_eq!(open, !secured, "{place}");
            for (status, answer) in operation["responses"].as_object().expect("answers") {
                let answer = resolve(&document, answer);
                assert!(answer["headers"]["X-Request-Id"].is_object(), "{place} {status}");
            }
        }
    }
}

#[tokio::test]
async fn every_reference_of_the_document_resolves() {
    let app = TestApp::start().await;
    let document = app.get("/openapi.json").await.json;
    let mut todo = vec![&document];
    while let Some(value) = todo.pop() {
        match value {
            Value::Object(members) => {
                if let Some(Value::String(reference)) = members.get("$ref") {
                    let target = document.pointer(reference.trim_start_matches('#'));
                    assert!(target.is_some(), "{reference}");
                }
                todo.extend(members.values());
            }
            Value::Array(elements) => todo.extend(elements),
            _ => {}
        }
    }
}

#[tokio::test]
async fn swagger_ui_is_served_from_the_binary_with_everything_it_loads() {
    let app = TestApp::start().await;
    for page in ["/docs", "/docs/"] {
        let page = app.get(page).await.expect(StatusCode::OK);
        assert!(
            page.header("content-security-policy").is_some_and(|policy| policy.contains("script-src 'self'"))
        );
        let html = String::from_utf8(page.bytes).expect("text");
        assert!(!html.contains("http://") && !html.contains("https://"), "nothing comes from elsewhere");
        let assets = html.split('"').filter(|part| part.starts_with("/docs/"));
        for asset in assets {
            app.get(asset).await.expect(StatusCode::OK);
        }
    }
    let start = app.get("/docs/swagger-initializer.js").await.expect(StatusCode::OK);
    let start = String::from_utf8_lossy(&start.bytes).into_owned();
    assert!(start.contains("/openapi.json"));
    assert!(
        !start.replace(' ', "").contains(r#""persistAuthorization":true"#),
        "no token is stored: {start}"
    );
    app.get("/docs/../Cargo.toml").await.expect(StatusCode::NOT_FOUND);
}

fn resolve<'a>(document: &'a Value, value: &'a Value) -> &'a Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).expect("a target"),
        None => value,
    }
}
