//! Flows as a capture shows them: the packets of each, under one pair of addresses, with their matches.
//!
//! Owns that flows are loaded and matched in parallel, each on its own, and that those which are not known by their
//! addresses are looked for. Must not know what is written of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use rayon::prelude::*;
use tcpprobe_trace::join::{Outcome, PacketRow, Translation};
use tcpprobe_trace::reader::{FlowRow, Part, Sacked, SampleRow};

use crate::clocks::Clocks;
use crate::copies;
use crate::hash::{HashMap, HashSet, HashSetExt as _};
use crate::incarnations;
use crate::matching::Found;
use crate::outcomes::{Coverage, outcomes};
use crate::packet::Packet;
use crate::readers::{Counts, Readers};
use crate::reconstruct::{Least, Matched, Samples, match_flow, rows};
use crate::sightings::{FlowPacket, serves};
use crate::tracks::{Landmarks, Track};
use crate::translation::{self, Search, Shifts, Shown, Signatures};

/// Flows that lived farther than this from a capture are not looked for in it: no clock is set as wrong by accident.
const ANOTHER_DAY_NS: i64 = 26 * 3_600_000_000_000;
/// So many samples of flows that the capture does not have by their addresses are read to look for them.
const MOST_SAMPLES: u64 = 20_000_000;
/// In one batch of several.
const MOST_SAMPLES_A_BATCH: u64 = 1_000_000;
/// So many packets of a direction without a sample say that they are not what their addresses say.
const MISFITS: usize = 3;

/// A flow's packets under one pair of addresses.
pub(crate) struct View {
    /// Position of the flow.
    pub(crate) flow: u32,
    pub(crate) packets: Vec<FlowPacket>,
    pub(crate) matched: Matched,
    shifts: Shifts,
    /// Ids of the first and the last sample that were asked for.
    pub(crate) asked: (i64, i64),
}

/// What was found under other addresses or numbers.
#[derive(Debug, Default)]
pub(crate) struct Translated {
    pub(crate) rows: Vec<Translation>,
    /// Packets that more than one flow may have.
    pub(crate) undecided: u64,
    /// Packets without a row of connections that were too many to look at.
    pub(crate) left_out: u64,
    /// Flows that were too many to look for.
    pub(crate) flows_left_out: u64,
    /// Of each packet that was added with other numbers, the position of the captured one.
    pub(crate) shifted_from: Vec<u32>,
}

/// What flows are matched with.
pub(crate) struct Matching<'a> {
    pub(crate) readers: &'a Readers<'a>,
    pub(crate) flows: &'a [FlowRow],
    pub(crate) counts: &'a Counts,
    pub(crate) signatures: &'a Signatures,
    /// Does the capture show packets more than once?
    pub(crate) copies: bool,
    /// Which of the packets are the batch's own.
    pub(crate) own: &'a [bool],
    /// So many pieces of work are not cut further, to be done by several threads.
    pub(crate) uncut: usize,
    /// Where a batch's samples are; `None`: it is the whole capture.
    pub(crate) places: Option<Places<'a>>,
}

/// Where in a trace the samples of a batch are.
#[derive(Clone, Copy)]
pub(crate) struct Places<'a> {
    pub(crate) landmarks: &'a Landmarks,
    /// Where the flows were before its first packet.
    pub(crate) tracks: &'a HashMap<u32, Track>,
    /// Flows that the capture has shown by their addresses up to its end.
    pub(crate) shown: &'a [bool],
}

impl Places<'_> {
    /// The ids of the first and the last sample of a flow that these packets need.
    fn between(&self, flow: u32, all: &[Packet], packets: &[FlowPacket]) -> (i64, i64) {
        let mut at = self.tracks.get(&flow).copied();
        // connections that follow each other under the same addresses are anywhere
        let (mut from, mut to, mut behind) = (at, at, 0);
        for packet in packets {
            let p = &all[packet.index as usize];
            self.landmarks.follow(&mut at, flow, p, packet.is_out);
            behind = at.map_or(0, |at| at.behind(p, packet.is_out)).max(behind);
            from = from.into_iter().chain(at).min_by_key(|t| t.progress());
            to = to.into_iter().chain(at).max_by_key(|t| t.progress());
        }
        match from.zip(to) {
            Some((from, to)) => self.landmarks.between(flow, from, to, behind),
            None => EVERY,
        }
    }
}

/// A flow's packets, and how the capture's numbers differ from its own.
type Dealt = (u32, Vec<FlowPacket>, Shifts);

/// So much is read and matched at once.
const TOGETHER: usize = 512;

/// Neighbours together, until there is enough of them.
pub(crate) fn together<T>(each: Vec<T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut groups, mut sum): (Vec<Vec<T>>, usize) = (Vec::new(), 0);
    for one in each {
        let of_one = size(&one).max(1);
        match groups.last_mut().filter(|_| sum < TOGETHER) {
            Some(group) => group.push(one),
            None => {
                groups.push(vec![one]);
                sum = 0;
            }
        }
        sum += of_one;
    }
    groups
}

/// All samples of a flow.
const EVERY: (i64, i64) = (i64::MIN, i64::MAX);

impl Matching<'_> {
    /// Matches flows by themselves, each with the packets that have its addresses.
    pub(crate) fn by_address(
        &self,
        all: &[Packet],
        dealt: Vec<(u32, Vec<FlowPacket>)>,
    ) -> tcpprobe_trace::Result<Vec<View>> {
        self.views(all, dealt.into_iter().map(|(flow, packets)| (flow, packets, Shifts::default())).collect())
    }

    fn views(&self, all: &[Packet], dealt: Vec<Dealt>) -> tcpprobe_trace::Result<Vec<View>> {
        let groups = together(dealt, |(_, packets, _)| packets.len());
        let groups = groups.into_par_iter().with_min_len(self.uncut).map(|group| {
            let parts: Vec<Part<'_>> = group.iter().map(|(flow, packets, _)| self.part(*flow, all, packets)).collect();
            let samples = self.readers.read(|reader| reader.samples_of(&parts))?;
            let views = group.into_iter().zip(parts).zip(samples).map(|(((flow, packets, shifts), part), rows)| {
                let asked = part.ids;
                let samples = Samples { rows, begins: asked.0 == i64::MIN, ends: asked.1 == i64::MAX };
                let mut matched = match_flow(self.row(flow), samples, all, &packets, self.copies);
                if part.sacked == Sacked::No && matched.lacks_acks(&packets) {
                    self.count_sacked(part, &mut matched.samples)?;
                }
                let (own, found) = incarnations::own(&matched.samples, all, &packets, &matched.found);
                let (packets, found) = (own.into_owned(), found.into_owned());
                matched.found = found;
                Ok(View { flow, packets, matched, shifts, asked })
            });
            views.filter(|v| v.as_ref().map_or(true, |v| !v.packets.is_empty())).collect()
        });
        let groups: tcpprobe_trace::Result<Vec<Vec<View>>> = groups.collect();
        Ok(groups?.into_iter().flatten().collect())
    }

    /// The samples that these packets of a flow need.
    fn part(&self, flow: u32, all: &[Packet], packets: &[FlowPacket]) -> Part<'_> {
        let sacks = |p: &FlowPacket| !p.is_out && !all[p.index as usize].sack.is_empty();
        // of what was acknowledged before the capture began only the samples know
        let begins_late = packets.first().is_some_and(|p| !all[p.index as usize].flags.syn());
        let sacked = match packets.iter().any(sacks) {
            true => Sacked::Segments,
            false if begins_late => Sacked::Count,
            false => Sacked::No,
        };
        let ids = self.places.map_or(EVERY, |places| places.between(flow, all, packets));
        Part { flow: self.row(flow), ids, sacked }
    }

    /// Reads how much was selectively acknowledged, of samples that were read without: an ACK that the capture does not
    /// have may have said so.
    fn count_sacked(&self, part: Part<'_>, samples: &mut [SampleRow]) -> tcpprobe_trace::Result<()> {
        let counted = self.readers.read(|reader| reader.samples_of(&[Part { sacked: Sacked::Count, ..part }]))?;
        for (sample, counted) in samples.iter_mut().zip(counted.into_iter().flatten()) {
            debug_assert_eq!(sample.id, counted.id);
            (sample.sacked_out, sample.mss) = (counted.sacked_out, counted.mss);
        }
        Ok(())
    }

    fn row(&self, flow: u32) -> &FlowRow {
        &self.flows[flow as usize]
    }

    /// Looks for flows under other addresses and numbers. Packets whose numbers were shifted are added to the capture's
    /// as their sockets know them.
    pub(crate) fn translate(&self, all: &mut Vec<Packet>, views: &mut Vec<View>) -> tcpprobe_trace::Result<Translated> {
        let shown: HashMap<u32, Shown> =
            views.iter().map(|v| (v.flow, if v.is_misfit(all) { Shown::Misfit } else { Shown::Fits })).collect();
        let owners = owners(all.len(), views.iter().filter(|v| shown[&v.flow] == Shown::Fits));
        let (connections, beyond) = translation::unknown(all, |index| owners[index as usize].map(known));
        if connections.is_empty() {
            return Ok(Translated::default());
        }
        let search = Search::new(all, &connections);
        let mut fits: Vec<_> = views
            .par_iter()
            .with_min_len(self.uncut)
            .flat_map_iter(|v| search.fits(v.flow, self.row(v.flow), &v.matched.samples, shown[&v.flow]))
            .collect();
        let (absent, flows_left_out) = self.absent(all, &shown, &search)?;
        let of_absent = together(absent, |(_, samples)| *samples as usize);
        let of_absent = of_absent.into_par_iter().with_min_len(self.uncut).map(|group| {
            let whole = |&(flow, _): &(u32, u64)| Part { flow: self.row(flow), ids: EVERY, sacked: Sacked::No };
            let parts: Vec<Part<'_>> = group.iter().map(whole).collect();
            let samples = self.readers.read(|reader| reader.samples_of(&parts))?;
            let each = group.iter().zip(samples);
            Ok(each.flat_map(|((flow, _), s)| search.fits(*flow, self.row(*flow), &s, Shown::Not)).collect::<Vec<_>>())
        });
        let of_absent: tcpprobe_trace::Result<Vec<_>> = of_absent.collect();
        fits.extend(of_absent?.into_iter().flatten());
        let (mut found, undecided) = search.decide(fits);
        found.retain(|f| f.shifts != Shifts::default() || f.addresses != self.addresses(f.flow));

        let mut taken: HashSet<(u32, bool)> =
            found.iter().flat_map(|f| &f.packets).map(|p| (p.index, p.is_out)).collect();
        // of a flow that has these addresses, and other numbers, they may be as little as of any other one
        let mut of_several = 0;
        for c in undecided.iter().map(|&c| &connections[c as usize]).filter(|c| c.owners == [None; 2]) {
            of_several += c.packets.iter().filter(|p| self.is_own(p.index)).count() as u64;
            taken.extend(c.packets.iter().flat_map(|p| [(p.index, true), (p.index, false)]));
        }
        let mut changed = release(views, &taken);
        let own = |f: &translation::Found| f.packets.iter().filter(|p| self.is_own(p.index)).count() as u64;
        let rows = found.iter().map(|f| f.row(self.row(f.flow), own(f))).filter(|t| t.packets > 0).collect();
        let mut shifted_from = Vec::new();
        for mut f in found {
            if f.shifts != Shifts::default() {
                for packet in &mut f.packets {
                    let back = f.shifts.back(&all[packet.index as usize], packet.is_out);
                    shifted_from.push(packet.index);
                    packet.index = all.len() as u32;
                    all.push(back);
                }
            }
            changed.push((f.flow, f.packets, f.shifts));
        }
        views.extend(self.views(all, changed)?);
        views.sort_by_key(|v| (v.flow, v.packets.first().map(|p| all[p.index as usize].number)));
        // what was not compared may still have a row by its addresses
        let with_row: HashSet<u32> = match beyond.is_empty() {
            true => HashSet::new(),
            false => views.iter().flat_map(|v| &v.packets).map(|p| p.index).collect(),
        };
        let unknown = beyond.iter().filter(|c| c.owners == [None; 2]).flat_map(|c| &c.packets);
        let left_out = unknown.filter(|p| self.is_own(p.index) && !with_row.contains(&p.index)).count() as u64;
        Ok(Translated { rows, undecided: of_several, left_out, flows_left_out, shifted_from })
    }

    fn is_own(&self, index: u32) -> bool {
        self.own.get(index as usize).is_some_and(|own| *own)
    }

    fn addresses(&self, flow: u32) -> (SocketAddr, SocketAddr) {
        let row = self.row(flow);
        (row.local, row.remote)
    }

    /// The flows that the capture does not have by their addresses but may have, each with the number of its samples, and
    /// how many more there are.
    fn absent(
        &self,
        all: &[Packet],
        shown: &HashMap<u32, Shown>,
        search: &Search<'_>,
    ) -> tcpprobe_trace::Result<(Vec<(u32, u64)>, u64)> {
        let times = || all.iter().filter_map(|p| p.ts_ns);
        let span = times().min().zip(times().max());
        let most = if self.places.is_some() { MOST_SAMPLES_A_BATCH } else { MOST_SAMPLES };
        let elsewhere = |flow: u32| self.places.is_some_and(|p| p.shown.get(flow as usize).is_some_and(|s| *s));
        let mut here: Vec<u32> = shown.keys().copied().collect();
        here.sort_unstable();
        let mut here = here.into_iter().peekable();
        let mut absent = Vec::new();
        for (row, flow) in self.flows.iter().zip(0u32..) {
            if here.next_if_eq(&flow).is_some() || elsewhere(flow) {
                continue;
            }
            let near = span.is_none_or(|(first, last)| {
                row.first_ns.saturating_sub(last) < ANOTHER_DAY_NS && first.saturating_sub(row.last_ns) < ANOTHER_DAY_NS
            });
            if near {
                absent.push(flow);
            }
        }
        // most flows that a batch does not have come later, by their own addresses: of short ones some numbers tell
        let told = match self.places {
            Some(_) => Some(self.signatures.of(&absent, self.flows, self.readers, self.counts)?),
            None => None,
        };
        let (mut worth, mut left_out, mut samples) = (Vec::new(), 0, 0);
        for flow in absent.into_iter().filter(|&flow| told.is_none_or(|t| t.may_be(flow, search))) {
            let of_flow = self.counts.most(self.readers, self.row(flow).id)?;
            samples += of_flow;
            if samples <= most { worth.push((flow, of_flow)) } else { left_out += 1 }
        }
        Ok((worth, left_out))
    }
}

/// Takes packets, each as its sender or its receiver has it, away from the views that had them by address; what is left
/// of these is to be matched anew.
fn release(views: &mut Vec<View>, taken: &HashSet<(u32, bool)>) -> Vec<(u32, Vec<FlowPacket>, Shifts)> {
    let has = |p: &FlowPacket| taken.contains(&(p.index, p.is_out));
    let concerned: Vec<View> = views.extract_if(.., |v| v.packets.iter().any(has)).collect();
    let left = concerned.into_iter().map(|mut v| {
        v.packets.retain(|p| !has(p));
        (v.flow, v.packets, v.shifts)
    });
    left.filter(|(_, packets, _)| !packets.is_empty()).collect()
}

/// For each packet the flows of its sender's and its receiver's sockets, [`NOBODY`] where it has none.
fn owners<'a>(packets: usize, views: impl Iterator<Item = &'a View>) -> Vec<[u32; 2]> {
    let mut owners = vec![[NOBODY; 2]; packets];
    for view in views {
        for packet in &view.packets {
            owners[packet.index as usize][usize::from(!packet.is_out)] = view.flow;
        }
    }
    owners
}

const NOBODY: u32 = u32::MAX;

fn known(flow: u32) -> Option<u32> {
    (flow != NOBODY).then_some(flow)
}

impl View {
    /// Are there packets of a direction, and samples, and no packet has one?
    fn is_misfit(&self, all: &[Packet]) -> bool {
        [true, false].into_iter().any(|is_out| {
            let of_direction = || self.packets.iter().zip(&self.matched.found).filter(|(p, _)| p.is_out == is_out);
            let of_socket = || of_direction().filter(|(p, _)| !all[p.index as usize].flags.rst());
            of_direction().all(|(_, f)| f.sample().is_none())
                && of_socket().nth(MISFITS - 1).is_some()
                && (0..self.matched.samples.len()).any(|i| serves(&self.matched.samples, i, is_out))
        })
    }

    /// Its rows, with the numbers that the capture has.
    pub(crate) fn rows(&self, flow: &FlowRow, all: &[Packet], clocks: &Clocks) -> (Vec<PacketRow>, Least) {
        let (mut rows, least) = rows(flow, &self.matched, all, &self.packets, clocks);
        let shifted = rows.iter_mut().zip(&self.packets).filter(|_| self.shifts != Shifts::default());
        for (row, packet) in shifted {
            let shifted = self.shifts.forth(&all[packet.index as usize], packet.is_out);
            (row.seq, row.ack) = (shifted.seq, shifted.ack);
        }
        (rows, least)
    }
}

/// What a capture tells of a flow.
pub(crate) struct Account {
    pub(crate) rows: Vec<PacketRow>,
    /// What their delays vary from; nothing where that is not the same for all.
    pub(crate) least: Least,
    /// What became of its samples, by id.
    pub(crate) outcomes: Vec<(i64, Outcome)>,
    /// Ids of the first and the last sample that were looked at.
    pub(crate) asked: (i64, i64),
}

/// The account of a flow, from all its views: a packet seen before and behind a translation is one.
pub(crate) fn account(flow: &FlowRow, views: &[&View], all: &[Packet], clocks: &Clocks, coverage: Coverage) -> Account {
    let (mut rows, mut least) = (Vec::new(), Least::default());
    for view in views {
        let (of_view, of_its) = view.rows(flow, all, clocks);
        rows.extend(of_view);
        least = if views.len() == 1 { of_its } else { least };
    }
    let mut every: Vec<(FlowPacket, Found, usize, usize)> = Vec::with_capacity(rows.len());
    for (view, at) in views.iter().zip(0..) {
        let from = every.len();
        every.extend(view.packets.iter().zip(&view.matched.found).zip(from..).map(|((p, f), row)| (*p, *f, row, at)));
    }
    every.sort_by_key(|(p, ..)| all[p.index as usize].number);
    let of: Vec<usize> = every.iter().map(|e| e.3).collect();
    let packets: Vec<FlowPacket> = every.iter().map(|e| e.0).collect();
    let found: Vec<Found> = every.iter().map(|e| e.1).collect();
    if views.len() > 1 {
        for (copy, (_, _, row, _)) in copies::number(all, &packets, &found, true).into_iter().zip(every) {
            rows[row].copy = copy;
        }
    }
    let mut found = found;
    let merged = same_samples(views, &mut found, &of);
    let samples = merged.as_deref().or(views.first().map(|v| &v.matched.samples[..])).unwrap_or_default();
    let outcomes = outcomes(samples, all, &packets, &found, clocks, coverage);
    let asked = views.iter().map(|v| v.asked);
    let asked = asked.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or(EVERY);
    Account { rows, least, outcomes, asked }
}

/// The samples of views that have not the same ones, as one list, to which `found` is put right; `of` says of which view
/// each is.
fn same_samples(views: &[&View], found: &mut [Found], of: &[usize]) -> Option<Vec<SampleRow>> {
    if views.iter().all(|v| v.asked == views[0].asked) {
        return None;
    }
    let mut merged: Vec<SampleRow> = views.iter().flat_map(|v| v.matched.samples.iter().copied()).collect();
    merged.sort_by_key(|s| (s.serial, s.id));
    merged.dedup_by_key(|s| s.id);
    let place = |view: usize, s: u32| {
        let sample = &views[view].matched.samples[s as usize];
        merged.partition_point(|m| (m.serial, m.id) < (sample.serial, sample.id)) as u32
    };
    for (f, &view) in found.iter_mut().zip(of) {
        *f = match *f {
            Found::Exact(s) => Found::Exact(place(view, s)),
            Found::Within(s) => Found::Within(place(view, s)),
            nothing => nothing,
        };
    }
    Some(merged)
}

/// Views by flow.
pub(crate) fn by_flow(views: &[View]) -> Vec<Vec<&View>> {
    let mut flows: BTreeMap<u32, Vec<&View>> = BTreeMap::new();
    for view in views {
        flows.entry(view.flow).or_default().push(view);
    }
    flows.into_values().collect()
}
