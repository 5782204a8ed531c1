//! A proxy that breaks connections the way networks do, as a test tells it to.
//!
//! A fault holds for every connection, open ones too, until the next one is set. Each counts how often it
//! really happened: a test that never hit its fault has shown nothing.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Bytes moved at once; small, so that a fault that is set is soon felt.
const CHUNK: usize = 4096;
/// When the server of a forgotten connection notices: it probes it, as the collector asks Postgres to.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// What happens to what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: it passes.
    None,
    /// Each chunk is late by this.
    Delay(Duration),
    /// So many bytes a second, each way.
    Rate(u64),
    /// New connections are closed at once; open ones go on.
    Refuse,
    /// Nothing passes and nobody is told: a cable was pulled.
    HalfOpen,
    /// Connections are reset (RST).
    Reset,
    /// A connection is reset after so many more bytes from the server.
    Truncate(u64),
}

/// Where a proxy passes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    Tcp(SocketAddr),
    /// A unix socket's path: what comes in over TCP goes on over it.
    Unix(PathBuf),
}

impl From<SocketAddr> for Upstream {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// A running proxy; ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: watch::Sender<Upstream>,
    fault: watch::Sender<Fault>,
    connections: AtomicU64,
    /// Connections up to this one are forgotten.
    forgotten: AtomicU64,
    fired: AtomicU64,
}

impl Proxy {
    /// Listens on a free port of the loopback and passes to `upstream`.
    pub async fn start(upstream: impl Into<Upstream>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: watch::Sender::new(upstream.into()),
            fault: watch::Sender::new(Fault::None),
            connections: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
            fired: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            address,
            shared,
            accepting,
        })
    }

    /// Where to connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets what happens from here on.
    pub fn set(&self, fault: Fault) {
        self.shared.fault.send_replace(fault);
    }

    /// From here on nothing passes on the connections that are open, and nobody is told: a firewall on the
    /// way was restarted. New ones are as they would be without.
    pub fn forget(&self) {
        self.shared
            .forgotten
            .fetch_max(self.connections(), Ordering::Relaxed);
    }

    /// Where new connections go from here on.
    pub fn set_upstream(&self, upstream: impl Into<Upstream>) {
        self.shared.upstream.send_replace(upstream.into());
    }

    /// Connections taken so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// How often any fault really happened.
    pub fn fired(&self) -> u64 {
        self.shared.fired.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let fault = *shared.fault.borrow();
        if matches!(fault, Fault::Refuse | Fault::Reset) {
            shared.fired.fetch_add(1, Ordering::Relaxed);
            reset(&client);
            continue;
        }
        tokio::spawn(connection(client, number, Arc::clone(&shared)));
    }
}

type Read = Box<dyn AsyncRead + Send + Unpin>;
type Write = Box<dyn AsyncWrite + Send + Unpin>;

async fn connection(client: TcpStream, number: u64, shared: Arc<Shared>) {
    let upstream = shared.upstream.borrow().clone();
    let Ok((server_read, server_write)) = connect(upstream).await else {
        return;
    };
    whole_or_reset(&client);
    let (client_read, client_write) = client.into_split();
    let up = pass(&shared, number, Box::new(client_read), server_write, false);
    let down = pass(&shared, number, server_read, Box::new(client_write), true);
    tokio::select! {
        // Both ways have ended. What is dropped without an orderly end is reset.
        _ = async { tokio::try_join!(up, down) } => {}
        () = until_reset(&shared) => {}
    }
}

async fn connect(upstream: Upstream) -> std::io::Result<(Read, Write)> {
    match upstream {
        Upstream::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            whole_or_reset(&stream);
            let (read, write) = stream.into_split();
            Ok((Box::new(read), Box::new(write)))
        }
        Upstream::Unix(path) => {
            let (read, write) = UnixStream::connect(path).await?.into_split();
            Ok((Box::new(read), Box::new(write)))
        }
    }
}

async fn until_reset(shared: &Shared) {
    let mut fault = shared.fault.subscribe();
    if fault.wait_for(|fault| *fault == Fault::Reset).await.is_ok() {
        shared.fired.fetch_add(1, Ordering::Relaxed);
    }
}

/// A forgotten connection whose one end is gone, and whose other end has noticed.
struct GivenUp;

async fn pass(
    shared: &Shared,
    number: u64,
    mut from: Read,
    mut to: Write,
    is_down: bool,
) -> Result<(), GivenUp> {
    let mut fault = shared.fault.subscribe();
    let mut buffer = vec![0; CHUNK];
    let mut passed = 0;
    while let Ok(length) = from.read(&mut buffer).await {
        if number <= shared.forgotten.load(Ordering::Relaxed) {
            shared.fired.fetch_add(1, Ordering::Relaxed);
            // Not even its end passes, and this end learns of it when it gives up.
            if length == 0 {
                tokio::time::sleep(KEEPALIVE).await;
                return Err(GivenUp);
            }
            continue;
        }
        let current = *fault.borrow_and_update();
        if felt(current) {
            shared.fired.fetch_add(1, Ordering::Relaxed);
        }
        match current {
            Fault::Delay(by) => tokio::time::sleep(by).await,
            Fault::Rate(rate) => {
                let seconds = length as f64 / rate.max(1) as f64;
                tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            }
            Fault::HalfOpen => {
                // What was read is lost, as it is on the wire.
                if fault
                    .wait_for(|fault| *fault != Fault::HalfOpen)
                    .await
                    .is_err()
                {
                    return Ok(());
                }
                return Ok(());
            }
            Fault::Reset => return Ok(()),
            Fault::Truncate(after) if is_down => {
                passed += length as u64;
                if passed > after {
                    shared.fired.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
            }
            Fault::None | Fault::Refuse | Fault::Truncate(_) => {}
        }
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
            // An orderly end is passed on as one.
            to.shutdown().await.ok();
            return Ok(());
        };
        if to.write_all(bytes).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Whether what passes is late or lost: cut answers count where they are cut, refusals where they are made.
fn felt(fault: Fault) -> bool {
    match fault {
        Fault::Delay(_) | Fault::Rate(_) | Fault::HalfOpen | Fault::Reset => true,
        Fault::None | Fault::Refuse | Fault::Truncate(_) => false,
    }
}

/// Every end but an orderly one is a reset; and nothing waits for more to send.
fn whole_or_reset(stream: &TcpStream) {
    stream.set_nodelay(true).ok();
    reset(stream);
}

/// Has the connection reset when it is closed, instead of ended in order.
fn reset(stream: &TcpStream) {
    stream.set_zero_linger().ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await.ok();
                });
            }
        });
        address
    }

    async fn ask(stream: &mut TcpStream) -> std::io::Result<()> {
        stream.write_all(b"ping").await?;
        let mut answer = [0; 4];
        let read = tokio::time::timeout(Duration::from_secs(1), stream.read_exact(&mut answer));
        read.await.map_err(std::io::Error::other)?.map(drop)
    }

    #[tokio::test]
    async fn without_a_fault_everything_passes_and_with_one_it_is_felt_and_counted() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        ask(&mut stream).await.unwrap();
        assert_eq!((proxy.connections(), proxy.fired()), (1, 0));
        proxy.set(Fault::Delay(Duration::from_millis(100)));
        let started = std::time::Instant::now();
        ask(&mut stream).await.unwrap();
        assert!(started.elapsed() >= Duration::from_millis(200));
        proxy.set(Fault::Rate(100));
        ask(&mut stream).await.unwrap();
        proxy.set(Fault::HalfOpen);
        let silent = ask(&mut stream).await.unwrap_err();
        assert_eq!(silent.kind(), std::io::ErrorKind::Other);
        assert!(proxy.fired() >= 5);
    }

    #[tokio::test]
    async fn a_reset_breaks_open_connections_and_new_ones() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        ask(&mut stream).await.unwrap();
        proxy.set(Fault::Reset);
        assert!(ask(&mut stream).await.is_err());
        let new = TcpStream::connect(proxy.address()).await;
        assert!(match new {
            Ok(mut stream) => ask(&mut stream).await.is_err(),
            Err(_) => true,
        });
        proxy.set(Fault::None);
        ask(&mut TcpStream::connect(proxy.address()).await.unwrap())
            .await
            .unwrap();
        assert!(proxy.fired() >= 2);
    }

    #[tokio::test]
    async fn a_forgotten_connection_is_silent_and_the_next_one_works() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        ask(&mut stream).await.unwrap();
        proxy.forget();
        let silent = ask(&mut stream).await.unwrap_err();
        assert_eq!(silent.kind(), std::io::ErrorKind::Other);
        ask(&mut TcpStream::connect(proxy.address()).await.unwrap())
            .await
            .unwrap();
        assert_eq!(proxy.fired(), 1);
    }

    #[tokio::test]
    async fn an_answer_is_truncated_where_it_was_told_and_a_new_upstream_is_taken() {
        let proxy = Proxy::start(echo().await).await.unwrap();
        proxy.set(Fault::Truncate(6));
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        ask(&mut stream).await.unwrap();
        assert!(ask(&mut stream).await.is_err());
        proxy.set(Fault::None);
        proxy.set_upstream(echo().await);
        ask(&mut TcpStream::connect(proxy.address()).await.unwrap())
            .await
            .unwrap();
    }
}
