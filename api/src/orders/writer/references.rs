//! References: one order of a customer has each.
//!
//! PostgreSQL decides who gets one. Each statement looks first who has the references that it gives, and leaves those requests out;
//! what it cannot see is an order that another transaction is just writing. Then the unique index refuses the whole statement,
//! once that transaction has committed, so the next attempt sees the order.

use std::collections::HashMap;

use shared::domain::order::{CustomerKey, OrderId};

/// How often a statement is tried that loses a race for a reference each time.
pub(super) const ATTEMPTS: usize = 3;

/// Who asks for a reference, and for which.
pub(super) type Wanted = (CustomerKey, String);

/// The orders that have the references a batch has asked for.
///
/// Of the requests of a batch that ask for the same reference only one is written. What becomes of it answers the others, so that
/// a thousand of them at once cost no more than one.
#[derive(Default)]
pub(super) struct Holders(HashMap<Wanted, OrderId>);

impl Holders {
    pub(super) fn insert(&mut self, wanted: Wanted, holder: OrderId) {
        self.0.insert(wanted, holder);
    }

    pub(super) fn extend(&mut self, others: Self) {
        self.0.extend(others.0);
    }

    /// Separates the requests whose reference is taken, with the order that has it, from those about which nothing is known,
    /// because the request that was written in their place failed.
    pub(super) fn divide<J>(&self, rivals: Vec<(J, Wanted)>) -> (Vec<(J, OrderId)>, Vec<J>) {
        let (mut refused, mut unknown) = (Vec::new(), Vec::new());
        for (job, wanted) in rivals {
            match self.0.get(&wanted) {
                Some(holder) => refused.push((job, *holder)),
                None => unknown.push(job),
            }
        }
        (refused, unknown)
    }
}
