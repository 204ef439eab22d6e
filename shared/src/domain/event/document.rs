//! The JSON document that is an event.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::event_type::EventType;
use crate::domain::{
    encoded::Encoded,
    order::{Changes, CustomerId, FieldChange, Order, OrderId},
    tenant::TenantId,
    timestamp,
};

/// The version of the layout of `data`.
pub const SCHEMA_VERSION: u32 = 1;

pub(super) const SPECVERSION: &str = "1.0";
pub(super) const SOURCE: &str = "/orders";
pub(super) const DATA_CONTENT_TYPE: &str = "application/json";

/// The document that is an event. Its fields are written in this order.
#[derive(Serialize, Deserialize, ToSchema)]
#[schema(as = Event)]
pub struct Document<'a> {
    /// Always `1.0`.
    #[serde(borrow)]
    pub(super) specversion: Cow<'a, str>,
    /// The event's identity: the same on every delivery.
    pub(super) id: Uuid,
    /// Always `/orders`.
    #[serde(borrow)]
    pub(super) source: Cow<'a, str>,
    /// What happened.
    #[serde(rename = "type")]
    pub(super) event_type: EventType,
    /// The order's id as text.
    #[serde(borrow)]
    pub(super) subject: Cow<'a, str>,
    /// When it happened.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub(super) time: OffsetDateTime,
    /// Always `application/json`.
    #[serde(borrow)]
    pub(super) datacontenttype: Cow<'a, str>,
    /// The version as text of twenty digits, so that text order is number order.
    #[serde(borrow)]
    pub(super) sequence: Cow<'a, str>,
    /// Events of one key are in order by `sequence`: the order's id as text.
    #[serde(borrow)]
    pub(super) partitionkey: Cow<'a, str>,
    /// The number of the tenant as text. Left out for the default tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, nullable = false, pattern = "^[1-9][0-9]{0,9}$")]
    pub(super) tenantid: Option<Cow<'a, str>>,
    /// The W3C trace that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) traceparent: Option<String>,
    /// The version of the layout of `data`.
    pub(super) schemaversion: u32,
    /// The facts.
    #[schema(value_type = EventData)]
    pub(super) data: Cow<'a, EventData>,
}

/// The facts of an event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventData {
    /// Which order.
    pub order_id: OrderId,
    /// Its version after the change.
    #[schema(minimum = 1)]
    pub version: i64,
    /// Who it belongs to.
    pub customer_id: CustomerId,
    /// Who did it.
    pub performed_by: CustomerId,
    /// The tenant of who did it: an operator's own. Left out if it is that of the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub performed_by_tenant: Option<TenantId>,
    /// Each changed field before and after.
    #[schema(value_type = std::collections::BTreeMap<String, FieldChange>)]
    pub changes: Changes,
    /// The order as answered; for `OrderDeleted`, as it last was.
    #[schema(value_type = Order)]
    pub order: Encoded<Order>,
}
