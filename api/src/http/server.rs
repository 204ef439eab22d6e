//! The HTTP server: accepts connections, bounds what each may take, and lets them finish at shutdown.

mod activity;
mod answer_budget;
mod open_files;
mod places;
mod request_body;
mod stream;

use std::{
    convert::Infallible,
    io::{self, ErrorKind},
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

pub(crate) use self::answer_budget::AnswerBudget;
pub use self::open_files::fit_connections;
use self::{
    activity::Activity,
    places::{Place, Places},
    request_body::RequestBody,
    stream::ClientStream,
};
use crate::http::layer::Peer;

/// What a connection, and all of them together, may take.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Connections at once. When they are used up, the one that has waited longest for its client is closed.
    pub connections: usize,
    /// Connections of one address at once (of one /64 with IPv6), at most a quarter of all. `None` behind a proxy,
    /// whose address all clients share.
    pub connections_per_address: Option<usize>,
    /// How long the head of a request may take, also the next one of an idle connection.
    pub header_read_timeout: Duration,
    /// Bytes of a request's head, and of what is read ahead.
    pub header_bytes: usize,
    /// How long a client may take to accept the next [`stream::MIN_PROGRESS`] bytes of its answers.
    pub write_timeout: Duration,
    /// Bytes of all large answers that wait to be sent.
    pub answer_budget: u32,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections: 8192,
            connections_per_address: Some(2048),
            header_read_timeout: Duration::from_secs(20),
            header_bytes: 32 * 1024,
            write_timeout: Duration::from_secs(20),
            answer_budget: 64 * 1024 * 1024,
        }
    }
}

impl ServerLimits {
    /// The default behind so many proxies.
    pub fn behind(trusted_proxies: usize) -> Self {
        let limits = Self::default();
        if trusted_proxies == 0 { limits } else { Self { connections_per_address: None, ..limits } }
    }
}

/// After a failed accept, mostly because file descriptors are used up: time for some to come free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// At shutdown a connection may wait this long for its client. A handler at work may take the whole grace period.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(2);
/// How often a connection that must close looks whether its handler has finished.
const CLOSE_CHECK: Duration = Duration::from_millis(100);

/// Serves until `shutdown` begins. Open connections are tracked by it: each ends after the request in progress.
pub async fn serve(listener: TcpListener, router: Router, limits: ServerLimits, shutdown: Shutdown) {
    let places = Arc::new(Places::new(limits.connections, limits.connections_per_address));
    let answers = AnswerBudget::new(limits.answer_budget, &places);
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
                places.close_waiting();
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let place = tokio::select! {
            () = shutdown.begun() => return,
            place = places.take(peer.ip()) => place,
        };
        let Some(place) = place else {
            reset(&stream);
            continue;
        };
        let stream = ClientStream::new(stream, Arc::clone(place.activity()), limits.write_timeout);
        shutdown.spawn(serve_connection(
            stream,
            place,
            (Peer(peer), answers.clone()),
            router.clone(),
            http.clone(),
            shutdown.clone(),
        ));
    }
}

/// Whether accepting failed for this one client only, which has gone away again.
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
    place: Place,
    extensions: (Peer, AnswerBudget),
    router: Router,
    http: http1::Builder,
    shutdown: Shutdown,
) {
    let activity = Arc::clone(place.activity());
    let service =
        service_fn(move |request| answer(request, extensions.clone(), router.clone(), Arc::clone(&activity)));
    let ended = {
        let connection = pin!(http.serve_connection(TokioIo::new(&mut stream), service));
        run_until_told(connection, &place, &shutdown).await
    };
    let is_refused = match &ended {
        None => false,
        Some(Ok(())) => place.activity().has_unread_body(),
        Some(Err(error)) => {
            // A client that went away, or one that speaks no HTTP.
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
            () = place.closed() => {}
        }
    } else if ended.is_none() || stream.has_timed_out() {
        reset(stream.get_ref());
    }
}

/// Runs a connection until it ends. The result is `None` if it was told to close and would only wait for its client.
async fn run_until_told<I, S>(
    mut connection: Pin<&mut http1::Connection<I, S>>,
    place: &Place,
    shutdown: &Shutdown,
) -> Option<hyper::Result<()>>
where
    I: Read + Write + Unpin,
    S: Service<Request<Incoming>, Response = Response, Error = Infallible>,
{
    // `biased`: what the client has sent is looked at first.
    let patience = tokio::select! {
        biased;
        ended = connection.as_mut() => return Some(ended),
        () = place.closed() => Duration::ZERO,
        () = shutdown.begun() => SHUTDOWN_PATIENCE,
    };
    connection.as_mut().graceful_shutdown();
    let mut next_check = Duration::ZERO;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => return Some(ended),
            () = tokio::time::sleep(next_check) => {}
        }
        if place.activity().waiting_for().is_some_and(|waiting| waiting >= patience) {
            return None;
        }
        next_check = CLOSE_CHECK;
    }
}

/// Answers one request, once the client has accepted the answers before.
async fn answer(
    request: Request<Incoming>,
    (peer, answers): (Peer, AnswerBudget),
    mut router: Router,
    activity: Arc<Activity>,
) -> Result<Response, Infallible> {
    activity.answers_sent().await;
    activity.take_turn().await;
    activity.begin_request();
    let mut request = request.map(|body| {
        if body.is_end_stream() { Body::empty() } else { Body::new(RequestBody::new(body, &activity)) }
    });
    request.extensions_mut().insert(peer);
    request.extensions_mut().insert(answers);
    let response = router.call(request).await;
    activity.end_request();
    response
}
