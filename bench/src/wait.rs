//! Waiting for a condition with a bound.

use std::time::{Duration, Instant};

use anyhow::bail;

const WAIT_TIMEOUT: Duration = Duration::from_mins(5);
const PAUSE: Duration = Duration::from_millis(50);

/// Looks until the condition holds; fails, saying what was waited for, when it does not in five minutes.
pub async fn until(
    what: &str,
    mut condition: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !condition().await? {
        if begun.elapsed() > WAIT_TIMEOUT {
            bail!("waited in vain until {what}");
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
