//! What the fuzz targets reach of the orders' parsers.

use axum::body::Body;
use shared::domain::tenant::TenantId;
use time::Date;

use super::{body, import::rows::RowReader, list::ListQuery, page_cursor::encode_cursor};
use crate::{
    auth::Caller,
    db::{ListPosition, OrderFilter, PageStart},
    http::error::ApiError,
};

/// The body of `POST /api/v1/orders` as it is understood, in JSON.
pub fn create(body: &[u8], caller: Caller, latest: Date) -> Result<String, ApiError> {
    serde_json::to_string(&body::parse_new_order(body, caller, latest)?).map_err(ApiError::internal)
}

/// The body of `PUT` and `PATCH /api/v1/orders/{id}` as it is understood, in JSON.
pub fn update(body: &[u8], latest: Date) -> Result<String, ApiError> {
    serde_json::to_string(&body::parse_update(body, latest)?).map_err(ApiError::internal)
}

/// The query of `GET /api/v1/orders` as it is understood: which orders, from where, how many.
pub fn list(query: Option<&str>, caller: Caller) -> Result<(OrderFilter, PageStart, i64), ApiError> {
    let query = ListQuery::parse(query, caller)?;
    Ok((query.filter().clone(), query.start(), query.size))
}

/// The rows of a file that is imported: each order as it is understood, in JSON, or why it is none.
pub async fn import(
    file: Body,
    is_csv: bool,
    caller: Caller,
    latest: Date,
) -> Result<Vec<Result<String, ApiError>>, ApiError> {
    let mut reader = if is_csv { RowReader::csv(file).await? } else { RowReader::ndjson(file).await? };
    let mut rows = Vec::new();
    while let Some(row) = reader.next().await? {
        rows.push(row.and_then(|row| {
            let new = body::parse_imported_order(&row, caller, latest)?;
            serde_json::to_string(&new).map_err(ApiError::internal)
        }));
    }
    Ok(rows)
}

/// A position as the text that a client of the tenant gets.
pub fn write_cursor(position: ListPosition, tenant: TenantId) -> String {
    encode_cursor(position, tenant)
}
