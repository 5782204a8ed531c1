//! `facts.listening`: TCP sockets that listen and UDP sockets that wait, whose they are and whose unit.
//!
//! Of the agent's network namespace, each address and port once: asked of the kernel by `sock_diag`, else
//! read from `/proc/net`, which costs it a walk over every connection. Sockets of clients come and go: UDP
//! ports the kernel gives to whoever asks for none are left out, unless an administrator reserved them. Who
//! holds a socket is told by `/proc` for one's own processes only, its unit by the kernel for everybody.

mod owners;
mod proc_net;
mod sock_diag;
mod units;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::Serialize;

use super::fact::to_value;
use super::{Reason, Root, accounts};

/// The most sockets told; more have no room in one message.
const SOCKETS: usize = 500;
const RANGE: &str = "proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "proc/sys/net/ipv4/ip_local_reserved_ports";
const UNSEEN: &str =
    "no process in sight holds them: sockets of the kernel, or of processes out of sight";

#[derive(Serialize)]
struct Facts {
    /// By protocol, address and port.
    sockets: Vec<Listening>,
    /// How many more there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<usize>,
    /// Why some sockets have no process.
    #[serde(skip_serializing_if = "Option::is_none")]
    processes_unknown: Option<Reason>,
    /// The UDP ports that are clients', and are not told.
    udp_ports_left_out: String,
}

#[derive(Serialize)]
struct Listening {
    protocol: &'static str,
    address: String,
    port: u16,
    /// The name; the id where it has none.
    user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<String>,
}

/// A socket that waits for somebody, as the kernel shows it.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    address: IpAddr,
    port: u16,
    uid: u32,
    inode: u64,
    /// The id of its cgroup, where the kernel tells.
    group: Option<u64>,
}

/// What makes a socket one of the fact's.
type Place = (&'static str, IpAddr, u16);

/// The body of `facts.listening`.
pub(super) fn collect(root: &Root) -> Result<rmpv::Value, Reason> {
    let ports = ClientPorts::read(root)?;
    let (tcp, mut udp) = sockets(root)?;
    udp.retain(|socket| !ports.contains(socket.port));
    let mut places: BTreeMap<Place, Vec<Socket>> = BTreeMap::new();
    for (protocol, sockets) in [("tcp", tcp), ("udp", udp)] {
        for socket in sockets {
            let place = (protocol, socket.address, socket.port);
            places.entry(place).or_default().push(socket);
        }
    }
    let left_out = places.len().saturating_sub(SOCKETS);
    let places: Vec<_> = places.into_iter().take(SOCKETS).collect();

    let told = || places.iter().flat_map(|(_, sockets)| sockets);
    let inodes = told().map(|socket| socket.inode).collect();
    let groups = told().filter_map(|socket| socket.group).collect();
    let (processes, processes_unknown) = owners::processes(root, &inodes);
    let units = units::of_groups(root, &groups);
    let users = accounts::names(root);
    let sockets: Vec<_> = places
        .into_iter()
        .map(|(place, sockets)| listening(place, &sockets, &users, &processes, &units))
        .collect();
    let is_unknown = sockets.iter().any(|socket| socket.process.is_none());
    let reason = || processes_unknown.unwrap_or_else(|| UNSEEN.to_owned());
    to_value(&Facts {
        sockets,
        left_out: (left_out > 0).then_some(left_out),
        processes_unknown: is_unknown.then(reason),
        udp_ports_left_out: ports.to_string(),
    })
}

/// The TCP and the UDP sockets.
fn sockets(root: &Root) -> Result<(Vec<Socket>, Vec<Socket>), Reason> {
    // A fixture's sockets are not this kernel's.
    if root.is_host() {
        match sock_diag::tcp().and_then(|tcp| Ok((tcp, sock_diag::udp()?))) {
            Ok(found) => return Ok(found),
            Err(error) => tracing::debug!(%error, "the kernel has no sock_diag for the agent"),
        }
    }
    Ok((proc_net::tcp(root)?, proc_net::udp(root)?))
}

/// One place, which several sockets may share (`SO_REUSEPORT`): of several answers always the same.
fn listening(
    (protocol, address, port): Place,
    sockets: &[Socket],
    users: &HashMap<u32, String>,
    processes: &HashMap<u64, String>,
    units: &HashMap<u64, String>,
) -> Listening {
    let processes = sockets
        .iter()
        .filter_map(|socket| processes.get(&socket.inode));
    let units = sockets
        .iter()
        .filter_map(|socket| units.get(&socket.group?));
    let uid = sockets.iter().map(|socket| socket.uid).min();
    let uid = uid.expect("a place is that of a socket");
    Listening {
        protocol,
        address: address.to_string(),
        port,
        user: users.get(&uid).cloned().unwrap_or_else(|| uid.to_string()),
        process: processes.min().cloned(),
        unit: units.min().cloned(),
    }
}

/// The ports a client gets that asks for none (ip(7)).
#[derive(Debug)]
struct ClientPorts {
    range: RangeInclusive<u16>,
    /// Never given, though in the range.
    reserved: Vec<RangeInclusive<u16>>,
}

impl ClientPorts {
    fn read(root: &Root) -> Result<Self, Reason> {
        let text = root.text(RANGE)?;
        let mut numbers = text.split_whitespace().map(str::parse);
        let (Some(Ok(first)), Some(Ok(last))) = (numbers.next(), numbers.next()) else {
            return Err(format!("/{RANGE} has no two ports"));
        };
        let reserved = root.find(RESERVED).unwrap_or_default();
        Ok(Self {
            range: first..=last,
            reserved: reserved.split(',').filter_map(range).collect(),
        })
    }

    fn contains(&self, port: u16) -> bool {
        self.range.contains(&port) && !self.reserved.iter().any(|range| range.contains(&port))
    }
}

impl std::fmt::Display for ClientPorts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.range.start(), self.range.end())
    }
}

/// `8080` or `9000-9100`.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
}

#[cfg(test)]
mod tests;
