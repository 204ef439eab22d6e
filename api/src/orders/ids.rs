//! Ids of orders and lines, reserved in blocks, so that they are known before anything is written.

use std::collections::VecDeque;

use shared::{
    domain::order::{LineId, OrderId},
    platform::db::DbPool,
};
use tokio::sync::{Mutex, MutexGuard};

use super::error::OrderError;
use crate::db;

/// Ids in the first block: few, so that a quiet system wastes few at each start.
const FIRST_BLOCK: i32 = 8;
/// Ids in the largest block: a busy system asks the sequence a few times a second.
const LARGEST_BLOCK: i32 = 512;
/// Ids of lines that are reserved for each id of an order.
const LINES_PER_ORDER: i32 = 4;

/// Blocks of ids. They are handed out in ascending order; those that a process has not used at its end are lost.
pub(crate) struct IdSource {
    db: DbPool,
    blocks: Mutex<IdBlocks>,
}

struct IdBlocks {
    orders: VecDeque<i64>,
    lines: VecDeque<i64>,
    next_size: i32,
}

impl IdSource {
    pub(super) fn new(db: DbPool) -> Self {
        let blocks = IdBlocks { orders: VecDeque::new(), lines: VecDeque::new(), next_size: FIRST_BLOCK };
        Self { db, blocks: Mutex::new(blocks) }
    }

    /// Takes an id for an order and ids for its lines.
    pub(crate) async fn take_for_order(&self, lines: usize) -> Result<(OrderId, Vec<LineId>), OrderError> {
        let mut blocks = self.lock_filled(1, lines).await?;
        let order = blocks.orders.pop_front().unwrap_or_default();
        let lines = blocks.lines.drain(..lines).map(LineId::try_from).collect::<Result<_, _>>()?;
        Ok((order.try_into()?, lines))
    }

    /// Takes ids for lines alone.
    pub(crate) async fn take_for_lines(&self, lines: usize) -> Result<Vec<LineId>, OrderError> {
        if lines == 0 {
            return Ok(Vec::new());
        }
        let mut blocks = self.lock_filled(0, lines).await?;
        Ok(blocks.lines.drain(..lines).map(LineId::try_from).collect::<Result<_, _>>()?)
    }

    /// Forgets the ids of orders that are left: others may have them, too.
    pub(super) async fn discard(&self) {
        self.blocks.lock().await.orders.clear();
    }

    /// Locks the blocks with at least this many ids in them.
    async fn lock_filled(&self, orders: usize, lines: usize) -> Result<MutexGuard<'_, IdBlocks>, OrderError> {
        let mut blocks = self.blocks.lock().await;
        if blocks.orders.len() >= orders && blocks.lines.len() >= lines {
            return Ok(blocks);
        }
        let lacking = |have: usize, want: usize, block: i32| if have < want { block } else { 0 };
        let line_block = (blocks.next_size * LINES_PER_ORDER).max(i32::try_from(lines).unwrap_or(i32::MAX));
        let more_orders = lacking(blocks.orders.len(), orders, blocks.next_size);
        let more_lines = lacking(blocks.lines.len(), lines, line_block);
        // Boxed, because it happens rarely and would make the future of every request ten times as large.
        let reserved = Box::pin(self.db.read_with_retry(|mut db| async move {
            db::reserve_ids(&mut db, more_orders, more_lines).await
        }))
        .await?;
        blocks.orders.extend(reserved.orders);
        blocks.lines.extend(reserved.lines);
        blocks.next_size = (blocks.next_size * 2).min(LARGEST_BLOCK);
        Ok(blocks)
    }
}
