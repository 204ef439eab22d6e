//! What `worker verify` compares, and what it found.

use std::collections::BTreeSet;

use shared::{cache::Cache, domain::tenant::TenantId, platform::db::DbPool};

use super::{difference::Difference, digest::Digest};

/// The stores to compare.
pub(in crate::commands) struct Stores {
    /// Orders, log and history.
    pub(in crate::commands) db: DbPool,
    /// The cache.
    pub(in crate::commands) cache: Cache,
}

/// The result of one comparison.
#[derive(Default)]
pub(super) struct Findings {
    /// Tenants whose removal has begun. Of these, a part is gone, and nothing is compared.
    pub(super) removing: BTreeSet<TenantId>,
    pub(super) digests: Vec<(&'static str, Digest)>,
    pub(super) differences: Vec<Difference>,
    /// Why the cache was not compared, or not completely.
    pub(super) cache_error: Option<anyhow::Error>,
}
