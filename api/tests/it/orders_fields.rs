//! The fields of an order: a change of each one shows wherever the order does.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    orders_support::{order, path},
    support::{Session, TestApp},
};

/// An update that changes this field, or `None` if no request changes it. The test fails for a new field until it stands here.
fn update_of(field: &str) -> Option<Value> {
    match field {
        "status" => Some(json!({"status": "CONFIRMED"})),
        "reference" => Some(json!({"reference": "PO-4711"})),
        "metadata" => Some(json!({"metadata": {"color": "red"}})),
        "order_date" => Some(json!({"order_date": "2025-01-19"})),
        "lines" | "total_amount" => {
            Some(json!({"lines": [{"product_id": 7, "quantity": 3, "unit_price": "1.25"}]}))
        }
        "id" | "customer_id" | "created_at" | "version" | "updated_at" => None,
        other => panic!("say how a request changes `{other}`, or that none does"),
    }
}

/// The fields of the schema `Order`: also those that a response leaves out if they have no value.
async fn described_fields(app: &TestApp) -> Vec<String> {
    let document = app.get("/openapi.json").await.expect(StatusCode::OK).json;
    let schema = &document["components"]["schemas"]["Order"]["properties"];
    schema.as_object().expect("the schema of an order").keys().cloned().collect()
}

/// The order as the list shows it.
async fn listed(session: &Session, id: i64) -> Value {
    let list = session.get("/api/v1/orders").await.expect(StatusCode::OK);
    let orders = list.json["orders"].as_array().expect("orders");
    orders.iter().find(|order| order["id"] == id).expect("it is listed").clone()
}

/// The data of the last event of the order.
async fn last_event(app: &TestApp, id: i64) -> Value {
    let payload: String =
        sqlx::query_scalar("SELECT payload FROM outbox WHERE order_id = $1 ORDER BY id DESC LIMIT 1")
            .bind(id)
            .fetch_one(&app.db)
            .await
            .expect("an event");
    let event: Value = serde_json::from_str(&payload).expect("JSON");
    event["data"].clone()
}

#[tokio::test]
async fn a_change_of_each_field_shows_in_response_cache_database_list_and_event() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let fields = described_fields(&app).await;
    assert!(fields.len() >= 11, "{fields:?}");
    for field in &fields {
        let Some(update) = update_of(field) else { continue };
        let before = session.post("/api/v1/orders", &order()).await.expect(StatusCode::CREATED).json;
        let id = before["id"].as_i64().expect("an id");
        app.read_into_cache(&session, id).await;

        let after = session.patch(&path(id), &update).await.expect(StatusCode::OK).json;
        assert_ne!(after[field], before[field], "{field}");
        assert_eq!(session.get(&path(id)).await.json, after, "{field} in the cache");
        app.forget_cached(id).await;
        assert_eq!(session.get(&path(id)).await.json, after, "{field} in the database");
        assert_eq!(listed(&session, id).await, after, "{field} in the list");
        let event = last_event(&app, id).await;
        assert_eq!(event["order"], after, "{field} in the event");
        assert_eq!(event["changes"][field], json!({"from": before[field], "to": after[field]}), "{field}");

        // The same update again changes nothing.
        let again = session.patch(&path(id), &update).await.expect(StatusCode::OK).json;
        assert_eq!(again, after, "{field}");
    }
}
