//! Changes that change nothing: refusals, and updates to what the order is already.

use std::collections::HashMap;

use shared::domain::order::{Order, OrderId};

use super::{
    super::{error::OrderError, response::OrderResponse},
    change_job::ChangeJob,
    context::WriterContext,
    job::fail_jobs,
};
use crate::db;

impl WriterContext {
    /// Answers what changes nothing, from the orders as they were read. If there is a key, the response is stored first.
    /// Returns the jobs whose key is taken.
    pub(super) async fn respond_unchanged(
        &self,
        responses: Vec<(ChangeJob, Result<OrderResponse, OrderError>)>,
        current: &HashMap<OrderId, Order>,
    ) -> Vec<ChangeJob> {
        let (mut to_store, mut ready) = (Vec::new(), Vec::new());
        for (job, response) in responses {
            match response {
                Ok(response) if job.claim.is_some() => to_store.push((job, response)),
                response => ready.push((job, response)),
            }
        }
        let taken = self.store_responses(to_store, &mut ready).await;
        self.respond_as_stored(ready, current).await;
        taken
    }

    /// Stores responses under their keys, and moves those that are stored to `ready`. Returns the jobs whose key is taken.
    async fn store_responses(
        &self,
        to_store: Vec<(ChangeJob, OrderResponse)>,
        ready: &mut Vec<(ChangeJob, Result<OrderResponse, OrderError>)>,
    ) -> Vec<ChangeJob> {
        let rows: Vec<_> = to_store
            .iter()
            .filter_map(|(job, response)| Some((job.claim.as_ref()?, &response.stored)))
            .collect();
        if rows.is_empty() {
            return Vec::new();
        }
        let rows = &rows;
        let stored = self
            .db
            .write_with_retry(false, |mut db| async move { db::store_responses(&mut db, rows).await })
            .await;
        let keys = match stored {
            Ok((keys, _)) => keys,
            Err(failure) => {
                fail_jobs(to_store.into_iter().map(|(job, _)| job), failure.error);
                return Vec::new();
            }
        };
        let mut taken = Vec::new();
        for (job, response) in to_store {
            let is_stored =
                job.claim.as_ref().is_some_and(|claim| keys.contains(&(claim.caller, claim.key.clone())));
            if is_stored { ready.push((job, Ok(response))) } else { taken.push(job) }
        }
        taken
    }
}
