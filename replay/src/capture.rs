//! Capture files: classic pcap and pcapng in, numbered frames out, as a stream.
//!
//! Knows file formats, byte orders and time resolutions; of what is in a frame it knows nothing but the link type.
//! Only [`read_tcp`] and [`TcpPackets`] join it to [`crate::packet`].

mod classic;
mod error;
mod packed;
mod pcapng;
mod source;
mod tcp;

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use error::CaptureError;
pub use tcp::{ReadSummary, TcpPackets, read_tcp};

use classic::Classic;
use error::Fault;
use packed::{Cut, unpack};
use pcapng::Pcapng;
use source::Source;

use crate::packet::LinkType;

/// The longest record or block that is read, in bytes. The longest frame of Linux (BIG TCP) stays below 1 MiB; a
/// file that claims more than this is damaged.
pub const MAX_RECORD_LEN: u32 = 64 << 20;

/// One frame of a capture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Number over the whole file, from 1, as Wireshark shows it.
    pub number: u64,
    /// Capture time in ns since the Unix epoch. `None`: the file has none for this frame, or one outside of the years
    /// 1677 to 2262. Resolutions below 1 ns are cut, not rounded.
    pub ts_ns: Option<i64>,
    /// Link type of the interface that captured it.
    pub link: LinkType,
    /// Number of that interface, counted over the sections of a pcapng file. `None`: the file has described one
    /// interface at most so far.
    pub interface: Option<u32>,
    /// Length on the wire in bytes, as the file says.
    pub orig_len: u32,
    /// The captured bytes: all, or the first ones where the capture had a snaplen.
    pub data: &'a [u8],
}

/// A record or block of a capture as it is in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block<'a> {
    /// All of its bytes.
    pub(crate) bytes: &'a [u8],
    /// Its number, where it has one as frames have.
    pub(crate) number: Option<u64>,
    /// The frame in it.
    pub(crate) frame: Option<Frame<'a>>,
    /// Byte order of its section; false in a classic file.
    pub(crate) is_big_endian: bool,
}

/// The two kinds of capture files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Classic pcap, as tcpdump writes it.
    Pcap,
    /// pcapng, as Wireshark and dumpcap write it.
    Pcapng,
}

/// Where a file ends in the middle of a record, as after a crash or while it is still being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncation {
    /// Byte offset at which the incomplete record starts.
    pub offset: u64,
    /// Number of the last complete frame; 0 if there is none.
    pub after_frame: u64,
}

/// What a capture held, as far as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CaptureSummary {
    /// Kind of file.
    pub format: Format,
    /// Frames read.
    pub packets: u64,
    /// Records that Wireshark numbers like frames but that hold no packet (journal entries, custom blocks).
    pub other_records: u64,
    /// Link type of the first interface; `None`: no interface was described.
    pub link_type: Option<LinkType>,
    /// Snaplen of the first interface in bytes, 0 for no limit; `None` as for `link_type`.
    pub snaplen: Option<u32>,
    /// The file's incomplete end, if it has one.
    pub truncated: Option<Truncation>,
    /// Packets that the interfaces dropped, by the file's last statistics; `None`: the file has no such statistics.
    pub if_dropped: Option<u64>,
    /// Packets that the capturing system dropped; `None` as for `if_dropped`.
    pub os_dropped: Option<u64>,
}

/// A capture file that is being read.
#[derive(Debug)]
pub struct Capture {
    path: PathBuf,
    source: Source,
    decoder: Decoder,
    /// Number of the last frame or other numbered record.
    number: u64,
    packets: u64,
    truncated: Option<Truncation>,
    /// Of a compressed file.
    cut: Cut,
    done: bool,
}

#[derive(Debug)]
enum Decoder {
    Classic(Classic),
    Pcapng(Pcapng),
}

/// What a decoder found at the source's front, which it leaves there. `len` is the whole record's length.
#[derive(Debug)]
enum Step {
    Frame(Record),
    /// A record with a number but without a packet.
    Other {
        len: usize,
    },
    /// Part of the file's own bookkeeping.
    Bookkeeping {
        len: usize,
    },
    Truncated,
    End,
}

impl Step {
    fn len(&self) -> usize {
        match self {
            Step::Frame(record) => record.len,
            Step::Other { len } | Step::Bookkeeping { len } => *len,
            Step::Truncated | Step::End => 0,
        }
    }
}

#[derive(Debug)]
struct Record {
    len: usize,
    data: Range<usize>,
    ts_ns: Option<i64>,
    link: LinkType,
    interface: Option<u32>,
    orig_len: u32,
}

impl Capture {
    /// Opens a capture file and reads its header.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        let file = File::open(path).map_err(|source| CaptureError::Io { path: path.to_owned(), source })?;
        Self::from_reader(Box::new(file), path)
    }

    /// Reads a capture from anything, a pipe for example. `path` is what errors call it. Compressed ones (gzip,
    /// Zstandard) are unpacked; offsets are those in what they unpack to.
    pub fn from_reader(reader: Box<dyn Read + Send>, path: &Path) -> Result<Self, CaptureError> {
        let (reader, cut) = unpack(reader).map_err(|source| CaptureError::Io { path: path.to_owned(), source })?;
        let mut source = Source::new(reader);
        let decoder = Self::detect(&mut source, path, &cut)?;
        Ok(Self { path: path.to_owned(), source, decoder, number: 0, packets: 0, truncated: None, cut, done: false })
    }

    /// What it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn detect(source: &mut Source, path: &Path, cut: &Cut) -> Result<Decoder, CaptureError> {
        let read = |fault: Fault| fault.at(path, 0, 0);
        // Enough for every magic number, and for the hint on what else the file may be.
        source.fill(16).map_err(|error| read(error.into()))?;
        let start = source.data();
        match start.first_chunk() {
            None if cut.is_cut() => Err(read(Fault::Corrupt("the compressed file ends before its first frame".into()))),
            None if start.is_empty() => Err(CaptureError::Empty { path: path.to_owned() }),
            Some(magic) if Classic::has_magic(*magic) => Classic::open(source).map(Decoder::Classic).map_err(read),
            Some(&pcapng::MAGIC) => Pcapng::open(source).map(Decoder::Pcapng).map_err(read),
            _ => Err(CaptureError::not_a_capture(path, start)),
        }
    }

    /// The next frame, or `None` at the end of the file. An incomplete last record is no error but the end, and
    /// [`summary`](Self::summary) tells of it. After an error there are no more frames.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        let record = loop {
            match self.step()? {
                None => return Ok(None),
                Some(Step::Frame(record)) => break record,
                Some(step) => {
                    self.source.take(step.len());
                }
            }
        };
        let Record { len, data, ts_ns, link, interface, orig_len } = record;
        let data = self.source.take(len).get(data).unwrap_or_default();
        Ok(Some(Frame { number: self.number, ts_ns, link, interface, orig_len, data }))
    }

    /// The next record as it is in the file, whether it is a frame or not; otherwise as
    /// [`next_frame`](Self::next_frame). The header of a classic file is none.
    pub(crate) fn next_block(&mut self) -> Result<Option<Block<'_>>, CaptureError> {
        let Some(step) = self.step()? else { return Ok(None) };
        let number = self.number;
        let len = step.len();
        let is_numbered = !matches!(step, Step::Bookkeeping { .. });
        let is_big_endian = matches!(&self.decoder, Decoder::Pcapng(pcapng) if pcapng.is_big_endian());
        let bytes = self.source.take(len);
        let frame = match step {
            Step::Frame(r) => Some(Frame {
                number,
                ts_ns: r.ts_ns,
                link: r.link,
                interface: r.interface,
                orig_len: r.orig_len,
                data: bytes.get(r.data).unwrap_or_default(),
            }),
            _ => None,
        };
        Ok(Some(Block { bytes, number: is_numbered.then_some(number), frame, is_big_endian }))
    }

    /// Link type, snaplen and ns per unit of time of a classic file; `None`: it is pcapng.
    pub(crate) fn classic(&self) -> Option<(LinkType, u32, i64)> {
        match &self.decoder {
            Decoder::Classic(classic) => Some((classic.link(), classic.snaplen(), classic.unit_ns())),
            Decoder::Pcapng(_) => None,
        }
    }

    /// Finds the next record, which stays at the source's front, and counts it; `None` at the end.
    fn step(&mut self) -> Result<Option<Step>, CaptureError> {
        if self.done {
            return Ok(None);
        }
        let step = match &mut self.decoder {
            Decoder::Classic(classic) => classic.step(&mut self.source),
            Decoder::Pcapng(pcapng) => pcapng.step(&mut self.source),
        };
        match step {
            Ok(Step::Frame(record)) => {
                self.number += 1;
                self.packets += 1;
                Ok(Some(Step::Frame(record)))
            }
            Ok(Step::Other { len }) => {
                self.number += 1;
                Ok(Some(Step::Other { len }))
            }
            Ok(step @ Step::Bookkeeping { .. }) => Ok(Some(step)),
            // a packed file may be cut where a record ends
            step @ (Ok(Step::Truncated) | Ok(Step::End)) => {
                self.done = true;
                if !matches!(step, Ok(Step::End)) || self.cut.is_cut() {
                    self.truncated = Some(Truncation { offset: self.source.offset(), after_frame: self.number });
                }
                Ok(None)
            }
            Err(fault) => {
                self.done = true;
                Err(fault.at(&self.path, self.source.offset(), self.number + 1))
            }
        }
    }

    /// What was read so far; complete once [`next_frame`](Self::next_frame) gave `None`.
    pub fn summary(&self) -> CaptureSummary {
        let (format, first, if_dropped, os_dropped) = match &self.decoder {
            Decoder::Classic(classic) => (Format::Pcap, Some((classic.link(), classic.snaplen())), None, None),
            Decoder::Pcapng(pcapng) => {
                let (if_dropped, os_dropped) = pcapng.dropped();
                (Format::Pcapng, pcapng.first_interface(), if_dropped, os_dropped)
            }
        };
        CaptureSummary {
            format,
            packets: self.packets,
            other_records: self.number - self.packets,
            link_type: first.map(|(link, _)| link),
            snaplen: first.map(|(_, snaplen)| snaplen),
            truncated: self.truncated,
            if_dropped,
            os_dropped,
        }
    }
}
