//! Health of the API and of what it depends on.

mod live;
mod probe;
mod ready;
mod report;

use std::{sync::Arc, time::Duration};

use shared::{broker::EventSink, clock::Clock, db::DbPool, redis::Redis, shutdown::Shutdown};
use tokio::{sync::Mutex, time::Instant};

pub use live::{__path_live, live};
pub use ready::{__path_ready, ready};
pub use report::{__path_health, EventsHealth, HealthReport, ServiceHealth, Services, Status, health};

/// A report is given again for this long, so that polling cannot hammer what is polled about.
const FRESH: Duration = Duration::from_secs(1);

/// The routes that are asked often, and by machines.
pub const ROUTES: [&str; 4] = ["/health", "/api/v1/health", "/api/v1/health/ready", "/api/v1/health/live"];

/// What the health routes report.
pub struct Health {
    db: DbPool,
    redis: Redis,
    sink: Arc<dyn EventSink>,
    clock: Clock,
    shutdown: Shutdown,
    /// Held while probing, so that callers at the same time share one probe.
    last: Mutex<Option<(Instant, Arc<HealthReport>)>>,
}

impl Health {
    /// Watches these dependencies.
    pub fn new(db: DbPool, redis: Redis, sink: Arc<dyn EventSink>, clock: Clock, shutdown: Shutdown) -> Self {
        Self { db, redis, sink, clock, shutdown, last: Mutex::new(None) }
    }

    /// How things stand, as of at most a second ago.
    pub async fn report(&self, cache_degraded: bool) -> Arc<HealthReport> {
        let mut last = self.last.lock().await;
        if let Some((at, report)) = last.as_ref()
            && at.elapsed() < FRESH
        {
            return Arc::clone(report);
        }
        let report = Arc::new(self.probe(cache_degraded).await);
        *last = Some((Instant::now(), Arc::clone(&report)));
        report
    }
}
