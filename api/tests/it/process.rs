//! The program itself: its log, its metrics, its traces.

use std::{
    process::{Output, Stdio},
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, routing::post};
use jsonwebtoken::{EncodingKey, Header};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use shared::domain::clock::Clock;
use tokio::process::{Child, Command};

use crate::support::{SECRET, server_address};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// The program on servers of its own.
pub(crate) struct Running {
    child: Child,
    api: String,
    metrics: String,
    client: reqwest::Client,
    _servers: (testbed::Database, testbed::RedisDb),
}

impl Running {
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        Self::spawn(bare(), settings).await
    }

    /// With a hard limit of open files.
    pub(crate) async fn start_with_open_files(open_files: u32, settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new("/bin/sh");
        let script = format!("ulimit -n {open_files} && exec {}", env!("CARGO_BIN_EXE_api"));
        command.args(["-c", &script]).env_clear().current_dir(std::env::temp_dir());
        Self::spawn(command, settings).await
    }

    async fn spawn(mut command: Command, settings: &[(&str, &str)]) -> Self {
        let (database, redis) = (testbed::postgres().await, testbed::redis().await);
        let (port, metrics) = (testbed::free_port(), testbed::free_port());
        let child = command
            .env("DATABASE_URL", database.url())
            .env("REDIS_URL", redis.url())
            .env("JWT_SECRET", SECRET)
            .env("HOST", "127.0.0.1")
            .env("PORT", port.to_string())
            .env("METRICS_ADDR", format!("127.0.0.1:{metrics}"))
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let running = Self {
            child,
            api: format!("http://127.0.0.1:{port}"),
            metrics: format!("http://127.0.0.1:{metrics}"),
            client: reqwest::Client::builder().no_proxy().build().expect("a client"),
            _servers: (database, redis),
        };
        let live = format!("{}/api/v1/health/live", running.api);
        testbed::eventually("the program answers", async || running.client.get(&live).send().await).await;
        running
    }

    /// A request without a token.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.api))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        self.api.trim_start_matches("http://")
    }

    /// What its metrics say.
    pub(crate) async fn metrics(&self) -> String {
        let metrics = self.client.get(format!("{}/metrics", self.metrics)).send().await.expect("an answer");
        metrics.text().await.expect("text")
    }

    /// The memory that is resident, in MB.
    pub(crate) fn resident_megabytes(&self) -> u64 {
        let id = self.child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
    }

    /// Stops it as an operator does; gives what it wrote.
    pub(crate) async fn stop(self) -> Output {
        // The shell's own `kill`: the program of that name is not on every system.
        let stop = format!("kill -TERM {}", self.child.id().expect("it runs"));
        let asked = Command::new("sh").args(["-c", &stop]).status().await.expect("a shell");
        assert!(asked.success());
        let output = self.child.wait_with_output().await.expect("it ends");
        assert!(output.status.success(), "{output:?}");
        output
    }
}

/// The program without any setting, away from every `.env`.
pub(crate) fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_api"));
    command.env_clear().current_dir(std::env::temp_dir());
    command
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect()
}

#[tokio::test]
async fn a_request_is_logged_in_one_line_without_secrets() {
    let running = Running::start(&[]).await;
    let secret = "a-token-that-nobody-may-read";
    let request = running.client.get(format!("{}/api/v1/orders/42?customer_id=secret-query", running.api));
    let request = request
        .bearer_auth(secret)
        .header("x-request-id", "request-of-the-test")
        .header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    request.send().await.expect("an answer");
    let body = json!({"email": "ada@example.com", "password": "correct horse"});
    running
        .client
        .post(format!("{}/api/v1/auth/register", running.api))
        .json(&body)
        .send()
        .await
        .expect("an answer");

    let output = running.stop().await;
    let text = String::from_utf8_lossy(&output.stdout);
    for hidden in [secret, "secret-query", "ada@example.com", "correct horse", SECRET] {
        assert!(!text.contains(hidden), "{hidden} stands in the log: {text}");
    }
    let lines = lines(&output);
    let ours: Vec<&Value> = lines.iter().filter(|line| line["request_id"] == "request-of-the-test").collect();
    let [line] = ours.as_slice() else { panic!("one line a request: {ours:?}") };
    assert_eq!(line["method"], "GET");
    assert_eq!(line["route"], "/api/v1/orders/{id}");
    assert_eq!(line["status"], 401);
    assert_eq!(line["trace_id"], TRACE);
    assert_eq!(line["error.code"], "unauthenticated");
    assert!(line["duration_ms"].is_f64());
}

#[tokio::test]
async fn an_ignored_proxy_header_is_logged_once() {
    let running = Running::start(&[]).await;
    for header in ["x-forwarded-for", "x-forwarded-for", "forwarded"] {
        let request = running.request(Method::GET, "/").header(header, "192.0.2.1");
        request.send().await.expect("an answer");
    }
    let text = String::from_utf8(running.stop().await.stdout).expect("text");
    assert_eq!(text.matches("TRUSTED_PROXIES is 0").count(), 1, "{text}");

    let running = Running::start(&[("TRUSTED_PROXIES", "1")]).await;
    let request = running.request(Method::GET, "/").header("x-forwarded-for", "192.0.2.1");
    request.send().await.expect("an answer");
    let text = String::from_utf8(running.stop().await.stdout).expect("text");
    assert!(!text.contains("TRUSTED_PROXIES is 0"), "{text}");
}

#[tokio::test]
async fn the_log_names_the_own_tenant_of_an_operator_that_acts_in_another_one() {
    let running = Running::start(&[]).await;
    let now = Clock::System.now().unix_timestamp();
    for (home, acts_in) in [(1, None), (1, Some(1)), (1, Some(2)), (2, None), (2, Some(1))] {
        let claims = json!({"sub": "71", "customer_id": 71, "role": "operator", "type": "access", "iat": now, "exp": now + 60,
            "jti": "x", "tenant": home});
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        let token = jsonwebtoken::encode(&Header::default(), &claims, &key).expect("a token");
        let mut export = running.request(Method::GET, "/api/v1/orders/export").bearer_auth(token);
        if let Some(tenant) = acts_in {
            export = export.header("x-tenant-id", tenant);
        }
        let export = export.send().await.expect("an answer");
        assert_eq!(export.status(), 200);
        export.bytes().await.expect("the whole file");
    }
    let output = running.stop().await;
    let lines = lines(&output);
    let told = |message: &str, name: &str| -> Vec<Value> {
        let of_exports = lines.iter().filter(|line| {
            line["message"] == message
                && (line["route"].is_null() || line["route"] == "/api/v1/orders/export")
        });
        of_exports.map(|line| json!([line["customer_id"], line[name]])).collect()
    };
    let own = [json!([71, null]), json!([71, null]), json!([71, 1]), json!([71, null]), json!([71, 2])];
    assert_eq!(told("request", "caller.tenant.id"), own);
    assert_eq!(told("an export has ended", "caller.tenant.id"), own);
    let tenants = [json!([71, null]), json!([71, null]), json!([71, 2]), json!([71, 2]), json!([71, null])];
    assert_eq!(told("request", "tenant.id"), tenants);
}

#[tokio::test]
async fn the_log_line_of_an_order_request_has_the_order_id() {
    let running = Running::start(&[]).await;
    let account = json!({"email": "ada@example.com", "password": "a long and unusual one"});
    let send = async |method: Method, path: &str, token: &str, body: Option<&Value>| -> Value {
        let mut request = running.request(method, path).header("idempotency-key", "the-key");
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        request.send().await.expect("an answer").json().await.unwrap_or_default()
    };
    send(Method::POST, "/api/v1/auth/register", "", Some(&account)).await;
    let pair = send(Method::POST, "/api/v1/auth/login", "", Some(&account)).await;
    let token = pair["accessToken"].as_str().expect("a token");
    let order = json!({
        "order_date": "2025-01-20", "lines": [{"product_id": 1, "quantity": 1, "unit_price": 1}],
    });
    let mut id = Value::Null;
    for _ in 0..2 {
        id = send(Method::POST, "/api/v1/orders", token, Some(&order)).await["id"].take();
    }
    let path = format!("/api/v1/orders/{id}");
    send(Method::GET, &path, token, None).await;
    send(Method::GET, &format!("{path}/history"), token, None).await;
    send(Method::PUT, &path, token, Some(&json!({}))).await;
    send(Method::GET, "/api/v1/orders", token, None).await;

    let output = running.stop().await;
    let lines = lines(&output);
    let requests =
        lines.iter().filter(|line| line["route"].as_str().is_some_and(|route| route.contains("orders")));
    let told: Vec<(&str, &Value)> =
        requests.map(|line| (line["route"].as_str().unwrap_or_default(), &line["order.id"])).collect();
    let (orders, one) = ("/api/v1/orders", "/api/v1/orders/{id}");
    // Placed, and the same answer again; shown; its history; an idempotency key of another request; and a list of many.
    let expected = [
        (orders, &id),
        (orders, &id),
        (one, &id),
        ("/api/v1/orders/{id}/history", &id),
        (one, &id),
        (orders, &Value::Null),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn metrics_are_on_a_port_of_their_own_and_never_on_the_public_one() {
    let running = Running::start(&[]).await;
    running.client.get(format!("{}/nowhere", running.api)).send().await.expect("an answer");
    let metrics = running.client.get(format!("{}/metrics", running.metrics)).send().await.expect("an answer");
    let text = metrics.text().await.expect("text");
    let wanted = r#"http_requests_total{route="unmatched",method="GET",status="404"} 1"#;
    assert!(text.contains(wanted), "{text}");
    assert!(text.contains("http_request_duration_seconds_bucket"), "{text}");
    let public = running.client.get(format!("{}/metrics", running.api)).send().await.expect("an answer");
    assert_eq!(public.status(), 404);
    running.stop().await;
}

#[tokio::test]
async fn traces_are_exported_as_part_of_the_callers_trace() {
    let collected = Arc::<Mutex<Vec<u8>>>::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let collector = format!("http://{}", listener.local_addr().expect("an address"));
    let sink = Arc::clone(&collected);
    let take = move |body: Bytes| async move { sink.lock().expect("no panic").extend_from_slice(&body) };
    let router = Router::new().route("/v1/traces", post(take));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let running = Running::start(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector)]).await;
    let request = running.client.get(format!("{}/nowhere", running.api));
    let request = request.header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    request.send().await.expect("an answer");
    // The last spans are sent at the end of the process.
    running.stop().await;

    let collected = collected.lock().expect("no panic");
    let holds = |bytes: &[u8]| collected.windows(bytes.len()).any(|window| window == bytes);
    let trace = u128::from_str_radix(TRACE, 16).expect("hex").to_be_bytes();
    assert!(holds(&trace), "the caller's trace");
    assert!(holds(&0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()), "the caller's span as the parent");
    assert!(holds(b"orders-api") && holds(b"GET unmatched"), "who, and what");
}

#[tokio::test]
async fn gauges_are_read_at_the_scrape_and_are_nan_if_they_cannot_be_read() {
    let database = testbed::postgres().await;
    let proxy = testbed::Proxy::start(server_address("DATABASE_URL")).await;
    let url = database.url().replacen(&server_address("DATABASE_URL"), &proxy.addr().to_string(), 1);
    let running = Running::start(&[("DATABASE_URL", &url)]).await;
    let scrape = async |expected: &[&str]| {
        testbed::eventually("the gauges are as expected", async || {
            let metrics =
                running.client.get(format!("{}/metrics", running.metrics)).send().await.expect("an answer");
            let metrics = metrics.text().await.expect("a text");
            let missing = expected.iter().find(|gauge| !metrics.lines().any(|line| line == **gauge));
            missing.map_or(Ok(()), |gauge| Err(format!("{gauge:?} is not in\n{metrics}")))
        })
        .await;
    };
    let well = [
        "outbox_unpublished 0",
        "outbox_oldest_unpublished_seconds 0",
        "history_unrecorded_events 0",
        "history_oldest_unrecorded_seconds 0",
        "relay_lease_held 1",
    ];
    scrape(&well).await;
    proxy.freeze();
    let unknown =
        ["outbox_unpublished NaN", "history_unrecorded_events NaN", "history_oldest_unrecorded_seconds NaN"];
    scrape(&unknown).await;
    proxy.thaw();
    scrape(&well).await;
    running.stop().await;
}
