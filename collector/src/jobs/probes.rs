//! Probes hosts that have no agent: TCP connects and, where the kernel lets us, ICMP echoes.
//!
//! No packet leaves for an address outside the configured networks: the query picks by them, and so does the probe.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, select_ok};
use futures_util::stream::{self, StreamExt};
use ipnet::IpNet;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

use crate::app::App;
use crate::config::inventory::Probes;
use crate::store::probes::{self, Due, ProbeRow};

/// A run begins no more probes after this.
const BEGINS: Duration = Duration::from_secs(40);
/// Hosts are probed, and what was found is kept, in batches of so many times what is probed at once.
const ROUNDS: usize = 4;
/// What probes found is believed for so many intervals.
const BELIEVED: i32 = 3;
const ECHO: &[u8] = b"infratrack probe";

/// Probes the hosts that are due.
pub async fn run(app: Arc<App>) -> anyhow::Result<()> {
    let config = &app.config.probes;
    if config.networks.is_empty() {
        return Ok(());
    }
    let begun = Instant::now();
    let interval = time::Duration::try_from(config.interval)?;
    let most = i64::try_from(config.concurrency * ROUNDS)?;
    while begun.elapsed() < BEGINS {
        let due_before = app.clock.now() - interval;
        let mut connection = app.pool.acquire().await?;
        let due = probes::list_due(&mut connection, &config.networks, due_before, most).await?;
        drop(connection);
        if due.is_empty() {
            break;
        }
        let probing = due.into_iter().map(|due| probe(Arc::clone(&app), due));
        let mut rows: Vec<_> = stream::iter(probing)
            .buffer_unordered(config.concurrency)
            .collect()
            .await;
        rows.sort_by_key(|row| row.host_id);
        let hosts: Vec<_> = rows.iter().map(|row| row.host_id).collect();
        let mut transaction = app.pool.begin().await?;
        probes::insert(&mut transaction, &rows).await?;
        probes::update_liveness(&mut transaction, &rows, interval * BELIEVED).await?;
        probes::delete_old(&mut transaction, &hosts).await?;
        transaction.commit().await?;
    }
    Ok(())
}

async fn probe(app: Arc<App>, due: Due) -> ProbeRow {
    let begun = Instant::now();
    let found = match due.address.parse() {
        Ok(address) => answer(&app.config.probes, address).await,
        Err(_) => Err("its address is none".to_owned()),
    };
    let millis = begun.elapsed().as_secs_f32() * 1000.0;
    ProbeRow {
        host_id: due.host_id,
        at: app.clock.now(),
        ok: found.is_ok(),
        rtt_ms: found.is_ok().then_some(millis),
        error: found.as_ref().err().cloned(),
        via: found.ok(),
    }
}

/// What answered first, or why nothing did.
async fn answer(config: &Probes, address: IpAddr) -> Result<String, String> {
    if !is_allowed(&config.networks, address) {
        return Err("its address is outside probes.networks".to_owned());
    }
    let mut ways: Vec<BoxFuture<'_, io::Result<String>>> = Vec::new();
    for port in &config.ports {
        ways.push(Box::pin(connect(address, *port)));
    }
    if let Some(socket) = config.icmp.then(|| ping_socket(address)).flatten() {
        ways.push(Box::pin(ping(socket)));
    }
    if ways.is_empty() {
        return Err("there is no port to try, and no right to ping".to_owned());
    }
    match timeout(config.timeout, select_ok(ways)).await {
        Ok(Ok((via, _))) => Ok(via),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {:?}", config.timeout)),
    }
}

/// Never the collector's own business: what a network names and no more.
fn is_allowed(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// A port that refuses is a host that answers.
async fn connect(address: IpAddr, port: u16) -> io::Result<String> {
    match TcpStream::connect(SocketAddr::new(address, port)).await {
        Ok(_) => Ok(format!("tcp/{port}")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(format!("tcp/{port}")),
        Err(error) => Err(error),
    }
}

/// A socket for echoes to `address` alone; `None` where `net.ipv4.ping_group_range` leaves us out.
fn ping_socket(address: IpAddr) -> Option<UdpSocket> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol)).ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect(&SocketAddr::new(address, 0).into()).ok()?;
    UdpSocket::from_std(socket.into()).ok()
}

/// One echo. The kernel sets identifier and checksum (RFC 792, RFC 4443), and gives us the answers to it alone.
async fn ping(socket: UdpSocket) -> io::Result<String> {
    let (request, reply) = match socket.peer_addr()?.ip() {
        IpAddr::V4(_) => (8, 0),
        IpAddr::V6(_) => (128, 129),
    };
    let packet = [&[request, 0, 0, 0, 0, 0, 0, 1], ECHO].concat();
    socket.send(&packet).await?;
    let mut buffer = [0; 128];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if length >= 8 && buffer.first() == Some(&reply) {
            return Ok("icmp".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_network_names_is_probed() {
        let networks: Vec<IpNet> = ["10.0.0.0/8", "2001:db8::/32"]
            .map(|net| net.parse().expect("a network"))
            .to_vec();
        let is = |text: &str| is_allowed(&networks, text.parse().expect("an address"));
        assert!(is("10.1.2.3") && is("2001:db8::1"));
        assert!(!is("11.0.0.1") && !is("::1") && !is("::ffff:10.1.2.3"));
        assert!(!is_allowed(&[], "10.0.0.1".parse().expect("an address")));
    }

    #[tokio::test]
    async fn a_port_that_refuses_is_an_answer_and_one_outside_is_not_asked() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("bound");
        let port = listener.local_addr().expect("bound").port();
        let mut config = Probes {
            networks: vec!["127.0.0.0/8".parse().expect("a network")],
            ports: vec![port],
            icmp: false,
            ..Probes::default()
        };
        let here = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(answer(&config, here).await, Ok(format!("tcp/{port}")));
        listener.accept().await.expect("a connection");
        config.networks = vec!["10.0.0.0/8".parse().expect("a network")];
        assert!(answer(&config, here).await.is_err());
        let connected = timeout(Duration::from_millis(100), listener.accept()).await;
        assert!(connected.is_err(), "somebody connected");
        drop(listener);
        config.networks = vec!["127.0.0.0/8".parse().expect("a network")];
        assert_eq!(answer(&config, here).await, Ok(format!("tcp/{port}")));
    }
}
