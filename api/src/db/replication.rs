//! How far a read replica is behind, by the time at which the relay renewed its lease last. It does so about every second, and
//! its row is replicated like any other, so this holds for every kind of replication.

use sqlx::PgConnection;

/// What one server knows. Times are those of the primary, in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct ReplicationState {
    /// When the lease was renewed.
    pub renewed: f64,
    /// The clock of the server.
    pub now: f64,
    /// The cluster it belongs to.
    system_identifier: i64,
    /// The timeline it writes; `None` on a standby.
    timeline: Option<i64>,
}

impl ReplicationState {
    /// Whether this server takes writes of its own although `primary` has replaced it: each promotion begins a timeline with a
    /// higher number.
    pub fn was_replaced_by(&self, primary: &Self) -> bool {
        self.system_identifier == primary.system_identifier
            && self.timeline.is_some_and(|timeline| Some(timeline) < primary.timeline)
    }
}

/// Reads what a primary and its replica are compared by.
pub async fn load_replication_state(db: &mut PgConnection) -> Result<ReplicationState, sqlx::Error> {
    sqlx::query_as!(
        ReplicationState,
        r#"SELECT extract(epoch FROM updated_at)::double precision AS "renewed!",
                  extract(epoch FROM clock_timestamp())::double precision AS "now!",
                  (SELECT system_identifier FROM pg_control_system()) AS "system_identifier!",
                  CASE WHEN NOT pg_is_in_recovery() THEN log_timeline() END AS timeline
           FROM relay"#
    )
    .fetch_one(db)
    .await
}
