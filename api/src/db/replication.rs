//! How far a read replica is behind, by the time at which the relay renewed its lease last. It does so about every second, and
//! its row is replicated like any other, so this holds for every kind of replication.

use sqlx::PgConnection;

/// Times on the primary, in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct PrimaryTimes {
    /// When the lease was renewed.
    pub renewed: f64,
    /// The clock of the primary.
    pub now: f64,
}

/// Reads what a replica is compared with.
pub async fn load_primary_times(db: &mut PgConnection) -> Result<PrimaryTimes, sqlx::Error> {
    sqlx::query_as!(
        PrimaryTimes,
        r#"SELECT extract(epoch FROM updated_at)::double precision AS "renewed!",
                  extract(epoch FROM clock_timestamp())::double precision AS "now!"
           FROM relay"#
    )
    .fetch_one(db)
    .await
}

/// Reads when the lease was renewed, as this server knows it, in seconds since 1970.
pub async fn load_renewal_time(db: &mut PgConnection) -> Result<f64, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT extract(epoch FROM updated_at)::double precision AS "renewed!" FROM relay"#)
        .fetch_one(db)
        .await
}
