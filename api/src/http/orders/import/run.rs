//! An import under way: rows in, results out, both at the pace of the slower side.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesOrdered};
use serde::Serialize;
use shared::domain::{event::Happened, tenant::TenantId};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{
    super::{
        body::parse_imported_order,
        idempotency::RowKeys,
        response::render_refusals,
        row_result::{RowProblem, refuse_row},
    },
    ROUTE,
    results::{ImportEnd, ImportResult},
    rows::{Row, RowReader},
};
use crate::{
    auth::Caller,
    http::{
        error::{ApiError, Code},
        layer::Context,
    },
    orders::{input::NewOrder, response::OrderResponse},
    state::AppState,
};

/// Rows that are placed at a time: as many as two commits take.
const ROWS_IN_FLIGHT: usize = 256;
/// How long a row that nothing is wrong with is tried again while something this depends on is away.
const RETRY_LIMIT: Duration = Duration::from_secs(8);
/// Between the first two attempts; doubled each time.
const PAUSE: Duration = Duration::from_millis(20);
const MAX_PAUSE: Duration = Duration::from_millis(500);
/// A piece of the response, unless more results are ready at once.
const PIECE_BYTES: usize = 32 * 1024;

/// An import.
pub(super) struct Import {
    pub(super) state: AppState,
    pub(super) caller: Caller,
    pub(super) context: Arc<Context>,
    pub(super) keys: RowKeys,
    pub(super) traceparent: Option<String>,
    /// Where the pieces of the response go.
    pub(super) pieces: mpsc::Sender<Bytes>,
}

/// What became of a row, and the error if it was not the row's fault.
struct Outcome {
    result: ImportResult,
    outage: Option<ApiError>,
}

impl Import {
    /// Places the rows and sends their results, until the file or the connection ends.
    pub(super) async fn run(self, rows: RowReader) {
        let begun = Instant::now();
        let Some(end) = self.place_rows(rows).await else {
            metrics::counter!("bulk_interrupted_total", "kind" => "import").increment(1);
            tracing::info!(request_id = self.context.request_id(), "the client of an import has gone");
            return;
        };
        if !end.complete {
            metrics::counter!("bulk_interrupted_total", "kind" => "import").increment(1);
        }
        tracing::info!(
            request_id = self.context.request_id(),
            customer_id = self.caller.customer_id.get(),
            caller.tenant.id = self.caller.home_if_away().map(TenantId::get),
            complete = end.complete,
            created = end.created,
            replayed = end.replayed,
            failed = end.failed,
            duration_ms = begun.elapsed().as_secs_f64() * 1000.0,
            "an import has ended"
        );
        let mut line = Vec::new();
        write_line(&mut line, &end);
        let _client_is_gone = self.pieces.send(line.into()).await;
    }

    /// Returns `None` if nobody reads the results any more.
    async fn place_rows(&self, mut rows: RowReader) -> Option<ImportEnd> {
        let shutdown = &self.state.shutdown;
        let stall = self.state.config.http.bulk.stall;
        let mut end = ImportEnd::default();
        let mut in_flight = FuturesOrdered::new();
        let mut next_row = 1;
        let mut failure = None;
        let mut is_open = true;
        let shut_out = self.caller.shut_out(&self.state.tenants);
        tokio::pin!(shut_out);
        loop {
            if is_open && shutdown.has_begun() {
                (is_open, failure) = (false, Some(shutting_down()));
            }
            let has_room = is_open && in_flight.len() < ROWS_IN_FLIGHT;
            tokio::select! {
                biased;
                Some(outcome) = in_flight.next() => {
                    let mut piece = Vec::new();
                    let mut ready = Some(outcome);
                    while let Some(Outcome { result, outage }) = ready {
                        end.count(&result);
                        write_line(&mut piece, &result);
                        if let Some(error) = outage {
                            (is_open, failure) = (false, Some(error));
                        }
                        let room = piece.len() < PIECE_BYTES;
                        ready = if room { in_flight.next().now_or_never().flatten() } else { None };
                    }
                    self.pieces.send(piece.into()).await.ok()?;
                }
                row = timeout(stall, rows.next()), if has_room => match row {
                    Ok(Ok(Some(row))) => {
                        in_flight.push_back(self.place(next_row, row));
                        next_row += 1;
                    }
                    Ok(Ok(None)) => {
                        (is_open, end.complete) = (false, true);
                    }
                    Ok(Err(error)) => (is_open, failure) = (false, Some(error)),
                    Err(_) => (is_open, failure) = (false, Some(stalled(stall))),
                },
                reason = &mut shut_out, if is_open => (is_open, failure) = (false, Some(reason.into())),
                () = shutdown.begun(), if is_open => {}
                else => break,
            }
        }
        if let Some(error) = failure {
            end.complete = false;
            end.problem = Some(refuse_row(&error, ROUTE, &self.context));
        }
        Some(end)
    }

    async fn place(&self, row: u64, json: Row) -> Outcome {
        let placed = self.try_to_place(row, json).await;
        match placed.and_then(|response| ImportResult::of_response(row, &response)) {
            Ok(result) => Outcome { result, outage: None },
            Err(error) => {
                let result = ImportResult::refused(row, RowProblem::new(&error, ROUTE, &self.context));
                let is_outage = matches!(error.code(), Code::Unavailable | Code::Timeout);
                Outcome { result, outage: is_outage.then_some(error) }
            }
        }
    }

    /// Places the order of a row, and tries again as long as that can help and does no harm.
    async fn try_to_place(&self, row: u64, json: Row) -> Result<OrderResponse, ApiError> {
        let new: NewOrder = parse_imported_order(&json?, self.caller, self.state.clock.latest_today())?;
        let claim = self.keys.claim(row, &new)?;
        let place = |new, claim, happened, render_refusal| {
            self.state.orders.place(self.caller.tenant, new, claim, happened, render_refusal)
        };
        let last_attempt = Instant::now() + RETRY_LIMIT;
        let mut pause = PAUSE;
        loop {
            let happened = Happened {
                time: self.state.clock.now(),
                performed_by: self.caller.identity(),
                traceparent: self.traceparent.clone(),
            };
            let render_refusal = render_refusals(ROUTE.to_owned(), self.context.request_id().to_owned());
            let error = match place(new.clone(), claim.clone(), happened, render_refusal).await {
                Ok(response) => return Ok(response),
                Err(error) => ApiError::from(error),
            };
            let is_harmless = match error.code() {
                Code::Unavailable | Code::IdempotencyInProgress => true,
                // It is not known whether the order was placed; the key tells.
                Code::Timeout => claim.is_some(),
                _ => false,
            };
            if !is_harmless || Instant::now() > last_attempt || self.state.shutdown.has_begun() {
                return Err(error);
            }
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }
}

fn write_line(out: &mut Vec<u8>, line: &impl Serialize) {
    // Neither has a map whose keys are not strings, the only thing that can fail.
    if serde_json::to_writer(&mut *out, line).is_ok() {
        out.push(b'\n');
    }
}

fn shutting_down() -> ApiError {
    ApiError::new(
        Code::Unavailable,
        "this replica is shutting down; send the file again with its Idempotency-Key",
    )
}

fn stalled(after: Duration) -> ApiError {
    let detail = format!("no row arrived for {} s", after.as_secs_f64());
    ApiError::new(Code::RequestTimeout, detail)
}
