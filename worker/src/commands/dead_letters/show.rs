//! `worker dead-letters show`.

use anyhow::Context as _;
use shared::{
    domain::timestamp,
    platform::{db::DbPool, text::printable},
};

use crate::{
    cli::{Show, Which},
    commands::{connect::acquire_connection, screen::print_line},
    store::dead_letters,
};

/// Prints a dead letter with its body.
pub(in crate::commands) async fn show_dead_letter(db: &DbPool, show: &Show) -> anyhow::Result<()> {
    let filter = Which::default().filter(&[show.id], false);
    let found = dead_letters::load_newest(&mut *acquire_connection(db).await?, &filter, None, 1).await?;
    let letter = found.into_iter().next().with_context(|| format!("there is no dead letter {}", show.id))?;
    if show.json {
        return print_line(&letter.to_json().to_string());
    }
    // A line break in a value could pass for another field.
    let one_line = |text: &str| printable(text, false).into_owned();
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    print_line(&format!("dead letter  {}", letter.id))?;
    print_line(&format!("event        {}", or_none(letter.event_id.map(|id| id.to_string()))))?;
    print_line(&format!("type         {}", one_line(&or_none(letter.event_type.clone()))))?;
    print_line(&format!("tenant       {}", letter.tenant_id))?;
    print_line(&format!("order        {}", or_none(letter.order_id.map(|id| id.to_string()))))?;
    print_line(&format!("version      {}", or_none(letter.version.map(|version| version.to_string()))))?;
    print_line(&format!("source       {}", one_line(&letter.source)))?;
    print_line(&format!("reason       {}", one_line(&letter.reason)))?;
    print_line(&format!("attempts     {}", letter.attempts))?;
    print_line(&format!("broker       {}", one_line(&letter.broker)))?;
    print_line(&format!("failed at    {}", timestamp::format(letter.failed_at)))?;
    print_line(&format!("redriven at  {}", or_none(letter.redriven_at.map(timestamp::format))))?;
    print_line("body")?;
    let body = letter.to_json()["body"].take();
    match body {
        serde_json::Value::String(text) => print_line(&text),
        json => print_line(&serde_json::to_string_pretty(&json)?),
    }
}
