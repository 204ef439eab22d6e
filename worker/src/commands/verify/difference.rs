//! The differences that `worker verify` reports.

use std::fmt;

use shared::domain::order::OrderKey;
use uuid::Uuid;

/// A difference between the stores. Two comparisons find an equal one only if nothing changed in between.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::commands) enum Difference {
    /// The log has an event that the history lacks.
    NotRecorded { order: i64, version: i64, event: Uuid },
    /// The history has an event that the log should still hold, and does not.
    NotLogged { order: i64, version: i64, event: Uuid },
    /// The history differs from the log.
    RecordDiffers { order: i64, version: i64, event: Uuid },
    /// Neither log nor history has these versions: the log's partition was dropped before they were recorded.
    Lost { order: i64, first: i64, last: i64 },
    /// Two events of the log claim one version.
    TwoEvents { order: i64, version: i64 },
    /// The order is not what the log says of its version.
    OrderDiffers { order: i64, version: i64 },
    /// A newer version than the order's is recorded.
    OrderBehind { order: i64, version: i64, recorded: i64 },
    /// The order is gone and no deletion is recorded.
    OrderMissing { order: i64, recorded: i64 },
    /// A deletion is recorded and the order is there.
    NotDeleted { order: i64, deleted_by: i64 },
    /// The cache entry is wrong.
    Cache { order: OrderKey, fault: CacheFault },
}

/// What is wrong with a cache entry. With the cached version, an entry that changes is no longer the same difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::commands) enum CacheFault {
    /// Not an entry that this system writes.
    Unreadable,
    /// Older than the order.
    Behind { cached: i64 },
    /// Newer than the order.
    Ahead { cached: i64 },
    /// Of the order's version, with another owner or body.
    Differs { cached: i64 },
    /// An order that does not exist.
    Orphan { cached: i64 },
    /// A deletion of an order that exists.
    Tombstone { cached: i64 },
}

impl Difference {
    /// Which order it is about.
    pub(super) fn order(&self) -> i64 {
        match self {
            Self::NotRecorded { order, .. }
            | Self::NotLogged { order, .. }
            | Self::RecordDiffers { order, .. }
            | Self::Lost { order, .. }
            | Self::TwoEvents { order, .. }
            | Self::OrderDiffers { order, .. }
            | Self::OrderBehind { order, .. }
            | Self::OrderMissing { order, .. }
            | Self::NotDeleted { order, .. } => *order,
            Self::Cache { order, .. } => order.id.get(),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRecorded { order, version, event } => {
                write!(f, "order {order} version {version}: not in the history (event {event})")
            }
            Self::NotLogged { order, version, event } => write!(
                f,
                "order {order} version {version}: the log has lost what the history has (event {event}); cannot be repaired"
            ),
            Self::RecordDiffers { order, version, event } => {
                write!(f, "order {order} version {version}: the history differs from the log (event {event})")
            }
            Self::Lost { order, first, last } if first == last => {
                write!(
                    f,
                    "order {order} version {first}: neither in the log nor in the history; cannot be repaired"
                )
            }
            Self::Lost { order, first, last } => write!(
                f,
                "order {order} versions {first} to {last}: neither in the log nor in the history; cannot be repaired"
            ),
            Self::TwoEvents { order, version } => {
                write!(
                    f,
                    "order {order} version {version}: more than one event in the log; cannot be repaired"
                )
            }
            Self::OrderDiffers { order, version } => {
                write!(
                    f,
                    "order {order} version {version}: the order differs from its event; cannot be repaired"
                )
            }
            Self::OrderBehind { order, version, recorded } => write!(
                f,
                "order {order}: is at version {version} although version {recorded} is recorded; cannot be repaired"
            ),
            Self::OrderMissing { order, recorded } => write!(
                f,
                "order {order}: does not exist, and version {recorded}, the last one recorded, does not delete it; cannot be repaired"
            ),
            Self::NotDeleted { order, deleted_by } => {
                write!(
                    f,
                    "order {order}: exists although version {deleted_by} deleted it; cannot be repaired"
                )
            }
            Self::Cache { order, fault } => write!(f, "order {order}: the cache {fault}"),
        }
    }
}

impl fmt::Display for CacheFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable => write!(f, "holds an unreadable entry"),
            Self::Behind { cached } => write!(f, "holds version {cached}, which is older than the order"),
            Self::Ahead { cached } => write!(f, "holds version {cached}, which the order has not reached"),
            Self::Differs { cached } => {
                write!(f, "holds version {cached} with another content than the order")
            }
            Self::Orphan { cached } => write!(f, "holds version {cached} of an order that does not exist"),
            Self::Tombstone { cached } => {
                write!(f, "says that version {cached} deleted the order, which exists")
            }
        }
    }
}
