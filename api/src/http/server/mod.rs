//! The HTTP server: accepts connections, limits what each can take, and lets them finish at shutdown.
//!
//! It knows neither routes nor problems; a request is handled by the router and its `layer`.

mod activity;
mod limits;
mod open_files;
mod request_body;
mod response_body;
mod response_budget;
mod slots;
mod stream;

use std::{
    convert::Infallible,
    io::{self, ErrorKind},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use axum::{Router, body::Body, http::Request, response::Response};
use hyper::{
    body::{Body as _, Incoming},
    rt::{Read, Write},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use shared::platform::shutdown::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tower::Service as _;

use self::{
    activity::Activity,
    request_body::RequestBody,
    response_body::ResponseBody,
    slots::{ConnectionSlot, ConnectionSlots},
    stream::ClientStream,
};
pub use self::{limits::ServerLimits, open_files::fit_connections};
pub(crate) use self::{response_budget::ResponseBudget, slots::ConnectionHandle};

/// The client's end of a connection, in the extensions of each request.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub SocketAddr);

/// What each request of a connection carries.
#[derive(Clone)]
struct RequestExtensions {
    peer: PeerAddress,
    budget: ResponseBudget,
    connection: ConnectionHandle,
}

/// The pause after a failed accept, which mostly means that file descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a connection can wait for its client at shutdown. A running handler can take the whole grace period.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(2);
/// How often a connection that must close checks whether its handler has finished.
const CLOSE_CHECK: Duration = Duration::from_millis(100);

/// Serves until `shutdown` begins. `shutdown` tracks the open connections; each ends after its current request.
pub async fn serve(listener: TcpListener, router: Router, limits: ServerLimits, shutdown: Shutdown) {
    let slots = Arc::new(ConnectionSlots::new(limits.connections, limits.connections_per_address));
    let budget = ResponseBudget::new(limits.response_budget, &slots);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits.header_read_timeout)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes);
    loop {
        let accepted = tokio::select! {
            () = shutdown.begun() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                tracing::warn!(error = %error, "a connection could not be accepted");
                slots.close_waiting();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let slot = tokio::select! {
            () = shutdown.begun() => return,
            slot = slots.acquire(peer.ip()) => slot,
        };
        let Some(slot) = slot else {
            reset(&stream);
            continue;
        };
        let connection = slot.handle();
        let stream = ClientStream::new(stream, Arc::clone(slot.activity()), limits.write_timeout);
        shutdown.spawn(serve_connection(
            stream,
            slot,
            RequestExtensions { peer: PeerAddress(peer), budget: budget.clone(), connection },
            router.clone(),
            http.clone(),
            shutdown.clone(),
        ));
    }
}

/// Whether accepting failed only because this client has gone away.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused
    )
}

/// Makes the kernel drop what it still holds of a connection as soon as it is closed.
fn reset(stream: &TcpStream) {
    // It fails only if the connection is gone already.
    let _is_open = stream.set_zero_linger();
}

/// Serves one connection to its end.
async fn serve_connection(
    mut stream: ClientStream,
    slot: ConnectionSlot,
    extensions: RequestExtensions,
    router: Router,
    http: http1::Builder,
    shutdown: Shutdown,
) {
    let activity = Arc::clone(slot.activity());
    let service = service_fn(move |request| {
        handle_request(request, extensions.clone(), router.clone(), Arc::clone(&activity))
    });
    let ended = {
        let connection = pin!(http.serve_connection(TokioIo::new(&mut stream), service));
        run_until_closed(connection, &slot, &shutdown).await
    };
    let is_refused = match &ended {
        None => false,
        Some(Ok(())) => slot.activity().has_unread_body(),
        Some(Err(error)) => {
            // The client went away, or does not speak HTTP.
            tracing::debug!(error = %error, "a connection ended early");
            if error.is_parse_version_h2() {
                stream.refuse_http2().await;
            }
            error.is_parse()
        }
    };
    if is_refused {
        tokio::select! {
            () = stream.linger() => {}
            () = slot.close_requested() => {}
        }
    } else if ended.is_none() || stream.has_timed_out() {
        reset(stream.get_ref());
    }
}

/// Runs a connection until it ends. Returns `None` if it must close and would only wait for its client.
async fn run_until_closed<I, S>(
    mut connection: Pin<&mut http1::Connection<I, S>>,
    slot: &ConnectionSlot,
    shutdown: &Shutdown,
) -> Option<hyper::Result<()>>
where
    I: Read + Write + Unpin,
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
{
    // `biased`: a request that has arrived is handled first.
    let max_wait = tokio::select! {
        biased;
        ended = connection.as_mut() => return Some(ended),
        () = slot.close_requested() => Duration::ZERO,
        () = shutdown.begun() => SHUTDOWN_WAIT,
    };
    connection.as_mut().graceful_shutdown();
    let mut next_check = Duration::ZERO;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return Some(ended),
            () = tokio::time::sleep(next_check) => {}
        }
        if slot.activity().waiting_for().is_some_and(|waiting| waiting >= max_wait) {
            return None;
        }
        next_check = CLOSE_CHECK;
    }
}

/// Handles one request, after the client has accepted the responses before it.
async fn handle_request(
    request: Request<Incoming>,
    extensions: RequestExtensions,
    mut router: Router,
    activity: Arc<Activity>,
) -> Result<Response, Infallible> {
    activity.responses_sent().await;
    activity.take_turn().await;
    activity.begin_request();
    let mut request = request.map(|body| {
        if body.is_end_stream() { Body::empty() } else { Body::new(RequestBody::new(body, &activity)) }
    });
    request.extensions_mut().insert(extensions.peer);
    request.extensions_mut().insert(extensions.budget);
    request.extensions_mut().insert(extensions.connection);
    let response = router.call(request).await?;
    if response.body().size_hint().exact().is_some() {
        activity.end_request();
        return Ok(response);
    }
    Ok(response.map(|body| Body::new(ResponseBody::new(body, &activity))))
}
