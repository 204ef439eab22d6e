//! A client as a shop would write it: it repeats a request without a response under the same idempotency key.

use std::{future::Future, time::Duration};

use anyhow::{Context, bail};
use reqwest::{Method, StatusCode, header};
use serde_json::{Value, json};

/// One logged-in customer.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    /// The API's address.
    pub url: String,
    token: String,
}

/// An API that is being restarted is back well within this.
const REPEAT_TIMEOUT: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(50);

impl Client {
    /// Logs in by `login-test`, also if an outage makes it wait.
    pub async fn login(url: &str, customer_id: i64) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(15)).build()?;
        let login = || async {
            let request = http.post(format!("{url}/api/v1/auth/login-test"));
            read_response(request.json(&json!({"customer_id": customer_id})).send().await?).await
        };
        let (status, answer) = repeat_until_answered("the login", login).await?;
        anyhow::ensure!(status == StatusCode::OK, "login: {status} {answer}");
        let token = answer["accessToken"].as_str().context("no accessToken")?.to_owned();
        Ok(Self { http, url: url.to_owned(), token })
    }

    /// The same customer, calling another replica.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self { url: url.to_owned(), ..self.clone() }
    }

    /// One request, once.
    pub async fn request_once(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token);
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        read_response(request.send().await?).await
    }

    /// A request that is repeated under one key until the response is not about an outage.
    pub async fn request_until_answered(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: &str,
    ) -> anyhow::Result<(StatusCode, Value)> {
        self.repeat_until_answered(method, path, body, Some(key)).await
    }

    /// [`Self::request_until_answered`] of a request that may have no key because it can be repeated without one.
    pub async fn repeat_until_answered(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        key: Option<&str>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let request = || self.request_once(method.clone(), path, body, key);
        repeat_until_answered(&format!("{method} {path}"), request).await
    }

    /// A small, valid order.
    pub fn order(seed: i64) -> Value {
        json!({
            "order_date": "2025-01-20",
            "lines": [
                {"product_id": 1000 + seed % 50, "quantity": 1 + seed % 7, "unit_price": "25.50"},
                {"product_id": 2000 + seed % 50, "quantity": 1, "unit_price": 15.00},
            ],
        })
    }

    /// Creates an order, sends it on its way, and, for every third, cancels and deletes it instead.
    ///
    /// Returns its id and its last version.
    pub async fn complete_order(&self, seed: i64) -> anyhow::Result<(i64, i64)> {
        let (status, order) = self
            .request_until_answered(
                Method::POST,
                "/api/v1/orders",
                Some(&Self::order(seed)),
                &format!("create-{seed}"),
            )
            .await?;
        anyhow::ensure!(status == StatusCode::CREATED, "create: {status} {order}");
        let id = order["id"].as_i64().context("no id")?;
        let path = format!("/api/v1/orders/{id}");
        let next = if seed % 3 == 0 { "CANCELLED" } else { "SHIPPED" };
        let (status, order) = self
            .request_until_answered(
                Method::PUT,
                &path,
                Some(&json!({"status": next})),
                &format!("update-{seed}"),
            )
            .await?;
        anyhow::ensure!(status == StatusCode::OK && order["version"] == 2, "update: {status} {order}");
        if seed % 3 == 0 {
            let (status, answer) =
                self.request_until_answered(Method::DELETE, &path, None, &format!("delete-{seed}")).await?;
            anyhow::ensure!(status == StatusCode::NO_CONTENT, "delete: {status} {answer}");
        } else {
            let (status, order) = self
                .request_until_answered(
                    Method::PATCH,
                    &path,
                    Some(&json!({"status": "DELIVERED"})),
                    &format!("deliver-{seed}"),
                )
                .await?;
            anyhow::ensure!(status == StatusCode::OK && order["version"] == 3, "deliver: {status} {order}");
        }
        Ok((id, 3))
    }

    /// Every `clients`-th of this many orders, one after the other.
    pub async fn complete_share(self, share: i64, clients: i64, orders: i64) -> anyhow::Result<()> {
        for seed in (0..orders).filter(|seed| seed % clients == share) {
            self.complete_order(seed).await?;
        }
        Ok(())
    }
}

/// Repeats a request until its response is not about an outage.
async fn repeat_until_answered<F>(
    what: &str,
    request_once: impl Fn() -> F,
) -> anyhow::Result<(StatusCode, Value)>
where
    F: Future<Output = anyhow::Result<(StatusCode, Value)>>,
{
    let start = std::time::Instant::now();
    loop {
        match request_once().await {
            Ok((status, answer))
                if !status.is_server_error() && answer["code"] != "idempotency_in_progress" =>
            {
                return Ok((status, answer));
            }
            other if start.elapsed() > REPEAT_TIMEOUT => bail!("{what} never got a response: {other:?}"),
            // A restart is in progress; the pause keeps the client from spinning meanwhile.
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn read_response(response: reqwest::Response) -> anyhow::Result<(StatusCode, Value)> {
    let status = response.status();
    let text = response.text().await?;
    testbed::assert_without_decoy(&text);
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? };
    Ok((status, body))
}
