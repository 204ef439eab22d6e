//! Customers who place orders side by side, without a pause, until they are stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::JoinSet;

use super::balancer::Balancer;
use super::faults::Faults;
use super::shop::Shop;
use crate::status::print_status;

/// A session is refreshed after this many orders.
const ORDERS_A_TOKEN: usize = 5;

/// The customers.
#[derive(Debug)]
pub(super) struct Load {
    stopped: Arc<AtomicBool>,
    orders: Arc<AtomicUsize>,
    shops: JoinSet<Shop>,
}

impl Load {
    pub(super) fn start(clients: u16, balancer: &Arc<Balancer>, faults: &Arc<Faults>) -> Self {
        let (stopped, orders) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut shops = JoinSet::new();
        for customer in 1..=clients {
            let shop = Shop::new(customer, Arc::clone(balancer), Arc::clone(faults));
            shops.spawn(run_shop(shop, Arc::clone(faults), Arc::clone(&stopped), Arc::clone(&orders)));
        }
        Self { stopped, orders, shops }
    }

    pub(super) fn print_progress(&self) {
        print_status(format!("     {} orders so far", self.orders.load(Ordering::Relaxed)));
    }

    /// Lets each customer end its order, and returns them.
    pub(super) async fn stop(mut self) -> anyhow::Result<Vec<Shop>> {
        self.stopped.store(true, Ordering::Relaxed);
        let mut shops = Vec::new();
        while let Some(shop) = self.shops.join_next().await {
            shops.push(shop?);
        }
        self.print_progress();
        Ok(shops)
    }
}

async fn run_shop(
    mut shop: Shop,
    faults: Arc<Faults>,
    stopped: Arc<AtomicBool>,
    orders: Arc<AtomicUsize>,
) -> Shop {
    let mut done = shop.log_in().await;
    while !stopped.load(Ordering::Relaxed) {
        let seed = orders.fetch_add(1, Ordering::Relaxed);
        if done.is_ok() {
            done = shop.complete_order(seed).await;
        }
        if done.is_ok() && shop.orders.len().is_multiple_of(ORDERS_A_TOKEN) {
            done = shop.refresh_session().await;
        }
        if let Err(error) = done {
            faults.report(&format!("{error:#}"));
            // It goes on with another order, in a new session.
            done = shop.log_in().await;
        }
    }
    if let Err(error) = done {
        faults.report(&format!("{error:#}"));
    }
    shop
}
