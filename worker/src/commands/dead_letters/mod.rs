//! `worker dead-letters`: each of its commands a file.
//! The dead letter itself is in `crate::dead_letters`, its SQL in `crate::store::dead_letters`.

pub(super) mod list;
pub(super) mod purge;
pub(super) mod redrive;
pub(super) mod show;

use clap::{CommandFactory as _, error::ErrorKind};

use crate::cli::{Cli, Which};

/// Exits with an error unless the command line names dead letters: a forgotten filter must not mean all of them.
fn require_choice(ids: &[i64], which: &Which, all: bool) {
    if ids.is_empty() && which.is_everything() && !all {
        Cli::command()
            .error(
                ErrorKind::MissingRequiredArgument,
                "name the dead letters: numbers, a filter such as --order, or --all",
            )
            .exit();
    }
}
