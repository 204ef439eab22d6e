//! A client's connection: written to under a deadline, and closed so that the last answer arrives.

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

use super::activity::{Activity, Doing};

/// So many bytes a client must accept within each write time-out, if it does not accept all there are: 32 KiB.
pub(super) const MIN_PROGRESS: usize = 32 * 1024;
/// What the kernel takes for a connection beyond what the client's window allows to be sent: 64 KiB. By default it
/// takes up to 4 MiB (`tcp_wmem`) from a client that never reads.
#[cfg(target_os = "linux")]
const MAX_UNSENT: u32 = 64 * 1024;
/// How long, and for how many bytes, the rest of a refused request is read.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 1024 * 1024;

/// A connection's stream.
pub(super) struct ClientStream {
    inner: TcpStream,
    activity: Arc<Activity>,
    write_timeout: Duration,
    /// Set while the client owes progress.
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

    /// Answers the first bytes of HTTP/2, which hyper leaves without an answer.
    pub(super) async fn refuse_http2(&mut self) {
        let answer = format!(
            "HTTP/1.1 505 HTTP Version Not Supported\r\nx-request-id: {}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            Uuid::now_v7()
        );
        // The client may be gone.
        let _best_effort = self.inner.write_all(answer.as_bytes()).await;
    }

    /// Reads the rest of a request that was refused: if a connection is closed on unread input, it is reset, and then
    /// the client may never see the answer.
    pub(super) async fn linger(&mut self) {
        self.activity.begin(Doing::Receiving);
        if self.inner.shutdown().await.is_ok() {
            let mut rest = (&mut self.inner).take(LINGER_BYTES);
            let mut nowhere = tokio::io::sink();
            let _best_effort = tokio::time::timeout(LINGER, tokio::io::copy(&mut rest, &mut nowhere)).await;
        }
    }

    /// Holds a write to the deadline.
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
                    self.activity.begin(Doing::Working);
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

/// The kernel's part: nothing waits to fill a packet, little waits for a client that does not read, and a client that
/// is gone is noticed.
fn set_options(stream: &TcpStream, write_timeout: Duration) {
    let options = socket2::SockRef::from(stream);
    // They fail only if the connection is gone already, which the first read tells.
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

    /// hyper calls it once nothing is left to be written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.deadline = None;
        if self.activity.unblock() {
            // The next request may wait for this.
            cx.waker().wake_by_ref();
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
