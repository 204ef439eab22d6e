//! The status of an order and its moves, as data.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The status of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OrderStatus {
    /// Placed; its date and lines may still change.
    Pending,
    /// Accepted for fulfilment.
    Confirmed,
    /// On its way.
    Shipped,
    /// Arrived. Nothing follows.
    Delivered,
    /// Called off. Nothing follows.
    Cancelled,
}

use OrderStatus::{Cancelled, Confirmed, Delivered, Pending, Shipped};

/// The status moves: the one table that the code, the documents and the tests share.
pub const MOVES: [(OrderStatus, &[OrderStatus]); 5] = [
    (Pending, &[Confirmed, Shipped, Cancelled]),
    (Confirmed, &[Shipped, Cancelled]),
    (Shipped, &[Delivered]),
    (Delivered, &[]),
    (Cancelled, &[]),
];

impl OrderStatus {
    /// Every status.
    pub const ALL: [Self; 5] = [Pending, Confirmed, Shipped, Delivered, Cancelled];

    /// The statuses that may follow this one.
    pub fn moves(self) -> &'static [Self] {
        MOVES.iter().find(|(from, _)| *from == self).map_or(&[], |(_, to)| to)
    }

    /// Reports whether an order can go from this status to `to`. Staying is no move.
    pub fn can_become(self, to: Self) -> bool {
        self.moves().contains(&to)
    }

    /// The name as clients and the column write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Pending => "PENDING",
            Confirmed => "CONFIRMED",
            Shipped => "SHIPPED",
            Delivered => "DELIVERED",
            Cancelled => "CANCELLED",
        }
    }
}

impl fmt::Display for OrderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be one of PENDING, CONFIRMED, SHIPPED, DELIVERED, CANCELLED")]
pub struct UnknownStatus;

impl FromStr for OrderStatus {
    type Err = UnknownStatus;

    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(UnknownStatus)
    }
}
