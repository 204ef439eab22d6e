//! `GET /api/v1/orders/{id}/history`.

use axum::{Json, extract::State};
use serde::Serialize;
use serde_json::value::RawValue;
use shared::{
    order::{ChangedFields, CustomerId, OrderId},
    timestamp,
};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{described::OrderPath, fields::InPath};
use crate::{
    auth::Caller,
    error::{ApiError, Problem},
    state::AppState,
    store::{self, Entry},
};

/// Every recorded change of an order, oldest first.
#[derive(Serialize, ToSchema)]
pub struct OrderHistory {
    /// Which order.
    order_id: OrderId,
    /// The changes.
    entries: Vec<HistoryEntry>,
    /// The last version before the first gap: up to here everything is recorded, 0 where nothing is yet.
    #[schema(minimum = 0)]
    complete_through: i64,
}

/// One change.
#[derive(Serialize, ToSchema)]
pub struct HistoryEntry {
    /// The version it led to.
    #[schema(minimum = 1)]
    version: i64,
    /// `CREATED`, `UPDATED` or `DELETED`.
    #[schema(pattern = "^(CREATED|UPDATED|DELETED)$")]
    action: String,
    /// Each changed field before and after.
    #[schema(value_type = ChangedFields)]
    changes: Box<RawValue>,
    /// Who did it.
    performed_by: CustomerId,
    /// The event that told of it.
    event_id: Uuid,
    /// When it happened.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    occurred_at: OffsetDateTime,
    /// When it was recorded.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    recorded_at: OffsetDateTime,
}

impl From<Entry> for HistoryEntry {
    fn from(entry: Entry) -> Self {
        let Entry { version, action, changes, performed_by, event_id, occurred_at, recorded_at, .. } = entry;
        Self { version, action, changes, performed_by, event_id, occurred_at, recorded_at }
    }
}

/// Show the history of an order
///
/// It answers for deleted orders too. Recording follows a change within moments: `complete_through` tells how far.
#[utoipa::path(
    get,
    path = "/api/v1/orders/{id}/history",
    tag = "orders",
    operation_id = "order_history",
    params(OrderPath),
    responses(
        (status = 200, description = "The history", body = OrderHistory),
        (status = 404, description = "There is and was no such order, or it is not the caller's", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "The query has parameters", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn history(
    caller: Caller,
    State(state): State<AppState>,
    InPath(id): InPath,
) -> Result<Json<OrderHistory>, ApiError> {
    let entries = state.read_db.read(|mut db| async move { store::history(&mut db, id).await }).await?;
    let owner = match entries.first() {
        Some(entry) => Some(entry.customer_id),
        // Nothing is recorded yet, perhaps because the order is a moment old.
        None => state.orders.reader.read(id).await?.map(|order| order.owner),
    };
    if !owner.is_some_and(|owner| caller.may_access(owner)) {
        return Err(ApiError::not_found());
    }
    let complete_through = complete_through(entries.iter().map(|entry| entry.version));
    let entries = entries.into_iter().map(HistoryEntry::from).collect();
    Ok(Json(OrderHistory { order_id: id, entries, complete_through }))
}

/// The last version before the first gap.
fn complete_through(versions: impl Iterator<Item = i64>) -> i64 {
    versions
        .zip(1..)
        .take_while(|(version, expected)| version == expected)
        .map(|(version, _)| version)
        .last()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::complete_through;

    #[test]
    fn it_is_complete_up_to_the_first_gap() {
        for (versions, complete) in
            [(&[][..], 0), (&[1], 1), (&[1, 2, 3], 3), (&[1, 2, 4, 5], 2), (&[2, 3], 0)]
        {
            assert_eq!(complete_through(versions.iter().copied()), complete, "{versions:?}");
        }
    }
}
