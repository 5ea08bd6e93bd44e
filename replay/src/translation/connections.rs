//! Connections of a capture of which at least one end is no recorded socket, by their addresses alone.
//!
//! Owns what is one connection where nothing but the capture tells; must not know samples.

use std::net::SocketAddr;

use crate::ends::Ends;
use crate::flows::Owners;
use crate::hash::{HashMap, HashMapExt as _};
use crate::packet::Packet;
use crate::seq::distance;
use crate::sightings::{FlowPacket, space};

/// Farther than this from where a connection was, a packet is taken for another one's: what is split in vain is found
/// piece by piece.
const FAR: u32 = 1 << 26;
/// So many connections with the same addresses are looked at for a packet's own.
const RECENT: usize = 8;

/// A connection as the capture has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    /// Its two ends, the lower one first.
    pub(crate) ends: [SocketAddr; 2],
    /// The flows whose sockets these are.
    pub(crate) owners: Owners,
    /// Its packets in the order of the capture; `is_out`: the first end sent it.
    pub(crate) packets: Vec<FlowPacket>,
    /// Number after the last one that each end sent.
    at: [Option<u32>; 2],
    /// Number of each end's SYN.
    isn: [Option<u32>; 2],
}

/// Groups the packets by connection; those that have an owner on both sides are left out.
pub(crate) fn connections(all: &[Packet], owners: impl Fn(u32) -> Owners) -> Vec<Connection> {
    let mut found: Vec<Connection> = Vec::new();
    let mut by_ends: HashMap<(Ends, Owners), Vec<u32>> = HashMap::new();
    for (p, index) in all.iter().zip(0u32..) {
        let [sender, receiver] = owners(index);
        if sender.is_some() && receiver.is_some() {
            continue;
        }
        let (ends, is_out) = Ends::of(p).sorted();
        let owners = if is_out { [sender, receiver] } else { [receiver, sender] };
        let alike = by_ends.entry((ends, owners)).or_default();
        let at = match nearest(&found, alike, p, is_out) {
            Some(at) => at,
            // a reset may carry any number, or none
            None if p.flags.rst() => continue,
            None => {
                let new = found.len() as u32;
                alike.push(new);
                let mut ends = [SocketAddr::new(p.src, p.src_port), SocketAddr::new(p.dst, p.dst_port)];
                if !is_out {
                    ends.reverse();
                }
                found.push(Connection { ends, owners, packets: Vec::new(), at: [None; 2], isn: [None; 2] });
                new
            }
        };
        found[at as usize].take(p, FlowPacket { index, is_out });
    }
    found
}

/// Of connections with the same addresses the one that a packet continues, of several that which is nearest to it.
fn nearest(all: &[Connection], alike: &[u32], p: &Packet, is_out: bool) -> Option<u32> {
    let recent = alike.iter().rev().take(RECENT);
    let off = recent.filter_map(|&at| Some((all[at as usize].off(p, is_out)?, at)));
    // the latest one of equals
    off.min_by_key(|&(off, at)| (off, std::cmp::Reverse(at))).map(|(_, at)| at)
}

impl Connection {
    /// The addresses of one end and of the other.
    pub(crate) fn addresses(&self, local: usize) -> (SocketAddr, SocketAddr) {
        (self.ends[local], self.ends[1 - local])
    }

    /// How far off a packet is from where the connection was; `None`: it is of another one.
    fn off(&self, p: &Packet, is_out: bool) -> Option<u32> {
        let (own, peer) = (usize::from(!is_out), usize::from(is_out));
        if p.flags.syn() && self.isn[own].is_some_and(|isn| isn != p.seq) {
            return None;
        }
        // a first SYN begins a connection, unless only the answer to it was seen
        if p.flags.syn() && !p.flags.ack() && self.isn[own].is_none() && self.at[own] != Some(p.seq.wrapping_add(1)) {
            return None;
        }
        let of_own = self.at[own].map(|at| distance(at, p.seq));
        let of_peer = self.at[peer].filter(|_| p.flags.ack()).map(|at| distance(at, p.ack));
        let off = match p.flags.rst() {
            true => of_own.into_iter().chain(of_peer).min()?,
            false => of_own.into_iter().chain(of_peer).max()?,
        };
        (off < FAR).then_some(off)
    }

    fn take(&mut self, p: &Packet, packet: FlowPacket) {
        self.packets.push(packet);
        if p.flags.rst() {
            return;
        }
        let (own, peer) = (usize::from(!packet.is_out), usize::from(packet.is_out));
        self.at[own] = Some(p.seq.wrapping_add(space(p.len, p.flags.0) as u32));
        if p.flags.ack() {
            self.at[peer].get_or_insert(p.ack);
        }
        if p.flags.syn() {
            self.isn[own] = Some(p.seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::translation::testing::{packet, transfer};

    const CLIENT: &str = "10.0.0.1:40000";
    const SERVER: &str = "10.0.0.2:80";

    fn nobody(_: u32) -> Owners {
        [None; 2]
    }

    fn sizes(all: &[Packet]) -> Vec<usize> {
        connections(all, nobody).iter().map(|c| c.packets.len()).collect()
    }

    #[test]
    fn ports_used_again_are_two_connections() {
        let mut all = transfer(CLIENT, SERVER, 1000, 90_000, 4);
        all.extend(transfer(CLIENT, SERVER, 5_000_000, 777, 5));
        let first = sizes(&all)[0];
        assert_eq!(sizes(&all), [first, first + 2]);
    }

    #[test]
    fn two_connections_at_once_on_the_same_addresses_stay_apart() {
        let (a, b) = (transfer(CLIENT, SERVER, 1000, 90_000, 4), transfer(CLIENT, SERVER, 3_000_000_000, 90_000, 4));
        let mixed: Vec<Packet> = a.iter().zip(&b).flat_map(|(a, b)| [*a, *b]).collect();
        assert_eq!(sizes(&mixed), [a.len(), b.len()]);
    }

    #[test]
    fn without_handshakes_numbers_far_off_begin_a_connection() {
        let all = [transfer(CLIENT, SERVER, 1000, 9, 4), transfer(CLIENT, SERVER, 1000 + FAR + 500, 9, 4)];
        let middles = all.map(|a| a[3..].to_vec());
        assert_eq!(sizes(&middles.concat()), [8, 8]);
        // what was lost between is no reason
        let all = [transfer(CLIENT, SERVER, 1000, 9, 4), transfer(CLIENT, SERVER, 900_000, 9, 4)];
        assert_eq!(sizes(&all.map(|a| a[3..].to_vec()).concat()), [16]);
    }

    #[test]
    fn a_syn_sent_again_and_a_late_one_are_of_the_same_connection() {
        let mut all = transfer(CLIENT, SERVER, 1000, 90_000, 4);
        all.insert(0, all[0]);
        assert_eq!(sizes(&all), [all.len()]);
        // the answer was captured before the SYN itself
        all.swap(0, 2);
        assert_eq!(sizes(&all), [all.len()]);
    }

    #[test]
    fn packets_of_two_recorded_sockets_are_left_out() {
        let all = transfer(CLIENT, SERVER, 1000, 90_000, 4);
        assert!(connections(&all, |_| [Some(0), Some(1)]).is_empty());
        let half =
            connections(&all, |i| if all[i as usize].src_port == 80 { [None, Some(7)] } else { [Some(7), None] });
        assert_eq!((half.len(), half[0].owners), (1, [Some(7), None]));
    }

    #[test]
    fn a_reset_of_nothing_is_no_connection() {
        let reset = packet(CLIENT, SERVER, 5, 6, 0, 0x14);
        assert!(connections(&[reset], nobody).is_empty());
    }
}
