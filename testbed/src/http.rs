//! The little HTTP that waiting for readiness and managing RabbitMQ need, without a client library.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body as text.
    pub body: String,
}

impl Response {
    /// Whether the status is a 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// GET of an `http://` address.
pub async fn get(url: &str) -> anyhow::Result<Response> {
    request("GET", url, &[], None).await
}

/// A request to an `http://` address, which may carry a user name and password, with further headers and a JSON body.
pub async fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    json: Option<&str>,
) -> anyhow::Result<Response> {
    tokio::time::timeout(DEADLINE, exchange(method, url, headers, json))
        .await
        .with_context(|| format!("{url} did not answer within {DEADLINE:?}"))?
}

async fn exchange(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    json: Option<&str>,
) -> anyhow::Result<Response> {
    let Some(rest) = url.strip_prefix("http://") else { bail!("{url} is not an http:// address") };
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let (user, host) =
        authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };

    let body = json.unwrap_or_default();
    // HTTP/1.0: the answer then ends with the connection and is never in chunks.
    let mut head = format!("{method} {path} HTTP/1.0\r\nHost: {host}\r\n");
    if let Some(user) = user {
        write!(head, "Authorization: Basic {}\r\n", BASE64.encode(user))?;
    }
    if json.is_some() {
        head += "Content-Type: application/json\r\n";
    }
    for (name, value) in headers {
        write!(head, "{name}: {value}\r\n")?;
    }
    write!(head, "Content-Length: {}\r\n\r\n", body.len())?;

    let mut connection =
        TcpStream::connect(&address).await.with_context(|| format!("nothing listens on {address}"))?;
    connection.write_all((head + body).as_bytes()).await?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{url} does not speak HTTP"))?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Response {
        status: status.with_context(|| format!("{url} does not speak HTTP"))?,
        body: body.to_owned(),
    })
}
