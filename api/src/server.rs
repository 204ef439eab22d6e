//! The HTTP server: accepts connections, bounds what each may take, and lets them finish at shutdown.

mod refusal;

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use shared::shutdown::Shutdown;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tower::Service as _;

use self::refusal::Stream;
use crate::middleware::Peer;

/// What a connection, and all of them together, may take.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Connections at once; further ones wait in the kernel's queue.
    pub connections: usize,
    /// How long the head of a request may take, also the next one of an idle connection.
    pub header_read_timeout: Duration,
    /// Bytes of a request's head.
    pub header_bytes: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self { connections: 8192, header_read_timeout: Duration::from_secs(20), header_bytes: 32 * 1024 }
    }
}

/// After a failed accept, mostly for want of file descriptors: time for some to come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` begins. Open connections are tracked by it: each ends after the request in progress.
pub async fn serve(listener: TcpListener, router: Router, limits: ServerLimits, shutdown: Shutdown) {
    let permits = Arc::new(Semaphore::new(limits.connections));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout)
        .max_header_size(limits.header_bytes);
    // Without `pipeline_flush`: it keeps hyper from sending its refusal of what is no request.
    loop {
        let (stream, peer, permit) = tokio::select! {
            () = shutdown.begun() => return,
            accepted = accept(&listener, &permits) => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(error = %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (router, http, stop) = (router.clone(), http.clone(), shutdown.clone());
        shutdown.spawn(async move {
            converse(stream, peer, router, http, stop).await;
            drop(permit);
        });
    }
}

/// The permit comes first: what cannot be served is not accepted.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, Peer, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    // Answers are written whole; waiting to fill a packet only delays them.
    stream.set_nodelay(true)?;
    Ok((stream, Peer(peer), permit))
}

/// One connection, to its end.
async fn converse(stream: TcpStream, peer: Peer, router: Router, http: http1::Builder, shutdown: Shutdown) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        router.clone().call(request.map(Body::new))
    });
    let mut stream = Stream::new(stream);
    let ended = {
        let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(&mut stream), service));
        tokio::select! {
            ended = connection.as_mut() => ended,
            () = shutdown.begun() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    };
    if let Err(error) = ended {
        // A client that went away, or one that speaks no HTTP.
        tracing::debug!(error = %error, "a connection ended early");
        stream.linger().await;
    }
}
