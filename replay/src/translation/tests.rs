//! Made-up connections, some of them recorded, some captured under other addresses and numbers: what is found must be
//! true, and what can be told must be found.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::testing::{ACK, PUSH, SYN, flow, packet, sample};
use super::{Found, Search, Shifts, Shown, unknown};
use crate::flows::Owners;
use crate::hash::HashSet;
use crate::packet::Packet;
use tcpprobe_trace::reader::{FlowRow, SampleRow};

const MSS: u32 = 1448;
const MS: i64 = 1_000_000;

/// What two hosts say to each other: who, how many bytes, how long after the one before.
#[derive(Clone, Debug)]
struct Talk {
    isns: (u32, u32),
    words: Vec<(bool, u32, i64)>,
    stamped: bool,
    begins_ms: i64,
}

/// What becomes of it.
#[derive(Clone, Debug)]
struct Fate {
    recorded: bool,
    /// By how much the capture's numbers are shifted; `None`: not captured.
    captured: Option<Shifts>,
    /// Is the recorded socket the one that was connected to?
    server: bool,
}

const CLIENT: &str = "10.0.0.1:40000";
const SERVER: &str = "198.51.100.2:80";

/// A segment as its socket has it, and whether the client sent it.
type Sent = (Packet, bool);

impl Talk {
    /// The segments before they are cut.
    fn segments(&self) -> Vec<Sent> {
        let (isn, peer) = self.isns;
        let mut at = [isn.wrapping_add(1), peer.wrapping_add(1)];
        let mut now_ms = self.begins_ms;
        let mut all = Vec::new();
        // one clock each: connections between the same hosts share it
        let mut send = |client: bool, seq: u32, ack: u32, len: u32, flags: u16, ms: i64| {
            let (from, to) = if client { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
            let mut p = packet(from, to, seq, ack, len, flags);
            p.ts_ns = Some(ms * MS);
            p.tsval = self.stamped.then_some((if client { 7_000_000 } else { 90_000 }) + ms as u32);
            all.push((p, client));
        };
        send(true, isn, 0, 0, SYN, now_ms);
        send(false, peer, at[0], 0, SYN | ACK, now_ms + 5);
        send(true, at[0], at[1], 0, ACK, now_ms + 10);
        now_ms += 10;
        for &(client, len, pause_ms) in &self.words {
            now_ms += pause_ms;
            let (own, other) = (usize::from(!client), usize::from(client));
            send(client, at[own], at[other], len, PUSH, now_ms);
            at[own] = at[own].wrapping_add(len);
            send(!client, at[other], at[own], 0, ACK, now_ms + 1);
        }
        all
    }
}

/// As the wire has them.
fn cut(segments: &[Sent]) -> Vec<Sent> {
    let pieces = segments.iter().flat_map(|&(whole, client)| {
        let starts = (0..whole.len.max(1)).step_by(MSS as usize);
        starts.map(move |at| {
            let mut p = whole;
            p.seq = p.seq.wrapping_add(at);
            p.len = (whole.len - at).min(MSS);
            if at + p.len < whole.len {
                p.flags.0 &= !8;
            }
            (p, client)
        })
    });
    pieces.collect()
}

struct World {
    all: Vec<Packet>,
    flows: Vec<(FlowRow, Vec<SampleRow>)>,
    /// Of each flow: its talk's position, its shifts in the capture as its socket sees them.
    truth: Vec<(usize, Option<Shifts>)>,
}

fn port_of(talk: usize) -> u16 {
    61_000 + talk as u16
}

fn world(talks: &[(Talk, Fate)], seen: &[bool]) -> World {
    let mut world = World { all: Vec::new(), flows: Vec::new(), truth: Vec::new() };
    let mut seen = seen.iter().cycle();
    for (number, (talk, fate)) in talks.iter().enumerate() {
        let segments = talk.segments();
        if fate.recorded {
            let ends = if fate.server { (SERVER, CLIENT) } else { (CLIENT, SERVER) };
            let samples = (1..).zip(&segments).map(|(serial, (p, client))| sample(serial, p, *client != fate.server));
            world.flows.push((flow(ends.0, ends.1), samples.collect()));
            let as_seen = |s: Shifts| {
                if fate.server {
                    Shifts { own: s.peer, peer: s.own, own_stamps: s.peer_stamps, peer_stamps: s.own_stamps }
                } else {
                    s
                }
            };
            world.truth.push((number, fate.captured.map(as_seen)));
        }
        let Some(shifts) = fate.captured else { continue };
        for (p, client) in cut(&segments) {
            let mut p = shifts.forth(&p, client);
            if client {
                p.src_port = port_of(number)
            } else {
                p.dst_port = port_of(number)
            }
            if *seen.next().unwrap_or(&true) {
                world.all.push(p);
            }
        }
    }
    world.all.sort_by_key(|p| p.ts_ns);
    for (p, number) in world.all.iter_mut().zip(1..) {
        p.number = number;
    }
    world
}

fn nobody(_: u32) -> Owners {
    [None; 2]
}

impl World {
    fn find(&self) -> Vec<Found> {
        let (connections, _) = unknown(&self.all, nobody);
        let search = Search::new(&self.all, &connections);
        let fits = self.flows.iter().zip(0..).flat_map(|((row, samples), i)| search.fits(i, row, samples, Shown::Not));
        search.decide(fits.collect()).0
    }

    /// Is everything that was found true? Returns the flows that were found.
    fn check(&self, found: &[Found]) -> Result<Vec<u32>, TestCaseError> {
        for f in found {
            let (talk, shifts) = self.truth[f.flow as usize];
            prop_assert_eq!(Some(f.shifts), shifts, "flow {} of talk {}", f.flow, talk);
            let port = port_of(talk);
            for packet in &f.packets {
                let p = &self.all[packet.index as usize];
                prop_assert!(p.src_port == port || p.dst_port == port, "a packet of another connection");
            }
        }
        Ok(found.iter().map(|f| f.flow).collect())
    }
}

fn shift(own: u32, peer: u32) -> Shifts {
    Shifts { own, peer, ..Shifts::default() }
}

fn shifts() -> impl Strategy<Value = Shifts> {
    let one = || prop_oneof![Just(0), 1..=u32::MAX];
    (one(), one()).prop_map(|(own, peer)| shift(own, peer))
}

fn words() -> impl Strategy<Value = Vec<(bool, u32, i64)>> {
    let len = prop_oneof![3 => 1..1500u32, 1 => 1..20_000u32];
    vec((any::<bool>(), len, 2..40i64), 14..24)
}

fn fate() -> impl Strategy<Value = Fate> {
    (any::<bool>(), prop::option::weighted(0.8, shifts()), any::<bool>())
        .prop_map(|(recorded, captured, server)| Fate { recorded, captured, server })
}

/// Does enough of a talk differ from all others?
fn can_be_told(talks: &[(Talk, Fate)], number: usize, shifts: Shifts) -> bool {
    let talk = &talks[number].0;
    let lengths: HashSet<(bool, u32)> = talk.words.iter().map(|w| (w.0, w.1)).collect();
    let alike = talks.iter().filter(|(t, _)| t.words == talk.words).count();
    shifts.own == 0 || shifts.peer == 0 || talk.stamped || (lengths.len() >= 8 && alike == 1)
}

/// Talks that begin within a second of each other; some say the same as another one, word for word, but later.
fn talks() -> impl Strategy<Value = Vec<(Talk, Fate)>> {
    let talk = (any::<(u32, u32)>(), words(), 0..1000i64, fate(), any::<bool>());
    (any::<bool>(), vec(talk, 1..5), select(vec![3_000i64, 10_000, 60_000])).prop_map(|(stamped, talks, later_ms)| {
        let mut all: Vec<(Talk, Fate)> = Vec::new();
        for (isns, words, begins_ms, fate, again) in talks {
            let mut talk = Talk { isns, words, stamped, begins_ms };
            if let (true, Some((said, _))) = (again, all.last()) {
                (talk.words, talk.begins_ms) = (said.words.clone(), said.begins_ms + later_ms);
            }
            all.push((talk, fate));
        }
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn what_is_found_is_true_and_what_can_be_told_is_found(talks in talks()) {
        let world = world(&talks, &[true]);
        let found = world.check(&world.find())?;
        for (flow, &(talk, shifts)) in (0..).zip(&world.truth) {
            let told = shifts.is_some_and(|s| can_be_told(&talks, talk, s));
            prop_assert!(found.contains(&flow) || !told, "flow {} of talk {}", flow, talk);
        }
    }

    #[test]
    fn a_capture_with_gaps_misleads_to_nothing(talks in talks(), seen in vec(prop::bool::weighted(0.8), 97)) {
        let world = world(&talks, &seen);
        world.check(&world.find())?;
    }

    #[test]
    fn equal_numbers_need_nothing_else(
        talks in vec((any::<(u32, u32)>(), vec((any::<bool>(), 1..3000u32, 0..40i64), 2..6), fate()), 1..20),
        seen in vec(prop::bool::weighted(0.9), 97),
        ahead_ms in select(vec![0i64, 18_000_000, -7_000]),
    ) {
        let talks: Vec<_> = talks.into_iter().map(|(isns, words, mut fate)| {
            fate.captured = fate.captured.map(|_| Shifts::default());
            (Talk { isns, words, stamped: false, begins_ms: 0 }, fate)
        }).collect();
        let mut world = world(&talks, &seen);
        for p in &mut world.all {
            p.ts_ns = p.ts_ns.map(|t| t + ahead_ms * MS);
        }
        let found = world.check(&world.find())?;
        for (flow, (talk, shifts)) in (0..).zip(&world.truth) {
            let port = port_of(*talk);
            let captured = world.all.iter().filter(|p| p.src_port == port || p.dst_port == port).count();
            // a handshake without one of its packets, and a little more
            if shifts.is_some() && captured >= 6 {
                prop_assert!(found.contains(&flow), "flow {} of {} packets", flow, captured);
            }
        }
    }

    #[test]
    fn stamps_may_be_shifted_too(
        isns in any::<(u32, u32)>(),
        words in words(),
        shifts in shifts(),
        (own_stamps, peer_stamps) in any::<(u32, u32)>(),
        server in any::<bool>(),
    ) {
        let shifts = Shifts { own_stamps, peer_stamps, ..shifts };
        let talk = Talk { isns, words, stamped: true, begins_ms: 0 };
        let world = world(&[(talk, Fate { recorded: true, captured: Some(shifts), server })], &[true]);
        let found = world.check(&world.find())?;
        prop_assert!(found == [0] || (shifts.own != 0 && shifts.peer != 0));
    }

    /// As connections to one server do: the same greetings at the same time, and then each its own.
    #[test]
    fn a_common_beginning_proves_nothing(
        words in words(),
        rest in vec((any::<bool>(), 1..1500u32, 2..40i64), 6..12),
        common in 1..12usize,
        own in 1..=u32::MAX,
        peer in 1..=u32::MAX,
        stamped in any::<bool>(),
    ) {
        prop_assume!((words[common].0, words[common].1) != (rest[0].0, rest[0].1));
        let recorded = Talk { isns: (1, 2), words: words.clone(), stamped, begins_ms: 1_000 };
        let other = words[..common].iter().copied().chain(rest).collect();
        let other = Talk { isns: (8, 9), words: other, ..recorded.clone() };
        let fate = |recorded, captured| Fate { recorded, captured, server: false };
        let mut world = world(&[(recorded, fate(true, None)), (other, fate(false, Some(shift(own, peer))))], &[true]);
        world.flows[0].0.closed = true;
        prop_assert!(world.find().is_empty());
    }

    /// A capture that ends early, or a connection that nobody recorded: too little is seen of it.
    #[test]
    fn a_beginning_alone_proves_nothing(words in words(), common in 1..8usize, own in 1..=u32::MAX, peer in 1..=u32::MAX) {
        let recorded = Talk { isns: (1, 2), words: words.clone(), stamped: false, begins_ms: 1_000 };
        let other = Talk { isns: (8, 9), words: words[..common].to_vec(), ..recorded.clone() };
        let fate = |recorded, captured| Fate { recorded, captured, server: false };
        let world = world(&[(recorded, fate(true, None)), (other, fate(false, Some(shift(own, peer))))], &[true]);
        prop_assert!(world.find().is_empty());
    }

    /// The same words at the same times, up to where one of the two takes longer.
    #[test]
    fn the_same_words_at_other_ticks_prove_nothing(words in words(), common in 1..9usize, own in 1..=u32::MAX, peer in 1..=u32::MAX) {
        let recorded = Talk { isns: (1, 2), words: words.clone(), stamped: true, begins_ms: 1_000 };
        let mut other = Talk { isns: (8, 9), ..recorded.clone() };
        other.words[common].2 += 3;
        let fate = |recorded, captured| Fate { recorded, captured, server: false };
        let world = world(&[(recorded, fate(true, None)), (other, fate(false, Some(shift(own, peer))))], &[true]);
        prop_assert!(world.find().is_empty());
    }

    /// The clock of the capture is off by what lies between two that said the same: then time would be wrong.
    #[test]
    fn lengths_and_a_wrong_clock_prove_nothing(words in words(), own in 1..=u32::MAX, peer in 1..=u32::MAX, later in any::<bool>()) {
        let shifts = shift(own, peer);
        let talk = Talk { isns: (1, 2), words, stamped: false, begins_ms: 10_000 };
        let other = Talk { isns: (8, 9), begins_ms: if later { 15_000 } else { 5_000 }, ..talk.clone() };
        let fate = |recorded| Fate { recorded, captured: Some(shifts), server: false };
        let mut world = world(&[(talk, fate(true)), (other, fate(false))], &[true]);
        for p in &mut world.all {
            p.ts_ns = p.ts_ns.map(|t| t + if later { -5_000 } else { 5_000 } * MS);
        }
        prop_assert!(world.find().is_empty());
    }
}

#[test]
fn sockets_that_did_the_same_at_the_same_time_are_not_told_apart() {
    let words: Vec<_> = (1..20).map(|i| (i % 3 > 0, i as u32 * 37, 11)).collect();
    for stamped in [false, true] {
        let talk = Talk { isns: (1000, 2000), words: words.clone(), stamped, begins_ms: 5 };
        let twin = Talk { isns: (777, 888), ..talk.clone() };
        let fate = |captured| Fate { recorded: true, captured, server: false };
        let shifts = Some(shift(5, 6));
        assert!(world(&[(talk.clone(), fate(shifts)), (twin.clone(), fate(None))], &[true]).find().is_empty());
        assert!(world(&[(talk.clone(), fate(shifts)), (twin, fate(shifts))], &[true]).find().is_empty());
        // alone it is told
        assert_eq!(world(&[(talk, fate(shifts))], &[true]).find().len(), 1);
    }
}

#[test]
fn a_bulk_transfer_shows_no_lengths() {
    let words: Vec<_> = (0..200).map(|_| (true, MSS, 1)).collect();
    let both = Some(shift(5, 6));
    let fate = |captured| Fate { recorded: true, captured, server: false };
    let mut talk = Talk { isns: (1000, 2000), words, stamped: false, begins_ms: 5 };
    assert!(world(&[(talk.clone(), fate(both))], &[true]).find().is_empty());
    // one direction's numbers are enough, and so are timestamps
    let own = Some(shift(5, 0));
    assert_eq!(world(&[(talk.clone(), fate(own))], &[true]).find().len(), 1);
    talk.stamped = true;
    assert_eq!(world(&[(talk, fate(both))], &[true]).find().len(), 1);
}

#[test]
fn what_goes_on_at_a_steady_pace_is_not_itself_with_other_numbers() {
    let words: Vec<_> = (0..200).map(|_| (true, MSS, 2)).collect();
    for stamped in [false, true] {
        let segments = Talk { isns: (1000, 2000), words: words.clone(), stamped, begins_ms: 5 }.segments();
        // all that the capture has is from before the recording began
        let (captured, recorded) = segments.split_at(segments.len() / 2);
        let all: Vec<Packet> = captured.iter().map(|(p, _)| *p).collect();
        let samples: Vec<SampleRow> = (1..).zip(recorded).map(|(serial, (p, out))| sample(serial, p, *out)).collect();
        let (connections, _) = unknown(&all, nobody);
        let search = Search::new(&all, &connections);
        let fits = search.fits(0, &flow(CLIENT, SERVER), &samples, Shown::Misfit);
        assert!(search.decide(fits).0.is_empty(), "stamped: {stamped}");
    }
}
