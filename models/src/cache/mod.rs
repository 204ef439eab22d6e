//! The cache: how entries in Redis stay as new as what clients were answered.
//!
//! **What is modelled.** One order with up to three versions, the last of which may be its deletion. Two replicas of the API change it,
//! write through, read and fill; one can fail to reach Redis and then repairs its entry. A worker handles the events, again and
//! late. The server forgets entries, or another one is promoted, which processes reach one after the other (`redis.rs`, `process.rs`).
//! A read that finds an entry is no step: the property looks at every entry that a replica would show.
//!
//! **What is left out, and why that is sound.** Other orders: an entry knows only its own. Time, except for what the design relies on: an
//! entry outlives whatever was under way when it was written, and a mark is gone when readers may fill. Debts of the
//! worker: they replace entries by what PostgreSQL has. A crash: it is a step that never comes. Incomplete entries of the version before: they
//! keep older ones out like complete ones, and no replica shows them.
//!
//! **What the contract excepts**, and so do the properties: what others read after a write whose replica could not reach Redis, until that
//! replica has repaired it; what a replica reads that is still on a server that was replaced, for at most two seconds; and replicas that
//! start during a failover or need more than ten seconds to notice it (docs/RUNBOOK.md).

mod design;
mod process;
mod properties;
mod redis;

use stateright::{Model, Property};

pub use self::{
    design::{Creators, Deletion, Design, Filling, FillingAfterPromotion, Keys, LateEvents, Scope},
    process::{CachedEvent, Node, OrderRow, Process, ReadStep, Repair, Replica},
    properties::{IS_SHOWN_FROM_CACHE, NOTHING_IS_OLDER, OF_CACHE},
    redis::{Create, Entry, Mark, Server},
};

/// The model of the cache.
#[derive(Clone, Debug)]
pub struct CacheModel {
    /// How it works.
    pub design: Design,
    /// How much of it there is.
    pub scope: Scope,
    /// The properties that are checked, by name.
    pub properties: &'static [&'static str],
}

/// A state of the order, its entries, and all who use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheState {
    /// The order in PostgreSQL.
    pub order: OrderRow,
    /// The events of its versions, from the first.
    pub events: [CachedEvent; 3],
    /// The servers: the first primary, and the one that can be promoted.
    pub servers: [Server; 2],
    /// Whether it was.
    pub is_promoted: bool,
    /// The replicas of the API.
    pub replicas: [Replica; 2],
    /// The worker.
    pub worker: Process,
    /// The highest version that no read may be older than.
    pub promised: u8,
}

/// A step of somebody. The numbers are those of replicas, except for events, which have the order's versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheAction {
    /// A replica commits a change.
    Update(usize),
    /// A replica commits the deletion.
    Delete(usize),
    /// It puts what it committed into the cache, and answers.
    WriteThrough(usize),
    /// It cannot reach Redis, remembers that, and answers.
    MissCache(usize),
    /// A replica reads the order whose entry it could not write.
    LoadForRepair(usize),
    /// It puts it into the cache.
    Repair(usize),
    /// A reader that found nothing sets its mark.
    MarkFill(usize),
    /// It reads the order from PostgreSQL.
    Load(usize),
    /// It puts it into the cache.
    Fill(usize),
    /// The worker handles an event.
    Handle(u8),
    /// An event has waited for a minute.
    GrowLate(u8),
    /// The server evicts the entry, or that of another order.
    Evict,
    /// The entry expires.
    Expire,
    /// The server's state reaches the one that can be promoted.
    Replicate,
    /// That one is promoted.
    Promote,
    /// A replica notices it.
    Reconnect(usize),
    /// The worker notices it.
    ReconnectWorker,
    /// Ten seconds have passed since a replica noticed it.
    TenSeconds(usize),
}

impl Model for CacheModel {
    type State = CacheState;
    type Action = CacheAction;

    fn init_states(&self) -> Vec<CacheState> {
        let process = Process { node: Node::First, fills: true, knows_era: true };
        let mut first = process;
        first.knows_era = !self.scope.first_has_just_started;
        vec![CacheState {
            // It has just been created: its event is on the way.
            order: OrderRow { version: 1, is_deleted: false },
            events: [self.new_event(), CachedEvent::NotWritten, CachedEvent::NotWritten],
            servers: [Server::default(); 2],
            is_promoted: false,
            replicas: [Replica::new(first), Replica::new(process)],
            worker: process,
            promised: 1,
        }]
    }

    fn actions(&self, state: &CacheState, actions: &mut Vec<CacheAction>) {
        for replica in 0..state.replicas.len() {
            self.add_actions_of_replica(state, replica, actions);
        }
        for version in 1..=state.order.version {
            actions.push(CacheAction::Handle(version));
            if state.event(version) == CachedEvent::Fresh {
                actions.push(CacheAction::GrowLate(version));
            }
        }
        if self.scope.forgets {
            let server = state.server(state.primary());
            if server.entry.is_some() || !server.has_evicted {
                actions.push(CacheAction::Evict);
            }
            if !state.is_promoted && server.entry.is_some_and(|entry| !state.is_about_to_write(entry.version))
            {
                actions.push(CacheAction::Expire);
            }
        }
        if self.scope.has_successor {
            if !state.is_promoted {
                if self.design.keys == Keys::AreTheSame {
                    actions.push(CacheAction::Replicate);
                }
                actions.push(CacheAction::Promote);
            } else if state.worker.node == Node::First {
                actions.push(CacheAction::ReconnectWorker);
            }
        }
    }

    fn next_state(&self, last: &CacheState, action: CacheAction) -> Option<CacheState> {
        let mut next = *last;
        match action {
            CacheAction::Update(replica) => next.commit(replica, false, self.new_event()),
            CacheAction::Delete(replica) => next.commit(replica, true, self.new_event()),
            CacheAction::WriteThrough(replica) => {
                let version = next.replicas[replica].write.take()?;
                let process = next.replicas[replica].process;
                self.put(next.server_mut(process.node), last.entry_of(version), self.creation(process));
                next.promised = next.promised.max(version);
            }
            CacheAction::MissCache(replica) => {
                let replica = &mut next.replicas[replica];
                replica.missed = replica.missed.max(replica.write.take());
            }
            CacheAction::LoadForRepair(replica) => {
                let missed = next.replicas[replica].missed?;
                // A deleted order is gone: the tombstone gets the version that was missed.
                let entry = if last.order.is_deleted {
                    Entry { version: missed, is_tombstone: true }
                } else {
                    last.entry_of(last.order.version)
                };
                next.replicas[replica].repair = Some(Repair { missed, entry });
            }
            CacheAction::Repair(replica) => {
                let process = next.replicas[replica].process;
                let Repair { missed, entry } = next.replicas[replica].repair.take()?;
                self.put(next.server_mut(process.node), entry, self.creation(process));
                if next.replicas[replica].missed == Some(missed) {
                    next.replicas[replica].missed = None;
                    next.promised = next.promised.max(missed);
                }
            }
            CacheAction::MarkFill(replica) => {
                let mark =
                    Mark { reader: replica, is_early: last.is_promoted && last.somebody_is_on(Node::First) };
                let node = next.replicas[replica].process.node;
                next.server_mut(node).mark = Some(mark);
                next.replicas[replica].read = ReadStep::Marked;
            }
            CacheAction::Load(replica) => {
                let replica = &mut next.replicas[replica];
                let may_store = !last.order.is_deleted && replica.missed.is_none();
                replica.read = if may_store { ReadStep::Loaded(last.order.version) } else { ReadStep::None };
            }
            CacheAction::Fill(replica) => self.fill(&mut next, replica)?,
            CacheAction::Handle(version) => self.handle(&mut next, version),
            CacheAction::GrowLate(version) => next.events[usize::from(version) - 1] = CachedEvent::Late,
            CacheAction::Evict => {
                let server = next.server_mut(last.primary());
                server.entry = None;
                server.has_evicted = true;
            }
            CacheAction::Expire => next.expire()?,
            CacheAction::Replicate => next.servers[1].entry = last.servers[0].entry,
            CacheAction::Promote => next.is_promoted = true,
            CacheAction::Reconnect(replica) => next.replicas[replica].process.reconnect(self.design),
            CacheAction::ReconnectWorker => next.worker.reconnect(self.design),
            CacheAction::TenSeconds(replica) => {
                next.replicas[replica].process.fills = true;
                let server = next.server_mut(Node::Promoted);
                server.mark = server.mark.filter(|mark| !mark.is_early);
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

impl CacheModel {
    fn add_actions_of_replica(&self, state: &CacheState, number: usize, actions: &mut Vec<CacheAction>) {
        let replica = &state.replicas[number];
        let is_on_old_server = state.is_promoted && replica.process.node == Node::First;
        if replica.write.is_some() {
            actions.push(CacheAction::WriteThrough(number));
            if is_on_old_server || self.scope.outages && number == 0 {
                actions.push(CacheAction::MissCache(number));
            }
        } else if !state.order.is_deleted && state.order.version < self.scope.versions {
            actions.extend([CacheAction::Update(number), CacheAction::Delete(number)]);
        }
        if replica.repair.is_some() {
            actions.push(CacheAction::Repair(number));
        } else if replica.missed.is_some() {
            actions.push(CacheAction::LoadForRepair(number));
        }
        match replica.read {
            ReadStep::None => {
                if replica.missed.is_none() && state.server(replica.process.node).entry.is_none() {
                    actions.push(CacheAction::MarkFill(number));
                }
            }
            ReadStep::Marked => actions.push(CacheAction::Load(number)),
            ReadStep::Loaded(_) => actions.push(CacheAction::Fill(number)),
        }
        if is_on_old_server {
            actions.push(CacheAction::Reconnect(number));
        }
        if !replica.process.fills && !state.somebody_is_on(Node::First) {
            actions.push(CacheAction::TenSeconds(number));
        }
    }

    /// What a write or a fresh event may do if there is no entry.
    fn creation(&self, process: Process) -> Create {
        let may_create = match self.design.creators {
            _ if !self.scope.has_successor => true,
            Creators::OnlyReaders => false,
            Creators::ProcessesThatKnowTheEra => process.knows_era,
            Creators::Everybody => true,
        };
        if may_create { Create::UnlessEvicted } else { Create::Never }
    }

    /// An event that has just been written. Where only readers create entries, it does no more than a late one.
    fn new_event(&self) -> CachedEvent {
        let only_readers_create = self.scope.has_successor && self.design.creators == Creators::OnlyReaders;
        if only_readers_create { CachedEvent::Late } else { CachedEvent::Fresh }
    }

    fn put(&self, server: &mut Server, entry: Entry, create: Create) {
        if entry.is_tombstone && self.design.deletion == Deletion::LeavesNothing {
            server.entry = None;
            server.mark = None;
        } else {
            server.put(entry, create);
        }
    }

    fn fill(&self, state: &mut CacheState, replica: usize) -> Option<()> {
        let ReadStep::Loaded(version) = std::mem::replace(&mut state.replicas[replica].read, ReadStep::None)
        else {
            return None;
        };
        let process = state.replicas[replica].process;
        let create = match self.design.filling {
            Filling::IfStillMarked if process.fills => Create::IfMarkedBy(replica),
            Filling::IfStillMarked => Create::Never,
            Filling::IfThereIsNoEntry => Create::Always,
        };
        state.server_mut(process.node).put(Entry { version, is_tombstone: false }, create);
        Some(())
    }

    fn handle(&self, state: &mut CacheState, version: u8) {
        let worker = state.worker;
        let is_fresh = state.event(version) == CachedEvent::Fresh;
        let may_create = is_fresh || self.design.late_events == LateEvents::Create;
        let create = if may_create { self.creation(worker) } else { Create::Never };
        let entry = state.entry_of(version);
        let server = state.server_mut(worker.node);
        match (version, may_create, create) {
            (1, true, Create::UnlessEvicted) => server.put_first_version(),
            // It could only create: nothing is older.
            (1, true, _) => {}
            _ => self.put(server, entry, create),
        }
        // It may come again, and counts as late then.
        state.events[usize::from(version) - 1] = CachedEvent::Late;
    }
}
