//! From capture files to TCP segments: every frame becomes a packet or is counted.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Capture, CaptureError, CaptureSummary};
use crate::packet::{Decoded, Packet, SkipReason, decode};

/// What became of a capture's frames: `capture.packets` = `tcp_packets` + `not_tcp` + all of `skipped`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadSummary {
    /// What the capture file tells of itself, with the number of all frames.
    pub capture: CaptureSummary,
    /// Frames with a TCP segment.
    pub tcp_packets: u64,
    /// Frames that are certainly something else.
    pub not_tcp: u64,
    /// Frames that could not be read up to TCP, by reason; reasons without frames are absent.
    pub skipped: BTreeMap<SkipReason, u64>,
    /// The earliest time of any frame in ns since the Unix epoch, which need not be the first one's.
    pub first_ts_ns: Option<i64>,
    /// The latest time of any frame, likewise.
    pub last_ts_ns: Option<i64>,
}

/// The TCP segments of a capture, one by one in the file's order.
#[derive(Debug)]
pub struct TcpPackets {
    capture: Capture,
    tcp_packets: u64,
    not_tcp: u64,
    skipped: BTreeMap<SkipReason, u64>,
    span_ns: Option<(i64, i64)>,
}

impl TcpPackets {
    /// Opens a capture file.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        Capture::open(path).map(Self::new)
    }

    /// The segments of a capture that is already open, from its next frame on.
    pub fn new(capture: Capture) -> Self {
        Self { capture, tcp_packets: 0, not_tcp: 0, skipped: BTreeMap::new(), span_ns: None }
    }

    /// What was read so far; complete once the iteration has ended.
    pub fn summary(&self) -> ReadSummary {
        ReadSummary {
            capture: self.capture.summary(),
            tcp_packets: self.tcp_packets,
            not_tcp: self.not_tcp,
            skipped: self.skipped.clone(),
            first_ts_ns: self.span_ns.map(|(first, _)| first),
            last_ts_ns: self.span_ns.map(|(_, last)| last),
        }
    }

    fn next_packet(&mut self) -> Result<Option<Packet>, CaptureError> {
        while let Some(frame) = self.capture.next_frame()? {
            if let Some(ts_ns) = frame.ts_ns {
                let (first, last) = self.span_ns.unwrap_or((ts_ns, ts_ns));
                self.span_ns = Some((first.min(ts_ns), last.max(ts_ns)));
            }
            match decode(frame.link, frame.data, frame.orig_len) {
                Decoded::Tcp(segment) => {
                    self.tcp_packets += 1;
                    let interface = segment.interface.or(frame.interface);
                    return Ok(Some(Packet { interface, ..segment.at(frame.number, frame.ts_ns) }));
                }
                Decoded::NotTcp => self.not_tcp += 1,
                Decoded::Skipped(reason) => *self.skipped.entry(reason).or_default() += 1,
            }
        }
        Ok(None)
    }
}

impl Iterator for TcpPackets {
    type Item = Result<Packet, CaptureError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_packet().transpose()
    }
}

/// Reads all TCP segments of a capture file, 144 bytes of memory each.
pub fn read_tcp(path: &Path) -> Result<(Vec<Packet>, ReadSummary), CaptureError> {
    let mut packets = TcpPackets::open(path)?;
    let all = packets.by_ref().collect::<Result<_, _>>()?;
    Ok((all, packets.summary()))
}
