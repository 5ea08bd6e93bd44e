//! Of short flows some numbers, read once: most flows that a batch of a long capture does not have come later, and are
//! not worth another reading of their samples for each batch before.
//!
//! Owns which flows are short; must not know connections.

use std::sync::OnceLock;

use rayon::prelude::*;
use tcpprobe_trace::reader::{FlowRow, Part, Sacked};
use tcpprobe_trace::sample::Sampled;

use super::{Search, index};
use crate::readers::{Counts, Readers};
use crate::views::together;

/// A flow of no more samples is short.
const SHORT: u64 = 32;
/// Numbers of a flow.
const MOST: usize = 16;

/// Read when they are asked for first.
#[derive(Default)]
pub(crate) struct Signatures {
    read: OnceLock<Known>,
}

/// The signatures of flows, by position: each batch asks for nearly all of them, in this order.
pub(crate) struct Known {
    /// Where among all numbers they are, and how many; `None`: the flow's is not known.
    of: Vec<Option<(u32, u8)>>,
    numbers: Vec<u32>,
}

impl Signatures {
    /// Those of the short ones among these flows; asked again, of those that were asked for first.
    pub(crate) fn of(
        &self,
        absent: &[u32],
        flows: &[FlowRow],
        readers: &Readers<'_>,
        counts: &Counts,
    ) -> tcpprobe_trace::Result<&Known> {
        if let Some(known) = self.read.get() {
            return Ok(known);
        }
        let mut short = Vec::new();
        for &flow in absent {
            let row = &flows[flow as usize];
            // where changes alone were sampled few samples are no sign of few packets
            if row.sampled != Sampled::Changes && (1..=SHORT).contains(&counts.most(readers, row.id)?) {
                short.push(flow);
            }
        }
        let read = together(short, |_| 8).into_par_iter().map(|group| {
            let whole =
                |&flow: &u32| Part { flow: &flows[flow as usize], ids: (i64::MIN, i64::MAX), sacked: Sacked::No };
            let parts: Vec<Part<'_>> = group.iter().map(whole).collect();
            let samples = readers.read(|reader| reader.samples_of(&parts))?;
            let signatures = samples.iter().map(|samples| index::signature(samples, MOST));
            Ok(group.into_iter().zip(signatures).collect::<Vec<_>>())
        });
        let read: tcpprobe_trace::Result<Vec<_>> = read.collect();
        let mut known = Known { of: vec![None; flows.len()], numbers: Vec::new() };
        for (flow, signature) in read?.into_iter().flatten() {
            known.of[flow as usize] = Some((known.numbers.len() as u32, signature.len() as u8));
            known.numbers.extend(signature);
        }
        Ok(self.read.get_or_init(|| known))
    }
}

impl Known {
    /// May the flow be among the connections that are looked at? Yes, where its signature is not known.
    pub(crate) fn may_be(&self, flow: u32, search: &Search<'_>) -> bool {
        let Some((from, count)) = self.of[flow as usize] else { return true };
        search.knows(&self.numbers[from as usize..][..usize::from(count)])
    }
}
