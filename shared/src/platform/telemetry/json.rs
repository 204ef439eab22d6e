//! A log event as one line of JSON: `timestamp`, `level`, the event's fields, `target`.
//!
//! Our own formatter, because a line is written for every request and every event: the general one, which uses a serialiser
//! and nests spans, takes four times as many instructions.

use std::fmt::{self, Write as _};

use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::{
    domain::{clock::Clock, timestamp},
    platform::text::printable,
};

/// Formats events as lines of JSON.
pub(super) struct Json;

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        writer.write_str(&line(event, &timestamp::format(Clock::System.now())))
    }
}

fn line(event: &Event<'_>, at: &str) -> String {
    let mut line = Line(String::with_capacity(512));
    line.0.push_str("{\"timestamp\":\"");
    line.0.push_str(at);
    line.0.push('"');
    line.text("level", event.metadata().level().as_str());
    event.record(&mut line);
    line.text("target", event.metadata().target());
    line.0.push_str("}\n");
    line.0
}

/// Whether the text needs no escapes: ASCII that neither JSON escapes nor a terminal interprets.
fn plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\')
}

struct Line(String);

impl Line {
    fn name(&mut self, name: &str) {
        self.0.push_str(",\"");
        // A name has identifiers and dots. A keyword is written as a raw identifier, such as `r#type`.
        self.0.push_str(name.strip_prefix("r#").unwrap_or(name));
        self.0.push_str("\":");
    }

    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        if plain(text) {
            self.0.push('"');
            self.0.push_str(text);
            self.0.push('"');
        } else {
            self.quote(text);
        }
    }

    fn quote(&mut self, text: &str) {
        self.0.push_str(&printable(&serde_json::Value::from(text).to_string(), false));
    }

    fn number(&mut self, name: &str, number: &str) {
        self.name(name);
        self.0.push_str(number);
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, text: &str) {
        self.text(field.name(), text);
    }

    fn record_i64(&mut self, field: &Field, number: i64) {
        self.number(field.name(), itoa::Buffer::new().format(number));
    }

    fn record_u64(&mut self, field: &Field, number: u64) {
        self.number(field.name(), itoa::Buffer::new().format(number));
    }

    fn record_f64(&mut self, field: &Field, number: f64) {
        let mut text = zmij::Buffer::new();
        self.number(field.name(), if number.is_finite() { text.format_finite(number) } else { "null" });
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.number(field.name(), if value { "true" } else { "false" });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.name(field.name());
        self.0.push('"');
        let start = self.0.len();
        let _infallible = write!(self.0, "{value:?}");
        if plain(&self.0[start..]) {
            self.0.push('"');
        } else {
            let text = self.0.split_off(start);
            self.0.pop();
            self.quote(&text);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tracing_subscriber::{Layer, layer::SubscriberExt as _};

    use super::*;

    /// Keeps the lines of the events.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<String>>);

    impl<S: Subscriber> Layer<S> for Kept {
        fn on_event(&self, event: &Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            self.0.lock().unwrap().push_str(&line(event, "2025-01-20T10:00:00.123456Z"));
        }
    }

    fn logged(log: impl FnOnce()) -> Value {
        let kept = Kept::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(kept.clone()), log);
        let lines = kept.0.lock().unwrap().clone();
        let (line, rest) = lines.split_once('\n').expect("a line");
        assert_eq!(rest, "", "one event is one line");
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    #[test]
    fn an_event_is_one_line_of_json_with_typed_fields() {
        let written = logged(|| {
            tracing::warn!(
                order.id = 7_i64,
                event.r#type = "OrderCreated",
                duration_ms = 0.25,
                never = f64::NAN,
                in_doubt = true,
                error = %"it said \"no\"\n\u{1}\\ and ä",
                missing = None::<u64>,
                "a batch"
            );
        });
        assert_eq!(
            written,
            json!({
                "timestamp": "2025-01-20T10:00:00.123456Z", "level": "WARN", "target": module_path!(), "message": "a batch",
                "order.id": 7, "event.type": "OrderCreated", "duration_ms": 0.25, "never": null, "in_doubt": true,
                "error": "it said \"no\"\n\u{1}\\ and ä",
            })
        );
    }

    #[test]
    fn no_control_character_reaches_a_terminal() {
        let kept = Kept::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(kept.clone()), || {
            tracing::info!(text = "\u{1b}[2J\u{9b}31m\u{7f}\u{202e}", error = %"\u{9b}", "line");
        });
        let line = kept.0.lock().unwrap().clone();
        assert!(line.trim_end().bytes().all(|byte| matches!(byte, b' '..=b'~')), "{line:?}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_and_number_is_written_as_valid_json(text in ".*", number in proptest::num::i64::ANY) {
            let written = logged(|| tracing::info!(text, number));
            proptest::prop_assert_eq!(written["text"].as_str(), Some(text.as_str()));
            proptest::prop_assert_eq!(written["number"].as_i64(), Some(number));
        }
    }
}
