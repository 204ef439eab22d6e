//! Events as the API writes them.

use shared::domain::clock::Clock;
use shared::domain::event::{Event, Happened};
use shared::domain::order::{CustomerId, LineId, Money, Order, OrderId, OrderLine, OrderStatus, ProductId};
use time::OffsetDateTime;
use uuid::Uuid;

/// Any trace: events carry one.
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// The creation of a two-line order, now.
pub fn created(id: i64) -> anyhow::Result<Event> {
    let now = Clock::System.now();
    let customer = CustomerId::try_from(1 + id % crate::seed::CUSTOMERS)?;
    let line = |number, product, quantity, price: &str| {
        anyhow::Ok(OrderLine {
            id: LineId::try_from(number)?,
            product_id: ProductId::try_from(product)?,
            quantity,
            unit_price: price.parse::<Money>()?,
        })
    };
    let order = Order {
        id: OrderId::try_from(id)?,
        customer_id: customer,
        order_date: now.date(),
        status: OrderStatus::Pending,
        total_amount: "66.00".parse()?,
        version: 1,
        created_at: now,
        updated_at: now,
        lines: vec![line(2 * id - 1, 1001, 2, "25.50")?, line(2 * id, 1002, 1, "15.00")?],
    };
    Ok(Event::created(order, happened(now, customer)))
}

/// The same with a nil event id, for SQL to fill in.
pub fn template(id: i64) -> anyhow::Result<Event> {
    let mut event = created(id)?;
    event.id = Uuid::nil();
    Ok(event)
}

/// The confirmation of the same order.
pub fn updated(id: i64) -> anyhow::Result<Event> {
    let before = created(id)?.data.order.into_value();
    let after = Order { status: OrderStatus::Confirmed, version: 2, ..before.clone() };
    let happened = happened(after.updated_at, after.customer_id);
    Ok(Event::updated(&before, after, happened))
}

fn happened(time: OffsetDateTime, performed_by: CustomerId) -> Happened {
    Happened { time, performed_by, traceparent: Some(TRACE.to_owned()) }
}
