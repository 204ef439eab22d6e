//! Orders as CSV (RFC 4180): a row an order, with its lines as JSON in one cell, and its metadata in another one.
//!
//! A row an order and not a row a line, because a file that was cut off then never holds a part of an order, each row has one result
//! in an import, and rows are independent of their neighbours.
//!
//! Spreadsheets run a cell that begins with one of `= + - @`, a tab or a carriage return as a formula. Such a cell is written with an
//! apostrophe before it, and read without it, so what was written is read to the last character.

use std::str;

use serde_json::value::RawValue;
use shared::domain::{order::Order, timestamp};

use crate::http::error::{ApiError, Code, FieldError};
use crate::http::extract::{FieldErrors, field_code};

/// The columns of an export. An import can leave some out, and name them in any order.
const COLUMNS: [Column; 11] = [
    Column { name: "id", kind: Kind::Number },
    Column { name: "customer_id", kind: Kind::Number },
    Column { name: "order_date", kind: Kind::Text },
    Column { name: "status", kind: Kind::Text },
    Column { name: "total_amount", kind: Kind::Text },
    Column { name: "version", kind: Kind::Number },
    Column { name: "created_at", kind: Kind::Text },
    Column { name: "updated_at", kind: Kind::Text },
    Column { name: "lines", kind: Kind::Json },
    Column { name: "reference", kind: Kind::Text },
    Column { name: "metadata", kind: Kind::Json },
];

/// What the comments at the end of an export begin with: the place in the feed, and in two cells of a row how many orders it has.
const CURSOR_COMMENT: &str = "# feed_cursor: ";
const END_COMMENT: &str = "# complete: true";
const ROWS_COMMENT: &str = " rows: ";

/// A column, named as the field of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    name: &'static str,
    kind: Kind,
}

/// What the cells of a column are in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Number,
    Text,
    Json,
}

/// Writes the row with the names of the columns.
pub(super) fn write_header(out: &mut Vec<u8>) {
    write_row(out, COLUMNS.iter().map(|column| column.name));
}

/// Writes an order as a row, in the order of [`COLUMNS`].
pub(super) fn write_order(out: &mut Vec<u8>, order: &Order) -> Result<(), serde_json::Error> {
    let Order {
        id,
        tenant_id: _,
        customer_id,
        order_date,
        status,
        total_amount,
        version,
        created_at,
        updated_at,
        lines,
        reference,
        metadata,
    } = order;
    let cells = [
        id.to_string(),
        customer_id.to_string(),
        timestamp::format_date(*order_date),
        status.as_str().to_owned(),
        total_amount.to_string(),
        version.to_string(),
        timestamp::format(*created_at),
        timestamp::format(*updated_at),
        serde_json::to_string(lines)?,
        reference.clone().unwrap_or_default(),
        metadata.to_json(),
    ];
    write_row(out, cells.iter().map(String::as_str));
    Ok(())
}

/// Writes how an export ended, in two comments. An import passes over these, and over nothing else: a reference can begin with `#`.
pub(super) fn write_end(out: &mut Vec<u8>, feed_cursor: &str, rows: u64) {
    let comments = format!("{CURSOR_COMMENT}{feed_cursor}\r\n{END_COMMENT},{ROWS_COMMENT}{rows}\r\n");
    out.extend_from_slice(comments.as_bytes());
}

/// Whether a row is one of the comments of [`write_end`]. A spreadsheet fills them up with empty cells.
pub(super) fn is_comment<'a>(mut cells: impl Iterator<Item = &'a [u8]>) -> bool {
    let first = cells.next().unwrap_or_default();
    let is_cursor = first.starts_with(CURSOR_COMMENT.as_bytes());
    let is_end = first == END_COMMENT.as_bytes()
        && cells.next().is_some_and(|second| second.starts_with(ROWS_COMMENT.as_bytes()));
    (is_cursor || is_end) && cells.all(<[u8]>::is_empty)
}

fn write_row<'a>(out: &mut Vec<u8>, cells: impl Iterator<Item = &'a str>) {
    for (index, cell) in cells.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_cell(out, cell);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_cell(out: &mut Vec<u8>, text: &str) {
    let guard = if is_formula(text) { "'" } else { "" };
    // Other readers take a row that begins with `#` for a comment.
    let is_quoted = text.starts_with('#') || text.contains(['"', ',', '\r', '\n']);
    if !is_quoted {
        out.extend_from_slice(guard.as_bytes());
        out.extend_from_slice(text.as_bytes());
        return;
    }
    out.push(b'"');
    out.extend_from_slice(guard.as_bytes());
    for byte in text.bytes() {
        if byte == b'"' {
            out.push(b'"');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// Whether a cell gets an apostrophe: those that a spreadsheet would run, and those that would be read as guarded ones.
fn is_formula(text: &str) -> bool {
    text.trim_start_matches('\'').starts_with(['=', '+', '-', '@', '\t', '\r'])
}

/// The text of a cell without the apostrophe that guards it.
fn unguarded(cell: &str) -> &str {
    cell.strip_prefix('\'').filter(|text| is_formula(text)).unwrap_or(cell)
}

/// The columns of an import, from its first row.
pub(super) fn read_header<'a>(names: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Column>, ApiError> {
    let (mut errors, mut columns) = (FieldErrors::new(), Vec::new());
    for name in names {
        let name = String::from_utf8_lossy(name);
        let pointer = || format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        match COLUMNS.iter().find(|column| column.name == name) {
            Some(column) if columns.contains(column) => {
                errors.push(FieldError::new(
                    pointer(),
                    field_code::DUPLICATE_FIELD,
                    "is given more than once",
                ));
            }
            Some(column) => columns.push(*column),
            None => {
                let detail = "there is no such column in an order";
                errors.push(FieldError::new(pointer(), field_code::UNKNOWN_FIELD, detail));
            }
        }
    }
    errors.into_result(|| Some(columns))
}

/// The JSON of a row's order. An empty cell is a field that is left out. What is no JSON where a column holds some becomes a
/// string, so that the reader of orders says what is expected there.
pub(super) fn row_to_json<'a>(
    columns: &[Column],
    cells: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Result<Vec<u8>, ApiError> {
    let malformed = |detail| ApiError::new(Code::MalformedRequest, detail);
    if cells.len() != columns.len() {
        let detail = format!("the row has {} cells, and the header {}", cells.len(), columns.len());
        return Err(malformed(detail));
    }
    let mut json = vec![b'{'];
    for (column, cell) in columns.iter().zip(cells) {
        let cell = str::from_utf8(cell).map_err(|_| malformed("the row is not UTF-8".to_owned()))?;
        if cell.is_empty() {
            continue;
        }
        if json.len() > 1 {
            json.push(b',');
        }
        json.extend_from_slice(format!("\"{}\":", column.name).as_bytes());
        let cell = unguarded(cell);
        if column.kind.is_json(cell) {
            json.extend_from_slice(cell.as_bytes());
        } else {
            serde_json::to_writer(&mut json, cell).map_err(ApiError::internal)?;
        }
    }
    json.push(b'}');
    Ok(json)
}

impl Kind {
    /// Whether the cell stands in the JSON as it is.
    fn is_json(self, cell: &str) -> bool {
        let is_valid = || serde_json::from_str::<&RawValue>(cell).is_ok();
        match self {
            Self::Text => false,
            Self::Number => {
                cell.starts_with(|first: char| first == '-' || first.is_ascii_digit()) && is_valid()
            }
            Self::Json => is_valid(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Cells as they are written, and read back by the reader that imports use.
    fn read_cells(row: &[u8]) -> Vec<String> {
        let mut reader = csv_core::Reader::new();
        let (mut output, mut ends) = (vec![0; row.len() + 1], vec![0; 16]);
        let (result, _, _, count) = reader.read_record(row, &mut output, &mut ends);
        assert_eq!(result, csv_core::ReadRecordResult::Record, "{row:?}");
        let starts = std::iter::once(0).chain(ends.iter().copied());
        starts
            .zip(&ends[..count])
            .map(|(start, end)| unguarded(str::from_utf8(&output[start..*end]).unwrap()).to_owned())
            .collect()
    }

    proptest! {
        #[test]
        fn a_cell_is_read_as_it_was_written(cells in prop::collection::vec("['=+@\t\r\n\",#a -]{0,6}", 2..8)) {
            let mut row = Vec::new();
            write_row(&mut row, cells.iter().map(String::as_str));
            prop_assert_eq!(read_cells(&row), cells);
        }
    }

    #[test]
    fn no_spreadsheet_runs_a_cell() {
        for cell in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "=HYPERLINK(\"x\",\"y\")"] {
            let mut row = Vec::new();
            write_row(&mut row, [cell].into_iter());
            let shown = row.strip_prefix(b"\"").unwrap_or(&row);
            assert!(shown.starts_with(b"'"), "{}", String::from_utf8_lossy(&row));
        }
    }

    #[test]
    fn an_order_is_read_to_the_last_field() {
        let json = concat!(
            r#"{"id":7,"customer_id":9223372036854775807,"order_date":"0987-01-20","status":"SHIPPED","#,
            r#""total_amount":"51000.00","version":3,"created_at":"2025-01-20T10:00:00.000001Z","#,
            r#""updated_at":"2025-12-31T23:59:59.123456Z","lines":["#,
            r#"{"id":9,"product_id":1001,"quantity":1000,"unit_price":"51.00"},"#,
            r#"{"id":10,"product_id":1002,"quantity":1,"unit_price":"0.00"}],"#,
            r#""reference":"=1+\"ä,\"","metadata":{"=1":"\\","b":","}}"#,
        );
        let order: Order = serde_json::from_str(json).unwrap();
        let (mut header, mut row) = (Vec::new(), Vec::new());
        write_header(&mut header);
        write_order(&mut row, &order).unwrap();
        let names = read_cells(&header);
        let columns = read_header(names.iter().map(String::as_bytes)).unwrap();
        let read = row_to_json(&columns, read_cells(&row).iter().map(String::as_bytes)).unwrap();
        assert_eq!(serde_json::from_slice::<Order>(&read).unwrap(), order);
    }

    #[test]
    fn a_header_with_unknown_or_repeated_columns_is_refused() {
        let error = read_header(["id", "a/b", "id"].into_iter().map(str::as_bytes)).unwrap_err();
        let pointers: Vec<&str> = error.field_errors().iter().map(|error| &*error.pointer).collect();
        assert_eq!(pointers, ["/a~1b", "/id"]);
    }
}
