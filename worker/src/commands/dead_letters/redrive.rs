//! `worker dead-letters redrive`.

use std::{collections::HashSet, process::ExitCode};

use shared::domain::event::Envelope;
use shared::platform::db::DbPool;

use super::require_choice;
use crate::{
    cli::Redrive,
    commands::{
        connect::acquire_connection,
        publisher::{Published, Publisher},
        screen::{format_count, print_line, progress_bar},
    },
    config::WorkerConfig,
    dead_letters::DeadLetter,
    store::dead_letters,
};

/// Dead letters of a page: each can have a body of 256 KiB.
const PAGE: i64 = 64;

/// Publishes dead letters again, oldest first, and marks those that the broker confirms.
pub(in crate::commands) async fn redrive_dead_letters(
    db: &DbPool,
    config: &WorkerConfig,
    redrive: &Redrive,
) -> anyhow::Result<ExitCode> {
    require_choice(&redrive.ids, &redrive.which, redrive.all);
    // A number means that dead letter in any case; a filter means those that are still open.
    let filter = redrive.which.filter(&redrive.ids, redrive.ids.is_empty());
    let mut connection = acquire_connection(db).await?;
    let total = dead_letters::count_dead_letters(&mut connection, &filter).await?;
    let named = i64::try_from(redrive.ids.iter().collect::<HashSet<_>>().len()).unwrap_or(i64::MAX);
    if redrive.which.is_everything() && total < named {
        print_line(&format!("only {total} of these {named} dead letters exist: nothing was sent"))?;
        return Ok(ExitCode::FAILURE);
    }
    if total == 0 {
        print_line("no dead letters to send again")?;
        return Ok(ExitCode::SUCCESS);
    }

    let mut publisher = Publisher::connect(&config.broker, redrive.rate).await?;
    let progress = progress_bar(total, "redriving");
    let (mut sent, mut refused, mut last) = (0_usize, 0_usize, 0);
    loop {
        let page = dead_letters::load_after(&mut connection, &filter, last, publisher.batch_size().min(PAGE))
            .await?;
        let Some(end) = page.last() else { break };
        last = end.id;
        progress.inc(page.len() as u64);
        let (readable, unreadable): (Vec<_>, Vec<_>) = page
            .into_iter()
            .map(|letter| (letter.to_envelope(), letter))
            .partition(|(event, _)| event.is_some());
        refused += unreadable.len();
        for (_, letter) in &unreadable {
            print_line(&format!("dead letter {} was not sent: the body is not text", letter.id))?;
        }
        let (events, letters): (Vec<Option<Envelope>>, Vec<DeadLetter>) = readable.into_iter().unzip();
        let events: Vec<Envelope> = events.into_iter().flatten().collect();
        let mut confirmed = Vec::with_capacity(letters.len());
        for (letter, published) in letters.iter().zip(publisher.publish_batch(&events).await?) {
            match published {
                Published::Confirmed => confirmed.push((letter.id, letter.failed_at)),
                Published::Rejected(reason) => {
                    refused += 1;
                    print_line(&format!("dead letter {} was not sent: {reason}", letter.id))?;
                }
            }
        }
        dead_letters::mark_redriven(&mut connection, &confirmed).await?;
        sent += confirmed.len();
    }
    progress.finish_and_clear();
    publisher.close().await;

    print_line(&format!("sent {} again", format_count(sent, "event")))?;
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
