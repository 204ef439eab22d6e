//! The little HTTP that waiting for readiness, managing RabbitMQ and filling in test data need, without a library.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

const DEADLINE: Duration = Duration::from_secs(10);

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Its headers, in the order in which they came.
    pub headers: Vec<(String, String)>,
    /// The body as text.
    pub body: String,
}

/// A connection that is kept open between requests.
#[derive(Debug)]
pub struct Client {
    host: String,
    user: Option<String>,
    stream: BufReader<TcpStream>,
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
    let exchange = async {
        let mut client = Client::connect(url).await?;
        let (_, path) = split(url)?;
        client.send(method, path, headers, json).await
    };
    tokio::time::timeout(DEADLINE, exchange)
        .await
        .with_context(|| format!("{url} did not answer within {DEADLINE:?}"))?
}

impl Client {
    /// Connects to the server of an `http://` address.
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        let (authority, _) = split(url)?;
        let (user, host) =
            authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
        let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
        let stream =
            TcpStream::connect(&address).await.with_context(|| format!("nothing listens on {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { host: host.to_owned(), user: user.map(str::to_owned), stream: BufReader::new(stream) })
    }

    /// Sends a request and reads the answer to its end.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        json: Option<&str>,
    ) -> anyhow::Result<Response> {
        let body = json.unwrap_or_default();
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        if let Some(user) = &self.user {
            write!(request, "Authorization: Basic {}\r\n", BASE64.encode(user))?;
        }
        if json.is_some() {
            request += "Content-Type: application/json\r\n";
        }
        for (name, value) in headers {
            write!(request, "{name}: {value}\r\n")?;
        }
        write!(request, "Content-Length: {}\r\n\r\n{body}", body.len())?;
        self.stream.write_all(request.as_bytes()).await?;
        self.receive().await
    }

    async fn receive(&mut self) -> anyhow::Result<Response> {
        let first = self.line().await?;
        let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.with_context(|| format!("{} does not speak HTTP", self.host))?;
        let (mut length, mut chunked, mut headers) = (None, false, Vec::new());
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { break };
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse()?);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = value.trim().eq_ignore_ascii_case("chunked");
            }
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let body = match length {
            _ if matches!(status, 204 | 304) => Vec::new(),
            _ if chunked => self.chunks().await?,
            Some(length) => self.exactly(length).await?,
            None => {
                let mut rest = Vec::new();
                self.stream.read_to_end(&mut rest).await?;
                rest
            }
        };
        Ok(Response { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
    }

    async fn chunks(&mut self) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let length = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)?;
            body.extend(self.exactly(length).await?);
            self.line().await?;
            if length == 0 {
                return Ok(body);
            }
        }
    }

    async fn exactly(&mut self, length: usize) -> anyhow::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).await?;
        Ok(bytes)
    }

    async fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            bail!("{} has closed the connection", self.host);
        }
        Ok(line.trim_end().to_owned())
    }
}

/// The authority and the path of an `http://` address.
fn split(url: &str) -> anyhow::Result<(&str, &str)> {
    let Some(rest) = url.strip_prefix("http://") else { bail!("{url} is not an http:// address") };
    Ok(rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash)))
}
