//! What PostgreSQL does in the model: transactions, the row locks of orders, ids from a sequence, snapshots.
//!
//! As there, a transaction gets its xid before it waits for a row lock, takes an event's id while it holds the lock, and
//! becomes visible in the same moment in which it releases its locks. A snapshot is what `pg_current_snapshot()` returns: `xmax` is one
//! past the highest xid that has *ended*, so a transaction that is open may be among those in progress or at or above `xmax`.
//! Ids of rolled back transactions leave gaps.
//!
//! Left out: batches of several requests (a transaction of two orders stands for them), `FOR UPDATE SKIP LOCKED` (a change that
//! is passed over comes later), other transactions of the server (one that is rolled back affects snapshots as they do), and
//! creation without a lock (nobody else knows the order before it is committed).

use crate::set::SmallSet;

/// A transaction id. That of the first transaction is 2.
pub type Xid = u8;
/// An event's id in `outbox`, from 1.
pub type EventId = u8;

/// Not 1: a snapshot up to there, `1:1:`, stands for nothing at all, and is none that a database ever has.
const FIRST_XID: Xid = 2;

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// One.
    A,
    /// Another.
    B,
}

/// A transaction that changes the orders of its plan, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transaction {
    /// It has no xid yet.
    NotBegun,
    /// It has written the events of this many orders of its plan.
    Open {
        /// Its id.
        xid: Xid,
        /// How many events it has written.
        written: u8,
    },
    /// Its events are visible.
    Committed(Xid),
    /// Its events never were.
    RolledBack(Xid),
}

/// A row of `outbox`. Its id is its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// The transaction that wrote it.
    pub xid: Xid,
    /// The order that was changed.
    pub order: Order,
    /// The order's version after the change, from 1.
    pub version: u8,
}

/// Transactions and the events that they have written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Database {
    /// One for each plan.
    pub transactions: Vec<Transaction>,
    /// In the order of their ids.
    pub outbox: Vec<Event>,
}

/// Which transactions had ended at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// One past the highest xid that had ended. Whatever is not below was not visible.
    pub xmax: Xid,
    /// The transactions below `xmax` that were open.
    pub in_progress: SmallSet,
}

impl Transaction {
    fn xid(self) -> Option<Xid> {
        match self {
            Self::NotBegun => None,
            Self::Open { xid, .. } | Self::Committed(xid) | Self::RolledBack(xid) => Some(xid),
        }
    }

    /// Whether it has begun and not ended.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

impl Database {
    /// A database without events.
    pub fn new(transactions: usize) -> Self {
        Self { transactions: vec![Transaction::NotBegun; transactions], outbox: Vec::new() }
    }

    /// Begins a transaction, which takes the next xid.
    pub fn begin(&mut self, transaction: usize) {
        let last = self.transactions.iter().filter_map(|transaction| transaction.xid()).max();
        let xid = last.map_or(FIRST_XID, |last| last + 1);
        self.transactions[transaction] = Transaction::Open { xid, written: 0 };
    }

    /// Whether the lock on the order's row is free.
    pub fn is_unlocked(&self, order: Order) -> bool {
        !self.outbox.iter().any(|event| event.order == order && self.is_in_progress(event.xid))
    }

    /// Changes an order: takes the lock on its row, raises its version, and appends the event with the next id.
    pub fn write(&mut self, transaction: usize, order: Order) {
        let Transaction::Open { xid, written } = &mut self.transactions[transaction] else { return };
        *written += 1;
        let xid = *xid;
        let versions =
            self.committed().filter(|(_, event)| event.order == order).map(|(_, event)| event.version);
        let version = 1 + versions.max().unwrap_or(0);
        self.outbox.push(Event { xid, order, version });
    }

    /// Ends a transaction.
    pub fn end(&mut self, transaction: usize, commits: bool) {
        let Transaction::Open { xid, .. } = self.transactions[transaction] else { return };
        self.transactions[transaction] =
            if commits { Transaction::Committed(xid) } else { Transaction::RolledBack(xid) };
    }

    /// The events that are visible now, in the order of their ids.
    pub fn committed(&self) -> impl Iterator<Item = (EventId, Event)> {
        let is_committed = |event: &Event| self.transactions.contains(&Transaction::Committed(event.xid));
        (1..).zip(self.outbox.iter().copied()).filter(move |(_, event)| is_committed(event))
    }

    /// An event.
    pub fn event(&self, id: EventId) -> Event {
        self.outbox[usize::from(id) - 1]
    }

    /// What `pg_current_snapshot()` returns.
    pub fn snapshot(&self) -> Snapshot {
        let ended = self.transactions.iter().filter(|transaction| !transaction.is_open());
        let last = ended.filter_map(|transaction| transaction.xid()).max();
        let xmax = last.map_or(FIRST_XID, |last| last + 1);
        let open = self.transactions.iter().filter(|transaction| transaction.is_open());
        let in_progress =
            open.filter_map(|transaction| transaction.xid()).filter(|xid| *xid < xmax).collect();
        Snapshot { xmax, in_progress }
    }

    /// Whether a transaction is open.
    pub fn is_in_progress(&self, xid: Xid) -> bool {
        self.transactions.iter().any(|transaction| transaction.is_open() && transaction.xid() == Some(xid))
    }
}

impl Snapshot {
    /// The snapshot `1:1:`, which stands for nothing at all.
    pub const NOTHING: Self = Self { xmax: 1, in_progress: SmallSet::EMPTY };
    /// The snapshot of a database before its first transaction.
    pub const NEW: Self = Self { xmax: FIRST_XID, in_progress: SmallSet::EMPTY };

    /// What `pg_visible_in_snapshot` returns: whether the transaction had ended.
    pub fn shows(self, xid: Xid) -> bool {
        xid < self.xmax && !self.in_progress.contains(xid)
    }

    /// The lowest xid that was open; all below had ended.
    pub fn xmin(self) -> Xid {
        self.in_progress.numbers().next().unwrap_or(self.xmax)
    }
}
