//! The log: how events get positions, are published, and are read.
//!
//! **What is modelled.** Up to three transactions change two orders; each takes its xid and its events' ids early and commits
//! late, or is rolled back (`postgres.rs`). Meanwhile a relay gives positions to what a new snapshot shows, and publishes it
//! behind an integer cursor. Another relay, also one of the version before, can take the lease from it between any two steps, and
//! the first one goes on later as if nothing had happened (`relay.rs`). A reader asks for what comes after its position. The
//! properties are in `properties.rs`, the wrong designs in `design.rs`; `api/tests/it/outbox_model.rs` compares the model with
//! PostgreSQL.
//!
//! **What is left out, and why that is sound.** Time: everything that a timer could allow is always allowed. The broker: it keeps
//! what it is sent; what it forgets later is the reconciler's matter. Restores and promotions, after which snapshots mean
//! nothing: `log_append_all` begins anew then, and tests on real servers cover it. More transactions and relays: each fault that is
//! known needs two of a kind, and of three transactions one can be open below one that has ended while another one begins.

mod design;
mod postgres;
mod properties;
mod relay;

use stateright::{Model, Property};

pub use self::{
    design::{Design, Epoch, Positions, Saving, Scope, Selection, SnapshotTaken, Sorting},
    postgres::{Database, Event, EventId, Order, Snapshot, Transaction, Xid},
    properties::*,
    relay::{Entry, Position, Program, Relay, RelayRow, Statement, Step, Who},
};
use crate::set::SmallSet;

/// The model of the log.
#[derive(Clone, Debug)]
pub struct LogModel {
    /// How it works.
    pub design: Design,
    /// How much of it there is.
    pub scope: Scope,
    /// The properties that are checked, by name.
    pub properties: &'static [&'static str],
}

/// A state of the log and of all who use it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogState {
    /// Transactions and events.
    pub database: Database,
    /// The cursors.
    pub row: RelayRow,
    /// The positions, in the order in which they were given out.
    pub log: Vec<Entry>,
    /// The statements under way.
    pub statements: Vec<Option<Statement>>,
    /// The relay that took the lease last.
    pub holder: Relay,
    /// The one that had it before, and was paused.
    pub paused: Option<Relay>,
    /// The events that the broker has.
    pub broker: SmallSet,
    /// The highest position that was ever saved as published.
    pub most_published: Position,
    /// The reader's position.
    pub reader: Position,
    /// What it has seen up to there.
    pub seen: Vec<EventId>,
}

/// A step of somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogAction {
    /// A transaction takes its xid.
    Begin(usize),
    /// It locks the next order of its plan, and appends the event of its change.
    Write(usize),
    /// It commits.
    Commit(usize),
    /// It is rolled back.
    RollBack(usize),
    /// The holder of the lease sends a statement that sequences.
    Send(usize),
    /// A statement takes its snapshot.
    TakeSnapshot(usize),
    /// A statement gets the lock on the relay's row, or learns that its epoch is over.
    Lock(usize),
    /// A statement commits positions and cursor.
    CommitStep(usize),
    /// A statement fails; nothing of it remains.
    Fail(usize),
    /// Another relay takes the lease.
    TakeOver,
    /// A program of the version before takes the lease.
    TakeOverByProgramBefore,
    /// It publishes what a new snapshot shows.
    PublishWindow,
    /// It saves that snapshot.
    SaveWindow,
    /// A relay publishes the event after the last one that was confirmed to it.
    Publish(Who),
    /// A relay saves up to where everything is published.
    Save(Who),
    /// The reader reads everything after its position.
    Read,
}

impl Model for LogModel {
    type State = LogState;
    type Action = LogAction;

    fn init_states(&self) -> Vec<LogState> {
        vec![LogState {
            database: Database::new(self.scope.plans.len()),
            row: RelayRow::NEW,
            log: Vec::new(),
            statements: vec![None; self.scope.statements],
            holder: Relay::starting(&RelayRow::NEW, Program::Current),
            paused: None,
            broker: SmallSet::EMPTY,
            most_published: 0,
            reader: 0,
            seen: Vec::new(),
        }]
    }

    fn actions(&self, state: &LogState, actions: &mut Vec<LogAction>) {
        for transaction in 0..self.scope.plans.len() {
            self.add_actions_of_transaction(state, transaction, actions);
        }
        for place in 0..state.statements.len() {
            self.add_actions_of_statement(state, place, actions);
        }
        if !state.is_row_locked() {
            actions.push(LogAction::TakeOver);
            if self.scope.has_program_before {
                actions.push(LogAction::TakeOverByProgramBefore);
            }
        }
        if let Program::Before { window } = state.holder.program {
            let snapshot = state.database.snapshot();
            if window.is_none() && snapshot != state.row.published {
                actions.push(LogAction::PublishWindow);
            } else if window.is_some() && !state.is_row_locked() {
                actions.push(LogAction::SaveWindow);
            }
        }
        if self.scope.publishes {
            self.add_actions_of_relay(state, Who::Holder, actions);
            self.add_actions_of_relay(state, Who::Paused, actions);
        }
        if self.scope.reads {
            actions.push(LogAction::Read);
        }
    }

    fn next_state(&self, last: &LogState, action: LogAction) -> Option<LogState> {
        let mut next = last.clone();
        match action {
            LogAction::Begin(transaction) => next.database.begin(transaction),
            LogAction::Write(transaction) => {
                let order = self.next_order(last, transaction)?;
                next.database.write(transaction, order);
            }
            LogAction::Commit(transaction) => next.database.end(transaction, true),
            LogAction::RollBack(transaction) => next.database.end(transaction, false),
            LogAction::Send(place) => {
                next.statements[place] = Some(Statement { is_current: true, step: Step::Sent });
            }
            LogAction::TakeSnapshot(place) => {
                let snapshot = next.database.snapshot();
                let statement = next.statements[place].as_mut()?;
                statement.step = if statement.holds_lock() {
                    Step::Ready(snapshot)
                } else {
                    Step::SentWithSnapshot(snapshot)
                };
            }
            LogAction::Lock(place) => self.lock_row(&mut next, place),
            LogAction::CommitStep(place) => {
                let Some(Statement { step: Step::Ready(upto), .. }) = next.statements[place].take() else {
                    return None;
                };
                next.row.sequence(&mut next.log, &next.database, upto, self.design);
                // The answer tells the relay from which position on to publish. Without one it would take the lease anew.
                if next.row.published_position != last.row.published_position {
                    next.holder = Relay::starting(&next.row, Program::Current);
                    next.most_published = next.most_published.max(next.row.published_position);
                }
            }
            LogAction::Fail(place) => next.statements[place] = None,
            LogAction::TakeOver => next.take_over(Program::Current),
            LogAction::TakeOverByProgramBefore => next.take_over(Program::Before { window: None }),
            LogAction::PublishWindow => {
                let upto = last.database.snapshot();
                for (id, _) in
                    last.database.committed().filter(|(_, event)| !last.row.published.shows(event.xid))
                {
                    next.broker.insert(id);
                }
                next.holder.program = Program::Before { window: Some(upto) };
            }
            LogAction::SaveWindow => {
                let Program::Before { window } = last.holder.program else { return None };
                next.row.published = window?;
                next.holder.program = Program::Before { window: None };
            }
            LogAction::Publish(who) => {
                let relay = next.relay_mut(who)?;
                relay.confirmed += 1;
                let position = relay.confirmed;
                let sent = last.log.iter().find(|entry| entry.position == position)?;
                next.broker.insert(sent.id);
            }
            LogAction::Save(who) => {
                let position = self.position_to_save(last, who)?;
                next.relay_mut(who)?.saved = position;
                next.row.save(position);
                next.most_published = next.most_published.max(position);
            }
            LogAction::Read => {
                let visible = self.visible_log(last);
                next.reader = visible.last()?.position;
                next.seen = visible.iter().map(|entry| entry.id).collect();
            }
        }
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = properties::all();
        properties.retain(|property| self.properties.contains(&property.name));
        properties
    }
}

impl LogModel {
    /// What a reader can see of the log.
    fn visible_log(&self, state: &LogState) -> Vec<Entry> {
        match self.design.positions {
            Positions::Sequenced => state.log.clone(),
            Positions::Ids => state.database.committed().map(|(id, _)| Entry { position: id, id }).collect(),
        }
    }

    fn add_actions_of_transaction(&self, state: &LogState, transaction: usize, actions: &mut Vec<LogAction>) {
        match state.database.transactions[transaction] {
            Transaction::NotBegun => actions.push(LogAction::Begin(transaction)),
            Transaction::Open { .. } => {
                match self.next_order(state, transaction) {
                    Some(order) if state.database.is_unlocked(order) => {
                        actions.push(LogAction::Write(transaction));
                    }
                    // It waits for the lock.
                    Some(_) => {}
                    None => actions.push(LogAction::Commit(transaction)),
                }
                if self.scope.rollbacks {
                    actions.push(LogAction::RollBack(transaction));
                }
            }
            Transaction::Committed(_) | Transaction::RolledBack(_) => {}
        }
    }

    /// The order that an open transaction changes next.
    fn next_order(&self, state: &LogState, transaction: usize) -> Option<Order> {
        let Transaction::Open { written, .. } = state.database.transactions[transaction] else { return None };
        self.scope.plans[transaction].get(usize::from(written)).copied()
    }

    fn add_actions_of_statement(&self, state: &LogState, place: usize, actions: &mut Vec<LogAction>) {
        let Some(statement) = state.statements[place] else {
            if state.holder.program == Program::Current {
                actions.push(LogAction::Send(place));
            }
            return;
        };
        let takes_snapshot_first = self.design.snapshot == SnapshotTaken::BeforeTheLock;
        match statement.step {
            Step::Sent if takes_snapshot_first => actions.push(LogAction::TakeSnapshot(place)),
            Step::Sent | Step::SentWithSnapshot(_) => {
                if !state.is_row_locked() {
                    actions.push(LogAction::Lock(place));
                }
            }
            Step::Locked => actions.push(LogAction::TakeSnapshot(place)),
            Step::Ready(_) => actions.push(LogAction::CommitStep(place)),
        }
        actions.push(LogAction::Fail(place));
    }

    /// Gives a statement the lock on the relay's row. PostgreSQL looks at the epoch of the row as it is by then.
    fn lock_row(&self, state: &mut LogState, place: usize) {
        let Some(statement) = &mut state.statements[place] else { return };
        if !statement.is_current && self.design.epoch == Epoch::Checked {
            state.statements[place] = None;
            return;
        }
        statement.step = match statement.step {
            Step::SentWithSnapshot(snapshot) => Step::Ready(snapshot),
            _ => Step::Locked,
        };
    }

    fn add_actions_of_relay(&self, state: &LogState, who: Who, actions: &mut Vec<LogAction>) {
        let Some(relay) = state.relay(who).filter(|relay| relay.program == Program::Current) else { return };
        if relay.confirmed < state.row.head {
            actions.push(LogAction::Publish(who));
        }
        if self.position_to_save(state, who).is_some() {
            actions.push(LogAction::Save(who));
        }
    }

    /// The position that a relay can save now, if it has come further than it knows to be saved.
    fn position_to_save(&self, state: &LogState, who: Who) -> Option<Position> {
        let is_refused = who == Who::Paused && self.design.epoch == Epoch::Checked;
        if is_refused || state.is_row_locked() {
            return None;
        }
        let relay = state.relay(who)?;
        let position = match self.design.saving {
            Saving::AfterConfirmation => relay.confirmed,
            Saving::BeforeSending => state.row.head.min(relay.confirmed + 1),
        };
        (position > relay.saved).then_some(position)
    }
}

impl LogState {
    fn is_row_locked(&self) -> bool {
        self.statements.iter().flatten().any(|statement| statement.holds_lock())
    }

    /// Gives the lease to another relay. What was begun under it before is outdated.
    fn take_over(&mut self, program: Program) {
        for statement in self.statements.iter_mut().flatten() {
            statement.is_current = false;
        }
        self.paused = Some(self.holder);
        self.holder = Relay::starting(&self.row, program);
    }

    fn relay(&self, who: Who) -> Option<Relay> {
        match who {
            Who::Holder => Some(self.holder),
            Who::Paused => self.paused,
        }
    }

    fn relay_mut(&mut self, who: Who) -> Option<&mut Relay> {
        match who {
            Who::Holder => Some(&mut self.holder),
            Who::Paused => self.paused.as_mut(),
        }
    }
}
