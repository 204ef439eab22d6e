//! Creating orders: many in one statement, with their lines, events and stored responses.

use std::collections::HashSet;

use shared::domain::{
    event::Envelope,
    order::{Order, OrderId},
};
use sqlx::{Connection as _, PgConnection};

use super::{
    columns::{EventColumns, LineColumns, OrderColumns},
    decode::impossible,
    idempotency::{ClaimColumns, IdempotencyClaim, StoredResponse, store_responses},
};

/// One order to write.
#[derive(Clone, Copy, Debug)]
pub struct CreatedOrder<'a> {
    /// The order, with its ids.
    pub order: &'a Order,
    /// The event of its creation.
    pub event: &'a Envelope,
    /// The key of the request, and the response to store under it.
    pub claim: Option<(&'a IdempotencyClaim, &'a StoredResponse)>,
}

/// Writes orders, each with all that belongs to it, in one statement that commits by itself, and returns the ids of
/// those that were written. The others are left out because their key is taken. No two of `created` can have the same key.
///
/// Keys are claimed in their order, so that two batches never wait for each other in a circle.
pub async fn insert_orders(
    db: &mut PgConnection,
    created: &[CreatedOrder<'_>],
) -> Result<HashSet<OrderId>, sqlx::Error> {
    let (mut orders, mut lines) = (OrderColumns::default(), LineColumns::default());
    let (mut events, mut claims) = (EventColumns::default(), ClaimColumns::default());
    // If nobody has a key, `unnest` fills up the empty columns.
    let has_keys = created.iter().any(|order| order.claim.is_some());
    for CreatedOrder { order, event, claim } in created {
        orders.push(order);
        lines.push_lines_of(order);
        events.push(event);
        if has_keys {
            claims.push(*claim);
        }
    }
    // The statement writes PENDING, version 1, and the same time twice.
    let OrderColumns { ids, customers, dates, totals, created: at, statuses: _, versions: _, updated: _ } =
        orders;
    let ClaimColumns { callers, keys, request_hashes, context_hashes, statuses, headers, bodies } = claims;
    let EventColumns { ids: event_ids, types, payloads } = events;
    let LineColumns { ids: line_ids, orders: line_orders, positions, products, quantities, prices } = lines;
    sqlx::query_file_scalar!(
        "src/db/create.sql",
        &ids,
        &customers,
        &dates,
        &totals,
        &at,
        &callers as _,
        &keys as _,
        &request_hashes as _,
        &context_hashes as _,
        &statuses as _,
        &headers as _,
        &bodies as _,
        &event_ids,
        &types as _,
        &payloads as _,
        &line_ids,
        &line_orders,
        &positions,
        &products,
        &quantities,
        &prices,
    )
    .fetch_all(db)
    .await?
    .into_iter()
    .map(|id| id.and_then(|id| OrderId::try_from(id).ok()).ok_or_else(|| impossible("orders.id")))
    .collect()
}

/// Writes orders together with the one response to their request, or nothing if the key of the request is taken. Returns whether
/// they were written.
pub async fn insert_orders_together(
    db: &mut PgConnection,
    created: &[CreatedOrder<'_>],
    claim: Option<(&IdempotencyClaim, &StoredResponse)>,
) -> Result<bool, sqlx::Error> {
    let mut transaction = db.begin().await?;
    if let Some(claim) = claim
        && store_responses(&mut transaction, &[claim]).await?.is_empty()
    {
        transaction.rollback().await?;
        return Ok(false);
    }
    insert_orders(&mut transaction, created).await?;
    transaction.commit().await?;
    Ok(true)
}
