//! What hostile clients can take: connections, memory, and time. Others are served meanwhile.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use crate::{
    orders_support::order,
    process::Running,
    support::{TestApp, answer, until_available},
};

/// Where Swagger UI's largest file is: 1.4 MB.
const BUNDLE: &str = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n";
/// A normal client must be answered in this time, also on a busy machine: half of the time after which the attackers' idle
/// connections would make room by themselves.
const NORMAL: Duration = Duration::from_secs(10);
/// The most memory of the process while it is attacked.
const MAX_MEGABYTES: u64 = 300;

/// The program with its test login. Nobody reads its log meanwhile, so it must not write a line for each request.
const SETTINGS: [(&str, &str); 2] = [("DEBUG", "true"), ("LOG_LEVEL", "WARN")];

/// Lets this process hold thousands of connections.
fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
}

async fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((from, 0))).expect("an address of this machine");
    socket.connect(to).await.expect("a connection")
}

/// Connections that have sent these bytes, which they may send until the server closes them.
async fn open(count: usize, from: [u8; 4], to: SocketAddr, bytes: &[u8]) -> Vec<TcpStream> {
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = connect(from, to).await;
        let _may_be_closed = stream.write_all(bytes).await;
        streams.push(stream);
    }
    streams
}

/// A client as any other, from an address that has no other connections: it must be answered soon.
async fn expect_normal_service(to: SocketAddr, from: [u8; 4]) {
    let start = Instant::now();
    let client = reqwest::Client::builder()
        .no_proxy()
        .local_address(IpAddr::from(from))
        .timeout(NORMAL)
        .build()
        .expect("a client");
    for path in ["/", "/api/v1/health/live"] {
        let answer = client.get(format!("http://{to}{path}")).send().await;
        assert_eq!(answer.expect("an answer in time").status(), StatusCode::OK, "{path}");
    }
    let login = client.post(format!("http://{to}/api/v1/auth/login-test")).json(&json!({"customer_id": 1}));
    let login = until_available(async || answer(login.try_clone().expect("JSON")).await).await;
    login.expect(StatusCode::OK);
    assert!(start.elapsed() < NORMAL, "{:?}", start.elapsed());
}

#[tokio::test]
async fn idle_connections_lock_no_client_out_and_stay_within_the_open_files() {
    raise_open_files();
    // Room for about 340 connections, 85 of them from one address.
    let running = Running::start_with_open_files(500, &SETTINGS).await;
    let to = running.address().parse().expect("an address");
    let keep_alive = b"GET /api/v1/health/live HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut attackers = open(600, [127, 0, 0, 2], to, keep_alive).await;
    expect_normal_service(to, [127, 0, 0, 1]).await;
    // Also for the attacker's neighbours behind the same address.
    expect_normal_service(to, [127, 0, 0, 2]).await;
    for host in 3..10 {
        attackers.extend(open(100, [127, 0, 0, host], to, b"").await);
    }
    expect_normal_service(to, [127, 0, 0, 1]).await;
    let metrics = running.metrics().await;
    for reason in ["address_full", "full"] {
        assert!(
            metrics.contains(&format!(r#"http_connections_closed_total{{reason="{reason}"}}"#)),
            "{metrics}"
        );
    }
    drop(attackers);
    let output = running.stop().await;
    let log = String::from_utf8_lossy(&output.stdout);
    assert!(log.contains("the hard limit of open files leaves room for fewer connections"), "{log}");
    assert!(!log.contains("could not be accepted"), "{log}");
}

#[tokio::test]
async fn thousands_of_connections_that_send_part_of_a_request_take_bounded_memory() {
    raise_open_files();
    let running = Running::start(&SETTINGS).await;
    let to = running.address().parse().expect("an address");
    let mut attackers = Vec::new();
    for host in 2..6 {
        attackers.extend(open(400, [127, 0, 0, host], to, b"GET / HTTP/1.1\r\nHost: x\r\nX: ").await);
    }
    expect_normal_service(to, [127, 0, 0, 1]).await;
    let megabytes = running.resident_megabytes();
    assert!(megabytes < MAX_MEGABYTES, "{megabytes} MB for {} connections", attackers.len());
    // Also with all of these open it stops in time.
    running.stop().await;
}

#[tokio::test]
async fn clients_that_pipeline_and_never_read_take_bounded_memory() {
    raise_open_files();
    let running = Running::start(&SETTINGS).await;
    let to: SocketAddr = running.address().parse().expect("an address");
    let attackers = open(300, [127, 0, 0, 2], to, BUNDLE.repeat(20).as_bytes()).await;
    expect_normal_service(to, [127, 0, 0, 1]).await;
    // By now each has been sent what its socket takes.
    testbed::eventually("every connection is being sent to", async || unsent(to).len() >= attackers.len())
        .await;
    let megabytes = running.resident_megabytes();
    assert!(megabytes < MAX_MEGABYTES, "{megabytes} MB for {} connections", attackers.len());
    let kernel: u64 = unsent(to).iter().sum();
    assert!(kernel < 300 * 512 * 1024, "{kernel} bytes wait in the kernel");
    running.stop().await;
}

/// Bytes that wait to be sent in the kernel, for each connection of the server at `address` that has some.
fn unsent(address: SocketAddr) -> Vec<u64> {
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    table
        .lines()
        .filter_map(|line| {
            let mut columns = line.split_whitespace();
            let is_server = columns.nth(1)?.ends_with(&port);
            let (sending, _) = columns.nth(2)?.split_once(':')?;
            u64::from_str_radix(sending, 16).ok().filter(|bytes| is_server && *bytes > 0)
        })
        .collect()
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected_and_a_slow_one_is_not() {
    let app = TestApp::with()
        .tune(|config| config.http.server.write_timeout = Duration::from_secs(3))
        .start()
        .await;
    let mut never = TcpStream::connect(app.app.addr).await.expect("a connection");
    never.write_all(BUNDLE.repeat(5).as_bytes()).await.expect("taken");
    let mut slow = TcpStream::connect(app.app.addr).await.expect("a connection");
    slow.write_all(BUNDLE.as_bytes()).await.expect("taken");

    let mut read = 0;
    let mut buffer = vec![0; 48 * 1024];
    // All in all it takes longer than the time-out.
    let mut pace = tokio::time::interval(Duration::from_millis(300));
    while read < 1_000_000 {
        pace.tick().await;
        let more = slow.read(&mut buffer).await.expect("it is still open");
        assert_ne!(more, 0, "cut off after {read} bytes");
        read += more;
    }
    testbed::eventually("who never reads is cut off", async || never.write_all(b"\r\n").await.is_err()).await;
}

#[tokio::test]
async fn large_responses_that_are_not_read_make_room_for_others() {
    raise_open_files();
    // An answer has 420 KB: there is room for three.
    let app = TestApp::with().tune(|config| config.http.server.response_budget = 1_500_000).start().await;
    let session = app.login(1).await;
    let line = json!({"product_id": 1001, "quantity": 2, "unit_price": "25.50"});
    let large = json!({"order_date": "2025-01-20", "lines": vec![line; 50]});
    let place = async || session.post("/api/v1/orders", &large).await.expect(StatusCode::CREATED);
    futures_util::future::join_all((0..100).map(|_| place())).await;
    let list = "/api/v1/orders?size=100";
    let request =
        format!("GET {list} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", session.access);
    let attackers = open(10, [127, 0, 0, 2], app.app.addr, request.repeat(5).as_bytes()).await;
    testbed::eventually("the answers are being sent", async || unsent(app.app.addr).len() >= 3).await;
    // Sooner than by the write time-out of 20 s.
    let soon = Duration::from_secs(15);
    testbed::eventually_within(soon, "one who reads is answered", async || {
        let answer = session.get(list).await;
        assert!(answer.status == StatusCode::OK || answer.status == StatusCode::SERVICE_UNAVAILABLE);
        answer.status == StatusCode::OK
    })
    .await;
    drop(attackers);
}

#[tokio::test]
async fn pipelined_responses_without_a_body_all_arrive() {
    let app = TestApp::start().await;
    let mut stream = TcpStream::connect(app.app.addr).await.expect("a connection");
    // hyper goes on to the next request once the body of this one has come.
    let request = "HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx";
    let (mut reader, mut writer) = stream.split();
    let requests =
        format!("{}GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", request.repeat(1000));
    let sent = async { writer.write_all(requests.as_bytes()).await.expect("taken") };
    let mut answers = String::new();
    let read = async { reader.read_to_string(&mut answers).await.expect("the connection ends well") };
    tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(sent, read) }).await.expect("in time");
    assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 1000);
    assert_eq!(answers.matches("HTTP/1.1 404 Not Found\r\n").count(), 1);
    app.drain().await;
}

#[tokio::test]
async fn unfinished_bodies_of_strangers_take_bounded_memory() {
    raise_open_files();
    let running = Running::start(&SETTINGS).await;
    let to: SocketAddr = running.address().parse().expect("an address");
    let head = "POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let large = format!("{head}Transfer-Encoding: chunked\r\n\r\n40000\r\n{}", " ".repeat(250_000));
    let small = format!("{head}Content-Length: 4096\r\n\r\n{}", " ".repeat(4095));
    let mut attackers = open(100, [127, 0, 0, 2], to, large.as_bytes()).await;
    for host in 3..5 {
        attackers.extend(open(700, [127, 0, 0, host], to, small.as_bytes()).await);
    }
    expect_normal_service(to, [127, 0, 0, 1]).await;
    let megabytes = running.resident_megabytes();
    assert!(megabytes < MAX_MEGABYTES, "{megabytes} MB for {} connections", attackers.len());
    running.stop().await;
}

#[tokio::test]
async fn an_unfinished_body_is_408_after_its_deadline() {
    let app =
        TestApp::with().tune(|config| config.http.bodies.deadline = Duration::from_millis(300)).start().await;
    let head = "POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let answer = app.raw(format!("{head}Content-Length: 100\r\n\r\n{{").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(
        answer.contains(r#""code":"request_timeout""#) && answer.contains("connection: close"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_body_of_an_auth_route_can_have_4_kib() {
    let app = TestApp::start().await;
    let login = |length: usize| {
        let request = app.request(Method::POST, "/api/v1/auth/login-test");
        let body = format!(r#"{{"customer_id": 1}}{}"#, " ".repeat(length - 18));
        answer(request.header("content-type", "application/json").body(body))
    };
    login(4096).await.expect(StatusCode::OK);
    let problem = login(4097).await.expect_problem(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large");
    assert!(
        problem.json["detail"].as_str().is_some_and(|detail| detail.contains("4096")),
        "{}",
        problem.json
    );
}

#[tokio::test]
async fn large_bodies_in_flight_share_a_budget_that_ordinary_orders_do_not_need() {
    let app = TestApp::with().tune(|config| config.http.bodies.budget_bytes = 100_000).start().await;
    let session = app.login(1).await;
    let head = format!(
        "POST /api/v1/orders HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n",
        session.access
    );
    let unfinished = format!("{head}Content-Length: 100000\r\n\r\n{}", " ".repeat(80_000));
    let attackers = open(1, [127, 0, 0, 1], app.app.addr, unfinished.as_bytes()).await;
    let is_refused = async || {
        // One that has a part of the budget waits for its body: it is not waited for.
        let answer = tokio::time::timeout(Duration::from_secs(1), app.raw(unfinished.as_bytes())).await;
        answer.is_ok_and(|text| text.starts_with("HTTP/1.1 503 ") && text.contains("retry-after: 1"))
    };
    testbed::eventually("the budget is used up", async || {
        // If a probe comes before the attacker, it uses the budget up itself, and the other one is refused.
        let (one, other) = tokio::join!(is_refused(), is_refused());
        one || other
    })
    .await;
    session.post("/api/v1/orders", &order()).await.expect(StatusCode::CREATED);
    drop(attackers);
    app.drain().await;
}

#[tokio::test]
async fn if_all_connections_are_used_the_longest_idle_one_is_closed() {
    let app = TestApp::with()
        .tune(|config| {
            config.http.server.connections = 2;
            config.http.server.connections_per_address = None;
            // So that nothing else closes it.
            config.http.server.header_read_timeout = Duration::from_hours(1);
        })
        .start()
        .await;
    let ask = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut byte = [0];
    let mut streams = Vec::new();
    for index in 0..3 {
        let mut stream = TcpStream::connect(app.app.addr).await.expect("a connection");
        stream.write_all(ask).await.expect("taken");
        let answered = tokio::time::timeout(Duration::from_secs(30), stream.read_exact(&mut byte)).await;
        answered.expect("in time").unwrap_or_else(|error| panic!("{index}: {error}"));
        streams.push(stream);
    }
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(30), streams[0].read_to_end(&mut rest)).await;
    ended.expect("in time").expect("the connection ends well");
    // The second goes on.
    streams[1].write_all(ask).await.expect("taken");
    streams[1].read_exact(&mut byte).await.expect("an answer");
    drop(streams);
    app.drain().await;
}

#[tokio::test]
async fn connections_that_wait_for_their_clients_do_not_delay_a_shutdown() {
    let app = TestApp::start().await;
    let head = "POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    let body = format!("{head}Content-Length: 100\r\n\r\n{{");
    let mut attackers = Vec::new();
    for bytes in ["GET / HTTP/1.1\r\nHo", &body, &BUNDLE.repeat(5)] {
        attackers.extend(open(3, [127, 0, 0, 1], app.app.addr, bytes.as_bytes()).await);
    }
    app.get("/").await.expect(StatusCode::OK);
    // The write time-out alone is 20 s.
    tokio::time::timeout(Duration::from_secs(10), app.drain()).await.expect("it stops within its grace");
}
