//! `GET /api/v1/orders/export`.

mod run;

use axum::{
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderName, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use shared::domain::order::Order;
use utoipa::{IntoParams, ToSchema};

use self::run::{Export, ExportFormat};
use super::filter::FilterQuery;
use crate::{
    auth::Caller,
    db::OrderFilter,
    http::{
        error::{ApiError, Problem},
        extract::{FieldErrors, Query},
    },
    orders::export::ExportReader,
    state::AppState,
};

/// How orders are exported.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ExportQuery {
    /// The format of the file.
    #[param(required = false, value_type = String, pattern = "^(ndjson|csv)$", default = "ndjson")]
    format: ExportFormat,
    #[param(ignore)]
    filter: OrderFilter,
}

impl ExportQuery {
    fn parse(query: Option<&str>, caller: Caller) -> Result<Self, ApiError> {
        let mut errors = FieldErrors::new();
        let mut query = Query::parse(query);
        let format = query.parsed("format", &mut errors).unwrap_or_default();
        let filter = FilterQuery::read(&mut query, &mut errors);
        query.reject_unknown(&mut errors);
        errors.into_result(|| Some(()))?;
        Ok(Self { format, filter: filter.restricted_to(caller)? })
    }
}

/// A line of an export in NDJSON.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it only describes; nothing builds it")]
enum ExportLine {
    /// The first line: where to continue with the event feed.
    #[schema(title = "ExportStart")]
    Start { feed_cursor: String },
    /// An order.
    #[schema(title = "ExportedOrder")]
    Order(Order),
    /// The last line. Without it the file was cut off.
    #[schema(title = "ExportEnd")]
    End { complete: bool, rows: u64 },
}

/// Export orders
///
/// All orders that match, newest first: a JSON document a line (NDJSON), or CSV with a row an order, whose lines and metadata are
/// JSON in a cell each.
/// A cell of CSV that a spreadsheet would run as a formula has an apostrophe before it; an import takes it away.
///
/// The first line of NDJSON is `{"feed_cursor":"…"}`, the last one `{"complete":true,"rows":2}`. CSV has both in comments at its end:
/// `# feed_cursor: …` and `# complete: true, rows: 2`. A file without them was cut off, and its connection was, too.
///
/// Orders are read page by page while the file is sent, so changes made meanwhile may or may not be in it. All of them are in the event
/// feed after `feed_cursor`: read it from there and keep the higher version of each order, and you have an exact copy. That holds for
/// exports without filters; with filters, look whether the order of an event matches.
#[utoipa::path(
    get,
    path = "/api/v1/orders/export",
    tag = "orders",
    operation_id = "export_orders",
    params(ExportQuery, FilterQuery),
    responses(
        (status = 200, description = "The orders", headers(
            ("Content-Disposition" = String, description = "A name for the file"),
        ), content(
            (ExportLine = "application/x-ndjson"),
            (String = "text/csv"),
        )),
        (status = 403, description = "A customer asks for the orders of another", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "Every error of the query", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn export(
    caller: Caller,
    State(state): State<AppState>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let ExportQuery { format, filter } = ExportQuery::parse(query.as_deref(), caller)?;
    let permit = state.bulk.admit_export(caller)?;
    // Before the first page: what happens from now on is after this position.
    let feed_cursor = state.feed.newest_cursor(caller.into()).await?;
    let reader = state.orders.export_reader.clone();
    let first = reader.load_page(&filter, ExportReader::start()).await?;
    let export = Export { reader, filter, format, feed_cursor, caller };
    let body = Body::from_stream(export.start(first, permit, &state.shutdown, state.tenants.clone()));
    let headers: [(HeaderName, &str); 2] = match format {
        ExportFormat::Ndjson => [
            (header::CONTENT_TYPE, "application/x-ndjson"),
            (header::CONTENT_DISPOSITION, "attachment; filename=\"orders.ndjson\""),
        ],
        ExportFormat::Csv => [
            (header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present"),
            (header::CONTENT_DISPOSITION, "attachment; filename=\"orders.csv\""),
        ],
    };
    Ok((headers, body).into_response())
}
