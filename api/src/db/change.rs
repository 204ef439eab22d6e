//! Changing and deleting orders: many in one statement, each only if it still is at the version it was read at.

use std::collections::HashMap;

use shared::domain::{
    event::Envelope,
    order::{Order, OrderId},
};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{IdempotencyClaim, LineColumns, StoredResponse, answers::ClaimColumns, impossible};

/// One order to change.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The order as it was read.
    pub before: &'a Order,
    /// The order as it shall be, one version later; `None` deletes it.
    pub after: Option<&'a Order>,
    /// What announces it.
    pub event: &'a Envelope,
    /// The key of the request, and the answer to keep under it.
    pub claim: Option<(&'a IdempotencyClaim, &'a StoredResponse)>,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// It was written, with its event and its kept answer.
    Encoded,
    /// The order is at another version by now, or gone, or somebody else is changing it at this moment.
    Raced,
    /// The key is taken.
    KeyTaken,
}

/// Writes changes, each with all that belongs to it, in one statement, and says what became of each.
/// No two of `changes` may be of the same order or have the same key. `now` is the age of the kept answers.
///
/// The version is compared and the row locked first; then the keys are claimed in their order; the event's place in
/// the log is drawn last, while the lock is held. Rows that somebody else holds are skipped, never waited for, so a
/// batch is not held up by one of its rows and batches do not wait for each other in a circle.
pub async fn write(
    db: &mut PgConnection,
    changes: &[Change<'_>],
    now: OffsetDateTime,
) -> Result<HashMap<OrderId, ChangeOutcome>, sqlx::Error> {
    let (mut ids, mut versions, mut deletes, mut dates) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut statuses, mut totals, mut times) = (Vec::new(), Vec::new(), Vec::new());
    let (mut event_ids, mut types, mut payloads) = (Vec::new(), Vec::new(), Vec::new());
    let (mut relined, mut kept_lines) = (Vec::new(), Vec::new());
    let (mut lines, mut claims) = (LineColumns::default(), ClaimColumns::default());
    for Change { before, after, event, claim } in changes {
        let row = after.unwrap_or(before);
        ids.push(before.id.get());
        versions.push(before.version);
        deletes.push(after.is_none());
        dates.push(row.order_date);
        statuses.push(row.status.as_str());
        totals.push(row.total_amount.amount());
        times.push(row.updated_at);
        event_ids.push(event.id);
        types.push(event.event_type.as_str());
        payloads.push(event.body.as_str());
        claims.add(*claim);
        if row.lines != before.lines {
            relined.push(row.id.get());
            kept_lines.extend(row.lines.iter().map(|line| line.id.get()));
            lines.add(row);
        }
    }
    sqlx::query_file!(
        "src/db/change.sql",
        &ids,
        &versions,
        &deletes,
        &dates,
        &statuses as _,
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
        &relined,
        &kept_lines,
        &lines.ids,
        &lines.orders,
        &lines.positions,
        &lines.products,
        &lines.quantities,
        &lines.prices,
        now,
        &claims.contexts as _,
    )
    .fetch_all(db)
    .await?
    .into_iter()
    .map(|row| {
        let outcome = match (row.locked, row.written) {
            (_, true) => ChangeOutcome::Encoded,
            (true, false) => ChangeOutcome::KeyTaken,
            (false, false) => ChangeOutcome::Raced,
        };
        Ok((OrderId::try_from(row.id).map_err(|_| impossible("orders.id"))?, outcome))
    })
    .collect()
}

/// Waits for an order's row and locks it until the transaction ends. `false` where there is no such order.
///
/// For a change that lost several races: whoever waits here is next.
pub async fn lock(db: &mut PgConnection, id: OrderId) -> Result<bool, sqlx::Error> {
    let found = sqlx::query_scalar!("SELECT id FROM orders WHERE id = $1 FOR UPDATE", id.get())
        .fetch_optional(db)
        .await?;
    Ok(found.is_some())
}
