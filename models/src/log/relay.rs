//! The relay's row, the statements that sequence, and the relays that publish.
//!
//! A relay is `api/src/outbox/relay.rs`. A statement is `log_sequence` of `migrations/0015_log_positions.sql`, in four steps: it is
//! sent, it holds the lock on the relay's row, it has its snapshot, it commits the new positions together with the cursor. Any
//! of them can be the last, and any time can pass between two of them. More than one statement can be under way: a relay
//! sequences also while it publishes, and a connection that is lost leaves a statement behind.
//!
//! Epochs are not numbered: all that is ever asked is whether one is the row's. A relay that takes the lease makes everything that
//! was begun under an earlier epoch outdated. Time is left out: a lease may expire at any moment, which allows more than
//! any clock does. So a relay that crashes is one that does nothing any more, and one that is started again takes the lease.

use super::{
    design::{Design, Selection, Sorting},
    postgres::{Database, EventId, Snapshot},
};

/// A position in the log, from 1.
pub type Position = u8;

/// The row of `relay`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RelayRow {
    /// Everything visible in this snapshot has its position.
    pub sequenced: Snapshot,
    /// The id of the last event that got a position. Only a wrong design uses it.
    pub last_id: EventId,
    /// The last position that was given out.
    pub head: Position,
    /// Everything up to this position is published.
    pub published_position: Position,
    /// Everything visible in this snapshot is published. Programs of the version before publish what it does not show.
    pub published: Snapshot,
}

/// A row of `log_pages`, or a part of one: where its pages end is of no importance to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The position.
    pub position: Position,
    /// The event that has it.
    pub id: EventId,
}

/// A statement that gives positions to events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Statement {
    /// Whether its epoch is the row's.
    pub is_current: bool,
    /// How far it has come.
    pub step: Step,
}

/// How far a statement has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// It waits for the lock on the relay's row.
    Sent,
    /// It waits for the lock and has its snapshot already. Only a wrong design does so.
    SentWithSnapshot(Snapshot),
    /// It holds the lock, under its epoch.
    Locked,
    /// It holds the lock and has its snapshot.
    Ready(Snapshot),
}

/// What a relay remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Relay {
    /// The published position as it was when the relay took the lease, or last saved it.
    pub saved: Position,
    /// The broker has confirmed to it everything from there up to this position.
    pub confirmed: Position,
    /// Which program it is.
    pub program: Program,
}

/// Which program a relay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Program {
    /// It sequences, and publishes behind a position.
    Current,
    /// That of the version before knows no positions: it publishes what a snapshot shows, then saves the snapshot.
    Before {
        /// What it has published and not saved yet.
        window: Option<Snapshot>,
    },
}

/// One of the two relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The one that took the lease last.
    Holder,
    /// The one that had it before. It was paused, and goes on at any time.
    Paused,
}

impl Statement {
    /// Whether it holds the lock on the relay's row.
    pub fn holds_lock(self) -> bool {
        matches!(self.step, Step::Locked | Step::Ready(_))
    }
}

impl Relay {
    /// A relay that has just taken the lease.
    pub fn starting(row: &RelayRow, program: Program) -> Self {
        Self { saved: row.published_position, confirmed: row.published_position, program }
    }
}

impl RelayRow {
    /// The row of a new database.
    pub const NEW: Self = Self {
        sequenced: Snapshot::NOTHING,
        last_id: 0,
        head: 0,
        published_position: 0,
        published: Snapshot::NEW,
    };

    /// Gives positions to what `upto` shows and has none.
    pub fn sequence(&mut self, log: &mut Vec<Entry>, database: &Database, upto: Snapshot, design: Design) {
        if self.sequenced == Snapshot::NOTHING {
            // For the first time: the version before has published a part.
            self.append(log, database, upto, design);
            let is_unpublished = |entry: &&Entry| !self.published.shows(database.event(entry.id).xid);
            let first = log.iter().find(is_unpublished).map(|entry| entry.position);
            self.published_position = first.map_or(self.head, |first| first - 1);
            return;
        }
        if self.is_behind_program_before() {
            self.append(log, database, self.published, design);
            self.published_position = self.head;
        }
        self.append(log, database, upto, design);
    }

    /// Records that everything up to a position is published; if that is all, then also for programs of the version before.
    pub fn save(&mut self, position: Position) {
        self.published_position = position;
        if position == self.head {
            self.published = self.sequenced;
        }
    }

    /// Whether a program of the version before has held the lease, and has published all that has positions and more.
    fn is_behind_program_before(self) -> bool {
        self.published.xmax >= self.sequenced.xmax
            && self.published != self.sequenced
            && !self.published.in_progress.numbers().any(|xid| self.sequenced.shows(xid))
    }

    /// Appends to the log what `upto` shows beyond the cursor, and moves the cursor.
    fn append(&mut self, log: &mut Vec<Entry>, database: &Database, upto: Snapshot, design: Design) {
        for id in self.select(database, upto, design) {
            self.head += 1;
            log.push(Entry { position: self.head, id });
            self.last_id = self.last_id.max(id);
        }
        self.sequenced = upto;
    }

    /// The events that get their positions now, in order.
    fn select(self, database: &Database, upto: Snapshot, design: Design) -> Vec<EventId> {
        let since = self.sequenced;
        let visible = database.committed().filter(|(_, event)| upto.shows(event.xid));
        let chosen = visible.filter(|(id, event)| match design.selection {
            // As `log_append` and `outbox_late` have it.
            Selection::BeyondLastSnapshot => {
                event.xid >= since.xmax && event.xid < upto.xmax || since.in_progress.contains(event.xid)
            }
            Selection::IdAboveLast => *id > self.last_id,
            Selection::BelowOldestOpen => event.xid >= since.xmin() && event.xid < upto.xmin(),
        });
        let mut chosen: Vec<_> = chosen.collect();
        if design.sorting == Sorting::ByTransaction {
            chosen.sort_by_key(|(id, event)| (event.xid, *id));
        }
        chosen.into_iter().map(|(id, _)| id).collect()
    }
}
