//! Ids of orders and lines, at hand before anything is written.

use std::collections::VecDeque;

use shared::{
    domain::order::{LineId, OrderId},
    platform::db::DbPool,
};
use tokio::sync::Mutex;

use crate::{db, http::error::ApiError};

/// The first block is small, so that a quiet system wastes few ids at each start.
const FIRST_BLOCK: i32 = 8;
/// A busy system goes to the sequence a few times a second.
const LARGEST_BLOCK: i32 = 512;
/// Ids of lines taken for one id of an order.
const LINES_PER_ORDER: i32 = 4;

/// Blocks of ids. They are handed out in ascending order; what a process has not used at its end is lost.
pub(crate) struct IdSource {
    db: DbPool,
    blocks: Mutex<Blocks>,
}

struct Blocks {
    orders: VecDeque<i64>,
    lines: VecDeque<i64>,
    next: i32,
}

impl IdSource {
    pub(crate) fn new(db: DbPool) -> Self {
        let blocks = Blocks { orders: VecDeque::new(), lines: VecDeque::new(), next: FIRST_BLOCK };
        Self { db, blocks: Mutex::new(blocks) }
    }

    /// One for an order and `lines` for its lines.
    pub(crate) async fn order(&self, lines: usize) -> Result<(OrderId, Vec<LineId>), ApiError> {
        let mut blocks = self.stocked(1, lines).await?;
        let order = blocks.orders.pop_front().unwrap_or_default();
        let lines = blocks.lines.drain(..lines).map(line_id).collect::<Result<_, _>>()?;
        Ok((order.try_into().map_err(ApiError::internal)?, lines))
    }

    /// Some for lines alone.
    pub(crate) async fn lines(&self, lines: usize) -> Result<Vec<LineId>, ApiError> {
        if lines == 0 {
            return Ok(Vec::new());
        }
        self.stocked(0, lines).await?.lines.drain(..lines).map(line_id).collect()
    }

    async fn stocked(
        &self,
        orders: usize,
        lines: usize,
    ) -> Result<tokio::sync::MutexGuard<'_, Blocks>, ApiError> {
        let mut blocks = self.blocks.lock().await;
        if blocks.orders.len() >= orders && blocks.lines.len() >= lines {
            return Ok(blocks);
        }
        let lacking = |have: usize, want: usize, block: i32| if have < want { block } else { 0 };
        let line_block = (blocks.next * LINES_PER_ORDER).max(i32::try_from(lines).unwrap_or(i32::MAX));
        let more_orders = lacking(blocks.orders.len(), orders, blocks.next);
        let more_lines = lacking(blocks.lines.len(), lines, line_block);
        // Boxed: it happens rarely, and what it needs would make every request's future ten times as large.
        let taken =
            Box::pin(self.db.read_with_retry(|mut db| async move {
                db::take_ids(&mut db, more_orders, more_lines).await
            }))
            .await?;
        blocks.orders.extend(taken.orders);
        blocks.lines.extend(taken.lines);
        blocks.next = (blocks.next * 2).min(LARGEST_BLOCK);
        Ok(blocks)
    }
}

fn line_id(id: i64) -> Result<LineId, ApiError> {
    id.try_into().map_err(ApiError::internal)
}
