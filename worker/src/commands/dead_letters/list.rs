//! `worker dead-letters list`.

use shared::{
    domain::timestamp,
    platform::{db::DbPool, text::printable},
};

use crate::{
    cli::List,
    commands::{
        connection,
        screen::{counted, say},
    },
    dead_letters::DeadLetter,
    store::dead_letters,
};

/// Letters in one go: each may have a body of 256 KiB.
const PAGE: i64 = 64;
/// What of a reason fits on a line.
const REASON: usize = 80;

/// Prints them newest first, page by page, however many are asked for.
pub(in crate::commands) async fn list(db: &DbPool, list: &List) -> anyhow::Result<()> {
    let filter = list.which.filter(&[], !list.redriven);
    let mut connection = connection(db).await?;
    let total = if list.json { 0 } else { dead_letters::count(&mut connection, &filter).await? };
    let limit = i64::from(list.limit);
    let (mut shown, mut before) = (0, None);
    loop {
        let page = dead_letters::newest(&mut connection, &filter, before, PAGE.min(limit - shown)).await?;
        let Some(oldest) = page.last() else { break };
        if shown == 0 && !list.json {
            say(&line("id", "failed at", "source", "attempts", "event", "order", "version", "reason"))?;
        }
        before = Some((oldest.failed_at, oldest.id));
        shown += i64::try_from(page.len())?;
        for letter in &page {
            say(&if list.json { letter.to_json().to_string() } else { row(letter) })?;
        }
    }
    match (list.json, shown) {
        (true, _) => Ok(()),
        (false, 0) => say("no dead letters"),
        (false, _) => say(&format!("{shown} of {}", counted(total, "dead letter"))),
    }
}

fn row(letter: &DeadLetter) -> String {
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let mut reason: String = letter.reason.chars().take(REASON).collect();
    if letter.redriven_at.is_some() {
        reason.insert_str(0, "(redriven) ");
    }
    line(
        &letter.id.to_string(),
        &timestamp::format(letter.failed_at),
        &printable(&letter.source, false),
        &letter.attempts.to_string(),
        &printable(letter.event_type.as_deref().unwrap_or("-"), false),
        &number(letter.order_id),
        &number(letter.version),
        &printable(&reason, false),
    )
}

#[expect(clippy::too_many_arguments, reason = "the columns of a table")]
fn line(
    id: &str,
    at: &str,
    source: &str,
    attempts: &str,
    event: &str,
    order: &str,
    version: &str,
    why: &str,
) -> String {
    format!("{id:>8}  {at:27}  {source:8}  {attempts:>8}  {event:12}  {order:>10}  {version:>7}  {why}")
}
