//! One change: what is asked for, and what is decided of it.

use shared::{
    cache::CacheWrite,
    domain::{
        event::{Envelope, Event, Happened},
        order::{CustomerId, LineId, Order, OrderId},
    },
};
use time::OffsetDateTime;

use super::{
    super::rules::{self, RuleViolation, Update},
    Committed, Keyed, Reply,
};
use crate::{
    auth::Caller,
    db::{Change, IdempotencyClaim},
    http::{
        error::ApiError,
        orders::{
            conditional::Preconditions,
            response::{Answer, Asked},
        },
    },
};

/// A change to decide and to write.
pub(crate) struct ChangeJob {
    pub(crate) id: OrderId,
    pub(crate) caller: Caller,
    pub(crate) preconditions: Preconditions,
    pub(crate) command: Command,
    pub(crate) claim: Option<IdempotencyClaim>,
    pub(crate) asked: Asked,
    pub(crate) traceparent: Option<String>,
    pub(crate) races: u32,
    pub(crate) reply: Reply,
}

/// What shall be done to the order.
pub(crate) enum Command {
    /// Change it; with an id at hand for each line of the update.
    Update(Update, Vec<LineId>),
    /// Remove it.
    Delete,
}

/// What was decided.
pub(crate) enum Decision {
    /// Nothing changes: the answer.
    Answer(Result<Answer, ApiError>),
    /// This is to be written.
    Write(Box<Prepared>),
}

/// A change with everything that is written and answered ready.
pub(crate) struct Prepared {
    before: Order,
    pub(crate) after: Option<Order>,
    event: Envelope,
    answer: Answer,
    pub(crate) cache: CacheWrite,
}

impl Prepared {
    pub(crate) fn commit(self, reply: Reply) -> Committed {
        Committed { cache: self.cache, reply, answer: self.answer }
    }

    pub(crate) fn as_change<'a>(&'a self, job: &'a ChangeJob) -> Change<'a> {
        Change {
            before: &self.before,
            after: self.after.as_ref(),
            event: &self.event,
            claim: job.claim.as_ref().map(|claim| (claim, self.answer.kept())),
        }
    }
}

impl Keyed for ChangeJob {
    fn claim(&self) -> Option<&IdempotencyClaim> {
        self.claim.as_ref()
    }

    fn changed_order(&self) -> Option<OrderId> {
        Some(self.id)
    }

    fn may_access(&self, owner: CustomerId) -> bool {
        self.caller.may_access(owner)
    }

    fn into_reply(self) -> Reply {
        self.reply
    }
}

impl ChangeJob {
    /// Decides on the order as it is.
    pub(crate) fn decide(&self, current: Option<&Order>, now: OffsetDateTime) -> Decision {
        match self.next(current, now) {
            Ok(decision) => decision,
            Err(refusal) => {
                let error = ApiError::from(refusal);
                // Where there is a key, the refusal is kept as it is sent.
                Decision::Answer(match self.claim {
                    Some(_) => Ok(Answer::refused(&error, &self.asked)),
                    None => Err(error),
                })
            }
        }
    }

    fn next(&self, current: Option<&Order>, now: OffsetDateTime) -> Result<Decision, RuleViolation> {
        let current = current
            .filter(|order| self.caller.may_access(order.customer_id))
            .ok_or(RuleViolation::NotFound)?;
        rules::check(current, &self.preconditions)?;
        let after = match &self.command {
            Command::Delete => rules::next_version(current).map(|_| None)?,
            Command::Update(update, spare) => {
                let Some(next) = rules::update(current, update, now, spare)? else {
                    let answer = Answer::found(current.version, current.to_json().into());
                    return Ok(Decision::Answer(Ok(answer)));
                };
                Some(next)
            }
        };
        Ok(Decision::Write(Box::new(self.prepare(current, after, now))))
    }

    fn prepare(&self, before: &Order, after: Option<Order>, now: OffsetDateTime) -> Prepared {
        let happened = Happened {
            time: now.max(before.updated_at),
            performed_by: self.caller.customer_id,
            traceparent: self.traceparent.clone(),
        };
        let is_deletion = after.is_none();
        let event = match after {
            Some(after) => Event::updated(before, after, happened),
            None => Event::deleted(before.clone(), happened),
        };
        let (version, order) = (event.data.version, &event.data.order);
        let (content, answer) = if is_deletion {
            (None, Answer::deleted())
        } else {
            let body = order.to_bytes();
            (Some((order.customer_id, body.clone())), Answer::found(version, body))
        };
        Prepared {
            before: before.clone(),
            event: event.to_envelope(),
            after: (!is_deletion).then(|| event.data.order.into_value()),
            answer,
            cache: CacheWrite { id: before.id, version, content, may_create: true },
        }
    }
}
