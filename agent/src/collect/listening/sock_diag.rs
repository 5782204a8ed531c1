//! The sockets that wait for somebody, asked of the kernel by `sock_diag`(7).
//!
//! Linux answers everybody, filters by state before it looks at a connection, and tells each socket's cgroup
//! since 5.9, so that one of another user's process can be laid to its unit without any right. Bytes of the
//! kernel are still read as bytes from outside. Called by `facts.listening`.

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use nix::libc;
use socket2::{Domain, Protocol, Type};

use super::Socket;

/// `linux/sock_diag.h`, `linux/netlink.h`, `linux/inet_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NETLINK_SOCK_DIAG: i32 = 4;
const INET_DIAG_CGROUP_ID: u16 = 21;
/// The states of a socket that waits, as bits: `TCP_LISTEN`, and `TCP_CLOSE` for UDP.
const LISTEN: u32 = 1 << 10;
const UNCONNECTED: u32 = 1 << 7;

const HEADER: usize = 16;
/// `struct inet_diag_msg`: its length, and where its fields are.
const MESSAGE: usize = 72;
const PORT_AT: usize = 4;
const ADDRESS_AT: usize = 8;
const UID_AT: usize = 64;
const INODE_AT: usize = 68;
/// The kernel fills no more at once for a dump.
const BUFFER: usize = 32 * 1024;
/// The kernel answers at once, or not at all.
const LIMIT: Duration = Duration::from_secs(1);
/// The most sockets taken over.
const SOCKETS: usize = 65_536;

/// TCP sockets that listen.
pub(super) fn tcp() -> io::Result<Vec<Socket>> {
    both(libc::IPPROTO_TCP, LISTEN)
}

/// UDP sockets that take from anybody.
pub(super) fn udp() -> io::Result<Vec<Socket>> {
    both(libc::IPPROTO_UDP, UNCONNECTED)
}

fn both(protocol: i32, states: u32) -> io::Result<Vec<Socket>> {
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        dump(&request(family, protocol, states)?, &mut found)?;
    }
    Ok(found)
}

fn dump(request: &[u8], found: &mut Vec<Socket>) -> io::Result<()> {
    let protocol = Some(Protocol::from(NETLINK_SOCK_DIAG));
    // One a question, so that no answer to an earlier one is in the way.
    let mut socket = socket2::Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, protocol)?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.send(request)?;
    let mut buffer = vec![0; BUFFER];
    while found.len() < SOCKETS {
        let length = socket.read(&mut buffer)?;
        let answer = buffer.get(..length).unwrap_or_default();
        if length == 0 || parse(answer, found)? {
            break;
        }
    }
    Ok(())
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2` without a socket's id: all of them.
fn request(family: i32, protocol: i32, states: u32) -> io::Result<Vec<u8>> {
    const ANY_SOCKET: [u8; 48] = [0; 48];
    let byte = |number: i32| u8::try_from(number).map_err(io::Error::other);
    let mut body = vec![byte(family)?, byte(protocol)?, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend(ANY_SOCKET);
    let length = u32::try_from(HEADER + body.len()).map_err(io::Error::other)?;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    message.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    // Sequence and port: nobody asks twice, and the kernel knows who asked.
    message.extend([0; 8]);
    message.extend(body);
    Ok(message)
}

/// Takes over the messages of one answer; whether it was the last.
fn parse(mut rest: &[u8], found: &mut Vec<Socket>) -> io::Result<bool> {
    while rest.len() >= HEADER {
        let (Some(length), Some(kind)) = (u32_at(rest, 0), u16_at(rest, 4)) else {
            break;
        };
        let length = length as usize;
        let message = rest
            .get(..length)
            .and_then(|message| message.get(HEADER..))
            .ok_or_else(|| io::Error::other("a message is longer than its answer"))?;
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let number = u32_at(message, 0).unwrap_or_default().cast_signed();
                return Err(io::Error::from_raw_os_error(-number));
            }
            SOCK_DIAG_BY_FAMILY => found.extend(parse_socket(message)),
            _ => {}
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

fn parse_socket(message: &[u8]) -> Option<Socket> {
    let address = message.get(ADDRESS_AT..)?;
    let address: IpAddr = match i32::from(*message.first()?) {
        libc::AF_INET => Ipv4Addr::from(*address.first_chunk::<4>()?).into(),
        libc::AF_INET6 => Ipv6Addr::from(*address.first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some(Socket {
        address,
        port: u16::from_be(u16_at(message, PORT_AT)?),
        uid: u32_at(message, UID_AT)?,
        inode: u32_at(message, INODE_AT)?.into(),
        group: group(message),
    })
}

/// The attribute with the cgroup's id.
fn group(message: &[u8]) -> Option<u64> {
    let mut rest = message.get(MESSAGE..)?;
    loop {
        let length = usize::from(u16_at(rest, 0)?);
        let attribute = rest.get(..length)?.get(4..)?;
        if u16_at(rest, 2)? == INET_DIAG_CGROUP_ID {
            return Some(u64::from_ne_bytes(attribute.try_into().ok()?));
        }
        rest = rest.get(aligned(length)..)?;
    }
}

/// Messages and attributes begin at multiples of four.
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use proptest::prelude::*;

    use super::*;
    use crate::collect::Root;
    use crate::collect::listening::proc_net;

    /// A header whose length is that of what follows, and padding.
    fn with_length(header: &[u8], body: &[u8]) -> Vec<u8> {
        let mut bytes = [header, body].concat();
        bytes.resize(aligned(bytes.len()), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let header = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10]];
        with_length(&header.concat(), body)
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        with_length(&[length.to_ne_bytes(), kind.to_ne_bytes()].concat(), value)
    }

    /// `192.0.2.7:53` of the user 991.
    fn socket(inode: u32, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![0; MESSAGE];
        body.splice(0..1, [2]);
        body.splice(PORT_AT..PORT_AT + 2, 53_u16.to_be_bytes());
        body.splice(ADDRESS_AT..ADDRESS_AT + 4, [192, 0, 2, 7]);
        body.splice(UID_AT..UID_AT + 4, 991_u32.to_ne_bytes());
        body.splice(INODE_AT..INODE_AT + 4, inode.to_ne_bytes());
        body.extend(attributes.concat());
        message(SOCK_DIAG_BY_FAMILY, &body)
    }

    #[test]
    fn sockets_have_their_cgroup_among_other_attributes_or_none_from_an_older_kernel() {
        let shutdown = attribute(8, &[0]);
        let group = attribute(INET_DIAG_CGROUP_ID, &4711_u64.to_ne_bytes());
        let short = attribute(INET_DIAG_CGROUP_ID, &[1, 2]);
        let mut answer = socket(7, &[shutdown.clone(), group]);
        answer.extend(socket(8, &[shutdown]));
        answer.extend(socket(9, &[short]));
        let mut found = Vec::new();
        assert!(!parse(&answer, &mut found).unwrap());
        let expected = [(7, Some(4711)), (8, None), (9, None)].map(|(inode, group)| Socket {
            address: Ipv4Addr::new(192, 0, 2, 7).into(),
            port: 53,
            uid: 991,
            inode,
            group,
        });
        assert_eq!(found, expected);
        assert!(parse(&message(NLMSG_DONE, &[0; 4]), &mut found).unwrap());
    }

    #[test]
    fn an_error_of_the_kernel_is_one() {
        let refused = message(NLMSG_ERROR, &(-libc::ENOENT).to_ne_bytes());
        let error = parse(&refused, &mut Vec::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }

    proptest! {
        #[test]
        fn whatever_the_answer_holds_it_is_read_to_its_end(
            bytes in proptest::collection::vec(any::<u8>(), 0..512),
            length in 0_u32..256,
        ) {
            let mut answer = length.to_ne_bytes().to_vec();
            answer.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
            answer.extend(&bytes);
            for bytes in [answer, bytes] {
                let mut found = Vec::new();
                let _ = parse(&bytes, &mut found);
                prop_assert!(found.len() <= bytes.len() / MESSAGE);
            }
        }
    }

    #[test]
    fn this_kernel_tells_the_same_of_sockets_as_its_files_and_the_cgroup_too() {
        let (four, six) = (
            TcpListener::bind("127.0.0.1:0"),
            TcpListener::bind("[::1]:0"),
        );
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let root = Root::default();
        let mut places = vec![
            (tcp(), proc_net::tcp(&root), four.unwrap().local_addr()),
            (udp(), proc_net::udp(&root), client.local_addr()),
        ];
        // Not every machine has IPv6.
        places.extend(
            six.ok()
                .map(|six| (tcp(), proc_net::tcp(&root), six.local_addr())),
        );
        for (asked, read, place) in places {
            let place = place.unwrap();
            let of = |sockets: Vec<Socket>| {
                let is_here =
                    |socket: &Socket| (socket.address, socket.port) == (place.ip(), place.port());
                sockets.into_iter().find(is_here).unwrap()
            };
            let asked = of(asked.unwrap());
            // Since Linux 5.9, which whoever runs the tests has.
            assert!(asked.group.is_some_and(|group| group > 0), "{asked:?}");
            assert_eq!(
                Socket {
                    group: None,
                    ..asked
                },
                of(read.unwrap())
            );
        }
    }
}
