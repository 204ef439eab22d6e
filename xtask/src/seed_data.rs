//! `cargo xtask seed-data`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use rand::Rng;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use testbed::http::Client;
use tokio::task::JoinSet;

use crate::settings;
use crate::status::print_status;

/// Clients that create orders side by side: enough to keep the commits of the API shared, few enough for a laptop.
const CLIENTS: u64 = 64;
/// Customers are numbered from here, apart from the 123 of the examples.
const FIRST_CUSTOMER: u64 = 1000;
/// Orders per customer, on average.
const ORDERS_A_CUSTOMER: u64 = 10;
/// The products of the catalogue that orders are made up from.
const PRODUCTS: u64 = 500;

/// Options of `seed-data`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many orders to create
    #[arg(long, value_name = "N", default_value_t = 1000)]
    orders: u64,
    /// How many tenants share them: the default one, and others with the slugs `shop-2`, `shop-3`, and so on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    tenants: u64,
}

/// Orders are created through the API, so that they have their events, their history and their cache entries as any
/// other order has.
pub(crate) async fn seed_data(args: Args) -> anyhow::Result<ExitCode> {
    let api = settings::running_system("API_URL")?;
    let tokens = Arc::new(admin_tokens(&api, args.tenants).await?);
    let style =
        ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} orders, {per_sec}, {eta} left")?;
    let bar = ProgressBar::new(args.orders).with_style(style);
    let next = Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS.min(args.orders) {
        let customers = (args.orders / args.tenants / ORDERS_A_CUSTOMER).max(1);
        let (api, tokens, next, bar) = (api.clone(), tokens.clone(), next.clone(), bar.clone());
        clients.spawn(async move {
            let mut seeder = Seeder::new(&api, customers, client).await?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= args.orders {
                    return anyhow::Ok(());
                }
                let tenant = usize::try_from(number % args.tenants)?;
                seeder.create_order(&tokens[tenant]).await?;
                bar.inc(1);
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done??;
    }
    bar.finish();
    let of_tenants = if args.tenants == 1 { String::new() } else { format!(" of {} tenants", args.tenants) };
    print_status(format!("{} orders{of_tenants} created; the workers write their history.", args.orders));
    Ok(ExitCode::SUCCESS)
}

/// The value of `Authorization` for an administrator of each tenant. Tenants that are missing are created.
async fn admin_tokens(api: &str, tenants: u64) -> anyhow::Result<Vec<String>> {
    let mut client =
        Client::connect(api).await.context("the API does not run: start it by `cargo xtask up`")?;
    let mut tokens = vec![log_in(&mut client, &json!({"customer_id": 1, "role": "admin"})).await?];
    if tenants == 1 {
        return Ok(tokens);
    }
    let operator = log_in(&mut client, &json!({"customer_id": 1, "role": "operator"})).await?;
    for number in 2..=tenants {
        let slug = format!("shop-{number}");
        let tenant = json!({"slug": slug, "name": format!("Shop {number}")}).to_string();
        let headers = [("Authorization", operator.as_str())];
        let created = client.send("POST", "/api/v1/admin/tenants", &headers, Some(&tenant)).await?;
        let is_there = created.is_success() || created.status == 409;
        ensure!(is_there, "creating a tenant returned {}: {}", created.status, created.body);
        let admin = json!({"customer_id": 1, "role": "admin", "tenant": slug});
        let token = log_in(&mut client, &admin).await;
        tokens.push(token.with_context(|| format!("orders cannot be created in {slug}"))?);
    }
    Ok(tokens)
}

async fn log_in(client: &mut Client, who: &Value) -> anyhow::Result<String> {
    let response = client.send("POST", "/api/v1/auth/login-test", &[], Some(&who.to_string())).await?;
    ensure!(response.status != 404, "the API runs without DEBUG=true, and only with it lets test data in");
    ensure!(response.is_success(), "the test login returned {}: {}", response.status, response.body);
    let pair: Value = serde_json::from_str(&response.body)?;
    let token = pair["accessToken"].as_str().context("the test login returned no token")?;
    Ok(format!("Bearer {token}"))
}

/// One client that makes up orders.
struct Seeder {
    client: Client,
    customers: u64,
    random: StdRng,
}

impl Seeder {
    async fn new(api: &str, customers: u64, seed: u64) -> anyhow::Result<Self> {
        Ok(Self {
            client: Client::connect(api).await?,
            customers,
            // Fixed seeds: the same command makes the same kind of data again.
            random: StdRng::seed_from_u64(seed),
        })
    }

    /// Creates an order and takes it some way along its life.
    async fn create_order(&mut self, authorization: &str) -> anyhow::Result<()> {
        let order = self.random_order();
        let created = self.send(authorization, "POST", "/api/v1/orders", &order).await?;
        let id = created["id"].as_u64().context("the new order has no id")?;
        for status in self.later_statuses() {
            let path = format!("/api/v1/orders/{id}");
            self.send(authorization, "PATCH", &path, &json!({"status": status})).await?;
        }
        Ok(())
    }

    async fn send(
        &mut self,
        authorization: &str,
        method: &str,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<Value> {
        let headers = [("Authorization", authorization)];
        let response = self.client.send(method, path, &headers, Some(&body.to_string())).await?;
        ensure!(response.is_success(), "{method} {path} returned {}: {}", response.status, response.body);
        Ok(serde_json::from_str(&response.body)?)
    }

    /// Mostly a few lines of a few pieces, as in a shop; a product has one price.
    fn random_order(&mut self) -> Value {
        let lines: Vec<Value> = (0..self.random.random_range(1..=5))
            .map(|_| {
                let product = self.random.random_range(0..PRODUCTS);
                let cents = 199 + product * product * 37 % 40_000;
                json!({
                    "product_id": 1001 + product,
                    "quantity": self.random.random_range(1..=4),
                    "unit_price": format!("{}.{:02}", cents / 100, cents % 100),
                })
            })
            .collect();
        json!({
            "customer_id": FIRST_CUSTOMER + self.random.random_range(0..self.customers),
            "order_date": format!("2025-{:02}-{:02}", self.random.random_range(1..=12), self.random.random_range(1..=28)),
            "lines": lines,
        })
    }

    /// The statuses that follow: a fifth of the orders is still pending, and one in ten is cancelled.
    fn later_statuses(&mut self) -> &'static [&'static str] {
        match self.random.random_range(0..10) {
            0..2 => &[],
            2..4 => &["CONFIRMED"],
            4..6 => &["CONFIRMED", "SHIPPED"],
            6..9 => &["CONFIRMED", "SHIPPED", "DELIVERED"],
            _ => &["CANCELLED"],
        }
    }
}
