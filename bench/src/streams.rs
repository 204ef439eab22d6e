//! Requests and responses that are too large to be held: sent and read at once, over a connection of their own.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What is kept of the end of a response.
const TAIL_BYTES: usize = 4096;

/// A response that has been read.
#[derive(Debug)]
pub struct Streamed {
    /// Bytes of its body.
    pub bytes: u64,
    /// The last line of its body.
    pub last_line: String,
}

/// Sends a request to the API at `url`, and reads the response while the body is still being sent.
pub async fn exchange(
    url: &str,
    method: Method,
    path: &str,
    token: &str,
    body: Option<(&str, Bytes)>,
) -> anyhow::Result<Streamed> {
    let address = url.strip_prefix("http://").context("the API speaks plain HTTP")?;
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, address)
        .header(AUTHORIZATION, format!("Bearer {token}"));
    if let Some((content_type, _)) = &body {
        request = request.header(CONTENT_TYPE, *content_type);
    }
    let request = request.body(Full::new(body.map(|(_, body)| body).unwrap_or_default()))?;
    let mut response = sender.send_request(request).await?;
    ensure!(response.status().is_success(), "{path} was answered with {}", response.status());
    let (mut bytes, mut tail) = (0, Vec::new());
    while let Some(frame) = response.frame().await {
        if let Ok(data) = frame?.into_data() {
            bytes += u64::try_from(data.len())?;
            tail.extend_from_slice(&data[data.len().saturating_sub(TAIL_BYTES)..]);
            tail.drain(..tail.len().saturating_sub(TAIL_BYTES));
        }
    }
    drop(sender);
    connection.abort();
    let tail = String::from_utf8_lossy(&tail);
    Ok(Streamed { bytes, last_line: tail.lines().last().unwrap_or_default().to_owned() })
}
