//! A master is cut off together with one replica of the API: that one may read what is old for two seconds, and no longer.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use e2e::{Api, Client, System};
use reqwest::Method;
use serde_json::{Value, json};
use testbed::{Proxy, eventually_within, http, private_redis_sentinel};

/// The user that the replica beside the master is.
const USER: &str = "beside";
const PASSWORD: &str = "secret";
/// How long reads may be older than answered writes, from the cut.
const STALE_FOR: Duration = Duration::from_secs(2);
/// How long the load continues after the promotion.
const AFTERWARDS: Duration = Duration::from_secs(5);
/// From the end of the cut until the replica works as before.
const RECOVERED_WITHIN: Duration = Duration::from_secs(15);

/// One order that one replica changes all the time while both read it.
struct Watched {
    path: String,
    /// Version of the last write that was answered.
    answered: AtomicI64,
    stop: AtomicBool,
}

impl Watched {
    async fn place(client: &Client) -> Self {
        let placed = client.request_once(Method::POST, "/api/v1/orders", Some(&Client::order(1)), None).await;
        let (_, order) = placed.expect("an answer");
        Self {
            path: format!("/api/v1/orders/{}", order["id"]),
            answered: AtomicI64::new(1),
            stop: AtomicBool::new(false),
        }
    }

    async fn change(&self, client: &Client) {
        let mut days = (1..=28).cycle();
        while !self.stop.load(Ordering::SeqCst) {
            let body = json!({"order_date": format!("2025-01-{:02}", days.next().expect("a day"))});
            let key = format!("change-{}", self.answered.load(Ordering::SeqCst));
            let changed = client.request_until_answered(Method::PATCH, &self.path, Some(&body), &key).await;
            let (_, order) = changed.expect("the change is answered");
            self.answered.store(order["version"].as_i64().expect("a version"), Ordering::SeqCst);
        }
    }

    /// Reads all the time, and returns when it began to read what was older than a write answered before.
    async fn read(&self, client: &Client) -> Vec<Instant> {
        let mut stale = Vec::new();
        while !self.stop.load(Ordering::SeqCst) {
            let (known, since) = (self.answered.load(Ordering::SeqCst), Instant::now());
            let read = client.request_until_answered(Method::GET, &self.path, None, "none").await;
            let (_, order) = read.expect("the read is answered");
            if order["version"].as_i64() < Some(known) {
                stale.push(since);
            }
        }
        stale
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "it needs the machine for itself: cargo xtask test --ignored -p e2e failover::"]
async fn a_replica_cut_off_together_with_the_old_master_reads_what_is_old_for_two_seconds_at_most() {
    let group = private_redis_sentinel().await;
    group.add_user(USER, PASSWORD).await;
    let mut ways = Vec::new();
    for sentinel in group.sentinels() {
        ways.push(Proxy::start(sentinel.address()).await);
    }
    let addresses: Vec<String> = ways.iter().map(|way| way.addr().to_string()).collect();
    let url = format!("redis+sentinel://{USER}:{PASSWORD}@{}/orders", addresses.join(","));
    let system = System::on_redis_group(group).await;
    let (beside, other) = (system.api_with_redis(&url).await, system.api().await);
    let client = Client::login(&other.url, 1).await.expect("the customer logs in");
    let beside_client = client.at(&beside.url);
    let watched = Watched::place(&client).await;

    let group = system.redis.group();
    let cut_and_heal = async {
        eventually_within(RECOVERED_WITHIN, "the order changes", async || {
            watched.answered.load(Ordering::SeqCst) > 20
        })
        .await;
        let master = group.master_of("").await;
        let cut = Instant::now();
        ways.iter().for_each(Proxy::freeze);
        group.cut_off(master, USER, PASSWORD).await;
        group.successor_of(master, "").await;
        let promoted = cut.elapsed();
        // Not a wait for a condition: whatever is old must not be read in all of this time.
        tokio::time::sleep(AFTERWARDS).await;

        let written = watched.answered.load(Ordering::SeqCst);
        ways.iter().for_each(Proxy::thaw);
        group.let_back(master, USER, PASSWORD).await;
        wait_healthy(&beside).await;
        watched.stop.store(true, Ordering::SeqCst);
        (cut, promoted, written)
    };
    let ((cut, promoted, written), (), stale_beside, stale_elsewhere) = tokio::join!(
        cut_and_heal,
        watched.change(&client),
        watched.read(&beside_client),
        watched.read(&client)
    );
    assert!(written > 40, "the writes went on during the cut: {written}");
    assert_eq!(stale_elsewhere.len(), 0, "the other replica reads nothing that is old");
    let last = stale_beside.last().map(|at| at.saturating_duration_since(cut)).unwrap_or_default();
    println!(
        "promotion after {promoted:.1?}; the replica beside the old master read what was old {} times, until {last:.2?} after the cut",
        stale_beside.len()
    );
    assert!(last <= STALE_FOR, "what was old was read until {last:?} after the cut");
}

async fn wait_healthy(api: &Api) {
    eventually_within(RECOVERED_WITHIN, "the replica is healthy again", async || {
        let answer = http::get(&format!("{}/health", api.url)).await.map_err(|error| error.to_string())?;
        let health: Value = serde_json::from_str(&answer.body).unwrap_or_default();
        if health["status"] == "healthy" { Ok(()) } else { Err(answer.body) }
    })
    .await;
}
