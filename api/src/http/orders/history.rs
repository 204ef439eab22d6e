//! `GET /api/v1/orders/{id}/history`.

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use shared::domain::{
    order::{ChangedFields, CustomerId, OrderId},
    timestamp,
};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{body::OrderIdPath, conditional::Preconditions, get::CACHE_CONTROL, openapi::OrderPath};
use crate::{
    auth::Caller,
    db::{self, Entry},
    http::{
        error::{ApiError, Problem},
        extract::{FieldErrors, Query},
    },
    state::AppState,
};

/// Entries of a page, unless asked for otherwise, and at most. An entry takes up to 11 kB.
const DEFAULT_LIMIT: i64 = 100;
const MAX_LIMIT: i64 = 500;

/// Which entries.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the query; `PageQuery::parse` reads it with all its faults")]
struct HistoryQuery {
    /// Only later versions than this one: the last version of the page before, or 0.
    #[param(minimum = 0, default = 0, nullable = false)]
    after_version: Option<i64>,
    /// Entries of a page.
    #[param(minimum = 1, maximum = 500, default = 100, nullable = false)]
    limit: Option<i64>,
}

/// The query as it was understood.
struct PageQuery {
    after_version: i64,
    limit: i64,
}

impl PageQuery {
    fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let mut faults = FieldErrors::new();
        let mut query = Query::parse(query);
        let after_version = query.integer("after_version", 0..=i64::MAX, &mut faults).unwrap_or(0);
        let limit = query.integer("limit", 1..=MAX_LIMIT, &mut faults).unwrap_or(DEFAULT_LIMIT);
        query.reject_unknown(&mut faults);
        faults.into_result(|| Some(Self { after_version, limit }))
    }
}

/// A page of the recorded changes of an order, oldest first.
#[derive(Serialize, ToSchema)]
pub struct OrderHistory {
    /// Which order.
    order_id: OrderId,
    /// The changes.
    entries: Vec<HistoryEntry>,
    /// The last version before the first gap of the whole history, on whichever page: up to here everything is recorded.
    /// 0 if nothing is yet.
    #[schema(minimum = 0)]
    complete_through: i64,
    /// Whether later versions are recorded: go on with the last entry's version as `after_version`.
    has_next: bool,
}

/// One change.
#[derive(Serialize, ToSchema)]
pub struct HistoryEntry {
    /// The version it led to.
    #[schema(minimum = 1)]
    version: i64,
    /// `CREATED`, `UPDATED` or `DELETED`.
    #[schema(pattern = "^(CREATED|UPDATED|DELETED)$")]
    action: String,
    /// Each changed field before and after.
    #[schema(value_type = ChangedFields)]
    changes: Box<RawValue>,
    /// Who did it.
    performed_by: CustomerId,
    /// The event that told of it.
    event_id: Uuid,
    /// When it happened.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    occurred_at: OffsetDateTime,
    /// When it was recorded.
    #[serde(with = "timestamp")]
    #[schema(value_type = String, format = DateTime)]
    recorded_at: OffsetDateTime,
}

impl From<Entry> for HistoryEntry {
    fn from(entry: Entry) -> Self {
        let Entry { version, action, changes, performed_by, event_id, occurred_at, recorded_at } = entry;
        Self { version, action, changes, performed_by, event_id, occurred_at, recorded_at }
    }
}

/// Show the history of an order
///
/// It answers for deleted orders too. Recording follows a change within moments: `complete_through` tells how far.
#[utoipa::path(
    get,
    path = "/api/v1/orders/{id}/history",
    tag = "orders",
    operation_id = "order_history",
    params(
        OrderPath,
        HistoryQuery,
        ("If-None-Match" = Option<String>, Header, description = "Pages at hand, as their `ETag`s, or `*`",
         nullable = false, pattern = r#"^(\*|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*")*)$"#),
    ),
    responses(
        (status = 200, description = "The page", body = OrderHistory, headers(("ETag" = String, description = "A digest of the page, quoted"))),
        (status = 304, description = "The page at hand is the current one", headers(("ETag" = String, description = "A digest of the page, quoted"))),
        (status = 400, description = "A header is malformed", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is and was no such order, or it is not the caller's", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Every fault of the query", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn history(
    caller: Caller,
    State(state): State<AppState>,
    OrderIdPath(id): OrderIdPath,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let PageQuery { after_version, limit } = PageQuery::parse(query.as_deref())?;
    let preconditions = Preconditions::parse(&headers)?;
    let page = state
        .orders
        .read_db
        .read(|mut db| async move { db::history(&mut db, id, after_version, limit).await })
        .await?;
    let owner = match page.owner {
        Some(owner) => Some(owner),
        // Nothing is recorded yet, perhaps because the order is a moment old.
        None => unrecorded_owner(&state, id).await?,
    };
    if !owner.is_some_and(|owner| caller.may_access(owner)) {
        return Err(ApiError::not_found());
    }
    let history = OrderHistory {
        order_id: id,
        entries: page.entries.into_iter().map(HistoryEntry::from).collect(),
        complete_through: page.complete_through,
        has_next: page.has_next,
    };
    let body = serde_json::to_vec(&history).map_err(ApiError::internal)?;
    let digest = digest(&body);
    let tag = (header::ETAG, format!("\"{digest}\""));
    if preconditions.not_modified_tag(&digest) {
        return Ok((StatusCode::NOT_MODIFIED, [tag], [CACHE_CONTROL]).into_response());
    }
    Ok(([tag], [CACHE_CONTROL, (header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The owner of an order of which nothing is recorded: as it stands, or as its deletion in the log tells.
async fn unrecorded_owner(state: &AppState, id: OrderId) -> Result<Option<CustomerId>, ApiError> {
    if let Some(order) = state.orders.reader.read(id).await? {
        return Ok(Some(order.owner));
    }
    let ids = &[id];
    let deleted = state.db.read_with_retry(|mut db| async move { db::deletions(&mut db, ids).await }).await?;
    Ok(deleted.first().map(|deletion| deletion.owner))
}

/// The opaque part of a page's `ETag`: 128 bits of its SHA-256 in hexadecimal.
fn digest(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    let half: [u8; 16] = std::array::from_fn(|at| digest[at]);
    format!("{:032x}", u128::from_be_bytes(half))
}
