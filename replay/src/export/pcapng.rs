//! A joined capture as pcapng, with the state of its sender beside each packet of a recorded flow.
//!
//! Blocks of a pcapng file are copied as they are; packet blocks get options before those they have. Of a classic
//! capture each record becomes an enhanced packet block. Capture and trace are read side by side, in the order of frame
//! numbers: memory does not grow with them.

mod note;

use std::io::Write;
use std::path::{Path, PathBuf};

pub use note::{ENTERPRISE_NUMBER, columns};

use tcpprobe_trace::columns::Column;
use tcpprobe_trace::packet_states::{JoinedCapture, PacketStates};
use tcpprobe_trace::query::Value;
use tcpprobe_trace::received::ReceivedReader;

use super::tcpprobe::Selection;
use crate::capture::{Block, Capture, CaptureError, Frame, Truncation};

/// Before the columns of a note, for the checks and the order of rows.
const KEYS: [&str; 5] = ["number", "ts_ns", "len", "flow_id", "dir"];
/// A packet has a row for each of two sockets; of more, as of a trace that was tampered with, this many are looked at.
const MAX_ROWS_A_PACKET: usize = 16;

/// What to write.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The capture, by its path as `captures` has it or by its id; `None`: the only one.
    pub capture: Option<String>,
    /// Where its file is now; `None`: where it was when it was joined.
    pub file: Option<PathBuf>,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Packets of the capture.
    pub packets: u64,
    /// Of these, those that got a state, or the reason why they have none.
    pub annotated: u64,
    /// Packets of recorded flows in simple packet blocks, or in blocks without padding, which cannot have options.
    pub without_options: u64,
    /// Rows of a packet beyond those of its sender and its receiver.
    pub rows_left_out: u64,
    /// Values that were not of their column's type.
    pub values_left_out: u64,
    /// The file's incomplete end, which is left out.
    pub truncated: Option<Truncation>,
}

/// Why it was not.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The trace cannot be read.
    #[error(transparent)]
    Trace(#[from] tcpprobe_trace::Error),
    /// The capture cannot be read.
    #[error("{0}; if the file has moved, name it with --pcap FILE")]
    Open(#[source] CaptureError),
    /// The capture is damaged.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The output cannot be written.
    #[error("cannot write the capture: {0}")]
    Write(#[from] std::io::Error),
    /// No capture was joined.
    #[error("{trace}: no capture is joined; join one first: `tcpprobe join {trace} CAPTURE`", trace = trace.display())]
    NoCaptures {
        /// The trace.
        trace: PathBuf,
    },
    /// There is no such capture, or which one is not said.
    #[error("{}: {what}; choose one with --capture: {known}", trace.display())]
    Choose {
        /// The trace.
        trace: PathBuf,
        /// What is wrong.
        what: String,
        /// The captures that there are.
        known: String,
    },
    /// No such flow.
    #[error("{trace}: no flow {flow}; `tcpprobe show {trace}` lists them", trace = trace.display())]
    NoFlow {
        /// The trace.
        trace: PathBuf,
        /// The flow asked for.
        flow: i64,
    },
    /// The file is not the one that was joined.
    #[error("{}: not the capture that was joined: {what}; name the right file with --pcap, or join this one", path.display())]
    Another {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: String,
    },
}

/// Writes a joined capture with states.
///
/// # Errors
/// The trace, the capture or the output fails; the capture is not the one that was joined; the selection names nothing.
pub fn export(trace: &Path, source: &Source, selection: &Selection, out: &mut dyn Write) -> Result<Written, Error> {
    let flows = ReceivedReader::open(trace)?.flows()?;
    let known =
        |id: i64| flows.iter().any(|&(flow, of)| flow == id && selection.session.is_none_or(|session| session == of));
    if let Some(&flow) = selection.flows.iter().find(|id| !known(**id)) {
        return Err(Error::NoFlow { trace: trace.to_owned(), flow });
    }
    let states = PacketStates::open(trace)?;
    let joined = choose(trace, states.captures()?, source.capture.as_deref())?;
    let path = source.file.clone().unwrap_or_else(|| joined.path.clone());
    let capture = Capture::open(&path).map_err(Error::Open)?;
    let columns = columns();
    let mut copy = Copy { capture, path, columns: &columns, rows: Vec::new(), written: Written::default(), out };
    copy.head()?;
    let names: Vec<&str> = KEYS.into_iter().chain(columns.iter().map(|c| c.name)).collect();
    states.each(joined.id, selection.session, &names, |values| copy.row(values, &selection.flows))?;
    copy.until(None)?;
    let written = copy.end(&joined)?;
    out.flush()?;
    Ok(written)
}

fn choose(trace: &Path, captures: Vec<JoinedCapture>, wanted: Option<&str>) -> Result<JoinedCapture, Error> {
    let trace = trace.to_owned();
    let known = captures.iter().map(|c| format!("{} {:?}", c.id, c.path)).collect::<Vec<_>>().join(", ");
    let mut fitting =
        captures.into_iter().filter(|c| wanted.is_none_or(|w| c.path == Path::new(w) || w.parse() == Ok(c.id)));
    match (fitting.next(), fitting.next(), wanted) {
        (Some(one), None, _) => Ok(one),
        (Some(_), Some(_), _) => Err(Error::Choose { trace, what: "more than one capture is meant".into(), known }),
        (None, _, Some(wanted)) => Err(Error::Choose { trace, what: format!("no capture {wanted:?}"), known }),
        (None, _, None) => Err(Error::NoCaptures { trace }),
    }
}

/// A row of `packet_state`.
struct Row {
    number: u64,
    ts_ns: Option<i64>,
    len: i64,
    is_out: bool,
    values: Vec<Value>,
}

/// The capture on its way to the output.
struct Copy<'a> {
    capture: Capture,
    path: PathBuf,
    columns: &'a [Column],
    /// Of one packet, which is not yet written.
    rows: Vec<Row>,
    written: Written,
    out: &'a mut dyn Write,
}

impl Copy<'_> {
    /// What a classic file has in its header.
    fn head(&mut self) -> Result<(), Error> {
        let Some((link, snaplen, unit_ns)) = self.capture.classic() else { return Ok(()) };
        let link =
            u16::try_from(link.0).map_err(|_| self.another(format!("link type {} is none of pcapng", link.0)))?;
        write_section(self.out)?;
        Ok(write_interface(self.out, link, snaplen, unit_ns == 1)?)
    }

    /// Takes a row; those of a packet come one after the other.
    fn row(&mut self, values: &[Value], flows: &[i64]) -> Result<(), Error> {
        let [number, ts_ns, len, flow, dir, values @ ..] = values else { return Ok(()) };
        let integer = |v: &Value| if let Value::Integer(n) = v { Some(*n) } else { None };
        if !flows.is_empty() && !integer(flow).is_some_and(|f| flows.contains(&f)) {
            return Ok(());
        }
        let number = integer(number).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
        let number = number.ok_or_else(|| self.another("the trace has a packet without a number".into()))?;
        if self.rows.last().is_some_and(|r| r.number != number) {
            self.until(Some(number))?;
        }
        if self.rows.len() >= MAX_ROWS_A_PACKET {
            self.written.rows_left_out += 1;
            return Ok(());
        }
        let is_out = matches!(dir, Value::Text(dir) if dir == "out");
        let (ts_ns, len) = (integer(ts_ns), integer(len).unwrap_or(0));
        self.rows.push(Row { number, ts_ns, len, is_out, values: values.to_vec() });
        Ok(())
    }

    /// Copies up to the packet whose rows have been taken, and it with them; without more rows, up to the end.
    fn until(&mut self, next: Option<u64>) -> Result<(), Error> {
        let rows = std::mem::take(&mut self.rows);
        let wanted = rows.first().map(|r| r.number);
        let mut is_met = wanted.is_none();
        while next.is_none() || !is_met {
            let classic = self.capture.classic().map(|(_, _, unit_ns)| unit_ns);
            let Some(block) = self.capture.next_block()? else { break };
            let mut notes = Vec::new();
            if wanted.is_some() && block.number == wanted {
                is_met = true;
                if let Some(what) = difference(&block, &rows) {
                    return Err(self.another(what));
                }
                notes = notes_of(self.columns, &rows, block.is_big_endian, &mut self.written);
            }
            let is_written = match (&block.frame, classic) {
                (Some(frame), Some(unit_ns)) => record(self.out, frame, unit_ns, &notes)?,
                (Some(frame), None) if !notes.is_empty() => annotated(self.out, &block, frame, &notes)?,
                _ => copied(self.out, &block, classic.is_none())?,
            };
            if !notes.is_empty() {
                *if is_written { &mut self.written.annotated } else { &mut self.written.without_options } += 1;
            }
        }
        match wanted {
            Some(number) if !is_met => Err(self.another(format!("it has no packet {number}"))),
            _ => Ok(()),
        }
    }

    fn end(self, joined: &JoinedCapture) -> Result<Written, Error> {
        let summary = self.capture.summary();
        if i64::try_from(summary.packets) != Ok(joined.packets) {
            return Err(self.another(format!("it has {} packets, not {}", summary.packets, joined.packets)));
        }
        Ok(Written { packets: summary.packets, truncated: summary.truncated, ..self.written })
    }

    fn another(&self, what: String) -> Error {
        Error::Another { path: self.path.clone(), what }
    }
}

/// What a packet of the capture has otherwise than its rows.
fn difference(block: &Block<'_>, rows: &[Row]) -> Option<String> {
    let number = block.number.unwrap_or_default();
    let Some(frame) = &block.frame else { return Some(format!("record {number} is no packet")) };
    rows.iter().find_map(|row| {
        if frame.ts_ns.is_some() && frame.ts_ns != row.ts_ns {
            return Some(format!("packet {number} has another time"));
        }
        // big TCP has its length in the frame's
        (row.len > i64::from(frame.orig_len)).then(|| format!("packet {number} is shorter"))
    })
}

/// The options of a packet: the sender's row first; the receiver's as that of the peer, where both are there.
fn notes_of(columns: &[Column], rows: &[Row], is_big_endian: bool, written: &mut Written) -> Vec<u8> {
    let first = |is_out: bool| rows.iter().find(|r| r.is_out == is_out);
    let (main, peer) = match (first(true), first(false)) {
        (Some(sender), receiver) => (Some(sender), receiver),
        (None, receiver) => (receiver, None),
    };
    let used = usize::from(main.is_some()) + usize::from(peer.is_some());
    written.rows_left_out += (rows.len() - used) as u64;
    let mut text = |head, row: &Row| note::words(head, columns, &row.values, &mut written.values_left_out);
    let texts = main.map(|r| text("tcpprobe:", r)).into_iter().chain(peer.map(|r| text("tcpprobe peer:", r)));
    texts.collect::<Vec<_>>().iter().flat_map(|t| note::options(t, is_big_endian)).collect()
}

/// A record of a classic file as an enhanced packet block.
fn record(out: &mut dyn Write, frame: &Frame<'_>, unit_ns: i64, notes: &[u8]) -> std::io::Result<bool> {
    // a classic time is a count of seconds without a sign
    let time = frame.ts_ns.unwrap_or(0).cast_unsigned() / unit_ns.cast_unsigned();
    let end: &[u8] = if notes.is_empty() { &[] } else { &[0; 4] };
    write_packet(out, 0, time, frame.data, frame.orig_len, [notes, end])?;
    Ok(true)
}

/// A packet block with options before those that it has. Returns false where it cannot have any and was copied.
fn annotated(out: &mut dyn Write, block: &Block<'_>, frame: &Frame<'_>, notes: &[u8]) -> std::io::Result<bool> {
    const DATA_AT: usize = 28;
    let kind = match block.bytes.first_chunk() {
        Some(kind) if block.is_big_endian => u32::from_be_bytes(*kind),
        Some(kind) => u32::from_le_bytes(*kind),
        None => 0,
    };
    let options_at = DATA_AT + frame.data.len().next_multiple_of(4);
    let end = block.bytes.len().saturating_sub(4);
    let parts = (block.bytes.get(8..options_at), block.bytes.get(options_at..end));
    // 2: the obsolete packet block, which has the same layout
    let (2 | 6, (Some(before), Some(options))) = (kind, parts) else {
        out.write_all(block.bytes)?;
        return Ok(false);
    };
    let options = if options.is_empty() { &[0; 4] } else { options };
    write_block(out, kind, block.is_big_endian, &[before, notes, options])?;
    Ok(true)
}

/// A block as it is; but the length of its section, which the options change, becomes "not said".
fn copied(out: &mut dyn Write, block: &Block<'_>, is_pcapng: bool) -> std::io::Result<bool> {
    match (block.bytes.get(..16), block.bytes.get(24..)) {
        (Some(head), Some(rest)) if is_pcapng && head.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) => {
            out.write_all(head)?;
            out.write_all(&[0xff; 8])?;
            out.write_all(rest)?;
        }
        _ => out.write_all(block.bytes)?,
    }
    Ok(false)
}

/// Begins a section.
pub(super) fn write_section(out: &mut dyn Write) -> std::io::Result<()> {
    let mut section = 0x1a2b_3c4d_u32.to_le_bytes().to_vec();
    section.extend([1, 0, 0, 0]); // version 1.0
    section.extend([0xff; 8]); // length not said
    write_block(out, 0x0a0d_0d0a, false, &[&section])
}

/// Describes an interface whose times are in nanoseconds, or in microseconds.
pub(super) fn write_interface(out: &mut dyn Write, link: u16, snaplen: u32, is_ns: bool) -> std::io::Result<()> {
    let mut interface = link.to_le_bytes().to_vec();
    interface.extend([0, 0]);
    interface.extend(snaplen.to_le_bytes());
    // if_tsresol: 10 to the power of minus this
    note::option(&mut interface, 9, &[&[if is_ns { 9 } else { 6 }]], false);
    interface.extend([0; 4]);
    write_block(out, 1, false, &[&interface])
}

/// Writes a packet; `time` is in its interface's unit. `options` have their end.
pub(super) fn write_packet(
    out: &mut dyn Write,
    interface: u32,
    time: u64,
    data: &[u8],
    orig_len: u32,
    options: [&[u8]; 2],
) -> std::io::Result<()> {
    let fields = [interface, (time >> 32) as u32, time as u32, data.len() as u32, orig_len];
    let fields: Vec<u8> = fields.iter().flat_map(|n| n.to_le_bytes()).collect();
    let padding = &[0; 3][..data.len().next_multiple_of(4) - data.len()];
    write_block(out, 6, false, &[&fields, data, padding, options[0], options[1]])
}

pub(super) fn write_block(out: &mut dyn Write, kind: u32, is_big_endian: bool, parts: &[&[u8]]) -> std::io::Result<()> {
    let bytes = |n: u32| if is_big_endian { n.to_be_bytes() } else { n.to_le_bytes() };
    let len = 12 + parts.iter().map(|p| p.len()).sum::<usize>();
    let len = bytes(u32::try_from(len).map_err(std::io::Error::other)?);
    out.write_all(&bytes(kind))?;
    out.write_all(&len)?;
    for part in parts {
        out.write_all(part)?;
    }
    out.write_all(&len)
}
