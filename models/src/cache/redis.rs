//! A Redis server in the model: an entry, the mark beside it, and the two scripts that write them.
//!
//! `put` is `shared/src/cache/cache.lua` and `create_first_version` is `create.lua` beside it, for one order. An entry is a version
//! and whether it is a tombstone: the rest of it follows from these.

/// What a server holds of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Its version, from 1.
    pub version: u8,
    /// Whether it says that the order was deleted.
    pub is_tombstone: bool,
}

/// The mark of a reader that is about to fill the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The replica that reads.
    pub reader: usize,
    /// Whether a replica had not come to this server yet. Such a mark is gone before readers may fill.
    pub is_early: bool,
}

/// What can happen if there is no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Create {
    /// Nothing.
    Never,
    /// It is created, unless the server has ever evicted an entry: a newer one may have been among them.
    UnlessEvicted,
    /// It is created if this reader's mark is there.
    IfMarkedBy(usize),
    /// It is created. Only a wrong design does so.
    Always,
}

/// A server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Server {
    /// The entry of the order.
    pub entry: Option<Entry>,
    /// The mark beside it.
    pub mark: Option<Mark>,
    /// Whether it has ever evicted an entry.
    pub has_evicted: bool,
}

impl Server {
    /// Compares and sets.
    pub fn put(&mut self, entry: Entry, create: Create) {
        let is_newer = match self.entry {
            Some(held) => held.version < entry.version,
            None => match create {
                Create::Never => false,
                Create::UnlessEvicted => !self.has_evicted,
                Create::IfMarkedBy(reader) => self.mark.is_some_and(|mark| mark.reader == reader),
                Create::Always => true,
            },
        };
        if matches!(create, Create::Never | Create::UnlessEvicted) {
            self.mark = None;
        }
        if is_newer {
            self.entry = Some(entry);
        }
    }

    /// Creates the entry of a first version, which leaves marks alone, or compares and sets it.
    pub fn put_first_version(&mut self) {
        let first = Entry { version: 1, is_tombstone: false };
        if self.entry.is_none() && !self.has_evicted {
            self.entry = Some(first);
        } else {
            self.put(first, Create::UnlessEvicted);
        }
    }
}
