//! Requests whose idempotency key is taken: the stored response is sent again, if the request is the same.

use std::collections::{HashMap, HashSet};

use shared::{
    domain::order::{CustomerId, Order, OrderKey},
    platform::db::DbError,
};

use super::{
    super::{error::OrderError, load::load_orders, response::OrderResponse},
    context::WriterContext,
    job::{WriteJob, fail_jobs},
};
use crate::db::{self, IdempotencyClaim, KeyedResponse};

/// What stands under the keys of a batch.
struct StoredResponses {
    /// By caller and key.
    by_key: HashMap<(CustomerId, String), KeyedResponse>,
    /// The orders that the responses are about, as they are now.
    current: HashMap<OrderKey, Order>,
}

impl WriterContext {
    /// Answers requests whose key is taken with what stands under it, or with a refusal if another request has used the key.
    /// Returns those whose key is free again, because the response has just expired or the job that had it failed.
    pub(super) async fn replay<J: WriteJob>(&self, taken: Vec<J>) -> Vec<J> {
        if taken.iter().all(|job| job.claim().is_none()) {
            return taken;
        }
        let StoredResponses { by_key, current } = match self.load_stored(&taken).await {
            Ok(stored) => stored,
            Err(error) => {
                fail_jobs(taken, error);
                return Vec::new();
            }
        };
        let (mut replayed, mut free) = (Vec::new(), Vec::new());
        for job in taken {
            let Some(claim) = job.claim() else { continue };
            match by_key.get(&(claim.caller, claim.key.clone())) {
                Some(stored) if is_same_request(&job, claim, stored, &current) => {
                    replayed.push((job, Ok(OrderResponse::replayed(stored.response.clone()))));
                }
                Some(_) => job.respond(Err(OrderError::KeyReused)),
                None => free.push(job),
            }
        }
        self.respond_as_stored(replayed, &current).await;
        free
    }

    /// Reads what stands under the keys first, and then the orders, so that these are at least as new as the responses.
    async fn load_stored<J: WriteJob>(&self, taken: &[J]) -> Result<StoredResponses, DbError> {
        let keys: Vec<(CustomerId, &str)> = taken
            .iter()
            .filter_map(WriteJob::claim)
            .map(|claim| (claim.caller, claim.key.as_str()))
            .collect();
        let keys = keys.as_slice();
        let by_key =
            self.db.read_with_retry(|mut db| async move { db::load_responses(&mut db, keys).await }).await?;
        let orders: HashSet<OrderKey> = taken.iter().filter_map(WriteJob::changed_order).collect();
        let current = if orders.is_empty() || by_key.is_empty() {
            HashMap::new()
        } else {
            load_orders(&self.db, &orders.into_iter().collect::<Vec<_>>()).await?
        };
        Ok(StoredResponses { by_key, current })
    }
}

/// Whether the stored response was given to the same request.
///
/// A response that an older version stored does not say to which role it was given. It goes to its caller all the same,
/// so that honest repetitions during an upgrade succeed, but only if the caller can see the order that it is about.
fn is_same_request<J: WriteJob>(
    job: &J,
    claim: &IdempotencyClaim,
    stored: &KeyedResponse,
    current: &HashMap<OrderKey, Order>,
) -> bool {
    if stored.request_hash != claim.request_hash {
        return false;
    }
    if let Some(context_hash) = stored.context_hash {
        return context_hash == claim.context_hash;
    }
    let order = job.changed_order().and_then(|order| current.get(&order));
    let owner = order.map(|order| order.customer_id).or_else(|| parse_owner(&stored.response.body));
    owner.is_none_or(|owner| job.may_access(owner))
}

/// The owner of the order in the body of a response, if it is an order.
fn parse_owner(body: &[u8]) -> Option<CustomerId> {
    #[derive(serde::Deserialize)]
    struct OwnedOrder {
        customer_id: CustomerId,
    }
    serde_json::from_slice(body).ok().map(|OwnedOrder { customer_id }| customer_id)
}
