//! `worker replay`.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use shared::domain::event::Envelope;
use shared::platform::db::DbPool;
use sqlx::PgConnection;

use super::{
    connection,
    publisher::{Published, Publisher},
    screen::{bar, counted, say},
    single_handler::SingleHandler,
};
use crate::{
    cli::Replay,
    config::WorkerConfig,
    store::log::{self, Selection},
};

/// Publishes retained events again, in their order, or gives them to one handler.
pub(super) async fn replay(db: &DbPool, config: &WorkerConfig, replay: &Replay) -> anyhow::Result<ExitCode> {
    let selection = match (replay.which.from, replay.which.order) {
        (Some(time), _) => Selection::From(time),
        (None, Some(order)) => Selection::Order(order),
        (None, None) => bail!("say --from or --order"),
    };
    let handler = match &replay.handler {
        Some(name) => Some(SingleHandler::find(name, db, config)?),
        None => None,
    };
    let mut connection = connection(db).await?;
    let (total, end) = log::extent(&mut connection, selection).await.context("cannot read the log")?;
    if total == 0 {
        say("the log holds no such events")?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(handler) = handler {
        return handle_again(&mut connection, selection, (total, end), &handler).await;
    }

    let mut publisher = Publisher::connect(&config.broker, None).await?;
    let progress = bar(total, "replaying");
    let (mut last, mut sent, mut refused) = (0, 0_usize, 0_usize);
    loop {
        let page = log::page(&mut connection, selection, last, end, publisher.batch()).await?;
        let Some(tail) = page.last() else { break };
        last = tail.id;
        let events: Vec<Envelope> = page.into_iter().map(|logged| logged.envelope).collect();
        for (event, published) in events.iter().zip(publisher.publish(&events).await?) {
            match published {
                Published::Confirmed => sent += 1,
                Published::Rejected(reason) => {
                    refused += 1;
                    say(&format!("event {} was refused: {reason}", event.id))?;
                }
            }
        }
        progress.inc(events.len() as u64);
    }
    progress.finish_and_clear();
    publisher.close().await;
    say(&format!("sent {} again", counted(sent, "event")))?;
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Gives the events to one handler, in their order.
async fn handle_again(
    connection: &mut PgConnection,
    selection: Selection,
    (total, end): (i64, i64),
    handler: &SingleHandler,
) -> anyhow::Result<ExitCode> {
    let progress = bar(total, "handling");
    let (mut last, mut given, mut refused) = (0, 0_usize, 0_usize);
    loop {
        let page = log::page(connection, selection, last, end, SingleHandler::BATCH).await?;
        let Some(tail) = page.last() else { break };
        last = tail.id;
        let events: Vec<Envelope> = page.into_iter().map(|logged| logged.envelope).collect();
        let count = events.len();
        let refusals = handler.handle(events).await?;
        given += count - refusals.len();
        refused += refusals.len();
        for refusal in refusals {
            say(&refusal)?;
        }
        progress.inc(count as u64);
    }
    progress.finish_and_clear();
    say(&format!("gave {} to the handler {}", counted(given, "event"), handler.name()))?;
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
