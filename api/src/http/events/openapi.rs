//! The events of a page in the OpenAPI document. These types only describe: nothing builds them.

use shared::domain::event::Document;
use utoipa::ToSchema;

/// A page of events, oldest first.
#[derive(ToSchema)]
pub struct EventPage {
    /// The events.
    pub events: Vec<PageEvent>,
    /// The cursor to go on with, also if there are no events.
    pub next: String,
    /// Whether there may be more events now. If not, wait before asking again, or ask with `wait`.
    pub has_more: bool,
}

/// An event with its cursor.
#[derive(ToSchema)]
pub struct PageEvent {
    /// The cursor after this event.
    pub cursor: String,
    /// The `CloudEvent`, byte for byte as brokers have it.
    pub event: Document<'static>,
}
