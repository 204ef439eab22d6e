//! The system that a load goes to: a private one, or a running one that is told.

use anyhow::{Context, ensure};
use serde_json::Value;
use testbed::http;

use crate::arguments::Place;
use crate::programs::{self, Environment, Running};
use crate::servers::Servers;
use crate::tokens;

/// Customers of a load.
const CUSTOMERS: i64 = 100;
/// Above any order of another source, so that they do not meet other data.
const FIRST_CUSTOMER: i64 = 900_000_001;

/// A running system.
#[derive(Debug)]
pub struct System {
    /// The API's address.
    pub url: String,
    database_url: Option<String>,
    own: Option<Own>,
}

/// What was started for it.
#[derive(Debug)]
struct Own {
    servers: Servers,
    api: Running,
    workers: Vec<Running>,
}

impl System {
    /// Starts a system, or takes the one that is told.
    pub async fn find_or_start(place: &Place) -> anyhow::Result<Self> {
        if let Some(url) = &place.url {
            let url = url.trim_end_matches('/').to_owned();
            return Ok(Self { url, database_url: place.database_url.clone(), own: None });
        }
        println!("starting PostgreSQL, Redis, an API and {} workers", place.workers);
        let servers = Servers::start().await?;
        let database_url = servers.database("loading").await?;
        let environment = Environment {
            database_url: database_url.clone(),
            redis_url: servers.redis_url().to_owned(),
            more: Vec::new(),
        };
        let api = programs::api(&environment, servers.folder()).await?;
        let mut workers = Vec::new();
        for _ in 0..place.workers {
            workers.push(programs::worker(&environment, servers.folder()).await?);
        }
        let url = api.url.clone();
        Ok(Self { url, database_url: Some(database_url), own: Some(Own { servers, api, workers }) })
    }

    /// Its database, if it is known.
    pub fn database_url(&self) -> Option<&str> {
        self.database_url.as_deref()
    }

    /// A token of each customer: signed here for a system of its own, else from its test login.
    pub async fn tokens(&self) -> anyhow::Result<Vec<String>> {
        let customers = FIRST_CUSTOMER..FIRST_CUSTOMER + CUSTOMERS;
        if self.own.is_some() {
            return customers.map(tokens::access).collect();
        }
        let mut tokens = Vec::new();
        for customer in customers {
            let body = format!(r#"{{"customer_id":{customer}}}"#);
            let login = format!("{}/api/v1/auth/login-test", self.url);
            let answer = http::request("POST", &login, &[], Some(&body)).await?;
            ensure!(answer.is_success(), "{login} answers {}: is it running with DEBUG=true?", answer.status);
            let answer: Value = serde_json::from_str(&answer.body)?;
            tokens.push(answer["accessToken"].as_str().context("the login gave no accessToken")?.to_owned());
        }
        Ok(tokens)
    }

    /// Resident bytes of the API and of all workers together, if we started them.
    pub fn resident(&self) -> anyhow::Result<Option<(u64, u64)>> {
        let Some(own) = &self.own else { return Ok(None) };
        let workers = own.workers.iter().map(Running::resident).sum::<anyhow::Result<u64>>()?;
        Ok(Some((own.api.resident()?, workers)))
    }

    /// Stops what was started.
    pub async fn stop(self) -> anyhow::Result<()> {
        let Some(own) = self.own else { return Ok(()) };
        for worker in own.workers {
            worker.stop().await?;
        }
        own.api.stop().await?;
        own.servers.stop().await
    }
}
