//! What a request does to an order, or why it cannot: pure, so that it can be decided again after a lost race.

use shared::domain::order::{LineId, MAX_VERSION, Order, OrderId, OrderKey, OrderLine, OrderStatus};
use time::OffsetDateTime;

use super::{
    input::{LineInput, NewOrder, OrderUpdate},
    preconditions::Preconditions,
};

/// Why a change is refused because of the state of the order. The text is the detail that clients see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleViolation {
    /// There is no such order that the caller can see.
    #[error("there is no such resource")]
    NotFound,
    /// The precondition names another version.
    #[error("the order is at version {current}, which the precondition does not allow")]
    VersionMismatch {
        /// The order's version.
        current: i64,
    },
    /// The status table has no such move.
    #[error("an order cannot go from {from} to {to}")]
    IllegalTransition {
        /// The order's status.
        from: OrderStatus,
        /// The status that was asked for.
        to: OrderStatus,
    },
    /// The order has had as many versions as there are numbers for.
    #[error("the order is at version {MAX_VERSION} or beyond, the last one")]
    NoNextVersion,
    /// Another order of the customer has the reference.
    #[error("order {order_id} has this reference already")]
    ReferenceTaken {
        /// That order.
        order_id: OrderId,
    },
    /// Other orders of their customers have the references of orders that were to be placed together.
    #[error("other orders have {} of the references already", .taken.len())]
    ReferencesTaken {
        /// Places in the request, and who has the reference of each.
        taken: Vec<(usize, OrderId)>,
    },
    /// Date and lines are fixed once the order has left `PENDING`.
    #[error("order_date and lines can change while the order is PENDING; it is {status}")]
    NotEditable {
        /// The order's status.
        status: OrderStatus,
    },
}

/// The first version of an order.
pub fn create_order(new: NewOrder, key: OrderKey, line_ids: Vec<LineId>, now: OffsetDateTime) -> Order {
    let NewOrder { customer_id, order_date, status, lines, reference, metadata } = new;
    let lines: Vec<OrderLine> = lines.into_iter().zip(line_ids).map(|(line, id)| line.with_id(id)).collect();
    Order {
        id: key.id,
        tenant_id: key.tenant,
        customer_id,
        order_date,
        status,
        total_amount: lines.iter().map(OrderLine::total).sum(),
        version: 1,
        created_at: now,
        updated_at: now,
        lines,
        reference,
        metadata,
    }
}

/// Checks that the preconditions hold for the order as it is.
pub fn check_preconditions(current: &Order, preconditions: &Preconditions) -> Result<(), RuleViolation> {
    if preconditions.allow_change_of(current.version) {
        Ok(())
    } else {
        Err(RuleViolation::VersionMismatch { current: current.version })
    }
}

/// The next version of the order, or `None` if the update changes nothing.
///
/// `line_ids` holds a new id for each line of the update. A line keeps its id if its product stays.
pub fn update_order(
    current: &Order,
    update: &OrderUpdate,
    now: OffsetDateTime,
    line_ids: &[LineId],
) -> Result<Option<Order>, RuleViolation> {
    let OrderUpdate { status, order_date, lines, reference, metadata } = update;
    let status = status.unwrap_or(current.status);
    if status != current.status && !current.status.can_become(status) {
        return Err(RuleViolation::IllegalTransition { from: current.status, to: status });
    }
    let (lines, total_amount) = match lines {
        Some(wanted) if !are_same_lines(&current.lines, wanted) => {
            let lines = replace_lines(&current.lines, wanted, line_ids);
            let total = lines.iter().map(OrderLine::total).sum();
            (lines, total)
        }
        _ => (current.lines.clone(), current.total_amount),
    };
    let mut next = Order {
        id: current.id,
        tenant_id: current.tenant_id,
        customer_id: current.customer_id,
        order_date: order_date.unwrap_or(current.order_date),
        status,
        total_amount,
        version: current.version,
        created_at: current.created_at,
        updated_at: current.updated_at,
        lines,
        reference: reference.as_ref().unwrap_or(&current.reference).clone(),
        metadata: metadata.as_ref().unwrap_or(&current.metadata).clone(),
    };
    if next == *current {
        return Ok(None);
    }
    if current.status != OrderStatus::Pending && is_edited(current, &next) {
        return Err(RuleViolation::NotEditable { status: current.status });
    }
    next.version = next_version(current)?;
    // Clocks of replicas differ a little; time never runs backwards within an order.
    next.updated_at = now.max(current.updated_at);
    Ok(Some(next))
}

/// Whether a field changes that can change only while the order is `PENDING`. Every field is named, so that a new one does not
/// compile until it is decided whether it is such a field.
fn is_edited(current: &Order, next: &Order) -> bool {
    let Order {
        order_date,
        lines,
        id: _,
        tenant_id: _,
        customer_id: _,
        status: _,
        total_amount: _,
        version: _,
        created_at: _,
        updated_at: _,
        // What a client calls an order and keeps with it is its own affair, also when the order is delivered or called off.
        reference: _,
        metadata: _,
    } = next;
    *order_date != current.order_date || *lines != current.lines
}

/// The version after the order's, for a change or the deletion.
pub fn next_version(current: &Order) -> Result<i64, RuleViolation> {
    if current.version < MAX_VERSION { Ok(current.version + 1) } else { Err(RuleViolation::NoNextVersion) }
}

/// Whether the lines order the same in the same sequence.
fn are_same_lines(current: &[OrderLine], wanted: &[LineInput]) -> bool {
    current.len() == wanted.len()
        && current.iter().zip(wanted).all(|(line, wanted)| line.orders_the_same(&wanted.with_id(line.id)))
}

fn replace_lines(current: &[OrderLine], wanted: &[LineInput], new_ids: &[LineId]) -> Vec<OrderLine> {
    let mut left: Vec<&OrderLine> = current.iter().collect();
    wanted
        .iter()
        .zip(new_ids)
        .map(|(wanted, new_id)| {
            let same = left
                .iter()
                .position(|line| line.orders_the_same(&wanted.with_id(line.id)))
                .or_else(|| left.iter().position(|line| line.product_id == wanted.product_id));
            wanted.with_id(same.map_or(*new_id, |index| left.remove(index).id))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use shared::domain::{order::Metadata, tenant::TenantId};
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
            tenant_id: TenantId::DEFAULT,
            customer_id: 1.try_into().unwrap(),
            order_date: date!(2025 - 01 - 20),
            status,
            total_amount: "7.50".parse().unwrap(),
            version: 4,
            created_at: datetime!(2025-01-20 10:00 UTC),
            updated_at: datetime!(2025-01-20 11:00 UTC),
            lines: vec![line(1, 10, 1), line(2, 20, 2)],
            reference: Some("PO-1".to_owned()),
            metadata: Metadata::default(),
        }
    }

    fn input(line: &OrderLine) -> LineInput {
        LineInput { product_id: line.product_id, quantity: line.quantity, unit_price: line.unit_price }
    }

    fn ids_after_replacing(lines: &[OrderLine]) -> Vec<i64> {
        let wanted = OrderUpdate { lines: Some(lines.iter().map(input).collect()), ..OrderUpdate::default() };
        let new_ids: Vec<LineId> = (101..).take(lines.len()).map(|id| id.try_into().unwrap()).collect();
        let next =
            update_order(&order(OrderStatus::Pending), &wanted, datetime!(2025-01-20 12:00 UTC), &new_ids);
        next.unwrap().map_or_else(Vec::new, |next| next.lines.iter().map(|line| line.id.get()).collect())
    }

    #[test]
    fn a_line_keeps_its_id_if_its_product_stays() {
        assert_eq!(ids_after_replacing(&[line(9, 10, 1), line(9, 20, 2)]), [0; 0], "nothing changes");
        assert_eq!(
            ids_after_replacing(&[line(9, 20, 2), line(9, 10, 1)]),
            [2, 1],
            "another order of lines is a change"
        );
        assert_eq!(ids_after_replacing(&[line(9, 20, 9), line(9, 30, 1)]), [2, 102]);
        assert_eq!(ids_after_replacing(&[line(9, 10, 3), line(9, 10, 4)]), [1, 102], "each id once");
        assert_eq!(ids_after_replacing(&[line(9, 20, 2)]), [2]);
    }

    #[test]
    fn time_never_runs_backwards_within_an_order() {
        let wanted = OrderUpdate { status: Some(OrderStatus::Shipped), ..OrderUpdate::default() };
        let early = datetime!(2025-01-20 10:30 UTC);
        let next = update_order(&order(OrderStatus::Pending), &wanted, early, &[]).unwrap().unwrap();
        assert_eq!(next.updated_at, datetime!(2025-01-20 11:00 UTC));
        assert_eq!((next.version, next.status), (5, OrderStatus::Shipped));
    }

    #[test]
    fn reference_and_metadata_change_in_every_status() {
        let metadata: Metadata = [("color".to_owned(), "red".to_owned())].into_iter().collect();
        for status in OrderStatus::ALL {
            let wanted = OrderUpdate {
                reference: Some(None),
                metadata: Some(metadata.clone()),
                ..OrderUpdate::default()
            };
            let current = order(status);
            let next = update_order(&current, &wanted, current.updated_at, &[]).unwrap().unwrap();
            assert_eq!((&next.reference, &next.metadata, next.version), (&None, &metadata, 5));
            assert_eq!(update_order(&next, &wanted, current.updated_at, &[]), Ok(None), "nothing changes");
        }
    }

    #[test]
    fn an_illegal_move_is_refused_before_an_edit_that_comes_too_late() {
        let wanted = OrderUpdate {
            status: Some(OrderStatus::Pending),
            order_date: Some(date!(2025 - 01 - 01)),
            ..OrderUpdate::default()
        };
        let now = datetime!(2025-01-20 12:00 UTC);
        let refused = update_order(&order(OrderStatus::Shipped), &wanted, now, &[]);
        let (from, to) = (OrderStatus::Shipped, OrderStatus::Pending);
        assert_eq!(refused, Err(RuleViolation::IllegalTransition { from, to }));
        let wanted = OrderUpdate { status: None, ..wanted };
        let refused = update_order(&order(OrderStatus::Shipped), &wanted, now, &[]);
        assert_eq!(refused, Err(RuleViolation::NotEditable { status: OrderStatus::Shipped }));
    }
}
