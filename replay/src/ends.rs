//! Two addresses with their ports, in a form that compares and hashes fast: every packet is looked up by its own.

use std::net::{IpAddr, SocketAddr};

use crate::packet::Packet;

/// An IPv4 address is the IPv6 address that it is mapped to: packets and flows have no other form of that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ends {
    first: (u128, u16),
    second: (u128, u16),
}

impl Ends {
    /// In this order.
    pub(crate) fn new(first: SocketAddr, second: SocketAddr) -> Ends {
        Ends { first: (bits(first.ip()), first.port()), second: (bits(second.ip()), second.port()) }
    }

    /// A packet's source and destination.
    pub(crate) fn of(p: &Packet) -> Ends {
        Ends { first: (bits(p.src), p.src_port), second: (bits(p.dst), p.dst_port) }
    }

    /// The other way round.
    pub(crate) fn reversed(self) -> Ends {
        Ends { first: self.second, second: self.first }
    }

    /// The lower one first, and whether that was so.
    pub(crate) fn sorted(self) -> (Ends, bool) {
        if self.first <= self.second { (self, true) } else { (self.reversed(), false) }
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translation::testing::{ACK, packet};

    #[test]
    fn both_directions_sort_to_the_same_ends() {
        let [there, back] = [("10.0.0.1:1", "[2001:db8::1]:2"), ("[2001:db8::1]:2", "10.0.0.1:1")];
        let [there, back] = [there, back].map(|(a, b)| Ends::of(&packet(a, b, 1, 2, 3, ACK)));
        assert_eq!(there.reversed(), back);
        assert_eq!(there.sorted(), (back.sorted().0, !back.sorted().1));
        assert_eq!(there, Ends::new("10.0.0.1:1".parse().unwrap(), "[2001:db8::1]:2".parse().unwrap()));
    }
}
