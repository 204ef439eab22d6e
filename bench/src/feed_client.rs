//! A client of the event feed's streams.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, HOST};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use tokio::net::TcpStream;

/// What each event begins its data with.
const DATA: &[u8] = b"\ndata: {";
/// What each block ends with.
const END: &[u8] = b"\n\n";

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    body: Incoming,
    /// What came after the last whole block.
    rest: Vec<u8>,
}

impl Stream {
    /// Opens a stream at `address`, which begins where `after` says.
    pub async fn open(address: &str, token: &str, after: &str) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        tokio::spawn(connection);
        let request = Request::get(format!("/api/v1/events?after={after}"))
            .header(HOST, address)
            .header(ACCEPT, "text/event-stream")
            .header(AUTHORIZATION, format!("Bearer {token}"))
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        ensure!(response.status().is_success(), "the stream is answered {}", response.status());
        Ok(Self { body: response.into_body(), rest: Vec::new() })
    }

    /// Reads until so many events have come, and no more.
    pub async fn count(&mut self, events: u64) -> anyhow::Result<()> {
        let mut counted = 0;
        while counted < events {
            self.read_blocks(|_| counted += 1).await?;
        }
        ensure!(counted == events, "{counted} events came, and not {events}");
        Ok(())
    }

    /// Waits for the next piece, and calls `each` with what each event in it begins with, from its `data` on.
    pub async fn read_blocks(&mut self, mut each: impl FnMut(&[u8])) -> anyhow::Result<()> {
        let frame = self.body.frame().await.context("the stream has ended")??;
        let Ok(bytes) = frame.into_data() else { return Ok(()) };
        let whole = if self.rest.is_empty() {
            bytes
        } else {
            self.rest.extend_from_slice(&bytes);
            std::mem::take(&mut self.rest).into()
        };
        let end = memmem::rfind(&whole, END).map_or(0, |at| at + END.len());
        for at in memmem::find_iter(&whole[..end], DATA) {
            each(&whole[at + DATA.len() - 1..end]);
        }
        self.rest.extend_from_slice(&whole[end..]);
        Ok(())
    }
}
