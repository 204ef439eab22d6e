//! The tenants as this process knows them: who is let in, and with which quota. Nothing here knows HTTP.
//!
//! A request asks a snapshot of the table in memory, which is read again every second, and at once if a tenant is not in it. While
//! PostgreSQL is down the last one stays valid, so that cached orders can still be read.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use shared::{
    domain::tenant::TenantId,
    platform::{
        db::{DbConnection, DbError, DbPool},
        shutdown::Shutdown,
    },
};
use tokio::sync::{Mutex, watch};

use crate::{
    db::{self, TenantRow},
    limits::Quota,
};

/// How long a suspension can take to be noticed.
const RELOAD_EVERY: Duration = Duration::from_secs(1);
/// The least time between two reads of the table: requests for tenants that do not exist must not keep PostgreSQL busy.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

/// The tenants as this process knows them. Clones share one snapshot.
#[derive(Clone)]
pub struct Tenants(Arc<TenantCache>);

struct TenantCache {
    db: DbPool,
    snapshot: watch::Sender<Snapshot>,
    /// Locked while the table is read, so that one task reads it, and others share what came of it.
    last_reload: Mutex<Option<Reload>>,
}

/// One reading of the table.
struct Reload {
    began: Instant,
    result: Result<(), Arc<DbError>>,
}

type Snapshot = HashMap<TenantId, KnownTenant>;

/// What a request needs to know of its tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KnownTenant {
    slug: String,
    suspended: bool,
    is_being_removed: bool,
    quota: Option<Quota>,
}

/// Why the callers of a tenant are refused.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// There is no such tenant; it may have been removed.
    #[error("there is no such tenant")]
    Unknown,
    /// It is suspended, or its removal has begun.
    #[error("the tenant is suspended, or being removed")]
    Suspended,
    /// Its removal has begun, and nobody acts in it any more.
    #[error("the tenant is being removed")]
    BeingRemoved,
    /// Whether there is such a tenant is not known.
    #[error(transparent)]
    Database(#[from] Arc<DbError>),
}

/// How a setting or a body names a tenant: by its number, or by its slug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantName {
    /// The number.
    Id(TenantId),
    /// The slug.
    Slug(String),
}

impl std::str::FromStr for TenantName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if let Some(id) = text.parse::<i32>().ok().and_then(|id| id.try_into().ok()) {
            return Ok(Self::Id(id));
        }
        if is_slug(text) {
            return Ok(Self::Slug(text.to_owned()));
        }
        Err("must be the number of a tenant, or its slug: 1 to 40 of a-z, 0-9 and -, with a letter")
    }
}

/// Whether a text can be the slug of a tenant. It has a letter, so that none looks like the number of another tenant.
pub fn is_slug(text: &str) -> bool {
    (1..=40).contains(&text.len())
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

impl Tenants {
    /// Starts to read the table. Until PostgreSQL has answered once, the default tenant is the only one that is known.
    pub fn start(db: &DbPool, shutdown: &Shutdown) -> Self {
        let default = KnownTenant {
            slug: "default".to_owned(),
            suspended: false,
            is_being_removed: false,
            quota: None,
        };
        let tenants = Self(Arc::new(TenantCache {
            db: db.clone(),
            snapshot: watch::Sender::new(HashMap::from([(TenantId::DEFAULT, default)])),
            last_reload: Mutex::new(None),
        }));
        let reloaded = tenants.clone();
        shutdown.spawn_restarting("tenants", move |ends| {
            let reloaded = reloaded.clone();
            async move {
                tokio::select! {
                    () = reloaded.keep_current() => {}
                    () = ends.begun() => {}
                }
            }
        });
        tenants
    }

    /// Returns the quota of a tenant, if its callers are let in.
    pub async fn admit(&self, id: TenantId) -> Result<Option<Quota>, TenantError> {
        let (is_closed, quota) = self.load(id, |known| (known.is_closed(), known.quota)).await?;
        if is_closed { Err(TenantError::Suspended) } else { Ok(quota) }
    }

    /// Fails if there is no such tenant, or its removal has begun. A suspended one is there.
    pub async fn require_present(&self, id: TenantId) -> Result<(), TenantError> {
        let is_being_removed = self.load(id, |known| known.is_being_removed).await?;
        if is_being_removed { Err(TenantError::BeingRemoved) } else { Ok(()) }
    }

    /// Returns the tenant that a name stands for.
    pub async fn find(&self, name: &TenantName) -> Result<TenantId, TenantError> {
        if let Some(id) = self.find_known(name) {
            return Ok(id);
        }
        self.reload().await?;
        self.find_known(name).ok_or(TenantError::Unknown)
    }

    /// Whether a text that names a tenant stands for this one: its number or its slug.
    pub(crate) fn is_called(&self, id: TenantId, text: &str) -> bool {
        text == id.to_string() || self.0.snapshot.borrow().get(&id).is_some_and(|known| known.slug == text)
    }

    /// Whether the callers of a tenant are no longer let in, as far as is known.
    pub fn is_closed(&self, id: TenantId) -> bool {
        self.0.snapshot.borrow().get(&id).is_none_or(KnownTenant::is_closed)
    }

    /// Whether nobody is let into a tenant any more, as far as is known.
    pub fn is_being_removed(&self, id: TenantId) -> bool {
        self.0.snapshot.borrow().get(&id).is_none_or(|known| known.is_being_removed)
    }

    /// Resolves when the callers of a tenant are no longer let in.
    pub async fn closed(&self, id: TenantId) {
        self.wait_until(id, KnownTenant::is_closed).await;
    }

    /// Resolves when nobody is let into a tenant any more.
    pub async fn removal_begun(&self, id: TenantId) {
        self.wait_until(id, |known| known.is_being_removed).await;
    }

    /// Reads the table now. A reading that began after the call serves as well.
    pub async fn reload(&self) -> Result<(), Arc<DbError>> {
        let asked = Instant::now();
        let mut last = self.0.last_reload.lock().await;
        if let Some(last) = &*last {
            if last.began >= asked {
                return last.result.clone();
            }
            tokio::time::sleep(LEAST_PAUSE.saturating_sub(last.began.elapsed())).await;
        }
        let began = Instant::now();
        let result = self.read_table().await.map_err(Arc::new);
        *last = Some(Reload { began, result: result.clone() });
        result
    }

    async fn read_table(&self) -> Result<(), DbError> {
        let read = |mut db: DbConnection| async move { db::load_tenant_rows(&mut db).await };
        let rows = self.0.db.read_with_retry(read).await?;
        let fresh: Snapshot = rows.into_iter().map(KnownTenant::from_row).collect();
        self.0.snapshot.send_if_modified(|snapshot| {
            let is_other = *snapshot != fresh;
            *snapshot = fresh;
            is_other
        });
        Ok(())
    }

    async fn keep_current(&self) {
        let mut is_stale = false;
        loop {
            match self.reload().await {
                Ok(()) => is_stale = false,
                Err(error) if !is_stale => {
                    is_stale = true;
                    tracing::warn!(error = %error, "the tenants cannot be read: the last ones that were read stay valid");
                }
                Err(_) => {}
            }
            tokio::time::sleep(RELOAD_EVERY).await;
        }
    }

    /// Returns something that is known of a tenant. The table is read if nothing is.
    async fn load<T>(&self, id: TenantId, something: impl Fn(&KnownTenant) -> T) -> Result<T, TenantError> {
        let find = || self.0.snapshot.borrow().get(&id).map(&something);
        if let Some(known) = find() {
            return Ok(known);
        }
        self.reload().await?;
        find().ok_or(TenantError::Unknown)
    }

    /// Resolves when something is true of a tenant, or it is gone.
    async fn wait_until(&self, id: TenantId, is_true: impl Fn(&KnownTenant) -> bool) {
        let mut snapshots = self.0.snapshot.subscribe();
        // Fails only if nothing sends any more, and this holds the sender.
        let _ends = snapshots.wait_for(|tenants| tenants.get(&id).is_none_or(&is_true)).await;
    }

    fn find_known(&self, name: &TenantName) -> Option<TenantId> {
        let tenants = self.0.snapshot.borrow();
        match name {
            TenantName::Id(id) => tenants.contains_key(id).then_some(*id),
            TenantName::Slug(slug) => {
                tenants.iter().find(|(_, known)| known.slug == *slug).map(|(id, _)| *id)
            }
        }
    }
}

impl KnownTenant {
    fn from_row(row: TenantRow) -> (TenantId, Self) {
        let TenantRow { id, slug, suspended, is_being_removed, rate_limit } = row;
        // The API writes only quotas. What else stands there limits nobody.
        let quota = rate_limit.and_then(|text| text.parse().ok());
        (id, Self { slug, suspended, is_being_removed, quota })
    }

    /// Whether its own callers are refused.
    fn is_closed(&self) -> bool {
        self.suspended || self.is_being_removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_named_by_its_number_or_its_slug() {
        let id = |id: i32| TenantName::Id(id.try_into().unwrap());
        assert_eq!("2".parse(), Ok(id(2)));
        assert_eq!("shop-2".parse(), Ok(TenantName::Slug("shop-2".to_owned())));
        for text in ["", "0", "-1", "2147483648", "-", "Shop", "shop 2", "läden", &"x".repeat(41)] {
            assert!(text.parse::<TenantName>().is_err(), "{text}");
        }
    }
}
