//! What a change does to an order, or why it may not: pure, so that it can be decided again after a lost race.

use serde::Serialize;
use shared::order::{LineId, Money, Order, OrderLine, OrderStatus, ProductId};
use time::{Date, OffsetDateTime};

use super::preconditions::Preconditions;
use crate::error::{ApiError, Code};

/// A line as a client orders it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct LineInput {
    /// What is ordered.
    pub(super) product_id: ProductId,
    /// How many.
    pub(super) quantity: i32,
    /// The price of one.
    pub(super) unit_price: Money,
}

impl LineInput {
    /// The line with its id.
    pub(super) fn with_id(self, id: LineId) -> OrderLine {
        OrderLine { id, product_id: self.product_id, quantity: self.quantity, unit_price: self.unit_price }
    }
}

/// What a client wants changed; only what is named changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Update {
    /// The next status.
    pub(super) status: Option<OrderStatus>,
    /// Another date.
    #[serde(serialize_with = "date")]
    pub(super) order_date: Option<Date>,
    /// Other lines, all of them.
    pub(super) lines: Option<Vec<LineInput>>,
}

#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
fn date<S: serde::Serializer>(date: &Option<Date>, serializer: S) -> Result<S::Ok, S::Error> {
    date.map(shared::timestamp::format_date).serialize(serializer)
}

/// Why a change is refused, from the state of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is no such order that the caller may see.
    NotFound,
    /// The precondition names another version.
    VersionMismatch {
        /// The order's version.
        current: i64,
    },
    /// The status table has no such move.
    IllegalTransition {
        /// Where the order stands.
        from: OrderStatus,
        /// Where it should go.
        to: OrderStatus,
    },
    /// Date and lines are fixed once the order has left `PENDING`.
    NotEditable {
        /// Where the order stands.
        status: OrderStatus,
    },
}

/// Whether the preconditions hold for the order as it is.
pub(super) fn check(current: &Order, preconditions: &Preconditions) -> Result<(), Refusal> {
    if preconditions.allow_change_of(current.version) {
        Ok(())
    } else {
        Err(Refusal::VersionMismatch { current: current.version })
    }
}

/// The next version of the order, or `None` where the update changes nothing.
///
/// `spare` holds an id for each line of the update. A line keeps its id where its product stays.
pub(super) fn update(
    current: &Order,
    update: &Update,
    now: OffsetDateTime,
    spare: &[LineId],
) -> Result<Option<Order>, Refusal> {
    let mut next = current.clone();
    if let Some(to) = update.status.filter(|to| *to != current.status) {
        if !current.status.may_become(to) {
            return Err(Refusal::IllegalTransition { from: current.status, to });
        }
        next.status = to;
    }
    if let Some(order_date) = update.order_date {
        next.order_date = order_date;
    }
    if let Some(lines) = &update.lines
        && !orders_the_same(&current.lines, lines)
    {
        next.lines = relined(&current.lines, lines, spare);
        next.total_amount = next.lines.iter().map(OrderLine::total).sum();
    }
    let edited = next.order_date != current.order_date || next.lines != current.lines;
    if edited && current.status != OrderStatus::Pending {
        return Err(Refusal::NotEditable { status: current.status });
    }
    if !edited && next.status == current.status {
        return Ok(None);
    }
    next.version += 1;
    // Clocks of replicas differ a little; time never runs backwards within an order.
    next.updated_at = now.max(current.updated_at);
    Ok(Some(next))
}

fn orders_the_same(current: &[OrderLine], wanted: &[LineInput]) -> bool {
    current.len() == wanted.len()
        && current.iter().zip(wanted).all(|(line, wanted)| line.orders_the_same(&wanted.with_id(line.id)))
}

fn relined(current: &[OrderLine], wanted: &[LineInput], spare: &[LineId]) -> Vec<OrderLine> {
    let mut left: Vec<&OrderLine> = current.iter().collect();
    wanted
        .iter()
        .zip(spare)
        .map(|(wanted, spare)| {
            let same = left
                .iter()
                .position(|line| line.orders_the_same(&wanted.with_id(line.id)))
                .or_else(|| left.iter().position(|line| line.product_id == wanted.product_id));
            wanted.with_id(same.map_or(*spare, |index| left.remove(index).id))
        })
        .collect()
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotFound => Self::not_found(),
            Refusal::VersionMismatch { current } => {
                let detail =
                    format!("the order is at version {current}, which the precondition does not allow");
                Self::new(Code::VersionMismatch, detail).with_fact("current_version", current)
            }
            Refusal::IllegalTransition { from, to } => {
                let allowed: Vec<&str> = from.moves().iter().map(|status| status.as_str()).collect();
                Self::new(Code::IllegalTransition, format!("an order cannot go from {from} to {to}"))
                    .with_fact("from", from.as_str())
                    .with_fact("to", to.as_str())
                    .with_fact("allowed", allowed)
            }
            Refusal::NotEditable { status } => {
                let detail =
                    format!("order_date and lines can change while the order is PENDING; it is {status}");
                Self::new(Code::OrderNotEditable, detail).with_fact("order_status", status.as_str())
            }
        }
    }
}
