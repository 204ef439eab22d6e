//! Creating orders: many in one statement, with their lines, events and stored responses.

use std::collections::HashMap;

use shared::domain::{
    event::Envelope,
    order::{Order, OrderId},
};
use sqlx::{Connection as _, PgConnection};

use super::{
    columns::{EventColumns, LineColumns, OrderColumns},
    decode::decode_order_id,
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

/// Why a new order was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCreated {
    /// The key is taken.
    KeyTaken,
    /// This order of the customer has the reference. The key was left alone.
    ReferenceTaken(OrderId),
    /// The tenant is being removed, or is gone.
    TenantRemoved,
}

/// The constraint that refuses a reference which another transaction has just given to another order.
pub const REFERENCE_UNIQUE: &str = "orders_by_reference";

/// Writes orders, each with all that belongs to it, in one statement that commits by itself, and returns those that were not written.
/// No two of `created` can have the same key. It fails on [`REFERENCE_UNIQUE`] if another transaction commits an order
/// with one of the references meanwhile, or if two of `created` have the same one; then the next attempt finds that order.
///
/// Keys are claimed in their order and references are written in theirs, so that two batches never wait for each other in a circle.
pub async fn insert_orders(
    db: &mut PgConnection,
    created: &[CreatedOrder<'_>],
) -> Result<HashMap<OrderId, NotCreated>, sqlx::Error> {
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
    let OrderColumns {
        ids,
        tenants,
        customers,
        dates,
        totals,
        created: at,
        references,
        metadata,
        statuses: _,
        versions: _,
        updated: _,
    } = orders;
    let ClaimColumns { callers, keys, request_hashes, context_hashes, statuses, headers, bodies } = claims;
    let EventColumns { ids: event_ids, types, payloads } = events;
    let LineColumns { ids: line_ids, orders: line_orders, positions, products, quantities, prices } = lines;
    sqlx::query_file!(
        "src/db/create.sql",
        &ids,
        &tenants,
        &customers,
        &dates,
        &totals,
        &at,
        &references as _,
        &metadata,
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
    .map(|row| {
        let reason = match row.taken_by {
            _ if !row.is_open => NotCreated::TenantRemoved,
            Some(other) => NotCreated::ReferenceTaken(decode_order_id(other)?),
            None => NotCreated::KeyTaken,
        };
        Ok((decode_order_id(row.id)?, reason))
    })
    .collect()
}

/// What became of orders that are written together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TogetherOutcome {
    /// All were written.
    Written,
    /// None was, because the key of the request is taken.
    KeyTaken,
    /// None was, because other orders have the references of these: their places in the request, and the other orders.
    ReferencesTaken(Vec<(usize, OrderId)>),
    /// None was, because the tenant is being removed, or is gone.
    TenantRemoved,
}

/// Writes orders together with the one response to their request, or nothing.
pub async fn insert_orders_together(
    db: &mut PgConnection,
    created: &[CreatedOrder<'_>],
    claim: Option<(&IdempotencyClaim, &StoredResponse)>,
) -> Result<TogetherOutcome, sqlx::Error> {
    let mut transaction = db.begin().await?;
    if let Some(claim) = claim
        && store_responses(&mut transaction, &[claim]).await?.is_empty()
    {
        transaction.rollback().await?;
        return Ok(TogetherOutcome::KeyTaken);
    }
    let refused = insert_orders(&mut transaction, created).await?;
    if refused.values().any(|reason| *reason == NotCreated::TenantRemoved) {
        transaction.rollback().await?;
        return Ok(TogetherOutcome::TenantRemoved);
    }
    let taken: Vec<(usize, OrderId)> = (0..)
        .zip(created)
        .filter_map(|(place, created)| match refused.get(&created.order.id) {
            Some(NotCreated::ReferenceTaken(other)) => Some((place, *other)),
            _ => None,
        })
        .collect();
    if !taken.is_empty() {
        transaction.rollback().await?;
        return Ok(TogetherOutcome::ReferencesTaken(taken));
    }
    transaction.commit().await?;
    Ok(TogetherOutcome::Written)
}
