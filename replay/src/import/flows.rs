//! Which socket an observation is of, and its number in that socket's samples.
//!
//! Owns the identity of sockets in logs that mostly know addresses only. Must not know the formats.

use std::collections::HashMap;
use std::net::SocketAddr;

use tcpprobe_trace::fields::index;

use super::line::Observation;

/// Sockets that are kept in mind. Beyond, the half that has been silent longest is forgotten; who comes back becomes a
/// flow of its own.
const MAX_FLOWS: usize = 65_536;

/// Samples of one socket on two processors may stand a little out of order; a new connection begins far away.
const OUT_OF_ORDER_BYTES: i32 = 1 << 24;
/// No connection gets so far between two samples: windows are smaller (RFC 7323 §2.3).
const FAR_BYTES: i32 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Identity {
    local: SocketAddr,
    remote: SocketAddr,
    cookie: Option<u64>,
}

#[derive(Debug)]
struct Known {
    key: u64,
    serial: u64,
    used: u64,
    snd_una: Option<i64>,
    sk_state: Option<i64>,
}

/// Where an observation belongs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) key: u64,
    pub(super) serial: u64,
    pub(super) is_new: bool,
    /// Flows of which nothing more will come.
    pub(super) gone: Vec<u64>,
}

/// The sockets of a log.
#[derive(Debug, Default)]
pub(super) struct FlowTable {
    known: HashMap<Identity, Known>,
    last_key: u64,
    clock: u64,
}

impl FlowTable {
    pub(super) fn place(&mut self, o: &Observation) -> Place {
        self.clock += 1;
        let identity = Identity { local: o.local, remote: o.remote, cookie: o.cookie };
        let snd_una = o.state.get(const { index("snd_una") });
        let sk_state = o.state.get(const { index("sk_state") });
        let mut gone = Vec::new();
        if let Some(flow) = self.known.get_mut(&identity) {
            // a cookie is never used again; addresses are
            let again = o.cookie.is_none() && (jumped(flow.snd_una, snd_una) || began(flow.sk_state, sk_state));
            if !again {
                flow.serial += 1;
                flow.used = self.clock;
                flow.snd_una = snd_una;
                flow.sk_state = sk_state;
                return Place { key: flow.key, serial: flow.serial, is_new: false, gone };
            }
            gone.push(flow.key);
        } else if self.known.len() >= MAX_FLOWS {
            gone = self.forget_the_silent();
        }
        self.last_key += 1;
        let flow = Known { key: self.last_key, serial: 1, used: self.clock, snd_una, sk_state };
        self.known.insert(identity, flow);
        Place { key: self.last_key, serial: 1, is_new: true, gone }
    }

    fn forget_the_silent(&mut self) -> Vec<u64> {
        let mut used: Vec<u64> = self.known.values().map(|k| k.used).collect();
        let middle = used.len() / 2;
        let limit = *used.select_nth_unstable(middle).1;
        let mut gone: Vec<u64> = self.known.extract_if(|_, k| k.used < limit).map(|(_, k)| k.key).collect();
        gone.sort_unstable();
        gone
    }
}

/// Does the oldest unacknowledged number go where the same connection cannot?
fn jumped(before: Option<i64>, now: Option<i64>) -> bool {
    before.zip(now).is_some_and(|(before, now)| {
        let moved = (now as u32).wrapping_sub(before as u32) as i32;
        !(-OUT_OF_ORDER_BYTES..=FAR_BYTES).contains(&moved)
    })
}

/// Is a connection that was being closed, or open, opened again? The states are those of `sk_state`.
fn began(before: Option<i64>, now: Option<i64>) -> bool {
    const ESTABLISHED: i64 = 1;
    const OPENING: [i64; 2] = [2, 3];
    before.zip(now).is_some_and(|(before, now)| {
        let was_opening = OPENING.contains(&before);
        !was_opening && (OPENING.contains(&now) || now == ESTABLISHED && before != ESTABLISHED)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::text::set;
    use tcpprobe_trace::sample::{Family, Kind, Phase, State, Unplaced};

    fn seen(port: u16, cookie: Option<u64>, una: Option<u32>, sk_state: Option<u32>) -> Observation {
        let mut state = State::default();
        set(&mut state, index("snd_una"), una);
        set(&mut state, index("sk_state"), sk_state);
        Observation {
            time_ns: 0,
            local: SocketAddr::new([192, 0, 2, 1].into(), port),
            remote: "192.0.2.2:5201".parse().unwrap(),
            family: Family::Inet,
            cookie,
            snd_wscale: None,
            rcv_wscale: None,
            kind: Kind::Ack,
            phase: Phase::Before,
            unplaced: Unplaced::default(),
            state,
        }
    }

    fn places(of: &[Observation]) -> Vec<(u64, u64)> {
        let mut table = FlowTable::default();
        of.iter().map(|o| table.place(o)).map(|p| (p.key, p.serial)).collect()
    }

    #[test]
    fn each_socket_counts_its_own_samples() {
        let of = [1, 2, 1].map(|port| seen(port, None, Some(100), None));
        assert_eq!(places(&of), [(1, 1), (2, 1), (1, 2)]);
    }

    #[test]
    fn addresses_used_again_are_another_flow() {
        let una = |una| seen(1, None, Some(una), None);
        // over the end of the sequence space, a little out of order, then somewhere else
        let of = [una(0xffff_fff0), una(10), una(0xffff_fff0), una(10), una(0x8000_0000), una(0x8000_0001)];
        assert_eq!(places(&of), [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2)]);
    }

    #[test]
    fn a_cookie_tells_sockets_apart_and_nothing_else_does() {
        let of =
            [seen(1, Some(7), Some(0), None), seen(1, Some(8), Some(0), None), seen(1, Some(7), Some(1 << 31), None)];
        assert_eq!(places(&of), [(1, 1), (2, 1), (1, 2)]);
    }

    #[test]
    fn a_connection_opened_again_is_another_flow() {
        let states = [2, 1, 4, 5, 7, 2, 3, 1, 8, 1].map(|s| seen(1, None, None, Some(s)));
        let keys: Vec<u64> = places(&states).iter().map(|p| p.0).collect();
        assert_eq!(keys, [1, 1, 1, 1, 1, 2, 2, 2, 2, 3]);
    }

    #[test]
    fn the_table_does_not_grow_beyond_its_limit() {
        let mut table = FlowTable::default();
        let mut gone = Vec::new();
        for i in 0..=MAX_FLOWS as u64 {
            gone.extend(table.place(&seen(1, Some(i + 1), None, None)).gone);
        }
        assert_eq!(gone, (1..=MAX_FLOWS as u64 / 2).collect::<Vec<_>>());
        let back = table.place(&seen(1, Some(1), None, None));
        assert!(back.is_new && back.key == MAX_FLOWS as u64 + 2);
    }
}
