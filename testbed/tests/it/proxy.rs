//! The proxy fails as a network does.

use std::io::ErrorKind;
use std::time::Duration;

use testbed::{Proxy, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Long enough that an answer would have come, short enough not to be noticed.
const SILENCE: Duration = Duration::from_millis(200);

/// A server that sends back what it gets, behind a proxy.
async fn echo() -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap().to_string()).await;
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = connection.split();
                let _ended = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    proxy
}

async fn round_trip(connection: &mut TcpStream) -> std::io::Result<u8> {
    connection.write_all(&[7]).await?;
    connection.read_u8().await
}

#[tokio::test]
async fn data_passes_in_both_directions_and_so_does_the_end() {
    let proxy = echo().await;
    let mut connection = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(round_trip(&mut connection).await.unwrap(), 7);
    connection.shutdown().await.unwrap();
    assert_eq!(connection.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_cut_resets_open_connections_and_takes_new_ones() {
    let proxy = echo().await;
    let mut connection = TcpStream::connect(proxy.addr()).await.unwrap();
    round_trip(&mut connection).await.unwrap();
    proxy.cut();
    assert_eq!(connection.read_u8().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut again = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(round_trip(&mut again).await.unwrap(), 7);
}

#[tokio::test]
async fn a_silence_ends_no_connection_and_leaves_new_ones_alone() {
    let proxy = echo().await;
    let mut connection = TcpStream::connect(proxy.addr()).await.unwrap();
    round_trip(&mut connection).await.unwrap();
    proxy.silence();
    assert!(timeout(SILENCE, round_trip(&mut connection)).await.is_err());
    let mut again = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(round_trip(&mut again).await.unwrap(), 7);
    assert!(timeout(SILENCE, connection.read_u8()).await.is_err());
}

#[tokio::test]
async fn refusing_leaves_open_connections_alone_until_accepting_again() {
    let proxy = echo().await;
    let mut connection = TcpStream::connect(proxy.addr()).await.unwrap();
    round_trip(&mut connection).await.unwrap();
    proxy.refuse().await;
    assert_eq!(TcpStream::connect(proxy.addr()).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(round_trip(&mut connection).await.unwrap(), 7);
    proxy.accept().await;
    let mut again = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(round_trip(&mut again).await.unwrap(), 7);
}

#[tokio::test]
async fn a_frozen_connection_stays_open_in_silence_and_goes_on_when_thawed() {
    let proxy = echo().await;
    let mut connection = TcpStream::connect(proxy.addr()).await.unwrap();
    round_trip(&mut connection).await.unwrap();
    proxy.freeze();
    connection.write_all(&[9]).await.unwrap();
    assert!(timeout(SILENCE, connection.read_u8()).await.is_err());
    let mut meanwhile = TcpStream::connect(proxy.addr()).await.unwrap();
    assert!(timeout(SILENCE, round_trip(&mut meanwhile)).await.is_err());
    proxy.thaw();
    assert_eq!(connection.read_u8().await.unwrap(), 9);
    assert_eq!(meanwhile.read_u8().await.unwrap(), 7);
}

#[tokio::test]
async fn a_delay_holds_data_back() {
    let proxy = echo().await;
    let mut connection = TcpStream::connect(proxy.addr()).await.unwrap();
    proxy.delay(SILENCE);
    assert!(timeout(SILENCE, round_trip(&mut connection)).await.is_err());
    assert_eq!(connection.read_u8().await.unwrap(), 7);
}

#[tokio::test]
async fn a_server_that_is_not_there_looks_like_a_reset() {
    let proxy = Proxy::start("127.0.0.1:1").await;
    let mut connection = TcpStream::connect(proxy.addr()).await.unwrap();
    eventually("the connection ends", async || connection.read_u8().await.is_err()).await;
}
