//! A log line for each change of a service's health, so that operators can see later what failed and when.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use super::report::{HealthStatus, Services};

/// The status that was last logged, by service. Services start healthy.
#[derive(Debug, Default)]
pub(super) struct HealthLog(Mutex<BTreeMap<&'static str, HealthStatus>>);

impl HealthLog {
    /// Logs the services whose status has changed.
    pub(super) fn log_changes(&self, services: &Services) {
        let Services { database, database_read, redis, events, history } = services;
        let now = [
            Some(("database", database.status, &database.detail)),
            database_read.as_ref().map(|replica| ("database_read", replica.status, &replica.detail)),
            Some(("redis", redis.status, &redis.detail)),
            Some(("events", events.status, &events.detail)),
            Some(("history", history.status, &history.detail)),
        ];
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (service, status, detail) in now.into_iter().flatten() {
            let before = last.insert(service, status).unwrap_or(HealthStatus::Healthy);
            if before == status {
                continue;
            }
            if status == HealthStatus::Healthy {
                tracing::info!(service, "health: the service is healthy again");
            } else {
                let detail = detail.as_deref().unwrap_or_default();
                tracing::warn!(service, ?status, detail, "health: the service is not healthy");
            }
        }
    }
}
