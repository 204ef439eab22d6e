//! The columns of rows to write, one array each, as `unnest` takes them.
//!
//! A new field does not compile until it has a column here, and until each statement uses that column or leaves it out by name.

use shared::domain::{
    event::Envelope,
    order::{Order, OrderId, OrderKey, OrderLine},
};
use sqlx::types::Decimal;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

pub(super) fn raw_ids(ids: &[OrderId]) -> Vec<i64> {
    ids.iter().map(|id| id.get()).collect()
}

/// The tenants and the ids of these orders.
pub(super) fn raw_keys(orders: &[OrderKey]) -> (Vec<i32>, Vec<i64>) {
    orders.iter().map(|order| (order.tenant.get(), order.id.get())).unzip()
}

/// Rows of `orders`.
#[derive(Default)]
pub(super) struct OrderColumns<'a> {
    pub(super) ids: Vec<i64>,
    pub(super) tenants: Vec<i32>,
    pub(super) customers: Vec<i64>,
    pub(super) dates: Vec<Date>,
    pub(super) statuses: Vec<&'static str>,
    pub(super) totals: Vec<Decimal>,
    pub(super) versions: Vec<i64>,
    pub(super) created: Vec<OffsetDateTime>,
    pub(super) updated: Vec<OffsetDateTime>,
    pub(super) references: Vec<Option<&'a str>>,
    pub(super) metadata: Vec<String>,
}

impl<'a> OrderColumns<'a> {
    pub(super) fn push(&mut self, order: &'a Order) {
        // Lines are rows of their own: `LineColumns`.
        let Order {
            id,
            tenant_id,
            customer_id,
            order_date,
            status,
            total_amount,
            version,
            created_at,
            updated_at,
            lines: _,
            reference,
            metadata,
        } = order;
        self.ids.push(id.get());
        self.tenants.push(tenant_id.get());
        self.customers.push(customer_id.get());
        self.dates.push(*order_date);
        self.statuses.push(status.as_str());
        self.totals.push(total_amount.amount());
        self.versions.push(*version);
        self.created.push(*created_at);
        self.updated.push(*updated_at);
        self.references.push(reference.as_deref());
        self.metadata.push(metadata.to_json());
    }
}

/// Rows of `order_lines`. Each has the tenant of its order.
#[derive(Default)]
pub(super) struct LineColumns {
    pub(super) ids: Vec<i64>,
    pub(super) orders: Vec<i64>,
    pub(super) positions: Vec<i16>,
    pub(super) products: Vec<i64>,
    pub(super) quantities: Vec<i32>,
    pub(super) prices: Vec<Decimal>,
}

impl LineColumns {
    /// Adds all lines of an order.
    pub(super) fn push_lines_of(&mut self, order: &Order) {
        for (position, line) in (0_i16..).zip(&order.lines) {
            let OrderLine { id, product_id, quantity, unit_price } = line;
            self.ids.push(id.get());
            self.orders.push(order.id.get());
            self.positions.push(position);
            self.products.push(product_id.get());
            self.quantities.push(*quantity);
            self.prices.push(unit_price.amount());
        }
    }
}

/// Rows of `outbox`. The order's id, the tenant and the version stand in its own columns.
#[derive(Default)]
pub(super) struct EventColumns<'a> {
    pub(super) ids: Vec<Uuid>,
    pub(super) types: Vec<&'a str>,
    pub(super) payloads: Vec<&'a str>,
}

impl<'a> EventColumns<'a> {
    pub(super) fn push(&mut self, event: &'a Envelope) {
        let Envelope { id, event_type, key: _, sequence: _, position: _, body } = event;
        self.ids.push(*id);
        self.types.push(event_type);
        self.payloads.push(body);
    }
}
