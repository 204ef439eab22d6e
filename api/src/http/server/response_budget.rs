//! Memory for large responses that wait for their clients.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    response::Response,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::slots::ConnectionSlots;
use crate::http::{bytes_with_permit::bytes_with_permit, error::ApiError};

/// Responses up to this size are not counted: 16 KiB. The kernel buffers as much for the slowest client.
const FREE_BYTES: u64 = 16 * 1024;
/// How long a response waits until others have been sent.
const MAX_WAIT: Duration = Duration::from_millis(500);
/// How often it closes connections whose clients do not read.
const CLOSE_EVERY: Duration = Duration::from_millis(50);

/// The bytes that all large responses together can take, from the handler until the kernel has them. It is in the extensions
/// of each request.
#[derive(Clone, Debug)]
pub(crate) struct ResponseBudget {
    free: Arc<Semaphore>,
    total: u32,
    slots: Arc<ConnectionSlots>,
}

impl ResponseBudget {
    pub(super) fn new(bytes: u32, slots: &Arc<ConnectionSlots>) -> Self {
        let total = bytes.max(1);
        let free = Arc::new(Semaphore::new(usize::try_from(total).unwrap_or(Semaphore::MAX_PERMITS)));
        Self { free, total, slots: Arc::clone(slots) }
    }

    /// Returns the same response, which holds its part of the budget until it is sent. Fails with 503 if there is no room.
    /// Only for handlers that change nothing.
    pub(crate) async fn reserve(&self, response: Response) -> Result<Response, ApiError> {
        let Some(length) = response.body().size_hint().exact().filter(|length| *length > FREE_BYTES) else {
            return Ok(response);
        };
        let permit = self.acquire(length).await.ok_or_else(|| {
            ApiError::unavailable(
                "the responses that wait to be sent use up the memory that is set aside for them",
            )
        })?;
        let (parts, body) = response.into_parts();
        // The body is complete already: nothing is copied, and nothing waits.
        let bytes = axum::body::to_bytes(body, usize::MAX).await.map_err(ApiError::internal)?;
        Ok(Response::from_parts(parts, Body::from(bytes_with_permit(bytes, permit))))
    }

    async fn acquire(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        // A response that is larger than the whole budget is sent alone.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total);
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_many_owned(bytes) {
            return Some(permit);
        }
        let freed = Arc::clone(&self.free).acquire_many_owned(bytes);
        let close_others = async {
            loop {
                self.slots.close_unread();
                tokio::time::sleep(CLOSE_EVERY).await;
            }
        };
        tokio::select! {
            permit = freed => permit.ok(),
            () = close_others => None,
            () = tokio::time::sleep(MAX_WAIT) => None,
        }
    }
}
