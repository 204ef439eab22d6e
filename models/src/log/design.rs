//! The design that is built, the simpler ones that are wrong, and how much of the system a test explores.

use super::postgres::Order;

/// How events get positions and are published. [`Design::BUILT`] is `migrations/0015_log_positions.sql` and `api/src/outbox/`; each
/// other value of a field is a mistake that has been made elsewhere.
#[derive(Clone, Copy, Debug)]
pub struct Design {
    /// Which events get their positions in a step.
    pub selection: Selection,
    /// In which order they get them.
    pub sorting: Sorting,
    /// When a step takes its snapshot.
    pub snapshot: SnapshotTaken,
    /// Whether a change of the relay's row requires the current epoch.
    pub epoch: Epoch,
    /// When the published position moves past an event.
    pub saving: Saving,
    /// What readers take for an event's position.
    pub positions: Positions,
}

/// Which events a step gives positions to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// What the new snapshot shows and the one before did not.
    BeyondLastSnapshot,
    /// Wrong: visible events whose id is above the last one's. A transaction with a lower id may commit later.
    IdAboveLast,
    /// Wrong: events of transactions below the oldest open one. A transaction that stays open holds up all that began later.
    BelowOldestOpen,
}

/// The order of the events of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sorting {
    /// By id: taken under the row lock, so it ascends with the version.
    ById,
    /// Wrong: by transaction. The one that began first may have waited for the row lock of one that began later.
    ByTransaction,
}

/// When a step takes its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotTaken {
    /// Once it holds the lock on the relay's row.
    UnderTheLock,
    /// Wrong: at its beginning, and then it waits for the lock. A later step may get it first and see more.
    BeforeTheLock,
}

/// Whether the relay's row is changed under the epoch of the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epoch {
    /// A relay that has lost the lease changes nothing.
    Checked,
    /// Wrong: a relay that was paused writes what it remembers.
    Ignored,
}

/// When the published position moves past an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saving {
    /// After the broker has confirmed it.
    AfterConfirmation,
    /// Wrong: when it is about to be sent.
    BeforeSending,
}

/// What readers take for an event's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// The number that it got when it was sequenced.
    Sequenced,
    /// Wrong: its id, behind which they ask for higher ones.
    Ids,
}

impl Design {
    /// What is built.
    pub const BUILT: Self = Self {
        selection: Selection::BeyondLastSnapshot,
        sorting: Sorting::ById,
        snapshot: SnapshotTaken::UnderTheLock,
        epoch: Epoch::Checked,
        saving: Saving::AfterConfirmation,
        positions: Positions::Sequenced,
    };
}

/// What a test explores.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each adds a part of the world by itself")]
pub struct Scope {
    /// The orders that each transaction changes.
    pub plans: &'static [&'static [Order]],
    /// Whether transactions can be rolled back.
    pub rollbacks: bool,
    /// How many statements that sequence can be under way at the same time, of one relay or of two.
    pub statements: usize,
    /// Whether events are published.
    pub publishes: bool,
    /// Whether programs of the version before run beside, and take the lease in turns.
    pub has_program_before: bool,
    /// Whether somebody reads the log.
    pub reads: bool,
}
