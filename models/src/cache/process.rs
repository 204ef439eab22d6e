//! The order in PostgreSQL, its events, and the processes: two replicas of the API and a worker.
//!
//! A replica does one thing of a kind at a time: it writes, it repairs, it reads. Requests that do the same at the same time are those
//! of the other replica. Between any two steps anything else can happen.

use super::{
    CacheState,
    design::{Design, FillingAfterPromotion},
    redis::{Entry, Server},
};

/// The order in PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OrderRow {
    /// Its version, or that of its deletion.
    pub version: u8,
    /// Whether it was deleted.
    pub is_deleted: bool,
}

/// The event of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CachedEvent {
    /// The version does not exist yet.
    NotWritten,
    /// It is on the way, for less than a minute and for the first time.
    Fresh,
    /// It may come late, or again, any number of times.
    Late,
}

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Node {
    /// The first primary.
    First,
    /// The one that is promoted.
    Promoted,
}

/// The connection of a process to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// The server that it takes for the primary.
    pub node: Node,
    /// Whether its readers may create entries there.
    pub fills: bool,
    /// Whether it has known the server's era for two minutes. Only a wrong design asks.
    pub knows_era: bool,
}

/// A replica of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Replica {
    /// Its connection to Redis.
    pub process: Process,
    /// The version that it has committed and not answered yet.
    pub write: Option<u8>,
    /// The highest version that it could not write to the cache. Until it is repaired, it reads the order from PostgreSQL.
    pub missed: Option<u8>,
    /// The repair under way.
    pub repair: Option<Repair>,
    /// The reader that found nothing.
    pub read: ReadStep,
}

/// A repair whose entry is not written yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Repair {
    /// The version that was missed when it began.
    pub missed: u8,
    /// What it writes.
    pub entry: Entry,
}

/// How far a reader that found nothing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadStep {
    /// There is none.
    None,
    /// It has set its mark.
    Marked,
    /// It has read this version from PostgreSQL.
    Loaded(u8),
}

impl Process {
    /// Notices the promotion.
    pub(super) fn reconnect(&mut self, design: Design) {
        let fills = design.filling_after_promotion == FillingAfterPromotion::AtOnce;
        *self = Self { node: Node::Promoted, fills, knows_era: false };
    }
}

impl Replica {
    /// A replica that does nothing yet.
    pub(super) fn new(process: Process) -> Self {
        Self { process, write: None, missed: None, repair: None, read: ReadStep::None }
    }
}

impl CacheState {
    pub(super) fn server(&self, node: Node) -> &Server {
        &self.servers[usize::from(node == Node::Promoted)]
    }

    pub(super) fn server_mut(&mut self, node: Node) -> &mut Server {
        &mut self.servers[usize::from(node == Node::Promoted)]
    }

    /// The server that clients are served from.
    pub(super) fn primary(&self) -> Node {
        if self.is_promoted { Node::Promoted } else { Node::First }
    }

    /// Whether a replica of the API takes this server for the primary.
    pub(super) fn somebody_is_on(&self, node: Node) -> bool {
        self.replicas.iter().any(|replica| replica.process.node == node)
    }

    /// Whether a replica is about to write an entry of this version or an older one.
    pub(super) fn is_about_to_write(&self, version: u8) -> bool {
        let writes = self.replicas.iter().filter_map(|replica| replica.write);
        let repairs = self.replicas.iter().filter_map(|replica| Some(replica.repair?.entry.version));
        writes.chain(repairs).any(|written| written <= version)
    }

    pub(super) fn event(&self, version: u8) -> CachedEvent {
        self.events[usize::from(version) - 1]
    }

    /// The entry that a version's write or event brings.
    pub(super) fn entry_of(&self, version: u8) -> Entry {
        Entry { version, is_tombstone: self.order.is_deleted && version == self.order.version }
    }

    /// Commits the next version, together with its event.
    pub(super) fn commit(&mut self, replica: usize, deletes: bool, event: CachedEvent) {
        let version = self.order.version + 1;
        self.order = OrderRow { version, is_deleted: deletes };
        self.events[usize::from(version) - 1] = event;
        self.replicas[replica].write = Some(version);
    }

    /// Lets the entry expire. It has lived for so long that the events of its version and below are late, and that every mark from
    /// before it is gone.
    pub(super) fn expire(&mut self) -> Option<()> {
        let server = self.server_mut(Node::First);
        let version = server.entry.take()?.version;
        server.mark = None;
        self.events[..usize::from(version)].fill(CachedEvent::Late);
        Some(())
    }
}
