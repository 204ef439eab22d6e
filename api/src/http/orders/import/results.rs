//! The lines of the response to an import.

use serde::Serialize;
use serde_json::value::RawValue;
use shared::domain::order::OrderId;
use utoipa::ToSchema;

use super::super::row_result::RowProblem;
use crate::{
    http::error::{ApiError, Problem},
    orders::response::OrderResponse,
};

/// What became of a row.
#[derive(Serialize, ToSchema)]
pub(super) struct ImportResult {
    /// Its number, from 1. The header of CSV, empty lines and what an export has around its orders are not counted.
    #[schema(minimum = 1)]
    pub(super) row: u64,
    /// The status that a request with this order alone would have had.
    #[schema(minimum = 201, maximum = 599)]
    status: u16,
    /// The order, if it is placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    id: Option<OrderId>,
    /// Its version when it was placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    version: Option<i64>,
    /// Given, as `true`, if an earlier import with this key has placed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    replayed: Option<bool>,
    /// Why it is not placed. Pointers begin at the row, such as `/lines/0/quantity`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Problem>, nullable = false)]
    problem: Option<Box<RawValue>>,
}

/// A line of the response.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it only describes; nothing builds it")]
pub(super) enum ImportLine {
    /// What became of a row.
    Row(ImportResult),
    /// The last line.
    End(ImportEnd),
}

/// The last line: what became of all rows.
#[derive(Default, Serialize, ToSchema)]
pub(super) struct ImportEnd {
    /// Whether every row of the file has a result.
    pub(super) complete: bool,
    /// Rows that have a result.
    #[schema(minimum = 0)]
    pub(super) rows: u64,
    /// Orders that this import has placed.
    #[schema(minimum = 0)]
    pub(super) created: u64,
    /// Orders that an earlier import with this key had placed.
    #[schema(minimum = 0)]
    pub(super) replayed: u64,
    /// Rows without an order.
    #[schema(minimum = 0)]
    pub(super) failed: u64,
    /// Why it ended before the end of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(super) problem: Option<Problem>,
}

impl ImportResult {
    /// The order of a row is placed, or was refused under the row's key.
    pub(super) fn of_response(row: u64, response: &OrderResponse) -> Result<Self, ApiError> {
        if let Some(problem) = RowProblem::of_response(response)? {
            return Ok(Self::refused(row, problem));
        }
        let id = response.created_order().ok_or_else(|| ApiError::internal("no order was created"))?;
        Ok(Self {
            row,
            status: 201,
            id: Some(id),
            version: Some(1),
            replayed: response.replayed.then_some(true),
            problem: None,
        })
    }

    /// It is not.
    pub(super) fn refused(row: u64, RowProblem { status, document }: RowProblem) -> Self {
        Self { row, status, id: None, version: None, replayed: None, problem: Some(document) }
    }
}

impl ImportEnd {
    /// Counts a result.
    pub(super) fn count(&mut self, result: &ImportResult) {
        self.rows += 1;
        let (count, outcome) = match result {
            ImportResult { id: None, .. } => (&mut self.failed, "failed"),
            ImportResult { replayed: Some(_), .. } => (&mut self.replayed, "replayed"),
            _ => (&mut self.created, "created"),
        };
        *count += 1;
        metrics::counter!("import_rows_total", "outcome" => outcome).increment(1);
    }
}
