//! `worker dead-letters list`.

use shared::{
    domain::timestamp,
    platform::{db::DbPool, text::printable},
};

use crate::{
    cli::List,
    commands::{
        connect::acquire_connection,
        screen::{format_count, print_line},
    },
    dead_letters::DeadLetter,
    store::dead_letters,
};

/// Dead letters of a page: each can have a body of 256 KiB.
const PAGE: i64 = 64;
/// The characters of a reason that fit on a line.
const REASON_LENGTH: usize = 80;

/// Prints dead letters, newest first.
pub(in crate::commands) async fn list_dead_letters(db: &DbPool, list: &List) -> anyhow::Result<()> {
    let filter = list.which.filter(&[], !list.redriven);
    let mut connection = acquire_connection(db).await?;
    let total =
        if list.json { 0 } else { dead_letters::count_dead_letters(&mut connection, &filter).await? };
    let limit = i64::from(list.limit);
    let (mut shown, mut before) = (0, None);
    loop {
        let page =
            dead_letters::load_newest(&mut connection, &filter, before, PAGE.min(limit - shown)).await?;
        let Some(oldest) = page.last() else { break };
        if shown == 0 && !list.json {
            print_line(&format_line([
                "id",
                "failed at",
                "source",
                "attempts",
                "event",
                "tenant",
                "order",
                "version",
                "reason",
            ]))?;
        }
        before = Some((oldest.failed_at, oldest.id));
        shown += i64::try_from(page.len())?;
        for letter in &page {
            print_line(&if list.json { letter.to_json().to_string() } else { format_row(letter) })?;
        }
    }
    match (list.json, shown) {
        (true, _) => Ok(()),
        (false, 0) => print_line("no dead letters"),
        (false, _) => print_line(&format!("{shown} of {}", format_count(total, "dead letter"))),
    }
}

fn format_row(letter: &DeadLetter) -> String {
    let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let mut reason: String = letter.reason.chars().take(REASON_LENGTH).collect();
    if letter.redriven_at.is_some() {
        reason.insert_str(0, "(redriven) ");
    }
    format_line([
        &letter.id.to_string(),
        &timestamp::format(letter.failed_at),
        &printable(&letter.source, false),
        &letter.attempts.to_string(),
        &printable(letter.event_type.as_deref().unwrap_or("-"), false),
        &letter.tenant_id.to_string(),
        &number(letter.order_id),
        &number(letter.version),
        &printable(&reason, false),
    ])
}

fn format_line([id, at, source, attempts, event, tenant, order, version, why]: [&str; 9]) -> String {
    format!(
        "{id:>8}  {at:27}  {source:8}  {attempts:>8}  {event:12}  {tenant:>6}  {order:>10}  {version:>7}  {why}"
    )
}
