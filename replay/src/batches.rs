//! A capture in batches: packets of many connections, of each enough to be joined by themselves.
//!
//! A connection waits until it is over, or has come far enough: what tells its packets' samples apart are the packets
//! around them. Memory holds what waits and the batches that are being joined, however long the capture is. What is in a
//! batch follows from the capture alone. Owns the gathering; must not know how a batch is joined.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use tcpprobe_trace::reader::SampleRow;

use crate::capture::{CaptureError, ReadSummary, TcpPackets};
use crate::ends::Ends;
use crate::flows::{Dealer, Owners};
use crate::hash::{HashMap, HashMapExt as _};
use crate::packet::Packet;
use crate::tracks::{Landmarks, Track};

/// How a capture is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// When so many packets wait, a batch is made; a capture of fewer is joined as a whole. Of many connections that go on
    /// up to four times as many wait.
    pub packets: usize,
    /// Of a connection that goes on, at least so many packets of the batches before and after are looked at as well:
    /// what is sent again may be confused with what was sent before.
    pub margin: usize,
}

/// At most so many times the packets of a batch wait.
const MOST_WAITING: usize = 4;

impl Default for Batching {
    fn default() -> Batching {
        Batching { packets: 1 << 17, margin: 256 }
    }
}

impl Batching {
    /// A long stretch has a longer margin: so does a large window.
    fn margin(&self, packets: usize) -> usize {
        self.margin.max((packets / 16).min(16 * self.margin))
    }

    /// How many packets wait until a batch is made, while so many connections go on: around each stretch of one about
    /// as many samples as a margin has packets are read along, which a short one is not worth.
    fn waiting(&self, open: usize) -> usize {
        let worth = open.saturating_mul(self.margin);
        worth.clamp(self.packets, MOST_WAITING.saturating_mul(self.packets))
    }

    /// Is a connection worth a cut?
    fn is_long(&self, packets: usize) -> bool {
        packets >= 8 * self.margin
    }

    /// Packets of a connection that is.
    fn ripe(&self, of: &Waiting) -> usize {
        if self.is_long(of.fresh()) { of.fresh() } else { 0 }
    }
}

/// Packets to be joined together.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Connection by connection, of each in the order of the capture: what is done flow by flow finds its packets
    /// side by side.
    pub(crate) packets: Vec<Packet>,
    /// Whose each packet is, by its addresses.
    pub(crate) owners: Vec<Owners>,
    /// Is it one of this batch? Otherwise another one has its row.
    pub(crate) own: Vec<bool>,
    /// Where the flows were before the first of all these packets.
    pub(crate) tracks: HashMap<u32, Track>,
    /// Flows that the capture has shown by their addresses up to here.
    pub(crate) shown: Vec<bool>,
    /// Is it the first one, and the last one?
    pub(crate) begins: bool,
    pub(crate) ends: bool,
    /// What was read of the capture so far.
    pub(crate) read: ReadSummary,
}

/// Memory of batches that are done, for those that come: pages that are new cost as much as what is written to them.
#[derive(Debug, Default)]
pub(crate) struct Spare {
    of: Mutex<Vec<Columns>>,
}

/// Packets, whose they are, and whether they are the batch's own.
type Columns = (Vec<Packet>, Vec<Owners>, Vec<bool>);

impl Spare {
    /// Keeps the memory of a batch.
    pub(crate) fn give(&self, packets: Vec<Packet>, owners: Vec<Owners>, own: Vec<bool>) {
        self.of.lock().unwrap_or_else(PoisonError::into_inner).push((packets, owners, own));
    }

    fn take(&self) -> Columns {
        let (mut packets, mut owners, mut own) =
            self.of.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        packets.clear();
        owners.clear();
        own.clear();
        (packets, owners, own)
    }
}

/// What may stop the reading.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Capture(#[from] CaptureError),
    #[error(transparent)]
    Trace(#[from] tcpprobe_trace::Error),
}

/// What waits of a connection.
#[derive(Debug, Default)]
struct Waiting {
    /// Its packets, and whose they are.
    packets: Vec<(Packet, Owners)>,
    /// So many of these were in a batch before.
    context: usize,
    /// Of the last one.
    number: u64,
    /// Both ends have said that they are done, or one that it will not have it.
    fins: [bool; 2],
    reset: bool,
}

impl Waiting {
    fn is_over(&self) -> bool {
        self.reset || self.fins == [true; 2]
    }

    /// So many of its packets were in no batch yet.
    fn fresh(&self) -> usize {
        self.packets.len() - self.context
    }

    /// Number of the first of these, or of the last packet.
    fn since(&self) -> u64 {
        self.packets.get(self.context).map_or(self.number, |(packet, _)| packet.number)
    }
}

/// How much of a connection goes into a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    All,
    /// Up to the margin, which waits for the next one.
    Most,
}

/// Makes batches of a capture that is being read.
pub(crate) struct Batcher<'a> {
    source: TcpPackets,
    dealer: Dealer<'a>,
    shared: HashMap<u32, Vec<SampleRow>>,
    batching: Batching,
    spare: &'a Spare,
    /// What is read when the capture turns out to have more than one batch.
    landmarks: Box<dyn FnMut() -> tcpprobe_trace::Result<&'a Landmarks> + Send + 'a>,
    /// By addresses, the lower one first.
    places: HashMap<Ends, usize>,
    waiting: Vec<Option<(Ends, Waiting)>>,
    /// Places where none waits any more.
    free: Vec<usize>,
    /// Packets that wait.
    count: usize,
    /// Those of connections that have come far enough: where these make a batch, nothing waits for the others.
    ripe: usize,
    /// Connections that wait and are not over.
    open: usize,
    /// Nothing of the capture is left to be read.
    read_whole: bool,
    /// Number of the last packet that was there when the batch before was made.
    last_made: u64,
    tracks: HashMap<u32, Track>,
    shown: Vec<bool>,
    begun: bool,
    done: bool,
}

impl<'a> Batcher<'a> {
    pub(crate) fn new(
        source: TcpPackets,
        dealer: Dealer<'a>,
        shared: HashMap<u32, Vec<SampleRow>>,
        batching: Batching,
        spare: &'a Spare,
        landmarks: Box<dyn FnMut() -> tcpprobe_trace::Result<&'a Landmarks> + Send + 'a>,
    ) -> Batcher<'a> {
        Batcher {
            source,
            dealer,
            shared,
            batching,
            spare,
            landmarks,
            places: HashMap::new(),
            waiting: Vec::new(),
            free: Vec::new(),
            count: 0,
            ripe: 0,
            open: 0,
            read_whole: false,
            last_made: 0,
            tracks: HashMap::new(),
            shown: Vec::new(),
            begun: false,
            done: false,
        }
    }

    /// What was read of the capture so far.
    pub(crate) fn read(&self) -> ReadSummary {
        self.source.summary()
    }

    /// The next batch; there is always a last one, which may have no packets.
    pub(crate) fn next(&mut self) -> Result<Option<Batch>, Error> {
        if self.done {
            return Ok(None);
        }
        let mut last = self.last_made;
        let Batching { packets, .. } = self.batching;
        while !self.read_whole && self.count < self.batching.waiting(self.open) && self.ripe < packets {
            match self.source.next().transpose()? {
                Some(packet) => {
                    last = packet.number;
                    self.take(packet);
                }
                None => self.read_whole = true,
            }
        }
        self.done = self.read_whole && self.count < packets;
        let shares = self.shares();
        self.last_made = last;
        self.make(shares).map(Some)
    }

    fn take(&mut self, packet: Packet) {
        let owners = self.dealer.deal(&packet, &self.shared);
        for flow in owners.into_iter().flatten().map(|flow| flow as usize) {
            if flow >= self.shown.len() {
                self.shown.resize(flow + 1, false);
            }
            self.shown[flow] = true;
        }
        let (ends, from_lower) = Ends::of(&packet).sorted();
        let (waiting, free) = (&mut self.waiting, &mut self.free);
        let place = *self.places.entry(ends).or_insert_with(|| {
            let place = free.pop().unwrap_or_else(|| {
                waiting.push(None);
                waiting.len() - 1
            });
            waiting[place] = Some((ends, Waiting::default()));
            self.open += 1;
            place
        });
        let Some((_, of)) = &mut self.waiting[place] else { return };
        let (was_over, was_ripe) = (of.is_over(), self.batching.ripe(of));
        of.number = packet.number;
        of.fins[usize::from(from_lower)] |= packet.flags.fin();
        of.reset |= packet.flags.rst();
        if packet.flags.syn() {
            (of.fins, of.reset) = ([false; 2], false);
        }
        match (was_over, of.is_over()) {
            (false, true) => self.open -= 1,
            (true, false) => self.open += 1,
            _ => {}
        }
        of.packets.push((packet, owners));
        self.count += 1;
        self.ripe = self.ripe - was_ripe + self.batching.ripe(of);
    }

    /// Which connections go into the next batch: those that are over, and those that have come far enough, until it is
    /// full. If these are few, or the capture has no more, those that have waited longest as well.
    fn shares(&self) -> Vec<(usize, Share)> {
        let mut ready = Vec::new();
        let mut others = Vec::new();
        for (place, of) in self.waiting.iter().enumerate() {
            let Some((_, of)) = of else { continue };
            let all = (of.since(), place, Share::All, of.packets.len());
            if self.done || of.is_over() && of.number <= self.last_made {
                ready.push(all);
            } else if self.batching.is_long(of.fresh()) {
                ready.push((of.since(), place, Share::Most, of.fresh()));
            } else {
                others.push(all);
            }
        }
        let mut shares = Vec::new();
        let mut freed = 0;
        for (mut of_kind, enough) in [(ready, self.batching.packets), (others, self.batching.packets / 2)] {
            of_kind.sort_unstable_by_key(|&(since, place, ..)| (since, place));
            for (_, place, share, packets) in of_kind {
                if freed >= enough {
                    break;
                }
                shares.push((place, share));
                freed += packets;
            }
        }
        shares
    }

    /// A batch of these.
    fn make(&mut self, mut shares: Vec<(usize, Share)>) -> Result<Batch, Error> {
        let begins = !std::mem::replace(&mut self.begun, true);
        // by their first packets: what is in a batch, and in which order, follows from the capture
        shares.sort_by_key(|&(place, _)| {
            self.waiting[place].as_ref().and_then(|(_, of)| of.packets.first()).map(|p| p.0.number)
        });
        let landmarks = if begins && self.done { None } else { Some((self.landmarks)()?) };
        let (packets, owners, own) = self.spare.take();
        let mut batch = Batch {
            packets,
            owners,
            own,
            tracks: HashMap::new(),
            shown: if self.done { std::mem::take(&mut self.shown) } else { self.shown.clone() },
            begins,
            ends: self.done,
            read: self.read(),
        };
        for (place, share) in shares {
            let Some((ends, mut of)) = self.waiting[place].take() else { continue };
            let (own, kept_from) = self.parts(&of, share);
            self.ripe -= self.batching.ripe(&of);
            batch.packets.extend(of.packets.iter().map(|(packet, _)| packet));
            batch.owners.extend(of.packets.iter().map(|(_, owners)| owners));
            batch.own.extend((0..of.packets.len()).map(|i| own.contains(&i)));
            if let Some(landmarks) = landmarks {
                self.follow(landmarks, &of.packets, kept_from, &mut batch.tracks);
            }
            self.count -= kept_from;
            match share {
                Share::All => {
                    self.places.remove(&ends);
                    self.free.push(place);
                    self.open -= usize::from(!of.is_over());
                }
                Share::Most => {
                    of.packets.drain(..kept_from);
                    of.context = own.end - kept_from;
                    self.ripe += self.batching.ripe(&of);
                    self.waiting[place] = Some((ends, of));
                }
            }
        }
        Ok(batch)
    }

    /// Goes on with the flows of a connection's packets that no later batch has, which are the first ones; `before` gets
    /// where the flows of all of them were.
    fn follow(
        &mut self,
        landmarks: &Landmarks,
        packets: &[(Packet, Owners)],
        kept_from: usize,
        before: &mut HashMap<u32, Track>,
    ) {
        let mut tracks: HashMap<u32, Option<Track>> = HashMap::new();
        for (i, (packet, owners)) in packets.iter().enumerate() {
            let owners = owners.iter().zip([true, false]);
            for (flow, is_out) in owners.filter_map(|(f, is_out)| Some(((*f)?, is_out))) {
                let track = tracks.entry(flow).or_insert_with(|| {
                    let known = self.tracks.get(&flow).copied();
                    before.extend(known.map(|track| (flow, track)));
                    known
                });
                if i < kept_from {
                    landmarks.follow(track, flow, packet, is_out);
                }
            }
        }
        self.tracks.extend(tracks.into_iter().filter_map(|(flow, track)| Some((flow, track?))));
    }

    /// Which of a connection's packets are the batch's own, and from where on they are kept for the next one.
    fn parts(&self, of: &Waiting, share: Share) -> (Range<usize>, usize) {
        let all = of.packets.len();
        let margin = self.batching.margin(all - of.context);
        match share {
            Share::All => (of.context..all, all),
            Share::Most => (of.context..all - margin, (all - margin).saturating_sub(margin)),
        }
    }
}
