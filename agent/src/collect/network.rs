//! `facts.network`: interfaces with MAC, MTU, state and addresses.
//!
//! The addresses come from the kernel through `sysinfo` (getifaddrs, so the sandbox must allow
//! `AF_NETLINK`), the rest from `/sys/class/net`. Loopback, the ends of containers' cables and
//! IPv6's temporary addresses change without anybody changing the host; they are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use serde::Serialize;
use sysinfo::Networks;

use super::fact::to_value;
use super::{Reason, Root};

/// Interfaces that container engines make, one a container.
const CONTAINER_ENDS: &[&str] = &["veth", "cali", "lxc", "cilium", "vnet", "tap"];
/// `IFA_F_TEMPORARY` (`linux/if_addr.h`).
const TEMPORARY: u8 = 0x01;

/// Addresses with their prefix length, by interface.
type Addresses = BTreeMap<String, BTreeSet<(IpAddr, u8)>>;

#[derive(Serialize)]
struct Facts {
    interfaces: BTreeMap<String, Interface>,
}

#[derive(Serialize)]
struct Interface {
    #[serde(skip_serializing_if = "Option::is_none")]
    mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<String>,
    /// `192.0.2.7/24`, IPv4 first.
    addresses: Vec<String>,
}

/// The body of `facts.network`.
pub(super) fn collect(root: &Root) -> Result<rmpv::Value, Reason> {
    let addresses = if root.is_host() {
        of_this_host()?
    } else {
        Addresses::new()
    };
    to_value(&facts(root, addresses)?)
}

fn of_this_host() -> Result<Addresses, Reason> {
    let networks = Networks::new_with_refreshed_list()
        .map_err(|error| format!("interfaces cannot be listed: {error}"))?;
    let addresses = networks.iter().map(|(name, data)| {
        let networks = data.ip_networks().iter();
        let addresses = networks
            .map(|network| (network.addr, network.prefix))
            .collect();
        (name.to_string_lossy().into_owned(), addresses)
    });
    Ok(addresses.collect())
}

fn facts(root: &Root, mut addresses: Addresses) -> Result<Facts, Reason> {
    let temporary = temporary(&root.read("proc/net/if_inet6").unwrap_or_default());
    let is_told = |name: &String| {
        name != "lo" && !CONTAINER_ENDS.iter().any(|prefix| name.starts_with(prefix))
    };
    let interfaces = root
        .names("sys/class/net")?
        .into_iter()
        .filter(is_told)
        // `bonding_masters` is a file among the interfaces.
        .filter(|name| root.exists(&format!("sys/class/net/{name}/ifindex")))
        .map(|name| {
            let text = |file: &str| root.find(&format!("sys/class/net/{name}/{file}"));
            let addresses = addresses.remove(&name).unwrap_or_default();
            let interface = Interface {
                mac: text("address").filter(|mac| mac != "00:00:00:00:00:00"),
                mtu: text("mtu").and_then(|mtu| mtu.parse().ok()),
                state: text("operstate"),
                addresses: addresses
                    .into_iter()
                    .filter(|(address, _)| !temporary.contains(address))
                    .map(|(address, prefix)| format!("{address}/{prefix}"))
                    .collect(),
            };
            (name, interface)
        })
        .collect();
    Ok(Facts { interfaces })
}

/// The temporary addresses in `/proc/net/if_inet6`: address, index, prefix, scope, flags, name.
fn temporary(if_inet6: &str) -> BTreeSet<IpAddr> {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok()?;
        let flags = u8::from_str_radix(fields.nth(3)?, 16).ok()?;
        (flags & TEMPORARY != 0).then(|| IpAddr::V6(Ipv6Addr::from_bits(address)))
    };
    if_inet6.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::collect::fixture;

    #[test]
    fn interfaces_have_their_lasting_addresses_in_order() {
        let (_keep, root) = fixture::host(&[
            ("sys/class/net/bonding_masters", "bond0\n"),
            ("sys/class/net/lo/ifindex", "1\n"),
            ("sys/class/net/veth12ab/ifindex", "9\n"),
            ("sys/class/net/eth0/ifindex", "2\n"),
            ("sys/class/net/eth0/address", "52:54:00:12:34:56\n"),
            ("sys/class/net/eth0/mtu", "1500\n"),
            ("sys/class/net/eth0/operstate", "up\n"),
            (
                "proc/net/if_inet6",
                "20010db8000000000000000000000007 02 40 00 80     eth0\n\
                 20010db800000000a1b2c3d4e5f60718 02 40 00 01     eth0\nbroken\n",
            ),
        ]);
        let addresses = [
            ("2001:db8::a1b2:c3d4:e5f6:718", 64),
            ("2001:db8::7", 64),
            ("192.0.2.7", 24),
        ];
        let addresses = addresses.map(|(address, prefix)| (address.parse().unwrap(), prefix));
        let addresses = Addresses::from([("eth0".to_owned(), addresses.into())]);
        let body = to_value(&facts(&root, addresses).unwrap()).unwrap();
        let expected = json!({"interfaces": {"eth0": {
            "mac": "52:54:00:12:34:56", "mtu": 1500, "state": "up",
            "addresses": ["192.0.2.7/24", "2001:db8::7/64"],
        }}});
        assert_eq!(fixture::json(&body), expected);
    }
}
