//! A light HTTP/1.1 client over mTLS: what a measurement sends with must cost little itself.
//!
//! One request under way, the whole answer awaited. It understands the answers of the collector's listener
//! and nothing more.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Where to and how to know it.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    pub name: ServerName<'static>,
}

/// An open connection.
#[derive(Debug)]
pub struct Connection(TlsStream<TcpStream>);

/// Reads and writes go through these; one pair serves any number of connections in turn.
#[derive(Debug)]
pub struct Buffers {
    pub request: Vec<u8>,
    answer: Vec<u8>,
}

impl Default for Buffers {
    fn default() -> Self {
        Self {
            request: Vec::with_capacity(4096),
            answer: vec![0; 16 * 1024],
        }
    }
}

impl Connection {
    /// Connects from the loopback address 127.0.0.`from`, so that no address runs out of ports.
    pub async fn open(target: &Target, tls: Arc<ClientConfig>, from: u8) -> anyhow::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // A connection that is closed here leaves no port in TIME_WAIT: there are thousands.
        socket.set_linger(Some(std::time::Duration::ZERO))?;
        let socket = TcpSocket::from_std_stream(socket.into());
        socket.bind((IpAddr::V4(Ipv4Addr::new(127, 0, 0, from)), 0).into())?;
        let stream = socket.connect(target.address).await?;
        stream.set_nodelay(true)?;
        let connector = TlsConnector::from(tls);
        let stream = connector.connect(target.name.clone(), stream).await?;
        Ok(Self(stream))
    }

    /// Sends `buffers.request` and waits for the whole answer: its status.
    pub async fn exchange(&mut self, buffers: &mut Buffers) -> anyhow::Result<u16> {
        self.0.write_all(&buffers.request).await?;
        let mut filled = 0;
        loop {
            let room = buffers.answer.get_mut(filled..).unwrap_or_default();
            let read = self.0.read(room).await?;
            anyhow::ensure!(read > 0, "the connection ended before its answer");
            filled += read;
            let answer = buffers.answer.get(..filled).unwrap_or_default();
            if let Some((status, length)) = head(answer)? {
                anyhow::ensure!(
                    length <= buffers.answer.len(),
                    "an answer of {length} bytes is not expected"
                );
                if filled >= length {
                    return Ok(status);
                }
            }
        }
    }
}

/// The status of an answer and its length with the head; `None` until the head is whole.
fn head(answer: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = answer.get(..end).unwrap_or_default();
    let head = std::str::from_utf8(head).context("an answer's head is no text")?;
    let status = head.get(9..12).and_then(|status| status.parse().ok());
    let body = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    let status = status.context("an answer without a status")?;
    let body = body.context("an answer without a length")?;
    Ok(Some((status, end + 4 + body)))
}

#[cfg(test)]
mod tests {
    use super::head;

    #[test]
    fn an_answers_head_says_how_long_it_is() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nbody";
        assert_eq!(head(answer).unwrap(), Some((200, 39 + 12)));
        assert_eq!(head(&answer[..30]).unwrap(), None);
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
