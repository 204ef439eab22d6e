//! `worker dead-letters purge`.

use std::process::ExitCode;

use shared::platform::db::DbPool;

use super::require_choice;
use crate::{
    cli::Purge,
    commands::{
        connect::acquire_connection,
        screen::{format_count, print_line},
    },
    store::dead_letters,
};

/// Deletes dead letters, or prints how many it would delete.
pub(in crate::commands) async fn purge_dead_letters(db: &DbPool, purge: &Purge) -> anyhow::Result<ExitCode> {
    require_choice(&purge.ids, &purge.which, purge.all);
    let filter = purge.which.filter(&purge.ids, false);
    let mut connection = acquire_connection(db).await?;
    if purge.yes {
        let removed = dead_letters::delete_dead_letters(&mut connection, &filter).await?;
        print_line(&format!("removed {}", format_count(removed, "dead letter")))?;
        return Ok(ExitCode::SUCCESS);
    }
    let count = dead_letters::count_dead_letters(&mut connection, &filter).await?;
    print_line(&format!("would remove {}; say --yes to do so", format_count(count, "dead letter")))?;
    Ok(ExitCode::FAILURE)
}
