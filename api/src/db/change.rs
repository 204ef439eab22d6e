//! Changing and deleting orders: many in one statement, each only if it is still at the version at which it was read.

use std::collections::HashMap;

use shared::domain::{
    event::Envelope,
    order::{Order, OrderId, OrderKey},
};
use sqlx::PgConnection;

use super::{
    columns::{EventColumns, LineColumns, OrderColumns},
    decode::decode_order_id,
    idempotency::{ClaimColumns, IdempotencyClaim, StoredResponse},
};

/// One order to change.
#[derive(Clone, Copy, Debug)]
pub struct ChangedOrder<'a> {
    /// The order as it was read.
    pub before: &'a Order,
    /// The order one version later; `None` deletes it.
    pub after: Option<&'a Order>,
    /// The event of the change.
    pub event: &'a Envelope,
    /// The key of the request, and the response to store under it.
    pub claim: Option<(&'a IdempotencyClaim, &'a StoredResponse)>,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// It was written, with its event and its stored response.
    Written,
    /// The order is at another version by now, or gone, or another transaction is changing it at this moment.
    Raced,
    /// The key is taken.
    KeyTaken,
    /// This order of the customer has the new reference. The key was left alone.
    ReferenceTaken(OrderId),
    /// The tenant is being removed, or is gone.
    TenantRemoved,
}

/// Writes changes, each with all that belongs to it, in one statement, and returns what became of each.
/// No two of `changes` can be of the same order or have the same key. It fails on [`super::REFERENCE_UNIQUE`] if another
/// transaction gives one of the new references to another order meanwhile, or if two of `changes` have the same one; then the
/// next attempt finds that order.
///
/// The version is compared and the row locked first; then the keys are claimed in their order; the event's place in
/// the log is drawn last, while the lock is held. Rows that another transaction holds are skipped, never waited for, so a
/// batch is not held up by one of its rows and batches do not wait for each other in a circle.
pub async fn change_orders(
    db: &mut PgConnection,
    changes: &[ChangedOrder<'_>],
) -> Result<HashMap<OrderId, ChangeOutcome>, sqlx::Error> {
    let (mut orders, mut lines) = (OrderColumns::default(), LineColumns::default());
    let (mut events, mut claims) = (EventColumns::default(), ClaimColumns::default());
    let (mut read_versions, mut deletes) = (Vec::new(), Vec::new());
    let (mut with_new_lines, mut kept_lines) = (Vec::new(), Vec::new());
    for ChangedOrder { before, after, event, claim } in changes {
        let order = after.unwrap_or(before);
        orders.push(order);
        read_versions.push(before.version);
        deletes.push(after.is_none());
        events.push(event);
        claims.push(*claim);
        if order.lines != before.lines {
            with_new_lines.push(order.id.get());
            kept_lines.extend(order.lines.iter().map(|line| line.id.get()));
            lines.push_lines_of(order);
        }
    }
    // An order keeps its owner and the time of its creation; the next version is that which was read, plus one.
    let OrderColumns {
        ids,
        tenants,
        dates,
        statuses,
        totals,
        updated,
        references,
        metadata,
        customers: _,
        versions: _,
        created: _,
    } = orders;
    let ClaimColumns {
        callers,
        keys,
        request_hashes,
        context_hashes,
        statuses: response_statuses,
        headers,
        bodies,
    } = claims;
    let EventColumns { ids: event_ids, types, payloads } = events;
    let LineColumns { ids: line_ids, orders: line_orders, positions, products, quantities, prices } = lines;
    sqlx::query_file!(
        "src/db/change.sql",
        &ids,
        &tenants,
        &read_versions,
        &deletes,
        &dates,
        &statuses as _,
        &totals,
        &updated,
        &references as _,
        &metadata,
        &callers as _,
        &keys as _,
        &request_hashes as _,
        &context_hashes as _,
        &response_statuses as _,
        &headers as _,
        &bodies as _,
        &event_ids,
        &types as _,
        &payloads as _,
        &with_new_lines,
        &kept_lines,
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
        let outcome = match (row.taken_by.map(decode_order_id).transpose()?, row.locked, row.written) {
            _ if !row.is_open => ChangeOutcome::TenantRemoved,
            (Some(other), ..) => ChangeOutcome::ReferenceTaken(other),
            (None, _, true) => ChangeOutcome::Written,
            (None, true, false) => ChangeOutcome::KeyTaken,
            (None, false, false) => ChangeOutcome::Raced,
        };
        Ok((decode_order_id(row.id)?, outcome))
    })
    .collect()
}

/// Waits for an order's row and locks it until the transaction ends. Returns whether there is such an order of the tenant.
///
/// A change that lost several races waits here, and is then the next.
pub async fn lock_order(db: &mut PgConnection, order: OrderKey) -> Result<bool, sqlx::Error> {
    let found = sqlx::query_scalar!(
        "SELECT id FROM orders WHERE tenant_id = $1 AND id = $2 FOR UPDATE",
        order.tenant.get(),
        order.id.get()
    );
    Ok(found.fetch_optional(db).await?.is_some())
}
