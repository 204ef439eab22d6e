//! One HTTP connection that is opened when needed, and again after it broke.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// A little over the 10 s after which the API itself gives up.
const DEADLINE: Duration = Duration::from_secs(15);

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) path: String,
    /// A whole `Authorization` header.
    pub(crate) authorization: String,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) body: Bytes,
}

/// What came back.
#[derive(Debug)]
pub(crate) enum Answer {
    /// An HTTP answer.
    Http(StatusCode, Bytes),
    /// None in time.
    TimedOut,
    /// The connection was refused or broke.
    Broken,
}

/// To one address, one request at a time.
#[derive(Debug)]
pub(crate) struct Connection {
    address: String,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    /// To `host:port`; not opened yet.
    pub(crate) fn new(address: String) -> Self {
        Self { address, sender: None }
    }

    /// Asks, and waits for the answer.
    pub(crate) async fn send(&mut self, ask: Ask) -> Answer {
        match tokio::time::timeout(DEADLINE, self.exchange(ask)).await {
            Ok(Ok((status, body))) => Answer::Http(status, body),
            Ok(Err(_)) => {
                self.sender = None;
                Answer::Broken
            }
            Err(_) => {
                self.sender = None;
                Answer::TimedOut
            }
        }
    }

    async fn exchange(&mut self, ask: Ask) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = Request::builder()
            .method(ask.method)
            .uri(ask.path)
            .header(HOST, &self.address)
            .header(AUTHORIZATION, ask.authorization);
        if !ask.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(key) = ask.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Full::new(ask.body))?;
        let response = self.opened().await?.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    async fn opened(&mut self) -> anyhow::Result<&mut SendRequest<Full<Bytes>>> {
        if let Some(sender) = &mut self.sender
            && sender.ready().await.is_err()
        {
            // Closed by the server between two requests, as servers may.
            self.sender = None;
        }
        if self.sender.is_none() {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            self.sender = Some(sender);
        }
        self.sender.as_mut().context("it has just been opened")
    }
}
