//! A TCP proxy on loopback that can fail as a network does.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Stands between a program under test and its server. Ends, with its connections, when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    weather: watch::Sender<Weather>,
    target: watch::Sender<String>,
    listening: mpsc::Sender<Listening>,
    _task: AbortOnDrop,
}

/// What happens to the connections now.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    frozen: bool,
    delay: Duration,
    /// Grows with each cut; a connection ends when this is no longer what it began with.
    cuts: u64,
    /// Grows with each silence; a connection forwards nothing any more when this is no longer what it began with.
    silences: u64,
}

/// Whether the proxy listens, and a sender that reports it.
type Listening = (bool, tokio::sync::oneshot::Sender<()>);

#[derive(Debug)]
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Proxy {
    /// Listens on a loopback port and forwards to `target`, an address such as `127.0.0.1:5432`.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub async fn start(target: impl Into<String>) -> Self {
        let (target, targets) = watch::channel(target.into());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port for the proxy");
        let addr = listener.local_addr().expect("the address of the proxy");
        let (weather, watch) = watch::channel(Weather::default());
        let (listening, orders) = mpsc::channel(1);
        let task = AbortOnDrop(tokio::spawn(serve(addr, listener, targets, watch, orders)));
        Self { addr, weather, target, listening, _task: task }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Leads new connections to another server, as an address does after a failover. Those that are open stay where they are.
    pub fn lead_to(&self, target: impl Into<String>) {
        self.target.send_replace(target.into());
    }

    /// Resets every connection (the peers see RST). New ones are still taken.
    pub fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    /// Stops listening: new connections are refused, existing ones go on.
    pub async fn refuse(&self) {
        self.listen(false).await;
    }

    /// Listens again after [`Self::refuse`].
    pub async fn accept(&self) {
        self.listen(true).await;
    }

    /// Forwards nothing any more while all connections stay open, as when a cable is pulled.
    pub fn freeze(&self) {
        self.weather.send_modify(|weather| weather.frozen = true);
    }

    /// Forwards again what has come meanwhile.
    pub fn thaw(&self) {
        self.weather.send_modify(|weather| weather.frozen = false);
    }

    /// Has the connections that are open now forward nothing any more, for good, although they stay open. New ones work:
    /// so it is after a node was lost, or when a router forgot its connections.
    pub fn silence(&self) {
        self.weather.send_modify(|weather| weather.silences += 1);
    }

    /// Holds each piece of data back for this time, in both directions. Zero ends it.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    async fn listen(&self, listen: bool) {
        let (done, is_done) = tokio::sync::oneshot::channel();
        self.listening.send((listen, done)).await.expect("the proxy runs");
        is_done.await.expect("the proxy runs");
    }
}

async fn serve(
    addr: SocketAddr,
    listener: TcpListener,
    target: watch::Receiver<String>,
    weather: watch::Receiver<Weather>,
    mut orders: mpsc::Receiver<Listening>,
) {
    let mut listener = Some(listener);
    // The connections end with this set, and it with the proxy.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.recv() => {
                let Some((listen, done)) = order else { return };
                if !listen {
                    listener = None;
                } else if listener.is_none() {
                    listener = Some(listen_again(addr));
                }
                // Whoever asked may have stopped waiting.
                let _stopped = done.send(());
            }
            accepted = async { listener.as_ref()?.accept().await.ok() }, if listener.is_some() => {
                if let Some((client, _)) = accepted {
                    let target = target.borrow().clone();
                    connections.spawn(connection(client, target, weather.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// The same port again, although connections of its former listener may live on.
fn listen_again(addr: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("a socket option");
    socket.bind(addr).expect("the port of the proxy is still free");
    socket.listen(1024).expect("to listen")
}

async fn connection(client: TcpStream, target: String, mut weather: watch::Receiver<Weather>) {
    let Weather { cuts: born, silences: loud, .. } = *weather.borrow();
    // A frozen network does not even connect.
    if weather.wait_for(|now| !now.frozen || now.cuts != born).await.is_err() {
        return;
    }
    let Ok(server) = TcpStream::connect(&target).await else {
        reset(&client);
        return;
    };
    let _best_effort = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut client, mut server) = (client, server);
    let cut = {
        let mut weather = weather.clone();
        async move { weather.wait_for(|now| now.cuts != born).await.map(|_| ()) }
    };
    let broken = {
        let (mut from_client, mut to_client) = client.split();
        let (mut from_server, mut to_server) = server.split();
        tokio::select! {
            _ = cut => true,
            ended = async {
                tokio::try_join!(
                    forward(&mut from_client, &mut to_server, weather.clone(), loud),
                    forward(&mut from_server, &mut to_client, weather.clone(), loud)
                )
            } => ended.is_err(),
        }
    };
    if broken {
        reset(&client);
        reset(&server);
    }
}

/// One direction, until its end, which is passed on.
async fn forward(
    from: &mut ReadHalf<'_>,
    to: &mut WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
    loud: u64,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        let thawed = weather.wait_for(|now| !now.frozen && now.silences == loud).await.map(|now| now.delay);
        let delay = thawed.map_err(std::io::Error::other)?;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}

/// Has the peer see a reset, not an orderly end, once the connection is dropped.
fn reset(connection: &TcpStream) {
    let _best_effort = connection.set_zero_linger();
}
