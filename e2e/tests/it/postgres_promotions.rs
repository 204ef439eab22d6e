//! The primary of a PostgreSQL with a synchronous standby fails again and again under load, and the standby is promoted. Two
//! replicas of the API and a worker live through it.
//!
//! `PROMOTIONS=20` runs as many rounds; without it there are two.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use e2e::{Broker, Client, System};
use futures_util::future::{join_all, try_join_all};
use reqwest::{Method, StatusCode};
use testbed::PrivatePostgres;
use tokio::task::JoinHandle;

/// After a promotion everything is promised to work again within 15 s; a busy machine gets as many more.
const RECOVERY: Duration = Duration::from_secs(30);
/// A test that fails reports by how much it was too late.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long two servers that take writes live side by side.
const SIDE_BY_SIDE: Duration = Duration::from_secs(3);
const CLIENTS: i64 = 4;
/// Seeds of the orders that measure the recovery.
const FIRST_PROBE: i64 = 1_000_000;

/// What happens to the primary.
#[derive(Clone, Copy, Debug)]
enum Failure {
    /// SIGKILL.
    Killed,
    /// SIGSTOP, and SIGCONT at the moment of the promotion: the connections to it live on.
    FrozenUntilPromotion,
    /// SIGSTOP, and SIGCONT after everything has recovered.
    FrozenUntilRecovery,
    /// Nothing: the standby is promoted beside it.
    CutOff,
}

const FAILURES: [Failure; 4] =
    [Failure::FrozenUntilPromotion, Failure::Killed, Failure::CutOff, Failure::FrozenUntilRecovery];

/// A primary and its synchronous standby.
struct Pair {
    primary: PrivatePostgres,
    standby: PrivatePostgres,
}

impl Pair {
    async fn start() -> Self {
        let primary = testbed::private_postgres().await;
        let standby = primary.standby().await;
        primary.set_synchronous(true).await;
        Self { primary, standby }
    }

    /// Both hosts, as libpq writes them.
    fn url(&self) -> String {
        let (user, _) = self.primary.url().split_once('@').expect("a user");
        let (first, second) = (self.primary.address(), self.standby.address());
        format!("{user}@{first},{second}/orders?target_session_attrs=read-write")
    }

    /// Has the primary fail and the standby take its place. Returns when it was promoted.
    async fn fail_over(&mut self, failure: Failure) -> Instant {
        match failure {
            Failure::Killed => self.primary.kill(),
            Failure::FrozenUntilPromotion | Failure::FrozenUntilRecovery => self.primary.pause(),
            Failure::CutOff => {}
        }
        // There is none yet that it could wait for.
        self.standby.set_synchronous(false).await;
        self.standby.promote().await;
        std::mem::swap(&mut self.primary, &mut self.standby);
        if matches!(failure, Failure::FrozenUntilPromotion) {
            self.standby.resume();
        }
        Instant::now()
    }

    /// Makes a standby of the server that was the primary.
    async fn rebuild_standby(self) -> Self {
        let Self { primary, standby } = self;
        let standby = primary.standby_in_place_of(standby).await;
        primary.set_synchronous(true).await;
        Self { primary, standby }
    }
}

/// The ids and the versions of orders.
type Versions = Vec<(i64, i64)>;

/// Orders that are placed and sent on their way without a pause, each request repeated under its key until it is answered.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<anyhow::Result<Versions>>>,
}

impl Load {
    fn start(shops: Vec<Client>) -> Self {
        let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let clients = shops.into_iter().map(|shop| {
            let (stop, next) = (Arc::clone(&stop), Arc::clone(&next));
            tokio::spawn(async move {
                let mut completed = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    completed.push((seed, shop.complete_order(seed).await?.0));
                }
                Ok(completed)
            })
        });
        Self { clients: clients.collect(), stop }
    }

    /// Returns seed and id of each order, by client.
    async fn stop(self) -> Vec<Versions> {
        self.stop.store(true, Ordering::SeqCst);
        let completed = try_join_all(self.clients).await.expect("every client runs");
        completed.into_iter().map(|orders| orders.expect("every request was answered in the end")).collect()
    }
}

/// What a client notices of one replica.
struct Probe {
    shop: Client,
    worker: String,
}

impl Probe {
    /// Places an order, lists, reads the history of that order, and asks both programs whether they are ready. Returns after which
    /// time each of them worked.
    async fn measure(&self, since: Instant, seed: i64) -> [Duration; 4] {
        let body = Client::order(seed);
        let key = format!("probe-{seed}");
        let mut id = 0;
        let written = until(since, "an order is placed", async || {
            let placed = self.once(Method::POST, "/api/v1/orders", Some((&body, &key))).await?;
            id = placed["id"].as_i64().ok_or("no id")?;
            Ok(())
        })
        .await;
        let listed =
            until(since, "orders are listed", async || self.once(Method::GET, "/api/v1/orders", None).await);
        let path = format!("/api/v1/orders/{id}/history");
        let recorded = until(since, "the order is in the history", async || {
            let history = self.once(Method::GET, &path, None).await?;
            (history["complete_through"] == 1).then_some(()).ok_or("not yet".to_owned())
        });
        let ready = until(since, "both are ready", async || {
            self.once(Method::GET, "/api/v1/health/ready", None).await?;
            let worker = testbed::http::get(&self.worker).await.map_err(|error| error.to_string())?;
            if worker.is_success() { Ok(()) } else { Err(worker.body) }
        });
        let (listed, recorded, ready) = tokio::join!(listed, recorded, ready);
        [written, listed, recorded, ready]
    }

    async fn once(
        &self,
        method: Method,
        path: &str,
        body: Option<(&serde_json::Value, &str)>,
    ) -> Result<serde_json::Value, String> {
        let (body, key) = body.unzip();
        let answer = self.shop.request_once(method, path, body, key).await;
        let (status, answer) = answer.map_err(|error| error.to_string())?;
        if status.is_success() { Ok(answer) } else { Err(format!("{status}: {answer}")) }
    }
}

/// Waits for it, and returns how long after `since` it was so.
async fn until<T>(since: Instant, what: &str, condition: impl AsyncFnMut() -> Result<T, String>) -> Duration {
    testbed::eventually_within(PATIENCE, what, condition).await;
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn promotions_under_load_lose_and_double_nothing_and_every_process_recovers_by_itself() {
    let rounds =
        testbed::setting("PROMOTIONS").map_or(2, |rounds| rounds.parse().expect("PROMOTIONS is a number"));
    let mut pair = Pair::start().await;
    let mut system =
        System::on(pair.primary.database(), Broker::RedisStreams).await.with("DATABASE_URL", &pair.url());
    let mut apis = [system.api().await, system.api().await];
    let (mut worker, worker_ready) = system.worker_and_readiness().await;
    let urls = apis.each_ref().map(|api| api.url.clone());
    let logins = (0..CLIENTS).zip(urls.iter().cycle()).map(|(client, url)| Client::login(url, client + 1));
    let shops = try_join_all(logins).await.expect("every client logs in");
    let probes: Vec<Probe> = try_join_all(urls.iter().map(|url| Client::login(url, CLIENTS + 1)))
        .await
        .expect("the probes log in")
        .into_iter()
        .map(|shop| Probe { shop, worker: worker_ready.clone() })
        .collect();
    let load = Load::start(shops.clone());

    let mut late = Vec::new();
    let mut seed = FIRST_PROBE;
    for (round, failure) in (1..=rounds).zip(FAILURES.into_iter().cycle()) {
        let promoted = pair.fail_over(failure).await;
        let measured = probes.iter().zip(seed..).map(|(probe, seed)| probe.measure(promoted, seed));
        let times = join_all(measured).await;
        seed += i64::try_from(probes.len()).expect("two probes");
        println!("round {round}, {failure:?}: until written, listed, recorded, ready: {times:.1?}");
        late.extend(times.into_iter().flatten().filter(|time| *time > RECOVERY));

        if matches!(failure, Failure::FrozenUntilRecovery) {
            pair.standby.resume();
        }
        seed = works_meanwhile(&probes, seed).await;
        pair = pair.rebuild_standby().await;
    }

    let completed = load.stop().await;
    for api in &mut apis {
        assert!(api.program.ended().is_none(), "a replica ended: {}", api.program.last_line());
    }
    assert!(worker.ended().is_none(), "the worker ended: {}", worker.last_line());
    assert_eq!(late, Vec::<Duration>::new(), "later than {RECOVERY:?} after the promotion");

    system.database = pair.primary.database();
    let verdict = system.wait_until_consistent(Duration::from_mins(2)).await;
    assert_eq!(verdict.differences, Vec::<String>::new());
    let orders: usize = completed.iter().map(Vec::len).sum();
    println!("{orders} orders were completed; {} events", verdict.events);
    assert_eq!(verdict.events, 3 * i64::try_from(orders).expect("a count") + (seed - FIRST_PROBE));
    each_key_stands_for_one_order(&shops, &completed).await;
    let published =
        apis[0].counted("relay_published_total").await + apis[1].counted("relay_published_total").await;
    println!("{published} events were published");
    for api in &apis {
        assert_eq!(
            api.counted("relay_started_over_total").await,
            0,
            "the cursor holds on the promoted server"
        );
    }
    let migrate = testbed::Program::builder("api").env("DATABASE_URL", pair.url()).arg("migrate");
    migrate.run().await.expect("api migrate finds the primary");
    system.worker_command().arg("verify").run().await.expect("worker verify finds no difference");
}

/// While the server that was replaced may live beside the new one, every request is answered well, if a busy machine is late
/// then at the next attempt. Returns the next seed.
async fn works_meanwhile(probes: &[Probe], mut seed: i64) -> i64 {
    let start = Instant::now();
    while start.elapsed() < SIDE_BY_SIDE {
        for probe in probes {
            let (body, key) = (Client::order(seed), format!("probe-{seed}"));
            testbed::eventually("an order is placed", async || {
                probe.once(Method::POST, "/api/v1/orders", Some((&body, &key))).await
            })
            .await;
            testbed::eventually("orders are listed", async || {
                probe.once(Method::GET, "/api/v1/orders", None).await
            })
            .await;
            seed += 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    seed
}

/// Whatever server answered a key, the same order stands under it.
async fn each_key_stands_for_one_order(shops: &[Client], completed: &[Versions]) {
    for (shop, orders) in shops.iter().zip(completed) {
        for (seed, id) in orders {
            let (body, key) = (Client::order(*seed), format!("create-{seed}"));
            let again = shop.request_until_answered(Method::POST, "/api/v1/orders", Some(&body), &key).await;
            let (status, answer) = again.expect("an answer");
            assert_eq!((status, answer["id"].as_i64()), (StatusCode::CREATED, Some(*id)), "{key}: {answer}");
        }
    }
}
