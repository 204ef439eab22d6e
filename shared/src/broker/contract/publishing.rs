//! Published events arrive.

use std::collections::HashSet;

use super::{Bench, ack, assert_confirmed, bodies, body, event, events, publish, take};
use crate::broker::{MAX_EVENT_BYTES, PublishOutcome};

pub(super) async fn everything_published_arrives<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    let published = events(700);
    publish(&*sink, &published[..500]).await;
    publish(&*sink, &published[500..]).await;
    let taken = take(&*source, published.len()).await;
    assert_eq!(taken.iter().map(body).collect::<HashSet<_>>(), bodies(&published));
    assert!(taken.iter().all(|delivery| delivery.attempt == 1), "the first attempt is 1");
    let now = crate::domain::clock::Clock::System.now();
    for at in taken.iter().filter_map(|delivery| delivery.published_at) {
        assert!((now - at).abs() < time::Duration::minutes(5), "published at {at}, and now is {now}");
    }
    ack(&*source, taken).await;
}

pub(super) async fn events_published_before_the_first_consumer_arrive<B: Bench>(bench: &B) {
    let sink = bench.sink().await;
    let published = events(3);
    publish(&*sink, &published).await;
    sink.close().await;
    let source = bench.source("late").await;
    let taken = take(&*source, 3).await;
    assert_eq!(taken.iter().map(body).collect::<HashSet<_>>(), bodies(&published));
}

pub(super) async fn events_of_one_key_keep_their_order<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    let published: Vec<_> = (1..=45).flat_map(|sequence| [event(1, sequence), event(2, sequence)]).collect();
    publish(&*sink, &published).await;
    let mut taken = Vec::new();
    while taken.len() < published.len() {
        // One after the other: a broker that keeps order can deliver the next events only after these are settled.
        let batch = take(&*source, 1).await;
        taken.extend(batch.iter().map(body));
        ack(&*source, batch).await;
    }
    if B::ORDERED {
        for key in [1, 2] {
            let expected: Vec<_> =
                published.iter().filter(|event| event.key == key).map(|event| &event.body).collect();
            let seen: Vec<_> = taken.iter().filter(|body| expected.contains(body)).collect();
            assert_eq!(seen, expected);
        }
    } else {
        assert_eq!(taken.into_iter().collect::<HashSet<_>>(), bodies(&published));
    }
}

pub(super) async fn a_rejected_event_is_reported_alone<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    let mut batch = events(5);
    batch[2].body = "x".repeat(MAX_EVENT_BYTES + 1);
    let outcomes = sink.publish(&batch).await;
    assert_eq!(outcomes.len(), 5);
    assert!(
        matches!(&outcomes[2], PublishOutcome::Rejected(why) if why.contains("bytes")),
        "{:?}",
        outcomes[2]
    );
    let rejected = batch.remove(2);
    assert_confirmed(&outcomes[..2]);
    assert_confirmed(&outcomes[3..]);
    let taken = take(&*source, 4).await;
    assert_eq!(taken.iter().map(body).collect::<HashSet<_>>(), bodies(&batch));
    assert!(!taken.iter().any(|delivery| delivery.body == rejected.body));
}

pub(super) async fn payloads_of_any_size_and_script_arrive_unchanged<B: Bench>(bench: &B) {
    let (sink, source) = (bench.sink().await, bench.source("one").await);
    let mut batch = events(4);
    batch[0].body = "7".to_owned();
    batch[1].body = format!(r#""{}""#, "a".repeat(200 * 1024 - 2));
    batch[2].body = "\"Größe 東京 🛒 עברית e\u{301} \\u0000\"".to_owned();
    batch[3].body = "b".repeat(MAX_EVENT_BYTES);
    publish(&*sink, &batch).await;
    let taken = take(&*source, 4).await;
    assert_eq!(taken.iter().map(body).collect::<HashSet<_>>(), bodies(&batch));
}
