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

/// Two customers, then an administrator.
pub(super) const PEOPLE: usize = 3;
pub(super) const ADMINISTRATOR: usize = 2;

pub(super) fn lines() -> impl Strategy<Value = Vec<Line>> {
    proptest::collection::vec((1..4_i64, 1..4_i64, 0..300_i64), 1..4)
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
        3 => (0..PEOPLE, 1..4_u8, lines(), reference(), 0..3_u8).prop_map(
            |(who, day, lines, reference, metadata)| Command::Place { who, day, lines, reference, metadata }
        ),
        6 => (0..PEOPLE, 0..8_usize, any::<bool>(), change, condition()).prop_map(
            |(who, which, patch, change, condition)| Command::Change { who, which, patch, change, condition }
        ),
        1 => (0..PEOPLE, 0..8_usize, condition()).prop_map(|(who, which, condition)| Command::Delete { who, which, condition }),
        2 => (0..PEOPLE, 0..8_usize).prop_map(|(who, which)| Command::Show { who, which }),
        2 => Just(Command::Again),
    ];
    proptest::collection::vec(command, 10..60)
}
