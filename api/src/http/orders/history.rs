//! `GET /api/v1/orders/{id}/history`.

use axum::{
    extract::{RawQuery, State},
    http::HeaderMap,
    response::Response,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use shared::domain::order::{CustomerId, OrderId, OrderKey};
use utoipa::{IntoParams, ToSchema};

use super::{
    conditional::{parse_preconditions, respond_if_modified},
    openapi::OrderPath,
    path::OrderIdPathWithQuery,
};
use crate::{
    auth::Caller,
    db::{self, HistoryEntry, HistoryPage},
    http::{
        error::{ApiError, Problem},
        extract::{FieldErrors, Query},
    },
    state::AppState,
};

/// Entries of a page, unless asked for otherwise, and at most.
const DEFAULT_LIMIT: i64 = 100;
const MAX_LIMIT: i64 = 500;
/// The changes of a page, but for its last entry. Those of lines alone take up to 11 kB, those of metadata 87 kB.
const MAX_CHANGES_BYTES: i64 = 4 * 1024 * 1024;

/// Which entries.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct HistoryQuery {
    /// Only later versions than this one: the last version of the page before, or 0.
    #[param(required = false, minimum = 0, default = 0)]
    after_version: i64,
    /// Entries of a page; it has fewer if their changes take more than 4 MiB.
    #[param(required = false, minimum = 1, maximum = 500, default = 100)]
    limit: i64,
}

impl HistoryQuery {
    fn parse(query: Option<&str>) -> Result<Self, ApiError> {
        let mut errors = FieldErrors::new();
        let mut query = Query::parse(query);
        let after_version = query.integer("after_version", 0..=i64::MAX, &mut errors).unwrap_or(0);
        let limit = query.integer("limit", 1..=MAX_LIMIT, &mut errors).unwrap_or(DEFAULT_LIMIT);
        query.reject_unknown(&mut errors);
        errors.into_result(|| Some(Self { after_version, limit }))
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

/// Show the history of an order
///
/// Deleted orders have a history too. A change is recorded within moments; up to `complete_through`, none is missing.
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
        (status = 422, description = "Every error of the query", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn history(
    caller: Caller,
    State(state): State<AppState>,
    OrderIdPathWithQuery(id): OrderIdPathWithQuery,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let HistoryQuery { after_version, limit } = HistoryQuery::parse(query.as_deref())?;
    let preconditions = parse_preconditions(&headers)?;
    let order = caller.order(id);
    let HistoryPage { owner, entries, has_next, complete_through } = state
        .orders
        .read_db
        .read_with_fallback(|mut db| async move {
            db::load_history(&mut db, order, after_version, limit, MAX_CHANGES_BYTES).await
        })
        .await?;
    let owner = match owner {
        Some(owner) => Some(owner),
        // Nothing is recorded yet, perhaps because the order is a moment old.
        None => load_unrecorded_owner(&state, order).await?,
    };
    if !owner.is_some_and(|owner| caller.may_access(owner)) {
        return Err(ApiError::not_found());
    }
    let history = OrderHistory { order_id: id, entries, complete_through, has_next };
    let body = serde_json::to_vec(&history).map_err(ApiError::internal)?;
    Ok(respond_if_modified(&preconditions, &digest(&body), body.into()))
}

/// The owner of an order of which nothing is recorded: from the order, or from its deletion in the log.
async fn load_unrecorded_owner(state: &AppState, key: OrderKey) -> Result<Option<CustomerId>, ApiError> {
    if let Some(order) = state.orders.reader.read_order(key).await? {
        return Ok(Some(order.owner));
    }
    let keys = &[key];
    let deleted =
        state.db.read_with_retry(|mut db| async move { db::load_deletions(&mut db, keys).await }).await?;
    Ok(deleted.first().map(|deletion| deletion.owner))
}

/// The opaque part of a page's `ETag`: 128 bits of its SHA-256 in hexadecimal.
fn digest(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    let half: [u8; 16] = std::array::from_fn(|at| digest[at]);
    format!("{:032x}", u128::from_be_bytes(half))
}
