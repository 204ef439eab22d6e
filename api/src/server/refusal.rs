//! Our answer to what is no request.
//!
//! What cannot be read as HTTP never reaches the routes: hyper answers it by itself, with a bare status, as the last
//! thing on its connection. [`Stream`] puts a problem document in the place of that answer, and looks for it only where
//! a write ends like a head without a body.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::http::StatusCode;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
};

use crate::{
    error::{ApiError, Code},
    middleware,
};

/// hyper's own answer is shorter: a status line, `connection`, `content-length` and `date`.
const LONGEST: usize = 160;
/// How long, and for how many bytes, the rest of what is no request is taken in.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 1024 * 1024;

/// A connection's stream.
pub(super) struct Stream {
    inner: TcpStream,
    swap: Option<Swap>,
    refused: bool,
}

/// What is written in the place of something else.
struct Swap {
    bytes: Vec<u8>,
    written: usize,
    stands_for: usize,
}

impl Stream {
    pub(super) fn new(inner: TcpStream) -> Self {
        Self { inner, swap: None, refused: false }
    }

    /// Takes in the rest of what was refused: a connection that is closed on unread input is reset, and then the
    /// client may never see the answer.
    pub(super) async fn linger(mut self) {
        if self.refused && self.inner.shutdown().await.is_ok() {
            let mut rest = (&mut self.inner).take(LINGER_BYTES);
            let mut nowhere = tokio::io::sink();
            let _best_effort = tokio::time::timeout(LINGER, tokio::io::copy(&mut rest, &mut nowhere)).await;
        }
    }

    fn poll_swap(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        while let Some(swap) = &mut self.swap {
            let rest = &swap.bytes[swap.written..];
            if rest.is_empty() {
                let stands_for = swap.stands_for;
                self.swap = None;
                self.refused = true;
                return Poll::Ready(Ok(stands_for));
            }
            swap.written += ready!(Pin::new(&mut self.inner).poll_write(cx, rest))?;
        }
        Poll::Ready(Ok(0))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.swap.is_none() {
            let Some((before, code)) = refusal(buf) else {
                return Pin::new(&mut self.inner).poll_write(cx, buf);
            };
            let bytes = [before, &answer(code)].concat();
            self.swap = Some(Swap { bytes, written: 0, stands_for: buf.len() });
        }
        self.poll_swap(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match bufs {
            // A head whose answer has no body.
            [alone] => self.poll_write(cx, alone),
            _ => Pin::new(&mut self.inner).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// What stands before hyper's own refusal, where a write ends with one, and what it refuses.
fn refusal(written: &[u8]) -> Option<(&[u8], Code)> {
    if !written.ends_with(b"\r\n\r\n") {
        return None;
    }
    let (before, tail) = written.split_at(written.len().saturating_sub(LONGEST));
    let start = tail.windows(7).rposition(|window| window == b"HTTP/1.")?;
    let head = std::str::from_utf8(&tail[start..]).ok()?;
    // Every answer of ours has its id.
    if !head.contains("\r\ncontent-length: 0\r\n") || head.contains(middleware::X_REQUEST_ID.as_str()) {
        return None;
    }
    let code = match head.split(' ').nth(1)? {
        "400" => Code::MalformedRequest,
        "431" => Code::HeadersTooLarge,
        _ => return None,
    };
    Some((&written[..before.len() + start], code))
}

/// The whole answer, as it is sent.
fn answer(code: Code) -> Vec<u8> {
    let detail = match code {
        Code::HeadersTooLarge => "the request line and the headers are too many, or too large",
        _ => "this is no HTTP request, or not a well-formed one",
    };
    let (status, headers, body) = middleware::unread(&ApiError::new(code, detail));
    let mut answer = status_line(status);
    for (name, value) in &headers {
        answer.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    answer.extend(format!("connection: close\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes());
    answer.extend(body);
    answer
}

fn status_line(status: StatusCode) -> Vec<u8> {
    let reason = status.canonical_reason().unwrap_or_default();
    format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_HYPER: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\ndate: Wed, 01 Jan 2025 00:00:00 GMT\r\n\r\n";

    fn found(written: &str) -> Option<(&[u8], Code)> {
        refusal(written.as_bytes())
    }

    #[test]
    fn hypers_own_refusal_is_found_also_behind_another_answer() {
        assert_eq!(found(OF_HYPER), Some((&b""[..], Code::MalformedRequest)));
        let too_large = OF_HYPER.replace("400 Bad Request", "431 Request Header Fields Too Large");
        assert_eq!(found(&too_large), Some((&b""[..], Code::HeadersTooLarge)));
        let before = "HTTP/1.1 200 OK\r\nx-request-id: 1\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(found(&format!("{before}{OF_HYPER}")), Some((before.as_bytes(), Code::MalformedRequest)));
    }

    #[test]
    fn answers_of_ours_are_left_alone() {
        let ours = OF_HYPER.replace("date: ", "x-request-id: 1\r\ndate: ");
        let other = OF_HYPER.replace("400 Bad Request", "204 No Content");
        let body = format!("{OF_HYPER}{{}}");
        for written in [ours.as_str(), &other, &body, "", "\r\n\r\n", "HTTP/1.1 400\r\n\r\n"] {
            assert_eq!(found(written), None, "{written}");
        }
    }
}
