//! The only SQL of orders. Functions take a connection, and say what happened.

mod answers;
mod change;
mod create;
mod deletions;
mod history;
mod ids;
mod list;
mod read;

use shared::domain::order::{CustomerId, Money, Order, OrderId};
use sqlx::types::Decimal;

pub use answers::{Found, IdempotencyClaim, StoredResponse, expire, find, keep};
pub use change::{Change, ChangeOutcome, lock, write as change};
pub use create::{NewOrder, write as create};
pub use deletions::{Deletion, deletions};
pub use history::{Entry, HistoryPage, history};
pub use ids::{Ids, take_ids};
pub use list::{COUNTED, Filter, LOOKED_AT, Page, Position, Start, count_query, list, page_query};
pub use read::orders;

/// A column held what this program never writes.
#[derive(Debug, thiserror::Error)]
#[error("the column {0} holds an impossible value")]
struct Impossible(&'static str);

fn impossible(column: &'static str) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(Impossible(column)))
}

fn customer(id: i64) -> Result<CustomerId, sqlx::Error> {
    id.try_into().map_err(|_| impossible("customer_id"))
}

fn money(amount: Decimal, column: &'static str) -> Result<Money, sqlx::Error> {
    Money::new(amount).map_err(|_| impossible(column))
}

fn raw_ids(ids: &[OrderId]) -> Vec<i64> {
    ids.iter().map(|id| id.get()).collect()
}

/// The columns of many lines, one array each, as `unnest` takes them.
#[derive(Default)]
struct LineColumns {
    ids: Vec<i64>,
    orders: Vec<i64>,
    positions: Vec<i16>,
    products: Vec<i64>,
    quantities: Vec<i32>,
    prices: Vec<Decimal>,
}

impl LineColumns {
    fn add(&mut self, order: &Order) {
        for (position, line) in (0_i16..).zip(&order.lines) {
            self.ids.push(line.id.get());
            self.orders.push(order.id.get());
            self.positions.push(position);
            self.products.push(line.product_id.get());
            self.quantities.push(line.quantity);
            self.prices.push(line.unit_price.amount());
        }
    }
}
