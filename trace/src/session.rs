//! What is said of a session at its start and at its end.

use std::path::PathBuf;

use crate::sample::{LossCause, Sampled};

/// What is known of a session at its start.
#[derive(Clone, Debug, Default)]
pub struct SessionStart {
    /// Name of the machine.
    pub host: String,
    /// Release of its kernel.
    pub kernel: String,
    /// Version of the recording program.
    pub tool_version: String,
    /// Its command line.
    pub command: String,
    /// How samples are taken.
    pub backend: String,
    /// Which sockets, in words.
    pub filter: String,
    /// Which segments are sampled.
    pub sampled: Sampled,
    /// The packet capture taken along with it.
    pub capture_path: Option<PathBuf>,
}

/// What is known of a session at its end.
#[derive(Clone, Debug, Default)]
pub struct SessionEnd {
    /// When sampling ended, Unix epoch, where writing what was sampled took longer; else it is now.
    pub ended_ns: Option<i64>,
    /// Packets written to the capture.
    pub capture_packets: Option<u64>,
    /// Packets that the kernel or the interface dropped before the capture.
    pub capture_dropped: Option<u64>,
    /// Losses counted in the kernel by cause; those that left holes in serials are already known by flow.
    pub losses: Vec<(LossCause, u64)>,
    /// Program, runs, ns in all.
    pub costs: Vec<(String, u64, u64)>,
    /// As in [`SessionStart`], where it shows only in the samples.
    pub sampled: Option<Sampled>,
    /// It did not end because someone wished so: what there is of it is in order, and it does not count as complete.
    pub broke_off: bool,
}

/// Figures of a session so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Samples written.
    pub samples: u64,
    /// Flows seen.
    pub flows: u64,
    /// Samples missing, by the holes in the flows' serials.
    pub holes: u64,
}
