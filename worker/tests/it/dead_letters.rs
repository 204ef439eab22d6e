//! `worker dead-letters list`, `show` and `purge` as operators use them.

use serde_json::{Value, json};

use crate::support::{World, events::event};

/// Three letters: order 1 by the history long ago, order 2 by the cache, and one that could not be read.
async fn with_letters() -> World {
    let world = World::new().await;
    for (id, source, event_type, at) in [
        (Some(1), "history", Some("OrderCreated"), "2025-01-01T00:00:00Z"),
        (Some(2), "cache", Some("OrderUpdated"), "2025-02-01T00:00:00Z"),
        (None, "parse", None, "2025-03-01T00:00:00Z"),
    ] {
        let event = id.map(|id| event(id, 1));
        let body = event.as_ref().map_or_else(|| "not json".to_owned(), |event| event.to_envelope().body);
        sqlx::query(
            "INSERT INTO dead_letters (event_id, event_type, order_id, version, body, source, reason, attempts,
                                       broker, failed_at)
             VALUES ($1, $2, $3, $4, $5, $6, 'it was told to', 5, 'local', $7::timestamptz)",
        )
        .bind(event.as_ref().map(|event| event.id))
        .bind(event_type)
        .bind(id)
        .bind(id.map(|_| 1_i64))
        .bind(body.as_bytes())
        .bind(source)
        .bind(time::OffsetDateTime::parse(at, &time::format_description::well_known::Rfc3339).unwrap())
        .execute(&world.db)
        .await
        .unwrap();
    }
    world
}

async fn listed(world: &World, filter: &[&str]) -> Vec<Value> {
    let out = world.worker(&[&["dead-letters", "list", "--json"], filter].concat()).await.ok();
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn listed_ids(world: &World, filter: &[&str]) -> Vec<i64> {
    listed(world, filter).await.iter().map(|letter| letter["id"].as_i64().unwrap()).collect()
}

#[tokio::test]
async fn list_shows_the_newest_first_and_each_filter_narrows() {
    let world = with_letters().await;
    assert_eq!(listed_ids(&world, &[]).await, [3, 2, 1]);
    assert_eq!(listed_ids(&world, &["--source", "history"]).await, [1]);
    assert_eq!(listed_ids(&world, &["--event-type", "OrderUpdated"]).await, [2]);
    assert_eq!(listed_ids(&world, &["--order", "2"]).await, [2]);
    assert_eq!(listed_ids(&world, &["--since", "2025-02-01"]).await, [3, 2]);
    assert_eq!(listed_ids(&world, &["--until", "2025-02-01T00:00:00Z"]).await, [1]);
    assert_eq!(listed_ids(&world, &["--limit", "2"]).await, [3, 2]);
    assert_eq!(listed_ids(&world, &["--source", "history", "--order", "2"]).await, [0_i64; 0]);

    sqlx::query("UPDATE dead_letters SET redriven_at = now() WHERE id = 2").execute(&world.db).await.unwrap();
    assert_eq!(listed_ids(&world, &[]).await, [3, 1]);
    assert_eq!(listed_ids(&world, &["--redriven"]).await, [3, 2, 1]);

    let table = world.worker(&["dead-letters", "list", "--redriven"]).await.ok();
    assert_eq!(table.lines().count(), 5, "{table}");
    assert!(
        table.contains("2025-01-01T00:00:00.000000Z") && table.contains("3 of 3 dead letters"),
        "{table}"
    );
}

#[tokio::test]
async fn a_filter_that_makes_no_sense_is_refused_with_exit_code_2() {
    let world = with_letters().await;
    for wrong in [["--order", "0"], ["--since", "yesterday"], ["--limit", "0"], ["--unknown", "1"]] {
        let said = world.worker(&[&["dead-letters", "list"], &wrong[..]].concat()).await;
        assert_eq!(said.code, Some(2), "{said:?}");
    }
    for command in ["redrive", "purge"] {
        let said = world.worker(&["dead-letters", command]).await;
        assert_eq!(said.code, Some(2), "{said:?}");
        assert!(said.err.contains("--all"), "{said:?}");
    }
}

#[tokio::test]
async fn show_prints_a_letter_with_its_body() {
    let world = with_letters().await;
    let json: Value =
        serde_json::from_str(&world.worker(&["dead-letters", "show", "1", "--json"]).await.ok()).unwrap();
    assert_eq!(json["body"]["data"]["order_id"], 1);
    assert_eq!((&json["source"], &json["attempts"]), (&json!("history"), &json!(5)));
    let text = world.worker(&["dead-letters", "show", "3"]).await.ok();
    assert!(text.contains("not json") && text.contains("it was told to"), "{text}");
    let missing = world.worker(&["dead-letters", "show", "99"]).await;
    assert_eq!((missing.code, missing.err.trim()), (Some(1), "there is no dead letter 99"));
}

#[tokio::test]
async fn no_command_prints_what_a_terminal_would_act_on() {
    let world = with_letters().await;
    let hostile = "\u{1b}[2J\u{9b}31m\u{202e}\u{7f}\rpurged";
    sqlx::query("UPDATE dead_letters SET body = $1, reason = $2, event_type = $3, source = $3 WHERE id = 3")
        .bind(hostile.as_bytes())
        .bind(format!("{hostile}\nsource       history"))
        .bind(hostile)
        .execute(&world.db)
        .await
        .unwrap();
    for args in [
        &["dead-letters", "list"][..],
        &["dead-letters", "list", "--json"],
        &["dead-letters", "show", "3"],
        &["dead-letters", "show", "3", "--json"],
    ] {
        let out = world.worker(args).await.ok();
        assert!(out.bytes().all(|byte| byte == b'\n' || matches!(byte, b' '..=b'~')), "{args:?}: {out:?}");
        assert!(out.contains(r"\u001b[2J\u009b31m\u202e\u007f"), "{args:?}: {out:?}");
    }
    let shown = world.worker(&["dead-letters", "show", "3"]).await.ok();
    assert_eq!(shown.lines().filter(|line| line.starts_with("source")).count(), 1, "{shown}");
    assert_eq!(listed(&world, &[]).await[0]["event_type"], hostile, "JSON stays the same JSON");
}

#[tokio::test]
async fn purge_removes_what_the_filter_says_and_only_when_told_yes() {
    let world = with_letters().await;
    let asked = world.worker(&["dead-letters", "purge", "--order", "1"]).await;
    assert_eq!(asked.code, Some(1));
    assert!(asked.out.contains("would remove 1 dead letter"), "{asked:?}");
    assert_eq!(listed_ids(&world, &[]).await, [3, 2, 1]);
    world.worker(&["dead-letters", "purge", "--order", "1", "--yes"]).await.ok();
    assert_eq!(listed_ids(&world, &[]).await, [3, 2]);
    world.worker(&["dead-letters", "purge", "3", "--yes"]).await.ok();
    assert_eq!(listed_ids(&world, &[]).await, [2]);
    world.worker(&["dead-letters", "purge", "--all", "--yes"]).await.ok();
    let table = world.worker(&["dead-letters", "list"]).await.ok();
    assert_eq!(table.trim(), "no dead letters");
}
