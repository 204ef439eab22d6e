//! `worker rebuild-cache`.

use anyhow::Context as _;
use shared::cache::Cache;
use shared::platform::db::DbPool;

use super::{
    connection,
    screen::{bar, counted, say},
};
use crate::{cache_debts::current, store::orders};

/// Orders in one go.
const BATCH: i64 = 500;

/// Writes every order's entry as a reader would who missed it: read, then compare-and-set. What was written meanwhile is
/// newer and stays.
pub(super) async fn rebuild_cache(db: &DbPool, cache: &Cache) -> anyhow::Result<()> {
    let mut connection = connection(db).await?;
    let progress = bar(orders::count(&mut connection).await?, "rebuilding");
    let (mut last, mut seen, mut written) = (0, 0_usize, 0_usize);
    loop {
        let ids = orders::ids_after(&mut connection, last, BATCH).await?;
        let Some(end) = ids.last() else { break };
        last = end.get();
        let found = orders::by_ids(&mut connection, &ids).await?;
        let writes = found.iter().map(|order| current(order, true)).collect::<Vec<_>>();
        let answers = cache.put(&writes).await.context("the cache did not take the entries")?;
        seen += writes.len();
        written += answers.into_iter().filter(|written| *written).count();
        progress.inc(ids.len() as u64);
    }
    progress.finish_and_clear();
    say(&format!(
        "wrote {} of {}",
        counted(written, "entry").replace("entrys", "entries"),
        counted(seen, "order")
    ))
}
