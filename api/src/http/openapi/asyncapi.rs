//! `GET /asyncapi.json`: the events, as `AsyncAPI` 3, generated from the types of the events.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use shared::domain::event::{Document, EventType};
use utoipa::{PartialSchema as _, ToSchema as _};

/// The document.
pub fn document() -> Value {
    let names = EventType::ALL.map(EventType::as_str);
    let reference = |kind: &str, name: &str| json!({"$ref": format!("#/components/{kind}/{name}")});
    let in_channel: Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), reference("messages", name))).collect();
    let sent_on = |channel: &str| -> Vec<Value> {
        names.iter().map(|name| json!({"$ref": format!("#/channels/{channel}/messages/{name}")})).collect()
    };
    let messages: Map<String, Value> =
        EventType::ALL.into_iter().map(|kind| (kind.as_str().to_owned(), message(kind))).collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Order events",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "One event per order version, as CloudEvents 1.0 in structured JSON. Delivery is at least once; \
                the order of the events of one order is by `sequence`. Consumers must tolerate duplicates and disorder.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "orderEvents": {
                // The stream, queue or exchange is a setting.
                "address": null,
                "title": "Order events",
                "description": "The Redis stream, RabbitMQ exchange or SQS queue that `EVENT_SYSTEM` chooses.",
                "messages": in_channel,
            },
            "eventFeed": {
                "address": "/api/v1/events",
                "title": "Event feed",
                "description": "Server-sent events of the API, with `Accept: text/event-stream`: `id` is the cursor, `event` the \
                    name of the message, `data` the event on one line. Each event comes once in a pass, in one order for all readers.",
                "messages": in_channel,
            },
        },
        "operations": {
            "announceOrderVersion": {
                "action": "send",
                "summary": "Announce a version of an order",
                "channel": {"$ref": "#/channels/orderEvents"},
                "messages": sent_on("orderEvents"),
            },
            "streamOrderVersion": {
                "action": "send",
                "summary": "Stream a version of an order to those who follow the feed",
                "channel": {"$ref": "#/channels/eventFeed"},
                "messages": sent_on("eventFeed"),
            },
        },
        "components": {"messages": messages, "schemas": schemas()},
    })
}

fn message(kind: EventType) -> Value {
    let summary = match kind {
        EventType::OrderCreated => "An order was created: its version 1",
        EventType::OrderUpdated => "An order was changed: its next version",
        EventType::OrderDeleted => "An order was deleted; `data.order` is the order as it last was",
    };
    json!({
        "name": kind.as_str(),
        "title": kind.as_str(),
        "summary": summary,
        "contentType": "application/json",
        "payload": {"allOf": [
            {"$ref": "#/components/schemas/Event"},
            {"type": "object", "properties": {"type": {"const": kind.as_str()}}},
        ]},
    })
}

/// The schemas of an event and of everything in it, from the types.
fn schemas() -> Value {
    let mut schemas = vec![(Document::name().into_owned(), Document::schema())];
    Document::schemas(&mut schemas);
    let by_name: BTreeMap<_, _> = schemas.into_iter().collect();
    serde_json::to_value(by_name).unwrap_or_default()
}
