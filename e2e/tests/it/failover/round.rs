//! One master fails under load, another is promoted, and the failed one comes back.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use e2e::{Client, System};
use futures_util::future::join_all;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use reqwest::Method;
use serde_json::{Value, json};
use testbed::{Program, eventually, eventually_within, http};

use crate::model::{Run, World, commands};

/// From the promotion until every program works as before.
const RECOVERED_WITHIN: Duration = Duration::from_secs(15);
/// Sequences of commands at a time.
const SEQUENCES: usize = 4;
/// Between two commands of a sequence: without it, a round has more orders than can be read again in its time.
const PACE: Duration = Duration::from_millis(10);
/// So many commands happen before the master fails, and as many that its replicas do not hear of.
const COMMANDS: u64 = 100;
/// The customer whose orders show that events flow again and that changes are not lost; the sequences have those from 1000.
const CANARY: i64 = 1;
/// Orders whose last change the replicas have not got; on each master of a cluster are some.
const WATCHED: i64 = 12;

/// How a master fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    /// SIGKILL.
    Kill,
    /// SIGSTOP, until after another one has been promoted.
    Freeze,
}

/// A system with two replicas of the API and one worker.
pub(super) struct Shop<'a> {
    system: &'a System,
    world: World,
    canary: Client,
    worker: Program,
    /// The first customer of the next sequence.
    base: AtomicI64,
}

impl<'a> Shop<'a> {
    pub(super) async fn open(system: &'a System) -> Self {
        let replicas = vec![system.api().await, system.api().await];
        let canary = Client::login(&replicas[0].url, CANARY).await.expect("the customer logs in");
        let world = World::new(replicas, system.database.connect().await);
        Self { system, world, canary, worker: system.worker().await, base: AtomicI64::new(1000) }
    }

    /// Has one master fail under load. In every other round neither its replicas nor the worker got what it was given last, so
    /// that events and entries of the cache are lost. Returns the sequences of commands that ran meanwhile.
    pub(super) async fn fail_one_master(
        &self,
        number: u32,
        blow: Blow,
        figures: &mut Figures,
    ) -> Vec<Run<'_>> {
        let (stop, steps) = (AtomicBool::new(false), AtomicU64::new(0));
        let load = join_all((0..SEQUENCES).map(|_| self.drive(&stop, &steps)));
        let failing = async {
            let figure = self.fail(number, blow, &steps).await;
            stop.store(true, Ordering::SeqCst);
            figure
        };
        let (runs, figure) = tokio::join!(load, failing);
        figures.0.push(figure);
        runs.into_iter().flatten().collect()
    }

    /// Sends random commands, one sequence after the other.
    async fn drive<'w>(&'w self, stop: &AtomicBool, steps: &AtomicU64) -> Vec<Run<'w>> {
        let mut generator = TestRunner::default();
        let mut runs = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let base = self.base.fetch_add(10, Ordering::SeqCst);
            let mut run = Run::new(&self.world, base, self.world.log_in_people(base).await);
            for command in commands().new_tree(&mut generator).expect("commands").current() {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                run.step(command).await;
                steps.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(PACE).await;
            }
            runs.push(run);
        }
        runs
    }

    async fn fail(&self, number: u32, blow: Blow, steps: &AtomicU64) -> Figure {
        let group = self.system.redis.group();
        // In a cluster the one that holds the stream in every fourth round, else any.
        let key = if number % 4 == 1 { "events:orders".to_owned() } else { number.to_string() };
        let master = group.master_of(&key).await;
        more_commands("before the failure", steps).await;
        let is_behind = number % 2 == 1;
        let watched = self.place_watched().await;
        if is_behind {
            group.stop_replication(master).await;
            // Neither do the workers get the events of this time.
            self.worker.pause();
            self.change(&watched).await;
            more_commands("without replicas and worker", steps).await;
        }

        self.world.outage.begin();
        let struck = Instant::now();
        match blow {
            Blow::Kill => master.kill(),
            Blow::Freeze => master.pause(),
        }
        self.worker.resume();
        group.successor_of(master, &key).await;
        let promoted = Instant::now();
        self.wait_recovered().await;
        let recovered = promoted.elapsed();
        let errors = self.world.outage.end();

        match blow {
            Blow::Kill => master.start().await,
            Blow::Freeze => {
                master.resume();
                group.resume_replication(master).await;
            }
        }
        group.wait_ready().await;
        self.check_versions(&watched, if is_behind { 2 } else { 1 }).await;
        // What was read from the old master since it has come back would show now.
        more_commands("after the return of the former master", steps).await;
        Figure { is_behind, promotion: promoted - struck, recovered, errors }
    }

    /// Places orders, each of which is in the cache.
    async fn place_watched(&self) -> Vec<String> {
        let mut paths = Vec::new();
        for _ in 0..WATCHED {
            let order = self.ask(0, Method::POST, "/api/v1/orders", Some(&Client::order(1))).await;
            let path = format!("/api/v1/orders/{}", order["id"]);
            self.ask(0, Method::GET, &path, None).await;
            paths.push(path);
        }
        paths
    }

    async fn change(&self, paths: &[String]) {
        for path in paths {
            self.ask(0, Method::PATCH, path, Some(&json!({"order_date": "2025-01-02"}))).await;
        }
    }

    /// Every replica shows each of these orders in this version.
    async fn check_versions(&self, paths: &[String], version: i64) {
        for replica in 0..self.world.replicas.len() {
            for path in paths {
                assert_eq!(self.ask(replica, Method::GET, path, None).await["version"], version, "{path}");
            }
        }
    }

    /// The answer of one replica to a request that is sent once.
    async fn ask(&self, replica: usize, method: Method, path: &str, body: Option<&Value>) -> Value {
        let client = self.canary.at(&self.world.replicas[replica].url);
        let (status, answer) = client.request_once(method, path, body, None).await.expect("an answer");
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer
    }

    /// How many events the replicas have sent again.
    pub(super) async fn count_repaired(&self) -> u64 {
        let counts = self.world.replicas.iter().map(|replica| replica.counted("events_repaired_total"));
        join_all(counts).await.into_iter().sum()
    }

    /// Waits until every replica is healthy, and an order that is placed now gets its history.
    async fn wait_recovered(&self) {
        let until = Instant::now() + RECOVERED_WITHIN;
        let placed = async {
            let order = Client::order(1);
            let key = format!("canary-{}", self.base.load(Ordering::SeqCst));
            let request =
                self.canary.request_until_answered(Method::POST, "/api/v1/orders", Some(&order), &key);
            let (_, order) = request.await.expect("the order is placed");
            let recorded = async || {
                let query = "SELECT count(*) FROM order_history WHERE order_id = $1";
                let rows: i64 = sqlx::query_scalar(query)
                    .bind(order["id"].as_i64())
                    .fetch_one(&self.world.db)
                    .await
                    .unwrap();
                rows == 1
            };
            eventually_within(
                until - Instant::now(),
                "an order after the promotion has its history",
                recorded,
            )
            .await;
        };
        let healthy = join_all(self.world.replicas.iter().map(async |replica| {
            let is_healthy = async || {
                let answer =
                    http::get(&format!("{}/health", replica.url)).await.map_err(|error| error.to_string())?;
                let health: Value = serde_json::from_str(&answer.body).unwrap_or_default();
                // Not the history: the reconciler sends lost events again after a minute.
                let is_healthy = |name| health["services"][name]["status"] == "healthy";
                if ["database", "redis", "events"].into_iter().all(is_healthy) {
                    Ok(())
                } else {
                    Err(answer.body)
                }
            };
            eventually_within(
                until - Instant::now(),
                "the replica is healthy after the promotion",
                is_healthy,
            )
            .await;
        }));
        tokio::join!(placed, healthy);
    }
}

/// Waits until the load has done some more.
async fn more_commands(when: &str, steps: &AtomicU64) {
    let enough = steps.load(Ordering::SeqCst) + COMMANDS;
    eventually(&format!("the load goes on {when}"), async || steps.load(Ordering::SeqCst) >= enough).await;
}

/// What one failure took.
struct Figure {
    is_behind: bool,
    /// From the failure to the promotion.
    promotion: Duration,
    /// From the promotion until everything worked as before.
    recovered: Duration,
    /// How often each server error came until then.
    errors: BTreeMap<String, usize>,
}

/// What all failures took.
#[derive(Default)]
pub(super) struct Figures(Vec<Figure>);

impl Figures {
    /// The last failure, as a sentence.
    pub(super) fn last(&self) -> String {
        let Some(Figure { is_behind, promotion, recovered, errors }) = self.0.last() else {
            return String::new();
        };
        let behind = if *is_behind { ", its replicas behind" } else { "" };
        format!(
            "promotion after {promotion:.1?}{behind}, recovered {recovered:.1?} later; server errors: {errors:?}"
        )
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spread = |of: fn(&Figure) -> Duration| {
            let mut all: Vec<Duration> = self.0.iter().map(of).collect();
            all.sort_unstable();
            let (median, longest) = (all[all.len() / 2], all[all.len() - 1]);
            format!("{median:.1?} in the median, {longest:.1?} at most")
        };
        let errors: usize = self.0.iter().flat_map(|figure| figure.errors.values()).sum();
        write!(
            f,
            "{} failures: promotion after {}; recovered from it after {}; {errors} server errors meanwhile, none else",
            self.0.len(),
            spread(|figure| figure.promotion),
            spread(|figure| figure.recovered),
        )
    }
}
