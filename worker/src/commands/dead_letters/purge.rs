//! `worker dead-letters purge`.

use std::process::ExitCode;

use shared::platform::db::DbPool;

use super::demand_choice;
use crate::{
    cli::Purge,
    commands::{
        connection,
        screen::{counted, say},
    },
    store::dead_letters,
};

/// Removes them, or says how many there are.
pub(in crate::commands) async fn purge(db: &DbPool, purge: &Purge) -> anyhow::Result<ExitCode> {
    demand_choice(&purge.ids, &purge.which, purge.all);
    let filter = purge.which.filter(&purge.ids, false);
    let mut connection = connection(db).await?;
    if purge.yes {
        let removed = dead_letters::delete(&mut connection, &filter).await?;
        say(&format!("removed {}", counted(removed, "dead letter")))?;
        return Ok(ExitCode::SUCCESS);
    }
    let count = dead_letters::count(&mut connection, &filter).await?;
    say(&format!("would remove {}; say --yes to do so", counted(count, "dead letter")))?;
    Ok(ExitCode::FAILURE)
}
