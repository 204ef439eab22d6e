//! `POST /api/v1/orders/import`.

mod results;
pub(super) mod rows;
mod run;

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, Uri, header},
    response::{IntoResponse, Response},
};
use futures_util::stream;
use shared::platform::telemetry::current_traceparent;
use tokio::sync::mpsc;

use self::{results::ImportLine, rows::RowReader, run::Import};
use super::{
    idempotency::RowKeys,
    openapi::{BodyErrors, KeyHeader},
};
use crate::{
    auth::Caller,
    http::{
        error::{ApiError, Code, Problem},
        extract::{Query, essence, require_uncompressed},
        layer::Context,
    },
    orders::row_keys::claim_for_rows,
    state::AppState,
};

const ROUTE: &str = "/api/v1/orders/import";
/// Pieces of the response that wait for the client.
const WAITING_PIECES: usize = 2;

/// Place the orders of a file
///
/// A file of any size: a JSON document a line (NDJSON), or CSV, whose first row names the columns. A row has the fields of a new
/// order, and can have those that an export has beside them; they are checked and not taken. In CSV the lines of an order are JSON
/// in one cell, and its metadata in another one. Empty lines are passed over, and what an
/// export has around its orders: the first and the last line of NDJSON, the two comments at the end of CSV.
///
/// The response streams while the file arrives, so read it while you send: a result for each row, in the order of the rows, and at
/// the end a line with the totals. A faulty row is its own result. If a service this depends on goes away, or the client sends
/// no row for 30 s, the import ends, and the last line says so. Without a last line the import was interrupted.
///
/// With an `Idempotency-Key`, row *n* (from 1) has the key `KEY#n` for 24 hours: after an interruption, send the same file again with
/// the same key. What was placed is reported again, and what is missing is placed.
#[utoipa::path(
    post,
    path = "/api/v1/orders/import",
    tag = "orders",
    operation_id = "import_orders",
    params(KeyHeader),
    request_body(content(
        (String = "application/x-ndjson", example = "{\"order_date\":\"2025-01-20\",\"lines\":[{\"product_id\":1001,\"quantity\":2,\"unit_price\":\"25.50\"}]}\n"),
        (String = "text/csv", example = "order_date,lines\n2025-01-20,\"[{\"\"product_id\"\":1001,\"\"quantity\"\":2,\"\"unit_price\"\":\"\"25.50\"\"}]\"\n"),
    )),
    responses(
        (status = 200, description = "A line for each row, and `ImportEnd` as the last one", content_type = "application/x-ndjson", body = ImportLine),
        (status = 400, description = "A header is malformed, or CSV has no first row", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A column that an order does not have", body = Problem, content_type = "application/problem+json"),
        BodyErrors,
    ),
)]
pub async fn import(
    caller: Caller,
    State(state): State<AppState>,
    uri: Uri,
    headers: HeaderMap,
    Extension(context): Extension<Arc<Context>>,
    body: Body,
) -> Result<Response, ApiError> {
    let format = read_format(&headers)?;
    require_uncompressed(&headers)?;
    Query::reject_all(uri.query())?;
    let keys = RowKeys::read(&headers, caller, ROUTE)?;
    let permit = state.bulk.admit_import(caller)?;
    let rows = match format {
        FileFormat::Ndjson => RowReader::ndjson(body).await?,
        FileFormat::Csv => RowReader::csv(body).await?,
    };
    if let Some(claim) = keys.claim_request("import")? {
        claim_for_rows(&state.db, &claim).await?;
    }
    let (pieces, waiting) = mpsc::channel(WAITING_PIECES);
    let traceparent = current_traceparent();
    let import = Import { state: state.clone(), caller, context, keys, traceparent, pieces };
    state.shutdown.spawn(async move {
        let _permit = permit;
        import.run(rows).await;
    });
    let pieces = stream::unfold(waiting, async |mut waiting| {
        let piece = waiting.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(piece), waiting))
    });
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(pieces)).into_response())
}

enum FileFormat {
    Ndjson,
    Csv,
}

fn read_format(headers: &HeaderMap) -> Result<FileFormat, ApiError> {
    let essence = essence(headers).unwrap_or_default();
    if essence.eq_ignore_ascii_case("application/x-ndjson") {
        Ok(FileFormat::Ndjson)
    } else if essence.eq_ignore_ascii_case("text/csv") {
        Ok(FileFormat::Csv)
    } else {
        let detail = "the body must be application/x-ndjson or text/csv";
        Err(ApiError::new(Code::UnsupportedMediaType, detail))
    }
}
