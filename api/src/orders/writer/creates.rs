//! Batches of new orders: one statement, one commit.

use std::sync::Arc;

use shared::{db::Connections, event::Envelope, lanes::Work, order::Order};

use super::{
    super::{
        answer::Answer,
        session::{self, GaveUp},
    },
    Keyed, Reply, Tools, in_progress, one_per_key, send,
};
use crate::{
    error::ApiError,
    store::{self, Claim, NewOrder},
};

/// An order to create, with everything that is written and answered ready.
pub(in crate::orders) struct CreateJob {
    pub(in crate::orders) order: Order,
    pub(in crate::orders) event: Envelope,
    pub(in crate::orders) answer: Answer,
    pub(in crate::orders) claim: Option<Claim>,
    pub(in crate::orders) reply: Reply,
}

impl Keyed for CreateJob {
    fn claim(&self) -> Option<&Claim> {
        self.claim.as_ref()
    }

    fn answer(self, answer: Result<Answer, ApiError>) {
        send(self.reply, answer);
    }
}

pub(super) struct Creates {
    db: Connections,
    tools: Arc<Tools>,
}

impl Work<CreateJob> for Creates {
    async fn run(&self, jobs: Vec<CreateJob>) -> Vec<CreateJob> {
        let (batch, mut taken) = one_per_key(jobs);
        metrics::histogram!("write_batch_size", "kind" => "create").record(size(&batch));
        match self.write(&batch, false).await {
            Ok(written) => taken.extend(self.settle(batch, &written)),
            // Something of one of them is refused: each alone, so that it is not the others' fault.
            Err(GaveUp::Refused { in_doubt, .. }) => {
                for job in batch {
                    taken.extend(self.one(job, in_doubt).await);
                }
            }
            Err(failure) => {
                for job in batch {
                    job.answer(Err(failure.to_api_error()));
                }
            }
        }
        self.tools.replay(taken).await
    }
}

impl Creates {
    /// `db` has a connection for each lane.
    pub(super) fn new(db: Connections, tools: &Arc<Tools>) -> Self {
        Self { db, tools: Arc::clone(tools) }
    }

    /// Tells for each job whether it was written; otherwise its key is taken.
    async fn write(&self, batch: &[CreateJob], in_doubt: bool) -> Result<Vec<bool>, GaveUp> {
        let new: Vec<NewOrder<'_>> = batch
            .iter()
            .map(|job| NewOrder {
                order: &job.order,
                event: &job.event,
                claim: job.claim.as_ref().map(|claim| (claim, job.answer.kept())),
            })
            .collect();
        let new = &new;
        let (written, _) =
            session::run_again(&self.db, in_doubt, |mut db| async move { store::create(&mut db, new).await })
                .await?;
        Ok(new.iter().map(|new| written.contains(&new.order.id)).collect())
    }

    /// Writes a job alone, and gives it back where its key is taken.
    async fn one(&self, job: CreateJob, in_doubt: bool) -> Vec<CreateJob> {
        let batch = vec![job];
        match self.write(&batch, in_doubt).await {
            Ok(written) => self.settle(batch, &written),
            // Its id is its own: the attempt whose outcome was unknown has written it.
            Err(GaveUp::Refused { error, in_doubt: true }) if session::violates(&error, "orders_pkey") => {
                self.settle(batch, &[true])
            }
            Err(failure) => {
                for job in batch {
                    let error = match &failure {
                        GaveUp::Refused { error, .. } if session::is_lock_timeout(error) => in_progress(),
                        failure => failure.to_api_error(),
                    };
                    job.answer(Err(error));
                }
                Vec::new()
            }
        }
    }

    /// Answers those that were written, and gives back those whose key is taken.
    ///
    /// The cache is left to the worker: it holds nothing of a new order that could be wrong, and so nobody writes twice.
    fn settle(&self, batch: Vec<CreateJob>, written: &[bool]) -> Vec<CreateJob> {
        self.tools.wake.wake();
        let mut taken = Vec::new();
        for (job, written) in batch.into_iter().zip(written) {
            if *written {
                send(job.reply, Ok(job.answer));
            } else {
                taken.push(job);
            }
        }
        taken
    }
}

#[expect(clippy::cast_precision_loss, reason = "a batch has a few dozen jobs")]
pub(super) fn size<J>(batch: &[J]) -> f64 {
    batch.len() as f64
}
