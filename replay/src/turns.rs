//! In which order a sender took up what it received and sent what it sent, where hardly any samples say it: what it
//! received and what it sent are two queues, and this says how they went into each other.
//!
//! Holds for a capture of the sender's own host: what it received passes the tap before TCP takes it, what it sent
//! after TCP did. Owns that order; must not know what follows from it for the window, nor how samples were found.

use crate::echoes::Echoes;
use crate::hash::{HashMap, HashMapExt as _};
use crate::order::{Evidence, Place, Rising};
use crate::packet::Packet;
use crate::scoreboard::Scoreboard;
use crate::seq::{Position, nearest};
use crate::sightings::space;

/// From the tap to TCP and back to the tap takes a host at least this: what arrived less before a packet did not cause it.
const TURNAROUND_NS: i64 = 2_500;
/// TCP takes up one packet after the other, and needs at least this for each.
const STEP_NS: i64 = 2_500;
/// The largest shift of a window (RFC 7323 §2.3).
const MOST_SCALE: u8 = 14;
/// What waited in a queue was sent in the tick of its timestamp, at no time known better.
const TICK_NS: i64 = 1_000_000;
/// What arrived longer before than this was taken up.
const BATCH_NS: i64 = 50_000;

/// Places on an axis that has samples and what lies between: 2s + 1 is sample s, 2s what is between it and the one before.
type Axis = usize;

/// A packet, and between which places of the axis it must be.
#[derive(Clone, Copy, Debug)]
struct Turn {
    packet: usize,
    /// When it passed the tap; of what waited in a queue, when it would have without.
    at_ns: i64,
    /// When it did.
    seen_ns: i64,
    low: Axis,
    high: Axis,
    own: Option<usize>,
    /// The sequence numbers that it takes, all pieces of it.
    space: i64,
}

/// What the order is made from.
pub(crate) struct Turns<'a> {
    pub(crate) evidence: Evidence<'a>,
    pub(crate) echoes: &'a Echoes,
    pub(crate) rising: &'a Rising,
    /// When the sender had each packet in hand.
    pub(crate) times: &'a [Option<i64>],
    /// Shift of the windows that the peer sends.
    pub(crate) wscale: Option<u8>,
}

/// What received packets allow.
#[derive(Clone, Copy)]
struct Promise {
    ack: Position,
    right: Option<Position>,
}

/// How far the sender is.
struct State {
    una: Position,
    nxt: Position,
    /// Where the peer's window ends.
    right: Option<Position>,
    /// What it expects next of its peer, and what it has beyond.
    rcv: Option<Position>,
    beyond: Scoreboard,
    /// What the peer has selectively acknowledged.
    board: Scoreboard,
    /// The latest stamp that it took.
    stamp: Option<Position>,
    cwnd_bytes: Option<u32>,
    /// The next sample.
    slot: usize,
    places: Vec<Place>,
}

impl Turns<'_> {
    /// The places of packets without a sample, in the sender's order. `None` where the capture is not of its host, as
    /// far as matches tell, or has no times.
    pub(crate) fn places(&self) -> Option<Vec<Place>> {
        let delays = self.evidence.delays()?;
        let spaces = self.evidence.spaces();
        let received = self.turns(false, (0, 0), &spaces)?;
        let sent = self.turns(true, delays, &spaces)?;
        let begin = self.evidence.edges.first()?;
        let mut state = State {
            una: begin.una,
            nxt: begin.nxt,
            right: None,
            rcv: None,
            beyond: Scoreboard::default(),
            board: Scoreboard::default(),
            stamp: None,
            cwnd_bytes: None,
            slot: 0,
            places: Vec::with_capacity(self.evidence.packets.len()),
        };
        let promised = self.promised(&received, begin.una);
        // of what was received: the next to be taken up, and how many the capture has before what is sent
        let (mut queue, mut arrived) = (0, 0);
        // one thing is done after the other: the last one was done then
        let mut done_ns = i64::MIN;
        for o in &sent {
            while received.get(arrived).is_some_and(|q| q.packet < o.packet) {
                arrived += 1;
            }
            let most = arrived.checked_sub(1).map(|last| promised[last]);
            // did the last one taken up make room for this one, which waited in a queue after that?
            let mut has_room_now = false;
            while let Some(q) = received.get(queue) {
                let must = q.high < o.low;
                if !must && (queue >= arrived || q.low > o.high || self.comes_later(q, o, &state)) {
                    break;
                }
                let alone_ns = done_ns.saturating_add(STEP_NS).max(q.at_ns.saturating_add(TURNAROUND_NS));
                let has_no_room = self.has_no_room(o, q, most, &state);
                if must || self.answers(o, &state) || has_no_room {
                    // it made the sender send this one
                    done_ns = done_ns.max(o.at_ns);
                    has_room_now = has_no_room && o.at_ns < o.seen_ns;
                } else if has_room_now && o.at_ns < q.at_ns.saturating_add(TICK_NS) {
                    // TCP sends at once what it has room for (`tcp_data_snd_check`)
                    break;
                } else if alone_ns <= o.at_ns || (alone_ns <= o.seen_ns && self.is_idle(o, q, &state)) {
                    done_ns = alone_ns;
                } else if q.at_ns >= o.at_ns.saturating_sub(BATCH_NS) {
                    break;
                }
                self.take(q, &mut state);
                queue += 1;
            }
            self.send(o, &mut state);
            done_ns = done_ns.max(o.at_ns);
        }
        for q in received.get(queue..)? {
            self.take(q, &mut state);
        }
        Some(self.with_pieces(&state.places))
    }

    /// Adds the other packets of each transmission.
    fn with_pieces(&self, places: &[Place]) -> Vec<Place> {
        let mut others: HashMap<usize, Vec<usize>> = HashMap::new();
        let found = &self.evidence.found;
        for (i, &first) in self.evidence.firsts.iter().enumerate() {
            if i != first && found[i].sample().is_none() {
                others.entry(first).or_default().push(i);
            }
        }
        let with = |place: &Place| {
            let pieces = others.remove(&place.packet).unwrap_or_default();
            let place = *place;
            std::iter::once(place).chain(pieces.into_iter().map(move |packet| Place { packet, ..place }))
        };
        places.iter().flat_map(with).collect()
    }

    /// How far everything received up to each of these allows to send: by acknowledgment, and by the peer's window.
    fn promised(&self, received: &[Turn], una: Position) -> Vec<Promise> {
        let mut most = Promise { ack: una, right: None };
        let promise = |q: &Turn| {
            let p = self.evidence.packet(q.packet);
            if p.flags.ack() && !p.flags.rst() {
                let ack = nearest(p.ack, most.ack);
                most = Promise { ack: most.ack.max(ack), right: most.right.max(self.right(p, ack)) };
            }
            most
        };
        received.iter().map(promise).collect()
    }

    /// Where the window ends that the peer offers along with an acknowledgment; `None`: its scale is not known.
    fn right(&self, p: &Packet, ack: Position) -> Option<Position> {
        let scale = if p.flags.syn() { 0 } else { self.wscale? };
        Some(ack + (i64::from(p.window) << scale.min(MOST_SCALE)))
    }

    /// Is new data sent that the windows do not allow before something more is acknowledged, and was that, by this one or
    /// those after it? (TCP sends a FIN regardless of cwnd.)
    fn has_no_room(&self, o: &Turn, q: &Turn, most: Option<Promise>, state: &State) -> bool {
        let p = self.evidence.packet(o.packet);
        let end = nearest(p.seq, state.nxt) + o.space - i64::from(p.flags.fin());
        let Some(most) = most.filter(|_| p.len > 0 && end > state.nxt) else { return false };
        let is_beyond = |right: Option<Position>| right.is_some_and(|right| end > right);
        if is_beyond(state.right) && !is_beyond(most.right) {
            return true;
        }
        let cwnd_bytes = o.own.map_or(state.cwnd_bytes, |s| self.evidence.samples[s].cwnd_bytes);
        let Some(cwnd) = cwnd_bytes.filter(|_| !p.flags.fin()) else { return false };
        let is_full = |una: Position| {
            let sacked = state.board.bytes(una, end).unwrap_or(0);
            end - una - i64::from(sacked) > i64::from(cwnd)
        };
        let sacks = self.evidence.packet(q.packet).sack.iter().next().is_some();
        is_full(state.una) && (sacks || !is_full(most.ack.max(state.una)))
    }

    /// One direction's packets with what the samples leave open for each.
    fn turns(&self, is_out: bool, (least_ns, most_ns): (i64, i64), spaces: &[i64]) -> Option<Vec<Turn>> {
        let begin = self.evidence.edges.first()?;
        let (mut end_at, mut ack_at) = (begin.nxt, begin.una);
        let mut turns = Vec::new();
        let firsts = self.evidence.firsts.iter().enumerate().filter(|&(i, &first)| i == first).map(|(i, _)| i);
        for i in firsts.filter(|&i| self.evidence.packets[i].is_out == is_out) {
            let p = self.evidence.packet(i);
            let ts_ns = p.ts_ns?;
            let waited = self.times[i]
                .map_or(0, |t| ts_ns.saturating_sub(t).saturating_sub(least_ns))
                .min(most_ns.saturating_sub(least_ns));
            let at_ns = if is_out && waited > BATCH_NS { ts_ns.saturating_sub(waited) } else { ts_ns };
            let own = self.evidence.found[i].sample().map(|s| s as usize);
            let (mut low, mut high) = (0, 2 * self.evidence.samples.len());
            if let Some(s) = own {
                (low, high) = (2 * s + 1, 2 * s + 1);
                (end_at, ack_at) = (end_at.max(self.evidence.edges[s].nxt), ack_at.max(self.evidence.edges[s].una));
            }
            if p.flags.rst() {
            } else if is_out {
                let start = nearest(p.seq, end_at);
                let end = start + spaces[i];
                if own.is_none() {
                    low = 2 * self.rising.before_sent(start);
                    high = if start >= end_at { 2 * self.rising.knows_sent(start) } else { high };
                    if end > start {
                        high = high.min(2 * self.rising.not_acknowledged(end));
                        low = if start >= end_at { high } else { low };
                    }
                }
                end_at = end_at.max(end);
            } else if p.flags.ack() {
                let ack = nearest(p.ack, ack_at);
                if own.is_none() && ack > ack_at {
                    let slot = self.rising.first_acknowledged(ack, p.ack);
                    high = 2 * slot;
                    low = if slot < self.evidence.samples.len() { 2 * slot } else { 0 };
                }
                ack_at = ack_at.max(ack);
            }
            turns.push(Turn { packet: i, at_ns, seen_ns: ts_ns, low, high, own, space: spaces[i] });
        }
        // each direction is a queue
        let mut low = 0;
        for turn in &mut turns {
            if turn.own.is_none() {
                turn.low = turn.low.max(low);
            }
            low = low.max(turn.low);
        }
        let mut high = 2 * self.evidence.samples.len();
        for turn in turns.iter_mut().rev() {
            if turn.own.is_none() {
                turn.high = turn.high.min(high).max(turn.low);
            }
            high = high.min(turn.high);
        }
        Some(turns)
    }

    /// Does the sent packet say that this received one was not yet taken up? It would have acknowledged its data, and
    /// carried back its stamp.
    fn comes_later(&self, q: &Turn, o: &Turn, state: &State) -> bool {
        let (p, received) = (self.evidence.packet(o.packet), self.evidence.packet(q.packet));
        let data = state.rcv.filter(|_| p.flags.ack() && !p.flags.rst()).is_some_and(|rcv| {
            let start = nearest(received.seq, rcv);
            let end = start + space(received.len, received.flags.0);
            start <= rcv && rcv < end && nearest(p.ack, rcv) < end
        });
        let stamps = self.echoes.stamp(q.packet).zip(self.echoes.stamp(o.packet));
        data || stamps.is_some_and(|(q, o)| q > o)
    }

    /// Has the peer got all that was sent before? Then what is sent next finds no queue to wait in.
    fn is_idle(&self, o: &Turn, q: &Turn, state: &State) -> bool {
        let (sent, received) = (self.evidence.packet(o.packet), self.evidence.packet(q.packet));
        received.flags.ack() && nearest(received.ack, state.nxt) >= nearest(sent.seq, state.nxt)
    }

    /// Does the sent packet acknowledge, or carry back, what was not yet taken up?
    fn answers(&self, o: &Turn, state: &State) -> bool {
        let p = self.evidence.packet(o.packet);
        let data = p.flags.ack() && !p.flags.rst() && state.rcv.is_some_and(|rcv| rcv < nearest(p.ack, rcv));
        let stamp = self.echoes.stamp(o.packet).is_some_and(|o| state.stamp.is_none_or(|taken| taken < o));
        data || stamp
    }

    fn take(&self, q: &Turn, state: &mut State) {
        let p = self.evidence.packet(q.packet);
        self.stand(q, state);
        if p.flags.rst() {
            return;
        }
        state.stamp = state.stamp.max(self.echoes.stamp(q.packet));
        let start = state.rcv.map_or_else(|| Position::first(p.seq), |rcv| nearest(p.seq, rcv));
        let end = start + space(p.len, p.flags.0);
        let rcv = state.rcv.unwrap_or(start);
        let rcv = if start <= rcv { rcv.max(end) } else { rcv };
        state.beyond.add(start.max(rcv), end, rcv, Position::MAX);
        let rcv = state.beyond.reach(rcv);
        state.beyond.acknowledge(rcv);
        state.rcv = Some(rcv);
        if p.flags.ack() {
            let ack = nearest(p.ack, state.una);
            if ack <= state.nxt {
                state.una = state.una.max(ack);
                state.right = state.right.max(self.right(p, ack));
            }
            for (left, right) in p.sack.iter() {
                let start = nearest(left, state.una);
                state.board.add(start, start + i64::from(right.wrapping_sub(left)), state.una, state.nxt);
            }
            state.board.acknowledge(state.una);
        }
    }

    fn send(&self, o: &Turn, state: &mut State) {
        let p = self.evidence.packet(o.packet);
        self.stand(o, state);
        if p.flags.rst() {
            return;
        }
        state.nxt = state.nxt.max(nearest(p.seq, state.nxt) + o.space);
        if p.flags.ack() {
            // what is missing in the capture was taken up, too
            let ack = state.rcv.map_or_else(|| Position::first(p.ack), |rcv| nearest(p.ack, rcv));
            state.rcv = state.rcv.max(Some(ack));
        }
    }

    /// The next one in the order: at its sample, or between two.
    fn stand(&self, turn: &Turn, state: &mut State) {
        let from = state.slot;
        if let Some(s) = turn.own {
            state.slot = state.slot.max(s + 1);
        } else {
            state.slot = state.slot.max(turn.low.div_ceil(2));
            // samples that no packet shows are passed by time
            while 2 * state.slot < turn.high && self.is_passed(state.slot, turn) {
                state.slot += 1;
            }
            let at_ns = self.times[turn.packet].unwrap_or(turn.at_ns);
            state.places.push(Place { slot: state.slot, at_ns, packet: turn.packet });
        }
        if let Some(last) = state.slot.checked_sub(1).filter(|_| state.slot > from) {
            let at = self.evidence.edges[last];
            (state.una, state.nxt) = (at.una, at.nxt);
            state.cwnd_bytes = self.evidence.samples[last].cwnd_bytes;
            state.board.acknowledge(state.una);
        }
    }

    /// Was this sample, of a change of state, taken before the packet?
    fn is_passed(&self, sample: usize, turn: &Turn) -> bool {
        let s = &self.evidence.samples[sample];
        !s.has_segment && self.times[turn.packet].is_some_and(|t| s.ts_ns <= t)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::Found;
    use crate::sightings::FlowPacket;
    use crate::translation::testing::{ACK, SYN, packet};
    use tcpprobe_trace::join::Reason;

    const US: &str = "10.0.0.1:1";
    const PEER: &str = "10.0.0.2:2";

    /// Runs a test on the turns of a packet that was received and one that was sent, of a flow without samples.
    fn with(all: &[Packet; 2], wscale: Option<u8>, test: impl FnOnce(&Turns<'_>, [Turn; 2])) {
        let packets = [FlowPacket { index: 0, is_out: false }, FlowPacket { index: 1, is_out: true }];
        let found = [Found::Nothing(Reason::NotSampled); 2];
        let evidence = Evidence { samples: &[], edges: &[], all, packets: &packets, found: &found, firsts: &[0, 1] };
        let echoes = Echoes::new(Position::first(1000), Position::first(1000), all, &packets);
        let rising = Rising::new(&[], &[]);
        let turn = |packet| Turn { packet, at_ns: 0, seen_ns: 0, low: 0, high: 0, own: None, space: 0 };
        test(&Turns { evidence, echoes: &echoes, rising: &rising, times: &[None; 2], wscale }, [turn(0), turn(1)]);
    }

    #[test]
    fn a_window_is_scaled_but_not_that_of_a_syn() {
        let all = [packet(PEER, US, 1, 1000, 0, ACK), packet(US, PEER, 1000, 1, 0, SYN | ACK)];
        with(&all, Some(3), |turns, _| {
            assert_eq!(turns.right(&all[0], 1000.into()), Some((1000 + (512 << 3)).into()));
            assert_eq!(turns.right(&all[1], 1000.into()), Some((1000 + 512).into()));
        });
        with(&all, Some(200), |turns, _| {
            assert_eq!(turns.right(&all[0], 0.into()), Some((512 << 14).into()), "no shift is larger");
        });
        with(&all, None, |turns, _| assert_eq!(turns.right(&all[0], 1000.into()), None));
    }

    #[test]
    fn without_a_match_no_order_is_claimed() {
        let all = [packet(PEER, US, 1, 1000, 0, ACK), packet(US, PEER, 1000, 1, 0, ACK)];
        with(&all, None, |turns, _| assert_eq!(turns.places(), None));
    }

    #[test]
    fn what_is_sent_comes_after_the_data_that_it_acknowledges_and_before_what_it_does_not() {
        let data = packet(PEER, US, 1, 1000, 100, ACK);
        let at = |rcv: u32| State {
            una: Position::first(1000),
            nxt: Position::first(1000),
            right: None,
            rcv: Some(Position::first(rcv)),
            beyond: Scoreboard::default(),
            board: Scoreboard::default(),
            stamp: None,
            cwnd_bytes: None,
            slot: 0,
            places: Vec::new(),
        };
        with(&[data, packet(US, PEER, 1000, 101, 0, ACK)], None, |turns, [q, o]| {
            assert!(turns.answers(&o, &at(1)) && !turns.comes_later(&q, &o, &at(1)));
            assert!(!turns.answers(&o, &at(101)), "it has been taken up");
        });
        with(&[data, packet(US, PEER, 1000, 1, 0, ACK)], None, |turns, [q, o]| {
            assert!(!turns.answers(&o, &at(1)) && turns.comes_later(&q, &o, &at(1)));
        });
    }
}
