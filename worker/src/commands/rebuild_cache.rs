//! `worker rebuild-cache`.

use anyhow::Context as _;
use shared::cache::Cache;
use shared::platform::db::DbPool;

use super::{
    connect::acquire_connection,
    screen::{format_count, print_line, progress_bar},
};
use crate::{cache_debts::current_entry, store::orders};

/// Orders of a batch.
const BATCH: i64 = 500;

/// Writes every order's entry as a reader does who missed it: an entry that was written meanwhile is newer and stays. So it
/// works, too, after Redis has evicted entries.
pub(super) async fn rebuild_cache(db: &DbPool, cache: &Cache) -> anyhow::Result<()> {
    let mut connection = acquire_connection(db).await?;
    let progress = progress_bar(orders::count_orders(&mut connection).await?, "rebuilding");
    let (mut last, mut seen, mut written) = (0, 0_usize, 0_usize);
    loop {
        let keys = orders::load_keys_after(&mut connection, last, BATCH).await?;
        let Some(end) = keys.last() else { break };
        last = end.id.get();
        let token = cache.begin_fill(&keys).await.context("cannot write to the cache")?;
        let found = orders::load_orders(&mut connection, &keys).await?;
        let writes = found.iter().map(|order| current_entry(order, true)).collect::<Vec<_>>();
        let outcomes = cache.fill(&token, &writes).await.context("cannot write the entries to the cache")?;
        seen += writes.len();
        written += outcomes.into_iter().filter(|written| *written).count();
        progress.inc(keys.len() as u64);
    }
    progress.finish_and_clear();
    print_line(&format!(
        "wrote {} of {}",
        format_count(written, "entry").replace("entrys", "entries"),
        format_count(seen, "order")
    ))
}
