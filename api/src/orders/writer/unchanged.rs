//! Requests that change nothing: refusals, and updates to what the order is already.

use std::collections::HashMap;

use shared::domain::order::{Order, OrderId, OrderKey};

use super::{
    super::{error::OrderError, response::OrderResponse, rules::RuleViolation},
    context::WriterContext,
    job::{WriteJob, fail_jobs},
};
use crate::db;

impl WriterContext {
    /// Answers what changes nothing, from the orders as they were read. If there is a key, the response is stored first.
    /// Returns the jobs whose key is taken.
    pub(super) async fn respond_unchanged<J: WriteJob>(
        &self,
        responses: Vec<(J, Result<OrderResponse, OrderError>)>,
        current: &HashMap<OrderKey, Order>,
    ) -> Vec<J> {
        let (mut to_store, mut ready) = (Vec::new(), Vec::new());
        for (job, response) in responses {
            match response {
                Ok(response) if job.claim().is_some() => to_store.push((job, response)),
                response => ready.push((job, response)),
            }
        }
        let taken = self.store_responses(to_store, &mut ready).await;
        self.respond_as_stored(ready, current).await;
        taken
    }

    /// Answers requests for references that other orders have. Returns the jobs whose key is taken: then the response under it counts.
    pub(super) async fn respond_reference_taken<J: WriteJob>(
        &self,
        refused: impl IntoIterator<Item = (J, OrderId)>,
        current: &HashMap<OrderKey, Order>,
    ) -> Vec<J> {
        let refused = refused.into_iter().map(|(job, order_id)| {
            let response = job.refuse(RuleViolation::ReferenceTaken { order_id });
            (job, response)
        });
        self.respond_unchanged(refused.collect(), current).await
    }

    /// Stores responses under their keys, and moves those that are stored to `ready`. Returns the jobs whose key is taken.
    async fn store_responses<J: WriteJob>(
        &self,
        to_store: Vec<(J, OrderResponse)>,
        ready: &mut Vec<(J, Result<OrderResponse, OrderError>)>,
    ) -> Vec<J> {
        let rows: Vec<_> =
            to_store.iter().filter_map(|(job, response)| Some((job.claim()?, &response.stored))).collect();
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
                job.claim().is_some_and(|claim| keys.contains(&(claim.caller, claim.key.clone())));
            if is_stored { ready.push((job, Ok(response))) } else { taken.push(job) }
        }
        taken
    }
}
