//! The addresses of the replicas, in turn.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use testbed::http;

/// Names a replica for each request, in turn. It does not ask whether a replica is ready: a client whose request fails asks
/// for the next one.
#[derive(Debug, Default)]
pub(super) struct Balancer {
    /// Each with the address of its metrics.
    urls: RwLock<Vec<(String, String)>>,
    next: AtomicUsize,
}

impl Balancer {
    pub(super) fn add(&self, url: &str, metrics: String) {
        self.urls.write().unwrap_or_else(PoisonError::into_inner).push((url.to_owned(), metrics));
    }

    pub(super) fn remove(&self, url: &str) {
        self.urls.write().unwrap_or_else(PoisonError::into_inner).retain(|(known, _)| known != url);
    }

    /// The next address.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub(super) fn next_url(&self) -> String {
        let urls = self.urls.read().unwrap_or_else(PoisonError::into_inner);
        urls[self.next.fetch_add(1, Ordering::Relaxed) % urls.len()].0.clone()
    }

    /// Whether a replica has missed an answer of Redis, as on a machine that is much too busy. What it wrote then may be read
    /// later, elsewhere.
    pub(super) async fn has_missed_redis(&self) -> bool {
        let urls = self.urls.read().unwrap_or_else(PoisonError::into_inner).clone();
        for (_, metrics) in urls {
            let text = http::get(&metrics).await.map(|answer| answer.body).unwrap_or_default();
            let mut errors = text.lines().filter(|line| line.starts_with("cache_errors_total"));
            if errors.any(|line| !line.ends_with(" 0")) {
                return true;
            }
        }
        false
    }
}
