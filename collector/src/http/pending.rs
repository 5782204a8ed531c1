//! How many connections of one address have not finished their handshake.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts by address; an IPv6 /64 is one address, since one host has all of it.
#[derive(Clone, Debug)]
pub(super) struct PendingByAddress {
    limit: usize,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One pending connection.
#[derive(Debug)]
pub(super) struct Pending {
    address: IpAddr,
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl PendingByAddress {
    /// At most `limit` an address.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            counts: Arc::default(),
        }
    }

    /// Counts one more; `None`: the address has its share.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Pending> {
        let address = network(address);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(address).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(Pending {
            address,
            counts: Arc::clone(&self.counts),
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Whom an address stands for: an IPv6 host has 2^64 of its own.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_gets_it_back() {
        let pending = PendingByAddress::new(2);
        let [a, b]: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|a| a.parse().expect("address"));
        let first = pending.enter(a);
        let _second = pending.enter(a).expect("second");
        assert!(pending.enter(a).is_none());
        assert!(pending.enter(b).is_some());
        drop(first);
        assert!(pending.enter(a).is_some());
    }

    #[test]
    fn a_v6_network_is_one_address_and_a_mapped_v4_is_v4() {
        let pending = PendingByAddress::new(1);
        let _held = pending
            .enter("2001:db8::1".parse().expect("address"))
            .expect("first");
        assert!(
            pending
                .enter("2001:db8::2".parse().expect("address"))
                .is_none()
        );
        let _v4 = pending
            .enter("::ffff:10.0.0.1".parse().expect("address"))
            .expect("first");
        assert!(
            pending
                .enter("10.0.0.1".parse().expect("address"))
                .is_none()
        );
    }
}
