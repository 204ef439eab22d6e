//! What is there in the end, and whether the history keeps up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use sqlx::{AssertSqlSafe, PgPool};

use super::faults::Faults;
use super::shop::Shop;
use crate::status::print_status;

/// The reconciler publishes what a broker has lost after a minute.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(150);
/// In normal operation events are recorded within a second; this allows for a busy machine.
const LATE: Duration = Duration::from_secs(20);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks into the database.
#[derive(Debug)]
pub(super) struct Checks {
    database: PgPool,
    faults: Arc<Faults>,
}

impl Checks {
    pub(super) async fn connect(url: &str, faults: Arc<Faults>) -> anyhow::Result<Self> {
        let database = PgPool::connect(url).await.context("the database of the upgrade does not answer")?;
        Ok(Self { database, faults })
    }

    /// Waits until everything that has been written so far is in the history.
    pub(super) async fn wait_for_history(&self) -> anyhow::Result<()> {
        let start = Instant::now();
        let written = self.count("SELECT coalesce(max(id), 0) FROM outbox").await?;
        let missing = format!(
            "SELECT count(*) FROM outbox LEFT JOIN order_history USING (order_id, version)
             WHERE outbox.id <= {written} AND order_history.order_id IS NULL"
        );
        loop {
            let (missing, waited) = (self.count(&missing).await?, start.elapsed());
            if missing == 0 {
                print_status(format!("     the history is complete, {:.1} s behind", waited.as_secs_f32()));
                if waited > LATE {
                    self.faults.report(&format!("the history was complete only after {waited:.0?}"));
                }
                return Ok(());
            }
            if waited > HISTORY_TIMEOUT {
                self.faults
                    .report(&format!("{missing} events are missing from the history after {waited:.0?}"));
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Every order is as it was answered last, with all versions in its history, and its key stands for it.
    pub(super) async fn compare_orders(&self, shops: Vec<Shop>) -> anyhow::Result<()> {
        let mut orders = 0;
        for mut shop in shops {
            orders += shop.orders.len();
            for index in 0..shop.orders.len() {
                for compared in [
                    shop.read_order(index).await,
                    shop.read_history(index).await,
                    shop.repeat_creation(index).await,
                ] {
                    if let Err(error) = compared {
                        self.faults.report(&format!("{error:#}"));
                    }
                }
            }
        }
        let stored = self.count("SELECT count(DISTINCT order_id) FROM outbox").await?;
        if usize::try_from(stored) != Ok(orders) {
            self.faults.report(&format!("{orders} orders were placed, and {stored} are there"));
        }
        print_status(format!("     {orders} orders compared"));
        Ok(())
    }

    /// No event was given up.
    pub(super) async fn count_dead_letters(&self) -> anyhow::Result<()> {
        let dead = self.count("SELECT count(*) FROM dead_letters").await?;
        if dead > 0 {
            self.faults.report(&format!("{dead} events are dead letters"));
        }
        Ok(())
    }

    async fn count(&self, sql: &str) -> anyhow::Result<i64> {
        Ok(sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(&self.database).await?)
    }
}
