//! `worker replay`.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use shared::domain::event::Envelope;
use shared::platform::db::DbPool;
use sqlx::PgConnection;

use super::{
    connect::acquire_connection,
    publisher::{Published, Publisher},
    screen::{format_count, print_line, progress_bar},
    single_handler::SingleHandler,
};
use crate::{
    cli::Replay,
    config::WorkerConfig,
    store::log::{self, Events, Selection},
};

/// Publishes retained events again in their order, or has one handler handle them.
pub(super) async fn replay_events(
    db: &DbPool,
    config: &WorkerConfig,
    replay: &Replay,
) -> anyhow::Result<ExitCode> {
    let events = match (replay.which.from, replay.which.order) {
        (Some(time), _) => Events::From(time),
        (None, Some(order)) => Events::Order(order),
        (None, None) => bail!("name the events with --from or --order"),
    };
    let selection = Selection { events, tenant: replay.tenant };
    let handler = match &replay.handler {
        Some(name) => Some(SingleHandler::find_by_name(name, db, config)?),
        None => None,
    };
    let mut connection = acquire_connection(db).await?;
    let (total, end) = log::count_events(&mut connection, selection).await.context("cannot read the log")?;
    if total == 0 {
        print_line("the log holds no such events")?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(handler) = handler {
        return replay_to_handler(&mut connection, selection, (total, end), &handler).await;
    }

    let mut publisher = Publisher::connect(&config.broker, None).await?;
    let progress = progress_bar(total, "replaying");
    let (mut last, mut sent, mut refused) = (0, 0_usize, 0_usize);
    loop {
        let page = log::load_events(&mut connection, selection, last, end, publisher.batch_size()).await?;
        let Some(tail) = page.last() else { break };
        last = tail.id;
        let events: Vec<Envelope> = page.into_iter().map(|logged| logged.envelope).collect();
        for (event, published) in events.iter().zip(publisher.publish_batch(&events).await?) {
            match published {
                Published::Confirmed => sent += 1,
                Published::Rejected(reason) => {
                    refused += 1;
                    print_line(&format!("event {} was refused: {reason}", event.id))?;
                }
            }
        }
        progress.inc(events.len() as u64);
    }
    progress.finish_and_clear();
    publisher.close().await;
    print_line(&format!("sent {} again", format_count(sent, "event")))?;
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Has one handler handle the events in their order.
async fn replay_to_handler(
    connection: &mut PgConnection,
    selection: Selection,
    (total, end): (i64, i64),
    handler: &SingleHandler,
) -> anyhow::Result<ExitCode> {
    let progress = progress_bar(total, "handling");
    let (mut last, mut done, mut refused) = (0, 0_usize, 0_usize);
    loop {
        let page = log::load_events(connection, selection, last, end, SingleHandler::BATCH).await?;
        let Some(tail) = page.last() else { break };
        last = tail.id;
        let events: Vec<Envelope> = page.into_iter().map(|logged| logged.envelope).collect();
        let count = events.len();
        let refusals = handler.handle_events(events).await?;
        done += count - refusals.len();
        refused += refusals.len();
        for refusal in refusals {
            print_line(&refusal)?;
        }
        progress.inc(count as u64);
    }
    progress.finish_and_clear();
    print_line(&format!("gave {} to the handler {}", format_count(done, "event"), handler.name()))?;
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
