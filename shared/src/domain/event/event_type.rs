//! The types of events.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::order::MAX_VERSION;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum EventType {
    /// A new order, at version 1.
    OrderCreated,
    /// Its next version.
    OrderUpdated,
    /// Its last version: the order is gone.
    OrderDeleted,
}

impl EventType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::OrderCreated, Self::OrderUpdated, Self::OrderDeleted];

    /// The name in the event's JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OrderCreated => "OrderCreated",
            Self::OrderUpdated => "OrderUpdated",
            Self::OrderDeleted => "OrderDeleted",
        }
    }

    /// The name of the action in the history: the type in capitals, without `Order`. `worker verify` compares by this rule.
    pub const fn action(self) -> &'static str {
        match self {
            Self::OrderCreated => "CREATED",
            Self::OrderUpdated => "UPDATED",
            Self::OrderDeleted => "DELETED",
        }
    }

    /// Reports whether an event of this type can have this version and carry the order at `order_version`: a creation is
    /// version 1, an update the order's version, and a deletion one more than the order's last version.
    pub(super) fn allows_versions(self, version: i64, order_version: i64) -> bool {
        match self {
            Self::OrderCreated => version == 1 && order_version == 1,
            Self::OrderUpdated => (2..=MAX_VERSION).contains(&version) && order_version == version,
            Self::OrderDeleted => (2..=MAX_VERSION).contains(&version) && order_version == version - 1,
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_the_type_in_capitals_without_order() {
        for event_type in EventType::ALL {
            let verb = event_type.as_str().strip_prefix("Order").expect("every type begins so");
            assert_eq!(event_type.action(), verb.to_uppercase());
        }
    }
}
