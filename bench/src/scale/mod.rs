//! `cargo xtask bench scale`: with five milliseconds of delay added to each handler, workers consume in proportion to
//! their number, on each broker.

pub mod part;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use sqlx::{Executor, PgPool};
use testbed::native::{self, Storage};
use testbed::process::Process;

use crate::programs::{self, Environment};
use crate::report::number;
use crate::servers::{Servers, pool};
use crate::stats::float;

/// How many workers, in turn.
const WORKERS: [i64; 4] = [1, 2, 4, 8];
/// What one worker can do in a second, as each event takes five milliseconds and it takes one batch at a time.
const EVENTS_A_SECOND: i64 = 200;
/// Between two looks at the history.
const LOOK: Duration = Duration::from_millis(50);
/// No run takes as long.
const CONSUME_TIMEOUT: Duration = Duration::from_mins(3);

/// The servers of a run, and how long each measurement takes.
struct Scale {
    servers: Servers,
    database_url: String,
    db: PgPool,
    seconds: i64,
}

/// Measures all brokers and prints the table. A broker that fails does not end the others' measurements.
pub async fn compare_workers(quick: bool) -> anyhow::Result<()> {
    println!("starting PostgreSQL and Redis");
    let servers = Servers::start().await?;
    let database_url = servers.database("scaling").await?;
    let db = pool(&database_url).await?;
    let scale = Scale { servers, database_url, db, seconds: if quick { 2 } else { 8 } };
    println!("\n| broker           | workers | events/s | against one | each |");
    println!("| ---------------- | ------- | -------- | ----------- | ---- |");
    let measured = [
        ("Redis Streams", scale.redis_streams().await),
        ("RabbitMQ", scale.rabbitmq().await),
        ("SQS", scale.sqs().await),
    ];
    scale.db.close().await;
    scale.servers.stop().await?;
    let failed: Vec<String> = measured
        .into_iter()
        .filter_map(|(broker, measured)| {
            Some(format!("{broker} could not be measured: {:#}", measured.err()?))
        })
        .collect();
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

impl Scale {
    async fn redis_streams(&self) -> anyhow::Result<()> {
        self.measure("Redis Streams", vec![("EVENT_SYSTEM", "local".into())]).await
    }

    async fn rabbitmq(&self) -> anyhow::Result<()> {
        let rabbitmq = native::rabbitmq(&Storage::Keep(self.servers.folder().join("rabbitmq"))).await?;
        let settings = vec![("EVENT_SYSTEM", "rabbitmq".into()), ("AMQP_URL", rabbitmq.url().into())];
        self.measure("RabbitMQ", settings).await?;
        rabbitmq.stop().await
    }

    async fn sqs(&self) -> anyhow::Result<()> {
        let localstack = native::localstack(&Storage::Throwaway).await?;
        let settings = vec![
            ("EVENT_SYSTEM", "sqs".into()),
            ("SQS_QUEUE_URL", testbed::create_queue(localstack.url(), "scaling").await?),
            ("AWS_ENDPOINT_URL", localstack.url().into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", "test".into()),
            ("AWS_SECRET_ACCESS_KEY", "test".into()),
        ];
        self.measure("SQS (LocalStack)", settings).await?;
        localstack.kill();
        Ok(())
    }

    /// Prints a row for each number of workers.
    async fn measure(&self, title: &str, settings: Vec<(&'static str, String)>) -> anyhow::Result<()> {
        let one_small_batch = [("WORKER_CONCURRENCY", "1".into()), ("WORKER_BATCH_SIZE", "10".into())];
        let environment = Environment {
            database_url: self.database_url.clone(),
            redis_url: self.servers.redis_url().to_owned(),
            more: settings.into_iter().chain(one_small_batch).collect(),
        };
        let mut alone = None;
        for workers in WORKERS {
            let rate = rate(&self.db, &environment, self.servers.folder(), workers, self.seconds).await?;
            let factor = rate / *alone.get_or_insert(rate);
            let share = factor / float(u64::try_from(workers)?);
            println!("| {title:16} | {workers:7} | {:>8} | {factor:10.2}x | {share:4.2} |", number(rate));
        }
        Ok(())
    }
}

/// Publishes, starts the workers, and returns their rate between the first tenth of the events and the last.
async fn rate(
    db: &PgPool,
    environment: &Environment,
    folder: &Path,
    workers: i64,
    seconds: i64,
) -> anyhow::Result<f64> {
    let events = workers * EVENTS_A_SECOND * seconds;
    db.execute("TRUNCATE order_history").await?;
    let mut publisher =
        programs::start_part(&["scale-part", "publish", &events.to_string()], environment, folder)?;
    ensure!(publisher.wait().await?.success(), "the events could not be published: {}", publisher.log());
    let workers: Vec<Process> = (0..workers)
        .map(|_| programs::start_part(&["scale-part", "consume"], environment, folder))
        .collect::<anyhow::Result<_>>()?;

    let (low, high) = (events / 10, events * 9 / 10);
    let begun = Instant::now();
    let mut first = None;
    let rate = loop {
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM order_history").fetch_one(db).await?;
        let now = Instant::now();
        match first {
            None if rows >= low => first = Some((rows, now)),
            Some((before, since)) if rows >= high => {
                break float(u64::try_from(rows - before)?) / now.duration_since(since).as_secs_f64();
            }
            _ => {}
        }
        ensure!(
            begun.elapsed() < CONSUME_TIMEOUT,
            "only {rows} of {events} events have been consumed: {}",
            workers[0].log()
        );
        tokio::time::sleep(LOOK).await;
    };
    crate::wait::until("every event is consumed", async || {
        let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM order_history").fetch_one(db).await?;
        Ok(rows >= events)
    })
    .await?;
    for worker in workers {
        worker.terminate().await?;
    }
    Ok(rate)
}
