//! The design that is built, the simpler ones that are wrong, and how much of the system a test explores.

/// How the cache is kept. [`Design::BUILT`] is `shared/src/cache/`; each other value of a field is a mistake.
#[derive(Clone, Copy, Debug)]
pub struct Design {
    /// What a reader that found nothing may store.
    pub filling: Filling,
    /// What a deletion leaves.
    pub deletion: Deletion,
    /// What an event does that is late: it may have waited for longer than a newer entry lived.
    pub late_events: LateEvents,
    /// What is found on a server that was promoted.
    pub keys: Keys,
    /// Who creates entries besides readers, on servers that replace each other.
    pub creators: Creators,
    /// When readers create entries on a server that was promoted.
    pub filling_after_promotion: FillingAfterPromotion,
}

/// What a reader that found nothing may store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filling {
    /// What it read after it had set its mark, if nobody has taken the mark away.
    IfStillMarked,
    /// Wrong: what it read, if there is no entry. A newer one may have come and gone.
    IfThereIsNoEntry,
}

/// What a deletion leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// A tombstone with its version.
    LeavesTombstone,
    /// Wrong: nothing. An event from before can bring the order back.
    LeavesNothing,
}

/// What a late event does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LateEvents {
    /// It replaces an older entry.
    OnlyReplace,
    /// Wrong: it creates an entry, too. A newer one may have expired.
    Create,
}

/// What is found on a server that was promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// Nothing: each key names the era, which begins with the promotion.
    NameTheEra,
    /// Wrong: whatever was replicated to it, which may be older than what was confirmed.
    AreTheSame,
}

/// Who creates entries besides readers, on servers that replace each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creators {
    /// Nobody.
    OnlyReaders,
    /// Wrong: each process that has known the era for two minutes. One that was started meanwhile has not, so it changes an order
    /// without leaving an entry, and another one creates the version before.
    ProcessesThatKnowTheEra,
    /// Wrong: writers and events that are not late. A newer version may have been written to the server before.
    Everybody,
}

/// When readers create entries on a server that was promoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FillingAfterPromotion {
    /// Once every replica of the API has left the server before. Ten seconds stand for it.
    OnceAllHaveCome,
    /// Wrong: at once. A replica that still writes to the server before takes away no mark here.
    AtOnce,
}

impl Design {
    /// What is built.
    pub const BUILT: Self = Self {
        filling: Filling::IfStillMarked,
        deletion: Deletion::LeavesTombstone,
        late_events: LateEvents::OnlyReplace,
        keys: Keys::NameTheEra,
        creators: Creators::OnlyReaders,
        filling_after_promotion: FillingAfterPromotion::OnceAllHaveCome,
    };
}

/// What a test explores.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each adds a part of the world by itself")]
pub struct Scope {
    /// How many versions the order gets at most, up to 3.
    pub versions: u8,
    /// Whether entries expire and are evicted.
    pub forgets: bool,
    /// Whether the first replica of the API can fail to reach Redis.
    pub outages: bool,
    /// Whether Redis is several servers, one of which can be promoted.
    pub has_successor: bool,
    /// Whether the first replica of the API was started less than two minutes ago.
    pub first_has_just_started: bool,
}
