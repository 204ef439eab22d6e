//! Memory for large answers that wait for their clients.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    response::Response,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::places::Places;
use crate::http::{bytes_with_permit::bytes_with_permit, error::ApiError};

/// Answers up to this size are not counted: 16 KiB. The kernel takes as much from the slowest client.
const FREE_BYTES: u64 = 16 * 1024;
/// How long an answer waits until others have been sent, and how often it looks for clients that do not read.
const PATIENCE: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The bytes that all large answers together may take, from the handler until the kernel has them. The server puts it
/// into each request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct AnswerBudget {
    free: Arc<Semaphore>,
    total: u32,
    places: Arc<Places>,
}

impl AnswerBudget {
    pub(super) fn new(bytes: u32, places: &Arc<Places>) -> Self {
        let total = bytes.max(1);
        let free = Arc::new(Semaphore::new(usize::try_from(total).unwrap_or(Semaphore::MAX_PERMITS)));
        Self { free, total, places: Arc::clone(places) }
    }

    /// The same answer, which holds its part of the budget until it is sent, or 503 if there is none. The handler has
    /// only read, or its answer is small.
    pub(crate) async fn hold(&self, response: Response) -> Result<Response, ApiError> {
        let Some(length) = response.body().size_hint().exact().filter(|length| *length > FREE_BYTES) else {
            return Ok(response);
        };
        let permit = self.take(length).await.ok_or_else(|| {
            ApiError::unavailable(
                "the answers that wait to be sent take all the memory that is set aside for them",
            )
        })?;
        let (parts, body) = response.into_parts();
        // It is whole already: nothing is copied, and nothing waits.
        let bytes = axum::body::to_bytes(body, usize::MAX).await.map_err(ApiError::internal)?;
        Ok(Response::from_parts(parts, Body::from(bytes_with_permit(bytes, permit))))
    }

    async fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        // An answer that is larger than the whole budget is sent alone.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.total);
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_many_owned(bytes) {
            return Some(permit);
        }
        let freed = Arc::clone(&self.free).acquire_many_owned(bytes);
        let close_others = async {
            loop {
                self.places.close_unread();
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::select! {
            permit = freed => permit.ok(),
            () = close_others => None,
            () = tokio::time::sleep(PATIENCE) => None,
        }
    }
}
