//! An event of the feed, and which events a reader wants.

use std::{sync::OnceLock, time::Duration};

use bytes::Bytes;
use serde::Deserialize;
use shared::domain::{
    event::EventType,
    order::{CustomerId, OrderId},
    tenant::TenantId,
};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::cursor::FeedScope;
use crate::db::LogRow;

/// An event, shared by all who read it.
#[derive(Debug)]
pub struct FeedEvent {
    /// Its place in the log.
    pub position: i64,
    /// Its type.
    pub event_type: String,
    /// The `CloudEvent`, byte for byte as it was written.
    pub body: Bytes,
    /// Whose order it is about; `None` if it was removed with its tenant.
    tenant: Option<TenantId>,
    order_id: i64,
    /// When it got its position, by this process's clock.
    sequenced: Option<Instant>,
    /// Which customer's order it is about; read when first needed. `None` if the event does not say.
    owner: OnceLock<Option<CustomerId>>,
}

/// The part of an event that says whose it is.
#[derive(Deserialize)]
struct OwnedEvent {
    data: OwnedData,
}

#[derive(Deserialize)]
struct OwnedData {
    customer_id: CustomerId,
}

impl FeedEvent {
    /// An event as it was read at `read_at`, when the database's clock showed `database_time`.
    pub(super) fn new(row: LogRow, database_time: OffsetDateTime, read_at: Instant) -> Self {
        let age = Duration::try_from(database_time - row.sequenced_at).unwrap_or_default();
        Self {
            position: row.position,
            event_type: row.event_type,
            body: Bytes::from(row.payload),
            tenant: row.tenant,
            order_id: row.order_id,
            sequenced: read_at.checked_sub(age),
            owner: OnceLock::new(),
        }
    }

    /// The same event, which knows already whose it is.
    pub(super) fn with_owner(self) -> Self {
        self.owner();
        self
    }

    /// How long ago it got its position.
    pub fn age(&self) -> Duration {
        self.sequenced.map_or(Duration::ZERO, |at| at.elapsed())
    }

    /// Which customer's order it is about.
    fn owner(&self) -> Option<CustomerId> {
        *self.owner.get_or_init(|| {
            serde_json::from_slice::<OwnedEvent>(&self.body).ok().map(|event| event.data.customer_id)
        })
    }
}

/// Which events a reader wants. All conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// These types; empty stands for all of them.
    pub types: Vec<EventType>,
    /// The events of this order.
    pub order_id: Option<OrderId>,
}

impl EventFilter {
    /// Whether a reader of this scope wants this event and may see it.
    pub(super) fn admits(&self, scope: FeedScope, event: &FeedEvent) -> bool {
        event.tenant == Some(scope.tenant)
            && self.order_id.is_none_or(|order| order.get() == event.order_id)
            && (self.types.is_empty() || self.types.iter().any(|wanted| wanted.as_str() == event.event_type))
            && scope.customer.is_none_or(|customer| event.owner() == Some(customer))
    }

    /// Whether every event of the tenant passes.
    pub(super) fn admits_all(&self, scope: FeedScope) -> bool {
        scope.customer.is_none() && *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(payload: &str) -> FeedEvent {
        let now = OffsetDateTime::UNIX_EPOCH;
        let row = LogRow {
            position: 1,
            tenant: Some(TenantId::DEFAULT),
            sequenced_at: now,
            event_type: "OrderUpdated".to_owned(),
            order_id: 5,
            payload: payload.to_owned(),
        };
        FeedEvent::new(row, now, Instant::now())
    }

    const ALL: FeedScope = FeedScope { tenant: TenantId::DEFAULT, customer: None };

    fn customer(id: i64) -> FeedScope {
        FeedScope { customer: Some(id.try_into().unwrap()), ..ALL }
    }

    #[test]
    fn nobody_sees_an_event_of_another_tenant_or_one_that_was_removed() {
        let payload = r#"{"data": {"customer_id": 7}}"#;
        let another = FeedScope { tenant: 2.try_into().unwrap(), ..ALL };
        for scope in [another, FeedScope { customer: customer(7).customer, ..another }] {
            assert!(!EventFilter::default().admits(scope, &event(payload)));
        }
        let removed = FeedEvent { tenant: None, ..event(payload) };
        for scope in [ALL, customer(7)] {
            assert!(EventFilter::default().admits(scope, &event(payload)));
            assert!(!EventFilter::default().admits(scope, &removed));
        }
    }

    #[test]
    fn a_customer_sees_only_events_that_name_it_as_the_owner() {
        let all = EventFilter::default();
        let own = event(r#"{"id": "x", "data": {"order_id": 5, "customer_id": 7, "performed_by": 8}}"#);
        assert!(all.admits(ALL, &own));
        assert!(all.admits(customer(7), &own));
        assert!(!all.admits(customer(8), &own));
        for unowned in ["{}", r#"{"data": {}}"#, r#"{"customer_id": 7}"#, "not JSON"] {
            assert!(all.admits(ALL, &event(unowned)), "{unowned}");
            assert!(!all.admits(customer(7), &event(unowned)), "{unowned}");
        }
    }

    #[test]
    fn types_and_the_order_must_both_fit() {
        let event = event("{}");
        let filter = |types: &[EventType], order: Option<i64>| EventFilter {
            types: types.to_vec(),
            order_id: order.map(|id| id.try_into().unwrap()),
        };
        let updated = [EventType::OrderCreated, EventType::OrderUpdated];
        assert!(filter(&updated, Some(5)).admits(ALL, &event));
        assert!(!filter(&updated, Some(6)).admits(ALL, &event));
        assert!(!filter(&[EventType::OrderDeleted], Some(5)).admits(ALL, &event));
    }
}
