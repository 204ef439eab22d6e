//! An export under way: the next page is read while the one before it is written out, and no more than the client takes.

use std::{io, str::FromStr, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, stream};
use shared::{
    domain::{order::Order, tenant::TenantId},
    platform::{db::DbError, shutdown::Shutdown},
};
use tokio::{sync::mpsc, time::Instant};

use super::super::{bulk_limits::BulkPermit, csv};
use crate::{
    auth::Caller,
    db::OrderFilter,
    orders::export::{ExportPage, ExportReader},
    tenants::Tenants,
};

/// Pages that wait for the client.
const WAITING_PAGES: usize = 1;

/// The format of an export.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum ExportFormat {
    /// A JSON document a line.
    #[default]
    Ndjson,
    /// A row an order.
    Csv,
}

impl FromStr for ExportFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ndjson" => Ok(Self::Ndjson),
            "csv" => Ok(Self::Csv),
            _ => Err("must be ndjson or csv"),
        }
    }
}

/// What an export is of.
pub(super) struct Export {
    pub(super) reader: Arc<ExportReader>,
    pub(super) filter: OrderFilter,
    pub(super) format: ExportFormat,
    pub(super) feed_cursor: String,
    pub(super) caller: Caller,
}

/// A piece of the file.
enum Piece {
    Page(Bytes),
    /// Nothing follows.
    Last(Bytes),
}

/// Where the stream of an export is.
enum State {
    Open { pieces: mpsc::Receiver<Piece>, shutdown: Shutdown, permit: BulkPermit },
    Ended,
}

impl Export {
    /// The file as a stream. It fails, and so the connection is cut, if the export cannot be completed.
    pub(super) fn start(
        self,
        first: ExportPage,
        permit: BulkPermit,
        shutdown: &Shutdown,
        tenants: Tenants,
    ) -> impl Stream<Item = io::Result<Bytes>> + use<> {
        let (sender, pieces) = mpsc::channel(WAITING_PAGES);
        let tasks = shutdown.clone();
        let caller = self.caller;
        shutdown.spawn(async move {
            tokio::select! {
                () = tasks.begun() => {}
                _ = caller.shut_out(&tenants) => {}
                () = sender.closed() => {}
                () = self.run(first, &sender) => {}
            }
        });
        let open = State::Open { pieces, shutdown: shutdown.clone(), permit };
        stream::unfold(open, async |state| {
            let State::Open { mut pieces, shutdown, permit } = state else { return None };
            let piece = tokio::select! {
                biased;
                () = shutdown.begun() => None,
                piece = pieces.recv() => piece,
            };
            Some(match piece {
                Some(Piece::Page(page)) => (Ok(page), State::Open { pieces, shutdown, permit }),
                Some(Piece::Last(page)) => (Ok(page), State::Ended),
                None => {
                    metrics::counter!("bulk_interrupted_total", "kind" => "export").increment(1);
                    (Err(io::Error::other("the export was interrupted")), State::Ended)
                }
            })
        })
    }

    /// Reads the pages and sends them.
    async fn run(self, first: ExportPage, pieces: &mpsc::Sender<Piece>) {
        let begun = Instant::now();
        let sent = self.send_pages(first, pieces).await;
        let (rows, error) = match sent {
            Ok(rows) => (rows, None),
            Err(error) => (None, Some(error.to_string())),
        };
        tracing::info!(
            customer_id = self.caller.customer_id.get(),
            caller.tenant.id = self.caller.home_if_away().map(TenantId::get),
            rows,
            error,
            duration_ms = begun.elapsed().as_secs_f64() * 1000.0,
            "an export has ended"
        );
    }

    /// Returns the number of rows, or `None` if the client has gone.
    async fn send_pages(
        &self,
        first: ExportPage,
        pieces: &mpsc::Sender<Piece>,
    ) -> Result<Option<u64>, ExportError> {
        let mut file = self.format.begin(&self.feed_cursor);
        let (mut page, mut rows) = (first, 0_u64);
        loop {
            let ExportPage { orders, next } = page;
            let has_next = next.is_some();
            let load_next = async {
                match next {
                    Some(place) => self.reader.load_page(&self.filter, place).await.map(Some),
                    None => Ok(None),
                }
            };
            let count = orders.len();
            let write = async {
                for order in &orders {
                    self.format.write_order(&mut file, order)?;
                }
                drop(orders);
                if has_next {
                    let page = Bytes::from(std::mem::take(&mut file));
                    // If nobody takes it, the next page is not sent either.
                    let _client_is_gone = pieces.send(Piece::Page(page)).await;
                }
                Ok::<_, ExportError>(())
            };
            // The query is on its way before the page is written out.
            let (loaded, written) = tokio::join!(load_next, write);
            written?;
            rows += u64::try_from(count).unwrap_or(u64::MAX);
            metrics::counter!("export_rows_total").increment(u64::try_from(count).unwrap_or(u64::MAX));
            match loaded? {
                Some(loaded) => page = loaded,
                None => break,
            }
        }
        self.format.end(&mut file, &self.feed_cursor, rows);
        let sent = pieces.send(Piece::Last(file.into())).await;
        Ok(sent.is_ok().then_some(rows))
    }
}

/// Why an export could not be completed.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Database(#[from] DbError),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl ExportFormat {
    fn begin(self, feed_cursor: &str) -> Vec<u8> {
        match self {
            Self::Ndjson => format!("{{\"feed_cursor\":\"{feed_cursor}\"}}\n").into_bytes(),
            Self::Csv => {
                let mut file = Vec::new();
                csv::write_header(&mut file);
                file
            }
        }
    }

    fn write_order(self, file: &mut Vec<u8>, order: &Order) -> Result<(), serde_json::Error> {
        match self {
            Self::Ndjson => {
                serde_json::to_writer(&mut *file, order)?;
                file.push(b'\n');
                Ok(())
            }
            Self::Csv => csv::write_order(file, order),
        }
    }

    fn end(self, file: &mut Vec<u8>, feed_cursor: &str, rows: u64) {
        match self {
            Self::Ndjson => {
                file.extend_from_slice(format!("{{\"complete\":true,\"rows\":{rows}}}\n").as_bytes());
            }
            Self::Csv => csv::write_end(file, feed_cursor, rows),
        }
    }
}
