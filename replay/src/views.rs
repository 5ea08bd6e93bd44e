//! Flows as a capture shows them: the packets of each, under one pair of addresses, with their matches.
//!
//! Owns that flows are loaded and matched in parallel, each on its own, and that those which are not known by their
//! addresses are looked for. Must not know what is written of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;

use rayon::prelude::*;
use tcpprobe_trace::join::{Outcome, PacketRow, Translation};
use tcpprobe_trace::reader::{FlowRow, SampleRow, TraceReader};

use crate::clocks::Clocks;
use crate::copies;
use crate::incarnations;
use crate::matching::Found;
use crate::outcomes::{Coverage, outcomes};
use crate::packet::Packet;
use crate::reconstruct::{Matched, match_flow, rows};
use crate::sightings::{FlowPacket, serves};
use crate::translation::{self, Search, Shifts, Shown};

/// Flows that lived farther than this from a capture are not looked for in it: no clock is set as wrong by accident.
const ANOTHER_DAY_NS: i64 = 26 * 3_600_000_000_000;
/// So many samples of flows that the capture does not have by their addresses are read to look for them.
const MOST_SAMPLES: u64 = 20_000_000;
/// So many packets of a direction without a sample say that they are not what their addresses say.
const MISFITS: usize = 3;

/// A flow's packets under one pair of addresses.
pub(crate) struct View {
    /// Position of the flow.
    pub(crate) flow: u32,
    pub(crate) packets: Vec<FlowPacket>,
    pub(crate) matched: Matched,
    shifts: Shifts,
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
}

/// What flows are matched with.
pub(crate) struct Matching<'a> {
    pub(crate) trace: &'a Path,
    pub(crate) flows: &'a [FlowRow],
    /// Does the capture show packets more than once?
    pub(crate) copies: bool,
}

impl Matching<'_> {
    /// Matches flows by themselves, each with the packets that have its addresses.
    pub(crate) fn by_address(
        &self,
        all: &[Packet],
        dealt: Vec<(u32, Vec<FlowPacket>)>,
    ) -> tcpprobe_trace::Result<Vec<View>> {
        self.views(all, dealt.into_iter().map(|(flow, packets)| (flow, packets, Shifts::default())).collect())
    }

    fn views(&self, all: &[Packet], dealt: Vec<(u32, Vec<FlowPacket>, Shifts)>) -> tcpprobe_trace::Result<Vec<View>> {
        let each = dealt.into_par_iter().map_init(
            // a connection to the trace for each thread: SQLite's are not shared
            || TraceReader::open(self.trace),
            |reader, (flow, packets, shifts)| {
                let sacks = |p: &FlowPacket| !p.is_out && !all[p.index as usize].sack.is_empty();
                // of what was acknowledged before the capture began only the samples know
                let begins_late = packets.first().is_some_and(|p| !all[p.index as usize].flags.syn());
                let is_sacked = begins_late || packets.iter().any(sacks);
                let samples = self.samples(reader, flow, is_sacked)?;
                let mut matched = match_flow(self.row(flow), samples, all, &packets, self.copies);
                let (own, found) = incarnations::own(&matched.samples, all, &packets, &matched.found);
                let (packets, found) = (own.into_owned(), found.into_owned());
                matched.found = found;
                Ok(View { flow, packets, matched, shifts })
            },
        );
        let mut views: Vec<View> = each.collect::<tcpprobe_trace::Result<_>>()?;
        views.retain(|v| !v.packets.is_empty());
        Ok(views)
    }

    fn row(&self, flow: u32) -> &FlowRow {
        &self.flows[flow as usize]
    }

    /// The samples of a flow; `is_sacked`: also what its peer selectively acknowledged.
    fn samples(
        &self,
        reader: &tcpprobe_trace::Result<TraceReader>,
        flow: u32,
        is_sacked: bool,
    ) -> tcpprobe_trace::Result<Vec<SampleRow>> {
        let again;
        let reader = match reader {
            Ok(reader) => reader,
            Err(_) => {
                again = TraceReader::open(self.trace)?;
                &again
            }
        };
        let mut samples = reader.samples(self.row(flow).id)?;
        if is_sacked {
            reader.read_sacked(self.row(flow).id, &mut samples)?;
        }
        Ok(samples)
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
            .flat_map_iter(|v| search.fits(v.flow, self.row(v.flow), &v.matched.samples, shown[&v.flow]))
            .collect();
        let (absent, flows_left_out) = self.absent(all, &shown)?;
        let of_absent = absent.par_iter().map_init(
            || TraceReader::open(self.trace),
            |reader, &flow| Ok(search.fits(flow, self.row(flow), &self.samples(reader, flow, false)?, Shown::Not)),
        );
        let of_absent: tcpprobe_trace::Result<Vec<_>> = of_absent.collect();
        fits.extend(of_absent?.into_iter().flatten());
        let (mut found, undecided) = search.decide(fits);
        found.retain(|f| f.shifts != Shifts::default() || f.addresses != self.addresses(f.flow));

        let mut taken: HashSet<(u32, bool)> =
            found.iter().flat_map(|f| &f.packets).map(|p| (p.index, p.is_out)).collect();
        // of a flow that has these addresses, and other numbers, they may be as little as of any other one
        let mut of_several = 0;
        for c in undecided.iter().map(|&c| &connections[c as usize]).filter(|c| c.owners == [None; 2]) {
            of_several += c.packets.len() as u64;
            taken.extend(c.packets.iter().flat_map(|p| [(p.index, true), (p.index, false)]));
        }
        let mut changed = release(views, &taken);
        let rows = found.iter().map(|f| f.row(self.row(f.flow))).collect();
        for mut f in found {
            if f.shifts != Shifts::default() {
                for packet in &mut f.packets {
                    let back = f.shifts.back(&all[packet.index as usize], packet.is_out);
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
        let left_out = unknown.filter(|p| !with_row.contains(&p.index)).count() as u64;
        Ok(Translated { rows, undecided: of_several, left_out, flows_left_out })
    }

    fn addresses(&self, flow: u32) -> (SocketAddr, SocketAddr) {
        let row = self.row(flow);
        (row.local, row.remote)
    }

    /// The flows that the capture does not have by their addresses but may have, and how many more there are.
    fn absent(&self, all: &[Packet], shown: &HashMap<u32, Shown>) -> tcpprobe_trace::Result<(Vec<u32>, u64)> {
        let times = || all.iter().filter_map(|p| p.ts_ns);
        let span = times().min().zip(times().max());
        let counts: HashMap<i64, u64> = TraceReader::open(self.trace)?.samples_by_flow()?.into_iter().collect();
        let (mut absent, mut left_out, mut samples) = (Vec::new(), 0, 0);
        for (row, flow) in self.flows.iter().zip(0u32..) {
            let near = span.is_none_or(|(first, last)| {
                row.first_ns.saturating_sub(last) < ANOTHER_DAY_NS && first.saturating_sub(row.last_ns) < ANOTHER_DAY_NS
            });
            if shown.contains_key(&flow) || !near {
                continue;
            }
            samples += counts.get(&row.id).copied().unwrap_or(0);
            if samples <= MOST_SAMPLES { absent.push(flow) } else { left_out += 1 }
        }
        Ok((absent, left_out))
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
            let of_socket = of_direction().filter(|(p, _)| !all[p.index as usize].flags.rst()).count();
            of_socket >= MISFITS
                && of_direction().all(|(_, f)| f.sample().is_none())
                && (0..self.matched.samples.len()).any(|i| serves(&self.matched.samples, i, is_out))
        })
    }

    /// Its rows, with the numbers that the capture has.
    pub(crate) fn rows(&self, flow: &FlowRow, all: &[Packet], clocks: &Clocks) -> Vec<PacketRow> {
        let mut rows = rows(flow, &self.matched, all, &self.packets, clocks);
        for (row, packet) in rows.iter_mut().zip(&self.packets) {
            let shifted = self.shifts.forth(&all[packet.index as usize], packet.is_out);
            (row.seq, row.ack) = (shifted.seq, shifted.ack);
        }
        rows
    }
}

/// What a capture tells of a flow.
pub(crate) struct Account {
    pub(crate) rows: Vec<PacketRow>,
    /// What became of its samples, and which have no packet.
    pub(crate) samples: BTreeMap<Outcome, u64>,
    pub(crate) packetless: Vec<(i64, Outcome)>,
}

/// The account of a flow, from all its views: a packet seen before and behind a translation is one.
pub(crate) fn account(flow: &FlowRow, views: &[&View], all: &[Packet], clocks: &Clocks, coverage: Coverage) -> Account {
    let mut rows: Vec<PacketRow> = views.iter().flat_map(|v| v.rows(flow, all, clocks)).collect();
    let mut every: Vec<(FlowPacket, Found, usize)> = Vec::with_capacity(rows.len());
    for view in views {
        let from = every.len();
        every.extend(view.packets.iter().zip(&view.matched.found).zip(from..).map(|((p, f), row)| (*p, *f, row)));
    }
    every.sort_by_key(|(p, _, _)| all[p.index as usize].number);
    let packets: Vec<FlowPacket> = every.iter().map(|e| e.0).collect();
    let found: Vec<Found> = every.iter().map(|e| e.1).collect();
    if views.len() > 1 {
        for (copy, (_, _, row)) in copies::number(all, &packets, &found, true).into_iter().zip(every) {
            rows[row].copy = copy;
        }
    }
    let samples = views.first().map_or(&[][..], |v| &v.matched.samples);
    let (samples, packetless) = outcomes(samples, all, &packets, &found, clocks, coverage);
    Account { rows, samples, packetless }
}

/// Views by flow.
pub(crate) fn by_flow(views: &[View]) -> Vec<Vec<&View>> {
    let mut flows: BTreeMap<u32, Vec<&View>> = BTreeMap::new();
    for view in views {
        flows.entry(view.flow).or_default().push(view);
    }
    flows.into_values().collect()
}
