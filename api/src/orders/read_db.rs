//! Where lists and histories are read from: the read replica while it is up and close behind, else from the primary.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use metrics::{counter, gauge};
use secrecy::SecretString;
use shared::platform::{
    db::{DbConnection, DbError, DbPool, PoolSettings, Servers},
    service::UNKNOWN,
    shutdown::Shutdown,
};

use crate::db::{self, ReplicationState};

/// A replica that is further behind, in seconds, is not read from.
const LAG_LIMIT_SECONDS: f64 = 10.0;
/// How often the replica is compared with the primary.
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// How long each of the two may take for that.
const COMPARE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a request waits for the replica before it turns to the primary.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// The databases that lists and histories are read from.
pub struct ReadDb {
    /// Current, and always read from in the end.
    primary: DbPool,
    replica: Option<Replica>,
}

struct Replica {
    db: DbPool,
    health: Arc<Mutex<ReplicaHealth>>,
}

/// Whether the read replica can be read from.
#[derive(Clone, Debug)]
pub struct ReplicaHealth {
    /// How long it took to answer; `None` if it did not.
    pub latency: Option<Duration>,
    /// How far it is behind the primary, to within about a second; `None` if that is not known.
    pub lag_seconds: Option<f64>,
    /// Why it is not read from; `None` if it is.
    pub unusable: Option<String>,
}

impl ReadDb {
    /// Reads from the replica if there is one, and watches it until `shutdown`.
    pub(crate) fn start(
        primary: &DbPool,
        replica_url: Option<&SecretString>,
        max_connections: u32,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Self> {
        let on_primary = primary.sibling(PoolSettings::new("api-read", max_connections));
        let Some(replica_url) = replica_url else { return Ok(Self { primary: on_primary, replica: None }) };
        let servers = Servers::replica(replica_url).context("DATABASE_READ_URL")?;
        let db = DbPool::new(servers, PoolSettings::new("api-replica", max_connections));
        let watching = PoolSettings::new("replica-watch", 1);
        let comparison =
            Comparison { primary: primary.sibling(watching.clone()), replica: db.sibling(watching) };
        // It is not read from until it has been compared.
        let health = Arc::new(Mutex::new(ReplicaHealth {
            latency: None,
            lag_seconds: None,
            unusable: Some("it was not compared with the primary yet".to_owned()),
        }));
        let (comparison, watched) = (Arc::new(comparison), Arc::clone(&health));
        shutdown.spawn_restarting("read replica", move |until| {
            watch_replica(Arc::clone(&comparison), Arc::clone(&watched), until)
        });
        Ok(Self { primary: on_primary, replica: Some(Replica { db, health }) })
    }

    /// The health of the replica; `None` if there is none.
    pub fn replica_health(&self) -> Option<ReplicaHealth> {
        self.replica.as_ref().map(Replica::health)
    }

    /// Reads from the replica, or from the primary if the replica is unusable or fails.
    pub(crate) async fn read_with_fallback<T, F>(
        &self,
        mut work: impl FnMut(DbConnection) -> F,
    ) -> Result<T, DbError>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        if let Some(replica) = &self.replica {
            if replica.health().unusable.is_none() {
                match tokio::time::timeout(READ_TIMEOUT, replica.db.read_with_retry(&mut work)).await {
                    Ok(Ok(found)) => return Ok(found),
                    // Of this request alone, which may read very much. If the replica is silent, the comparison notices it, too.
                    Ok(Err(DbError::Busy(_))) | Err(_) => {}
                    Ok(Err(error)) => replica.set_unusable(error.to_string()),
                }
            }
            counter!("database_read_fallbacks_total").increment(1);
        }
        self.primary.read_with_retry(work).await
    }
}

impl Replica {
    fn health(&self) -> ReplicaHealth {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has every request read from the primary until the next comparison.
    fn set_unusable(&self, reason: String) {
        tracing::warn!(error = reason, "the read replica failed a request: the primary answers it");
        self.health.lock().unwrap_or_else(PoisonError::into_inner).unusable = Some(reason);
    }
}

/// Compares the time at which the relay renewed its lease last, as each side knows it.
struct Comparison {
    primary: DbPool,
    replica: DbPool,
}

/// Compares until shutdown.
async fn watch_replica(comparison: Arc<Comparison>, health: Arc<Mutex<ReplicaHealth>>, shutdown: Shutdown) {
    loop {
        let now = comparison.compare().await;
        gauge!("database_read_lag_seconds").set(now.lag_seconds.unwrap_or(UNKNOWN));
        let before =
            std::mem::replace(&mut *health.lock().unwrap_or_else(PoisonError::into_inner), now.clone());
        match (&before.unusable, &now.unusable) {
            (None, Some(reason)) => {
                tracing::warn!(reason, "lists and histories are read from the primary");
            }
            (Some(_), None) => tracing::info!("lists and histories are read from the replica"),
            _ => {}
        }
        tokio::select! {
            () = shutdown.begun() => return,
            () = tokio::time::sleep(COMPARE_EVERY) => {}
        }
    }
}

impl Comparison {
    async fn compare(&self) -> ReplicaHealth {
        // The primary comes first, so that a replica that is up to date never seems behind.
        let primary = load_state(&self.primary).await;
        let start = Instant::now();
        let replica = load_state(&self.replica).await;
        let latency = Some(start.elapsed());
        match (primary, replica) {
            (_, Err(error)) => ReplicaHealth {
                latency: None,
                lag_seconds: None,
                unusable: Some(format!("it does not answer: {error}")),
            },
            // Without the primary, the replica is all that is left.
            (Err(_), Ok(_)) => ReplicaHealth { latency, lag_seconds: None, unusable: None },
            (Ok(primary), Ok(replica)) if replica.was_replaced_by(&primary) => ReplicaHealth {
                latency,
                lag_seconds: None,
                unusable: Some("it is a former primary that was replaced and still takes writes".to_owned()),
            },
            (Ok(primary), Ok(replica)) => {
                let behind =
                    if replica.renewed < primary.renewed { primary.now - replica.renewed } else { 0.0 };
                let unusable = (behind > LAG_LIMIT_SECONDS).then(|| {
                    format!("it is {behind:.0} s behind the primary, more than {LAG_LIMIT_SECONDS:.0}")
                });
                ReplicaHealth { latency, lag_seconds: Some(behind.max(0.0)), unusable }
            }
        }
    }
}

async fn load_state(db: &DbPool) -> Result<ReplicationState, String> {
    let query = db.read_with_retry(|mut db| async move { db::load_replication_state(&mut db).await });
    match tokio::time::timeout(COMPARE_TIMEOUT, query).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {COMPARE_TIMEOUT:?}")),
    }
}
