//! The sockets of `/proc/net/{tcp,tcp6,udp,udp6}` that wait for somebody, where `sock_diag` cannot be asked.
//!
//! The kernel lists what listens before what is connected, so the bound on a file's size cuts no
//! listener off. Called by `facts.listening`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Socket;
use crate::collect::{Reason, Root};

/// `TCP_LISTEN`, and what the kernel says of an UDP socket that is not connected, `TCP_CLOSE`
/// (`linux/tcp_states.h`).
const LISTEN: &str = "0A";
const UNCONNECTED: &str = "07";

/// TCP sockets that listen.
pub(super) fn tcp(root: &Root) -> Result<Vec<Socket>, Reason> {
    both(root, "tcp", LISTEN)
}

/// UDP sockets that take from anybody.
pub(super) fn udp(root: &Root) -> Result<Vec<Socket>, Reason> {
    both(root, "udp", UNCONNECTED)
}

fn both(root: &Root, protocol: &str, state: &str) -> Result<Vec<Socket>, Reason> {
    let four = root.text(&format!("proc/net/{protocol}"))?;
    // Missing where IPv6 is switched off.
    let six = root
        .read(&format!("proc/net/{protocol}6"))
        .unwrap_or_default();
    let lines = four.lines().chain(six.lines());
    Ok(lines.filter_map(|line| socket(line, state)).collect())
}

/// `sl local remote state queues timer retransmits uid timeout inode …` (`proc_net_tcp.rst`).
fn socket(line: &str, wanted: &str) -> Option<Socket> {
    let mut fields = line.split_whitespace().skip(1);
    let (address, port) = fields.next()?.split_once(':')?;
    let state = fields.nth(1)?;
    if state != wanted {
        return None;
    }
    let uid = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?.parse().ok()?;
    Some(Socket {
        address: parse_address(address)?,
        port: u16::from_str_radix(port, 16).ok()?,
        uid,
        inode,
        group: None,
    })
}

/// The kernel prints the address' words of 32 bits as numbers of this machine.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        let word = u32::from_str_radix(hex.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let words = [word(0)?, word(8)?, word(16)?, word(24)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Some(Ipv6Addr::from(bytes).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_words_of_this_machine() {
        let four = format!("{:08X}", u32::from_ne_bytes([192, 0, 2, 7]));
        assert_eq!(parse_address(&four), "192.0.2.7".parse().ok());
        let six: Ipv6Addr = "2001:db8::1:7".parse().unwrap();
        let words = six.octets();
        let hex: Vec<String> = words
            .chunks(4)
            .map(|word| format!("{:08X}", u32::from_ne_bytes(word.try_into().unwrap())))
            .collect();
        assert_eq!(parse_address(&hex.concat()), Some(six.into()));
        for garbage in ["", "0100007", "0100007G", "é00000é", "0100007F0100007F"] {
            assert_eq!(parse_address(garbage), None, "{garbage}");
        }
    }

    #[test]
    fn lines_of_other_states_and_broken_ones_are_left_out() {
        let line = |state: &str| {
            format!("0: 00000000:0016 00000000:0000 {state} 0:0 00:0 0 7 0 99 1 0 100")
        };
        let expected = Socket {
            address: Ipv4Addr::UNSPECIFIED.into(),
            port: 22,
            uid: 7,
            inode: 99,
            group: None,
        };
        assert_eq!(socket(&line("0A"), LISTEN), Some(expected));
        assert_eq!(socket(&line("01"), LISTEN), None);
        for broken in [
            "",
            "sl local_address",
            "0: 00000000 x 0A",
            "0: 00000000:0016 x 0A 0 0",
        ] {
            assert_eq!(socket(broken, LISTEN), None, "{broken}");
        }
    }
}
