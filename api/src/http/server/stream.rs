//! A client's connection: writes have a deadline, and it is closed so that the last response arrives.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    time::Sleep,
};
use uuid::Uuid;

use super::activity::{Activity, ConnectionState};

/// The bytes that a client must accept within each write time-out, if there are as many: 32 KiB.
const MIN_PROGRESS: usize = 32 * 1024;
/// What the kernel buffers for a connection beyond the client's window: 64 KiB. By default it buffers up to 4 MiB
/// (`tcp_wmem`) for a client that never reads.
#[cfg(target_os = "linux")]
const MAX_UNSENT: u32 = 64 * 1024;
/// How long the rest of a refused request is read.
const LINGER: Duration = Duration::from_secs(2);
/// How many bytes of it are read.
const LINGER_BYTES: u64 = 1024 * 1024;

/// A connection's stream.
pub(super) struct ClientStream {
    inner: TcpStream,
    activity: Arc<Activity>,
    write_timeout: Duration,
    /// Set while the client must accept bytes.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Bytes the client has accepted since `deadline` was set.
    progress: usize,
    has_timed_out: bool,
}

impl ClientStream {
    pub(super) fn new(inner: TcpStream, activity: Arc<Activity>, write_timeout: Duration) -> Self {
        set_options(&inner, write_timeout);
        Self { inner, activity, write_timeout, deadline: None, progress: 0, has_timed_out: false }
    }

    pub(super) fn get_ref(&self) -> &TcpStream {
        &self.inner
    }

    /// Whether it ended because its client did not read.
    pub(super) fn has_timed_out(&self) -> bool {
        self.has_timed_out
    }

    /// Responds to the first bytes of HTTP/2, to which hyper does not respond.
    pub(super) async fn refuse_http2(&mut self) {
        let response = format!(
            "HTTP/1.1 505 HTTP Version Not Supported\r\nx-request-id: {}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            Uuid::now_v7()
        );
        // The client may be gone.
        let _best_effort = self.inner.write_all(response.as_bytes()).await;
    }

    /// Reads the rest of a request that was refused: a connection that is closed with unread input is reset, and then the
    /// client may never see the response.
    pub(super) async fn linger(&mut self) {
        self.activity.set_state(ConnectionState::ReceivingBody);
        if self.inner.shutdown().await.is_ok() {
            let mut rest = (&mut self.inner).take(LINGER_BYTES);
            let mut nowhere = tokio::io::sink();
            let _best_effort = tokio::time::timeout(LINGER, tokio::io::copy(&mut rest, &mut nowhere)).await;
        }
    }

    /// Fails the write if the client has not accepted enough bytes within the write time-out.
    fn check_progress(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(bytes)) => {
                self.progress = self.progress.saturating_add(*bytes);
                if self.progress >= MIN_PROGRESS {
                    self.deadline = None;
                }
            }
            Poll::Ready(Err(_)) => {}
            Poll::Pending => {
                let deadline = self.deadline.get_or_insert_with(|| {
                    self.progress = 0;
                    self.activity.set_state(ConnectionState::Handling);
                    Box::pin(tokio::time::sleep(self.write_timeout))
                });
                self.activity.block();
                if deadline.as_mut().poll(cx).is_ready() {
                    self.has_timed_out = true;
                    return Poll::Ready(Err(ErrorKind::TimedOut.into()));
                }
            }
        }
        written
    }
}

/// Options of the kernel: bytes do not wait to fill a packet, few are buffered for a client that does not read, and a client
/// that is gone is noticed.
fn set_options(stream: &TcpStream, write_timeout: Duration) {
    let options = socket2::SockRef::from(stream);
    // They fail only if the connection is gone, which the first read reports.
    let _is_open = options.set_tcp_nodelay(true);
    #[cfg(target_os = "linux")]
    {
        let _is_open = options.set_tcp_notsent_lowat(MAX_UNSENT);
        let _is_open = options.set_tcp_user_timeout(Some(write_timeout));
    }
    #[cfg(not(target_os = "linux"))]
    let _linux_only = write_timeout;
}

impl AsyncRead for ClientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buf);
        if read.is_pending() {
            self.activity.wait_for_bytes();
        }
        read
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.check_progress(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, bufs);
        self.check_progress(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// hyper calls it when nothing is left to be written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.deadline = None;
        if self.activity.unblock() {
            // The next request can be waiting for this.
            cx.waker().wake_by_ref();
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
