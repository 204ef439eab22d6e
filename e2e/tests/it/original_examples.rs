//! The original system's own curl examples, verbatim, with their documented answers.

use std::process::Command;

use e2e::{Broker, System};
use serde_json::{Value, json};

fn curl(arguments: &[&str]) -> (u16, Value) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--write-out", "\n%{http_code}"])
        .args(arguments)
        .output()
        .expect("curl runs");
    let text = String::from_utf8(output.stdout).expect("curl prints text");
    let (body, status) = text.rsplit_once('\n').expect("curl prints the status last");
    (status.parse().expect("a status"), serde_json::from_str(body).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_original_curl_examples_answer_as_documented() {
    let system = System::new(Broker::RedisStreams).await;
    let api = system.api().await;
    let _worker = system.worker().await;
    let url = &api.url;
    let json_type = "Content-Type: application/json";

    let login = format!("{url}/api/v1/auth/login-test");
    let (status, tokens) = curl(&["-X", "POST", &login, "-H", json_type, "-d", r#"{"customer_id": 123}"#]);
    assert_eq!(status, 200, "{tokens}");
    assert_eq!(tokens["tokenType"], "bearer");
    assert_eq!(tokens["expiresIn"], 1800);
    assert_eq!(tokens["customerId"], 123);
    let bearer = format!("Authorization: Bearer {}", tokens["accessToken"].as_str().expect("a token"));

    let orders = format!("{url}/api/v1/orders");
    let body = r#"{"customer_id": 123, "order_date": "2025-01-20", "lines": [
        {"product_id": 1001, "quantity": 2, "unit_price": 25.50},
        {"product_id": 1002, "quantity": 1, "unit_price": 15.00}]}"#;
    let (status, created) = curl(&["-X", "POST", &orders, "-H", &bearer, "-H", json_type, "-d", body]);
    assert_eq!(status, 201, "{created}");
    assert_eq!(created["total_amount"], "66.00");
    assert_eq!(created["id"], 1, "the first order has number 1");
    assert_eq!(created["lines"][0]["unit_price"], "25.50");

    let (status, read) = curl(&[&format!("{orders}/1"), "-H", &bearer]);
    assert_eq!((status, &read), (200, &created));

    let one = format!("{orders}/1");
    let (status, shipped) =
        curl(&["-X", "PUT", &one, "-H", &bearer, "-H", json_type, "-d", r#"{"status": "SHIPPED"}"#]);
    assert_eq!(status, 200, "{shipped}");
    assert_eq!((&shipped["status"], &shipped["version"]), (&json!("SHIPPED"), &json!(2)));

    let history = testbed::eventually("the worker has recorded both versions", async || {
        let (_, history) = curl(&[&format!("{one}/history"), "-H", &bearer]);
        (history["complete_through"] == 2).then_some(history)
    })
    .await;
    assert_eq!(history["entries"][0]["action"], "CREATED");
    assert_eq!(history["entries"][1]["changes"]["status"], json!({"from": "PENDING", "to": "SHIPPED"}));
}
