//! Random requests.

use proptest::prelude::*;
use shared::domain::order::OrderStatus;

/// Product, quantity, price in cents.
pub(crate) type Line = (i64, i64, i64);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Condition {
    None,
    Current,
    Stale,
}

#[derive(Clone, Debug)]
pub(crate) enum Command {
    Place {
        who: usize,
        day: u8,
        lines: Vec<Line>,
        reference: Option<u8>,
        metadata: u8,
    },
    Change {
        who: usize,
        which: usize,
        patch: bool,
        change: Change,
        condition: Condition,
    },
    Delete {
        who: usize,
        which: usize,
        condition: Condition,
    },
    Show {
        who: usize,
        which: usize,
    },
    /// The last write once more, with its key.
    Again,
}

#[derive(Clone, Debug)]
#[expect(clippy::option_option, reason = "a change leaves the reference, takes it away, or gives one")]
pub(crate) struct Change {
    pub(super) status: Option<OrderStatus>,
    pub(super) day: Option<u8>,
    pub(super) lines: Option<Vec<Line>>,
    /// The number in the reference, or that there is none.
    pub(super) reference: Option<Option<u8>>,
    /// The number of entries.
    pub(super) metadata: Option<u8>,
}

/// Who sends requests.
pub(super) struct Person {
    /// In which shop: the default tenant is 0, another one 1.
    pub(super) shop: usize,
    /// Its customer's number, counted from the first one of a sequence: both shops have the same numbers.
    pub(super) number: i64,
    pub(super) role: &'static str,
}

impl Person {
    /// Whether it acts in another tenant than its own, which is the default one.
    pub(super) fn is_visitor(&self) -> bool {
        self.role == "operator"
    }

    /// Whether all orders of the shop are its to see and to change.
    pub(super) fn is_administrator(&self) -> bool {
        self.role != "customer"
    }
}

/// Two customers and an administrator of one shop, a customer and an administrator of the other, and there an operator who is of the
/// first one and has a number that a customer of each has.
pub(super) const PEOPLE: [Person; 6] = [
    Person { shop: 0, number: 0, role: "customer" },
    Person { shop: 0, number: 1, role: "customer" },
    Person { shop: 0, number: 2, role: "admin" },
    Person { shop: 1, number: 0, role: "customer" },
    Person { shop: 1, number: 2, role: "admin" },
    Person { shop: 1, number: 0, role: "operator" },
];
/// The administrator of each shop.
pub(super) const ADMINISTRATORS: [usize; 2] = [2, 4];

pub(super) fn lines() -> impl Strategy<Value = Vec<Line>> {
    // No sum of these ends in 13 cents, as the decoy's amounts do.
    let price = (0..60_i64).prop_map(|price| 5 * price);
    proptest::collection::vec((1..4_i64, 1..4_i64, price), 1..4)
}

pub(crate) fn commands() -> impl Strategy<Value = Vec<Command>> {
    let condition = || prop_oneof![3 => Just(Condition::None), 2 => Just(Condition::Current), 1 => Just(Condition::Stale)];
    let status = proptest::option::of(proptest::sample::select(OrderStatus::ALL.to_vec()));
    // So few that they are taken often.
    let reference = || proptest::option::weighted(0.6, 0..4_u8);
    let change = (
        status,
        proptest::option::of(1..4_u8),
        proptest::option::weighted(0.3, lines()),
        proptest::option::weighted(0.3, reference()),
        proptest::option::weighted(0.3, 0..3_u8),
    )
        .prop_map(|(status, day, lines, reference, metadata)| Change {
            status,
            day,
            lines,
            reference,
            metadata,
        });
    let command = prop_oneof![
        3 => (0..PEOPLE.len(), 1..4_u8, lines(), reference(), 0..3_u8).prop_map(
            |(who, day, lines, reference, metadata)| Command::Place { who, day, lines, reference, metadata }
        ),
        6 => (0..PEOPLE.len(), 0..8_usize, any::<bool>(), change, condition()).prop_map(
            |(who, which, patch, change, condition)| Command::Change { who, which, patch, change, condition }
        ),
        1 => (0..PEOPLE.len(), 0..8_usize, condition()).prop_map(|(who, which, condition)| Command::Delete { who, which, condition }),
        2 => (0..PEOPLE.len(), 0..8_usize).prop_map(|(who, which)| Command::Show { who, which }),
        2 => Just(Command::Again),
    ];
    proptest::collection::vec(command, 10..60)
}
