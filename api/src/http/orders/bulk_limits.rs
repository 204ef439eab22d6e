//! How many exports, imports and batches run at a time.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::http::{HeaderValue, header};
use shared::domain::{order::CustomerKey, tenant::TenantId};
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
    /// Imports at a time: their rows take three quarters of the writer's queue.
    pub imports: BulkLimit,
    /// Batches at a time, until their responses are sent: each takes up to some MiB.
    pub batches: u32,
    /// How long the next row of an import can take.
    pub stall: Duration,
}

/// How many run at a time. No caller can have all of them, and no tenant, however slowly they read or send.
#[derive(Clone, Copy, Debug)]
pub struct BulkLimit {
    /// Those of all callers.
    pub total: u32,
    /// Those in one tenant.
    pub of_tenant: u32,
    /// Those of one caller.
    pub of_one: u32,
}

impl Default for BulkConfig {
    fn default() -> Self {
        Self {
            exports: BulkLimit { total: 4, of_tenant: 3, of_one: 2 },
            imports: BulkLimit { total: 3, of_tenant: 2, of_one: 1 },
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
    /// What runs, in words.
    what: &'static str,
    limit: BulkLimit,
    running: Arc<Mutex<Running>>,
}

/// How many are running; who has none is left out.
#[derive(Debug, Default)]
struct Running {
    total: u32,
    of_tenants: HashMap<TenantId, u32>,
    of_callers: HashMap<CustomerKey, u32>,
}

/// A running export or import, until it is dropped.
#[derive(Debug)]
pub(super) struct BulkPermit {
    tenant: TenantId,
    caller: CustomerKey,
    running: Arc<Mutex<Running>>,
}

impl BulkLimits {
    /// None is running.
    pub fn new(config: BulkConfig) -> Self {
        Self {
            exports: Slots::new("exports", config.exports),
            imports: Slots::new("imports", config.imports),
            batches: semaphore(config.batches),
        }
    }

    /// A permit for an export; 503 if too many are running.
    pub(super) fn admit_export(&self, caller: Caller) -> Result<BulkPermit, ApiError> {
        self.exports.acquire(caller)
    }

    /// A permit for an import; 503 if too many are running.
    pub(super) fn admit_import(&self, caller: Caller) -> Result<BulkPermit, ApiError> {
        self.imports.acquire(caller)
    }

    /// A permit for a batch; 503 if too many are running.
    pub(super) fn admit_batch(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.batches)
            .try_acquire_owned()
            .map_err(|_| refused("as many batches as can run at a time are running".to_owned()))
    }
}

impl Slots {
    fn new(what: &'static str, limit: BulkLimit) -> Self {
        Self { what, limit, running: Arc::default() }
    }

    fn acquire(&self, caller: Caller) -> Result<BulkPermit, ApiError> {
        let (tenant, caller, what) = (caller.tenant, caller.identity(), self.what);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.of_callers.get(&caller).is_some_and(|count| *count >= self.limit.of_one) {
            return Err(refused(format!("as many {what} of this caller as can run at a time are running")));
        }
        if running.of_tenants.get(&tenant).is_some_and(|count| *count >= self.limit.of_tenant) {
            return Err(refused(format!("as many {what} of this tenant as can run at a time are running")));
        }
        if running.total >= self.limit.total {
            return Err(refused(format!("as many {what} as can run at a time are running")));
        }
        running.total += 1;
        *running.of_tenants.entry(tenant).or_default() += 1;
        *running.of_callers.entry(caller).or_default() += 1;
        Ok(BulkPermit { tenant, caller, running: Arc::clone(&self.running) })
    }
}

impl Drop for BulkPermit {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.total -= 1;
        count_down(&mut running.of_tenants, self.tenant);
        count_down(&mut running.of_callers, self.caller);
    }
}

fn count_down<K: Eq + Hash>(counts: &mut HashMap<K, u32>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

fn semaphore(permits: u32) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(usize::try_from(permits).unwrap_or(Semaphore::MAX_PERMITS)))
}

fn refused(detail: String) -> ApiError {
    ApiError::new(Code::Unavailable, detail).with_header(header::RETRY_AFTER, HeaderValue::from_static("5"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Role;

    fn limits() -> BulkLimits {
        let limit = BulkLimit { total: 4, of_tenant: 3, of_one: 2 };
        BulkLimits::new(BulkConfig { exports: limit, imports: limit, ..BulkConfig::default() })
    }

    fn caller(tenant: i32, customer: i64) -> Caller {
        Caller::at_home(tenant.try_into().unwrap(), customer.try_into().unwrap(), Role::Customer)
    }

    #[test]
    fn a_customer_does_not_take_the_place_of_one_with_its_number_in_another_tenant() {
        for admit in [BulkLimits::admit_export, BulkLimits::admit_import] {
            let limits = limits();
            let mut here = vec![admit(&limits, caller(1, 5)).unwrap(), admit(&limits, caller(1, 5)).unwrap()];
            assert!(admit(&limits, caller(1, 5)).is_err());
            assert!(admit(&limits, caller(2, 5)).is_ok());
            here.pop();
            assert!(admit(&limits, caller(1, 5)).is_ok());
        }
    }

    #[test]
    fn the_customers_of_one_tenant_leave_a_place_to_another() {
        let limits = limits();
        let mut held: Vec<_> =
            (1..=3).map(|customer| limits.admit_import(caller(2, customer)).unwrap()).collect();
        assert!(limits.admit_import(caller(2, 4)).is_err());
        let other = limits.admit_import(caller(3, 4)).unwrap();
        // Then all places are taken.
        assert!(limits.admit_import(caller(4, 4)).is_err());
        held.pop();
        assert!(limits.admit_import(caller(2, 4)).is_ok());
        drop((held, other));
        assert_eq!(limits.imports.running.lock().unwrap().of_tenants.len(), 0);
    }
}
