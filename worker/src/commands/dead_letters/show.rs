//! `worker dead-letters show`.

use anyhow::Context as _;
use shared::{
    domain::timestamp,
    platform::{db::DbPool, text::printable},
};

use crate::{
    cli::{Show, Which},
    commands::{connection, screen::say},
    store::dead_letters,
};

/// Prints one with its body.
pub(in crate::commands) async fn show(db: &DbPool, show: &Show) -> anyhow::Result<()> {
    let filter = Which::default().filter(&[show.id], false);
    let found = dead_letters::newest(&mut *connection(db).await?, &filter, None, 1).await?;
    let letter = found.into_iter().next().with_context(|| format!("there is no dead letter {}", show.id))?;
    if show.json {
        return say(&letter.to_json().to_string());
    }
    // A line break in it could pass for another field.
    let one_line = |text: &str| printable(text, false).into_owned();
    let or_none = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    say(&format!("dead letter  {}", letter.id))?;
    say(&format!("event        {}", or_none(letter.event_id.map(|id| id.to_string()))))?;
    say(&format!("type         {}", one_line(&or_none(letter.event_type.clone()))))?;
    say(&format!("order        {}", or_none(letter.order_id.map(|id| id.to_string()))))?;
    say(&format!("version      {}", or_none(letter.version.map(|version| version.to_string()))))?;
    say(&format!("source       {}", one_line(&letter.source)))?;
    say(&format!("reason       {}", one_line(&letter.reason)))?;
    say(&format!("attempts     {}", letter.attempts))?;
    say(&format!("broker       {}", one_line(&letter.broker)))?;
    say(&format!("failed at    {}", timestamp::format(letter.failed_at)))?;
    say(&format!("redriven at  {}", or_none(letter.redriven_at.map(timestamp::format))))?;
    say("body")?;
    let body = letter.to_json()["body"].take();
    match body {
        serde_json::Value::String(text) => say(&text),
        json => say(&serde_json::to_string_pretty(&json)?),
    }
}
