//! Every event is as the `AsyncAPI` document describes it.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::TestApp;

#[tokio::test]
async fn every_event_of_an_order_matches_the_document() {
    let app = TestApp::start().await;
    let alice = app.login(1).await;
    let body = json!({"order_date": "2025-01-20", "lines": [{"product_id": 1, "quantity": 2, "unit_price": "25.50"}]});
    let path = alice.post("/api/v1/orders", &body).await.expect(StatusCode::CREATED);
    let path = path.header("location").expect("Location").to_owned();
    alice.patch(&path, &json!({"status": "CONFIRMED"})).await.expect(StatusCode::OK);
    alice.delete(&path).await.expect(StatusCode::NO_CONTENT);

    let document = app.get("/asyncapi.json").await.expect(StatusCode::OK).json;
    assert_eq!(document["asyncapi"], "3.0.0");
    let events: Vec<String> = sqlx::query_scalar("SELECT payload FROM outbox ORDER BY id")
        .fetch_all(&app.db)
        .await
        .expect("events");
    let events: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().expect("a type")).collect();
    assert_eq!(kinds, ["OrderCreated", "OrderUpdated", "OrderDeleted"]);
    for event in &events {
        let kind = event["type"].as_str().expect("a type");
        // The references of a payload lead into the document.
        let mut schema = document["components"]["messages"][kind]["payload"].clone();
        schema["components"] = document["components"].clone();
        let validator = jsonschema::validator_for(&schema).expect("a schema");
        let faults: Vec<String> = validator.iter_errors(event).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{kind}: {faults:?}");

        let mut wrong = event.clone();
        wrong["data"]["order"]["total_amount"] = json!(51);
        assert!(!validator.is_valid(&wrong), "the schema says something");
        wrong = event.clone();
        wrong["type"] = json!("OrderEaten");
        assert!(!validator.is_valid(&wrong), "the schema says something");
    }
}
