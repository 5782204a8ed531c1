//! PROXY protocol version 2 (haproxy.org, proxy-protocol.txt, section 2.2): the real peer's address.

use std::io;
use std::net::SocketAddr;

use ppp::v2::{Addresses, Command, Header};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Signature, version, command, family and length.
const FIXED_BYTES: usize = 16;
/// Addresses and TLVs; load balancers send some dozens of bytes.
const REST_BYTES: usize = 1024;

/// Reads the header that must be there. `None`: the proxy speaks for itself (health checks).
pub(super) async fn read_header(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<SocketAddr>> {
    let mut header = vec![0; FIXED_BYTES];
    stream.read_exact(&mut header).await?;
    let rest = header
        .last_chunk::<2>()
        .map_or(0, |length| usize::from(u16::from_be_bytes(*length)));
    if rest > REST_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "PROXY header is too long",
        ));
    }
    let mut tail = vec![0; rest];
    stream.read_exact(&mut tail).await?;
    header.extend(tail);
    let header = Header::try_from(header.as_slice())
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    if header.command == Command::Local {
        return Ok(None);
    }
    match header.addresses {
        Addresses::IPv4(addresses) => Ok(Some(SocketAddr::from((
            addresses.source_address,
            addresses.source_port,
        )))),
        Addresses::IPv6(addresses) => Ok(Some(SocketAddr::from((
            addresses.source_address,
            addresses.source_port,
        )))),
        Addresses::Unspecified | Addresses::Unix(_) => Ok(None),
    }
}
