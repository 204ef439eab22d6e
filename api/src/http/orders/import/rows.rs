//! The rows of a file as they arrive: one at a time, whatever the size of the file.

use axum::body::Body;
use bytes::{Buf as _, Bytes};
use csv_core::ReadRecordResult;
use http_body_util::BodyExt as _;
use serde_json::value::RawValue;

use super::super::csv::{self, Column};
use crate::http::{
    error::{ApiError, Code},
    extract::MAX_BODY_BYTES,
};

/// The largest row: as large as a request with one order.
const MAX_ROW_BYTES: usize = MAX_BODY_BYTES;
/// What a reader of CSV begins with, and doubles while rows are larger.
const FIRST_ROW_BYTES: usize = 4 * 1024;
/// With which some programs begin a file of UTF-8.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();
/// Cells of a row that are kept; an order has fewer columns.
const MAX_CELLS: usize = 64;

/// A row: the JSON of an order, or why it is none.
pub(in crate::http::orders) type Row = Result<Vec<u8>, ApiError>;

/// Reads rows from a body. All its methods can be cancelled: what has been read stays.
pub(in crate::http::orders) struct RowReader {
    body: Body,
    /// What has arrived, and is not part of a row yet.
    input: Bytes,
    format: Format,
}

enum Format {
    Ndjson(LineBuffer),
    Csv { records: Box<Records>, columns: Vec<Column> },
}

impl RowReader {
    /// Reads a JSON document in each line. Waits for the first bytes: a client that asked for it gets its `100 Continue` only when
    /// somebody reads, and not after the response has begun.
    pub(in crate::http::orders) async fn ndjson(body: Body) -> Result<Self, ApiError> {
        let (mut body, mut input) = (body, Bytes::new());
        fill(&mut body, &mut input).await?;
        if input.starts_with(BYTE_ORDER_MARK) {
            input.advance(BYTE_ORDER_MARK.len());
        }
        Ok(Self { body, input, format: Format::Ndjson(LineBuffer::default()) })
    }

    /// Reads CSV, of which the first row names the columns. Waits for that one.
    pub(in crate::http::orders) async fn csv(body: Body) -> Result<Self, ApiError> {
        let (mut body, mut input, mut records) = (body, Bytes::new(), Box::new(Records::new()));
        let is_complete = records.read(&mut body, &mut input).await?;
        if !is_complete {
            return Err(ApiError::new(Code::MalformedRequest, "the first row must name the columns"));
        }
        let columns = csv::read_header(records.take()?)?;
        records.clear();
        Ok(Self { body, input, format: Format::Csv { records, columns } })
    }

    /// The next row. Returns `None` at the end, and fails if the body breaks off; then a row that is not complete is dropped.
    pub(in crate::http::orders) async fn next(&mut self) -> Result<Option<Row>, ApiError> {
        let Self { body, input, format } = self;
        match format {
            Format::Ndjson(buffer) => loop {
                if !buffer.read(body, input).await? {
                    return Ok(None);
                }
                let line = buffer.take();
                if line.as_ref().is_ok_and(|line| is_passed_over(line)) {
                    continue;
                }
                return Ok(Some(line));
            },
            Format::Csv { records, columns } => loop {
                if !records.read(body, input).await? {
                    return Ok(None);
                }
                let cells = records.take();
                let is_comment = cells.as_ref().is_ok_and(|cells| csv::is_comment(cells.clone()));
                let row = cells.and_then(|cells| csv::row_to_json(columns, cells));
                records.clear();
                if !is_comment {
                    return Ok(Some(row));
                }
            },
        }
    }
}

/// Whether a line is no order but empty, or one of the two that an export has around its orders.
fn is_passed_over(line: &[u8]) -> bool {
    let trimmed = line.trim_ascii();
    trimmed.is_empty()
        || (trimmed.len() < 256
            && serde_json::from_slice::<ExportFrame<'_>>(trimmed).is_ok_and(|frame| frame.is_one()))
}

/// The first line of an export, or its last.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ExportFrame<'a> {
    #[serde(borrow)]
    feed_cursor: Option<&'a RawValue>,
    #[serde(borrow)]
    complete: Option<&'a RawValue>,
    #[serde(borrow)]
    rows: Option<&'a RawValue>,
}

impl ExportFrame<'_> {
    fn is_one(&self) -> bool {
        let parts = [self.feed_cursor, self.complete, self.rows].map(|part| part.is_some());
        matches!(parts, [true, false, false] | [false, true, true])
    }
}

/// Waits until there is input. Returns `false` at the end of the body.
async fn fill(body: &mut Body, input: &mut Bytes) -> Result<bool, ApiError> {
    while input.is_empty() {
        let Some(frame) = body.frame().await else { return Ok(false) };
        let frame = frame.map_err(|error| {
            ApiError::new(Code::MalformedRequest, "the body ended before it was complete").caused_by(error)
        })?;
        if let Ok(data) = frame.into_data() {
            *input = data;
        }
    }
    Ok(true)
}

fn too_long() -> ApiError {
    let detail = format!("a row may have at most {MAX_ROW_BYTES} bytes");
    ApiError::new(Code::PayloadTooLarge, detail)
}

/// A line that is being read.
#[derive(Default)]
struct LineBuffer {
    bytes: Vec<u8>,
    is_too_long: bool,
}

impl LineBuffer {
    /// Reads to the end of a line. Returns `false` if there is none left.
    async fn read(&mut self, body: &mut Body, input: &mut Bytes) -> Result<bool, ApiError> {
        loop {
            if !fill(body, input).await? {
                return Ok(!self.bytes.is_empty() || self.is_too_long);
            }
            let end = input.iter().position(|byte| *byte == b'\n');
            let part = input.split_to(end.unwrap_or(input.len()));
            if self.bytes.len() + part.len() > MAX_ROW_BYTES {
                self.is_too_long = true;
                self.bytes = Vec::new();
            }
            if !self.is_too_long {
                self.bytes.extend_from_slice(&part);
            }
            if end.is_some() {
                input.advance(1);
                return Ok(true);
            }
        }
    }

    /// The line that was read. Begins the next one.
    fn take(&mut self) -> Row {
        let Self { bytes, is_too_long } = std::mem::take(self);
        if is_too_long { Err(too_long()) } else { Ok(bytes) }
    }
}

/// A record of CSV that is being read.
struct Records {
    reader: csv_core::Reader,
    /// The cells, one after the other, and where each ends.
    cells: Vec<u8>,
    ends: Vec<usize>,
    length: usize,
    count: usize,
    has_too_many_cells: bool,
    is_too_long: bool,
}

impl Records {
    fn new() -> Self {
        Self {
            reader: csv_core::Reader::new(),
            cells: vec![0; FIRST_ROW_BYTES],
            ends: vec![0; MAX_CELLS],
            length: 0,
            count: 0,
            has_too_many_cells: false,
            is_too_long: false,
        }
    }

    /// Reads to the end of a record. Returns `false` if there is none left.
    async fn read(&mut self, body: &mut Body, input: &mut Bytes) -> Result<bool, ApiError> {
        loop {
            // Without input, the reader is told that this is the end.
            fill(body, input).await?;
            let (result, read, written, ended) =
                self.reader.read_record(input, &mut self.cells[self.length..], &mut self.ends[self.count..]);
            input.advance(read);
            self.length += written;
            self.count += ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.cells.len() < MAX_ROW_BYTES => {
                    self.cells.resize(self.cells.len() * 2, 0);
                }
                ReadRecordResult::OutputFull => {
                    self.is_too_long = true;
                    self.length = 0;
                }
                ReadRecordResult::OutputEndsFull => {
                    self.has_too_many_cells = true;
                    self.count = 0;
                }
                ReadRecordResult::Record => return Ok(true),
                ReadRecordResult::End => return Ok(false),
            }
        }
    }

    /// The cells of the record that was read.
    fn take(&self) -> Result<impl ExactSizeIterator<Item = &[u8]> + Clone, ApiError> {
        if self.is_too_long {
            return Err(too_long());
        }
        if self.has_too_many_cells {
            let detail = format!("a row may have at most {MAX_CELLS} cells");
            return Err(ApiError::new(Code::MalformedRequest, detail));
        }
        Ok((0..self.count).map(|index| {
            let start = if index == 0 { 0 } else { self.ends[index - 1] };
            &self.cells[start..self.ends[index]]
        }))
    }

    /// Begins the next record.
    fn clear(&mut self) {
        (self.length, self.count) = (0, 0);
        (self.is_too_long, self.has_too_many_cells) = (false, false);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::{FutureExt as _, stream};
    use proptest::prelude::*;

    use super::*;

    /// The rows of a file that arrives in these pieces: each its JSON, or the code of its error; and the error of the file.
    fn read(pieces: Vec<Vec<u8>>, is_csv: bool) -> Result<Vec<Result<Vec<u8>, Code>>, Code> {
        let body = Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, Infallible>)));
        let read = async {
            let mut reader =
                if is_csv { RowReader::csv(body).await? } else { RowReader::ndjson(body).await? };
            let mut rows = Vec::new();
            while let Some(row) = reader.next().await? {
                rows.push(row.map_err(|error| error.code()));
            }
            Ok(rows)
        };
        read.now_or_never().expect("everything has arrived").map_err(|error: ApiError| error.code())
    }

    proptest! {
        #[test]
        fn a_file_has_the_same_rows_however_it_is_cut_into_pieces(
            file in prop_oneof!["[a1,\"{}#\n\r]{0,60}", "(id|lines|status)(,(id|lines|order_date)){0,2}\r?\n[a1,\"{}#\n\r\\[\\]]{0,60}"],
            cuts in prop::collection::vec(0..120_usize, 0..6),
            is_csv in any::<bool>(),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(file.len())).collect();
            cuts.sort_unstable();
            let starts = std::iter::once(0).chain(cuts.iter().copied());
            let ends = cuts.iter().copied().chain([file.len()]);
            let pieces = starts.zip(ends).map(|(start, end)| file.as_bytes()[start..end].to_vec()).collect();
            prop_assert_eq!(read(pieces, is_csv), read(vec![file.into_bytes()], is_csv));
        }
    }

    #[test]
    fn a_row_that_is_too_long_is_an_error_and_the_next_one_is_read() {
        let long = vec![b'x'; MAX_ROW_BYTES + 1];
        let longest = vec![b'x'; MAX_ROW_BYTES];
        let file = [&b"1\n"[..], &long, b"\n2\n", &longest, b"\n3"].concat();
        let pieces = file.chunks(1000).map(<[u8]>::to_vec).collect();
        let rows: Vec<Result<usize, Code>> =
            read(pieces, false).unwrap().into_iter().map(|row| row.map(|row| row.len())).collect();
        assert_eq!(rows, [Ok(1), Err(Code::PayloadTooLarge), Ok(1), Ok(MAX_ROW_BYTES), Ok(1)]);
        let file = [&b"status\n1\n"[..], &long, b"\n2\n"].concat();
        let pieces = file.chunks(1000).map(<[u8]>::to_vec).collect();
        let row = |status: &str| Ok(format!("{{\"status\":\"{status}\"}}").into_bytes());
        assert_eq!(read(pieces, true).unwrap(), [row("1"), Err(Code::PayloadTooLarge), row("2")]);
    }

    #[test]
    fn what_an_export_has_around_its_orders_is_passed_over() {
        let file = "{\"feed_cursor\":\"x\"}\n{}\n \r\n{\"complete\":true,\"rows\":1}\n{\"complete\":1}\n";
        let rows = read(vec![file.into()], false).unwrap();
        assert_eq!(rows, [Ok(b"{}".to_vec()), Ok(b"{\"complete\":1}".to_vec())]);
    }

    #[test]
    fn csv_with_a_byte_order_mark_is_read() {
        let rows = read(vec!["\u{feff}status,id\n\"a\"\"\r\n,b\",7\n".into()], true).unwrap();
        assert_eq!(rows, [Ok(b"{\"status\":\"a\\\"\\r\\n,b\",\"id\":7}".to_vec())]);
    }

    #[test]
    fn csv_is_passed_over_only_where_an_export_says_how_it_ended() {
        let file = "reference,status\n#1,a\n# 2,\"b\"\n# feed_cursor: x\n# complete: true, rows: 2,,\n#,c\n";
        let row = |reference: &str, status: &str| {
            Ok(format!("{{\"reference\":\"{reference}\",\"status\":\"{status}\"}}").into_bytes())
        };
        assert_eq!(read(vec![file.into()], true).unwrap(), [row("#1", "a"), row("# 2", "b"), row("#", "c")]);
    }

    #[test]
    fn csv_without_a_first_row_is_refused() {
        for file in ["", "\n\n"] {
            assert_eq!(read(vec![file.into()], true), Err(Code::MalformedRequest), "{file:?}");
        }
        for file in ["colour\n", "# id\n"] {
            assert_eq!(read(vec![file.into()], true), Err(Code::ValidationFailed), "{file:?}");
        }
    }
}
