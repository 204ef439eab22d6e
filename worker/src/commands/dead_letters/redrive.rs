//! `worker dead-letters redrive`.

use std::process::ExitCode;

use shared::domain::event::Envelope;
use shared::platform::db::DbPool;

use super::demand_choice;
use crate::{
    cli::Redrive,
    commands::{
        connection,
        publisher::{Published, Publisher},
        screen::{bar, counted, say},
    },
    config::WorkerConfig,
    dead_letters::DeadLetter,
    store::dead_letters,
};

/// Letters in one go: each may have a body of 256 KiB.
const PAGE: i64 = 64;

/// Publishes them again, oldest first, and marks those that the broker has confirmed.
pub(in crate::commands) async fn redrive(
    db: &DbPool,
    config: &WorkerConfig,
    redrive: &Redrive,
) -> anyhow::Result<ExitCode> {
    demand_choice(&redrive.ids, &redrive.which, redrive.all);
    // Who names a number wants that one again; a filter means what is still open.
    let filter = redrive.which.filter(&redrive.ids, redrive.ids.is_empty());
    let mut connection = connection(db).await?;
    let total = dead_letters::count(&mut connection, &filter).await?;
    if total == 0 {
        say("no dead letters to send again")?;
        return Ok(ExitCode::SUCCESS);
    }

    let mut publisher = Publisher::connect(&config.broker, redrive.rate).await?;
    let progress = bar(total, "redriving");
    let (mut sent, mut refused, mut last) = (0_usize, 0_usize, 0);
    loop {
        let page = dead_letters::after(&mut connection, &filter, last, publisher.batch().min(PAGE)).await?;
        let Some(end) = page.last() else { break };
        last = end.id;
        progress.inc(page.len() as u64);
        let (readable, unreadable): (Vec<_>, Vec<_>) = page
            .into_iter()
            .map(|letter| (letter.to_envelope(), letter))
            .partition(|(event, _)| event.is_some());
        refused += unreadable.len();
        for (_, letter) in &unreadable {
            say(&format!("dead letter {} was not sent: the body is not text", letter.id))?;
        }
        let (events, letters): (Vec<Option<Envelope>>, Vec<DeadLetter>) = readable.into_iter().unzip();
        let events: Vec<Envelope> = events.into_iter().flatten().collect();
        let mut confirmed = Vec::with_capacity(letters.len());
        for (letter, published) in letters.iter().zip(publisher.publish(&events).await?) {
            match published {
                Published::Confirmed => confirmed.push((letter.id, letter.failed_at)),
                Published::Rejected(reason) => {
                    refused += 1;
                    say(&format!("dead letter {} was not sent: {reason}", letter.id))?;
                }
            }
        }
        dead_letters::mark_redriven(&mut connection, &confirmed).await?;
        sent += confirmed.len();
    }
    progress.finish_and_clear();
    publisher.close().await;

    say(&format!("sent {} again", counted(sent, "event")))?;
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
