//! `worker dead-letters list`.

use shared::db::DbPool;
use shared::timestamp;

use crate::{
    cli::List,
    commands::{
        connection,
        screen::{counted, say},
    },
    dead_letters::DeadLetter,
    store::dead_letters,
};

/// What of a reason fits on a line.
const REASON: usize = 80;

/// Prints them newest first.
pub(in crate::commands) async fn list(db: &DbPool, list: &List) -> anyhow::Result<()> {
    let filter = list.which.filter(&[], !list.redriven);
    let mut connection = connection(db).await?;
    let letters = dead_letters::newest(&mut connection, &filter, list.limit.into()).await?;
    if list.json {
        return letters.iter().try_for_each(|letter| say(&letter.to_json().to_string()));
    }
    let total = dead_letters::count(&mut connection, &filter).await?;
    if letters.is_empty() {
        return say("no dead letters");
    }
    say(&line("id", "failed at", "source", "attempts", "event", "order", "version", "reason"))?;
    for letter in &letters {
        say(&row(letter))?;
    }
    let shown = letters.len();
    say(&format!("{shown} of {}", counted(total, "dead letter")))
}

fn row(letter: &DeadLetter) -> String {
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let mut reason: String = letter.reason.chars().take(REASON).collect();
    if letter.redriven_at.is_some() {
        reason.insert_str(0, "(redriven) ");
    }
    line(
        &letter.id.to_string(),
        timestamp::format(letter.failed_at).as_str(),
        &letter.source,
        &letter.attempts.to_string(),
        letter.event_type.as_deref().unwrap_or("-"),
        &number(letter.order_id),
        &number(letter.version),
        &reason.replace('\n', " "),
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
