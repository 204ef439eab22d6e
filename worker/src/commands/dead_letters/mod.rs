//! `worker dead-letters`.

pub(super) mod list;
pub(super) mod purge;
pub(super) mod redrive;
pub(super) mod show;

use clap::{CommandFactory as _, error::ErrorKind};

use crate::cli::{Cli, Which};

/// What changes dead letters wants to be told which: forgetting the filter must not mean all of them.
fn demand_choice(ids: &[i64], which: &Which, all: bool) {
    if ids.is_empty() && which.is_everything() && !all {
        Cli::command()
            .error(
                ErrorKind::MissingRequiredArgument,
                "say which dead letters: numbers, a filter such as --order, or --all",
            )
            .exit();
    }
}
