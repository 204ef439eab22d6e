//! How many exports, imports and batches run at a time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::{HeaderValue, header};
use shared::domain::order::CustomerKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    auth::Caller,
    http::error::{ApiError, Code},
};

/// Limits of requests with many orders.
#[derive(Clone, Copy, Debug)]
pub struct BulkConfig {
    /// Exports at a time: each keeps a connection to PostgreSQL busy, and a few pages in memory.
    pub exports: BulkLimit,
    /// Imports at a time: their rows take half of the writer's queue.
    pub imports: BulkLimit,
    /// Batches at a time, until their responses are sent: each takes up to some MiB.
    pub batches: u32,
    /// How long the next row of an import can take.
    pub stall: Duration,
}

/// How many run at a time. No caller can have all of them, however slowly it reads or sends.
#[derive(Clone, Copy, Debug)]
pub struct BulkLimit {
    /// Those of all callers.
    pub total: u32,
    /// Those of one caller.
    pub of_one: u32,
}

impl Default for BulkConfig {
    fn default() -> Self {
        Self {
            exports: BulkLimit { total: 4, of_one: 2 },
            imports: BulkLimit { total: 2, of_one: 1 },
            batches: 16,
            stall: Duration::from_secs(30),
        }
    }
}

/// Counts them.
#[derive(Debug)]
pub struct BulkLimits {
    exports: Slots,
    imports: Slots,
    batches: Arc<Semaphore>,
}

#[derive(Debug)]
struct Slots {
    free: Arc<Semaphore>,
    of_one: u32,
    callers: Arc<Callers>,
}

/// How many each caller has; callers without any are left out.
type Callers = Mutex<HashMap<CustomerKey, u32>>;

/// A running export or import, until it is dropped.
#[derive(Debug)]
pub(super) struct BulkPermit {
    caller: CustomerKey,
    callers: Arc<Callers>,
    _permit: OwnedSemaphorePermit,
}

impl BulkLimits {
    /// None is running.
    pub fn new(config: BulkConfig) -> Self {
        Self {
            exports: Slots::new(config.exports),
            imports: Slots::new(config.imports),
            batches: semaphore(config.batches),
        }
    }

    /// A permit for an export; 503 if too many are running.
    pub(super) fn admit_export(&self, caller: Caller) -> Result<BulkPermit, ApiError> {
        self.exports.acquire(caller.key()).ok_or_else(|| refused("exports"))
    }

    /// A permit for an import; 503 if too many are running.
    pub(super) fn admit_import(&self, caller: Caller) -> Result<BulkPermit, ApiError> {
        self.imports.acquire(caller.key()).ok_or_else(|| refused("imports"))
    }

    /// A permit for a batch; 503 if too many are running.
    pub(super) fn admit_batch(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.batches).try_acquire_owned().map_err(|_| refused("batches"))
    }
}

impl Slots {
    fn new(limit: BulkLimit) -> Self {
        Self { free: semaphore(limit.total), of_one: limit.of_one, callers: Arc::default() }
    }

    fn acquire(&self, caller: CustomerKey) -> Option<BulkPermit> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.get(&caller).is_some_and(|running| *running >= self.of_one) {
            return None;
        }
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        *callers.entry(caller).or_default() += 1;
        Some(BulkPermit { caller, callers: Arc::clone(&self.callers), _permit: permit })
    }
}

impl Drop for BulkPermit {
    fn drop(&mut self) {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = callers.get_mut(&self.caller) {
            *running -= 1;
            if *running == 0 {
                callers.remove(&self.caller);
            }
        }
    }
}

fn semaphore(permits: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(usize::try_from(permits).unwrap_or(Semaphore::MAX_PERMITS)))
}

fn refused(what: &str) -> ApiError {
    ApiError::new(Code::Unavailable, format!("as many {what} as can run at a time are running"))
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("5"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Role;

    #[test]
    fn a_customer_does_not_take_the_place_of_one_with_its_number_in_another_tenant() {
        let limit = BulkLimit { total: 3, of_one: 1 };
        let limits = BulkLimits::new(BulkConfig { exports: limit, imports: limit, ..BulkConfig::default() });
        let caller = |tenant: i32| Caller {
            tenant: tenant.try_into().unwrap(),
            customer_id: 5.try_into().unwrap(),
            role: Role::Customer,
        };
        for admit in [BulkLimits::admit_export, BulkLimits::admit_import] {
            let (here, there) = (admit(&limits, caller(1)), admit(&limits, caller(2)));
            assert!(here.is_ok() && there.is_ok());
            assert!(admit(&limits, caller(1)).is_err());
            drop(here);
            assert!(admit(&limits, caller(1)).is_ok());
        }
    }
}
