//! The addresses of the replicas, in turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

/// Names a replica for each request, in turn. It does not ask whether a replica is ready: a client whose request fails asks
/// for the next one.
#[derive(Debug, Default)]
pub(super) struct Balancer {
    urls: RwLock<Vec<String>>,
    next: AtomicUsize,
}

impl Balancer {
    pub(super) fn add(&self, url: &str) {
        self.urls.write().unwrap_or_else(PoisonError::into_inner).push(url.to_owned());
    }

    pub(super) fn remove(&self, url: &str) {
        self.urls.write().unwrap_or_else(PoisonError::into_inner).retain(|known| known != url);
    }

    /// The next address.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub(super) fn next_url(&self) -> String {
        let urls = self.urls.read().unwrap_or_else(PoisonError::into_inner);
        urls[self.next.fetch_add(1, Ordering::Relaxed) % urls.len()].clone()
    }
}
