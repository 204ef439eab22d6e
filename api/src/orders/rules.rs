//! What a change does to an order, or why it may not: pure, so that it can be decided again after a lost race.

use serde::Serialize;
use shared::domain::order::{LineId, MAX_VERSION, Money, Order, OrderLine, OrderStatus, ProductId};
use time::{Date, OffsetDateTime};

use crate::http::{
    error::{ApiError, Code},
    orders::conditional::Preconditions,
};

/// A line as a client orders it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LineInput {
    /// What is ordered.
    pub(crate) product_id: ProductId,
    /// How many.
    pub(crate) quantity: i32,
    /// The price of one.
    pub(crate) unit_price: Money,
}

impl LineInput {
    /// The line with its id.
    pub(crate) fn with_id(self, id: LineId) -> OrderLine {
        OrderLine { id, product_id: self.product_id, quantity: self.quantity, unit_price: self.unit_price }
    }
}

/// What a client wants changed; only what is named changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Update {
    /// The next status.
    pub(crate) status: Option<OrderStatus>,
    /// Another date.
    #[serde(serialize_with = "date")]
    pub(crate) order_date: Option<Date>,
    /// Other lines, all of them.
    pub(crate) lines: Option<Vec<LineInput>>,
}

#[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
fn date<S: serde::Serializer>(date: &Option<Date>, serializer: S) -> Result<S::Ok, S::Error> {
    match date {
        Some(date) => shared::domain::timestamp::date::serialize(date, serializer),
        None => serializer.serialize_none(),
    }
}

/// Why a change is refused, from the state of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleViolation {
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
    /// The order has had as many versions as there are numbers for.
    NoNextVersion,
    /// Date and lines are fixed once the order has left `PENDING`.
    NotEditable {
        /// Where the order stands.
        status: OrderStatus,
    },
}

/// Whether the preconditions hold for the order as it is.
pub(crate) fn check(current: &Order, preconditions: &Preconditions) -> Result<(), RuleViolation> {
    if preconditions.allow_change_of(current.version) {
        Ok(())
    } else {
        Err(RuleViolation::VersionMismatch { current: current.version })
    }
}

/// The next version of the order, or `None` where the update changes nothing.
///
/// `spare` holds an id for each line of the update. A line keeps its id where its product stays.
pub(crate) fn update(
    current: &Order,
    update: &Update,
    now: OffsetDateTime,
    spare: &[LineId],
) -> Result<Option<Order>, RuleViolation> {
    let mut next = current.clone();
    if let Some(to) = update.status.filter(|to| *to != current.status) {
        if !current.status.may_become(to) {
            return Err(RuleViolation::IllegalTransition { from: current.status, to });
        }
        next.status = to;
    }
    if let Some(order_date) = update.order_date {
        next.order_date = order_date;
    }
    if let Some(lines) = &update.lines
        && !orders_the_same(&current.lines, lines)
    {
        next.lines = replace_lines(&current.lines, lines, spare);
        next.total_amount = next.lines.iter().map(OrderLine::total).sum();
    }
    let edited = next.order_date != current.order_date || next.lines != current.lines;
    if edited && current.status != OrderStatus::Pending {
        return Err(RuleViolation::NotEditable { status: current.status });
    }
    if !edited && next.status == current.status {
        return Ok(None);
    }
    next.version = next_version(current)?;
    // Clocks of replicas differ a little; time never runs backwards within an order.
    next.updated_at = now.max(current.updated_at);
    Ok(Some(next))
}

/// The version after the order's, for a change or the deletion.
pub(crate) fn next_version(current: &Order) -> Result<i64, RuleViolation> {
    if current.version < MAX_VERSION { Ok(current.version + 1) } else { Err(RuleViolation::NoNextVersion) }
}

fn orders_the_same(current: &[OrderLine], wanted: &[LineInput]) -> bool {
    current.len() == wanted.len()
        && current.iter().zip(wanted).all(|(line, wanted)| line.orders_the_same(&wanted.with_id(line.id)))
}

fn replace_lines(current: &[OrderLine], wanted: &[LineInput], spare: &[LineId]) -> Vec<OrderLine> {
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

impl From<RuleViolation> for ApiError {
    fn from(refusal: RuleViolation) -> Self {
        match refusal {
            RuleViolation::NotFound => Self::not_found(),
            RuleViolation::VersionMismatch { current } => {
                let detail =
                    format!("the order is at version {current}, which the precondition does not allow");
                Self::new(Code::VersionMismatch, detail).with_fact("current_version", current)
            }
            RuleViolation::IllegalTransition { from, to } => {
                let allowed: Vec<&str> = from.moves().iter().map(|status| status.as_str()).collect();
                Self::new(Code::IllegalTransition, format!("an order cannot go from {from} to {to}"))
                    .with_fact("from", from.as_str())
                    .with_fact("to", to.as_str())
                    .with_fact("allowed", allowed)
            }
            RuleViolation::NoNextVersion => {
                let detail = format!("the order is at version {MAX_VERSION} or beyond, the last one");
                Self::new(Code::OrderNotEditable, detail)
            }
            RuleViolation::NotEditable { status } => {
                let detail =
                    format!("order_date and lines can change while the order is PENDING; it is {status}");
                Self::new(Code::OrderNotEditable, detail).with_fact("order_status", status.as_str())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::{date, datetime};

    use super::*;

    fn line(id: i64, product: i64, quantity: i32) -> OrderLine {
        let unit_price = "2.50".parse().unwrap();
        OrderLine {
            id: id.try_into().unwrap(),
            product_id: product.try_into().unwrap(),
            quantity,
            unit_price,
        }
    }

    fn order(status: OrderStatus) -> Order {
        Order {
            id: 1.try_into().unwrap(),
            customer_id: 1.try_into().unwrap(),
            order_date: date!(2025 - 01 - 20),
            status,
            total_amount: "7.50".parse().unwrap(),
            version: 4,
            created_at: datetime!(2025-01-20 10:00 UTC),
            updated_at: datetime!(2025-01-20 11:00 UTC),
            lines: vec![line(1, 10, 1), line(2, 20, 2)],
        }
    }

    fn input(line: &OrderLine) -> LineInput {
        LineInput { product_id: line.product_id, quantity: line.quantity, unit_price: line.unit_price }
    }

    fn relined_to(lines: &[OrderLine]) -> Vec<i64> {
        let wanted = Update { lines: Some(lines.iter().map(input).collect()), ..Update::default() };
        let spare: Vec<LineId> = (101..).take(lines.len()).map(|id| id.try_into().unwrap()).collect();
        let next = update(&order(OrderStatus::Pending), &wanted, datetime!(2025-01-20 12:00 UTC), &spare);
        next.unwrap().map_or_else(Vec::new, |next| next.lines.iter().map(|line| line.id.get()).collect())
    }

    #[test]
    fn a_line_keeps_its_id_where_its_product_stays() {
        assert_eq!(relined_to(&[line(9, 10, 1), line(9, 20, 2)]), [0; 0], "nothing changes");
        assert_eq!(
            relined_to(&[line(9, 20, 2), line(9, 10, 1)]),
            [2, 1],
            "another order of lines is a change"
        );
        assert_eq!(relined_to(&[line(9, 20, 9), line(9, 30, 1)]), [2, 102]);
        assert_eq!(relined_to(&[line(9, 10, 3), line(9, 10, 4)]), [1, 102], "each id once");
        assert_eq!(relined_to(&[line(9, 20, 2)]), [2]);
    }

    #[test]
    fn time_never_runs_backwards_within_an_order() {
        let wanted = Update { status: Some(OrderStatus::Shipped), ..Update::default() };
        let early = datetime!(2025-01-20 10:30 UTC);
        let next = update(&order(OrderStatus::Pending), &wanted, early, &[]).unwrap().unwrap();
        assert_eq!(next.updated_at, datetime!(2025-01-20 11:00 UTC));
        assert_eq!((next.version, next.status), (5, OrderStatus::Shipped));
    }

    #[test]
    fn an_illegal_move_comes_before_what_is_not_editable() {
        let wanted = Update {
            status: Some(OrderStatus::Pending),
            order_date: Some(date!(2025 - 01 - 01)),
            ..Update::default()
        };
        let now = datetime!(2025-01-20 12:00 UTC);
        let refused = update(&order(OrderStatus::Shipped), &wanted, now, &[]);
        let (from, to) = (OrderStatus::Shipped, OrderStatus::Pending);
        assert_eq!(refused, Err(RuleViolation::IllegalTransition { from, to }));
        let wanted = Update { status: None, ..wanted };
        let refused = update(&order(OrderStatus::Shipped), &wanted, now, &[]);
        assert_eq!(refused, Err(RuleViolation::NotEditable { status: OrderStatus::Shipped }));
    }
}
