//! One change: what is asked for, and what is decided about it.

use shared::{
    cache::{CacheWrite, CachedOrder},
    domain::{
        event::{Envelope, Event, EventType, Happened},
        order::{CustomerId, LineId, Order, OrderId, OrderKey},
    },
};
use time::OffsetDateTime;

use super::references::Wanted;
use super::{
    super::{
        cache_entry::{entry, tombstone},
        error::OrderError,
        input::OrderUpdate,
        preconditions::Preconditions,
        response::{OrderResponse, RenderRefusal},
        rules::{self, RuleViolation},
    },
    context::CommittedChange,
    job::{Reply, WriteJob},
};
use crate::{
    auth::{Action, Caller},
    db::{ChangedOrder, IdempotencyClaim},
};

/// A change to decide and to write.
pub(crate) struct ChangeJob {
    pub(crate) id: OrderId,
    pub(crate) caller: Caller,
    pub(crate) preconditions: Preconditions,
    pub(crate) change: OrderChange,
    pub(crate) claim: Option<IdempotencyClaim>,
    pub(crate) render_refusal: RenderRefusal,
    pub(crate) traceparent: Option<String>,
    /// How many races it has lost.
    pub(crate) races: u32,
    pub(crate) reply: Reply,
}

/// What to do with the order.
pub(crate) enum OrderChange {
    /// Change it; with a new id for each line of the update.
    Update(OrderUpdate, Vec<LineId>),
    /// Remove it.
    Delete,
}

/// What was decided.
pub(super) enum ChangeDecision {
    /// Nothing changes: this is the response.
    Respond(Result<OrderResponse, OrderError>),
    /// This must be written.
    Write(Box<PreparedChange>),
}

/// A change with everything that is written and answered ready.
pub(super) struct PreparedChange {
    before: Order,
    pub(super) after: Option<Order>,
    event: Envelope,
    response: OrderResponse,
    pub(super) cache: CacheWrite,
}

impl PreparedChange {
    pub(super) fn into_committed(self, reply: Reply) -> CommittedChange {
        CommittedChange { cache: self.cache, reply, response: self.response }
    }

    pub(super) fn event_bytes(&self) -> usize {
        self.event.body.len()
    }

    /// The reference that the order does not have yet.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        let after = self.after.as_ref()?;
        let reference = after.reference.as_ref().filter(|_| after.reference != self.before.reference)?;
        Some((after.owner(), reference.clone()))
    }

    pub(super) fn as_row<'a>(&'a self, job: &'a ChangeJob) -> ChangedOrder<'a> {
        ChangedOrder {
            before: &self.before,
            after: self.after.as_ref(),
            event: &self.event,
            claim: job.claim.as_ref().map(|claim| (claim, &self.response.stored)),
        }
    }
}

impl WriteJob for ChangeJob {
    fn claim(&self) -> Option<&IdempotencyClaim> {
        self.claim.as_ref()
    }

    fn changed_order(&self) -> Option<OrderKey> {
        Some(self.order())
    }

    fn may_access(&self, owner: CustomerId) -> bool {
        self.caller.may_access(owner)
    }

    fn render_refusal(&self) -> &RenderRefusal {
        &self.render_refusal
    }

    fn into_reply(self) -> Reply {
        self.reply
    }
}

impl ChangeJob {
    /// The order of the caller's tenant.
    pub(super) fn order(&self) -> OrderKey {
        self.caller.order(self.id)
    }

    /// Decides on the order as it is.
    pub(super) fn decide(&self, current: Option<&Order>, now: OffsetDateTime) -> ChangeDecision {
        self.apply(current, now).unwrap_or_else(|violation| ChangeDecision::Respond(self.refuse(violation)))
    }

    fn apply(&self, current: Option<&Order>, now: OffsetDateTime) -> Result<ChangeDecision, RuleViolation> {
        let current = current
            .filter(|order| self.caller.may(Action::ChangeOrders, order.customer_id))
            .ok_or(RuleViolation::NotFound)?;
        rules::check_preconditions(current, &self.preconditions)?;
        let happened = Happened {
            time: now.max(current.updated_at),
            performed_by: self.caller.identity(),
            traceparent: self.traceparent.clone(),
        };
        let event = match &self.change {
            OrderChange::Delete => {
                rules::next_version(current)?;
                Event::deleted(current.clone(), happened)
            }
            OrderChange::Update(update, line_ids) => {
                let Some(next) = rules::update_order(current, update, now, line_ids)? else {
                    let response = OrderResponse::ok(current.version, current.to_json().into());
                    return Ok(ChangeDecision::Respond(Ok(response)));
                };
                Event::updated(current, next, happened)
            }
        };
        Ok(ChangeDecision::Write(Box::new(PreparedChange::new(current, event))))
    }
}

impl PreparedChange {
    fn new(before: &Order, event: Event) -> Self {
        let is_deletion = event.event_type == EventType::OrderDeleted;
        let (version, order) = (event.data.version, &event.data.order);
        let (cache, response) = if is_deletion {
            (tombstone(before.key(), version), OrderResponse::deleted())
        } else {
            let body = order.to_bytes();
            let cached = CachedOrder { version, owner: order.customer_id, body: body.clone() };
            (entry(before.key(), cached), OrderResponse::ok(version, body))
        };
        Self {
            before: before.clone(),
            event: event.to_envelope(),
            after: (!is_deletion).then(|| event.data.order.into_value()),
            response,
            cache,
        }
    }
}
