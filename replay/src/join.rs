//! The join: from a trace and a capture to one row for each packet and recorded socket, in parallel over batches of the
//! capture and over flows.
//!
//! The rows are the same for any number of threads: what a batch is follows from the capture. One of a single batch is
//! joined as a whole.

mod again;
mod batch;
mod driver;
mod ledger;

use std::collections::BTreeMap;
use std::path::Path;

use rayon::prelude::*;
use tcpprobe_trace::join::{CaptureRow, Match, Outcome, PacketRow, Reason};
use tcpprobe_trace::reader::TraceReader;

use crate::batches::{self, Batcher};
use crate::capture::{Capture, CaptureError, ReadSummary, TcpPackets};
use crate::flows::Dealer;
use crate::hash::{HashMap, HashMapExt as _};

pub use crate::batches::Batching;
pub use crate::readers::Readers;

use driver::Context;

/// Why a join cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The capture cannot be read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The trace cannot be read, or what was found cannot be kept.
    #[error(transparent)]
    Trace(#[from] tcpprobe_trace::Error),
}

impl From<batches::Error> for Error {
    fn from(error: batches::Error) -> Error {
        match error {
            batches::Error::Capture(e) => Error::Capture(e),
            batches::Error::Trace(e) => Error::Trace(e),
        }
    }
}

/// A capture joined to a trace.
#[derive(Debug)]
pub struct Joined {
    /// What the capture is.
    pub capture: CaptureRow,
    /// What was read of it.
    pub read: ReadSummary,
    /// A row for each packet and recorded socket, by frame number.
    pub packets: Vec<PacketRow>,
    /// Rows by match and reason.
    pub counts: BTreeMap<(Match, Option<Reason>), u64>,
    /// TCP packets of recorded flows; smaller than the number of rows where both ends were recorded.
    pub of_recorded_flows: u64,
    /// Flows that were not looked for under other addresses, for there are too many of them.
    pub flows_left_out: u64,
}

/// What a join finds, a part after the other.
#[derive(Debug, Default)]
pub struct Part {
    /// A row for each packet and recorded socket, by flow and frame number. A connection's are behind those of the parts
    /// before.
    pub packets: Vec<PacketRow>,
    /// Samples without a packet of flows that the capture has, but for those outside its time; by sample.
    pub packetless: Vec<(i64, Outcome)>,
}

/// Joins a capture to a trace; changes neither. All that was found is in memory then.
///
/// # Errors
/// The capture or the trace cannot be read.
pub fn join(trace: &Path, capture: &Path, batching: Batching) -> Result<Joined, Error> {
    let mut all = Part::default();
    let mut joined = join_in_parts(trace, capture, batching, |part| {
        all.packets.extend(part.packets);
        all.packetless.extend(part.packetless);
        Ok(())
    })?;
    all.packetless.sort_unstable();
    all.packets.par_sort_unstable_by_key(|r| (r.number, r.flow_id, !r.is_out));
    (joined.packets, joined.capture.packetless) = (all.packets, all.packetless);
    Ok(joined)
}

/// [`join`] without keeping rows: `take` gets them while the join goes on. What is returned has none.
///
/// # Errors
/// As there, or what `take` says.
pub fn join_in_parts(
    trace: &Path,
    capture: &Path,
    batching: Batching,
    take: impl FnMut(Part) -> tcpprobe_trace::Result<()>,
) -> Result<Joined, Error> {
    join_capture_in_parts(&Readers::new(trace), Capture::open(capture)?, batching, take)
}

/// The same of a capture that was opened already: by a reader that counts what is read, for instance.
///
/// # Errors
/// As there.
pub fn join_capture_in_parts(
    readers: &Readers<'_>,
    capture: Capture,
    batching: Batching,
    mut take: impl FnMut(Part) -> tcpprobe_trace::Result<()>,
) -> Result<Joined, Error> {
    let flows = readers.read(TraceReader::flows)?;
    let path = capture.path().to_owned();
    let source = TcpPackets::new(capture);
    let dealer = Dealer::new(&flows);
    let mut shared = HashMap::new();
    for flow in dealer.shared().collect::<Vec<_>>() {
        shared.insert(flow, readers.read(|reader| reader.samples(flows[flow as usize].id))?);
    }
    let context = Context::new(readers, &path, &flows)?;
    let batcher = Batcher::new(source, dealer, shared, batching, &context.spare, Box::new(|| context.landmarks()));
    driver::run(&context, batcher, &mut take)
}
