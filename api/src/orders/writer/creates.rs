//! Batches of new orders: one statement, one commit.

use std::sync::Arc;

use bytes::Bytes;
use shared::{
    cache::CacheWrite,
    event::{Envelope, Event},
    order::CustomerId,
};

use super::{
    super::{
        answer::Answer,
        lanes::Work,
        session::{self, GaveUp},
    },
    Committed, Reply, Tools, in_progress, one_per_key, replay, send,
};
use crate::store::{self, Claim, NewOrder};

/// An order to create, with everything that is written and answered ready.
pub(in crate::orders) struct CreateJob {
    pub(in crate::orders) event: Event,
    pub(in crate::orders) envelope: Envelope,
    pub(in crate::orders) content: (CustomerId, Bytes),
    pub(in crate::orders) answer: Answer,
    pub(in crate::orders) claim: Option<Claim>,
    pub(in crate::orders) reply: Reply,
}

pub(super) struct Creates(pub(super) Arc<Tools>);

impl Work<CreateJob> for Creates {
    async fn run(&self, jobs: Vec<CreateJob>) -> Vec<CreateJob> {
        let (batch, held) = one_per_key(jobs, |job| job.claim.as_ref());
        metrics::histogram!("write_batch_size", "kind" => "create").record(size(&batch));
        match self.write(&batch, false).await {
            Ok(written) => self.settle(batch, &written).await,
            // Something of one of them is refused: each alone, so that it is not the others' fault.
            Err(GaveUp::Refused { in_doubt, .. }) => {
                for job in batch {
                    self.one(job, in_doubt).await;
                }
            }
            Err(failure) => batch.into_iter().for_each(|job| send(job.reply, Err(failure.to_api_error()))),
        }
        held
    }
}

/// For each job, whether it was written; otherwise its key is taken.
type Written = Vec<bool>;

impl Creates {
    async fn write(&self, batch: &[CreateJob], in_doubt: bool) -> Result<Written, GaveUp> {
        let new: Vec<NewOrder<'_>> = batch
            .iter()
            .map(|job| NewOrder {
                order: &job.event.data.order,
                event: &job.envelope,
                claim: job.claim.as_ref().map(|claim| (claim, job.answer.kept())),
            })
            .collect();
        let new = &new;
        let (written, _) =
            session::run_again(
                &self.0.db,
                in_doubt,
                |mut db| async move { store::create(&mut db, new).await },
            )
            .await?;
        Ok(new.iter().map(|new| written.contains(&new.order.id)).collect())
    }

    async fn one(&self, job: CreateJob, in_doubt: bool) {
        let batch = vec![job];
        match self.write(&batch, in_doubt).await {
            Ok(written) => self.settle(batch, &written).await,
            // Its id is its own: the attempt whose outcome was unknown has written it.
            Err(GaveUp::Refused { error, in_doubt: true }) if session::violates(&error, "orders_pkey") => {
                self.settle(batch, &vec![true]).await;
            }
            Err(failure) => {
                for job in batch {
                    let error = match &failure {
                        GaveUp::Refused { error, .. } if session::is_lock_timeout(error) => in_progress(),
                        failure => failure.to_api_error(),
                    };
                    send(job.reply, Err(error));
                }
            }
        }
    }

    /// Answers those that were written, and those whose key is taken with what stands under it.
    async fn settle(&self, batch: Vec<CreateJob>, written: &Written) {
        let (mut committed, mut taken) = (Vec::with_capacity(batch.len()), Vec::new());
        for (job, written) in batch.into_iter().zip(written) {
            if *written {
                let order = &job.event.data.order;
                let cache = CacheWrite {
                    id: order.id,
                    version: order.version,
                    content: Some(job.content),
                    may_create: true,
                };
                committed.push(Committed { cache, reply: job.reply, answer: job.answer });
            } else if let Some(claim) = job.claim {
                taken.push((claim, job.reply));
            }
        }
        self.0.publish(committed);
        self.0.replay_all(taken).await;
    }
}

impl Tools {
    /// Answers requests whose key is taken.
    pub(super) async fn replay_all(&self, taken: Vec<(Claim, Reply)>) {
        if taken.is_empty() {
            return;
        }
        let keys: Vec<(CustomerId, &str)> =
            taken.iter().map(|(claim, _)| (claim.caller, claim.key.as_str())).collect();
        let keys = &keys;
        let found = session::read(&self.db, |mut db| async move { store::find(&mut db, keys).await }).await;
        for (claim, reply) in taken {
            let answer = match &found {
                Ok(found) => replay(&claim, found.get(&(claim.caller, claim.key.clone()))),
                Err(failure) => Err(failure.to_api_error()),
            };
            send(reply, answer);
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a batch has a few dozen jobs")]
pub(super) fn size<J>(batch: &[J]) -> f64 {
    batch.len() as f64
}
