//! Creating orders: many in one statement, with their lines, events and kept answers.

use std::collections::HashSet;

use shared::domain::{
    event::Envelope,
    order::{Order, OrderId},
};
use sqlx::PgConnection;

use super::{IdempotencyClaim, LineColumns, StoredResponse, answers::ClaimColumns, impossible};

/// One order to write.
#[derive(Clone, Copy, Debug)]
pub struct NewOrder<'a> {
    /// The order, with its ids.
    pub order: &'a Order,
    /// What announces it.
    pub event: &'a Envelope,
    /// The key of the request, and the answer to keep under it.
    pub claim: Option<(&'a IdempotencyClaim, &'a StoredResponse)>,
}

/// Writes orders, each with all that belongs to it, in one statement that commits by itself, and gives the ids of
/// those that were written. The others are left out because their key is taken. No two of `new` may have the same key.
///
/// Keys are claimed in their order, so that two batches never wait for each other in a circle.
pub async fn write(db: &mut PgConnection, new: &[NewOrder<'_>]) -> Result<HashSet<OrderId>, sqlx::Error> {
    let count = new.len();
    let (mut ids, mut customers) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let (mut dates, mut totals) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let (mut times, mut event_ids) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let (mut types, mut payloads) = (Vec::with_capacity(count), Vec::with_capacity(count));
    // Where nobody has a key, `unnest` fills the empty columns up.
    let has_keys = new.iter().any(|order| order.claim.is_some());
    let (mut lines, mut claims) = (LineColumns::default(), ClaimColumns::default());
    for NewOrder { order, event, claim } in new {
        ids.push(order.id.get());
        customers.push(order.customer_id.get());
        dates.push(order.order_date);
        totals.push(order.total_amount.amount());
        times.push(order.created_at);
        event_ids.push(event.id);
        types.push(event.event_type.as_str());
        payloads.push(event.body.as_str());
        lines.add(order);
        if has_keys {
            claims.add(*claim);
        }
    }
    sqlx::query_file_scalar!(
        "src/db/create.sql",
        &ids,
        &customers,
        &dates,
        &totals,
        &times,
        &claims.callers as _,
        &claims.keys as _,
        &claims.hashes as _,
        &claims.statuses as _,
        &claims.headers as _,
        &claims.bodies as _,
        &event_ids,
        &types as _,
        &payloads as _,
        &lines.ids,
        &lines.orders,
        &lines.positions,
        &lines.products,
        &lines.quantities,
        &lines.prices,
        &claims.contexts as _,
    )
    .fetch_all(db)
    .await?
    .into_iter()
    .map(|id| id.and_then(|id| OrderId::try_from(id).ok()).ok_or_else(|| impossible("orders.id")))
    .collect()
}
