//! What the fuzz targets reach of the feed's parsers.

use shared::domain::{event::EventType, order::OrderId};

use super::query::FeedQuery;
use crate::http::error::ApiError;

/// The query of `GET /api/v1/events` as it is understood: which types, which order, how many events, how many seconds to wait.
pub fn events(
    query: Option<&str>,
    for_stream: bool,
) -> Result<(Vec<EventType>, Option<OrderId>, usize, u64), ApiError> {
    let query = FeedQuery::parse(query, for_stream)?;
    let filter = query.filter();
    Ok((filter.types, filter.order_id, query.limit, query.wait.as_secs()))
}
